"""The schema of study.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from pydantic import Field, TypeAdapter, model_validator

from cuvee.config.dials import DialConfig
from cuvee.config.execution import ExecuteConfig, TrackConfig
from cuvee.config.generators import EmbeddedGenerator, FileGenerator, Generator
from cuvee.config.pools import DEFAULT_FILTERS, FilterConfig, PoolFile, check_filters
from cuvee.config.sections import Section
from cuvee.config.writing import WritingConfig
from cuvee.corpus import Task
from cuvee.encoders import DEFAULT_ENCODER
from cuvee.records import Regime
from cuvee.registry import nearest_name
from cuvee.report.card import Licences, is_language
from cuvee.train import TrainSettings


class DataConfig(Section):
    """The real data. Paths are relative to the file that names them."""

    real: str = Field(description="CSV, TSV, JSONL (also .gz), Parquet, or a saved Hugging Face dataset")
    text: str | None = Field(None, description="column of the input; recognised by its usual names when left out")
    label: str | None = Field(None, description="column of the label")
    group: str | None = Field(None, description="column whose equal values stay on one side of the split")
    context: str | None = Field(None, description="column of what a text is about, for the task generation")
    test: str | None = Field(None, description="a file of its own for the locked test, with the same columns")
    validation: str | None = Field(None, description="a file of its own for validation, with the same columns")


class SplitConfig(Section):
    """How the real data is split before anything else."""

    test: int | float = Field(
        0.3, gt=0, description="locked test: rows, or a fraction below 1; where data.test is given, that file is it"
    )
    validation: int | float = Field(
        0.3,
        gt=0,
        description="validation: rows, or a fraction below 1; where data.validation is given, that file is it",
    )
    near: float | None = Field(
        None, gt=0, le=1, description="cosine from which rows stay on one side of the split; null: equal texts only"
    )
    rows_per_label: int | None = Field(
        None, ge=1, description="real training rows of each label; null keeps all that remain"
    )


class MixConfig(Section):
    """Shares of synthetic data, and the regime."""

    regime: Regime = Field("augment", description="augment: real rows fixed; replace: total rows fixed")
    shares: tuple[float, ...] = Field((0.2, 0.5, 0.75), min_length=1)
    shape_share: float = Field(0.75, description="the share at which the shape over levels is tested, fixed beforehand")

    @model_validator(mode="after")
    def _check(self) -> MixConfig:
        for share in self.shares:
            if not 0 <= share < 1:
                raise ValueError(f"shares must be at least 0 and below 1, got {share}; synthetic-only always runs")
        if self.shape_share not in self.shares:
            raise ValueError(f"shape_share {self.shape_share} is not among shares {list(self.shares)}")
        if self.shape_share == 0:
            raise ValueError("shape_share 0 holds no synthetic rows; choose a larger one of shares")
        return self


class DrawsConfig(Section):
    """How many draws of each random stream."""

    generation: int = Field(5, ge=1, description="disjoint blocks of each pool: the unit of inference")
    sampling: int = Field(1, ge=1, description="choices of rows from a block")
    training: int = Field(3, ge=1, description="training seeds")
    confirm: int = Field(3, ge=0, description="fresh generation draws for confirming the winner on the locked test")


def check_settings(settings: Mapping[str, bool | int | float | str]) -> None:
    """Refuse settings that there are not, or that a study decides itself.

    Raises:
        ValueError: naming the first of them, or the value that is out of range.
    """
    decided = {"trainer", "loss", "steps", "seed", "source_weight", "patience", "evaluate_every", "checkpoint_every"}
    known = {each.name for each in fields(TrainSettings)} - decided
    unknown = next((name for name in settings if name not in known), None)
    if unknown is not None:
        raise ValueError(f"settings has {unknown!r}; {nearest_name(unknown, known)}")
    TypeAdapter(TrainSettings).validate_python(dict(settings))


class CheckConfig(Section):
    """A dearer trainer on three cells: real-only, the best cell, the most diverse cell at its share."""

    trainer: str = "encoder"
    steps: int = Field(30, ge=1)
    settings: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="more of this trainer: batch_size, learning_rate, lora_rank, ..."
    )
    draws: int = Field(3, ge=1)

    @model_validator(mode="after")
    def _check(self) -> CheckConfig:
        check_settings(self.settings)
        return self


class TrainConfig(Section):
    """The trainer of the grid: every cell gets the same optimiser steps."""

    trainer: str = "probe"
    loss: str = "ce"
    source_weight: float | None = Field(None, ge=0, description="of synthetic rows, for loss: source_weight")
    steps: int = Field(300, ge=1)
    settings: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="more of the trainer and the loss: gamma, q, batch_size, lora_rank, ..."
    )
    check: CheckConfig | None = None

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        check_settings(self.settings)
        return self


class AdviceConfig(Section):
    """What counts as a difference."""

    alpha: float = Field(0.05, gt=0, lt=0.5)
    delta: float = Field(0.01, gt=0, lt=0.5, description="the smallest difference in accuracy that matters")


class CardConfig(Section):
    """What the dataset card of the recommended blend says of licences and languages."""

    licence: str = Field("other", description="of the blend, as the hub names it: cc-by-4.0, apache-2.0, other")
    licence_name: str = Field("unstated", description="where licence is other")
    real_licence: str = Field("", description="terms of the real rows, in words")
    synthetic_licence: str = Field("", description="terms of the synthetic rows, in words")
    languages: tuple[str, ...] = Field((), description="ISO 639 codes of the texts: en")

    @model_validator(mode="after")
    def _check(self) -> CardConfig:
        for language in self.languages:
            if not is_language(language):
                raise ValueError(f"languages has {language!r}; give ISO 639 codes such as 'en' or 'pt-BR'")
        self.licences()
        return self

    def licences(self) -> Licences:
        """As the card takes them.

        Raises:
            ValueError: the licence is none that the hub could know.
        """
        return Licences(
            blend=self.licence, name=self.licence_name, real=self.real_licence, synthetic=self.synthetic_licence
        )


class StudyConfig(Section):
    """A whole study. ``cuvee init DATA`` writes one with comments."""

    name: str = Field("study", pattern=r"^[\w.-]+$", description="the run folder is runs/NAME")
    task: Task = "classification"
    describe: str = Field("examples", description="what one text is, in the plural, for prompts: news headlines")
    seed: int = Field(0, ge=0)
    data: DataConfig
    split: SplitConfig = SplitConfig()
    encoder: str = Field(DEFAULT_ENCODER, description="minilm, hashing, or a sentence-transformers model")
    generator: Generator = EmbeddedGenerator()
    writing: WritingConfig = WritingConfig()
    dials: tuple[DialConfig, ...] = ()
    pools: tuple[PoolFile, ...] = ()
    filters: tuple[FilterConfig, ...] = Field(DEFAULT_FILTERS, description="what is taken out of pools, in this order")
    mix: MixConfig = MixConfig()
    draws: DrawsConfig = DrawsConfig()
    train: TrainConfig = TrainConfig()
    execute: ExecuteConfig = ExecuteConfig()
    track: TrackConfig | None = Field(None, description="MLflow, for the finished study; nowhere when left out")
    advice: AdviceConfig = AdviceConfig()
    card: CardConfig = CardConfig()

    @model_validator(mode="after")
    def _check(self) -> StudyConfig:
        if isinstance(self.generator, FileGenerator):
            if not self.pools or self.dials:
                raise ValueError("generator.kind files needs a list under pools, and no dials")
            check_filters(self.filters)
            if self.task != "classification":
                raise ValueError(f"pools that are files are for the task classification; this one is {self.task}")
        elif not self.dials or self.pools:
            raise ValueError(f"generator.kind {self.generator.kind} needs a list under dials, and no pools")
        elif self.filters != DEFAULT_FILTERS:
            raise ValueError("filters are for pools that are files; what an LLM writes is judged as it comes")
        if isinstance(self.generator, FileGenerator) and self.writing != WritingConfig():
            raise ValueError("writing is for what an LLM writes; pools that are files have filters")
        if self.data.context is not None and self.task != "generation":
            raise ValueError(f"data.context is for the task generation, this one is {self.task}")
        if self.writing.label_check is not None and self.task != "classification":
            raise ValueError(f"writing.label_check needs labels, and the task {self.task} has none")
        names = [d.name for d in self.dials if d.name != "combined"]
        if len(set(names)) != len(names):
            raise ValueError(f"dials are listed twice: {', '.join(names)}; put all levels into one entry")
        keys = [(p.dial, level) for p in self.pools for level in p.levels]
        if len(set(keys)) != len(keys):
            raise ValueError("two pools have the same dial and level; give each level one file")
        return self
