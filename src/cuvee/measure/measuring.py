"""Measure a corpus, vectors, or the parts of a corpus: every metric whose needs are met, with interval and settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.encoders import Encoder, load_encoder
from cuvee.fingerprint import derive_rng
from cuvee.measure.metrics import are_named, choose_metrics, pick_defined
from cuvee.measure.subject import GivenVectors, KnownVectors, Metric, Subject
from cuvee.records import Estimate, Measurement, Vectors
from cuvee.similarity import Compute

By = Literal["label", "level", "dial", "origin", "group"]
Listen = Callable[[str, int, int], None]


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
    compute: Compute | None = None,
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
        encoder: of the texts, or ``GivenVectors``; None loads the default one where a metric needs vectors.
        metrics: names in METRICS, ``module:Name``, or Metric objects; "all" means every one, None the standard
            ones.
        name: of the measurement.
        seed: of subsample, jackknife bins, permutations and probes.
        permutations: of the tests of shift.
        rows: measure a seeded subsample of this many rows, whole groups first, so that corpora are compared
            at equal size.
        compute: device, precision, threads and time budget of all-pairs numbers.
        progress: told of what is being done, units done and all units.

    Raises:
        ConfigError: no metric of that name.
        InputError: a text that the encoder has no vector for.
        ValueError: an empty corpus, ``rows`` out of range, or a metric asked for whose needs are not met.
    """
    subject = Subject(
        corpus=corpus, against=against, held_out=held_out, encoder=encoder, seed=seed, permutations=permutations,
        compute=compute or Compute(), listen=progress,
    )  # fmt: skip
    return measure_subject(draw_rows(subject, rows), metrics, name=name)


def measure_vectors(
    vectors: Vectors,
    *,
    against: Vectors | None = None,
    labels: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    made_by: str = "given vectors",
    metrics: Sequence[str | Metric] | None = None,
    name: str = "vectors",
    seed: int = 0,
    permutations: int = 200,
    rows: int | None = None,
    compute: Compute | None = None,
    progress: Listen | None = None,
) -> Measurement:
    """Diversity of vectors of anything, and their shift from other vectors of the same kind.

    Args:
        vectors: shape (n, d); rows need not have length 1.
        against: vectors of the real rows, shape (m, d).
        labels: of the n rows.
        groups: of the n rows: rows of one group (augmentations of one source) are not independent.
        made_by: name of the model that made the vectors; only numbers with the same name compare.
        metrics, name, seed, permutations, rows, compute, progress: as for ``measure_corpus``.

    Raises:
        ValueError: shapes that do not agree, a row without direction, a metric that needs texts.
    """
    if against is not None and against.shape[1:] != vectors.shape[1:]:
        raise ValueError(f"against has shape {against.shape!r} and vectors {vectors.shape!r}; they need one length")
    subject = Subject(
        corpus=Corpus.without_texts(len(vectors), targets=labels, groups=groups),
        against=None if against is None else Corpus.without_texts(len(against)),
        encoder=GivenVectors(made_by, vectors, against), seed=seed, permutations=permutations,
        compute=compute or Compute(), listen=progress,
    )  # fmt: skip
    return measure_subject(draw_rows(subject, rows), metrics, name=name)


def measure_subject(subject: Subject, metrics: Sequence[str | Metric] | None = None, *, name: str) -> Measurement:
    """The numbers of a subject. See ``measure_corpus`` for ``metrics`` and what is raised."""
    if subject.n == 0:
        raise ValueError("corpus has no rows; there is nothing to measure")
    strict, wanted = are_named(metrics), pick_defined(metrics, [subject.corpus], subject.against, subject.held_out)
    if subject.encoder is None and any("vectors" in m.needs for m in wanted):
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


def draw_rows(subject: Subject, rows: int | None) -> Subject:
    """The subject with exactly ``rows`` of its rows (None: all), as ``pick_groups`` picks them."""
    return subject if rows is None else subject.take(pick_groups(subject.corpus, rows, seed=subject.seed))


def pick_groups(corpus: Corpus, rows: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Exactly ``rows`` rows, in order: whole groups in a seeded order, the last one cut to fit.

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


# --- each part alone ----------------------------------------------------------------------------------
def parts_of(corpus: Corpus, by: str) -> list[str]:
    """The part that each row belongs to: its label, level, dial, origin or group.

    Raises:
        ValueError: an unknown ``by``, or one that the rows do not have.
    """
    if by not in get_args(By):
        raise ValueError(f"by is {by!r}; valid: {', '.join(get_args(By))}")
    known = {"label": corpus.targets, "origin": corpus.origins, "group": corpus.groups}
    found = list(known[by]) if by in known else corpus.table[by].to_pylist()
    if not all(found):
        raise ValueError(f"by is {by!r}, but row {found.index(next(f for f in found if not f)) + 1} has none")
    if len(set(found)) == len(corpus) and len(corpus) > 1:
        raise ValueError(f"by is {by!r}, but every row has another; there is nothing to measure within a part")
    return [str(f) for f in found]


def measure_parts(
    subject: Subject, parts: Sequence[str], metrics: Sequence[str | Metric] | None = None
) -> dict[str, Measurement]:
    """A measurement of the rows of each part, by the sorted names of parts; embeds nothing again.

    Where the real rows have labels of the same names, a part is measured against the real rows of its label,
    else against all. Parts have different numbers of rows, and most numbers depend on them: give the subject
    equal parts, or read the intervals with that in mind.

    Args:
        subject: the corpus, prepared.
        parts: part of each row, shape (n,).
        metrics: as for ``measure_corpus``.
    """
    if len(parts) != subject.n:
        raise ValueError(f"parts has {len(parts)} entries for {subject.n} rows; give one a row")
    if subject.given is None and any("vectors" in metric.needs for metric in choose_metrics(metrics)):
        against = [] if subject.against is None else subject.against.texts
        texts = [*subject.corpus.texts, *against, *(subject.held_out or ())]
        subject = replace(subject, encoder=KnownVectors(subject.encoder or load_encoder(), texts))
    names = np.array(parts)
    found: dict[str, Measurement] = {}
    for name in sorted(set(parts)):
        like = None if subject.against is None else np.flatnonzero(np.array(subject.against.targets) == name)
        like = None if like is None or len(like) < 2 else like
        part = replace(subject.take(np.flatnonzero(names == name), like), listen=None)
        found[name] = measure_subject(part, metrics, name=name)
    return found
