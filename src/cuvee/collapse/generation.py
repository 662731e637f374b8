"""One generation of a causal language model: it is trained, writes, and is measured, wherever the executor puts it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cuvee.config.collapse import CausalModel, CollapseConfig, DecodingConfig, Diet, TrainedModel
from cuvee.corpus import Corpus
from cuvee.encoders import Encoder, load_encoder
from cuvee.evaluate import SCORES
from cuvee.fingerprint import derive_seed
from cuvee.measure import METRICS, Subject
from cuvee.records import Level, Sampling
from cuvee.train import Trained, TrainSettings
from cuvee.train.model import TunedChecker, make_ready

if TYPE_CHECKING:
    from cuvee.train.causal import CausalWriter

MEASURED = ("vendi_q1", "distinct_2", "skeleton_entropy", "self_repetition", "mean_words", "mmd")
SCORE = "loss"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationWork(Work[CausalModel]):
    """Of a causal model; ``tail`` has the places of the rarest held-out rows."""

    tail: NDArray[np.int64]

    def __call__(self, task: Task) -> list[Generation]:
        """One generation for each place."""
        writer = self._train(task.rows, task.places[0])
        return [self._write(writer, place, task) for place in task.places]

    def _train(self, rows: Corpus, place: Place) -> CausalWriter:
        from cuvee.train.causal import train_causal

        # so patient that all steps are done
        every = max(1, self.model.steps // self.model.evaluations)
        settings = replace(self.settings, seed=self.seed_of(place), patience=self.model.steps, evaluate_every=every)
        ready = make_ready(rows, settings, encode=lambda texts: load_encoder_once(self.model.encoder).encode(texts))
        return train_causal(
            ready.corpus, ready.loss, ready.settings, encoder=None, validation=self.held_out, progress=None,
            folder=None, keep_last=self.model.checkpoint == "last",
        )  # fmt: skip

    def _write(self, writer: CausalWriter, place: Place, task: Task) -> Generation:
        """Let a trained model write, and measure both."""
        decoding, prompts = place.decoding, task.prompts
        sampling = Sampling(
            temperature=decoding.temperature, top_p=decoding.top_p, top_k=decoding.top_k,
            max_tokens=self.model.max_tokens,
        )  # fmt: skip
        seed = derive_seed(self.config.seed, "collapse", "writing", place.chain, place.number)
        texts = writer.continue_prompts(prompts.prompts, sampling, seed=seed, beams=decoding.beams)
        written = prompts.with_columns(
            target=texts, origin=["synthetic"] * len(texts), id=[f"{name}/{place.level.name}" for name in prompts.ids]
        )
        if self.config.curated.agreement is not None and len(prompts) > len(task.real):
            checked = TunedChecker(self.settings)(
                task.real, written, weights=np.ones(len(task.real)), passes=None, seed=seed
            )  # fmt: skip
            written = written.with_columns(weight=np.exp(np.nan_to_num(checked.log_p, nan=-np.inf)))
        values, errors = self._measure(writer, texts[: self.model.rows], task.real)
        self.keep(writer, place)
        return Generation(written=written, values=values, errors=errors)

    def _measure(
        self, writer: CausalWriter, texts: Sequence[str], real: Corpus
    ) -> tuple[dict[str, float], dict[str, float]]:
        course, log_p = writer.course, row_means(writer, self.held_out)
        assert course is not None
        tenth = max(1, len(course.losses) // 10)
        tail = log_p[self.tail]
        values = {
            SCORE: -float(log_p.mean()),
            "last_loss": -course.scores[-1],
            "best_loss": -max(course.scores),
            "train_loss": float(np.mean(course.losses[-tenth:])),
            "tail_loss": -float(tail.mean()),
        }
        errors = {SCORE: _error(log_p), "tail_loss": _error(tail)}
        values["calibration"], errors["calibration"] = _calibrate(writer, self.held_out)
        found, their_errors = measure_texts(texts, real.targets, self.model.encoder, self.config.seed)
        return values | found, errors | their_errors


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


def row_means(writer: CausalWriter, rows: Corpus) -> Floats:
    """Mean log probability of each completion's tokens."""
    sums = writer.log_likelihood(rows.prompts, rows.targets)
    means: Floats = sums[:, 0] / sums[:, 1]
    return means


def _calibrate(writer: CausalWriter, rows: Corpus) -> tuple[float, float]:
    """Calibration error of the most probable token over all tokens of the rows, and its jackknife error over rows."""
    row, p, hit = writer.top_tokens(rows.prompts, rows.targets).T
    n = len(rows)
    weights = np.vstack([np.ones(len(row)), row != np.arange(n)[:, None]])  # all rows, then all but each
    whole, *others = SCORES["ece"]({"confidence": p, "accuracy": hit}, weights)
    return float(whole), float(np.sqrt((n - 1) / n * np.square(others - np.mean(others)).sum()))


def _error(values: Floats) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _words(texts: Sequence[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"\w+", text.casefold())}
