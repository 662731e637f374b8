"""The METRICS table: every number Cuvée can measure, under the name that results carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from cuvee.errors import ConfigError
from cuvee.measure.lexical import LEXICAL
from cuvee.measure.quality import QUALITY
from cuvee.measure.semantic import SEMANTIC
from cuvee.measure.shift import SHIFT
from cuvee.measure.subject import Metric
from cuvee.registry import Kind, resolve_name

METRICS: Mapping[str, Metric] = MappingProxyType({m.name: m for m in (*SEMANTIC, *LEXICAL, *SHIFT, *QUALITY)})
STANDARD: tuple[str, ...] = tuple(name for name, metric in METRICS.items() if metric.standard)


def are_named(metrics: Sequence[str | Metric] | None) -> bool:
    """Whether metrics were asked for one by one, so that none may be left out."""
    return metrics is not None and "all" not in metrics


def choose_metrics(metrics: Sequence[str | Metric] | None) -> tuple[Metric, ...]:
    """The metrics that are meant: None the standard ones, "all" every one, else those named or given.

    Raises:
        ConfigError: no metric of that name, or ``module:Name`` of something else.
    """
    if metrics is None:
        return tuple(METRICS[name] for name in STANDARD)
    return tuple(map(_resolve, metrics)) if are_named(metrics) else tuple(METRICS.values())


def _resolve(entry: str | Metric) -> Metric:
    if isinstance(entry, str):
        return resolve_name(entry, METRICS, Kind(name="metric", is_a=Metric))
    if not isinstance(entry, Metric):
        raise ConfigError(f"metric {entry!r} is not a cuvee.measure.Metric but a {type(entry).__name__}")
    return entry
