"""k-means clusters of unit rows, and an order of rows that does not depend on how they came."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.records import Vectors
from cuvee.similarity.threads import single_blas_thread


@dataclass(frozen=True, slots=True)
class Clusters:
    """k-means clusters: ``sizes`` (k,), and ``inertia``, the mean squared distance of a row to its centre."""

    sizes: NDArray[np.int64]
    inertia: float
    rows: int


def canonical_order(unit: Vectors) -> NDArray[np.int64]:
    """An order of the rows that their values decide: seeded choices made in it do not depend on the rows' order."""
    direction = derive_rng(0, "canonical-order").normal(size=unit.shape[1])
    return np.argsort(unit.astype(np.float64) @ direction, kind="stable")


@single_blas_thread()
def cluster_rows(unit: Vectors, k: int, *, seed: int = 0, max_rows: int = 10_000) -> Clusters:
    """k-means++ and Lloyd's iterations, one start, on at most ``max_rows`` rows.

    Args:
        unit: unit rows, shape (n, d).
        k: clusters; no more than there are different rows.
        seed: of the start and the subsample; neither depends on the order of the rows.
        max_rows: above it a seeded subsample is clustered.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if k < 1:
        raise ValueError(f"k is {k!r}; it must be at least 1")
    rows = unit[canonical_order(unit)]
    if len(rows) > max_rows:
        rows = rows[np.sort(derive_rng(seed, "cluster-rows").choice(len(rows), max_rows, replace=False))]
    k = min(k, len(np.unique(rows, axis=0)))
    means = KMeans(n_clusters=k, n_init=1, max_iter=50, random_state=derive_seed(seed, "k-means") % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # rows that differ by rounding only: fewer clusters
        labels = means.fit_predict(rows)
    sizes = np.bincount(labels, minlength=k)
    return Clusters(sizes=sizes, inertia=float(means.inertia_) / len(rows), rows=len(rows))


def effective_clusters(sizes: NDArray[np.int64]) -> float:
    """Exponential of the Shannon entropy of the cluster sizes: 1 (one cluster) to the number of clusters."""
    shares = sizes[sizes > 0] / sizes.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))
