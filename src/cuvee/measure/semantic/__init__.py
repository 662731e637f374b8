"""Diversity of meaning: the numbers of the embedded rows."""

from collections.abc import Callable
from functools import partial

from cuvee.measure.semantic.distances import (
    measure_cluster_inertia,
    measure_effective_clusters,
    measure_mean_nearest_cosine,
    measure_novelsum,
    measure_novelsum_without_density,
    measure_remote_clique,
)
from cuvee.measure.semantic.kernel_numbers import (
    measure_dcscore,
    measure_dcscore_laplacian,
    measure_dcscore_polynomial,
    measure_dcscore_rbf,
    measure_leinster_cobbold,
    measure_log_det,
    measure_mean_cosine,
    measure_near_duplicates,
    measure_vendi,
)
from cuvee.measure.semantic.profiles import order_profile, tau_profile
from cuvee.measure.subject import LESS, MORE, TAUS, Metric, Need, Subject
from cuvee.records import Estimate

__all__ = ["ORDERS", "SEMANTIC", "order_profile", "tau_profile"]

ORDERS = (0.5, 1.0, 2.0, float("inf"))
_LC_TAU = 0.1
_EQUAL_N = "compare only at equal numbers of rows"


def _metric(
    name: str,
    description: str,
    compute: Callable[[Subject], Estimate | None],
    *,
    better: str = MORE,
    needs: tuple[Need, ...] = ("vectors",),
    standard: bool = True,
) -> Metric:
    return Metric(
        name=name, family="semantic", description=description, better=better, needs=needs, compute=compute,
        standard=standard,
    )  # fmt: skip


_DCSCORE = [
    _metric(
        f"dcscore_tau{tau:g}",
        f"DCScore, cosine kernel, tau = {tau:g}: effective number of distinct meanings",
        partial(measure_dcscore, tau=tau),
    )
    for tau in TAUS
]
_VENDI = [
    _metric(
        f"vendi_q{q:g}",
        f"Vendi score of order {q:g}, cosine kernel: effective number of independent directions",
        partial(measure_vendi, q=q),
    )
    for q in ORDERS
]
_LEINSTER_COBBOLD = [
    _metric(
        f"lc_q{q:g}_tau{_LC_TAU:g}",
        f"Leinster-Cobbold diversity of order {q:g}, similarity exp((cos - 1) / {_LC_TAU:g}): effective number of "
        "distinct meanings, order 0 being DCScore",
        partial(measure_leinster_cobbold, q=q, tau=_LC_TAU),
        standard=False,
    )
    for q in ORDERS
]
SEMANTIC: tuple[Metric, ...] = (
    *_DCSCORE,
    *_VENDI,
    _metric("mean_pairwise_cosine", "mean cosine over all pairs of different rows", measure_mean_cosine, better=LESS),
    _metric(
        "mean_nearest_cosine",
        "mean cosine of a row to the nearest other row",
        measure_mean_nearest_cosine,
        better=f"{LESS}; rises with the number of rows, {_EQUAL_N}",
    ),
    _metric(
        "near_duplicate_rate",
        "fraction of rows that have another row at a cosine of at least 0.95",
        measure_near_duplicates,
        better=LESS,
    ),
    *_LEINSTER_COBBOLD,
    _metric(
        "dcscore_rbf",
        "DCScore, RBF kernel of the median distance, tau = 0.1: effective number of distinct meanings",
        measure_dcscore_rbf,
        standard=False,
    ),
    _metric(
        "dcscore_laplacian",
        "DCScore, Laplacian kernel of the median distance, tau = 0.1: effective number of distinct meanings",
        measure_dcscore_laplacian,
        standard=False,
    ),
    _metric(
        "dcscore_polynomial",
        "DCScore, polynomial kernel of degree 3, tau = 0.1: effective number of distinct meanings",
        measure_dcscore_polynomial,
        standard=False,
    ),
    _metric(
        "vendi_q0",
        "Vendi score of order 0, cosine kernel: number of independent directions",
        partial(measure_vendi, q=0.0),
        better=f"{MORE}; nearly always min(rows, dimensions)",
        standard=False,
    ),
    _metric(
        "remote_clique", "mean Euclidean distance over all pairs of different rows", measure_remote_clique,
        standard=False,
    ),
    _metric(
        "log_det",
        "log det(I + K) a row, cosine kernel, in nats: log-volume that the rows span",
        measure_log_det,
        better=f"{MORE}; falls with the number of rows, {_EQUAL_N}",
        standard=False,
    ),
    _metric(
        "novelsum",
        "NovelSum, density of the real rows: mean proximity-weighted cosine distance to the other rows",
        measure_novelsum,
        better=f"{MORE}; falls with the number of rows, {_EQUAL_N} and against the same real rows",
        needs=("vectors", "against"),
        standard=False,
    ),
    _metric(
        "novelsum_without_density",
        "NovelSum of density power 0: mean proximity-weighted cosine distance to the other rows",
        measure_novelsum_without_density,
        better=f"{MORE}; falls with the number of rows, {_EQUAL_N}",
        standard=False,
    ),
    _metric(
        "cluster_inertia",
        "mean squared distance of a row to the nearest of 20 k-means centres",
        measure_cluster_inertia,
        better=f"{MORE}; falls where there are few rows a centre, {_EQUAL_N}",
        standard=False,
    ),
    _metric(
        "effective_clusters",
        "exponential of the entropy of the sizes of 20 k-means clusters",
        measure_effective_clusters,
        standard=False,
    ),
)  # fmt: skip
