"""Quality: whether labels agree with the real data, and whether held-out rows leaked in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import TrainingError
from cuvee.fingerprint import derive_seed
from cuvee.measure.intervals import estimate_rate
from cuvee.measure.subject import Subject
from cuvee.probe import cross_validated_proba, fit_probe
from cuvee.records import Estimate


def measure_label_agreement(subject: Subject) -> Estimate | None:
    """Fraction of rows whose label is what a probe fitted on the real training rows says.

    Where the corpus *is* the real data, the probe is cross-validated (5 folds, groups kept together), which
    gives the agreement to compare a pool's with. A label that the real data lacks never agrees. None for
    tasks without labels, or where the real data has rows of one label only.
    """
    real = subject.real
    if subject.corpus.task != "classification" or len(real.labels) < 2:
        return None
    seed = derive_seed(subject.seed, "label-agreement")
    try:
        said = _predict_own(subject, seed) if subject.is_real else _predict_pool(subject, seed)
    except TrainingError:  # too few real rows to hold some out
        return None
    hits: NDArray[np.bool_] = np.array(said) == np.array(subject.corpus.targets)
    how = "cross-validated" if subject.is_real else "fitted on the real rows"
    return estimate_rate(subject, hits, {"probe": how, "probe_rows": len(real)})


def measure_leakage(subject: Subject) -> Estimate | None:
    """Fraction of rows that repeat a held-out text, by words or by embedding (see ``find_leaks``).

    The setting ``baseline`` is the same fraction of the real training rows. None without held-out texts.
    """
    if not subject.held_out:
        return None
    leaks = subject.leaks
    settings: dict[str, str | float] = {"held_out": len(subject.held_out)}
    if leaks.threshold is not None:
        settings["threshold"] = leaks.threshold
    if leaks.baseline is not None:
        settings["baseline"] = leaks.baseline
    return estimate_rate(subject, leaks.mask, settings)


def _predict_pool(subject: Subject, seed: int) -> list[str]:
    probe = fit_probe(subject.against_unit, subject.real.targets, seed=seed)
    return probe.predict(subject.unit)


def _predict_own(subject: Subject, seed: int) -> list[str]:
    corpus = subject.corpus
    proba = cross_validated_proba(subject.unit, corpus.targets, groups=corpus.groups, seed=seed)
    return [corpus.labels[i] for i in proba.argmax(axis=1)]
