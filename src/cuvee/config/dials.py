"""The sections of study.yaml that describe dials."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag


class Section(BaseModel):
    """A part of study.yaml: unchanging, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_DRAWS = Field(None, ge=1, description="generation draws of this dial, when fewer than draws.generation")


class TopicsConfig(Section):
    """Topic-guided generation: the level is the number of topics a label."""

    name: Literal["topics"]
    levels: tuple[int, ...] = Field((1, 2, 4, 8), min_length=1)
    topics: dict[str, tuple[str, ...]] | Literal["data"] = Field(
        description="label: its topics, at least as many as the largest level; or data: words found in the rows"
    )
    draws: int | None = _DRAWS


class ParaphraseConfig(Section):
    """Paraphrase replacement: the level is m_p, the paraphrases that stand in for other rows, a source."""

    name: Literal["paraphrase"]
    levels: tuple[int, ...] = Field((5, 3, 1, 0), min_length=1)
    sources: int = Field(2, ge=1, description="r: source rows, a label and draw; m_r = m_p x r rows are replaced")
    draws: int | None = _DRAWS


Range = float | tuple[float, float]


class SamplingLevel(Section):
    """One way to sample: each value fixed, or drawn from a range for each row."""

    name: str | None = Field(None, description="of the level; made of its values when left out")
    temperature: Range | None = None
    top_p: Range | None = None
    min_p: Range | None = None


class SamplingConfig(Section):
    """Sampling: a level is a temperature, or temperature, top_p and min_p, fixed or from ranges."""

    name: Literal["sampling"]
    levels: tuple[float | SamplingLevel, ...] = Field((0.2, 0.8, 1.4, 2.0), min_length=1)
    draws: int | None = _DRAWS


class AttributesConfig(Section):
    """Attributed prompts (arXiv 2306.15895): the level is the number of combinations of attribute values."""

    name: Literal["attributes"]
    levels: tuple[int, ...] = Field((1, 4, 16), min_length=1)
    dimensions: dict[str, tuple[str, ...]] = Field(description="attribute: its values, as a prompt should say them")
    draws: int | None = _DRAWS


class ExamplesConfig(Section):
    """Rotated seed examples: the level is the number of different real rows of a label that prompts show."""

    name: Literal["examples"]
    levels: tuple[int, ...] = Field((4, 8, 16), min_length=1)
    shown: int = Field(4, ge=1, description="seed examples in one prompt")
    selection: Literal["random", "similar", "diverse"] = Field("random", description="which rows come first")
    draws: int | None = _DRAWS


class TabooConfig(Section):
    """Taboo words (arXiv 2401.06643): the level is the number of rounds; each forbids the words of those before."""

    name: Literal["taboo"]
    levels: tuple[int, ...] = Field((1, 2, 4), min_length=1)
    words: int = Field(3, ge=1, description="words that a round adds to the forbidden ones")
    read: int = Field(4, ge=1, description="first rows of a round that its words are taken from")
    draws: int | None = _DRAWS


class BaseThenRefineConfig(Section):
    """A draft, then its refinement (arXiv 2502.01697): the level is the temperature of the draft."""

    name: Literal["base_then_refine"]
    levels: tuple[float, ...] = Field((0.7, 1.0, 1.3), min_length=1)
    draft: Literal["completions", "chat"] = "completions"
    draws: int | None = _DRAWS


class OwnDialConfig(BaseModel):
    """A dial of your own, ``module:Name``; all other keys are its settings."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(pattern=r"^[\w.]+:\w+$")
    draws: int | None = _DRAWS


def _dial_tag(value: object) -> str:
    """Which section describes a dial: that of its name, or that of dials of the user's own."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return "own" if isinstance(name, str) and ":" in name else str(name)


SingleDial = Annotated[
    Annotated[TopicsConfig, Tag("topics")]
    | Annotated[ParaphraseConfig, Tag("paraphrase")]
    | Annotated[SamplingConfig, Tag("sampling")]
    | Annotated[AttributesConfig, Tag("attributes")]
    | Annotated[ExamplesConfig, Tag("examples")]
    | Annotated[TabooConfig, Tag("taboo")]
    | Annotated[BaseThenRefineConfig, Tag("base_then_refine")]
    | Annotated[OwnDialConfig, Tag("own")],
    Discriminator(_dial_tag),
]


class CombinedConfig(Section):
    """Two dials at once: the levels are their pairs, such as ``4 x 1``."""

    name: Literal["combined"]
    first: SingleDial
    second: SingleDial
    levels: tuple[str, ...] | None = Field(None, min_length=1, description="pairs such as 4 x 1; all when left out")
    draws: int | None = _DRAWS


DialConfig = Annotated[
    Annotated[TopicsConfig, Tag("topics")]
    | Annotated[ParaphraseConfig, Tag("paraphrase")]
    | Annotated[SamplingConfig, Tag("sampling")]
    | Annotated[AttributesConfig, Tag("attributes")]
    | Annotated[ExamplesConfig, Tag("examples")]
    | Annotated[TabooConfig, Tag("taboo")]
    | Annotated[BaseThenRefineConfig, Tag("base_then_refine")]
    | Annotated[CombinedConfig, Tag("combined")]
    | Annotated[OwnDialConfig, Tag("own")],
    Discriminator(_dial_tag),
]
