"""Each part of a corpus measured alone: its labels, levels, dials, origins or groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.encoders import load_encoder
from cuvee.measure.corpus_measurement import measure_subject
from cuvee.measure.known_vectors import KnownVectors
from cuvee.measure.metrics import choose_metrics
from cuvee.measure.subject import Metric, Subject
from cuvee.records import Measurement, Vectors

By = Literal["label", "level", "dial", "origin", "group"]


def parts_of(corpus: Corpus, by: str) -> list[str]:
    """The part that each row belongs to: its label, level, dial, origin or group.

    Raises:
        ValueError: an unknown ``by``, or one that the rows do not have.
    """
    if by not in get_args(By):
        raise ValueError(f"by is {by!r}; valid: {', '.join(get_args(By))}")
    if by == "label":
        found: list[str | None] = list(corpus.targets)
    elif by in ("origin", "group"):
        found = list(corpus.origins if by == "origin" else corpus.groups)
    else:
        found = corpus.table[by].to_pylist()
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
    if subject.vectors is None and any("vectors" in metric.needs for metric in choose_metrics(metrics)):
        against = [] if subject.against is None else subject.against.texts
        known = KnownVectors(
            subject.encoder or load_encoder(), [*subject.corpus.texts, *against, *(subject.held_out or ())]
        )
        subject = replace(subject, encoder=known)
    names = np.array(parts)
    found: dict[str, Measurement] = {}
    for name in sorted(set(parts)):
        rows = np.flatnonzero(names == name)
        part = replace(subject, corpus=subject.corpus.take(rows), vectors=_take(subject.vectors, rows), listen=None)
        if subject.against is not None:
            like = np.flatnonzero(np.array(subject.real.targets) == name)
            like = like if len(like) > 1 else np.arange(len(subject.real))
            part = replace(part, against=subject.real.take(like), against_vectors=_take(subject.against_vectors, like))
        found[name] = measure_subject(part, metrics, name=name)
    return found


def _take(vectors: Vectors | None, rows: NDArray[np.int64]) -> Vectors | None:
    return None if vectors is None else vectors[rows]
