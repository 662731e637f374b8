"""Measure a corpus: every metric whose needs are met, each with its interval and settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.encoders import Encoder, load_encoder
from cuvee.fingerprint import derive_rng
from cuvee.measure.metrics import are_named, choose_metrics
from cuvee.measure.subject import Metric, Need, Subject
from cuvee.records import Estimate, Measurement, Vectors
from cuvee.similarity import Compute

_REMEDY: dict[Need, str] = {
    "texts": "a corpus with texts",
    "vectors": "an encoder",
    "against": "against=, the real training rows",
    "held_out": "held_out=, the validation and test texts",
    "labels": "a corpus and an against of the task classification, with at least two labels",
}
Listen = Callable[[str, int, int], None]


def measure_corpus(
    corpus: Corpus,
    *,
    against: Corpus | None = None,
    held_out: Sequence[str] | None = None,
    encoder: Encoder | None = None,
    vectors: Vectors | None = None,
    against_vectors: Vectors | None = None,
    metrics: Sequence[str | Metric] | None = None,
    name: str = "corpus",
    seed: int = 0,
    permutations: int = 200,
    rows: int | None = None,
    compute: Compute | None = None,
    time_budget: float | None = None,
    progress: Listen | None = None,
) -> Measurement:
    """Diversity, shift, quality and leakage of a corpus.

    Metrics whose needs are not met, or that are not defined (a mean over pairs of one row), are left out
    unless they were asked for by name. Numbers of two corpora compare only with the same encoder, the same
    number of rows and like lengths: see ``compare_corpora``.

    Args:
        corpus: what is measured.
        against: the real training rows: gives shift, label agreement and the baseline of leakage.
        held_out: validation and test texts: gives leakage.
        encoder: of the texts; None loads the default one where a metric needs vectors and none are given.
        vectors, against_vectors: vectors of the rows, shapes (n, d) and (m, d), instead of the encoder's; the
            encoder is then only the name and hash that the numbers carry.
        metrics: names in METRICS, ``module:Name``, or Metric objects; "all" means every one, None the standard
            ones.
        name: of the measurement.
        seed: of subsample, jackknife bins, permutations and probes.
        permutations: of the MMD test.
        rows: measure a seeded subsample of this many rows, whole groups first, so that corpora are compared
            at equal size.
        compute: device, precision and threads of all-pairs numbers.
        time_budget: seconds that all-pairs numbers may take; beyond it they come from a sample of rows, and say
            so. None: all pairs up to 100,000 rows, a sample of 4,000 rows against all above.
        progress: told of what is being done, units done and all units.

    Raises:
        ConfigError: no metric of that name.
        InputError: a text that the encoder has no vector for.
        ValueError: an empty corpus, ``rows`` out of range, or a metric asked for whose needs are not met.
    """
    subject = prepare_subject(
        corpus, against=against, held_out=held_out, encoder=encoder, vectors=vectors, against_vectors=against_vectors,
        seed=seed, permutations=permutations, rows=rows, compute=compute, time_budget=time_budget, progress=progress,
    )  # fmt: skip
    return measure_subject(subject, metrics, name=name)


def prepare_subject(
    corpus: Corpus,
    *,
    against: Corpus | None = None,
    held_out: Sequence[str] | None = None,
    encoder: Encoder | None = None,
    vectors: Vectors | None = None,
    against_vectors: Vectors | None = None,
    seed: int = 0,
    permutations: int = 200,
    rows: int | None = None,
    compute: Compute | None = None,
    time_budget: float | None = None,
    progress: Listen | None = None,
) -> Subject:
    """What ``measure_corpus`` measures, with the same arguments: for several looks at one corpus.

    Raises:
        ValueError: an empty corpus, ``rows`` out of range, or vectors of one side only.
    """
    if len(corpus) == 0:
        raise ValueError("corpus has no rows; there is nothing to measure")
    if against is not None and (vectors is None) != (against_vectors is None):
        raise ValueError("vectors and against_vectors must be given together; they share one space")
    kept = None if rows is None else pick_groups(corpus, rows, seed=seed)
    return Subject(
        corpus=corpus if kept is None else corpus.take(kept),
        against=against,
        held_out=held_out,
        encoder=encoder,
        seed=seed,
        permutations=permutations,
        vectors=vectors if vectors is None or kept is None else vectors[kept],
        against_vectors=against_vectors,
        compute=compute or Compute(),
        time_budget=time_budget,
        listen=progress,
    )


def measure_subject(subject: Subject, metrics: Sequence[str | Metric] | None = None, *, name: str) -> Measurement:
    """The numbers of a subject. See ``measure_corpus`` for ``metrics`` and what is raised."""
    chosen, strict = choose_metrics(metrics), are_named(metrics)
    wanted = _pick_defined(chosen, strict, subject)
    if subject.vectors is None and subject.encoder is None and any("vectors" in m.needs for m in wanted):
        subject = replace(subject, encoder=load_encoder())
    values: dict[str, Estimate] = {}
    for done, metric in enumerate(wanted):
        if subject.listen is not None:
            subject.listen("measure", done, len(wanted))
        estimate = metric.compute(subject)
        if estimate is not None:
            values[metric.name] = estimate
        elif strict:
            raise ValueError(f"metric {metric.name!r} is not defined on these {subject.n} rows; leave it out")
    if subject.listen is not None:
        subject.listen("measure", len(wanted), len(wanted))
    return Measurement(
        name=name,
        fingerprint=subject.fingerprint,
        against=None if subject.against is None else subject.against_fingerprint,
        n=subject.n,
        encoder="none" if subject.encoder is None else subject.encoder.name,
        encoder_hash="" if subject.encoder is None else subject.encoder.hash,
        seed=subject.seed,
        values=values,
    )


def subsample_groups(corpus: Corpus, rows: int, *, seed: int = 0) -> Corpus:
    """Exactly ``rows`` rows in their old order: whole groups in a seeded order, the last one cut to fit.

    Raises:
        ValueError: ``rows`` below 1 or above the corpus.
    """
    return corpus if rows == len(corpus) else corpus.take(pick_groups(corpus, rows, seed=seed))


def pick_groups(corpus: Corpus, rows: int, *, seed: int = 0) -> NDArray[np.int64]:
    """The rows that ``subsample_groups`` takes, in order.

    Raises:
        ValueError: ``rows`` below 1 or above the corpus.
    """
    if not 1 <= rows <= len(corpus):
        raise ValueError(f"rows is {rows!r}; the corpus has {len(corpus)}, give 1 to {len(corpus)}")
    if rows == len(corpus):
        return np.arange(rows)
    members: dict[str, list[int]] = {}
    for row, group in enumerate(corpus.groups):
        members.setdefault(group, []).append(row)
    rng = derive_rng(seed, "rarefy")
    names = list(members)
    ordered = [row for i in rng.permutation(len(names)) for row in rng.permutation(members[names[i]]).tolist()]
    return np.sort(np.array(ordered[:rows], dtype=np.int64))


def _pick_defined(chosen: Sequence[Metric], strict: bool, subject: Subject) -> list[Metric]:
    """The metrics whose needs are met.

    Raises:
        ValueError: ``strict``, and one of them lacks something.
    """
    missing = {m.name: _unmet_need(m, subject) for m in chosen}
    for metric in chosen:
        need = missing[metric.name]
        if strict and need is not None:
            raise ValueError(f"metric {metric.name!r} needs {_REMEDY[need]}; pass it or leave the metric out")
    return [m for m in chosen if missing[m.name] is None]


def _unmet_need(metric: Metric, subject: Subject) -> Need | None:
    against = subject.against
    met: dict[Need, bool] = {
        "texts": any(subject.corpus.texts) and (against is None or "against" not in metric.needs or any(against.texts)),
        "vectors": True,
        "against": against is not None,
        "held_out": bool(subject.held_out),
        "labels": subject.corpus.task == "classification" and against is not None and len(against.labels) > 1,
    }
    return next((need for need in metric.needs if not met[need]), None)
