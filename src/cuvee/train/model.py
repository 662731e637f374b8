"""Which trainers there are, whether a training fits, training with any of them, and reading back what it made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

from cuvee.corpus import Corpus, Task
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import ConfigError, InputError, MissingDependency, TrainingError
from cuvee.probe import CHECKING_L2, DEFAULT_L2, WeightedRows
from cuvee.records import Floats, Vectors
from cuvee.registry import Kind, nearest_name, resolve_name
from cuvee.train.losses import LOSSES, build_loss, fill_loss_settings
from cuvee.train.own import FunctionTrainer
from cuvee.train.settings import (
    DEFAULTS,
    Description,
    Trained,
    Trainer,
    Training,
    TrainSettings,
    read_description,
    refuse_idle,
)
from cuvee.train.weighting import (
    OnStep,
    RowChecker,
    RowScores,
    TrainingRows,
    mark_synthetic,
    name_failure,
    prepare_loss,
    weigh_rows,
)

_TWO_LAWS = ("imp", "dimp")
_NEEDING_REAL = (*_TWO_LAWS, "agreement_filter", "checker_alone")
_FUNCTION = Kind(name="trainer", takes=("blend", "validation", "seed", "steps"))
_TRAINER = Kind(name="trainer", takes=("training",), other=_FUNCTION)
_STATIC = ("ce", "source_weight")  # losses that are weights of rows, which can be handed on
_CHECKING = ("causal", "retriever")  # trainers whose models check rows without labels


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A trainer of the package: ``train_NAME`` and ``load_NAME`` of its module, which is imported at its first use.

    Most of them import torch, which takes seconds.

    Args:
        name: of the trainer and of its module.
        packages: that it stands on.
        remedy: what else to do where they are missing.
        draws: whether two training draws differ.
    """

    name: str
    packages: tuple[str, ...] = ()
    remedy: str = ""
    draws: bool = True

    def __call__(self, training: Training) -> Trained:
        """See ``Trainer``."""
        return cast("Trainer", self._find("train"))(training)

    def load(self, folder: Path, description: Description, encoder: Encoder | None) -> Trained:
        """What a predictor of this trainer wrote into ``folder``."""
        return cast("Callable[..., Trained]", self._find("load"))(folder, description, encoder)

    def _find(self, what: str) -> object:
        missing = [name for name in self.packages if find_spec(name) is None]
        if missing:
            needed = " and ".join(missing)
            raise MissingDependency(f"trainer {self.name!r} needs {needed}: pip install 'cuvee[train]'{self.remedy}")
        return getattr(import_module(f"cuvee.train.{self.name}"), f"{what}_{self.name}")


TRAINERS: Mapping[str, BuiltIn] = {
    "probe": BuiltIn("probe", draws=False),
    "encoder": BuiltIn("encoder", ("torch", "sentence_transformers"), ", or set trainer: probe"),
    "setfit": BuiltIn("setfit", ("torch", "sentence_transformers"), ", or set trainer: probe"),
    "causal": BuiltIn("causal", ("torch", "transformers")),
    "retriever": BuiltIn("retriever", ("torch", "sentence_transformers")),
    "command": BuiltIn("command"),
}
# Which of ``TRAINERS`` serve a task.
TASKS: Mapping[str, tuple[str, ...]] = {
    "classification": ("probe", "encoder", "setfit", "command"),
    "generation": ("causal", "command"),
    "retrieval": ("retriever",),
}


def is_deterministic(trainer: str, loss: str) -> bool:
    """Whether a training has no draws: the seed changes nothing. Of the user's own trainers and losses: False."""
    return trainer in TRAINERS and not TRAINERS[trainer].draws and loss in LOSSES


def find_trainer(name: str) -> Trainer:
    """The trainer of the table, or the user's own: one of the ``Trainer`` protocol, or a function of four arguments.

    Raises:
        ConfigError: there is none, or it is not trusted.
    """
    table: Mapping[str, Trainer] = TRAINERS
    found = resolve_name(name, table, _TRAINER)
    return FunctionTrainer(name, cast("Callable[..., object]", found)) if _FUNCTION.fits(found) else found


def check_fit(settings: TrainSettings, task: Task) -> None:
    """See that a training with these settings could begin: it looks at no rows and no files, and loads no model.

    Raises:
        ConfigError: an unknown trainer or loss, a trainer of another task, a setting that the trainer or the loss has
            no use for, or a loss that the task has no use for.
    """
    trainer = find_trainer(settings.trainer)
    if settings.trainer in TRAINERS and settings.trainer not in TASKS[task]:
        valid = " or ".join(TASKS[task])
        raise ConfigError(f"trainer {settings.trainer!r} is not for task {task!r}; set trainer: {valid}")
    refuse_idle(settings)
    build_loss(settings)
    if (settings.trainer in ("command", "setfit") or isinstance(trainer, FunctionTrainer)) and not (
        settings.loss in _STATIC or ":" in settings.loss
    ):
        raise ConfigError(
            f"loss {settings.loss!r} looks at the model as it trains, which trainer {settings.trainer!r} does not "
            f"show; set loss: {' or '.join(_STATIC)}"
        )
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
        synthetic_share=None,
    )  # fmt: skip


def _count_steps(settings: TrainSettings) -> int:
    own = DEFAULTS.get(settings.trainer)
    return settings.steps or (1 if own is None else own.steps)


class CheckingModel(Protocol):
    """A trained model that says how probable rows without labels are."""

    def score_rows(self, corpus: Corpus) -> RowScores:
        """What it says of rows that it was not trained on."""


@dataclass(frozen=True, slots=True)
class TunedChecker:
    """The checker where there are no labels: the trainer's own model, tuned for a few steps, checks other rows.

    A tuning is plain cross-entropy, of half the steps or as many as the passes take, without checkpoints.

    Args:
        settings: of the training.
        progress: called as each tuning goes on, with its steps.
    """

    settings: TrainSettings
    progress: OnStep | None = None

    def __call__(self, corpus: Corpus, scored: Corpus, *, weights: Floats, passes: int | None, seed: int) -> RowScores:
        """See ``RowChecker``."""
        loss = WeightedRows(weights)
        rows = corpus.keep(loss.kept)
        tuned = tuned_settings(self.settings, len(rows), passes, seed)
        train = find_trainer(self.settings.trainer)
        model = train(Training(corpus=rows, loss=loss, settings=tuned, progress=self.progress))
        return cast("CheckingModel", model).score_rows(scored)


def tuned_settings(settings: TrainSettings, rows: int, passes: int | None, seed: int) -> TrainSettings:
    """The settings of a tuning on so many rows; no ``passes`` takes half the steps of the training."""
    most = max(1, _count_steps(settings) // 2)
    size = settings.batch_size or DEFAULTS[settings.trainer].batch_size
    taken = most if passes is None else min(most, max(1, math.ceil(passes * rows / size)))
    return replace(
        settings, loss="ce", steps=taken, seed=seed, checkpoint_every=None, patience=None, evaluate_every=None
    )


def make_ready(
    corpus: Corpus, settings: TrainSettings, *, encode: Callable[[Sequence[str]], Vectors],
    checker: RowChecker | None = None, progress: OnStep | None = None,
) -> Training:  # fmt: skip
    """Prepare the loss, and drop the rows that do not count.

    The corpus's own weights of rows count on top of those of the loss; rows of weight 0 are dropped first.
    ``progress`` hears how checkers of labels are fitted, as often as there is one more.

    Raises:
        TrainingError: no rows that count, or one label only.
        ConfigError: the loss does not fit its settings or the task.
    """
    loss = build_loss(settings)
    corpus = corpus if (corpus.weights > 0).all() else corpus.keep(corpus.weights > 0)
    l2 = (settings.l2 or DEFAULT_L2) if settings.trainer == "probe" else CHECKING_L2
    rows = TrainingRows(
        corpus=corpus, synthetic=mark_synthetic(corpus), encode=encode, seed=settings.seed, l2=l2, checker=checker
    )
    prepared = prepare_loss(loss, settings.loss, rows if progress is None else replace(rows, progress=progress))
    kept = corpus if prepared.kept.all() else corpus.keep(prepared.kept)
    if len(kept) == 0:
        raise TrainingError("there are no rows to train on; give rows of at least two labels, with weights above 0")
    if corpus.task == "classification" and len(kept.labels) < 2:
        raise TrainingError(f"training rows of one label only ({kept.labels[0]!r}); give rows of at least two")
    weighed = weigh_rows(prepared, corpus.weights)
    return Training(corpus=kept, loss=weighed, settings=fill_loss_settings(settings, prepared))


class WholeProgress:
    """Passes on what checkers and the training tell, as one count: ``done`` never falls; it is ``all`` at the end only.

    How many tunings there will be is not known beforehand, so ``all`` grows with each.

    Args:
        progress: hears it.
        steps: of the training, as far as is known before it begins.
    """

    def __init__(self, progress: OnStep, steps: int) -> None:
        self._progress, self._steps, self._before = progress, steps, 0

    def tune(self, done: int, total: int, loss: float) -> None:
        """``done`` of ``total`` steps of one tuning."""
        self._progress(self._before + done, self._before + total + self._steps, loss)
        if done == total:
            self._before += total

    def train(self, done: int, total: int, loss: float) -> None:
        """``done`` of ``total`` steps of the training itself."""
        self._progress(self._before + done, self._before + total, loss)


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
    progress: OnStep | None = None,
    folder: Path | None = None,
) -> Trained:
    """Train on a corpus (a blend's, for example): for an exact number of optimiser steps, or a probe to its optimum.

    Args:
        corpus: training rows; their ``origin`` says which are synthetic.
        trainer: for classification ``probe`` (logistic regression on sentence vectors), ``encoder`` (fine-tunes a
            sentence encoder) or ``setfit`` (tunes one on pairs of rows, then fits a probe), for generation ``causal``
            (a language model), for retrieval ``retriever``, or ``module:Name``.
        loss: a name in ``LOSSES``, or ``module:Name``.
        steps: optimiser steps; None takes the trainer's default (encoder 30). The probe has none: it is fitted to its
            optimum.
        seed: of the training draw.
        encoder: what the probe's and the checkers' vectors come from (by default all-MiniLM-L6-v2); fine-tuning
            starts from ``settings.model`` instead.
        settings: trainer, loss, steps and seed and more in one value; give it instead of these.
        validation: real rows that are never trained on: for early stopping.
        progress: called as training goes on; the steps of checkers that a loss tunes or fits first count too.
        folder: where checkpoints go, every ``checkpoint_every`` steps (by default a tenth of all); None keeps none.

    Returns:
        A ``Predictor`` for classification, a ``TextWriter`` for generation, a ``Retriever`` for retrieval.

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

    whole = None if progress is None else WholeProgress(progress, _count_steps(chosen))
    tune = None if whole is None else whole.tune
    checker = TunedChecker(chosen, tune) if chosen.trainer in _CHECKING else None
    ready = make_ready(corpus, chosen, encode=encode, checker=checker, progress=tune)
    with nullcontext() if chosen.trainer in TRAINERS else name_failure("trainer", chosen.trainer):
        told = None if whole is None else whole.train
        return train(replace(ready, encoder=encoder, validation=validation, progress=told, folder=folder))


def load_predictor(folder: str | Path, *, encoder: Encoder | None = None) -> Trained:
    """Read back what ``save`` wrote, of whichever built-in trainer.

    Args:
        folder: the folder.
        encoder: the probe's encoder; by default the one of the name it was trained on.

    Raises:
        InputError: there is no predictor, it is broken, or ``encoder`` is another one.
    """
    description = read_description(Path(folder))
    if description.kind not in TRAINERS or description.kind == "command":
        raise InputError(f"{folder}: unknown kind {description.kind!r}; {nearest_name(description.kind, TRAINERS)}")
    return TRAINERS[description.kind].load(Path(folder), description, encoder)
