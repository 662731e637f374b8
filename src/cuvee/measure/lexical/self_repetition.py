"""Self-repetition: 4-grams of a row that stand in other rows as well."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.intervals import estimate_by_jackknife
from cuvee.measure.lexical.ngrams import TOKENS, Ints, ngram_bins, ngram_counts, sum_by
from cuvee.measure.subject import Subject
from cuvee.records import Estimate

SIZE = 4
Floats = NDArray[np.float64]
_SETTINGS: dict[str, str | float] = {"ngram": SIZE, "tokens": TOKENS}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repeats:
    """4-grams that stand in two rows or more.

    Attributes:
        by_row: how many of the 4-grams of each row do, each as often as it stands there, shape (n,).
        row, bin, count: row ``row`` loses ``count`` of them when bin ``bin`` is left out, sorted by bin; the
            n-grams of which no row but that one would remain.
        total: 4-grams of the corpus.
    """

    by_row: Ints
    row: Ints
    bin: Ints
    count: Ints
    total: int


def measure_self_repetition(subject: Subject) -> Estimate | None:
    """Fraction of all 4-grams of words that stand in another row too.

    Self-repetition (Salkar et al. 2022, aclanthology 2022.aacl-short.42; Shaib et al., arXiv 2403.00553) made
    independent of text length by counting the fraction of 4-grams instead of their number: see
    ``measure_log_self_repetition``. It rises with the number of rows. None where no row has four words.
    """
    found = subject.once(_find_repeats)
    if not found.total:
        return None

    def without() -> Floats:
        bins = int(subject.bins.max()) + 1
        mine = sum_by(subject.bins, found.by_row, bins)
        lost = sum_by(found.bin, found.count, bins)
        left = found.total - subject.once(ngram_bins)[SIZE - 1].total
        out: Floats = (int(found.by_row.sum()) - mine - lost) / np.where(left > 0, left, np.nan)
        return out

    return estimate_by_jackknife(subject, int(found.by_row.sum()) / found.total, without, _SETTINGS)


def measure_log_self_repetition(subject: Subject) -> Estimate | None:
    """Self-repetition as published: the mean over rows of log(1 + N), N the row's 4-grams that other rows have.

    Salkar et al. 2022 (aclanthology 2022.aacl-short.42); natural logarithm, a 4-gram counts as often as it
    stands in the row. Longer texts have more 4-grams, so the same words cut into longer rows score many times
    higher: compare at matched length only, or use the fraction. None where no row has four words.
    """
    found = subject.once(_find_repeats)
    if not found.total:
        return None

    def without() -> Floats:
        out: list[float] = []
        for left_out in range(int(subject.bins.max()) + 1):
            part = slice(*np.searchsorted(found.bin, [left_out, left_out + 1]).tolist())
            lost = sum_by(found.row[part], found.count[part], subject.n)
            out.append(float(np.log1p((found.by_row - lost)[subject.bins != left_out]).mean()))
        return np.array(out)

    value = math.fsum(np.log1p(found.by_row).tolist()) / subject.n
    return estimate_by_jackknife(subject, value, without, {**_SETTINGS, "logarithm": "natural"})


def _find_repeats(subject: Subject) -> _Repeats:
    counts, bins = subject.once(ngram_counts)[SIZE - 1], subject.once(ngram_bins)[SIZE - 1]
    rows_of = np.bincount(counts.gram, minlength=counts.grams)
    row_sum = sum_by(counts.gram, counts.row, counts.grams)
    repeated = rows_of[counts.gram] > 1
    by_row = sum_by(counts.row[repeated], counts.count[repeated], subject.n)
    # all rows but one lie in the bin: that one is the sum of all row numbers less those in the bin
    last = np.flatnonzero((rows_of[bins.gram] > 1) & (rows_of[bins.gram] - bins.rows == 1))
    last = last[np.argsort(bins.bin[last], kind="stable")]
    gram = bins.gram[last]
    return _Repeats(
        by_row=by_row,
        row=row_sum[gram] - bins.row_sum[last],
        bin=bins.bin[last],
        count=counts.counts[gram] - bins.count[last],
        total=counts.total,
    )
