"""What a selection holds fixed: how many rows of each label, and of each length within a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus, label_strata
from cuvee.defects import split_tokens
from cuvee.errors import InputError
from cuvee.mix.shares import apportion_rows

Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strata:
    """A pool in strata, from each of which a selection takes a fixed number of rows.

    Attributes:
        codes: stratum of each row, shape (n,).
        quotas: rows that a selection takes of each stratum, shape (strata,).
        words: words of each row, shape (n,).
        labels: label of each row, as its number, shape (n,).
    """

    codes: Codes
    quotas: Codes
    words: Codes
    labels: Codes

    @property
    def rows(self) -> int:
        """Rows of a selection."""
        return int(self.quotas.sum())

    def length_difference(self, chosen: Codes) -> float:
        """Standardised mean difference in words between chosen rows and the pool at the same label counts.

        The pool's rows are weighted so that each label weighs what it does among the chosen rows. The difference of
        the means over the standard deviation of the weighted pool (Cohen's d with the pool as reference); 0 where all
        rows are of one length.
        """
        sizes = np.bincount(self.labels)
        taken = np.bincount(self.labels[chosen], minlength=len(sizes))
        weights = (taken / np.maximum(sizes, 1))[self.labels]
        weights = weights / weights.sum()
        mean = float(weights @ self.words)
        spread = float(np.sqrt(weights @ (self.words - mean) ** 2))
        # weights are rounded, so lengths that are all the same spread by about the rounding of their mean
        return abs(float(self.words[chosen].mean()) - mean) / spread if spread > 1e-9 * mean else 0.0


def make_strata(pool: Corpus, wanted: Mapping[str, int], *, bins: int) -> Strata:
    """Strata of a pool: labels (all rows, for tasks without), each cut into bins of length with about as many rows.

    A label's rows are shared out over its bins in proportion to what the pool has there, so that every selection has
    the pool's distribution of lengths.

    Args:
        pool: the rows to choose from.
        wanted: label -> rows of a selection.
        bins: of length, for each label; 1 leaves length free.

    Raises:
        InputError: a label that the pool does not have, or has too few rows of, with the most that it has.
        ValueError: no rows are wanted, or bins below 1.
    """
    members_of = label_strata(pool)
    counts = Counter(members_of)
    if bins < 1 or not wanted or min(wanted.values()) < 0 or not any(wanted.values()):
        raise ValueError(f"bins is {bins!r} and wanted {dict(wanted)!r}; both must be positive")
    for label, rows in wanted.items():
        if rows > counts.get(label, 0):
            raise InputError(
                f"label {label!r}: {rows} rows were asked, the pool has {counts.get(label, 0)}; ask for fewer, "
                "or give a larger pool"
            )
    words = np.array([len(split_tokens(text)) for text in pool.texts], dtype=np.int64)
    names = sorted(counts)
    labels = np.searchsorted(names, members_of).astype(np.int64)
    codes = np.full(len(pool), -1, dtype=np.int64)
    quotas: list[int] = []
    for number, label in enumerate(names):
        members = np.flatnonzero(labels == number)
        # each bin should give some rows: a few-shot label has fewer bins
        parts = min(bins, max(1, wanted.get(label, 0) // 2))
        cuts = np.quantile(words[members], np.linspace(0, 1, parts + 1)[1:-1]) if parts > 1 else np.array([])
        _, bin_of = np.unique(np.searchsorted(cuts, words[members], side="left"), return_inverse=True)
        sizes = np.bincount(bin_of)
        share = apportion_rows({str(i): int(size) for i, size in enumerate(sizes)}, wanted.get(label, 0))
        codes[members] = bin_of + len(quotas)
        quotas += share.values()
    return Strata(codes=codes, quotas=np.array(quotas, dtype=np.int64), words=words, labels=labels)
