"""Effective numbers from row sums and from spectra, the log-determinant, and means over pairs of rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cuvee.records import Vectors
from cuvee.similarity.backends import single_blas_thread
from cuvee.similarity.tiles import RowSums

Floats = NDArray[np.float64]
_CHUNK = 16_384  # rows held in float64 at a time


def kernel_diversity(total: Floats, q: float = 0.0, *, population: int | None = None) -> float:
    """Leinster-Cobbold diversity of order ``q`` from the row sums of a similarity with unit diagonal.

    ``(sum_i p_i (Zp)_i^(q-1))^(1/(1-q))`` with p uniform, so ``(Zp)_i = total_i / n``. Order 0 with the
    similarity ``Exponential(tau)`` is DCScore, ``trace(softmax(K / tau))`` (arXiv 2502.08512).

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
    if not q >= 0:
        raise ValueError(f"q is {q!r}; an order is 0 or more, or inf")
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


def mean_pair(sums: RowSums, *, population: int | None = None) -> float:
    """Mean over all pairs of different rows of a function that is 0 on equal rows; nan for one row.

    ``population`` is the number of all rows where ``sums`` are of a sample.
    """
    n = population or len(sums.total)
    return float(sums.total.mean() / (n - 1)) if n > 1 else float("nan")


def mean_pair_without(sums: RowSums, bins: NDArray[np.int64], *, rows: NDArray[np.int64] | None = None) -> Floats:
    """The same mean with each bin left out in turn, shape (bins,), exact; arguments as ``kernel_diversity_without``."""
    own, sizes = bins if rows is None else bins[rows], np.bincount(bins, minlength=sums.by_bin.shape[1])
    out = np.full(len(sizes), np.nan)
    for b, size in enumerate(sizes.tolist()):
        kept, left = own != b, len(bins) - size
        if kept.any() and left > 1:
            out[b] = (sums.total[kept] - sums.by_bin[kept, b]).mean() / (left - 1)
    return out
