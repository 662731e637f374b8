"""Nearest rows, and near-duplicates (exact, and pruned by a bound)."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from cuvee.records import Vectors
from cuvee.similarity.backends import Matrix, in_order, single_blas_thread
from cuvee.similarity.tiles import Neighbours, Tile, symmetric_tiles

_CELLS = 4_000_000  # cosines held at a time
_PRUNED_TILE = 1024
_LEADING = (16, 32, 64, 128)  # dimensions that the bound may use
_LEFT = 0.35  # of the energy; with more left over the bound settles little
_SLACK = 1e-5  # float32 cosines are no sharper
SLACK = 1e-6  # the cosine of two equal float32 rows may be so much below 1


@single_blas_thread()
def nearest_neighbours(vectors: Vectors, others: Vectors) -> Neighbours:
    """For each unit row of ``vectors`` (n, d) the row of ``others`` (m, d), m >= 1, with the largest cosine."""
    index = np.empty(len(vectors), dtype=np.int64)
    cosine = np.empty(len(vectors), dtype=np.float32)
    tile = max(1, _CELLS // len(others))
    for start in range(0, len(vectors), tile):
        part = vectors[start : start + tile] @ others.T
        best = part.argmax(axis=1)
        index[start : start + tile] = best
        cosine[start : start + tile] = part[np.arange(len(part)), best]
    return Neighbours(index, cosine)


@single_blas_thread()
def nearest_margins(
    vectors: Vectors, others: Vectors, *, itself: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each unit row of ``vectors`` (n, d) the nearest row of ``others`` (m, d), m >= 2, and how far it stands out.

    Args:
        vectors: unit rows, shape (n, d).
        others: unit rows, shape (m, d).
        itself: place of each row among ``others``, shape (n,), where it is one of them: it is left out.

    Returns:
        The nearest row, shape (n,), and its cosine less that of the second nearest, shape (n,).
    """
    nearest, margin = np.empty(len(vectors), dtype=np.int64), np.empty(len(vectors), dtype=np.float32)
    tile = max(1, _CELLS // len(others))
    for start in range(0, len(vectors), tile):
        part = slice(start, min(start + tile, len(vectors)))
        cosines = vectors[part] @ others.T
        rows = np.arange(len(cosines))
        if itself is not None:
            cosines[rows, itself[part]] = -np.inf
        best = cosines.argmax(axis=1)
        first = cosines[rows, best]
        cosines[rows, best] = -np.inf
        nearest[part], margin[part] = best, first - cosines.max(axis=1)
    return nearest, margin


@single_blas_thread()
def find_near_duplicates(unit: Vectors, threshold: float = 0.95) -> NDArray[np.int64]:
    """Clusters of rows linked by a cosine of at least ``threshold``, exact up to float32 rounding.

    Gives the first row of each row's cluster, shape (n,); a row that is like no other is its own.

    Most pairs are settled by a bound that needs few dimensions: with P the leading principal directions and r(x)
    the length of what is left of x, ``x . y <= Px . Py + r(x) r(y)`` (Cauchy-Schwarz). Only tiles where the
    bound reaches the threshold are looked at in full. Never more than a few tiles in memory, however many
    duplicates there are.

    Args:
        unit: unit rows, shape (n, d).
        threshold: of the cosine, above 0.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold!r}; give a cosine above 0, at most 1")
    first = _first_copies(unit)
    distinct = np.flatnonzero(first == np.arange(len(unit)))
    if len(distinct) < len(unit):  # all pairs of many copies would be many pairs
        fewer = find_near_duplicates(unit[distinct], threshold)
        place = np.zeros(len(unit), dtype=np.int64)
        place[distinct] = np.arange(len(distinct))
        return np.asarray(distinct[fewer[place[first]]])
    n = len(unit)
    short = _bounding_rows(unit)
    tiles = symmetric_tiles(n, _PRUNED_TILE)

    def work(tile: Tile) -> NDArray[np.int64]:
        return _links(unit, short, tile.rows, tile.columns, threshold)

    links: list[NDArray[np.int64]] = [np.zeros((2, 0), dtype=np.int64)]
    links += [found for found in in_order(work, tiles) if found.size]
    return _components(n, *np.hstack(links))


@single_blas_thread()
def near_repeats(unit: Vectors, near: float) -> NDArray[np.int64]:
    """Rows with a cosine of at least ``near`` to an earlier row that is not among them.

    A chain of neighbours does not pull in rows that are unlike the one that stays. Only rows of one cluster can be
    near.

    Args:
        unit: unit rows, shape (n, d).
        near: the cosine.
    """
    cluster = find_near_duplicates(unit, near)
    order = np.argsort(cluster, kind="stable")
    starts = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    gone = np.zeros(len(unit), dtype=bool)
    for members in np.split(order, starts[1:]):
        if len(members) < 2:
            continue
        part, stays = unit[members], np.ones(len(members), dtype=bool)
        for i in range(len(members) - 1):
            if stays[i]:
                stays[i + 1 :] &= part[i + 1 :] @ part[i] < np.float32(near - SLACK)
        gone[members] = ~stays
    return np.flatnonzero(gone)


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
