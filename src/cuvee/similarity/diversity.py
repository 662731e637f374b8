"""Effective numbers from row sums and from spectra, the log-determinant, the mean cosine, and the grouped jackknife."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.fingerprint import derive_rng
from cuvee.records import Floats, Vectors
from cuvee.similarity.backends import single_blas_thread
from cuvee.similarity.tiles import RowSums

NORMAL_QUANTILE = 1.959963984540054  # at 97.5%
_CHUNK = 16_384  # rows held in float64 at a time


def kernel_diversity(total: Floats, q: float = 0.0, *, population: int | None = None) -> float:
    """Leinster-Cobbold diversity of order ``q`` from the row sums of a similarity with unit diagonal.

    ``(sum_i p_i (Zp)_i^(q-1))^(1/(1-q))`` with p uniform, so ``(Zp)_i = total_i / n``. Order 0 with the
    similarity ``exp((cos - 1) / tau)`` is DCScore, ``trace(softmax(K / tau))`` (arXiv 2502.08512).

    Args:
        total: row sums, shape (n,), or of a sample of m of the n rows, shape (m,), over all n.
        q: order, 0 or more, or inf.
        population: n where ``total`` is of a sample: the mean over the sample stands for that over all rows.
    """
    return _power_mean_diversity(np.full(len(total), 1.0 / len(total)), total / (population or len(total)), q)


def kernel_diversity_without(
    sums: RowSums, bins: NDArray[np.int64], q: float = 0.0, *, rows: NDArray[np.int64] | None = None
) -> Floats:
    """The same diversity with each bin left out in turn, shape (bins,), exact from the partial row sums.

    Args:
        sums: of all n rows, or of the sample ``rows``.
        bins: bin of each of the n rows.
        q: order.
        rows: the sampled rows; None where ``sums`` are of all.
    """
    own, sizes = bins if rows is None else bins[rows], np.bincount(bins, minlength=sums.by_bin.shape[1])
    out = np.empty(len(sizes))
    for b, size in enumerate(sizes.tolist()):
        kept = own != b
        left = sums.total[kept] - sums.by_bin[kept, b]
        out[b] = kernel_diversity(np.maximum(left, 1.0), q, population=len(bins) - size) if kept.any() else np.nan
    return out


@single_blas_thread()
def spectrum(unit: Vectors) -> Floats:
    """Eigenvalues of ``K / n`` for the cosine kernel K, largest first, summing to 1, shape (min(n, d),).

    Through the smaller of the d x d dual ``X^T X / n`` and the n x n Gram matrix; both have the same nonzero
    eigenvalues. O(n d min(n, d)).
    """
    n, d = unit.shape
    if n < d:
        data = unit.astype(np.float64)
        return _normalised_eigenvalues(data @ data.T)
    return _normalised_eigenvalues(_gram(unit, np.arange(n)))


@single_blas_thread()
def spectra_without(unit: Vectors, bins: NDArray[np.int64]) -> list[Floats]:
    """The spectrum with each bin of rows left out in turn."""
    count = int(bins.max(initial=0)) + 1
    if len(unit) < unit.shape[1]:
        data = unit.astype(np.float64)
        gram = data @ data.T
        return [_normalised_eigenvalues(gram[np.ix_(bins != b, bins != b)]) for b in range(count)]
    parts = [_gram(unit, np.flatnonzero(bins == b)) for b in range(count)]
    gram = np.sum(parts, axis=0)
    return [_normalised_eigenvalues(gram - part) for part in parts]


def _gram(unit: Vectors, rows: NDArray[np.int64]) -> Floats:
    """``X^T X`` of some rows in float64, a bounded number of rows at a time."""
    out = np.zeros((unit.shape[1], unit.shape[1]))
    for start in range(0, len(rows), _CHUNK):
        part = unit[rows[start : start + _CHUNK]].astype(np.float64)
        out += part.T @ part
    return out


def vendi_score(eigenvalues: Floats, q: float = 1.0) -> float:
    """Vendi score of order ``q``: exponential of the Renyi entropy of the eigenvalues (arXiv 2210.02410, 2310.12952).

    Order 0 counts the eigenvalues that are not zero (up to rounding, relative to the largest), ``inf`` is one
    over the largest.
    """
    scale = eigenvalues.max(initial=0.0)
    kept = eigenvalues[eigenvalues > scale * 1e-12 * max(1, len(eigenvalues))]
    return _power_mean_diversity(kept, kept, q)


def log_det(eigenvalues: Floats, n: int) -> float:
    """``log det(I + K)`` over n of the cosine kernel K of n rows, from the eigenvalues of ``K / n``.

    n orthogonal rows have log 2, n equal rows ``log(1 + n) / n``. It is the log-volume that a determinantal point
    process with the L-ensemble K normalises by (Kulesza and Taskar 2012, arXiv 1207.6083), and through the
    spectrum costs what the Vendi score costs.
    """
    return float(np.log1p(n * eigenvalues).sum() / n)


def _power_mean_diversity(p: Floats, ordinariness: Floats, q: float) -> float:
    if np.isinf(q):
        return float(1.0 / ordinariness.max())
    logs = np.log(ordinariness)
    if abs(q - 1.0) < 1e-9:
        return float(np.exp(-np.sum(p * logs)))
    powers = (q - 1.0) * logs
    largest = powers.max()
    log_sum = largest + np.log(np.sum(p * np.exp(powers - largest)))
    return float(np.exp(log_sum / (1.0 - q)))


def _normalised_eigenvalues(gram: Floats) -> Floats:
    values = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0)
    out: Floats = values / values.sum()
    return out


def mean_cosine(unit: Vectors) -> float:
    """Mean cosine over all pairs of different rows; needs at least two rows. O(n d)."""
    total = unit.sum(axis=0, dtype=np.float64)
    return float(_mean_pair(total @ total, len(unit)))


def mean_cosine_without(unit: Vectors, bins: NDArray[np.int64]) -> Floats:
    """The mean cosine with each bin left out in turn, shape (bins,)."""
    count = int(bins.max(initial=0)) + 1
    by_bin = np.array([unit[bins == b].sum(axis=0, dtype=np.float64) for b in range(count)])
    left = by_bin.sum(axis=0) - by_bin
    rows = len(unit) - np.bincount(bins, minlength=count)
    squares: Floats = np.einsum("bd,bd->b", left, left)
    return np.array([_mean_pair(s, int(r)) for s, r in zip(squares, rows, strict=True)])


def _mean_pair(squared_sum: float, n: int) -> float:
    return (squared_sum - n) / (n * (n - 1)) if n > 1 else float("nan")


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95% interval and the standard error it is made of."""

    low: float
    high: float
    se: float


def wilson_interval(rate: float, n: float) -> tuple[float, float]:
    """The 95% score interval of a rate among ``n`` independent rows (Wilson 1927)."""
    z = NORMAL_QUANTILE
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2)))
    # at the ends the formula gives the rate itself up to rounding
    return min(rate, max(0.0, centre - half)), max(rate, min(1.0, centre + half))


def jackknife_bins(groups: Sequence[str], *, n_bins: int = 64, seed: int = 0) -> NDArray[np.int64]:
    """Bin of each row, shape (n,): whole groups, dealt so that at most ``n_bins`` bins have about equal size."""
    sizes: dict[str, int] = {}
    for name in groups:
        sizes[name] = sizes.get(name, 0) + 1
    names = list(sizes)
    shuffled = [names[i] for i in derive_rng(seed, "jackknife").permutation(len(names))]
    shuffled.sort(key=lambda name: -sizes[name])
    heap = [(0, b) for b in range(min(n_bins, len(names)))]
    bin_of: dict[str, int] = {}
    for name in shuffled:
        filled, b = heap[0]
        heapq.heapreplace(heap, (filled + sizes[name], b))
        bin_of[name] = b
    return np.array([bin_of[name] for name in groups], dtype=np.int64)


def jackknife_interval(value: float, without: Floats, bins: NDArray[np.int64]) -> Interval | None:
    """Value +- t quantile x standard error, from the values with each bin left out.

    The standard error is the delete-one-bin jackknife's; for bins of unequal size the delete-m_j jackknife
    (Busing, Meijer and van der Leeden 1999), which equals it for equal ones. None below four bins, or where a
    left-out value is not finite.

    Args:
        value: the statistic on all rows.
        without: shape (g,), the statistic with bin b left out.
        bins: bin of each row, shape (n,).
    """
    from scipy.special import stdtrit

    g = len(without)
    if g < 4 or not np.isfinite(without).all():
        return None
    h = len(bins) / np.bincount(bins, minlength=g)
    pseudo = h * value - (h - 1.0) * without
    centre = g * value - float(np.sum((1.0 - 1.0 / h) * without))
    se = float(np.sqrt(np.mean((pseudo - centre) ** 2 / (h - 1.0))))
    half = float(stdtrit(g - 1, 0.975)) * se
    return Interval(value - half, value + half, se)


def two_sample_interval(
    value: float, first: Interval, first_bins: int, second: Interval, second_bins: int, *, widen: float = 1.0
) -> Interval:
    """95% interval of a number of two independent samples, from the jackknife of each.

    The two variances add; t quantile with Satterthwaite's degrees of freedom.

    Args:
        value: the number on all rows of both.
        first, second: intervals of ``value`` with bins of one sample left out.
        first_bins, second_bins: how many bins each sample has.
        widen: factor on the standard error, where the left-out values do not show all of it.
    """
    from scipy.special import stdtrit

    sides = [(first.se**2, first_bins - 1), (second.se**2, second_bins - 1)]
    variance = sum(v for v, _ in sides)
    if variance == 0:
        return Interval(value, value, 0.0)
    df = variance**2 / sum(v**2 / f for v, f in sides)
    se = widen * float(np.sqrt(variance))
    half = float(stdtrit(df, 0.975)) * se
    return Interval(value - half, value + half, se)
