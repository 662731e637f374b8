"""Quality of rows: labels against the real data, usable text, and held-out rows that leaked in."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cuvee.defects import degenerate_reasons
from cuvee.errors import TrainingError
from cuvee.fingerprint import derive_seed
from cuvee.measure.intervals import estimate_hits, estimate_two_samples, means_without
from cuvee.measure.subject import Subject
from cuvee.probe import cross_validated_proba, fit_probe
from cuvee.records import Estimate

Floats = NDArray[np.float64]
LEAST_POWER = 0.2  # below, the probe knows too little of the labels to say


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
    return estimate_hits(subject, hits, {"probe": how, "probe_rows": len(real)})


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
    return estimate_hits(subject, leaks.mask, settings)


def _predict_pool(subject: Subject, seed: int) -> list[str]:
    probe = fit_probe(subject.against_unit, subject.real.targets, seed=seed)
    return probe.predict(subject.unit)


def _predict_own(subject: Subject, seed: int) -> list[str]:
    corpus = subject.corpus
    proba = cross_validated_proba(subject.unit, corpus.targets, groups=corpus.groups, seed=seed)
    return [corpus.labels[i] for i in proba.argmax(axis=1)]


def measure_degenerate_rate(subject: Subject) -> Estimate:
    """Fraction of rows that are empty, broken, refused, error messages, repetition and so on (``degenerate_reasons``).

    Where real rows are given, rows that are cut off or in another language than those count too. The settings hold
    the number of rows of each reason that occurs.
    """
    reference = None if subject.against is None else subject.against.texts
    reasons = degenerate_reasons(subject.corpus.texts, reference=reference)
    counts = Counter(reason for reason in reasons if reason is not None)
    settings: dict[str, str | float] = {"reference_rows": 0 if reference is None else len(reference)}
    settings |= {reason: float(count) for reason, count in sorted(counts.items())}
    return estimate_hits(subject, np.array([reason is not None for reason in reasons]), settings)


# --- label noise ---
def measure_label_noise(subject: Subject) -> Estimate | None:
    """Estimated fraction of rows that are mislabelled, by a probe of the real rows.

    Confident learning (Northcutt et al., arXiv 1911.00068): a label is doubted where another one is at least as
    probable as it is, on average, for the rows that carry it, and more probable than all such labels. The thresholds
    are those averages over the real rows, cross-validated. Doubt is not noise, so it is calibrated (Rogan and Gladen
    1978, Am. J. Epidemiol. 107): with the rate of doubt on the real rows as they are (``false_alarms``) and with
    another label in their place (``power``), noise is ``(doubted - false alarms) / (power - false alarms)``, cut to
    0 to 1. It takes the real labels as right, wrong labels as drawn evenly, and the rows as about as hard as the
    real ones. A label that the real data lacks is wrong. The interval holds the probe fixed; there is none where
    all of it lies below 0, as with rows whose labels are doubted less often than real ones.

    None for tasks without labels, where the corpus is the real data, and where the probe hardly doubts wrong labels
    more often than right ones.
    """
    real = subject.real
    if subject.corpus.task != "classification" or len(real.labels) < 2 or subject.is_real:
        return None
    try:
        doubts = _find_doubts(subject)
    except TrainingError:  # too few real rows to hold some out
        return None
    alarms, power = float(doubts.false_alarms.mean()), float(doubts.power.mean())
    if power - alarms < LEAST_POWER:
        return None
    known = np.isin(subject.corpus.targets, real.labels)
    rows = np.where(known, (doubts.doubted - alarms) / (power - alarms), 1.0)
    raw = float(rows.mean())
    share, doubted = float(known.mean()), float(np.where(known, doubts.doubted, 0.0).mean())

    def without_theirs() -> Floats:
        left = means_without(doubts.false_alarms, subject.against_bins)
        gain = means_without(doubts.power, subject.against_bins) - left
        out: Floats = 1.0 - share + (doubted - share * left) / np.where(gain > 0, gain, np.nan)
        return out

    settings: dict[str, str | float] = {
        "doubted": float(np.where(known, doubts.doubted, 1.0).mean()),
        "false_alarms": alarms,
        "power": power,
        "unknown_labels": 1.0 - share,
        "probe_rows": len(real),
    }
    found = estimate_two_samples(subject, raw, lambda: (means_without(rows, subject.bins), without_theirs()), settings)
    # cut only here: the values without each bin must be free to vary about the raw one
    value = float(np.clip(raw, 0.0, 1.0))
    if found.low is None or found.high is None:
        return replace(found, value=value)
    if found.high <= 0.0 or found.low >= 1.0:  # easier rows than the real ones: an interval of no width would mislead
        return replace(found, value=value, low=None, high=None, interval="")
    return replace(found, value=value, low=max(0.0, found.low), high=min(1.0, found.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Doubts:
    """``doubted`` (n,): 1 where a row's label is doubted. Of each real row (m,): ``false_alarms``, the same, and
    ``power``, the share of the wrong labels that would be doubted on it.
    """

    doubted: Floats
    false_alarms: Floats
    power: Floats


def _find_doubts(subject: Subject) -> _Doubts:
    real, seed = subject.real, derive_seed(subject.seed, "label-noise")
    labels = real.labels
    # in the order of ids, so that the order of the file changes nothing
    order = sorted(range(len(real)), key=real.ids.__getitem__)
    vectors, targets = subject.against_unit[order], [real.targets[i] for i in order]
    groups = [real.groups[i] for i in order]
    proba = np.empty((len(real), len(labels)))
    proba[order] = cross_validated_proba(vectors, targets, labels=labels, groups=groups, seed=seed)
    carried = np.array([labels.index(t) for t in real.targets])
    thresholds = np.array([proba[carried == k, k].mean() for k in range(len(labels))])
    said = _confident_label(proba, thresholds)
    false_alarms = (said >= 0) & (said != carried)
    # of the other k - 1 labels all are doubted, but for the one that the probe takes the row for
    power = np.where(said >= 0, 1.0 - false_alarms / (len(labels) - 1.0), 0.0)
    probe = fit_probe(vectors, targets, labels=labels, seed=seed)
    position = {label: k for k, label in enumerate(labels)}
    own = np.array([position.get(t, -1) for t in subject.corpus.targets])
    ours = _confident_label(probe.proba(subject.unit), thresholds)
    return _Doubts(
        doubted=((ours >= 0) & (ours != own)).astype(np.float64),
        false_alarms=false_alarms.astype(np.float64),
        power=power,
    )


def _confident_label(proba: Floats, thresholds: Floats) -> NDArray[np.int64]:
    """The most probable of the labels that reach their threshold, -1 where none does, shape (n,)."""
    reached = proba >= thresholds
    best = np.where(reached, proba, -1.0).argmax(axis=1)
    out: NDArray[np.int64] = np.where(reached.any(axis=1), best, -1)
    return out
