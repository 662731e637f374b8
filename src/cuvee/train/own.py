"""Trainers of the user's own that are one function, and the predictors that are made of answers alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, TrainingError
from cuvee.records import Vectors
from cuvee.train.settings import Trained, Training, TrainSettings
from cuvee.train.weighting import name_failure

# What ``predict`` gives for a list of inputs: a label, or label -> probability; a completion; a vector; one each.
Answer = Callable[[Sequence[str]], object]
OTHER = "(no known label)"  # what a label that no training row has counts as


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What stands behind predictors that only answer.

    Attributes:
        name: of the trainer, for errors.
        settings: of the training.
        answer: gives one answer to each input.
        known: the labels of the training rows; empty for tasks without.
        keep: writes what is to be kept of the model into a folder; None where nothing can be kept.
    """

    name: str
    settings: TrainSettings
    answer: Answer
    known: tuple[str, ...] = ()
    keep: Callable[[Path], None] | None = None

    def ask(self, inputs: Sequence[str]) -> Sequence[object]:
        """One answer to each input.

        Raises:
            ConfigError: ``predict`` failed, or gives another number of answers.
        """
        with name_failure("predict of trainer", self.name):
            found = self.answer(inputs)
        if not isinstance(found, Sequence | np.ndarray) or isinstance(found, str) or len(found) != len(inputs):
            many = f"{len(found)} answers" if isinstance(found, Sequence | np.ndarray) else f"{found!r:.80}"
            raise ConfigError(f"predict of trainer {self.name!r} gave {many} for {len(inputs)} inputs; give one each")
        return cast("Sequence[object]", found)

    def save(self, folder: Path) -> None:
        """Write what the user's own code needs to use the model.

        Raises:
            ConfigError: nothing can be kept.
        """
        if self.keep is None:
            raise ConfigError(
                f"the model of trainer {self.name!r} cannot be kept: what it returns has no save(folder); add one that "
                "writes the model there"
            )
        folder.mkdir(parents=True, exist_ok=True)
        with name_failure("save of trainer", self.name):
            self.keep(folder)


class AnswerClassifier(Answers):
    """A classifier of answers: labels, or probabilities by label."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the training rows, and one for all others."""
        return (*self.known, OTHER)

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability of each label, shape (len(texts), k + 1); of an answer that is a label, 1."""
        place = {label: i for i, label in enumerate(self.known)}
        found = np.zeros((len(texts), len(place) + 1))
        with name_failure("predict of trainer", self.name):  # a probability may be no number
            for row, answer in zip(found, self.ask(texts), strict=True):
                for label, p in (answer if isinstance(answer, Mapping) else {answer: 1.0}).items():
                    row[place.get(str(label), len(place))] += p
        total = found.sum(axis=1)
        if not (np.isfinite(found) & (found >= 0)).all() or (np.abs(total - 1) > 1e-3).any():
            raise ConfigError(f"predict of trainer {self.name!r} gives probabilities that do not sum to 1")
        if len(texts) and not found[:, :-1].any():
            first = self.ask(texts[:1])[0]
            raise ConfigError(
                f"no answer of trainer {self.name!r} is a known label: the first is {first!r:.80}, and the labels are "
                f"{', '.join(self.known)[:200]}"
            )
        return np.asarray(found / total[:, None])

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most probable label of each text."""
        return [self.labels[i] for i in self.predict_proba(texts).argmax(axis=1)]


class AnswerWriter(Answers):
    """A writer of answers; sampling is left to what answers."""

    def write(self, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int) -> list[str]:
        """A completion of each prompt."""
        del max_tokens, temperature, seed  # whoever answers decides
        found = self.ask(prompts)
        for answer in found:
            if not isinstance(answer, str):
                raise ConfigError(f"predict of trainer {self.name!r} gave {answer!r:.80}; give a text for each prompt")
        return [str(answer) for answer in found]


class AnswerRanker(Answers):
    """A ranker of answers that are vectors, of queries and passages alike."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), d)."""
        with name_failure("predict of trainer", self.name):
            found = np.asarray(self.ask(texts), dtype=np.float32)
        if found.ndim != 2 or not found.any(axis=1).all():
            raise ConfigError(f"predict of trainer {self.name!r} gave shape {found.shape}; give a vector for each text")
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))

    encode_passages = encode_queries


_PREDICTORS = {"classification": AnswerClassifier, "generation": AnswerWriter, "retrieval": AnswerRanker}


def wrap_answers(
    corpus: Corpus, answer: Answer, settings: TrainSettings, keep: Callable[[Path], None] | None = None
) -> Trained:
    """The predictor of the corpus's task whose answers these are."""
    known = tuple(corpus.labels) if corpus.task == "classification" else ()
    made = _PREDICTORS[corpus.task](name=settings.trainer, settings=settings, answer=answer, known=known, keep=keep)
    assert isinstance(made, Trained)
    return made


@dataclass(frozen=True, slots=True)
class FunctionTrainer:
    """A trainer of the user's own that is ``train(blend, validation, seed, steps) -> predict``.

    The weights of the rows, those of the loss among them, are the column ``weight`` of ``blend``.
    """

    name: str
    function: Callable[[Corpus, Corpus | None, int, int | None], object]

    def __call__(self, training: Training) -> Trained:
        """See ``Trainer``."""
        blend, settings = training.corpus.with_columns(weight=training.loss.weights), training.settings
        predict = self.function(blend, training.validation, settings.seed, settings.steps)
        if not callable(predict):
            raise TrainingError(
                f"trainer {self.name!r} returned {predict!r:.80}; return a function predict(inputs) that gives one "
                "answer to each"
            )
        return wrap_answers(blend, predict, settings, getattr(predict, "save", None))
