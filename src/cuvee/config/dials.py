"""The sections of study.yaml for dials, and for the measured diversity that a dial may aim at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator
from typing_extensions import TypeAliasType

from cuvee.config.sections import OWN, Name, Section, tell_own
from cuvee.errors import ConfigError
from cuvee.generate.dials.contents import check_tree
from cuvee.generate.targets import Target
from cuvee.measure import METRICS
from cuvee.measure.subject import LESS, MORE
from cuvee.registry import nearest_name

SHORT = {"vendi": "vendi_q1", "dcscore": "dcscore_tau1"}  # names for the metrics as their papers define them
NEAR = 0.05  # A value is reached within this share of it, unless a tolerance is given


class TargetConfig(Section):
    """The measured diversity that a pool should have: near enough to a value."""

    metric: str = Field(description="vendi, dcscore, another diversity of cuvee measure, or module:Name")
    value: float = Field(allow_inf_nan=False, description="of the metric")
    tolerance: float | None = Field(None, ge=0, allow_inf_nan=False)
    """how far off is near enough; 5% of value when left out"""
    rows: int | None = Field(None, ge=1, description="most distinct rows asked for while searching; null: no bound")

    @field_validator("metric")
    @classmethod
    def _resolve_metric(cls, name: str) -> str:
        name = SHORT.get(name, name)
        if ":" in name:
            return name
        known = [metric.name for metric in METRICS.values() if metric.better.startswith((MORE, LESS))]
        if name in METRICS and name not in known:
            raise ValueError(f"{name!r} is no diversity ({METRICS[name].better}); valid: {', '.join(known)}")
        if name not in known:
            raise ValueError(f"no metric {name!r}; {nearest_name(name, [*SHORT, *known])}")
        return name

    def target(self) -> Target:
        """What is searched for."""
        off = NEAR * abs(self.value) if self.tolerance is None else self.tolerance
        return Target(metric_name=self.metric, value=self.value, tolerance=off, budget_rows=self.rows)


def parse_target(text: str, *, tolerance: float | None = None) -> TargetConfig:
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
        return TargetConfig(metric=metric.strip(), value=value, tolerance=tolerance)
    except ValidationError as exc:
        error = exc.errors()[0]
        raise ConfigError(f"target {text!r}: {error['msg'].removeprefix('Value error, ')}") from exc


class DialSection(Section):
    """What all our dials have in common."""

    name: str
    levels: tuple[object, ...] | None
    draws: int | None = Field(None, ge=1, description="generation draws of this dial, when fewer than draws.generation")
    target: TargetConfig | None = None
    """generate at this measured diversity: levels are then the candidates, one is kept"""


# Topics, or each topic with its subtopics.
Topics = TypeAliasType("Topics", "tuple[str, ...] | dict[str, Topics]")


class TopicsConfig(DialSection):
    """Topic-guided generation: the level is the number of topics a label."""

    name: Literal["topics"]
    levels: tuple[int, ...] = Field((1, 2, 4, 8), min_length=1)
    topics: Literal["data", "llm"] | dict[str, Topics] | tuple[str, ...]
    """label: its topics, or label: {topic: [subtopics]}; a list for every label; data: words found in the rows; llm:
    asked from the generator"""

    @field_validator("topics", mode="before")
    @classmethod
    def _read_topics(cls, given: object) -> object:
        if isinstance(given, str) and given not in ("data", "llm"):
            raise ValueError(f"topics is {given!r}; give data, llm, a list, or a list for each label")
        try:
            return given if isinstance(given, str) else check_tree("topics", given)
        except ConfigError as exc:  # pydantic itself would list every type that it might have been
            raise ValueError(str(exc)) from exc


class ParaphraseConfig(DialSection):
    """Paraphrase replacement: the level is m_p, the paraphrases that stand in for other rows, a source."""

    name: Literal["paraphrase"]
    levels: tuple[int, ...] = Field((5, 3, 1, 0), min_length=1)
    sources: int = Field(2, ge=1, description="r: source rows, a label and draw; m_r = m_p x r rows are replaced")


Range = float | tuple[float, float]


class SamplingLevel(Section):
    """One way to sample: each value fixed, or drawn from a range for each row."""

    name: Name | None = Field(None, description="of the level; made of its values when left out")
    temperature: Range | None = None
    top_p: Range | None = None
    min_p: Range | None = None


class SamplingConfig(DialSection):
    """Sampling: a level is a temperature, or temperature, top_p and min_p, fixed or from ranges."""

    name: Literal["sampling"]
    levels: tuple[float | SamplingLevel, ...] = Field((0.2, 0.8, 1.4, 2.0), min_length=1)


class AttributesConfig(DialSection):
    """Attributed prompts (arXiv 2306.15895): the level is the number of combinations of attribute values."""

    name: Literal["attributes"]
    levels: tuple[int, ...] = Field((1, 4, 16), min_length=1)
    dimensions: Literal["llm"] | dict[str, tuple[str, ...]]
    """attribute: its values, as a prompt should say them; llm: asked from the generator"""
    count: int = Field(4, ge=1, description="attributes asked for, with dimensions: llm")
    values: int = Field(4, ge=1, description="values asked for, of each attribute")

    @field_validator("dimensions", mode="before")
    @classmethod
    def _read_dimensions(cls, given: object) -> object:
        if given != "llm" and not isinstance(given, Mapping):
            raise ValueError(f"dimensions is {given!r}; give llm, or map each attribute to a list of its values")
        return given

    def _check(self) -> None:
        if self.dimensions != "llm":
            self.refuse(("count", "values"), "goes with dimensions: llm; these dimensions are given by hand")


class ExamplesConfig(DialSection):
    """Rotated seed examples: the level is the number of different real rows of a label that prompts show."""

    name: Literal["examples"]
    levels: tuple[int, ...] = Field((4, 8, 16), min_length=1)
    shown: int = Field(4, ge=1, description="seed examples in one prompt")


class TabooConfig(DialSection):
    """Taboo words (arXiv 2401.06643): the level is the number of rounds; each forbids the words of those before."""

    name: Literal["taboo"]
    levels: tuple[int, ...] = Field((1, 2, 4), min_length=1)
    words: int = Field(3, ge=1, description="words that a round adds to the forbidden ones")
    read: int = Field(4, ge=1, description="first rows of a round that its words are taken from")


class BaseThenRefineConfig(DialSection):
    """A draft, then its refinement (arXiv 2502.01697): the level is the temperature of the draft."""

    name: Literal["base_then_refine"]
    levels: tuple[float, ...] = Field((0.7, 1.0, 1.3), min_length=1)
    draft: Literal["completions", "chat"] = "completions"
    draft_model: str | None = Field(None, description="another model at the endpoint that writes the drafts")


class OwnDialConfig(BaseModel):
    """A dial of your own, ``module:Name``; all other keys are its settings."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(pattern=OWN)
    draws: int | None = Field(None, ge=1)
    target: TargetConfig | None = None


_Contents = TopicsConfig | AttributesConfig | ExamplesConfig | TabooConfig
_Single = _Contents | ParaphraseConfig | SamplingConfig | BaseThenRefineConfig
_Own = Annotated[OwnDialConfig, Tag("own")]
SingleDial = Annotated[Annotated[_Single, Field(discriminator="name"), Tag("named")] | _Own, Discriminator(tell_own)]


class CombinedConfig(DialSection):
    """Two dials at once: the levels are their pairs, such as ``4 x 1``."""

    name: Literal["combined"]
    first: SingleDial
    second: SingleDial
    levels: tuple[Name, ...] | None = Field(None, min_length=1, description="pairs such as 4 x 1; all when left out")

    def _check(self) -> None:
        for part, inner in (("first", self.first), ("second", self.second)):
            for key in ("draws", "target"):
                if getattr(inner, key) is not None:
                    raise ValueError(f"{part}.{key} has no meaning of its own; give {key} to the combined dial")


_Named = Annotated[_Single | CombinedConfig, Field(discriminator="name"), Tag("named")]
DialConfig = Annotated[_Named | _Own, Discriminator(tell_own)]
