"""Homogenisation: how alike the rows are, pair by pair, as ROUGE-L."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.lexical.ordering import canonical_order
from cuvee.measure.lexical.resampling import estimate_with_bins
from cuvee.measure.subject import Subject
from cuvee.records import Estimate

MOST_ROWS = 2_000  # two million pairs; above, a sample of rows
_TILE = 256
_TOKEN = re.compile(r"[a-z0-9]+")
_WORD_CHARACTER = re.compile(r"[^\W_]")
_LATIN_ENOUGH = 0.5
Floats = NDArray[np.float64]


def measure_rouge_l(subject: Subject) -> Estimate | None:
    """Homogenisation by ROUGE-L (Padmakumar and He 2024, arXiv 2309.05196; Shaib et al., arXiv 2403.00553).

    The mean over all pairs of different rows of the F1 of ROUGE-L (Lin 2004): twice the longest common
    subsequence of words over the words of both rows, the same whichever row is the reference. Tokens are those of
    the rouge-score package without stemming: runs of a-z and 0-9. A row of no token scores 0 with every other.

    Above 2,000 rows the pairs are those of a seeded sample of 2,000 rows, which does not depend on their order;
    the interval covers the chance of the sample. None below two rows, and where over half of the letters are of
    other alphabets, which these tokens leave out.
    """
    order = canonical_order(subject.corpus.texts, seed=subject.seed, label="rouge_l")[:MOST_ROWS]
    texts = [subject.corpus.texts[row] for row in order.tolist()]
    rows = [_TOKEN.findall(text.lower()) for text in texts]
    if len(rows) < 2 or not _is_latin(texts, rows):
        return None
    bins = np.unique(subject.bins[order], return_inverse=True)[1]
    by_bin = rouge_l_sums(rows, bins)
    m = len(rows)
    value = math.fsum(by_bin.sum(axis=1).tolist()) / (m * (m - 1))

    def without() -> Floats:
        between = np.zeros((by_bin.shape[1], by_bin.shape[1]))
        np.add.at(between, bins, by_bin)
        left = m - np.bincount(bins)
        rest = between.sum() - 2.0 * between.sum(axis=1) + np.diag(between)
        out: Floats = np.maximum(0.0, rest) / np.where(left > 1, left * (left - 1.0), np.nan)
        return out

    settings: dict[str, str | float] = {
        "tokens": "runs of a-z and 0-9", "stemmer": "none", "rows": m, "pairs": m * (m - 1) // 2
    }  # fmt: skip
    return estimate_with_bins(subject, value, without, bins, settings)


def rouge_l_sums(rows: Sequence[Sequence[str]], bins: NDArray[np.int64]) -> Floats:
    """Sums of ROUGE-L F1 of each row with the other rows of each bin, shape (n, bins).

    Args:
        rows: words of n rows.
        bins: bin of each row, shape (n,), numbered from 0.
    """
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cdist

    number: dict[str, int] = {}
    # one code point a word: the longest common subsequence of strings is then that of words
    coded = ["".join(chr(number.setdefault(word, len(number))) for word in words) for words in rows]
    lengths = np.array([len(words) for words in rows], dtype=np.float64)
    member = np.zeros((len(rows), int(bins.max(initial=0)) + 1))
    member[np.arange(len(rows)), bins] = 1.0
    out = np.zeros_like(member)
    for start in range(0, len(rows), _TILE):
        stop = min(start + _TILE, len(rows))
        common = cdist(coded[start:stop], coded[start:], scorer=LCSseq.similarity, dtype=np.int32)
        both = lengths[start:stop, None] + lengths[None, start:]
        score = 2.0 * common / np.maximum(both, 1.0)
        score[np.arange(stop - start), np.arange(stop - start)] = 0.0
        out[start:stop] += score @ member[start:]
        # the pairs with rows past the tile count for both of their rows
        out[stop:] += score[:, stop - start :].T @ member[start:stop]
    return out


def _is_latin(texts: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    kept = sum(len(word) for words in rows for word in words)
    return kept > 0 and kept >= _LATIN_ENOUGH * sum(len(_WORD_CHARACTER.findall(text)) for text in texts)
