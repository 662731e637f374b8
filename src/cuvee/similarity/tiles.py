"""One pass over all pairs of rows, in symmetric tiles: row sums of kernels and nearest rows.

Each tile of cosines is computed once and used for its rows and for its columns. Nothing holds an n x n matrix. Tiles
are added up in their order, so the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cuvee.records import Vectors
from cuvee.similarity.backends import Backend, Compute, choose_backend
from cuvee.similarity.kernels import Kernel, Tile, evaluate_kernels
from cuvee.similarity.threads import in_order, single_blas_thread

A = TypeVar("A", bound=Tile)
Matrix = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class RowSums:
    """Row sums of one kernel matrix with unit diagonal: ``total`` (n,), and ``by_bin`` (n, bins) of its columns."""

    total: NDArray[np.float64]
    by_bin: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest other vector of each row: its index and cosine, shape (n,)."""

    index: NDArray[np.int64]
    cosine: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PairwisePass:
    """What one pass over all pairs gave: sums of each kernel, and the nearest other row of each row.

    Where there is one row only, its nearest is row -1 at cosine ``-inf``.
    """

    sums: tuple[RowSums, ...]
    nearest: Neighbours


def row_sums(
    unit: Vectors,
    kernels: Sequence[Kernel],
    *,
    bins: NDArray[np.int64] | None = None,
    tile: int | None = None,
    compute: Compute | None = None,
    progress: Progress | None = None,
) -> list[RowSums]:
    """Row sums of several kernels of the cosine, in one pass of symmetric tiles.

    Memory beyond the result is a few tiles, and a second copy of the rows where they come unsorted by bin.
    float32 tiles: relative error about 1e-6.

    Args:
        unit: unit rows, shape (n, d), as ``unit_rows`` makes them.
        kernels: elementwise functions of the cosine.
        bins: bin of each row, shape (n,), counted from 0; None puts every row into bin 0.
        tile: rows of a tile; None chooses.
        compute: device, precision and threads.
        progress: told of tiles done and all tiles.
    """
    return list(_run_pass(unit, kernels, bins, False, tile, compute, progress).sums)


def pairwise_pass(
    unit: Vectors,
    kernels: Sequence[Kernel],
    *,
    bins: NDArray[np.int64] | None = None,
    tile: int | None = None,
    compute: Compute | None = None,
    progress: Progress | None = None,
) -> PairwisePass:
    """Row sums of several kernels and, in the same pass, the nearest other row of each row. See ``row_sums``."""
    return _run_pass(unit, kernels, bins, True, tile, compute, progress)


@single_blas_thread()
def _run_pass(
    unit: Vectors,
    kernels: Sequence[Kernel],
    bins: NDArray[np.int64] | None,
    nearest: bool,
    tile: int | None,
    compute: Compute | None,
    progress: Progress | None,
) -> PairwisePass:
    n = len(unit)
    bin_of = np.zeros(n, dtype=np.int64) if bins is None else np.asarray(bins, dtype=np.int64)
    if bin_of.shape != (n,):
        raise ValueError(f"bins has shape {bin_of.shape!r}; it must be {(n,)!r}")
    order = np.argsort(bin_of, kind="stable")  # with bins side by side a tile touches few of them
    is_sorted = bool((np.diff(bin_of) >= 0).all())
    backend = choose_backend(unit, None if is_sorted else order, compute or Compute())
    sums, index, cosine = _add_tiles(
        _TilePass(backend, kernels, bin_of[order], nearest, tile or backend.tile), unit.dtype.type, progress
    )
    back = np.empty(n, dtype=np.int64)
    back[order] = np.arange(n)
    found = tuple(
        RowSums(by_bin.sum(axis=1, dtype=np.float64)[back], by_bin if is_sorted else by_bin[back]) for by_bin in sums
    )
    index = np.where(index >= 0, order[index], -1)
    return PairwisePass(found, Neighbours(index[back], cosine[back]))


# --- the tiles ---
@dataclass(frozen=True, slots=True)
class _Part:
    """What one block of rows gets from one tile: sums by bin of each kernel, and its best column."""

    rows: slice
    columns: slice
    sums: tuple[Matrix, ...]
    index: NDArray[np.int64] | None
    cosine: Matrix | None


class _Membership:
    """The bins that a block's rows fall into, as a slice and a 0/1 matrix (rows, bins of the slice)."""

    def __init__(self, bins: NDArray[np.int64]) -> None:
        low, high = int(bins[0]), int(bins[-1])
        self.columns = slice(low, high + 1)
        self.indicator = np.zeros((len(bins), high + 1 - low), dtype=np.float32)
        self.indicator[np.arange(len(bins)), bins - low] = 1.0


class _TilePass(Generic[A]):
    """The tiles of the upper triangle, block row by block row, and the work on one of them."""

    def __init__(
        self,
        backend: Backend[A],
        kernels: Sequence[Kernel],
        bins: NDArray[np.int64],
        nearest: bool,
        tile: int,
    ) -> None:
        self.backend, self._kernels, self._nearest = backend, kernels, nearest
        self.bins = int(bins.max(initial=0)) + 1
        self.kernels = len(kernels)
        self.blocks = [slice(s, min(s + tile, len(bins))) for s in range(0, len(bins), tile)]
        self._members = [_Membership(bins[block]) for block in self.blocks]

    def tiles(self) -> Iterator[tuple[int, int]]:
        """Every unordered pair of blocks."""
        count = len(self.blocks)
        return ((a, b) for a in range(count) for b in range(a, count))

    def work(self, pair: tuple[int, int]) -> list[_Part]:
        """The parts of one tile: of its rows and, off the diagonal, of its columns."""
        a, b = pair
        cosines = self.backend.cosines(self.blocks[a], self.blocks[b])
        own = np.arange(self.blocks[a].stop - self.blocks[a].start)
        if a == b:
            self.backend.set_cells(cosines, own, own, 1.0)
        tiles = evaluate_kernels(self._kernels, cosines, self.backend.ops)
        if a == b and self._nearest:
            self.backend.set_cells(cosines, own, own, -np.inf)
        parts = [self._part(a, b, tiles, cosines, transposed=False)]
        return parts if a == b else [*parts, self._part(b, a, tiles, cosines, transposed=True)]

    def _part(self, rows: int, columns: int, tiles: Sequence[A], cosines: A, *, transposed: bool) -> _Part:
        members = self._members[columns]
        sums = tuple(self.backend.sums(t, members.indicator, transposed=transposed) for t in tiles)
        index = cosine = None
        if self._nearest:
            index, cosine = self.backend.largest(cosines, transposed=transposed)
            index = index + self.blocks[columns].start
        return _Part(self.blocks[rows], members.columns, sums, index, cosine)


def _add_tiles(
    task: _TilePass[A], kind: type[np.float32], progress: Progress | None
) -> tuple[list[Matrix], NDArray[np.int64], Matrix]:
    """Sums by bin of each kernel, shape (n, bins), and the nearest row of each row with its cosine, shape (n,)."""
    n = task.blocks[-1].stop if task.blocks else 0
    sums = [np.zeros((n, task.bins), dtype=kind) for _ in range(task.kernels)]
    index = np.full(n, -1, dtype=np.int64)
    cosine = np.full(n, -np.inf, dtype=kind)
    count = len(task.blocks) * (len(task.blocks) + 1) // 2
    found = in_order(task.work, task.tiles(), workers=task.backend.workers, prepare=task.backend.prepare)
    for done, parts in enumerate(found, start=1):
        for part in parts:
            for total, values in zip(sums, part.sums, strict=True):
                total[part.rows, part.columns] += values
            if part.index is not None and part.cosine is not None:
                better = part.cosine > cosine[part.rows]
                index[part.rows] = np.where(better, part.index, index[part.rows])
                cosine[part.rows] = np.where(better, part.cosine, cosine[part.rows])
        if progress is not None:
            progress(done, count)
    return sums, index, cosine
