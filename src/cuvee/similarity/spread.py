"""What each row adds to the diversity of all rows, and how far it is from the nearest other row and from all.

Second passes in symmetric tiles: nothing here holds an n x n matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.records import Vectors
from cuvee.similarity.backends import Compute, in_order, single_blas_thread
from cuvee.similarity.kernels import Exponential
from cuvee.similarity.neighbours import find_near_duplicates
from cuvee.similarity.tiles import row_sums

_TILE = 512
_CELLS = 4_000_000  # cosines held at a time
_SAME = 1e-6  # squared distances below it are the row itself or a copy: float32 cosines resolve no smaller one
_REGULARISER = 1e-9
_BIN_BITS = 15  # the low four bits of a distance can carry one of 16 bins
_TIE = 2.0**-19  # cosines closer than this are a tie: float32 products of equal rows differ by less

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RowScores:
    """How much each of n rows adds; every array has shape (n,).

    Attributes:
        uniqueness: ``1 / sum_j k(i, j)`` with k = exp((cos - 1) / tau): the row's own term of DCScore.
        added: DCScore of all rows less DCScore without the row.
        surprisal: ``-x^T log(C) x`` with ``C = X^T X / n``; its mean is the logarithm of the Vendi score of order 1.
        nearest: the most similar other row, the first of equals; -1 where there is only one row.
        nearest_cosine: its cosine; nan where there is only one row.
        cluster: the first row among those linked to this one by cosines of at least the threshold.
    """

    uniqueness: Floats
    added: Floats
    surprisal: Floats
    nearest: Ints
    nearest_cosine: Floats
    cluster: Ints


def score_rows(unit: Vectors, tau: float = 0.1, *, threshold: float = 0.95, tile: int = _TILE) -> RowScores:
    """Uniqueness, marginal DCScore, surprisal and nearest other row of each unit row. O(n^2 d) in two passes.

    Args:
        unit: unit rows, shape (n, d), n >= 1; float64 rows are computed in float64.
        tau: of the kernel.
        threshold: cosine from which rows count as near-duplicates.
        tile: rows of a tile.
    """
    if len(unit) == 0:
        raise ValueError("unit has no rows; there is nothing to score")
    total = row_sums(unit, [Exponential(tau)])[0].total
    added, nearest = _second_pass(unit, total, tau, tile)
    cosine = np.full(len(unit), np.nan)
    if len(unit) > 1:
        cosine = np.einsum("nd,nd->n", unit.astype(np.float64), unit[nearest].astype(np.float64))
    return RowScores(
        uniqueness=1.0 / total,
        added=added,
        surprisal=row_surprisal(unit),
        nearest=nearest,
        nearest_cosine=np.clip(cosine, -1.0, 1.0),
        cluster=find_near_duplicates(unit, threshold).cluster,
    )


@single_blas_thread()
def _second_pass(unit: Vectors, total: Floats, tau: float, tile: int) -> tuple[Floats, Ints]:
    """Marginal DCScore and the nearest other row of each row.

    Without row i each other term 1/t_j becomes 1/(t_j - k_ij), so DCScore falls by
    1/t_i - sum_j k_ij / (t_j (t_j - k_ij)).
    """
    n = len(unit)
    added = 1.0 / total
    nearest, best = np.full(n, -1, dtype=np.int64), np.full(n, -np.inf)
    sums = total.astype(unit.dtype)

    def work(pair: tuple[slice, slice]) -> list[tuple[slice, Floats, Ints, Floats]]:
        rows, columns = pair
        cosines = unit[rows] @ unit[columns].T
        kernel = np.exp((cosines - 1.0) / cosines.dtype.type(tau))
        cosines = np.rint(cosines / cosines.dtype.type(_TIE))
        if rows == columns:
            np.fill_diagonal(kernel, 0.0)
            np.fill_diagonal(cosines, -np.inf)
            return [(rows, *_tile_scores(sums[columns], kernel, cosines, columns.start))]
        return [
            (rows, *_tile_scores(sums[columns], kernel, cosines, columns.start)),
            (columns, *_tile_scores(sums[rows], kernel.T, cosines.T, rows.start)),
        ]

    for parts in in_order(work, _upper(n, tile), workers=Compute().workers):
        for own, lost, at, found in parts:
            added[own] -= lost
            better = found > best[own]
            best[own] = np.where(better, found, best[own])
            nearest[own] = np.where(better, at, nearest[own])
    return added, nearest


def _tile_scores(sums: Vectors, kernel: Vectors, cosines: Vectors, start: int) -> tuple[Floats, Ints, Floats]:
    """What the columns lose without each row, and each row's nearest column and cosine."""
    lost = (kernel / (sums * (sums - kernel))).sum(axis=1, dtype=np.float64)
    at = cosines.argmax(axis=1)
    return lost, at + start, cosines[np.arange(len(at)), at].astype(np.float64)


def _upper(n: int, tile: int) -> Iterator[tuple[slice, slice]]:
    """Row and column slices of every tile of the upper triangle."""
    blocks = [slice(s, min(s + tile, n)) for s in range(0, n, tile)]
    return ((a, b) for i, a in enumerate(blocks) for b in blocks[i:])


@single_blas_thread()
def row_surprisal(unit: Vectors) -> Floats:
    """``-x^T log(C) x`` of each unit row x, with ``C = X^T X / n``, shape (n,), in nats.

    The mean over rows is the von Neumann entropy of C, the logarithm of the Vendi score of order 1
    (arXiv 2210.02410). Through the smaller of the d x d and the n x n matrix.
    """
    data = unit.astype(np.float64)
    n, d = data.shape
    values, vectors = np.linalg.eigh(data.T @ data if n >= d else data @ data.T)
    kept = values > values[-1] * 1e-12 * len(values)
    values, vectors = values[kept], vectors[:, kept]
    squares = (data @ vectors) ** 2 if n >= d else vectors**2 * values
    out: Floats = -squares @ np.log(values / n)
    return out


@single_blas_thread()
def nearest_by_bin(unit: Vectors, bins: Ints, *, rows: Ints | None = None, tile: int = _TILE) -> Floats:
    """The largest cosine of each row to another row of each bin, shape (n, bins); -inf where a bin has none.

    The largest over the bins but one is the exact nearest cosine with that bin left out.

    Args:
        unit: unit rows, shape (n, d).
        bins: bin of each row, shape (n,).
        rows: a sample of m rows, each against all n: the result has shape (m, bins).
        tile: rows of a tile.
    """
    order = np.argsort(bins, kind="stable")
    sorted_bins, count = bins[order], int(bins.max(initial=0)) + 1
    if rows is not None:
        return _sampled_nearest(unit, rows, order, sorted_bins, count)
    data = unit[order]
    out = np.full((len(unit), count), -np.inf, dtype=unit.dtype)

    def work(pair: tuple[slice, slice]) -> list[tuple[slice, Ints, Vectors]]:
        first, second = pair
        cosines = data[first] @ data[second].T
        if first == second:
            np.fill_diagonal(cosines, -np.inf)
            return [(first, *_largest_of_bins(cosines, sorted_bins[first]))]
        return [
            (first, *_largest_of_bins(np.ascontiguousarray(cosines.T), sorted_bins[second])),
            (second, *_largest_of_bins(cosines, sorted_bins[first])),
        ]

    for parts in in_order(work, _upper(len(unit), tile), workers=Compute().workers):
        for own, present, found in parts:
            out[own, present] = np.maximum(out[own, present], found)
    back = np.empty(len(unit), dtype=np.int64)
    back[order] = np.arange(len(unit))
    return out[back].astype(np.float64)


def _sampled_nearest(unit: Vectors, rows: Ints, order: Ints, sorted_bins: Ints, count: int) -> Floats:
    """``nearest_by_bin`` of a sample of rows, in blocks of all rows."""
    out = np.full((len(rows), count), -np.inf)
    place = np.full(len(unit), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    for start in range(0, len(unit), 2 * _TILE):
        block = order[start : start + 2 * _TILE]
        cosines = unit[block] @ unit[rows].T
        own = np.flatnonzero(place[block] >= 0)
        cosines[own, place[block[own]]] = -np.inf
        present, found = _largest_of_bins(cosines, sorted_bins[start : start + 2 * _TILE])
        out[:, present] = np.maximum(out[:, present], found)
    return out


def _largest_of_bins(cosines: Vectors, bins: Ints) -> tuple[Ints, Vectors]:
    """Of each column the largest cosine in each run of rows with one bin: the bins, and shape (columns, bins)."""
    starts = np.flatnonzero(np.diff(bins, prepend=bins[0] - 1))
    stops = [*starts[1:].tolist(), len(bins)]
    runs = [cosines[a:b].max(axis=0) for a, b in zip(starts.tolist(), stops, strict=True)]
    return bins[starts], np.stack(runs, axis=1)


def mean_nearest_cosine(by_bin: Floats) -> float:
    """Mean over rows of the cosine to the nearest other row, from ``nearest_by_bin``; nan for one row."""
    found = float(by_bin.max(axis=1).mean())
    return found if np.isfinite(found) else float("nan")


def mean_nearest_cosine_without(by_bin: Floats, bins: Ints) -> Floats:
    """The same mean with each bin left out in turn, shape (bins,), exact; nan where one row or none is left.

    ``bins`` are those of the rows of ``by_bin``.
    """
    out = np.full(by_bin.shape[1], np.nan)
    for b in range(by_bin.shape[1]):
        left = np.delete(by_bin[bins != b], b, axis=1)
        if len(left) and np.isfinite(left).any(axis=1).all():  # each row left has another row left
            out[b] = left.max(axis=1).mean()
    return out


# --- NovelSum (arXiv 2502.17184) ---
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
