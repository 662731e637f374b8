"""Maximum mean discrepancy of two samples, with a permutation test and leave-one-bin-out values."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cuvee.fingerprint import derive_rng
from cuvee.records import Codes, Floats, Vectors
from cuvee.similarity.backends import single_blas_thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """Unbiased squared MMD of two samples, and the permutation p-value of "they are one distribution".

    ``bandwidth`` is sigma of the RBF kernel ``exp(-|x - y|^2 / (2 sigma^2))``. ``without_ours`` and ``without_theirs``
    are the MMD with each bin of a side left out, at the bandwidth of all rows.
    """

    value: float
    p_value: float | None
    bandwidth: float
    without_ours: Floats = field(compare=False, repr=False)
    without_theirs: Floats = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """Which rows of a sample belong together, both of shape (n,), counted from 0.

    ``groups`` of both samples are codes of one list of names; pairs of rows of one group are left out of every
    mean, for such rows are not independent. ``bins`` are what is left out in turn: whole groups of their sample.
    """

    groups: Codes
    bins: Codes


@single_blas_thread()
def mmd(
    unit: Vectors,
    other: Vectors,
    *,
    bandwidth: float | None = None,
    permutations: int = 200,
    seed: int = 0,
    membership: tuple[Membership, Membership] | None = None,
) -> Discrepancy:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012, JMLR 13) of two sets of unit rows.

    The kernel matrix of the pooled sample, which is held in memory, is computed once, and every permutation is one
    column of a matrix product.

    Args:
        unit, other: shapes (n, d) and (m, d), both at least two rows.
        bandwidth: of the RBF kernel; None takes the median distance of the pooled sample (seeded subsample of
            at most 1,000 rows).
        permutations: of the test; 0 gives no p-value. The smallest p-value is ``1 / (permutations + 1)``.
        seed: of the permutations.
        membership: groups and bins of both samples; None: each row is a group of its own, all are in one bin.

    Raises:
        ValueError: ``membership`` that leaves no pair of independent rows, or one with
            groups of several rows together with permutations.
    """
    n, total = len(unit), len(unit) + len(other)
    pooled = np.vstack([unit, other])
    sigma = bandwidth if bandwidth is not None else median_distance(pooled, seed=seed)
    gram = _rbf_matrix(pooled, sigma)
    if membership is None:
        codes = np.arange(total)
        sides = (Membership(groups=g, bins=np.zeros(len(g), dtype=np.int64)) for g in (codes[:n], codes[n:]))
        membership = (next(sides), next(sides))
    sums = _BlockSums(gram, *membership)
    if permutations and sums.grouped:
        raise ValueError(f"permutations is {permutations!r}, but rows of a group cannot be permuted; give 0")
    p_value = None
    if permutations:
        member = np.zeros((total, permutations + 1), dtype=np.float32)
        member[:n, 0] = 1.0
        rng = derive_rng(seed, "mmd-permutations")
        for column in range(1, permutations + 1):
            member[rng.permutation(total)[:n], column] = 1.0
        found = _mmd_of_members(gram, member, n)
        p_value = (1 + int(np.sum(found[1:] >= found[0]))) / (permutations + 1)
    return Discrepancy(
        value=sums.value(), p_value=p_value, bandwidth=sigma, without_ours=sums.without(0),
        without_theirs=sums.without(1),
    )  # fmt: skip


def _rbf_matrix(pooled: Vectors, sigma: float) -> NDArray[np.float32]:
    """The kernel of all pairs, less its mean, which changes no value but keeps float32 sums small."""
    gram = pooled @ pooled.T
    gram -= np.float32(1.0)  # |x - y|^2 = 2 - 2 cos for unit rows
    np.minimum(gram, 0.0, out=gram)
    gram *= np.float32(1.0 / sigma**2)
    np.exp(gram, out=gram)
    gram -= gram.mean(dtype=np.float64).astype(np.float32)
    return gram


def median_distance(unit: Vectors, *, seed: int = 0, max_rows: int = 1000) -> float:
    """Median distance between different rows (1 where that is below 0.001), on a seeded subsample of ``max_rows``."""
    if len(unit) > max_rows:
        unit = unit[np.sort(derive_rng(seed, "median-distance").choice(len(unit), max_rows, replace=False))]
    above = np.triu_indices(len(unit), k=1)
    squared = np.maximum(2.0 - 2.0 * (unit @ unit.T)[above].astype(np.float64), 0.0)
    found = float(np.sqrt(np.median(squared))) if len(squared) else 0.0
    return found if found > 1e-3 else 1.0  # float32 cosines resolve no smaller distance


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


class _BlockSums:
    """Sums of the kernel and numbers of pairs by bins: within each side (g, g) and (h, h), and across (g, h).

    Pairs of one group are in neither: they are set to zero in ``gram``. Every leave-one-bin-out MMD is a difference of
    such sums, hence exact.
    """

    def __init__(self, gram: NDArray[np.float32], ours: Membership, theirs: Membership) -> None:
        groups = np.concatenate([ours.groups, theirs.groups])
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        np.fill_diagonal(gram, 0.0)
        for rows in np.split(order, starts[1:]):
            if len(rows) > 1:
                gram[np.ix_(rows, rows)] = 0.0
        self.grouped = len(starts) < len(groups)
        mine, other = (np.eye(int(side.bins.max()) + 1, dtype=np.float32)[side.bins] for side in (ours, theirs))
        n, count = len(ours.bins), int(groups.max()) + 1
        self.inner = _sum_blocks(gram[:n, :n], mine, mine), _sum_blocks(gram[n:, n:], other, other)
        self.across = _sum_blocks(gram[:n, n:], mine, other)
        here, there = (_count(side.groups, side.bins, count) for side in (ours, theirs))
        sizes, others = here.sum(axis=0), there.sum(axis=0)
        self.inner_pairs = np.outer(sizes, sizes) - here.T @ here, np.outer(others, others) - there.T @ there
        self.across_pairs = np.outer(sizes, others) - here.T @ there
        if min(*(pairs.sum() for pairs in self.inner_pairs), self.across_pairs.sum()) <= 0:
            raise ValueError("membership leaves no two independent rows to compare; MMD needs two groups on each side")

    def value(self) -> float:
        """The MMD of all rows."""
        (a, b), (p, q) = self.inner, self.inner_pairs
        return float(a.sum() / p.sum() + b.sum() / q.sum() - 2.0 * self.across.sum() / self.across_pairs.sum())

    def without(self, side: int) -> Floats:
        """The MMD with each bin of a side left out (0: ours, 1: theirs); nan where nothing is left."""
        inner, pairs = self.inner[side], self.inner_pairs[side]
        across, across_pairs = (m if side == 0 else m.T for m in (self.across, self.across_pairs))
        left = inner.sum() - 2.0 * inner.sum(axis=1) + np.diag(inner)
        left_pairs = pairs.sum() - 2.0 * pairs.sum(axis=1) + np.diag(pairs)
        outer, outer_pairs = (sums[1 - side].sum() for sums in (self.inner, self.inner_pairs))
        rest, rest_pairs = across.sum() - across.sum(axis=1), across_pairs.sum() - across_pairs.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            out: Floats = left / left_pairs + outer / outer_pairs - 2.0 * rest / rest_pairs
        return out


def _sum_blocks(block: NDArray[np.float32], rows: NDArray[np.float32], columns: NDArray[np.float32]) -> Floats:
    return np.asarray(rows.T.astype(np.float64) @ (block @ columns).astype(np.float64))


def _count(groups: Codes, bins: Codes, count: int) -> Floats:
    """Rows by group and bin."""
    out = np.zeros((count, int(bins.max()) + 1))
    np.add.at(out, (groups, bins), 1.0)
    return out
