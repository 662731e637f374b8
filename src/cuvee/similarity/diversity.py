"""Effective numbers: diversity from row sums, from spectra, and the mean cosine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cuvee.records import Vectors
from cuvee.similarity.kernels import RowSums
from cuvee.similarity.threads import single_blas_thread

Floats = NDArray[np.float64]


def kernel_diversity(total: Floats, q: float = 0.0) -> float:
    """Leinster-Cobbold diversity of order ``q`` from the row sums of a similarity with unit diagonal.

    ``(sum_i p_i (Zp)_i^(q-1))^(1/(1-q))`` with p uniform, so ``(Zp)_i = total_i / n``. Order 0 with the
    similarity ``Exponential(tau)`` is DCScore, ``trace(softmax(K / tau))`` (arXiv 2502.08512).
    """
    return _power_mean_diversity(np.full(len(total), 1.0 / len(total)), total / len(total), q)


def kernel_diversity_without(sums: RowSums, bins: NDArray[np.int64], q: float = 0.0) -> Floats:
    """The same diversity with each bin left out in turn, shape (bins,), exact from the partial row sums."""
    count = sums.by_bin.shape[1]
    out = np.empty(count)
    for b in range(count):
        kept = bins != b
        left = sums.total[kept] - sums.by_bin[kept, b]
        out[b] = kernel_diversity(np.maximum(left, 1.0), q)
    return out


@single_blas_thread()
def spectrum(unit: Vectors) -> Floats:
    """Eigenvalues of ``K / n`` for the cosine kernel K, largest first, summing to 1, shape (min(n, d),).

    Through the smaller of the d x d dual ``X^T X / n`` and the n x n Gram matrix; both have the same nonzero
    eigenvalues. O(n d min(n, d)).
    """
    data = unit.astype(np.float64)
    return _normalised_eigenvalues(data.T @ data if data.shape[0] >= data.shape[1] else data @ data.T)


@single_blas_thread()
def spectra_without(unit: Vectors, bins: NDArray[np.int64]) -> list[Floats]:
    """The spectrum with each bin of rows left out in turn."""
    data = unit.astype(np.float64)
    count = int(bins.max(initial=0)) + 1
    if data.shape[0] >= data.shape[1]:
        gram = data.T @ data
        parts = (data[bins == b] for b in range(count))
        return [_normalised_eigenvalues(gram - part.T @ part) for part in parts]
    gram = data @ data.T
    return [_normalised_eigenvalues(gram[np.ix_(bins != b, bins != b)]) for b in range(count)]


def vendi_score(eigenvalues: Floats, q: float = 1.0) -> float:
    """Vendi score of order ``q``: exponential of the Renyi entropy of the eigenvalues (arXiv 2210.02410, 2310.12952).

    Order 0 counts the eigenvalues that are not zero (up to rounding, relative to the largest), ``inf`` is one
    over the largest.
    """
    scale = eigenvalues.max(initial=0.0)
    kept = eigenvalues[eigenvalues > scale * 1e-12 * max(1, len(eigenvalues))]
    return _power_mean_diversity(kept, kept, q)


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
    by_bin = np.zeros((count, unit.shape[1]))
    np.add.at(by_bin, bins, unit.astype(np.float64))
    left = by_bin.sum(axis=0) - by_bin
    rows = len(unit) - np.bincount(bins, minlength=count)
    squares: Floats = np.einsum("bd,bd->b", left, left)
    return np.array([_mean_pair(s, int(r)) for s, r in zip(squares, rows, strict=True)])


def _mean_pair(squared_sum: float, n: int) -> float:
    return (squared_sum - n) / (n * (n - 1)) if n > 1 else float("nan")
