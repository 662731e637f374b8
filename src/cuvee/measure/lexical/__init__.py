"""Diversity of words."""

from functools import partial

from cuvee.measure.lexical.basic import measure_compression, measure_distinct
from cuvee.measure.subject import LESS, MORE, Metric

_DISTINCT = [
    Metric(
        name=f"distinct_{size}",
        family="lexical",
        description=f"different {size}-grams over all {size}-grams of words",
        better=f"{MORE}; falls with the number of rows",
        needs=(),
        compute=partial(measure_distinct, size=size),
    )
    for size in (1, 2, 3)
]
LEXICAL: tuple[Metric, ...] = (
    *_DISTINCT,
    Metric(
        name="compression_ratio",
        family="lexical",
        description="bytes of the sorted rows over their bytes after zlib",
        better=f"{LESS}; rises with the number of rows",
        needs=(),
        compute=measure_compression,
    ),
)
