"""Training with any trainer, and reading back what it made."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, overload

from cuvee.corpus import Corpus
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import ConfigError, InputError
from cuvee.records import Vectors
from cuvee.registry import nearest_name
from cuvee.train.fit import check_fit
from cuvee.train.hearing import WholeProgress
from cuvee.train.judging import make_judge
from cuvee.train.losses.rows import name_failure
from cuvee.train.ready import make_ready
from cuvee.train.settings import (
    Predictor,
    Progress,
    Ranker,
    TextWriter,
    Trained,
    TrainSettings,
    read_description,
)
from cuvee.train.trainers import DEFAULT_STEPS, LOADERS, TRAINERS, find_trainer


@overload
def train_model(
    corpus: Corpus,
    *,
    trainer: Literal["causal"],
    loss: str = ...,
    steps: int | None = ...,
    seed: int = ...,
    encoder: Encoder | None = ...,
    validation: Corpus | None = ...,
    progress: Progress | None = ...,
    folder: Path | None = ...,
) -> TextWriter: ...
@overload
def train_model(
    corpus: Corpus,
    *,
    trainer: Literal["retriever"],
    loss: str = ...,
    steps: int | None = ...,
    seed: int = ...,
    encoder: Encoder | None = ...,
    validation: Corpus | None = ...,
    progress: Progress | None = ...,
    folder: Path | None = ...,
) -> Ranker: ...
@overload
def train_model(
    corpus: Corpus,
    *,
    trainer: Literal["probe", "encoder"] = ...,
    loss: str = ...,
    steps: int | None = ...,
    seed: int = ...,
    encoder: Encoder | None = ...,
    validation: Corpus | None = ...,
    progress: Progress | None = ...,
    folder: Path | None = ...,
) -> Predictor: ...
@overload
def train_model(
    corpus: Corpus,
    *,
    trainer: str = ...,
    loss: str = ...,
    steps: int | None = ...,
    seed: int = ...,
    encoder: Encoder | None = ...,
    settings: TrainSettings | None = ...,
    validation: Corpus | None = ...,
    progress: Progress | None = ...,
    folder: Path | None = ...,
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
