"""Filters of rows that say the same: exact and near duplicates, too many paraphrases of one row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus, normalise_text
from cuvee.mix.filters.steps import Candidates, Judgement
from cuvee.records import Vectors
from cuvee.similarity import find_near_duplicates, nearest_neighbours, single_blas_thread

_SLACK = 1e-6  # the cosine of two equal float32 rows may be a little below 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Dedupe:
    """Removes rows that repeat an earlier row or a text of ``against``; the first row in order stays.

    Texts repeat each other where they agree by ``normalise_text``, whatever their labels; a row that has a context is
    compared with it (as ``Corpus.prompts`` has both): one question may be asked of many. With ``near``, so do
    rows whose cosine is at least ``near``: a row goes where a row that *stays*, or a text of ``against``, is so
    near, so a chain of neighbours does not pull in rows that are unlike the one that stays.

    Args:
        against: other texts, for example the real training rows.
        near: cosine from which on two rows say the same, above 0, at most 1; None: exact repeats alone.
        against_vectors: of ``against``, shape (m, d); encoded where left out.

    Raises:
        ValueError: ``near`` out of range.
    """

    against: Sequence[str] = ()
    near: float | None = None
    against_vectors: Vectors | None = None
    name: str = "dedupe"

    def __post_init__(self) -> None:
        if self.near is not None and not 0 < self.near <= 1:
            raise ValueError(f"near is {self.near!r}; give a cosine above 0, at most 1, or None")

    def judge(self, rows: Candidates) -> Judgement:
        """``repeats ...`` for exact repeats, ``near-duplicate of ...`` for the others.

        Raises:
            ValueError: ``near`` is given and there are no vectors.
        """
        reasons = _exact_repeats(rows.corpus, self.against)
        if self.near is None:
            return Judgement(reasons=tuple(reasons))
        unit = rows.needed_vectors(self.name)
        if self.against:
            others = rows.embed(self.against, self.against_vectors, "against_vectors")
            if others is None:
                raise ValueError("near and against are given, but against has no vectors; give encode, against_vectors")
            close = nearest_neighbours(unit, others).cosine >= np.float32(self.near - _SLACK)
            _fill(reasons, np.flatnonzero(close), "near-duplicate of a given text")
        left = np.flatnonzero([reason is None for reason in reasons])
        _fill(reasons, left[_repeats_kept(unit[left], self.near)], "near-duplicate of an earlier row")
        return Judgement(reasons=tuple(reasons), note=f"near-duplicates: cosine of at least {self.near:g}")


@dataclass(frozen=True, kw_only=True)
class FewerPerCluster:
    """Keeps the first ``limit`` rows of each family of rows.

    A family is a group of the corpus (all paraphrases of one source; a row without a group is alone), or with
    ``threshold`` a cluster of rows linked by a cosine of at least that. The rows that a smaller limit keeps are
    among those that a larger one keeps.

    Raises:
        ValueError: ``limit`` below 1, or ``threshold`` out of range.
    """

    limit: int
    threshold: float | None = None
    name: str = "fewer-per-cluster"

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"limit is {self.limit!r}; it must be at least 1")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold!r}; give a cosine above 0, at most 1, or None")

    def judge(self, rows: Candidates) -> Judgement:
        """``not among the first N of its group`` (or ``cluster``).

        Raises:
            ValueError: ``threshold`` is given and there are no vectors.
        """
        families: list[str] | list[int] = rows.corpus.groups
        what, note = "group", ""
        if self.threshold is not None:
            families = find_near_duplicates(rows.needed_vectors(self.name), self.threshold).cluster.tolist()
            what, note = "cluster", f"clusters: rows linked by a cosine of at least {self.threshold:g}"
        seen: Counter[str | int] = Counter()
        reasons: list[str | None] = []
        for family in families:
            seen[family] += 1
            reasons.append(f"not among the first {self.limit} of its {what}" if seen[family] > self.limit else None)
        counts = f"{len(seen)} {what}s, the largest of {max(seen.values(), default=0)} rows"
        return Judgement(reasons=tuple(reasons), note=f"{counts}; {note}" if note else counts)


def _exact_repeats(corpus: Corpus, against: Sequence[str]) -> list[str | None]:
    given = {normalise_text(text) for text in against}
    label_of: dict[str, str] = {}
    reasons: list[str | None] = []
    labelled = corpus.task == "classification"
    for text, label in zip(corpus.prompts, corpus.targets, strict=True):
        key = normalise_text(text)
        if key in given:
            reasons.append("repeats a given text")
        elif key not in label_of:
            label_of[key] = label
            reasons.append(None)
        else:
            same = label_of[key] == label or not labelled
            reasons.append("repeats an earlier row" if same else "repeats an earlier row of another label")
    return reasons


def _fill(reasons: list[str | None], rows: NDArray[np.int64], reason: str) -> None:
    for row in rows.tolist():
        reasons[row] = reasons[row] or reason


@single_blas_thread()
def _repeats_kept(unit: Vectors, near: float) -> NDArray[np.int64]:
    """Rows with a cosine of at least ``near`` to an earlier row that stays; only rows of one cluster can be near."""
    cluster = find_near_duplicates(unit, near).cluster
    order = np.argsort(cluster, kind="stable")
    starts = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    gone = np.zeros(len(unit), dtype=bool)
    for members in np.split(order, starts[1:]):
        if len(members) < 2:
            continue
        part, stays = unit[members], np.ones(len(members), dtype=bool)
        for i in range(len(members) - 1):
            if stays[i]:
                stays[i + 1 :] &= part[i + 1 :] @ part[i] < np.float32(near - _SLACK)
        gone[members] = ~stays
    return np.flatnonzero(gone)
