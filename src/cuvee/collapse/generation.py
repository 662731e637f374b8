"""One generation: where it stands, what it takes, what it gives, and what is measured of what it wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cuvee.config.collapse import CollapseConfig, DecodingConfig, Diet, TrainedModel
from cuvee.corpus import Corpus
from cuvee.encoders import Encoder, load_encoder
from cuvee.fingerprint import derive_seed
from cuvee.measure import METRICS, Subject
from cuvee.records import Level
from cuvee.train import Trained, TrainSettings

MEASURED = ("vendi_q1", "distinct_2", "skeleton_entropy", "self_repetition", "mean_words", "mmd")
_Z = 1.96
Floats = NDArray[np.float64]
M = TypeVar("M", bound=TrainedModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One generation: what its model wrote, and what was measured."""

    written: Corpus
    values: Mapping[str, float]
    errors: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in the experiment a generation stands."""

    chain: int
    number: int
    diet: Diet | None
    decoding: DecodingConfig

    @property
    def level(self) -> Level:
        """By which the run folder knows it."""
        name = "start" if self.diet is None else self.diet.name
        return Level(dial=name, name=f"generation {self.number}", rank=self.number)

    @property
    def suffix(self) -> str:
        """What else names its file."""
        return f", {self.decoding.name}, chain {self.chain}"

    def at(self, number: int) -> Place:
        """An earlier generation of the course; all share generation 0."""
        return replace(self, number=number, diet=self.diet if number else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One training, and where what it gives belongs: a place for each decoding that the model writes in.

    Attributes:
        places: which differ in their decodings alone.
        keys: of the places, each a hash of what determines the generation.
        real: the real rows of the chain.
        rows: what the model is trained on.
        prompts: the real rows, which it continues, all of them again for each further candidate; or texts to label.
    """

    places: tuple[Place, ...]
    keys: tuple[str, ...]
    real: Corpus
    rows: Corpus
    prompts: Corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Generic[M]):
    """What trains, lets write and measures; an executor carries it to where it is done.

    Attributes:
        config: of the experiment.
        model: its model.
        settings: of every training.
        held_out: real rows.
        models: folder of those that are kept.
    """

    config: CollapseConfig
    model: M
    settings: TrainSettings
    held_out: Corpus
    models: Path

    def seed_of(self, place: Place) -> int:
        """The seed of the training, which all courses of a chain share."""
        return derive_seed(self.config.seed, "collapse", "training", place.chain, place.number)

    def keep(self, trained: Trained, place: Place) -> None:
        """Save a model where it stays on the disk."""
        last = self.model.keep_models == "last" and place.number == self.config.generations
        if last or self.model.keep_models == "all":
            trained.save(self.models / f"{place.level.key}{place.suffix}")


def measure_texts(
    texts: Sequence[str], real: Sequence[str], encoder: str, seed: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Diversity and shift of what a generation wrote, beside real texts, and the standard errors that are known."""
    seen, known = _words(texts), _words(real)
    told = [text for text in texts if text.strip()]
    values = {"vocabulary": len(seen & known) / max(1, len(known)), "empty": 1 - len(told) / max(1, len(texts))}
    errors: dict[str, float] = {}
    if len(told) < 2:
        return values, errors
    shown, against = (
        Corpus.from_rows([{"text": text, "target": ""} for text in each], task="generation") for each in (told, real)
    )
    subject = Subject(corpus=shown, against=against, encoder=load_encoder_once(encoder), seed=seed)
    for name in MEASURED:
        estimate = METRICS[name].compute(subject)
        if estimate is None:  # not defined, as of texts that are too short
            continue
        values[name] = estimate.value
        if estimate.low is not None and estimate.high is not None:
            errors[name] = (estimate.high - estimate.low) / (2 * _Z)
    return values, errors


@lru_cache(maxsize=1)
def load_encoder_once(name: str) -> Encoder:
    """Once in each process."""
    return load_encoder(name)


def _words(texts: Sequence[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"\w+", text.casefold())}
