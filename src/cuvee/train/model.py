"""Which trainers there are, training with one of them, and reading a trained predictor back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cuvee.corpus import Corpus
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import ConfigError, InputError, TrainingError
from cuvee.registry import nearest_name, resolve_name
from cuvee.train.encoder import load_finetuned, train_encoder
from cuvee.records import Vectors
from cuvee.train.losses import TrainingRows, build_loss
from cuvee.train.probe import load_probe, train_probe
from cuvee.train.settings import Description, Predictor, Progress, Trainer, TrainSettings, read_description

TRAINERS: Mapping[str, Trainer] = {"probe": train_probe, "encoder": train_encoder}
Loader = Callable[[Path, Description, Encoder | None], Predictor]
LOADERS: Mapping[str, Loader] = {"probe": load_probe, "encoder": load_finetuned}


def train_model(
    corpus: Corpus,
    *,
    trainer: str = "probe",
    loss: str = "ce",
    steps: int | None = None,
    seed: int = 0,
    encoder: Encoder | None = None,
    settings: TrainSettings | None = None,
    progress: Progress | None = None,
) -> Predictor:
    """Train on a corpus (a blend's, for example) for an exact number of optimiser steps.

    Args:
        corpus: training rows; their ``origin`` says which are synthetic.
        trainer: ``probe`` (logistic regression on sentence vectors), ``encoder`` (fine-tunes a sentence
            encoder), or ``module:Name``.
        loss: ``ce``, ``source_weight``, or ``module:Name``.
        steps: optimiser steps; None takes the trainer's default (probe 300, encoder 30).
        seed: of the training draw.
        encoder: what the probe's vectors come from (by default all-MiniLM-L6-v2); fine-tuning starts from
            ``settings.model`` instead and takes no notice of it.
        settings: everything above and more in one value; give it instead of trainer, loss, steps and seed.
        progress: called as training goes on.

    Raises:
        TrainingError: no rows that count, one label only, or training failed.
        ConfigError: an unknown trainer or loss, or a setting that does not fit.
        ValueError: ``settings`` together with what it replaces.
    """
    given = TrainSettings(trainer=trainer, loss=loss, steps=steps, seed=seed)
    if settings is not None and given != TrainSettings():
        raise ValueError(f"settings is given, and so is one of trainer, loss, steps and seed in {given!r}; give one")
    chosen = settings or given
    if corpus.task != "classification":
        raise ConfigError(f"task {corpus.task!r} cannot be trained yet; only classification is built so far")
    train = resolve_name(chosen.trainer, TRAINERS, what="trainer")
    synthetic = np.array([origin == "synthetic" for origin in corpus.origins], dtype=np.bool_)

    def encode(texts: Sequence[str]) -> Vectors:
        return (encoder or load_encoder()).encode(texts)

    rows = TrainingRows(corpus=corpus, synthetic=synthetic, validation=None, encode=encode, seed=chosen.seed)
    prepared = build_loss(chosen).prepare(rows)
    kept = corpus if prepared.kept.all() else corpus.keep(prepared.kept)
    if len(kept) == 0:
        raise TrainingError("there are no rows to train on; give rows of at least two labels, with weights above 0")
    if len(kept.labels) < 2:
        raise TrainingError(f"training rows of one label only ({kept.labels[0]!r}); give rows of at least two")
    return train(kept, prepared, chosen, encoder=encoder, validation=None, progress=progress, folder=None)


def load_predictor(folder: str | Path, *, encoder: Encoder | None = None) -> Predictor:
    """Read back what ``Predictor.save`` wrote, of whichever built-in trainer.

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
