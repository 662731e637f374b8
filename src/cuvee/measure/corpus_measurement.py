"""Measure a corpus: every metric whose needs are met, each with its interval and settings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cuvee.corpus import Corpus
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import ConfigError
from cuvee.fingerprint import derive_rng
from cuvee.measure.metrics import METRICS, STANDARD
from cuvee.measure.subject import Metric, Need, Subject
from cuvee.records import Estimate, Measurement
from cuvee.registry import resolve_name

_REMEDY: dict[Need, str] = {
    "vectors": "an encoder",
    "against": "against=, the real training rows",
    "held_out": "held_out=, the validation and test texts",
    "labels": "a corpus and an against of the task classification, with at least two labels",
}


def measure_corpus(
    corpus: Corpus,
    *,
    against: Corpus | None = None,
    held_out: Sequence[str] | None = None,
    encoder: Encoder | None = None,
    metrics: Sequence[str | Metric] | None = None,
    name: str = "corpus",
    seed: int = 0,
    permutations: int = 200,
    rows: int | None = None,
) -> Measurement:
    """Diversity, shift, quality and leakage of a corpus.

    Metrics whose needs are not met, or that are not defined (a mean over pairs of one row), are left out
    unless they were asked for by name. Numbers of two corpora compare only with the same encoder and the same
    number of rows: see ``rows``.

    Args:
        corpus: what is measured.
        against: the real training rows: gives shift, label agreement and the baseline of leakage.
        held_out: validation and test texts: gives leakage.
        encoder: of the texts; None loads the default one where a metric needs vectors.
        metrics: names in METRICS, ``module:Name``, or Metric objects; None means all.
        name: of the measurement.
        seed: of subsample, jackknife bins, permutations and probes.
        permutations: of the MMD test.
        rows: measure a seeded subsample of this many rows, whole groups first, so that corpora are compared
            at equal size.

    Raises:
        ConfigError: no metric of that name.
        InputError: a text that the encoder has no vector for.
        ValueError: an empty corpus, ``rows`` out of range, or a metric asked for whose needs are not met.
    """
    if len(corpus) == 0:
        raise ValueError("corpus has no rows; there is nothing to measure")
    chosen = _choose_metrics(metrics)
    measured = corpus if rows is None else subsample_groups(corpus, rows, seed=seed)
    missing = {m.name: _unmet_need(m, measured, against, held_out) for m in chosen}
    for metric in chosen:
        need = missing[metric.name]
        if metrics is not None and need is not None:
            raise ValueError(f"metric {metric.name!r} needs {_REMEDY[need]}; pass it or leave the metric out")
    wanted = [m for m in chosen if missing[m.name] is None]
    if any("vectors" in m.needs for m in wanted):
        encoder = encoder or load_encoder()
    subject = Subject(
        corpus=measured, against=against, held_out=held_out, encoder=encoder, seed=seed, permutations=permutations
    )
    values: dict[str, Estimate] = {}
    for metric in wanted:
        estimate = metric.compute(subject)
        if estimate is not None:
            values[metric.name] = estimate
        elif metrics is not None:
            raise ValueError(f"metric {metric.name!r} is not defined on these {len(measured)} rows; leave it out")
    return Measurement(
        name=name,
        fingerprint=measured.fingerprint,
        against=None if against is None else against.fingerprint,
        n=len(measured),
        encoder="none" if encoder is None else encoder.name,
        encoder_hash="" if encoder is None else encoder.hash,
        seed=seed,
        values=values,
    )


def subsample_groups(corpus: Corpus, rows: int, *, seed: int = 0) -> Corpus:
    """Exactly ``rows`` rows in their old order: whole groups in a seeded order, the last one cut to fit.

    Raises:
        ValueError: ``rows`` below 1 or above the corpus.
    """
    if not 1 <= rows <= len(corpus):
        raise ValueError(f"rows is {rows!r}; the corpus has {len(corpus)}, give 1 to {len(corpus)}")
    if rows == len(corpus):
        return corpus
    members: dict[str, list[int]] = {}
    for row, group in enumerate(corpus.groups):
        members.setdefault(group, []).append(row)
    rng = derive_rng(seed, "rarefy")
    names = list(members)
    ordered = [row for i in rng.permutation(len(names)) for row in rng.permutation(members[names[i]]).tolist()]
    return corpus.take(np.sort(np.array(ordered[:rows])))


def _choose_metrics(metrics: Sequence[str | Metric] | None) -> list[Metric]:
    if metrics is None or metrics == "all":
        return [METRICS[name] for name in (STANDARD if metrics is None else METRICS)]
    chosen: list[Metric] = []
    for entry in metrics:
        found: object = resolve_name(entry, METRICS, what="metric") if isinstance(entry, str) else entry
        if not isinstance(found, Metric):
            raise ConfigError(f"metric {entry!r} is not a cuvee.measure.Metric but a {type(found).__name__}")
        chosen.append(found)
    return chosen


def _unmet_need(metric: Metric, corpus: Corpus, against: Corpus | None, held_out: Sequence[str] | None) -> Need | None:
    met: dict[Need, bool] = {
        "vectors": True,
        "against": against is not None,
        "held_out": bool(held_out),
        "labels": corpus.task == "classification" and against is not None and len(against.labels) > 1,
    }
    return next((need for need in metric.needs if not met[need]), None)
