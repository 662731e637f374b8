"""The METRICS table: every number Cuvée can measure, under the name that results carry."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from cuvee.measure.lexical import measure_compression, measure_distinct
from cuvee.measure.quality import measure_label_agreement, measure_leakage
from cuvee.measure.semantic import measure_dcscore, measure_mean_cosine, measure_near_duplicates, measure_vendi
from cuvee.measure.shift import measure_mmd
from cuvee.measure.subject import TAUS, Metric

ORDERS = (0.5, 1.0, 2.0, float("inf"))

_MORE = "higher is more diverse"
_LESS = "higher is less diverse"

_DCSCORE = [
    Metric(
        name=f"dcscore_tau{tau:g}",
        family="semantic",
        description=f"DCScore, cosine kernel, tau = {tau:g}: effective number of distinct meanings",
        better=_MORE,
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
        better=_MORE,
        needs=("vectors",),
        compute=partial(measure_vendi, q=q),
    )
    for q in ORDERS
]
_DISTINCT = [
    Metric(
        name=f"distinct_{size}",
        family="lexical",
        description=f"different {size}-grams over all {size}-grams of words",
        better=f"{_MORE}; falls with the number of rows",
        needs=(),
        compute=partial(measure_distinct, size=size),
    )
    for size in (1, 2, 3)
]
_OTHERS = [
    Metric(
        name="mean_pairwise_cosine",
        family="semantic",
        description="mean cosine over all pairs of different rows",
        better=_LESS,
        needs=("vectors",),
        compute=measure_mean_cosine,
    ),
    Metric(
        name="near_duplicate_rate",
        family="semantic",
        description="fraction of rows that have another row at a cosine of at least 0.95",
        better=_LESS,
        needs=("vectors",),
        compute=measure_near_duplicates,
    ),
    *_DISTINCT,
    Metric(
        name="compression_ratio",
        family="lexical",
        description="bytes of the sorted rows over their bytes after zlib",
        better=f"{_LESS}; rises with the number of rows",
        needs=(),
        compute=measure_compression,
    ),
    Metric(
        name="mmd",
        family="shift",
        description="unbiased squared maximum mean discrepancy to the real training rows, RBF kernel",
        better="lower is closer to the real data",
        needs=("vectors", "against"),
        compute=measure_mmd,
    ),
    Metric(
        name="label_agreement",
        family="quality",
        description="fraction of rows whose label is what a probe fitted on the real training rows says",
        better="higher is cleaner; hard rows lower it too",
        needs=("vectors", "against", "labels"),
        compute=measure_label_agreement,
    ),
    Metric(
        name="leakage",
        family="quality",
        description="fraction of rows that repeat a held-out text more closely than real training rows do",
        better="lower is safer",
        needs=("vectors", "held_out"),
        compute=measure_leakage,
    ),
]

METRICS: Mapping[str, Metric] = MappingProxyType({m.name: m for m in (*_DCSCORE, *_VENDI, *_OTHERS)})
