"""Which trainers there are, whether a training fits, training with any of them, and reading back what it made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypedDict, Unpack, overload

from cuvee.corpus import Corpus, Task
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import ConfigError, InputError
from cuvee.records import Vectors
from cuvee.registry import Kind, nearest_name, resolve_name
from cuvee.train import causal, probe, retriever
from cuvee.train import encoder as encoder_trainer
from cuvee.train.judging import make_judge
from cuvee.train.losses import build_loss
from cuvee.train.losses.rows import name_failure
from cuvee.train.ready import make_ready
from cuvee.train.settings import (
    Description,
    Predictor,
    Progress,
    Ranker,
    TextWriter,
    Trained,
    Trainer,
    TrainSettings,
    read_description,
    refuse_idle,
)

_TWO_LAWS = ("imp", "dimp")
_NEEDING_REAL = (*_TWO_LAWS, "agreement_filter", "checker_alone", "online_source_weight")
TRAINERS: Mapping[str, Trainer] = {
    "probe": probe.train_probe,
    "encoder": encoder_trainer.train_encoder,
    "causal": causal.train_causal,
    "retriever": retriever.train_retriever,
}
_TRAINER = Kind(
    name="trainer", takes=("corpus", "loss", "settings", "*", "encoder", "validation", "progress", "folder")
)
DEFAULT_STEPS: Mapping[str, int] = {
    "probe": probe.STEPS,
    "encoder": encoder_trainer.STEPS,
    "causal": causal.STEPS,
    "retriever": retriever.STEPS,
}
"""Optimiser steps of each where none are asked for."""
TASKS: Mapping[str, tuple[str, ...]] = {
    "classification": ("probe", "encoder"),
    "generation": ("causal",),
    "retrieval": ("retriever",),
}
"""Which of ``TRAINERS`` serve a task."""
Loader = Callable[[Path, Description, Encoder | None], Trained]
LOADERS: Mapping[str, Loader] = {
    "probe": probe.load_probe,
    "encoder": encoder_trainer.load_finetuned,
    "causal": causal.load_causal,
    "retriever": retriever.load_retriever,
}


def find_trainer(name: str) -> Trainer:
    """The trainer of the table, or the user's own.

    Raises:
        ConfigError: there is none, or it is not trusted.
    """
    return resolve_name(name, TRAINERS, _TRAINER)


def check_fit(settings: TrainSettings, task: Task) -> None:
    """See that a training with these settings could begin: it looks at no rows and no files, and loads no model.

    Raises:
        ConfigError: an unknown trainer or loss, a trainer of another task, a setting that the trainer or the loss has
            no use for, or a loss that the task has no use for.
    """
    find_trainer(settings.trainer)
    if settings.trainer in TRAINERS and settings.trainer not in TASKS[task]:
        valid = " or ".join(TASKS[task])
        raise ConfigError(f"trainer {settings.trainer!r} is not for task {task!r}; set trainer: {valid}")
    refuse_idle(settings)
    build_loss(settings)
    if task == "retrieval" and settings.loss in _TWO_LAWS:
        raise ConfigError(
            f"loss {settings.loss!r} divides two laws of a target, and a retriever has none; set loss: "
            "agreement_filter, source_weight or curriculum"
        )


def needs_real_rows(settings: TrainSettings) -> bool:
    """Whether the loss cannot train on a blend without real rows, such as a study's synthetic-only baseline.

    Such a blend is then trained with loss ``ce``. Of a loss of the user's own nothing is known: False.
    """
    if settings.loss == "source_weight":  # weight 0 drops the synthetic rows
        return not settings.source_weight
    return settings.loss in _NEEDING_REAL


def without_loss(settings: TrainSettings) -> TrainSettings:
    """The same training with loss ``ce``, and none of the settings that belong to a loss."""
    return replace(
        settings, loss="ce", source_weight=None, gamma=None, clip=None, q=None, alpha=None, beta=None, pull=None,
        synthetic_share=None, floor=None,
    )  # fmt: skip


class WholeProgress:
    """Passes on what checkers and the training tell, as one count: ``done`` never falls; it is ``all`` at the end only.

    How many tunings there will be is not known beforehand, so ``all`` grows with each.

    Args:
        progress: hears it.
        steps: of the training, as far as is known before it begins.
    """

    def __init__(self, progress: Progress, steps: int) -> None:
        self._progress, self._steps, self._before = progress, steps, 0

    def tune(self, done: int, total: int, loss: float) -> None:
        """``done`` of ``total`` steps of one tuning."""
        self._progress(self._before + done, self._before + total + self._steps, loss)
        if done == total:
            self._before += total

    def train(self, done: int, total: int, loss: float) -> None:
        """``done`` of ``total`` steps of the training itself."""
        self._progress(self._before + done, self._before + total, loss)


class _Options(TypedDict, total=False):
    loss: str
    steps: int | None
    seed: int
    encoder: Encoder | None
    validation: Corpus | None
    progress: Progress | None
    folder: Path | None


@overload
def train_model(corpus: Corpus, *, trainer: Literal["causal"], **options: Unpack[_Options]) -> TextWriter: ...
@overload
def train_model(corpus: Corpus, *, trainer: Literal["retriever"], **options: Unpack[_Options]) -> Ranker: ...
@overload
def train_model(
    corpus: Corpus, *, trainer: Literal["probe", "encoder"] = ..., **options: Unpack[_Options]
) -> Predictor: ...
@overload
def train_model(
    corpus: Corpus, *, trainer: str = ..., settings: TrainSettings | None = ..., **options: Unpack[_Options]
) -> Trained: ...
def train_model(
    corpus: Corpus,
    *,
    trainer: str = "probe",
    loss: str = "ce",
    steps: int | None = None,
    seed: int = 0,
    encoder: Encoder | None = None,
    settings: TrainSettings | None = None,
    validation: Corpus | None = None,
    progress: Progress | None = None,
    folder: Path | None = None,
) -> Trained:
    """Train on a corpus (a blend's, for example) for an exact number of optimiser steps.

    Args:
        corpus: training rows; their ``origin`` says which are synthetic.
        trainer: ``probe`` (logistic regression on sentence vectors) or ``encoder`` (fine-tunes a sentence
            encoder) for classification, ``causal`` (a language model) for generation, ``retriever`` for
            retrieval, or ``module:Name``.
        loss: a name in ``LOSSES``, or ``module:Name``.
        steps: optimiser steps; None takes the trainer's default (probe 300, encoder 30).
        seed: of the training draw.
        encoder: what the probe's and the checkers' vectors come from (by default all-MiniLM-L6-v2); fine-tuning
            starts from ``settings.model`` instead.
        settings: trainer, loss, steps and seed and more in one value; give it instead of these.
        validation: real rows that are never trained on: for early stopping, and for the loss that compares
            gradients with theirs.
        progress: called as training goes on; the steps of checkers that a loss tunes or fits first count too.
        folder: where checkpoints go, every ``checkpoint_every`` steps (by default a tenth of all); None keeps none.

    Returns:
        A ``Predictor`` for classification, a ``TextWriter`` for generation, a ``Ranker`` for retrieval.

    Raises:
        TrainingError: no rows that count, one label only, or training failed.
        ConfigError: an unknown trainer or loss, a trainer of another task, or a setting that does not fit.
        ValueError: ``settings`` together with what it replaces.
    """
    given = TrainSettings(trainer=trainer, loss=loss, steps=steps, seed=seed)
    if settings is not None and given != TrainSettings():
        raise ValueError(f"settings is given, and so is one of trainer, loss, steps and seed in {given!r}; give one")
    chosen = settings or given
    check_fit(chosen, corpus.task)
    if chosen.checkpoint_every is not None and folder is None:
        raise ConfigError(f"checkpoint_every is {chosen.checkpoint_every}, but there is no folder for checkpoints")
    train = find_trainer(chosen.trainer)

    def encode(texts: Sequence[str]) -> Vectors:
        return (encoder or load_encoder()).encode(texts)

    whole = None if progress is None else WholeProgress(progress, chosen.steps or DEFAULT_STEPS.get(chosen.trainer, 1))
    tune = None if whole is None else whole.tune
    ready = make_ready(
        corpus, chosen, validation=validation, encode=encode, judge=make_judge(chosen, tune), progress=tune
    )
    with nullcontext() if chosen.trainer in TRAINERS else name_failure("trainer", chosen.trainer):
        return train(
            ready.corpus,
            ready.loss,
            ready.settings,
            encoder=encoder,
            validation=ready.validation,
            progress=None if whole is None else whole.train,
            folder=folder,
        )


def load_predictor(folder: str | Path, *, encoder: Encoder | None = None) -> Trained:
    """Read back what ``save`` wrote, of whichever built-in trainer.

    Args:
        folder: the folder.
        encoder: the probe's encoder; by default the one of the name it was trained on.

    Raises:
        InputError: there is no predictor, it is broken, or ``encoder`` is another one.
    """
    description = read_description(Path(folder))
    if description.kind not in LOADERS:
        raise InputError(f"{folder}: unknown kind {description.kind!r}; {nearest_name(description.kind, LOADERS)}")
    return LOADERS[description.kind](Path(folder), description, encoder)
