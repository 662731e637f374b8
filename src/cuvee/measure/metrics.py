"""The METRICS table: every number Cuvée can measure, under the name that results carry."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cuvee.measure.lexical import LEXICAL
from cuvee.measure.quality import QUALITY
from cuvee.measure.semantic import SEMANTIC
from cuvee.measure.shift import SHIFT
from cuvee.measure.subject import Metric

METRICS: Mapping[str, Metric] = MappingProxyType({m.name: m for m in (*SEMANTIC, *LEXICAL, *SHIFT, *QUALITY)})
STANDARD: tuple[str, ...] = tuple(name for name, metric in METRICS.items() if metric.standard)
