"""Diversity of words: distinct-n and the compression ratio."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.intervals import estimate_by_jackknife
from cuvee.measure.subject import Subject
from cuvee.records import Estimate

_JACKKNIFE_BYTES = 250_000  # above, compressing once for each bin takes seconds


def measure_distinct(subject: Subject, size: int) -> Estimate | None:
    """Distinct-n (Li et al. 2016, arXiv 1510.03055): different n-grams over all n-grams of the corpus.

    n-grams do not cross rows. It falls as a corpus grows: compare at equal rows and lengths only. None where
    no row has ``size`` words.
    """
    bin_of_gram: dict[tuple[str, ...], int] = {}
    count = int(subject.bins.max(initial=0)) + 1
    total = np.zeros(count)
    for words, b in zip(subject.tokens, subject.bins.tolist(), strict=True):
        for start in range(len(words) - size + 1):
            gram = tuple(words[start : start + size])
            if bin_of_gram.setdefault(gram, b) != b:
                bin_of_gram[gram] = -1  # in several bins: leaving one out does not remove it
            total[b] += 1
    if not total.sum():
        return None
    alone = np.zeros(count)
    np.add.at(alone, [b for b in bin_of_gram.values() if b >= 0], 1.0)
    settings: dict[str, str | float] = {"ngram": size, "tokens": "lower-case words"}

    def without() -> NDArray[np.float64]:
        left = total.sum() - total
        out: NDArray[np.float64] = (len(bin_of_gram) - alone) / np.where(left > 0, left, np.nan)
        return out

    return estimate_by_jackknife(subject, len(bin_of_gram) / float(total.sum()), without, settings)


def measure_compression(subject: Subject) -> Estimate | None:
    """Bytes of the sorted rows over their bytes after zlib at level 6 (as in Shaib et al., arXiv 2403.00553).

    Rows are sorted first, so that their order does not matter; zlib looks back 32 kB. It rises with the size
    of the corpus.
    """
    rows = sorted((text, b) for text, b in zip(subject.corpus.texts, subject.bins.tolist(), strict=True))
    texts = [text for text, _ in rows]
    size = sum(len(t.encode("utf-8", "surrogatepass")) for t in texts)
    if not size:
        return None
    settings: dict[str, str | float] = {"compressor": "zlib level 6", "order": "sorted"}
    value = compression_ratio(texts)
    if size > _JACKKNIFE_BYTES:
        return Estimate(value=value, n=subject.n, settings=settings)

    def without() -> NDArray[np.float64]:
        return np.array(
            [compression_ratio([t for t, b in rows if b != left]) for left in range(subject.bins.max() + 1)]
        )

    return estimate_by_jackknife(subject, value, without, settings)


def compression_ratio(texts: Sequence[str]) -> float:
    """Bytes over compressed bytes of the texts, in the given order, one a line."""
    data = "\n".join(texts).encode("utf-8", "surrogatepass")
    return len(data) / len(zlib.compress(data, 6))
