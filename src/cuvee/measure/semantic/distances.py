"""Diversity of meaning from distances and clusters of the embedded rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.intervals import estimate_by_jackknife
from cuvee.measure.semantic.bins import LeftOut, estimate_over_bins, estimate_over_both
from cuvee.measure.semantic.kernel_numbers import sampling
from cuvee.measure.subject import Subject
from cuvee.records import Estimate
from cuvee.similarity import (
    Clusters,
    Distance,
    canonical_order,
    cluster_rows,
    effective_clusters,
    mean_nearest_cosine,
    mean_nearest_cosine_without,
    mean_pair,
    mean_pair_without,
    nearest_by_bin,
    proximity_means,
    proximity_means_without,
    reference_densities,
    sample_rows,
)

CLUSTERS = 20
NEIGHBOURS = 10
_DENSITY_POWER = 0.5
_PROXIMITY_POWER = 1.0
_MERGED_BINS = 16
_NOVELSUM_ROWS = 5_000  # rows whose novelty is computed, each against all rows
_NOVELSUM: dict[str, str | int | float] = {"distance": "cosine", "proximity_power": _PROXIMITY_POWER}

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def measure_mean_nearest_cosine(subject: Subject) -> Estimate | None:
    """Mean cosine of a row to the nearest other row; None for one row.

    It rises with the number of rows. The field's Chamfer distance is 1 less it. The interval is on the wide side
    (its standard error about 1.2 times the true one): the nearest row is not a smooth function of the rows.
    """
    if subject.n < 2:
        return None
    rows = subject.sample
    by_bin = nearest_by_bin(subject.unit, subject.bins, rows=rows)
    return estimate_by_jackknife(
        subject,
        mean_nearest_cosine(by_bin),
        lambda: mean_nearest_cosine_without(by_bin, subject.bins if rows is None else subject.bins[rows]),
        {"kernel": "cosine", **sampling(subject)},
    )


def measure_remote_clique(subject: Subject) -> Estimate | None:
    """Remote-clique: mean Euclidean distance over all pairs of different rows, 0 to sqrt(2) and a little above.

    Cox et al. 2021 (CHI, 10.1145/3411764.3445782) take the mean of the pairs' distances. With the cosine distance
    that is 1 less ``mean_pairwise_cosine``, so here it is the Euclidean one. float32 cosines resolve no distance
    below 0.001. None for one row.
    """
    if subject.n < 2:
        return None
    sums = subject.sums(Distance())
    return estimate_by_jackknife(
        subject,
        mean_pair(sums, population=subject.n),
        lambda: mean_pair_without(sums, subject.bins, rows=subject.sample),
        {"distance": "euclidean", **sampling(subject)},
    )


def measure_novelsum(subject: Subject) -> Estimate | None:
    """NovelSum (arXiv 2502.17184): mean over rows of density times proximity-weighted distance to all other rows.

    As the authors' code computes it: cosine distances weighted 1/rank (the nearest other row has rank 1), times
    (mean squared Euclidean distance to the 10 nearest *reference* rows)^-0.5. Rows where the reference is dense
    count for more, so novelty far from where real data lies counts for less. The reference is the real data: on
    its own rows the density would reward near-copies. A reference row at a squared distance below 1e-6 is the row
    itself. Above 5,000 rows the mean is over a sample of 5,000, each against all. None for one row, or where all
    reference rows are the same.
    """
    if subject.n < 2:
        return None
    theirs = subject.against_bins % _MERGED_BINS
    rows = subject.once(_novelsum_rows)
    density, density_without = reference_densities(
        subject.unit[rows], subject.against_unit, neighbours=NEIGHBOURS, power=_DENSITY_POWER, bins=theirs
    )
    if not np.isfinite(density).all():
        return None
    means, settings = subject.once(_proximity_means), {**_NOVELSUM, "density_power": _DENSITY_POWER}
    settings |= {"sampled_rows": len(rows), "neighbours": NEIGHBOURS, "reference": "the real rows"}
    value = float(np.mean(density * means))
    if subject.is_real or not subject.has_intervals:
        return Estimate(value=value, n=subject.n, settings=settings)
    weighted = subject.once(_proximity_means_without) * density[:, None]
    return estimate_over_both(
        value,
        LeftOut(np.nanmean(weighted, axis=0), subject.bins % _MERGED_BINS),
        LeftOut(np.mean(density_without * means[:, None], axis=0), theirs),
        settings,
        n=subject.n,
    )


def measure_novelsum_without_density(subject: Subject) -> Estimate | None:
    """NovelSum with density power 0: the mean over rows of the 1/rank-weighted cosine distance to all other rows.

    What the authors advise where no reference distribution is known. Between 0 and 2; with more rows it falls.
    None for one row.
    """
    if subject.n < 2:
        return None
    value, settings = float(subject.once(_proximity_means).mean()), {**_NOVELSUM, "density_power": 0.0}
    settings["sampled_rows"] = len(subject.once(_novelsum_rows))
    if not subject.has_intervals:
        return Estimate(value=value, n=subject.n, settings=settings)
    without = np.nanmean(subject.once(_proximity_means_without), axis=0)
    return estimate_over_bins(value, LeftOut(without, subject.bins % _MERGED_BINS), settings)


def measure_cluster_inertia(subject: Subject) -> Estimate:
    """k-means inertia a row: mean squared Euclidean distance to the nearest of 20 centres, 0 to 1.

    No interval: left-out groups move the partition as a whole, and the jackknife needs a smooth statistic.
    """
    found = subject.once(_clusters)
    return Estimate(value=found.inertia, n=subject.n, settings=_cluster_settings(found))


def measure_effective_clusters(subject: Subject) -> Estimate:
    """Exponential of the entropy of the sizes of 20 k-means clusters, 1 to 20: how evenly the rows spread over them.

    No interval, as for the inertia.
    """
    found = subject.once(_clusters)
    return Estimate(value=effective_clusters(found.sizes), n=subject.n, settings=_cluster_settings(found))


def _cluster_settings(found: Clusters) -> dict[str, str | int | float]:
    return {"k": len(found.sizes), "starts": 1, "rows": found.rows, "distance": "euclidean"}


def _clusters(subject: Subject) -> Clusters:
    return cluster_rows(subject.unit, CLUSTERS, seed=subject.seed)


def _novelsum_rows(subject: Subject) -> Ints:
    if subject.sample is not None:
        return subject.sample
    if subject.n <= _NOVELSUM_ROWS:
        return np.arange(subject.n)
    return canonical_order(subject.unit)[sample_rows(subject.n, _NOVELSUM_ROWS, seed=subject.seed)]


def _proximity_means(subject: Subject) -> Floats:
    return proximity_means(subject.unit, power=_PROXIMITY_POWER, rows=subject.once(_novelsum_rows))


def _proximity_means_without(subject: Subject) -> Floats:
    bins = subject.bins % _MERGED_BINS
    return proximity_means_without(subject.unit, bins, power=_PROXIMITY_POWER, rows=subject.once(_novelsum_rows))
