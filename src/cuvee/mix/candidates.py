"""What a filter sees, and what it says: rows with their vectors, and why each of them goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.encoders import batches, empty_rows
from cuvee.errors import InputError
from cuvee.records import Vectors
from cuvee.similarity import unit_rows

Encode = Callable[[Sequence[str]], Vectors]


class Candidates:
    """The rows before a filter; their vectors are made at the first use, and cut with the rows from then on.

    Args:
        corpus: the rows.
        encode: texts to vectors, shape (n, d); any Encoder's ``encode``.
        made: vectors that are there already, and the place of each row among them.
    """

    def __init__(
        self, corpus: Corpus, encode: Encode | None, made: tuple[Vectors, NDArray[np.int64]] | None = None
    ) -> None:
        self.corpus = corpus
        self._encode, self._made = encode, made

    def vectors(self, name: str) -> Vectors:
        """Unit rows, shape (n, d), for the filter of this name.

        Raises:
            ValueError: there is nothing to make them with.
            InputError: the encoder has no vector for a row.
        """
        if self._made is None:
            if self._encode is None:
                raise ValueError(f"filter {name!r} compares vectors, and there are none; give encode")
            self._made = _encode_rows(self._encode, self.corpus.texts), np.arange(len(self.corpus))
        vectors, places = self._made
        if len(places) < len(vectors):
            kept = empty_rows(len(places), vectors.shape[1])
            for part in batches(len(places)):
                kept[part] = vectors[places[part]]
            self._made = kept, np.arange(len(places))
        return self._made[0]

    def vector_batches(self, name: str) -> Iterator[tuple[slice, Vectors]]:
        """The same, some rows at a time: of many rows that nobody compared yet the vectors are not kept."""
        parts = list(batches(len(self.corpus)))
        for part in parts:
            if len(parts) == 1 or self._made is not None or self._encode is None:
                yield part, self.vectors(name)[part]
            else:
                yield part, _encode_batch(self._encode, self.corpus.texts[part])

    def embed(self, texts: Sequence[str]) -> Vectors | None:
        """Unit rows of other texts; None where there are none, or nothing to make them with."""
        return None if self._encode is None or not texts else _encode_rows(self._encode, texts)

    def keep(self, mask: NDArray[np.bool_]) -> Candidates:
        """The rows where ``mask`` (shape (n,)) is true, with their vectors where these were made."""
        made = None if self._made is None else (self._made[0], self._made[1][mask])
        return Candidates(self.corpus.keep(mask), self._encode, made)


def _encode_rows(encode: Encode, texts: Sequence[str]) -> Vectors:
    out: Vectors | None = None
    for part in batches(len(texts)):
        unit = _encode_batch(encode, texts[part])
        out = empty_rows(len(texts), unit.shape[1]) if out is None else out
        out[part] = unit
    return _encode_batch(encode, texts) if out is None else out


def _encode_batch(encode: Encode, texts: Sequence[str]) -> Vectors:
    found = encode(texts)
    usable = np.isfinite(found).all(axis=1) & (np.abs(found).max(axis=1, initial=0.0) > 0)
    if not usable.all():
        text = texts[int(np.flatnonzero(~usable)[0])]
        raise InputError(f"the encoder has no vector for {text!r}; drop that row, or put filter 'degenerate' first")
    return unit_rows(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterVerdict:
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

    def judge(self, rows: Candidates) -> FilterVerdict:
        """One reason a row, None where it stays; never asked about no rows at all."""
