"""The schema of a collapse experiment: which model is trained again and again on what it writes, and how."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cuvee.config.generators import LanguageModel
from cuvee.config.schema import DataConfig
from cuvee.config.sections import ExecuteConfig, Located, Section, Settings
from cuvee.corpus import Task
from cuvee.encoders import DEFAULT_ENCODER

Fraction = Annotated[float, Field(gt=0, lt=1)]
RegimeName = Literal["replace", "accumulate", "accumulate_subsample", "fresh", "curated"]


class GaussianModel(Section):
    """A normal law of independent coordinates, fitted to rows; theory has its every number."""

    kind: Literal["gaussian"] = "gaussian"
    rows: int = Field(100, ge=3, description="of every generation")
    dimension: int = Field(1, ge=1)
    estimator: Literal["unbiased", "maximum_likelihood"] = Field("unbiased", description="of the covariance")
    temperature: float = Field(1.0, ge=0.05, le=5, description="of what is drawn: the density to the power 1/T")

    def _check(self) -> None:
        if self.rows < self.dimension + 2:
            raise ValueError(f"rows is {self.rows}; a covariance of dimension {self.dimension} needs 2 more than that")


class CountsModel(Section):
    """Words drawn by their counts, alone or each by the word before it; the real law is Zipf's."""

    kind: Literal["unigram", "bigram"] = "unigram"
    rows: int = Field(500, ge=2, description="words of every generation")
    vocabulary: int = Field(100, ge=2, description="different words of the real law")
    exponent: float = Field(1.0, ge=0, description="of Zipf's law: 0 makes all words equally frequent")
    temperature: float = Field(1.0, ge=0.05, le=5, description="of what is drawn: probabilities to the power 1/T")


class DecodingConfig(Section):
    """How a generation writes; pure sampling by default."""

    temperature: float = Field(1.0, ge=0, description="0 is greedy: the most probable token")
    top_k: int | None = Field(None, ge=1)
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus sampling")
    beams: int = Field(1, ge=1, description="of a beam search, which goes with temperature 0")

    def _check(self) -> None:
        if self.beams > 1 and self.temperature > 0:
            raise ValueError(f"beams is {self.beams}, and a beam search draws nothing; set temperature: 0")
        if self.temperature == 0:
            self.refuse(("top_k", "top_p"), "has no effect at temperature 0; leave it out")

    @property
    def name(self) -> str:
        """In a few words."""
        if self.temperature == 0:
            return "greedy" if self.beams == 1 else f"{self.beams} beams"
        parts = [] if self.temperature == 1 else [f"temperature {self.temperature:g}"]
        parts += [] if self.top_k is None else [f"top-k {self.top_k}"]
        parts += [] if self.top_p == 1 else [f"top-p {self.top_p:g}"]
        return " ".join(parts) or "sampling"


class TrainedModel(Section):
    """What models have in common that are trained on rows, each generation anew."""

    data: DataConfig = Field(description="prompts (text) and completions (label); validation is the held-out file")
    rows: int = Field(64, ge=2, description="training rows of a chain, drawn from data.real")
    held_out: int = Field(64, ge=10, description="real rows that every generation is measured on")
    loss: Literal["ce", "gce", "sce", "tce"] = Field("ce", description="of every training; those without a checker")
    settings: Settings = Field({}, description="more of the training: model, batch_size, learning_rate, lora_rank, ...")
    keep_models: Literal["none", "last", "all"] = Field("none", description="which generations' models stay on disk")
    encoder: str = Field(DEFAULT_ENCODER, description="of what is written, for its diversity and shift")

    def _check(self) -> None:
        if self.data.validation is None:
            raise ValueError("data.validation is missing; name the file of held-out real rows")
        self.refuse(("data.test", "data.group"), "has no effect here; leave it out")


class CausalModel(TrainedModel):
    """A causal language model: every generation writes new completions of the real prompts."""

    task: ClassVar[Task] = "generation"
    trainer: ClassVar[str] = "causal"
    kind: Literal["causal"] = "causal"
    steps: int = Field(30, ge=1, description="optimiser steps of every generation")
    decodings: tuple[DecodingConfig, ...] = Field((DecodingConfig(),), min_length=1)
    max_tokens: int = Field(96, ge=1, description="of a completion that is written")
    evaluations: int = Field(10, ge=1, description="of each training on held-out rows; the best of them is told")
    checkpoint: Literal["last", "best"] = "last"
    """which checkpoint writes the next generation; the loss of both is told"""

    def _check(self) -> None:
        super()._check()
        names = [decoding.name for decoding in self.decodings]
        if len(set(names)) != len(names):
            raise ValueError(f"decodings has {', '.join(names)}; give different ones")


class ClassifierModel(TrainedModel):
    """A classifier: an LLM writes texts for the labels that the last one gave, and the next one is trained on them."""

    task: ClassVar[Task] = "classification"
    decodings: ClassVar[tuple[DecodingConfig, ...]] = (DecodingConfig(),)
    kind: Literal["classifier"] = "classifier"
    trainer: Literal["probe", "encoder"] = "probe"
    steps: int | None = Field(None, ge=1, description="optimiser steps of the encoder in every generation")
    generator: LanguageModel | None = Field(None, discriminator="kind", description="the LLM; or give pool")
    describe: str = Field("examples", description="what the texts are, for the LLM: news headlines")
    pool: Located | None = Field(None, description="a file of texts and labels that an LLM wrote, in place of one")

    def _check(self) -> None:
        super()._check()
        if (self.generator is None) == (self.pool is None):
            raise ValueError("give generator, the LLM that writes, or pool, a file that it wrote; one of the two")


Model = Annotated[GaussianModel | CountsModel | CausalModel | ClassifierModel, Field(discriminator="kind")]


class FreshConfig(Section):
    """The regime ``fresh``: new real rows in every generation."""

    shares: tuple[Fraction, ...] = Field((0.2,), min_length=1)
    """of the rows of a generation; each is a course"""
    weight: Fraction | Literal["pooled", "optimum"] = "optimum"
    """of the real rows together: a number, their share (pooled), or the best one in theory"""


class CuratedConfig(Section):
    """The regime ``curated``: the best of what the generation before wrote, chosen from more than a generation has.

    A Gaussian's filter keeps the rows nearest to the real mean; that of other models leaves out repeats and broken
    texts, and on request the rows that a checker of the real rows finds least probable.
    """

    candidates: int = Field(2, ge=2, description="rows that are written for each that is kept")
    select: Literal["vendi", "log_det", "k_center", "random", "lowest_shift"] = "vendi"
    """how rows are chosen among those that pass: as cuvee select does"""
    agreement: Fraction | None = None
    """fraction that passes: the rows most probable to a model of the real rows"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diet:
    """What the generations of a course are trained on.

    Attributes:
        regime: ``replace``: what the generation before wrote. ``accumulate``: real rows and all that was ever written.
            ``accumulate_subsample``: as many of these as a generation has rows. ``fresh``: new real rows beside what
            the generation before wrote. ``curated``: what a filter chooses of more rows that the generation before
            wrote.
        share: of fresh real rows among the rows of a generation; 0 in other regimes.
        weight: of the fresh rows together, where all rows have 1.
    """

    regime: RegimeName
    share: float = 0.0
    weight: float = 0.0

    @property
    def name(self) -> str:
        """The regime, with the share of fresh rows."""
        return f"fresh {self.share:.0%}" if self.regime == "fresh" else self.regime

    def fresh_rows(self, rows: int) -> int:
        """Real rows of a generation of ``rows``; at least one, and at least one is written."""
        return min(rows - 1, max(1, round(self.share * rows))) if self.regime == "fresh" else 0


def best_weight(share: float) -> float:
    """The weight of fresh real rows that makes a mean most precise in the long run.

    With k real rows for each synthetic one it is ``(sqrt(k^2 + 4k) - k) / 2``, the golden ratio's 0.618 at k = 1
    (He et al. 2025, arXiv 2502.18049).
    """
    k = share / (1 - share)
    return (math.sqrt(k * k + 4 * k) - k) / 2


class CollapseConfig(Section):
    """A whole experiment."""

    name: str = Field("collapse", pattern=r"^\.*[\w-][\w.-]*$", max_length=200, description="its folder is runs/NAME")
    seed: int = Field(0, ge=0)
    model: Model
    regimes: tuple[RegimeName, ...] = Field(("replace", "accumulate", "fresh"), min_length=1)
    fresh: FreshConfig = FreshConfig()
    curated: CuratedConfig = CuratedConfig()
    generations: int = Field(10, ge=1, description="after generation 0, which is trained on real rows alone")
    chains: int = Field(1, ge=1, description="independent repetitions: the unit of every interval")
    execute: ExecuteConfig = Field(ExecuteConfig(), description="where generations of a causal model are trained")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="of a warning, over all generations of one measure")
    delta: float = Field(0.1, gt=0, description="how much worse than generation 0 the score may become, as a fraction")

    def _check(self) -> None:
        if len(set(self.regimes)) != len(self.regimes):
            raise ValueError(f"regimes has {', '.join(self.regimes)}; give different ones")
        if self.model.kind == "bigram" and "accumulate_subsample" in self.regimes:
            raise ValueError("regimes has accumulate_subsample, but a subsample of pairs is no text; leave it out")
        trained = isinstance(self.model, TrainedModel)
        if not trained:
            self.refuse(("execute",), f"is for a model that is trained, which {self.model.kind} is not; leave it out")
        for regime in {"fresh", "curated"} - set(self.regimes):
            self.refuse((regime,), f"is for the regime {regime}, which is not among regimes; leave it out")
        if self.model.kind == "gaussian":
            self.refuse(("curated.select", "curated.agreement"), "is for a model that is trained; leave it out")
        elif not trained and "curated" in self.regimes:
            raise ValueError(f"regimes has curated, but words of a {self.model.kind} have no filter; leave it out")

    def list_diets(self) -> Iterator[Diet]:
        """One for each regime, for ``fresh`` one for each share."""
        wanted = self.fresh.weight
        for regime in self.regimes:
            if regime != "fresh":
                yield Diet(regime=regime)
                continue
            for share in self.fresh.shares:
                # as realised: whole rows
                real = Diet(regime=regime, share=share).fresh_rows(self.model.rows) / self.model.rows
                weight = real if wanted == "pooled" else best_weight(real) if wanted == "optimum" else wanted
                yield Diet(regime=regime, share=real, weight=weight)
