"""Passes over pairs of rows in tiles, of all rows or of a sample against all: row sums of kernels and nearest rows.

Each tile of cosines is computed once and used for its rows and for its columns. Nothing holds an n x n matrix. Tiles
are added up in their order, so the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.fingerprint import derive_rng
from cuvee.records import Vectors
from cuvee.similarity.backends import (
    Backend,
    Compute,
    Kernel,
    Matrix,
    choose_backend,
    evaluate_kernels,
    in_order,
    single_blas_thread,
)

Progress = Callable[[int, int], None]
Found = tuple[Sequence[NDArray[np.floating]], NDArray[np.int64], Matrix]
"""Sums by bin of each kernel, shape (m, bins); the best column of each sampled row, and its cosine."""
_SAMPLED_TILE = 1024


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
) -> list[RowSums]:
    """Row sums of several kernels of the cosine, as ``pairwise_pass`` gives them."""
    return list(pairwise_pass(unit, kernels, bins=bins, nearest=False, tile=tile, compute=compute).sums)


@single_blas_thread()
def pairwise_pass(
    unit: Vectors,
    kernels: Sequence[Kernel],
    *,
    bins: NDArray[np.int64] | None = None,
    nearest: bool = True,
    tile: int | None = None,
    compute: Compute | None = None,
    progress: Progress | None = None,
) -> PairwisePass:
    """Row sums of several kernels of the cosine and the nearest other row of each row, in symmetric tiles.

    Memory beyond the result is a few tiles, and a second copy of the rows where they come unsorted by bin.
    float32 tiles: relative error about 1e-6.

    Args:
        unit: unit rows, shape (n, d), as ``unit_rows`` makes them.
        kernels: elementwise functions of the cosine.
        bins: bin of each row, shape (n,), counted from 0; None puts every row into bin 0.
        nearest: whether to look for the nearest rows.
        tile: rows of a tile; None chooses.
        compute: device, precision and threads.
        progress: told of tiles done and all tiles.
    """
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


class _TilePass:
    """The tiles of the upper triangle, block row by block row, and the work on one of them."""

    def __init__(
        self,
        backend: Backend,
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

    def _part(self, rows: int, columns: int, tiles: Sequence[Matrix], cosines: Matrix, *, transposed: bool) -> _Part:
        members = self._members[columns]
        sums = tuple(self.backend.sums(t, members.indicator, transposed=transposed) for t in tiles)
        index = cosine = None
        if self._nearest:
            index, cosine = self.backend.largest(cosines, transposed=transposed)
            index = index + self.blocks[columns].start
        return _Part(self.blocks[rows], members.columns, sums, index, cosine)


def _add_tiles(
    task: _TilePass, kind: type[np.float32], progress: Progress | None
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


# --- a sample of rows against all ---
def sample_rows(n: int, m: int, *, seed: int = 0) -> NDArray[np.int64]:
    """M of n rows without replacement, in order."""
    if not 1 <= m <= n:
        raise ValueError(f"m is {m!r}; there are {n} rows, give 1 to {n}")
    return np.sort(derive_rng(seed, "sampled-rows").choice(n, m, replace=False))


def canonical_order(unit: Vectors) -> NDArray[np.int64]:
    """An order of the rows that their values decide: seeded choices made in it do not depend on the rows' order."""
    direction = derive_rng(0, "canonical-order").normal(size=unit.shape[1])
    return np.argsort(unit.astype(np.float64) @ direction, kind="stable")


@single_blas_thread()
def sampled_pass(
    unit: Vectors,
    kernels: Sequence[Kernel],
    rows: NDArray[np.int64],
    *,
    bins: NDArray[np.int64] | None = None,
    compute: Compute | None = None,
    progress: Progress | None = None,
) -> PairwisePass:
    """Row sums and nearest other rows of a sample of m rows against all n, in time O(m n d): shapes (m,), (m, bins).

    Args:
        unit: unit rows, shape (n, d).
        kernels: as for ``row_sums``.
        rows: the sampled rows, shape (m,).
        bins: bin of each of the n rows; None puts all into one.
        compute: device, precision and threads.
        progress: told of blocks done and all blocks.
    """
    n, m = len(unit), len(rows)
    bin_of = np.zeros(n, dtype=np.int64) if bins is None else bins
    count = int(bin_of.max(initial=0)) + 1
    # the sample stands before the rows: one list of rows, so that any backend multiplies slices of it
    backend = choose_backend(unit, np.concatenate([rows, np.arange(n)]), compute or Compute())

    def work(block: slice) -> Found:
        return _one_block(backend, kernels, rows, block, bin_of[block], count)

    blocks = [slice(s, min(s + _SAMPLED_TILE, n)) for s in range(0, n, _SAMPLED_TILE)]
    sums = [np.zeros((m, count)) for _ in kernels]
    index, cosine = np.full(m, -1, dtype=np.int64), np.full(m, -np.inf, dtype=np.float32)
    parts_of = in_order(work, blocks, workers=backend.workers, prepare=backend.prepare)
    for done, (parts, at, best) in enumerate(parts_of, start=1):
        for total, part in zip(sums, parts, strict=True):
            total += part
        better = best > cosine
        index, cosine = np.where(better, at, index), np.where(better, best, cosine)
        if progress is not None:
            progress(done, len(blocks))
    found = tuple(RowSums(by_bin.sum(axis=1), by_bin.astype(np.float32)) for by_bin in sums)
    return PairwisePass(found, Neighbours(index, cosine))


def _one_block(
    backend: Backend,
    kernels: Sequence[Kernel],
    rows: NDArray[np.int64],
    block: slice,
    bins: NDArray[np.int64],
    count: int,
) -> Found:
    """Sums by bin of the sampled rows over one block of all rows, and their best column of it."""
    m = len(rows)
    cosines = backend.cosines(slice(0, m), slice(m + block.start, m + block.stop))
    own = np.flatnonzero((rows >= block.start) & (rows < block.stop))
    backend.set_cells(cosines, own, rows[own] - block.start, 1.0)
    tiles = evaluate_kernels(kernels, cosines, backend.ops)
    indicator = np.eye(count, dtype=np.float32)[bins]
    sums = [backend.sums(t, indicator, transposed=False) for t in tiles]
    backend.set_cells(cosines, own, rows[own] - block.start, -np.inf)
    index, cosine = backend.largest(cosines, transposed=False)
    return sums, index + block.start, cosine
