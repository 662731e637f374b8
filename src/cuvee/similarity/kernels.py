"""Unit rows, nearest neighbours, and row sums of kernels of the cosine in symmetric tiles.

Nothing here holds an n x n matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.records import Vectors
from cuvee.similarity.threads import single_blas_thread

_TILE = 512
_NEIGHBOUR_CELLS = 4_000_000  # cosines held at a time


def unit_rows(vectors: Vectors) -> Vectors:
    """The rows scaled to length 1, float32, shape (n, d).

    Raises:
        ValueError: ``vectors`` is not a matrix, or a row is zero or not finite (its number is named).
    """
    data = np.asarray(vectors, dtype=np.float64)
    if data.ndim != 2:
        raise ValueError(f"vectors has shape {data.shape!r}; it must be (rows, dimensions)")
    with np.errstate(over="ignore", invalid="ignore"):
        largest = np.abs(data).max(axis=1, initial=0.0)
        bad = np.flatnonzero(~np.isfinite(largest) | (largest == 0))
    if len(bad):
        kind = "is zero" if largest[bad[0]] == 0 else "is not finite"
        raise ValueError(f"vectors row {bad[0]} {kind}; it has no direction, drop that row")
    data = data / largest[:, None]  # first by the largest entry: squares of huge or tiny rows stay in range
    out: Vectors = np.ascontiguousarray(data / np.linalg.norm(data, axis=1, keepdims=True), dtype=np.float32)
    return out


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest other vector of each row: its index and cosine, shape (n,)."""

    index: NDArray[np.int64]
    cosine: NDArray[np.float32]


@single_blas_thread()
def nearest_neighbours(vectors: Vectors, others: Vectors) -> Neighbours:
    """For each unit row of ``vectors`` (n, d) the row of ``others`` (m, d), m >= 1, with the largest cosine."""
    if len(others) == 0:
        raise ValueError("others has no rows; a nearest neighbour needs at least one")
    index = np.empty(len(vectors), dtype=np.int64)
    cosine = np.empty(len(vectors), dtype=np.float32)
    tile = max(1, _NEIGHBOUR_CELLS // len(others))
    for start in range(0, len(vectors), tile):
        part = vectors[start : start + tile] @ others.T
        best = part.argmax(axis=1)
        index[start : start + tile] = best
        cosine[start : start + tile] = part[np.arange(len(part)), best]
    return Neighbours(index, cosine)


@dataclass(frozen=True, slots=True)
class Exponential:
    """``exp((cos - 1) / tau)``: the similarity whose diversity of order 0 is DCScore (arXiv 2502.08512)."""

    tau: float

    def __post_init__(self) -> None:
        if not self.tau > 0:
            raise ValueError(f"tau is {self.tau!r}; it must be positive")

    def __call__(self, cosines: NDArray[np.float32]) -> NDArray[np.float32]:
        """The kernel of a tile of cosines."""
        out = cosines * np.float32(1.0 / self.tau)
        out -= np.float32(1.0 / self.tau)
        np.exp(out, out=out)
        return out


@dataclass(frozen=True, slots=True)
class AtLeast:
    """1 where the cosine is at least ``threshold``, else 0: its row sums count near-duplicates (and the row)."""

    threshold: float

    def __call__(self, cosines: NDArray[np.float32]) -> NDArray[np.float32]:
        """The kernel of a tile of cosines."""
        return (cosines >= np.float32(self.threshold)).astype(np.float32)


Kernel = Exponential | AtLeast


@dataclass(frozen=True, slots=True)
class RowSums:
    """Row sums of one kernel matrix with unit diagonal: ``total`` (n,), and ``by_bin`` (n, bins) of its columns."""

    total: NDArray[np.float64]
    by_bin: NDArray[np.float32]


def row_sums(
    unit: Vectors, kernels: Sequence[Kernel], *, bins: NDArray[np.int64] | None = None, tile: int = _TILE
) -> list[RowSums]:
    """Row sums of several kernels of the cosine, in one pass of symmetric tiles.

    Each tile of cosines is computed once and used for its rows and its columns; memory beyond the result is
    a few tiles. float32 tiles, relative error about 1e-6.

    Args:
        unit: unit rows, shape (n, d), as ``unit_rows`` makes them.
        kernels: elementwise functions of the cosine; each is 1 at cosine 1.
        bins: bin of each row, shape (n,), counted from 0; None puts every row into bin 0.
        tile: rows of a tile.
    """
    n = len(unit)
    bin_of = np.zeros(n, dtype=np.int64) if bins is None else np.asarray(bins, dtype=np.int64)
    if bin_of.shape != (n,):
        raise ValueError(f"bins has shape {bin_of.shape!r}; it must be {(n,)!r}")
    order = np.argsort(bin_of, kind="stable")  # with bins side by side a tile touches few of them
    rows, sorted_bins = unit[order], bin_of[order]
    count = int(bin_of.max(initial=0)) + 1
    starts = range(0, n, tile)
    members = [_Membership(sorted_bins[s : s + tile]) for s in starts]
    sums = [np.zeros((n, count), dtype=np.float32) for _ in kernels]
    _add_tiles(rows, kernels, tile, members, sums)
    back = np.empty(n, dtype=np.int64)
    back[order] = np.arange(n)
    return [RowSums(by_bin.sum(axis=1, dtype=np.float64)[back], by_bin[back]) for by_bin in sums]


@single_blas_thread()
def _add_tiles(
    rows: Vectors,
    kernels: Sequence[Kernel],
    tile: int,
    members: Sequence[_Membership],
    sums: Sequence[NDArray[np.float32]],
) -> None:
    """Add every tile of the upper triangle to the sums of its rows and, mirrored, of its columns."""
    starts = range(0, len(rows), tile)
    for a, first in enumerate(starts):
        for b, second in enumerate(starts[a:], start=a):
            cosines = rows[first : first + tile] @ rows[second : second + tile].T
            if a == b:
                np.fill_diagonal(cosines, 1.0)
            for kernel, by_bin in zip(kernels, sums, strict=True):
                values = kernel(cosines)
                by_bin[first : first + tile, members[b].columns] += values @ members[b].indicator
                if a != b:
                    by_bin[second : second + tile, members[a].columns] += values.T @ members[a].indicator


class _Membership:
    """The bins that the rows of one tile fall into, as a slice and a 0/1 matrix (rows, bins of the slice)."""

    def __init__(self, bins: NDArray[np.int64]) -> None:
        low, high = int(bins[0]), int(bins[-1])
        self.columns = slice(low, high + 1)
        self.indicator = np.zeros((len(bins), high + 1 - low), dtype=np.float32)
        self.indicator[np.arange(len(bins)), bins - low] = 1.0
