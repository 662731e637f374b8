"""A 2-D map of examples: principal components of their vectors, or UMAP where it is installed."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import MissingDependency
from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.records import DatasetMap, Vectors

MapMethod = Literal["auto", "pca", "umap"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_UMAP_NEIGHBOURS = 15
_CHUNK = 4096  # rows centred at a time


def map_examples(
    vectors: Vectors,
    *,
    origins: Sequence[str],
    groups: Sequence[str],
    texts: Sequence[str],
    method: MapMethod = "auto",
    max_points: int = 1500,
    seed: int = 0,
    grouping: str = "label",
) -> DatasetMap:
    """Two coordinates for each of at most ``max_points`` examples.

    Principal components are those of all rows (covariance d x d, so memory does not grow with n); the sign of
    an axis is such that its largest loading is positive. UMAP (McInnes et al., arXiv 1802.03426, cosine, 15
    neighbours) is of the drawn rows only: its distances between clusters and their sizes mean nothing.

    Args:
        vectors: shape (n, d), one a row.
        origins: ``real`` or ``synthetic``, one a row.
        groups: label or level, one a row.
        texts: one a row.
        method: ``auto`` is UMAP where the package ``umap-learn`` is installed, else principal components.
        max_points: above it, that many rows are drawn, each origin and group in its share.
        seed: of the draw, and of UMAP.
        grouping: what ``groups`` are, for the reader: ``label``, ``level``.

    Raises:
        ValueError: no rows, lengths that differ, a vector that is not finite, another method, or no points.
        MissingDependency: ``method`` is ``umap`` and the package is not installed.
    """
    _check(vectors, {"origins": origins, "groups": groups, "texts": texts}, method, max_points)
    module = None if method == "pca" else _find_umap()
    if method == "umap" and module is None:
        raise MissingDependency('a map by UMAP needs the package umap-learn: pip install umap-learn, or method="pca"')
    rows = _draw_rows(list(zip(origins, groups, strict=True)), max_points, seed=seed)
    explained = None
    if module is not None and len(rows) > _UMAP_NEIGHBOURS:
        name, places = "umap", _umap(module, vectors[rows], seed)
    else:
        name = "pca"
        places, explained = _principal_components(vectors, rows)
    return DatasetMap(
        method=name,
        x=places[:, 0],
        y=places[:, 1],
        origin=tuple(origins[i] for i in rows),
        group=tuple(groups[i] for i in rows),
        text=tuple(texts[i] for i in rows),
        explained=explained,
        rows=len(vectors),
        seed=seed,
        grouping=grouping,
    )


def _check(vectors: Vectors, columns: dict[str, Sequence[str]], method: str, max_points: int) -> None:
    if vectors.ndim != 2 or vectors.size == 0:
        raise ValueError(f"vectors has shape {vectors.shape!r}; give (n, d) with at least one row and one dimension")
    for name, column in columns.items():
        if len(column) != len(vectors):
            raise ValueError(f"{name} has {len(column)!r} entries for {len(vectors)} vectors; give one each")
    if method not in ("auto", "pca", "umap"):
        raise ValueError(f"method is {method!r}; valid: 'auto', 'pca', 'umap'")
    if max_points < 1:
        raise ValueError(f"max_points is {max_points!r}; give at least 1")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ValueError(f"vectors, row {int(np.argmin(finite))!r} is not finite; drop it")


def _draw_rows(strata: Sequence[tuple[str, str]], most: int, *, seed: int) -> Ints:
    """At most ``most`` rows in their old order, every stratum in its share of them (largest remainders)."""
    n = len(strata)
    if n <= most:
        return np.arange(n)
    rng = derive_rng(seed, "map")
    members: dict[tuple[str, str], list[int]] = {}
    for row, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(row)
    names = sorted(members)
    exact = np.array([len(members[name]) for name in names]) * (most / n)
    counts = np.floor(exact).astype(int)
    # the random second key: among many equally small groups, not always the first ones of the alphabet
    by_remainder = np.lexsort((rng.random(len(names)), counts - exact))
    counts[by_remainder[: most - counts.sum()]] += 1
    chosen = [rng.permutation(members[name])[:count] for name, count in zip(names, counts, strict=True)]
    return np.sort(np.concatenate(chosen))


# --- principal components -----------------------------------------------------------------------------
def _principal_components(vectors: Vectors, rows: Ints) -> tuple[Floats, float | None]:
    """Coordinates of ``rows`` on the two widest directions of all vectors, and their share of the variance."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    d = vectors.shape[1]
    covariance = np.zeros((d, d))
    for start in range(0, len(vectors), _CHUNK):
        centred = vectors[start : start + _CHUNK] - mean
        covariance += centred.T @ centred
    axes, widths, _ = np.linalg.svd(covariance, hermitian=True)
    total = float(widths.sum())
    places = np.zeros((len(rows), 2))
    if total <= len(vectors) * np.finfo(np.float32).eps ** 2 * d:  # all rows alike: what is left is rounding
        return places, None
    for axis in range(min(2, d)):
        loadings = axes[:, axis]
        sign = np.sign(loadings[np.argmax(np.abs(loadings))])
        places[:, axis] = sign * ((vectors[rows] - mean) @ loadings)
    return places, float(widths[:2].sum() / total)


# --- UMAP ---------------------------------------------------------------------------------------------
def _find_umap() -> ModuleType | None:
    """The package umap-learn; another package of the name ``umap`` does not count."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # it says that TensorFlow, not needed here, is missing
        try:
            module = importlib.import_module("umap")
        except ImportError:
            return None
    return module if hasattr(module, "UMAP") else None


def _umap(module: ModuleType, vectors: Vectors, seed: int) -> Floats:
    model = module.UMAP(
        n_components=2,
        n_neighbors=_UMAP_NEIGHBOURS,
        metric="cosine",
        random_state=derive_seed(seed, "umap") % 2**32,
        n_jobs=1,  # a fixed seed allows no more, and saying so keeps it from warning
    )
    return np.asarray(model.fit_transform(vectors), dtype=np.float64)
