"""The sections of study.yaml for pools that are files already: where they are, what is filtered, what is selected."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from cuvee.config.sections import Name, Section, name_tag
from cuvee.corpus import Task
from cuvee.mix import OBJECTIVES
from cuvee.registry import nearest_name


class DedupeConfig(Section):
    """Rows that repeat another one, or a real training row; the first stays."""

    name: Literal["dedupe"]
    near: float | None = Field(
        None, gt=0, le=1, description="cosine from which rows count as the same; null: equal text"
    )
    against_real: bool = True


class DegenerateConfig(Section):
    """Text that is no usable example: empty, looping, broken, cut off."""

    name: Literal["degenerate"]
    reference: bool = Field(False, description="learn from the real rows what cut-off text and other languages are")


class LeakConfig(Section):
    """Rows that repeat validation or the locked test: exactly, by n-grams, or nearer than real rows are."""

    name: Literal["leak"]
    whole: bool = Field(True, description="also test the pool as a set: was it written from held-out rows?")


class AgreementConfig(Section):
    """Rows whose label a probe of the real training rows does not believe."""

    name: Literal["agreement"]
    threshold: float | None = Field(None, ge=0, le=1, description="least probability of the row's label")
    top: float | None = Field(None, gt=0, le=1, description="fraction of each label's rows that stays")

    @model_validator(mode="after")
    def _check(self) -> AgreementConfig:
        if (self.threshold is None) == (self.top is None):
            raise ValueError("agreement takes a threshold or a top fraction; give exactly one of them")
        return self


class FewerPerClusterConfig(Section):
    """All but the first rows of each group (or cluster of near neighbours)."""

    name: Literal["fewer-per-cluster"]
    limit: int = Field(ge=1, description="rows of a cluster that stay")
    threshold: float | None = Field(None, gt=0, le=1, description="cosine that links rows; null: the group column")


class OwnFilterConfig(Section):
    """A function of your own, ``module:Name``: takes a corpus, gives for each row why it goes, or None."""

    name: str = Field(pattern=r"^[\w.]+:\w+$")


FilterConfig = Annotated[
    Annotated[DedupeConfig, Tag("dedupe")]
    | Annotated[DegenerateConfig, Tag("degenerate")]
    | Annotated[LeakConfig, Tag("leak")]
    | Annotated[AgreementConfig, Tag("agreement")]
    | Annotated[FewerPerClusterConfig, Tag("fewer-per-cluster")]
    | Annotated[OwnFilterConfig, Tag("own")],
    Discriminator(name_tag),
]
DEFAULT_FILTERS: tuple[FilterConfig, ...] = (
    DegenerateConfig(name="degenerate"),
    DedupeConfig(name="dedupe"),
    LeakConfig(name="leak"),
)


class SelectConfig(Section):
    """Levels that are chosen from one pool, with rows, labels and lengths held fixed."""

    metric: str = Field("vendi", description=f"the diversity to set: {', '.join(OBJECTIVES)}")
    levels: int = Field(5, ge=2, le=20, description="how many, from the least to the most diverse that there is")

    @model_validator(mode="after")
    def _check(self) -> SelectConfig:
        if self.metric not in OBJECTIVES:
            raise ValueError(f"no metric {self.metric!r} to select by; {nearest_name(self.metric, OBJECTIVES)}")
        return self


class PoolFile(Section):
    """A ready-made pool: the synthetic rows of one level, or the rows from which levels are selected."""

    dial: Name = Field(description="what was varied, for example paraphrase; select where levels are selected")
    level: Name | None = Field(
        None, description="which setting of it; list the levels of a dial from least to most diverse"
    )
    select: SelectConfig | None = Field(None, description="instead of level: choose levels from this pool")
    path: str
    text: Name | None = Field(None, description="column of the text, prompt or query")
    label: Name | None = Field(None, description="column of the label, completion or passage")
    context: Name | None = Field(
        None, description="column of what a text is about, for the task generation; data.context when left out"
    )
    group: Name | None = Field(
        None,
        description="column naming the source row: its paraphrases stay in one draw; so do rows of one context or "
        "passage, without it too",
    )

    @model_validator(mode="after")
    def _check(self) -> PoolFile:
        if (self.level is None) == (self.select is None):
            raise ValueError("a pool is one level, or levels are selected from it; give level or select")
        return self

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of its levels."""
        if self.select is None:
            return (self.level or "",)
        return tuple(str(number + 1) for number in range(self.select.levels))


def check_pools(
    pools: tuple[PoolFile, ...], filters: tuple[FilterConfig, ...], task: Task, context: str | None
) -> None:
    """Refuse filters that let leaks through, and what has no meaning for the task.

    Args:
        pools, filters, task: of the study.
        context: the column of the real rows' contexts.

    Raises:
        ValueError: there is no filter ``leak``, one is listed twice, or a filter or column is for another task.
    """
    names = [each.name for each in filters]
    if "leak" not in names:
        raise ValueError("filters must hold leak: rows that repeat validation or test may not be trained on")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"filter {repeated!r} is listed twice; give it once")
    if task != "classification" and "agreement" in names:
        raise ValueError(f"filter 'agreement' asks a probe about labels, and the task {task} has none; leave it out")
    if context is not None and any(isinstance(each, DedupeConfig) and each.near is not None for each in filters):
        raise ValueError(
            "dedupe.near compares texts without their contexts, so that a question asked of two contexts would count "
            "as one; leave near out, dedupe then compares text and context"
        )
    for number, pool in enumerate(pools):
        if pool.context is not None and task != "generation":
            raise ValueError(f"pools.{number}.context is for the task generation, this one is {task}; leave it out")
