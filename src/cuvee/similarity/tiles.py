"""Passes over pairs of rows in tiles, of all rows or of a sample against all: row sums of kernels and nearest rows.

Each tile of cosines is computed once and used for its rows and for its columns. Nothing holds an n x n matrix. Tiles
are added up in their order, so the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.fingerprint import derive_rng
from cuvee.records import Ints, Progress, Vectors
from cuvee.similarity import backends
from cuvee.similarity.backends import Matrix, single_blas_thread

_SAMPLED_TILE = 1024
_TILE = 512  # a tile for each of several kernels stays in the cache: a third less time than 1024


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
    unit: Vectors, taus: Sequence[float], *, bins: NDArray[np.int64] | None = None, tile: int | None = None
) -> list[RowSums]:
    """Row sums of the kernels ``exp((cos - 1) / tau)``, as ``pairwise_pass`` gives them."""
    return list(pairwise_pass(unit, taus, bins=bins, nearest=False, tile=tile).sums)


@single_blas_thread()
def pairwise_pass(
    unit: Vectors,
    taus: Sequence[float],
    *,
    bins: NDArray[np.int64] | None = None,
    nearest: bool = True,
    tile: int | None = None,
    progress: Progress | None = None,
) -> PairwisePass:
    """Row sums of several kernels of the cosine and the nearest other row of each row, in symmetric tiles.

    Memory beyond the result is a few tiles, and a second copy of the rows where they come unsorted by bin.
    float32 tiles: relative error about 1e-6.

    Args:
        unit: unit rows, shape (n, d), as ``unit_rows`` makes them.
        taus: of the kernels ``exp((cos - 1) / tau)``.
        bins: bin of each row, shape (n,), counted from 0; None puts every row into bin 0.
        nearest: whether to look for the nearest rows.
        tile: rows of a tile; None chooses.
        progress: told of tiles done and all tiles.
    """
    n = len(unit)
    bin_of = np.zeros(n, dtype=np.int64) if bins is None else np.asarray(bins, dtype=np.int64)
    order = np.argsort(bin_of, kind="stable")  # with bins side by side a tile touches few of them
    is_sorted = bool((np.diff(bin_of) >= 0).all())
    task = TilePass(unit, None if is_sorted else order, taus, bin_of[order], nearest)
    sums, index, cosine = task.add(symmetric_tiles(n, tile or _TILE), n, unit.dtype.type, progress)
    back = np.empty(n, dtype=np.int64)
    back[order] = np.arange(n)
    found = tuple(
        RowSums(by_bin.sum(axis=1, dtype=np.float64)[back], by_bin if is_sorted else by_bin[back]) for by_bin in sums
    )
    index = np.where(index >= 0, order[index], -1)
    return PairwisePass(found, Neighbours(index[back], cosine[back]))


# --- the tiles ---
@dataclass(frozen=True, slots=True)
class Tile:
    """Rows against columns, by their places among the rows; ``own`` are the cells of a row with itself.

    From a mirrored tile the columns get their sums too.
    """

    rows: slice
    columns: slice
    own: tuple[Ints, Ints]
    mirrored: bool = False


def symmetric_tiles(n: int, tile: int) -> list[Tile]:
    """Every unordered pair of blocks of n rows, block row by block row."""
    blocks = [slice(start, min(start + tile, n)) for start in range(0, n, tile)]
    none = np.arange(0)
    return [
        Tile(a, b, (none, none), mirrored=True) if a != b else Tile(a, a, (np.arange(a.stop - a.start),) * 2)
        for i, a in enumerate(blocks)
        for b in blocks[i:]
    ]


@dataclass(frozen=True, slots=True)
class _Part:
    """What one block of rows gets from one tile: sums by bin of each kernel, and its best column."""

    rows: slice
    bins: slice
    sums: tuple[Matrix, ...]
    index: Ints | None
    cosine: Matrix | None


@dataclass(frozen=True, slots=True)
class TilePass:
    """The work on one tile after another.

    ``order`` gives the rows' places, None where they are as they come; ``bins`` has the bin of each place.
    """

    unit: Vectors
    order: Ints | None
    taus: Sequence[float]
    bins: Ints
    nearest: bool = True

    def add(
        self, tiles: Sequence[Tile], rows: int, kind: type[np.floating], progress: Progress | None = None
    ) -> tuple[list[NDArray[np.floating]], Ints, NDArray[np.floating]]:
        """Sums by bin of each kernel, shape (rows, bins), and the nearest row of each row with its cosine, (rows,)."""
        shape = (rows, int(self.bins.max(initial=0)) + 1)
        sums: list[NDArray[np.floating]] = [np.zeros(shape, dtype=kind) for _ in self.taus]
        index, cosine = np.full(rows, -1, dtype=np.int64), np.full(rows, -np.inf, dtype=kind)
        found = backends.in_order(self._work, tiles)
        for done, parts in enumerate(found, start=1):
            for part in parts:
                for total, values in zip(sums, part.sums, strict=True):
                    total[part.rows, part.bins] += values
                if part.index is not None and part.cosine is not None:
                    better = part.cosine > cosine[part.rows]
                    index[part.rows] = np.where(better, part.index, index[part.rows])
                    cosine[part.rows] = np.where(better, part.cosine, cosine[part.rows])
            if progress is not None:
                progress(done, len(tiles))
        return sums, index, cosine

    def _work(self, tile: Tile) -> list[_Part]:
        """The parts of one tile: of its rows and, if it is mirrored, of its columns."""
        first, second = (self.unit[p if self.order is None else self.order[p]] for p in (tile.rows, tile.columns))
        with np.errstate(invalid="ignore"):  # builds of BLAS say so of finite rows now and then (numpy issue 24067)
            cosines = first @ second.T
        cosines[tile.own] = 1.0
        values = backends.exponentials(self.taus, cosines)
        if self.nearest:
            cosines[tile.own] = -np.inf
        parts = [self._part(tile.rows, tile.columns, values, cosines, transposed=False)]
        if tile.mirrored:
            parts.append(self._part(tile.columns, tile.rows, values, cosines, transposed=True))
        return parts

    def _part(
        self, rows: slice, columns: slice, values: Sequence[Matrix], cosines: Matrix, *, transposed: bool
    ) -> _Part:
        bins = self.bins[columns]
        low, high = int(bins.min()), int(bins.max()) + 1
        indicator = np.zeros((len(bins), high - low), dtype=np.float32)
        indicator[np.arange(len(bins)), bins - low] = 1.0
        with np.errstate(invalid="ignore"):
            sums = tuple((v.T if transposed else v) @ indicator.astype(v.dtype, copy=False) for v in values)
        index = cosine = None
        if self.nearest:
            axis = 0 if transposed else 1
            index = cosines.argmax(axis=axis)
            cosine = np.take_along_axis(cosines, np.expand_dims(index, axis), axis).squeeze(axis)
            index = index + columns.start
        return _Part(rows, slice(low, high), sums, index, cosine)


# --- a sample of rows against all ---
def sample_rows(n: int, m: int, *, seed: int = 0) -> NDArray[np.int64]:
    """M of n rows without replacement, in order."""
    return np.sort(derive_rng(seed, "sampled-rows").choice(n, m, replace=False))


@single_blas_thread()
def sampled_pass(
    unit: Vectors,
    taus: Sequence[float],
    rows: NDArray[np.int64],
    *,
    bins: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> PairwisePass:
    """Row sums and nearest other rows of a sample of m rows against all n, in time O(m n d): shapes (m,), (m, bins).

    Args:
        unit: unit rows, shape (n, d).
        taus: as for ``pairwise_pass``.
        rows: the sampled rows, shape (m,).
        bins: bin of each of the n rows; None puts all into one.
        progress: told of blocks done and all blocks.
    """
    n, m = len(unit), len(rows)
    bin_of = np.zeros(n, dtype=np.int64) if bins is None else bins
    # the sample stands before the rows: one list of rows, so that any backend multiplies slices of it
    order = np.concatenate([rows, np.arange(n)])
    task = TilePass(unit, order, taus, bin_of[order])
    tiles = []
    for start in range(0, n, _SAMPLED_TILE):
        own = np.flatnonzero((rows >= start) & (rows < start + _SAMPLED_TILE))
        columns = slice(m + start, m + min(start + _SAMPLED_TILE, n))
        tiles.append(Tile(slice(0, m), columns, (own, rows[own] - start)))
    sums, index, cosine = task.add(tiles, m, np.float64, progress)
    found = tuple(RowSums(by_bin.sum(axis=1), by_bin.astype(np.float32)) for by_bin in sums)
    return PairwisePass(found, Neighbours(np.where(index >= 0, index - m, -1), cosine.astype(np.float32)))
