"""Distinct-n and the entropy of n-grams."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.intervals import estimate_by_jackknife
from cuvee.measure.lexical.ngrams import TOKENS, Ints, ngram_bins, ngram_counts
from cuvee.measure.subject import Subject
from cuvee.records import Estimate


def measure_distinct(subject: Subject, size: int) -> Estimate | None:
    """Distinct-n (Li et al. 2016, arXiv 1510.03055): different n-grams over all n-grams of the corpus.

    n-grams do not cross rows. It falls as a corpus grows: compare at equal rows and lengths only. None where
    no row has ``size`` words.
    """
    counts = subject.once(ngram_counts)[size - 1]
    if not counts.grams:
        return None

    def without() -> NDArray[np.float64]:
        bins = subject.once(ngram_bins)[size - 1]
        # only n-grams that stand in one bin vanish when it is left out
        in_one = np.bincount(bins.gram, minlength=counts.grams)[bins.gram] == 1
        alone = np.bincount(bins.bin[in_one], minlength=len(bins.total))
        return _ratio(counts.grams - alone, counts.total - bins.total)

    return estimate_by_jackknife(subject, counts.grams / counts.total, without, {"ngram": size, "tokens": TOKENS})


def measure_entropy(subject: Subject, size: int) -> Estimate | None:
    """Shannon entropy, in bits, of the distribution of the corpus over its n-grams (Shannon 1948).

    The plug-in estimate: at most log2 of the number of n-grams, so it rises with the number of rows. Unlike
    distinct-n it sees how evenly the n-grams are used, and not only how many there are (Zhang et al. 2018,
    arXiv 1809.05972, use it for dialogue). None where no row has ``size`` words.
    """
    counts = subject.once(ngram_counts)[size - 1]
    if not counts.grams:
        return None
    all_counts = counts.counts
    values, times = np.unique(all_counts, return_counts=True)
    spread = math.fsum((times * _count_log(values)).tolist())
    value = max(0.0, math.log2(counts.total) - spread / counts.total)

    def without() -> NDArray[np.float64]:
        bins = subject.once(ngram_bins)[size - 1]
        before = all_counts[bins.gram]
        change = _count_log(before) - _count_log(before - bins.count)
        left = counts.total - bins.total
        rest = np.full(len(left), spread)
        np.subtract.at(rest, bins.bin, change)
        out: NDArray[np.float64] = np.log2(np.where(left > 0, left, np.nan)) - _ratio(rest, left)
        return out

    return estimate_by_jackknife(subject, value, without, {"ngram": size, "tokens": TOKENS})


def _count_log(counts: Ints) -> NDArray[np.float64]:
    real = counts.astype(np.float64)
    out: NDArray[np.float64] = real * np.log2(np.maximum(real, 1.0))
    return out


def _ratio(top: NDArray[np.float64] | Ints, bottom: Ints) -> NDArray[np.float64]:
    """The ratio, nan where nothing is left."""
    out: NDArray[np.float64] = top / np.where(bottom > 0, bottom, np.nan)
    return out
