"""The rules that ``cuvee check`` holds files of rows to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from cuvee.config.sections import Located, Name, Section
from cuvee.encoders import DEFAULT_ENCODER
from cuvee.measure import METRICS
from cuvee.measure.findings import RULES
from cuvee.registry import nearest_name


class Limits(Section):
    """The range that a number must lie in."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Limits:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        return self


class CheckRules(Section):
    """Which findings and which numbers fail a file."""

    against: Located | None = Field(None, description="real rows: they say what is usual, and which labels there are")
    held_out: Located | None = Field(None, description="rows that none may repeat: those of validation and test")
    text: Name | None = None
    label: Name | None = None
    encoder: str = Field(DEFAULT_ENCODER, description="as in study.yaml")
    findings: Literal["all"] | tuple[str, ...] = Field("all", description="ids of the findings that fail a file")
    limits: dict[str, Limits] = Field({}, description="the range of a metric")

    @field_validator("findings")
    @classmethod
    def _check_findings(cls, given: str | tuple[str, ...]) -> str | tuple[str, ...]:
        ids = [rule.id for rule in RULES]
        for name in given if isinstance(given, tuple) else ():
            if name not in ids:
                raise ValueError(f"no finding {name!r}; {nearest_name(name, ids)}")
        return given

    @field_validator("limits")
    @classmethod
    def _check_limits(cls, given: dict[str, Limits]) -> dict[str, Limits]:
        for name in given:
            if name not in METRICS:
                raise ValueError(f"no metric {name!r}; {nearest_name(name, METRICS)}")
        return given
