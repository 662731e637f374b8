"""n-grams of all rows as arrays: counted once, read by every metric that is made of n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.subject import Subject

SIZES = (1, 2, 3, 4)
TOKENS = "lower-case words"
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class NgramCounts:
    """How often each n-gram stands in each row; n-grams do not cross rows.

    One entry for each (n-gram, row) that occurs, sorted by n-gram, then row. n-grams are numbered from 0.

    Attributes:
        size: words of an n-gram.
        gram, row, count: shape (entries,): n-gram, row, and how often it stands there.
        grams: number of different n-grams.
    """

    size: int
    gram: Ints
    row: Ints
    count: Ints
    grams: int

    @property
    def total(self) -> int:
        """All n-grams of all rows, with repetitions."""
        return int(self.count.sum())

    @property
    def counts(self) -> Ints:
        """How often each n-gram stands in the corpus, shape (grams,)."""
        return sum_by(self.gram, self.count, self.grams)


@dataclass(frozen=True, slots=True, kw_only=True)
class NgramBins:
    """The same counts for jackknife bins: one entry for each (n-gram, bin) that occurs.

    Attributes:
        gram, bin: shape (entries,).
        count: how often the n-gram stands in the bin, shape (entries,).
        rows: in how many rows of the bin, shape (entries,).
        row_sum: sum of the numbers of those rows, shape (entries,).
        total: n-grams of each bin, with repetitions, shape (bins,).
    """

    gram: Ints
    bin: Ints
    count: Ints
    rows: Ints
    row_sum: Ints
    total: Ints


def sum_by(index: Ints, weights: Ints, length: int) -> Ints:
    """Sums of integer ``weights`` for each value of ``index``, shape (length,); exact below 2**53."""
    return np.bincount(index, weights=weights, minlength=length).astype(np.int64)


def count_ngrams(tokens: Sequence[Sequence[str]]) -> tuple[NgramCounts, ...]:
    """n-grams of 1 to 4 words of each row, one entry of the tuple for each size."""
    lengths = np.array([len(words) for words in tokens], dtype=np.int64)
    flat = [word for words in tokens for word in words]
    number = {word: i for i, word in enumerate(sorted(set(flat)))}
    words = np.array([number[word] for word in flat], dtype=np.int64)
    row = np.repeat(np.arange(len(tokens)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(flat))  # words from here to the end of the row
    out: list[NgramCounts] = []
    gram = words
    for size in SIZES:
        starts = np.flatnonzero(left >= size)
        if size > 1:
            # a gram is the gram one word shorter, and its last word
            wider = np.full(len(flat), -1, dtype=np.int64)
            key = gram[starts] * max(1, len(number)) + words[starts + size - 1]
            wider[starts] = np.unique(key, return_inverse=True)[1]
            gram = wider
        out.append(_count(size, gram[starts], row[starts], len(tokens)))
    return tuple(out)


def _count(size: int, gram: Ints, row: Ints, rows: int) -> NgramCounts:
    entries, count = np.unique(gram * max(1, rows) + row, return_counts=True)
    gram, row = np.divmod(entries, max(1, rows))
    grams = int(gram[-1]) + 1 if len(gram) else 0
    return NgramCounts(size=size, gram=gram, row=row, count=count.astype(np.int64), grams=grams)


def ngram_counts(subject: Subject) -> tuple[NgramCounts, ...]:
    """The n-grams of a subject; read it with ``subject.once(ngram_counts)[size - 1]``."""
    return count_ngrams(subject.tokens)


def ngram_bins(subject: Subject) -> tuple[NgramBins, ...]:
    """The n-grams of a subject by jackknife bin; read it with ``subject.once(ngram_bins)[size - 1]``."""
    bins = int(subject.bins.max(initial=0)) + 1
    return tuple(_by_bin(counts, subject.bins, bins) for counts in subject.once(ngram_counts))


def _by_bin(counts: NgramCounts, bin_of_row: Ints, bins: int) -> NgramBins:
    entries, inverse = np.unique(counts.gram * bins + bin_of_row[counts.row], return_inverse=True)
    gram, bin_ = np.divmod(entries, bins)
    count = sum_by(inverse, counts.count, len(entries))
    return NgramBins(
        gram=gram,
        bin=bin_,
        count=count,
        rows=np.bincount(inverse, minlength=len(entries)).astype(np.int64),
        row_sum=sum_by(inverse, counts.row, len(entries)),
        total=sum_by(bin_, count, bins),
    )
