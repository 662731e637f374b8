"""Vocabulary richness that hardly depends on the amount of text: MTLD and HD-D."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.intervals import estimate_by_jackknife
from cuvee.measure.lexical.ngrams import TOKENS, ngram_bins, ngram_counts
from cuvee.measure.lexical.ordering import canonical_order
from cuvee.measure.lexical.resampling import estimate_with_bins, merge_bins
from cuvee.measure.subject import Subject
from cuvee.records import Estimate

FACTOR = 0.72
SHORTEST_FACTOR = 10
SAMPLE = 42


def measure_mtld(subject: Subject) -> Estimate | None:
    """MTLD (McCarthy and Jarvis 2010): words it takes until the type-token ratio falls below 0.72.

    The measure of lexical diversity that depends least on the amount of text. It is made for running text: rows
    are joined in the order of a seeded hash of their text, so that their order does not matter and neighbours
    have nothing in common but the corpus; unlike distinct-n it does not fall with the number of rows.

    The interval computes it anew with each of at most 16 merged bins left out. None where all words differ, as
    the ratio then never falls.
    """
    texts, tokens = subject.corpus.texts, subject.tokens
    value = _joined_mtld(texts, tokens, subject.seed)
    if value is None:
        return None
    bins = merge_bins(subject)

    def without() -> NDArray[np.float64]:
        out: list[float] = []
        for left_out in range(int(bins.max()) + 1):
            kept = np.flatnonzero(bins != left_out).tolist()
            found = _joined_mtld([texts[i] for i in kept], [tokens[i] for i in kept], subject.seed)
            out.append(math.nan if found is None else found)
        return np.array(out)

    settings: dict[str, str | float] = {
        "factor": FACTOR, "shortest_factor": SHORTEST_FACTOR, "tokens": TOKENS, "order": "seeded hash of the text"
    }  # fmt: skip
    return estimate_with_bins(subject, value, without, bins, settings)


def mtld(words: Sequence[str]) -> float | None:
    """MTLD of running text, the mean of a forward and a backward pass; None where all words differ.

    A factor ends where at least ten words have a type-token ratio below 0.72; the rest counts as the part of a
    factor that its ratio has fallen (McCarthy and Jarvis 2010, Behavior Research Methods 42:381).
    """
    if len(set(words)) == len(words):
        return None
    # a word that repeats makes factors of either pass positive: within a factor the ratio is below 1
    return (len(words) / _factors(words) + len(words) / _factors(words[::-1])) / 2


def _factors(words: Sequence[str]) -> float:
    factors, length, seen = 0.0, 0, set[str]()
    for word in words[:-1]:
        seen.add(word)
        length += 1
        if length >= SHORTEST_FACTOR and len(seen) / length < FACTOR:
            factors, length = factors + 1.0, 0
            seen.clear()
    seen.add(words[-1])
    return factors + (1.0 - len(seen) / (length + 1)) / (1.0 - FACTOR)


def _joined_mtld(texts: Sequence[str], tokens: Sequence[Sequence[str]], seed: int) -> float | None:
    order = canonical_order(texts, seed=seed, label="mtld").tolist()
    return mtld([word for row in order for word in tokens[row]])


def measure_hd_d(subject: Subject) -> Estimate | None:
    """HD-D (McCarthy and Jarvis 2007, 2010): expected type-token ratio of 42 words drawn without replacement.

    The hypergeometric form of vocd's D, over the words of all rows; it does not depend on the order of words and
    hardly on the number of rows. None where there are fewer than 42 words.
    """
    counts = subject.once(ngram_counts)[0]
    total = counts.total
    if total < SAMPLE:
        return None
    all_counts = counts.counts

    def without() -> NDArray[np.float64]:
        bins = subject.once(ngram_bins)[0]
        out: list[float] = []
        for left_out, mine in enumerate(bins.total.tolist()):
            rest = all_counts.copy()
            inside = bins.bin == left_out
            rest[bins.gram[inside]] -= bins.count[inside]
            out.append(hd_d(rest) if total - mine >= SAMPLE else math.nan)
        return np.array(out)

    settings: dict[str, str | float] = {"sample": SAMPLE, "tokens": TOKENS}
    return estimate_by_jackknife(subject, hd_d(all_counts), without, settings)


def hd_d(counts: NDArray[np.int64]) -> float:
    """HD-D from the count of each word, shape (types,); between 1/42 and 1.

    Raises:
        ValueError: fewer than 42 words.
    """
    total = int(counts.sum())
    if total < SAMPLE:
        raise ValueError(f"counts has {total!r} words; HD-D draws {SAMPLE}, give at least as many")
    values, types = np.unique(counts, return_counts=True)
    # probability that 42 draws miss a word of count c: the product over draws of 1 - c / (words left)
    factors = 1.0 - values[:, None] / (total - np.arange(SAMPLE))[None, :]
    missed = np.prod(np.maximum(factors, 0.0), axis=1)
    return math.fsum((types * (1.0 - missed)).tolist()) / SAMPLE
