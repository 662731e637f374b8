"""Maximum mean discrepancy of two samples, with a permutation test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.fingerprint import derive_rng
from cuvee.records import Vectors
from cuvee.similarity.threads import single_blas_thread

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """Unbiased squared MMD of two samples, and the permutation p-value of "they are one distribution".

    ``rows`` and ``other_rows`` are the rows used, after subsampling; ``bandwidth`` is sigma of the RBF kernel
    ``exp(-|x - y|^2 / (2 sigma^2))``, 0 for the cosine kernel.
    """

    value: float
    p_value: float | None
    bandwidth: float
    rows: int
    other_rows: int
    permutations: int


@single_blas_thread()
def mmd(
    unit: Vectors,
    other: Vectors,
    *,
    kernel: str = "rbf",
    bandwidth: float | None = None,
    permutations: int = 200,
    seed: int = 0,
    max_rows: int = 4000,
) -> Discrepancy:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012, JMLR 13) of two sets of unit rows.

    The kernel matrix of the pooled sample is computed once and every permutation is one column of a matrix
    product. Above ``max_rows`` pooled rows both samples are subsampled (seeded), the smaller one least.

    Args:
        unit, other: shapes (n, d) and (m, d), both at least two rows.
        kernel: ``rbf`` or ``cosine``.
        bandwidth: of the RBF kernel; None takes the median distance of the pooled sample (seeded subsample of
            at most 1,000 rows).
        permutations: of the test; 0 gives no p-value. The smallest p-value is ``1 / (permutations + 1)``.
        seed: of subsamples and permutations.
        max_rows: largest pooled sample.

    Raises:
        ValueError: fewer than two rows on a side, or an unknown kernel.
    """
    if min(len(unit), len(other)) < 2:
        raise ValueError(f"MMD needs two rows on each side, got {len(unit)} and {len(other)}")
    if kernel not in ("rbf", "cosine"):
        raise ValueError(f"kernel is {kernel!r}; valid: 'rbf', 'cosine'")
    x, y = _subsample_pair(unit, other, max_rows, seed)
    pooled = np.vstack([x, y])
    gram = pooled @ pooled.T
    sigma = 0.0
    if kernel == "rbf":
        sigma = bandwidth if bandwidth is not None else median_distance(pooled, seed=seed)
        gram -= np.float32(1.0)  # |x - y|^2 = 2 - 2 cos for unit rows
        np.minimum(gram, 0.0, out=gram)
        gram *= np.float32(1.0 / sigma**2)
        np.exp(gram, out=gram)
    n, total = len(x), len(pooled)
    gram -= gram.mean(dtype=np.float64).astype(np.float32)  # changes no value, but keeps float32 sums small
    np.fill_diagonal(gram, 0.0)
    member = np.zeros((total, permutations + 1), dtype=np.float32)
    member[:n, 0] = 1.0
    rng = derive_rng(seed, "mmd-permutations")
    for column in range(1, permutations + 1):
        member[rng.permutation(total)[:n], column] = 1.0
    found = _mmd_of_members(gram, member, n)
    p_value = (1 + int(np.sum(found[1:] >= found[0]))) / (permutations + 1) if permutations else None
    return Discrepancy(value=_mmd_of_blocks(gram, n), p_value=p_value, bandwidth=sigma, rows=n, other_rows=total - n,
                       permutations=permutations)  # fmt: skip


def median_distance(unit: Vectors, *, seed: int = 0, max_rows: int = 1000) -> float:
    """Median distance between different rows (1 where that is below 0.001), on a seeded subsample of ``max_rows``."""
    if len(unit) > max_rows:
        unit = unit[np.sort(derive_rng(seed, "median-distance").choice(len(unit), max_rows, replace=False))]
    above = np.triu_indices(len(unit), k=1)
    squared = np.maximum(2.0 - 2.0 * (unit @ unit.T)[above].astype(np.float64), 0.0)
    found = float(np.sqrt(np.median(squared))) if len(squared) else 0.0
    return found if found > 1e-3 else 1.0  # float32 cosines resolve no smaller distance


def _mmd_of_blocks(gram: NDArray[np.float32], n: int) -> float:
    """Unbiased MMD^2 of the first ``n`` rows and the rest; ``gram`` has a zero diagonal."""
    m = len(gram) - n
    inner, outer = gram[:n, :n].sum(dtype=np.float64), gram[n:, n:].sum(dtype=np.float64)
    across = gram[:n, n:].sum(dtype=np.float64)
    return float(inner / (n * (n - 1)) + outer / (m * (m - 1)) - 2.0 * across / (n * m))


def _mmd_of_members(gram: NDArray[np.float32], member: NDArray[np.float32], n: int) -> Floats:
    """Unbiased MMD^2 of each column's split; ``gram`` has a zero diagonal."""
    m = len(gram) - n
    row_total = gram.sum(axis=1, dtype=np.float64)
    inner: Floats = np.einsum("ij,ij->j", member, gram @ member, dtype=np.float64)
    touching = row_total @ member
    across = touching - inner
    outer = row_total.sum() - 2.0 * touching + inner
    out: Floats = inner / (n * (n - 1)) + outer / (m * (m - 1)) - 2.0 * across / (n * m)
    return out


def _subsample_pair(x: Vectors, y: Vectors, max_rows: int, seed: int) -> tuple[Vectors, Vectors]:
    if len(x) + len(y) <= max_rows:
        return x, y
    half = max_rows // 2
    keep_x = min(len(x), max(half, max_rows - len(y)))
    keep_y = min(len(y), max_rows - keep_x)
    rng = derive_rng(seed, "mmd-subsample")
    chosen_x = np.sort(rng.choice(len(x), keep_x, replace=False))
    chosen_y = np.sort(rng.choice(len(y), keep_y, replace=False))
    return x[chosen_x], y[chosen_y]
