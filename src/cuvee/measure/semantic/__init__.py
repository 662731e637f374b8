"""Diversity of meaning: the numbers of the embedded rows."""

from functools import partial

from cuvee.measure.semantic.kernel_numbers import (
    measure_dcscore,
    measure_mean_cosine,
    measure_near_duplicates,
    measure_vendi,
)
from cuvee.measure.subject import LESS, MORE, TAUS, Metric

ORDERS = (0.5, 1.0, 2.0, float("inf"))

_DCSCORE = [
    Metric(
        name=f"dcscore_tau{tau:g}",
        family="semantic",
        description=f"DCScore, cosine kernel, tau = {tau:g}: effective number of distinct meanings",
        better=MORE,
        needs=("vectors",),
        compute=partial(measure_dcscore, tau=tau),
    )
    for tau in TAUS
]
_VENDI = [
    Metric(
        name=f"vendi_q{q:g}",
        family="semantic",
        description=f"Vendi score of order {q:g}, cosine kernel: effective number of independent directions",
        better=MORE,
        needs=("vectors",),
        compute=partial(measure_vendi, q=q),
    )
    for q in ORDERS
]
SEMANTIC: tuple[Metric, ...] = (
    *_DCSCORE,
    *_VENDI,
    Metric(
        name="mean_pairwise_cosine",
        family="semantic",
        description="mean cosine over all pairs of different rows",
        better=LESS,
        needs=("vectors",),
        compute=measure_mean_cosine,
    ),
    Metric(
        name="near_duplicate_rate",
        family="semantic",
        description="fraction of rows that have another row at a cosine of at least 0.95",
        better=LESS,
        needs=("vectors",),
        compute=measure_near_duplicates,
    ),
)
