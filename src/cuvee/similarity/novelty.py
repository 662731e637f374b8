"""NovelSum: the density-aware, proximity-weighted mean distance of each row to all others (arXiv 2502.17184)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cuvee.records import Vectors
from cuvee.similarity.backends import Compute
from cuvee.similarity.threads import in_order, single_blas_thread

_CELLS = 4_000_000  # cosines held at a time
_SAME = 1e-6  # squared distances below it are the row itself or a copy: float32 cosines resolve no smaller one
_REGULARISER = 1e-9
_BIN_BITS = 15  # the low four bits of a distance can carry one of 16 bins

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@single_blas_thread()
def proximity_means(unit: Vectors, *, power: float = 1.0, rows: Ints | None = None) -> Floats:
    """Weighted mean cosine distance of each row to all others, shape (n,), the r-th nearest weighing r^-power.

    Needs at least two rows. O(n^2 (d + log n)); ``rows`` are those to do it for, None all.
    """
    weights = _rank_weights(len(unit) - 1, power)

    def work(block: Ints) -> Floats:
        distances = _distances(unit, block)
        distances.sort(axis=1)
        means: Floats = distances[:, :-1] @ weights  # the row itself sorts last, at inf
        return means

    return np.concatenate(list(in_order(work, _blocks(len(unit), rows), workers=Compute().workers)))


@single_blas_thread()
def proximity_means_without(unit: Vectors, bins: Ints, *, power: float = 1.0, rows: Ints | None = None) -> Floats:
    """The same means with each of at most 16 bins left out, shape (n, bins); nan for the rows left out.

    Each row is sorted once: a distance carries its bin in its four lowest bits (relative error 2e-6), and leaving
    a bin out drops its distances from the sorted row.
    """
    count = int(bins.max(initial=0)) + 1
    if count > _BIN_BITS + 1:
        raise ValueError(f"bins has {count} bins; at most {_BIN_BITS + 1} can be left out")
    sizes = np.bincount(bins, minlength=count)

    def work(block: Ints) -> Floats:
        codes = _distances(unit, block).astype(np.float32).view(np.int32)
        codes &= ~_BIN_BITS
        codes |= bins.astype(np.int32)
        codes.sort(axis=1)
        codes = codes[:, :-1]  # the row itself, at inf
        out = np.full((len(block), count), np.nan)
        for b in range(count):
            kept, others = bins[block] != b, len(unit) - int(sizes[b]) - 1
            if others > 0 and kept.any():
                part = codes[kept]
                left = part[(part & _BIN_BITS) != b].reshape(len(part), others)
                out[kept, b] = (left & ~_BIN_BITS).view(np.float32) @ _rank_weights(others, power)
        return out

    return np.concatenate(list(in_order(work, _blocks(len(unit), rows), workers=Compute().workers)))


@single_blas_thread()
def reference_densities(
    unit: Vectors, reference: Vectors, *, neighbours: int = 10, power: float = 0.5, bins: Ints | None = None
) -> tuple[Floats, Floats]:
    """Density of the reference rows around each row: (mean squared distance to the nearest ones)^-power.

    Distances are Euclidean, to different reference rows other than the row itself (copies count once, as the row
    itself). nan where there is none.

    Args:
        unit: shape (n, d).
        reference: shape (m, d).
        neighbours: nearest reference rows that count.
        power: of the density; 0 gives 1 everywhere.
        bins: bin of each reference row, for ``without``; None puts all into one.

    Returns:
        the densities, shape (n,), and those with each bin of the reference left out, shape (n, bins).
    """
    bin_of = np.zeros(len(reference), dtype=np.int64) if bins is None else bins
    count = int(bin_of.max(initial=0)) + 1
    kept = np.unique(reference, axis=0, return_index=True)[1]
    members = [reference[kept[bin_of[kept] == b]] for b in range(count)]
    value, without = np.empty(len(unit)), np.empty((len(unit), count))
    tile = max(1, _CELLS // max(1, len(reference)))
    for start in range(0, len(unit), tile):
        block = unit[start : start + tile]
        nearest = [_nearest_squares(block, part, neighbours) for part in members]
        value[start : start + tile] = _densities(nearest, neighbours, power)
        for b in range(count):
            others = nearest[:b] + nearest[b + 1 :]
            without[start : start + tile, b] = _densities(others, neighbours, power) if others else np.nan
    return value, without


def _nearest_squares(block: Vectors, part: Vectors, neighbours: int) -> Floats:
    """The smallest squared distances of each row to the rows of ``part``, inf where there are fewer."""
    squares = 2.0 - 2.0 * (block @ part.T).astype(np.float64)
    squares[squares < _SAME] = np.inf
    if squares.shape[1] > neighbours:
        squares = np.partition(squares, neighbours - 1, axis=1)[:, :neighbours]
    return squares


def _densities(nearest: list[Floats], neighbours: int, power: float) -> Floats:
    squares = np.sort(np.concatenate(nearest, axis=1), axis=1)[:, :neighbours]
    there = np.isfinite(squares)
    counts = there.sum(axis=1)
    mean = np.where(there, squares, 0.0).sum(axis=1) / np.maximum(counts, 1)
    return np.where(counts > 0, (mean + _REGULARISER) ** -power, np.nan)


def _blocks(n: int, rows: Ints | None) -> Iterator[Ints]:
    """The rows, so many at a time that their cosines to n rows fit."""
    wanted, tile = np.arange(n) if rows is None else rows, max(1, _CELLS // n)
    return (wanted[start : start + tile] for start in range(0, len(wanted), tile))


def _distances(unit: Vectors, rows: Ints) -> Vectors:
    """Cosine distances of some rows to all, inf to the row itself."""
    found = unit[rows] @ unit.T
    np.subtract(1.0, found, out=found)
    np.maximum(found, 0.0, out=found)
    found[np.arange(len(rows)), rows] = np.inf
    return found


def _rank_weights(count: int, power: float) -> Floats:
    weights = np.arange(1, count + 1, dtype=np.float64) ** -power
    out: Floats = weights / weights.sum()
    return out
