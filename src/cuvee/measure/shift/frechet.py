"""The Frechet distance between Gaussians fitted to two sets of vectors, without its small-sample bias."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cuvee.fingerprint import derive_rng
from cuvee.measure.shift.sides import MERGED_BINS, Floats, choose_sides, estimate_from_sides, vectors_of
from cuvee.measure.subject import Subject
from cuvee.records import Estimate
from cuvee.similarity import single_blas_thread

MOST_ROWS = 10_000
NULLS = 10  # random splits behind the correction
MIN_ROWS = 4


def measure_frechet(subject: Subject) -> Estimate | None:
    """Frechet distance (Heusel et al., arXiv 1706.08500) between Gaussians fitted to both sets of unit vectors.

    ``|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)``. As it is, it is biased upward (Chong and Forsyth, arXiv
    1911.07023), by far more than the distances of interest where rows are not many times the dimensions: the
    corrected value is 0 on average where there is no shift, and can be negative. ``plain`` among the settings is
    the uncorrected one. Rows of one group are not independent: one row a group is used. Above 10,000 rows of
    both sides together a seeded sample is used. The interval leaves out 16 bins of each side in turn. None with
    fewer than 4 rows or groups on a side; 0 where the corpus is the real data.
    """
    sides = choose_sides(subject, most=MOST_ROWS, one_a_group=True, max_bins=MERGED_BINS)
    if sides.smallest < MIN_ROWS:
        return None
    ours, theirs = (vectors.astype(np.float64) for vectors in vectors_of(subject, sides))
    shrinkage = covariance_shrinkage(ours, theirs, nulls=NULLS, seed=subject.seed)
    value = 0.0 if subject.is_real else frechet_distance(ours, theirs, shrinkage=shrinkage)
    settings: dict[str, str | float] = {
        "plain": frechet_distance(ours, theirs),
        "shrinkage": shrinkage,
        "nulls": NULLS,
        "sample": "all rows" if len(sides.ours) == subject.n else "one row a group, or a seeded sample",
    }
    return estimate_from_sides(
        subject,
        sides,
        value,
        lambda: _without(ours, theirs, sides.ours.bins, sides.theirs.bins, shrinkage),
        settings,
    )


@single_blas_thread()
def frechet_distance(x: Floats, y: Floats, *, shrinkage: float | None = None) -> float:
    """The squared Frechet distance between Gaussians fitted to two samples.

    With ``shrinkage`` (see ``covariance_shrinkage``) it is corrected for the sizes of the samples: the means' part
    is unbiased once ``tr S1 / n + tr S2 / m`` is taken off, and ``tr (S1 S2)^(1/2)`` once divided by the shrinkage.

    Args:
        x, y: independent rows, shapes (n, d) and (m, d), at least two each.
        shrinkage: of the covariance term; None gives the plain, biased distance.

    Raises:
        ValueError: fewer than two rows on a side.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"the Frechet distance needs two rows on each side, got {len(x)} and {len(y)}")
    gap = float(np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2))
    left, right = _root(x - x.mean(axis=0)), _root(y - y.mean(axis=0))
    traces = float(np.sum(left**2)), float(np.sum(right**2))
    shared = _root_trace(left, right)
    if shrinkage is None:
        return gap + sum(traces) - 2.0 * shared
    return gap - traces[0] / len(x) - traces[1] / len(y) + sum(traces) - 2.0 * shared / shrinkage


@single_blas_thread()
def covariance_shrinkage(x: Floats, y: Floats, *, nulls: int = NULLS, seed: int = 0) -> float:
    """How far too small ``tr (S1 S2)^(1/2)`` comes out for samples of these sizes, as a factor up to 1.

    Random splits, in the sizes of the samples, of all rows (each centred on its own sample) are samples of one
    distribution: there the term should be ``tr S``. The factor is what it is, over that. It depends on the shape of
    the covariance and on the sizes, not on its scale. 1 where the rows are all the same.

    Args:
        x, y: independent rows, shapes (n, d) and (m, d), at least two each.
        nulls: random splits.
        seed: of the splits.
    """
    n, m = len(x), len(y)
    pooled = np.vstack([x - x.mean(axis=0), y - y.mean(axis=0)])
    rng = derive_rng(seed, "frechet-nulls")
    found = expected = 0.0
    for _ in range(nulls):
        order = rng.permutation(n + m)
        first, second = pooled[order[:n]], pooled[order[n:]]
        left, right = _root(first - first.mean(axis=0)), _root(second - second.mean(axis=0))
        found += _root_trace(left, right)
        expected += 0.5 * float(np.sum(left**2) + np.sum(right**2))
    return found / expected if expected > 0 and found > 0 else 1.0


def _root_trace(left: Floats, right: Floats) -> float:
    """``tr (S1 S2)^(1/2)`` from roots of S1 and S2: the sum of the singular values of their product."""
    product = left @ right.T
    smaller = product @ product.T if len(left) <= len(right) else product.T @ product
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(smaller), 0.0)).sum())


def _root(centred: Floats) -> Floats:
    """A matrix R with ``R^T R`` = the covariance, with as few rows as there are rows or dimensions."""
    n, d = centred.shape
    scaled: Floats = centred / np.sqrt(n - 1)
    if n <= d:
        return scaled
    covariance = scaled.T @ scaled
    covariance[np.diag_indices(d)] += max(1e-12 * float(np.trace(covariance)) / d, 1e-300)  # of any rank
    out: Floats = np.asarray(np.linalg.cholesky(covariance).T, dtype=np.float64)
    return out


def _without(
    x: Floats, y: Floats, bins: NDArray[np.int64], other: NDArray[np.int64], shrinkage: float
) -> tuple[Floats, Floats]:
    """The distance with each bin left out, at the shrinkage of all rows: it hardly moves."""
    ours = [frechet_distance(x[bins != b], y, shrinkage=shrinkage) for b in range(int(bins.max()) + 1)]
    theirs = [frechet_distance(x, y[other != b], shrinkage=shrinkage) for b in range(int(other.max()) + 1)]
    return np.array(ours), np.array(theirs)
