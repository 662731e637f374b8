"""The section of study.yaml that asks for a measured diversity, and its short form on the command line."""

from __future__ import annotations

from pydantic import Field, ValidationError, field_validator, model_validator

from cuvee.config.sections import Section
from cuvee.errors import ConfigError
from cuvee.measure import METRICS, Metric
from cuvee.measure.subject import LESS, MORE
from cuvee.registry import nearest_name

SHORT = {"vendi": "vendi_q1", "dcscore": "dcscore_tau1"}
"""Names for the metrics as their papers define them."""
NEAR = 0.05
"""A value is reached within this share of it, unless a tolerance is given."""


def is_diversity(metric: Metric) -> bool:
    """Whether a metric says how diverse a corpus is; the others are about its closeness to real data, or quality."""
    return metric.better.startswith((MORE, LESS))


class TargetConfig(Section):
    """The measured diversity that a pool should have: a value, or a quantile of what the dial reaches."""

    metric: str = Field(description="vendi, dcscore, another diversity of cuvee measure, or module:Name")
    value: float | None = Field(None, allow_inf_nan=False, description="of the metric")
    quantile: float | None = Field(
        None, ge=0, le=1, description="0 is the lower value of the dial's first and last level, 1 the higher one"
    )
    tolerance: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="how far off is near enough; 5% of value when left out"
    )
    rows: int | None = Field(None, ge=1, description="most distinct rows asked for while searching; null: no bound")

    @field_validator("metric")
    @classmethod
    def _resolve_metric(cls, name: str) -> str:
        name = SHORT.get(name, name)
        if ":" in name:
            return name
        known = [metric.name for metric in METRICS.values() if is_diversity(metric)]
        if name in METRICS and name not in known:
            raise ValueError(f"{name!r} is no diversity ({METRICS[name].better}); valid: {', '.join(known)}")
        if name not in known:
            raise ValueError(f"no metric {name!r}; {nearest_name(name, [*SHORT, *known])}")
        return name

    @model_validator(mode="after")
    def _check(self) -> TargetConfig:
        if (self.value is None) == (self.quantile is None):
            raise ValueError("a target is a value or a quantile; give exactly one of them")
        if self.quantile is not None and self.tolerance is None:
            raise ValueError("a quantile needs a tolerance, in the unit of the metric; give tolerance")
        return self

    @property
    def near_enough(self) -> float:
        """The tolerance, in the metric's unit."""
        return self.tolerance if self.tolerance is not None else NEAR * abs(self.value or 0.0)


def parse_target(text: str, *, tolerance: float | None = None, rows: int | None = None) -> TargetConfig:
    """A target from ``METRIC=VALUE``, as the command line has it.

    Raises:
        ConfigError: it has not that form, the metric is not known, or a number is out of range.
    """
    metric, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError as exc:
        raise ConfigError(f"target {text!r}; give METRIC=VALUE, such as vendi=12") from exc
    try:
        return TargetConfig(metric=metric.strip(), value=value, tolerance=tolerance, rows=rows)
    except ValidationError as exc:
        error = exc.errors()[0]
        raise ConfigError(f"target {text!r}: {error['msg'].removeprefix('Value error, ')}") from exc
