"""What a selection makes large or small, and what it holds fixed: rows of each label, and of each length within it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus, label_strata, split_tokens
from cuvee.errors import InputError
from cuvee.mix.shares import apportion_rows
from cuvee.records import Vectors
from cuvee.similarity import log_det, median_distance, single_blas_thread, spectrum, vendi_score

Codes: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
_TILE = 2048


class Objective(Protocol):
    """A diversity of a set of unit rows."""

    def value(self, chosen: Vectors) -> float:
        """Of the chosen rows, shape (k, d)."""

    def contributions(self, chosen: Vectors, others: Vectors) -> tuple[Floats, Floats]:
        """What each chosen row adds to the rest of them, shape (k,), and each other row would add, shape (m,).

        To first order: the unit is that of the objective or of any rising function of it.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendi:
    """Vendi score of order q (arXiv 2210.02410, 2310.12952) with the cosine kernel, exact."""

    q: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.q < np.inf:
            raise ValueError(f"q is {self.q!r}; an order to select by is above 0 and finite")

    def value(self, chosen: Vectors) -> float:
        """Of the chosen rows."""
        return vendi_score(spectrum(chosen), self.q)

    @single_blas_thread()
    def contributions(self, chosen: Vectors, others: Vectors) -> tuple[Floats, Floats]:
        """The derivative of the Renyi entropy of C = X^T X / k along x x^T.

        For q = 1 this is ``-x^T log(C) x``; else ``x^T C^(q-1) x`` with the sign of 1 - q. Eigenvalues below half a row
        count as half a row: a direction that nothing fills is not infinitely good.
        """
        k = len(chosen)
        gram = chosen.astype(np.float64).T @ chosen.astype(np.float64) / k
        values, vectors = np.linalg.eigh(gram)
        values = np.maximum(values, 0.5 / k)
        if abs(self.q - 1.0) < 1e-9:
            weights = -np.log(values)
        else:
            weights = np.sign(1.0 - self.q) * values ** (self.q - 1.0)
        basis = vectors.astype(np.float32)
        scale = weights.astype(np.float32)
        return _quadratic(chosen, basis, scale), _quadratic(others, basis, scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class DCScore:
    """DCScore (arXiv 2502.08512) with the cosine kernel: ``sum_i 1 / sum_j exp((cos_ij - 1) / tau)``."""

    tau: float = 0.1

    def __post_init__(self) -> None:
        if not self.tau > 0:
            raise ValueError(f"tau is {self.tau!r}; it must be positive")

    def value(self, chosen: Vectors) -> float:
        """Of the chosen rows."""
        return float((1.0 / self._sums(chosen, chosen)).sum())

    def contributions(self, chosen: Vectors, others: Vectors) -> tuple[Floats, Floats]:
        """Exactly what the score loses without a row, and gains with another."""
        sums = self._sums(chosen, chosen)
        inside, outside = np.empty(len(chosen)), np.empty(len(others))
        for start in range(0, len(chosen), _TILE):
            part = self._similarities(chosen[start : start + _TILE], chosen)
            rest = np.maximum(sums - part, 1e-12)  # of another row's sum without this one
            lost = part / (sums * rest)
            own = np.arange(len(part))
            lost[own, start + own] = 0.0  # its own term goes as a whole
            inside[start : start + len(part)] = 1.0 / sums[start : start + len(part)] - lost.sum(axis=1)
        small = sums.astype(np.float32)
        for start in range(0, len(others), _TILE):
            part = self._similarities(others[start : start + _TILE], chosen)
            total = part.sum(axis=1, dtype=np.float64)
            part /= part * small + small * small  # k / (r (r + k))
            outside[start : start + len(part)] = 1.0 / (1.0 + total) - part.sum(axis=1, dtype=np.float64)
        return inside, outside

    def _similarities(self, rows: Vectors, columns: Vectors) -> Vectors:
        """``exp((cos - 1) / tau)``, shape (rows, columns)."""
        tile = rows @ columns.T
        tile -= 1.0
        tile /= self.tau
        return cast("Vectors", np.exp(np.minimum(tile, 0.0, out=tile), out=tile))

    def _sums(self, rows: Vectors, columns: Vectors) -> Floats:
        parts = [
            self._similarities(rows[start : start + _TILE], columns).sum(axis=1, dtype=np.float64)
            for start in range(0, len(rows), _TILE)
        ]
        sums: Floats = np.concatenate(parts)
        return np.maximum(sums, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDet:
    """``log det(I + K / s) / k`` of the cosine kernel: the log-volume of a determinantal point process."""

    s: float = 1.0

    def __post_init__(self) -> None:
        if not self.s > 0:
            raise ValueError(f"s is {self.s!r}; it must be positive")

    def value(self, chosen: Vectors) -> float:
        """Of the chosen rows, per row: with s = 1 the metric ``log_det``."""
        k = len(chosen)
        return log_det(spectrum(chosen) / self.s, k)

    @single_blas_thread()
    def contributions(self, chosen: Vectors, others: Vectors) -> tuple[Floats, Floats]:
        """``-log(1 - l)`` with a chosen row's leverage l, and ``log(1 + x^T A^-1 x / s)`` of another, both exact."""
        data = chosen.astype(np.float64)
        inner = np.eye(data.shape[1]) + data.T @ data / self.s
        values, vectors = np.linalg.eigh(inner)
        basis, scale = vectors.astype(np.float32), (1.0 / values).astype(np.float32)
        leverage = np.minimum(_quadratic(chosen, basis, scale) / self.s, 1.0 - 1e-7)
        return -np.log1p(-leverage), np.log1p(_quadratic(others, basis, scale) / self.s)


class Shift:
    """Squared MMD (Gretton et al. 2012) to real rows, RBF kernel ``exp(-|x - y|^2 / (2 sigma^2))``, all pairs counted.

    Args:
        real: the real unit rows, shape (m, d).
        seed: of the rows whose median distance is sigma.
    """

    def __init__(self, real: Vectors, *, seed: int = 0) -> None:
        self._real, self._bandwidth = real, median_distance(real, seed=seed)
        self._real_mean = float(self.closeness(real).mean())

    def closeness(self, rows: Vectors) -> Floats:
        """Mean kernel of each row to the real rows, shape (n,)."""
        return self._mean_kernel(rows, self._real)

    def kernel(self, rows: Vectors, columns: Vectors) -> Floats:
        """The kernel of each row with each column, shape (rows, columns)."""
        cosines = np.minimum((rows @ columns.T).astype(np.float64), 1.0)
        return np.asarray(np.exp((cosines - 1.0) / self._bandwidth**2))

    def value(self, chosen: Vectors) -> float:
        """Of the chosen rows; it cannot be negative."""
        own = self._mean_kernel(chosen, chosen).mean()
        return float(own - 2.0 * self.closeness(chosen).mean() + self._real_mean)

    def contributions(self, chosen: Vectors, others: Vectors) -> tuple[Floats, Floats]:
        """Half the derivative of k MMD^2 along the weight of a row."""
        inside, outside = (self._mean_kernel(rows, chosen) - self.closeness(rows) for rows in (chosen, others))
        return inside, outside

    def _mean_kernel(self, rows: Vectors, columns: Vectors) -> Floats:
        parts = [self.kernel(rows[i : i + _TILE], columns).mean(axis=1) for i in range(0, len(rows), _TILE)]
        return np.concatenate(parts)


def _quadratic(rows: Vectors, basis: Vectors, scale: Vectors) -> Floats:
    """``x^T B diag(scale) B^T x`` of each row, a bounded number of rows at a time."""
    out = np.empty(len(rows))
    for start in range(0, len(rows), _TILE):
        part = rows[start : start + _TILE] @ basis
        out[start : start + len(part)] = (part * part) @ scale
    return out


OBJECTIVES: Mapping[str, type[Vendi] | type[DCScore] | type[LogDet]] = {
    "vendi": Vendi,
    "dcscore": DCScore,
    "log_det": LogDet,
}
"""What a selection can be steered by."""


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
