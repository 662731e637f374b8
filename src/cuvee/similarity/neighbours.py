"""Nearest rows of another set, and near-duplicates within one: exact, and pruned by a bound."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.records import Vectors
from cuvee.similarity.backends import Compute, choose_backend, in_order, single_blas_thread
from cuvee.similarity.kernels import Kernel, Matrix
from cuvee.similarity.tiles import Neighbours, Progress, pairwise_pass

_NEIGHBOUR_CELLS = 4_000_000  # cosines held at a time
_TILE = 1024
_LEADING = (16, 32, 64, 128)  # dimensions that the bound may use
_LEFT = 0.35  # of the energy; with more left over the bound settles little
_PROBE = 2048  # rows that a pass is timed on
_SLACK = 1e-5  # float32 cosines are no sharper


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
class NearDuplicates:
    """Clusters of rows linked by a cosine of at least ``threshold``.

    Attributes:
        cluster: shape (n,), the first row of each row's cluster; a row that is like no other is its own.
        threshold: of the cosine.
    """

    cluster: NDArray[np.int64]
    threshold: float

    @property
    def mask(self) -> NDArray[np.bool_]:
        """True for each row that has a near-duplicate, shape (n,)."""
        sizes = np.bincount(self.cluster, minlength=len(self.cluster))
        out: NDArray[np.bool_] = sizes[self.cluster] > 1
        return out


@single_blas_thread()
def find_near_duplicates(
    unit: Vectors, threshold: float = 0.95, *, compute: Compute | None = None, progress: Progress | None = None
) -> NearDuplicates:
    """All rows linked by a cosine of at least ``threshold``, exact up to float32 rounding.

    Most pairs are settled by a bound that needs few dimensions: with P the leading principal directions and r(x)
    the length of what is left of x, ``x . y <= Px . Py + r(x) r(y)`` (Cauchy-Schwarz). Only tiles where the
    bound reaches the threshold are looked at in full. Never more than a few tiles in memory, however many
    duplicates there are.

    Args:
        unit: unit rows, shape (n, d).
        threshold: of the cosine, above 0.
        compute: threads.
        progress: told of tiles done and all tiles.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold!r}; give a cosine above 0, at most 1")
    first = _first_copies(unit)
    distinct = np.flatnonzero(first == np.arange(len(unit)))
    if len(distinct) < len(unit):  # all pairs of many copies would be many pairs
        fewer = find_near_duplicates(unit[distinct], threshold, compute=compute, progress=progress)
        place = np.zeros(len(unit), dtype=np.int64)
        place[distinct] = np.arange(len(distinct))
        return NearDuplicates(distinct[fewer.cluster[place[first]]], threshold)
    n = len(unit)
    short = _bounding_rows(unit)
    blocks = [slice(s, min(s + _TILE, n)) for s in range(0, n, _TILE)]
    tiles = [(a, b) for a in range(len(blocks)) for b in range(a, len(blocks))]

    def work(pair: tuple[int, int]) -> NDArray[np.int64]:
        return _links(unit, short, blocks[pair[0]], blocks[pair[1]], threshold)

    links: list[NDArray[np.int64]] = [np.zeros((2, 0), dtype=np.int64)]
    for done, found in enumerate(in_order(work, tiles, workers=(compute or Compute()).workers), start=1):
        if found.size:
            links.append(found)
        if progress is not None:
            progress(done, len(tiles))
    return NearDuplicates(_components(n, *np.hstack(links)), threshold)


def _first_copies(unit: Vectors) -> NDArray[np.int64]:
    """The first row with the same bytes as each row."""
    seen: dict[bytes, int] = {}
    keys = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in unit)
    return np.array([seen.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.int64)


def _bounding_rows(unit: Vectors) -> Matrix:
    """Rows whose products bound the cosines from above: leading coordinates and the length of the rest."""
    n, d = unit.shape
    some = unit[:: max(1, n // 20_000)].astype(np.float64)  # any orthonormal directions give a bound
    energy, directions = np.linalg.eigh(some.T @ some)
    left = np.cumsum(energy) / max(energy.sum(), 1e-30)  # of the d - k weakest directions
    enough = [k for k in _LEADING if k < d and left[d - k - 1] <= _LEFT]
    if not enough:
        return unit
    leading = directions[:, -enough[0] :].astype(np.float32)
    out = np.empty((n, enough[0] + 1), dtype=np.float32)
    for start in range(0, n, 65_536):
        part = unit[start : start + 65_536] @ leading
        rest = 1.0 - np.einsum("ij,ij->i", part, part, dtype=np.float64)
        out[start : start + 65_536, :-1] = part
        out[start : start + 65_536, -1] = np.sqrt(np.maximum(rest, 0.0))
    return out


def _links(unit: Vectors, short: Matrix, rows: slice, columns: slice, threshold: float) -> NDArray[np.int64]:
    """Links (2, k) that join all near-duplicates of one tile: a spanning forest, not every pair."""
    bound = short[rows] @ short[columns].T
    if rows == columns:
        np.fill_diagonal(bound, -1.0)
    least = np.float32(threshold - _SLACK)
    if bound.max() < least:
        return np.zeros((2, 0), dtype=np.int64)
    cells = np.flatnonzero(bound >= least)
    i, j = np.divmod(cells, bound.shape[1])
    if len(cells) * 8 > bound.size:  # many: one product is cheaper than so many dot products
        cosines = unit[rows] @ unit[columns].T
        real = cosines[i, j] >= np.float32(threshold)
    else:
        real = _dots(unit, i + rows.start, j + columns.start) >= np.float32(threshold)
    i, j = i[real] + rows.start, j[real] + columns.start
    return _forest(i, j)


def _dots(unit: Vectors, i: NDArray[np.int64], j: NDArray[np.int64]) -> Matrix:
    """The cosines of some pairs of rows, a bounded number of rows at a time."""
    out = np.empty(len(i), dtype=unit.dtype)
    for s in range(0, len(i), 16_384):
        out[s : s + 16_384] = np.einsum("ij,ij->i", unit[i[s : s + 16_384]], unit[j[s : s + 16_384]])
    return out


def _forest(i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each row of the links joined to the first row of its component."""
    if not len(i):
        return np.zeros((2, 0), dtype=np.int64)
    rows, places = np.unique(np.concatenate([i, j]), return_inverse=True)
    first = rows[_components(len(rows), places[: len(i)], places[len(i) :])]
    moved = rows != first
    return np.vstack([rows[moved], first[moved]])


def _components(n: int, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first node of each node's connected component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(i), dtype=np.int8), (i, j)), shape=(n, n))
    label = connected_components(graph, directed=False)[1]
    first = np.full(int(label.max(initial=-1)) + 1, n, dtype=np.int64)
    np.minimum.at(first, label, np.arange(n))
    return first[label]


# --- what all pairs would cost ---
def seconds_for_pairs(unit: Vectors, kernels: Sequence[Kernel], compute: Compute) -> float:
    """Estimated seconds of ``pairwise_pass`` over all rows: a pass over some of them, scaled by the pairs."""
    some = unit[:: max(1, len(unit) // _PROBE)][:_PROBE]
    bins = np.arange(len(some)) * 64 // max(1, len(some))
    tile = min(choose_backend(some, None, compute).tile, 1024)
    return _time(lambda: pairwise_pass(some, kernels, bins=bins, tile=tile, compute=compute)) * (
        (len(unit) / len(some)) ** 2
    )


def seconds_for_duplicates(unit: Vectors, compute: Compute) -> float:
    """Estimated seconds of ``find_near_duplicates`` over all rows."""
    some = unit[:: max(1, len(unit) // (4 * _PROBE))][: 4 * _PROBE]
    return _time(lambda: find_near_duplicates(some, compute=compute)) * (len(unit) / len(some)) ** 2


def _time(work: Callable[[], object]) -> float:
    """Seconds of the second of two runs: the first one loads libraries."""
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
