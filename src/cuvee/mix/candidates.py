"""What a filter sees and says of the rows of a pool, and what came of a sequence of filters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cuvee.characters import to_html
from cuvee.corpus import Corpus
from cuvee.encoders import batches, empty_rows
from cuvee.errors import InputError
from cuvee.records import Rejected, Vectors
from cuvee.similarity import unit_rows

Encode = Callable[[Sequence[str]], Vectors]


class Candidates:
    """The rows before a filter; their vectors are made at the first use, and cut with the rows from then on.

    Args:
        corpus: the rows.
        encode: texts to vectors, shape (n, d); any Encoder's ``encode``.
        vectors: of the rows, given instead of (or beside) ``encode``, shape (n, d).

    Raises:
        ValueError: ``vectors`` of another length than the corpus, or with a row that is zero or not finite.
    """

    def __init__(self, corpus: Corpus, *, encode: Encode | None = None, vectors: Vectors | None = None) -> None:
        self.corpus = corpus
        self._encode = encode
        self._cut: tuple[Vectors, NDArray[np.int64]] | None = None  # rows of a larger matrix, taken when wanted
        if vectors is not None:
            self.vectors = _given_rows(vectors, len(corpus), "vectors")

    @cached_property
    def vectors(self) -> Vectors | None:
        """Unit rows, shape (n, d); None where there is nothing to make them with.

        Raises:
            InputError: the encoder has no vector for a row.
        """
        if self._cut is not None:
            return _take_rows(*self._cut)
        return None if self._encode is None else _encoded_rows(self._encode, self.corpus.texts)

    def needed_vectors(self, name: str) -> Vectors:
        """The same, for a filter that cannot do without.

        Raises:
            ValueError: there are none.
        """
        if self.vectors is None:
            raise ValueError(f"filter {name!r} compares vectors, and there are none; give encode or vectors")
        return self.vectors

    def vector_batches(self, name: str) -> Iterator[tuple[slice, Vectors]]:
        """The same, some rows at a time: of many rows that nobody compared yet the vectors are not kept.

        Raises:
            ValueError: there are none.
        """
        parts = list(batches(len(self.corpus)))
        if len(parts) == 1 or self._encode is None or self._is_made or self._cut is not None:
            found = self.needed_vectors(name)
            yield from ((part, found[part]) for part in parts)
            return
        for part in parts:
            yield part, _encoded_rows(self._encode, self.corpus.texts[part])

    @property
    def _is_made(self) -> bool:
        return "vectors" in self.__dict__

    def embed(self, texts: Sequence[str], given: Vectors | None, what: str) -> Vectors | None:
        """Unit rows of other texts: those ``given`` (called ``what`` in messages), else encoded like the rows.

        Raises:
            ValueError: ``given`` does not fit the texts, or is of another width than the vectors of the rows.
        """
        if given is None and (self._encode is None or not texts):
            return None
        found = _given_rows(given, len(texts), what) if given is not None else None
        if found is None and self._encode is not None:
            found = _encoded_rows(self._encode, texts)
        # what one encoder makes is of one width: no need to make the rows' vectors for this
        own = self.vectors if given is not None or self._is_made else None
        if found is not None and own is not None and found.shape[1] != own.shape[1]:
            raise ValueError(f"{what} has {found.shape[1]} dimensions, the rows have {own.shape[1]}; use one encoder")
        return found

    def keep(self, mask: NDArray[np.bool_]) -> Candidates:
        """The rows where ``mask`` (shape (n,)) is true, with their vectors where these were made."""
        kept = Candidates(self.corpus.keep(mask), encode=self._encode)
        if self._is_made and self.vectors is not None:
            kept._cut = self.vectors, np.flatnonzero(mask)
        elif self._cut is not None:
            kept._cut = self._cut[0], self._cut[1][mask]
        return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a filter says of n rows.

    Attributes:
        reasons: of each row, why it goes; None where it stays. Rows that go for one reason say it alike.
        note: what a user should know of how the filter judged; may be empty.
    """

    reasons: tuple[str | None, ...]
    note: str = ""


class Filter(Protocol):
    """Says which rows go. A filter may not change rows, and never sees those that an earlier one removed."""

    @property
    def name(self) -> str:
        """What the step is called."""

    def judge(self, rows: Candidates) -> Judgement:
        """One reason a row, None where it stays; never asked about no rows at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterStep:
    """What one filter did; ``reasons`` counts the removed rows by reason, the most frequent first."""

    name: str
    rows_before: int
    removed: int
    rows_after: int
    reasons: Mapping[str, int]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """One row that a filter removed."""

    id: str
    text: str
    filter: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Filtered:
    """What is left of a pool, and where every other row went.

    Attributes:
        corpus: the rows that stay, in the order of the pool.
        rows: their places in the pool, shape (n,).
        steps: one a filter, in order.
        removed: each removed row once, step by step.
    """

    corpus: Corpus
    rows: NDArray[np.int64]
    steps: tuple[FilterStep, ...]
    removed: tuple[Removed, ...]

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        """The removed rows as a stored pool lists them: the row's id, and the reason with the filter's name."""
        return tuple(Rejected(slot=r.id, reason=f"{r.filter}: {r.reason}", text=r.text) for r in self.removed)

    def __str__(self) -> str:
        width = max((len(s.name) for s in self.steps), default=0)
        lines = [f"Filtered: {len(self.corpus)} of {len(self.corpus) + len(self.removed)} rows left"]
        for step in self.steps:
            why = ", ".join(f"{count} {reason}" for reason, count in step.reasons.items())
            lines.append(f"  {step.name:<{width}}  {step.rows_before:>7} -> {step.rows_after:<7} {why}".rstrip())
            if step.note:
                lines.append(f"  {'':<{width}}  {step.note}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{to_html(str(self))}</pre>{self.corpus._repr_html_()}"


def check_reasons(name: str, reasons: Sequence[str | None], rows: int) -> None:
    """See that a filter's answer fits the rows.

    Raises:
        ValueError: it does not give one reason a row, each some text or None.
    """
    if len(reasons) != rows:
        raise ValueError(f"filter {name!r} gave {len(reasons)} reasons for {rows} rows")
    for reason in reasons:
        if reason is not None and not (isinstance(reason, str) and reason.strip()):
            raise ValueError(f"filter {name!r} gave the reason {reason!r}; it must be some text, or None to keep")


def count_reasons(reasons: Sequence[str | None]) -> dict[str, int]:
    """How many rows go for each reason, the most frequent first, then by name."""
    counts = Counter(reason for reason in reasons if reason is not None)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _given_rows(vectors: Vectors, rows: int, what: str) -> Vectors:
    if len(vectors) != rows:
        raise ValueError(f"{what} has {len(vectors)} rows for {rows} texts; give one each")
    return unit_rows(vectors)


def _encoded_rows(encode: Encode, texts: Sequence[str]) -> Vectors:
    out: Vectors | None = None
    for part in batches(len(texts)):
        unit = _encoded_batch(encode, texts[part])
        out = empty_rows(len(texts), unit.shape[1]) if out is None else out
        out[part] = unit
    return _encoded_batch(encode, texts) if out is None else out


def _encoded_batch(encode: Encode, texts: Sequence[str]) -> Vectors:
    found = encode(texts)
    usable = np.isfinite(found).all(axis=1) & (np.abs(found).max(axis=1, initial=0.0) > 0)
    if not usable.all():
        text = texts[int(np.flatnonzero(~usable)[0])]
        raise InputError(f"the encoder has no vector for {text!r}; drop that row, or put filter 'degenerate' first")
    return unit_rows(found)


def _take_rows(vectors: Vectors, places: NDArray[np.int64]) -> Vectors:
    out = empty_rows(len(places), vectors.shape[1])
    for part in batches(len(places)):
        out[part] = vectors[places[part]]
    return out
