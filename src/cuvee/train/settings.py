"""What a training run is told, and what every trainer and predictor can do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args, runtime_checkable

import numpy as np

from cuvee.corpus import Corpus
from cuvee.encoders import Encoder
from cuvee.errors import ConfigError, InputError
from cuvee.inputs import first_line, show_value, whole_file
from cuvee.records import Classifier, Ranker, Writer
from cuvee.train.weighting import OnStep, PreparedLoss

PREDICTOR_FILE = "predictor.json"
_READABLE = "give a folder that cuvee train wrote; what a trainer of your own has kept is for your own code"
FORMAT = 2
T = TypeVar("T")


Precision = Literal["auto", "float32", "bfloat16"]
_COUNTS = (
    "steps", "batch_size", "max_length", "lora_rank", "accumulate", "checkpoint_every", "patience", "evaluate_every",
    "hard_negatives",
)  # fmt: skip
_ABOVE_ZERO = ("learning_rate", "l2", "head_learning_rate", "lora_alpha", "temperature", "gamma", "clip")
_RULES: Sequence[tuple[Sequence[str], Callable[[Any], bool], str]] = (
    (_COUNTS, lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 1, "a whole number of at least 1"),
    (_ABOVE_ZERO, lambda v: bool(np.isfinite(v) and v > 0), "a finite number above 0"),
    (("alpha", "beta", "pull"), lambda v: bool(np.isfinite(v) and v >= 0), "a finite number of at least 0"),
    (("q",), lambda v: 0 < v <= 1, "above 0, at most 1"),
    (("synthetic_share",), lambda v: 0 < v < 1, "above 0 and below 1"),
)
_OF_FINE_TUNING = (
    "head_learning_rate", "max_length", "model", "device", "lora_rank", "lora_alpha", "accumulate", "checkpoint_every",
    "patience", "evaluate_every", "precision", "gradient_checkpointing", "packing", "temperature", "frozen_prompts",
    "hard_negatives",
)  # fmt: skip
_SEARCHING = ("patience", "evaluate_every", "synthetic_share")
# settings that each trainer has no use for: given, they are refused and not ignored
_IDLE: Mapping[str, Sequence[str]] = {
    "probe": ("steps", "batch_size", "learning_rate", "synthetic_share", *_OF_FINE_TUNING),
    "encoder": ("packing", "temperature", "l2", "frozen_prompts", "hard_negatives"),
    "setfit": ("head_learning_rate", "packing", "temperature", "frozen_prompts", "hard_negatives", *_SEARCHING),
    "causal": ("head_learning_rate", "temperature", "l2", "hard_negatives"),
    "retriever": ("head_learning_rate", "packing", "accumulate", "l2", "frozen_prompts"),
    "command": ("batch_size", "learning_rate", "l2", "synthetic_share", *_OF_FINE_TUNING),
}
_REMEDIES = {
    "probe": "it is fitted to its optimum; leave it out, or set trainer: {other}",
    "command": "the program takes its settings from train.command.settings",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program of the user's own that trains, for the trainer ``command``.

    Attributes:
        run: its line, in which ``{folder}`` stands for the trial's folder; None where it is run elsewhere.
        cwd: the folder that it is run in.
        timeout_s: seconds that it may take.
        memory_gb: resident memory (10^9 bytes) of it and all that it starts.
        settings: of the user's own, handed on as they are.
    """

    run: str | None = None
    cwd: str = "."
    timeout_s: float | None = None
    memory_gb: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How to train. None leaves a value to the trainer or the loss; the predictor names what they took.

    A trainer refuses a setting of another trainer, and a loss one of another loss.

    Args:
        trainer, loss: names in ``TRAINERS`` and ``LOSSES``, or ``module:Name``.
        steps: optimiser steps of ``batch_size`` rows; none of the probe.
        seed: of the training draw.
        batch_size, learning_rate: of the optimiser.
        head_learning_rate: of a fresh linear head.
        l2: strength of the probe's penalty (of SetFit's head too), 1 / C of scikit-learn's ``LogisticRegression``.
        max_length: tokens of a text that are read; of prompt and completion together.
        model: a folder, or a name on the hub.
        device: auto, cpu, cuda or mps.
        source_weight: weight of synthetic rows; None chooses it by cross-validation (loss ``source_weight``).
        gamma: exponent of the detached weight (``dimp``); probability above which rows give no gradient (``tce``).
        clip: largest weight of a synthetic row (``imp``, ``dimp``).
        q: 0 is cross-entropy, 1 the mean absolute error (``gce``).
        alpha, beta: parts of the cross-entropy and of the reverse one (``sce``).
        pull: strength of the pull towards the synthetic phase's end (``curriculum``).
        synthetic_share: fraction of the steps that the synthetic phase takes (``curriculum``); none of the probe.
        lora_rank, lora_alpha: of low-rank adapters; None trains all parameters.
        accumulate: pieces that a step's batch is computed in, to save memory.
        checkpoint_every: steps between checkpoints.
        patience: evaluations on validation without a gain, after which training stops.
        evaluate_every: steps between evaluations.
        precision: of the arithmetic.
        gradient_checkpointing: trade time for memory.
        packing: several sequences in one row of a batch.
        frozen_prompts: the model as it was reads the prompts, once; adapters change what follows (``causal``).
        temperature: of the retriever's softmax.
        hard_negatives: wrong passages near to its query that each row of the ``retriever`` brings.
        program: that trains, for trainer ``command``.

    Raises:
        ValueError: a number out of its range.
    """

    trainer: str = "probe"
    loss: str = "ce"
    steps: int | None = None
    seed: int = 0
    batch_size: int | None = None
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    l2: float | None = None
    max_length: int | None = None
    model: str | None = None
    device: str | None = None
    source_weight: float | None = None
    gamma: float | None = None
    clip: float | None = None
    q: float | None = None
    alpha: float | None = None
    beta: float | None = None
    pull: float | None = None
    synthetic_share: float | None = None
    lora_rank: int | None = None
    lora_alpha: float | None = None
    accumulate: int | None = None
    checkpoint_every: int | None = None
    patience: int | None = None
    evaluate_every: int | None = None
    precision: Precision | None = None
    gradient_checkpointing: bool | None = None
    packing: bool | None = None
    frozen_prompts: bool | None = None
    temperature: float | None = None
    hard_negatives: int | None = None
    program: Program | None = None

    def __post_init__(self) -> None:
        for names, fits, wanted in _RULES:
            for name in names:
                if (value := getattr(self, name)) is not None and not fits(value):
                    raise ValueError(f"{name} is {value!r}; it must be {wanted}")
        if self.precision is not None and self.precision not in get_args(Precision):
            raise ValueError(f"precision is {self.precision!r}; valid: {', '.join(get_args(Precision))}")


def refuse_idle(settings: TrainSettings) -> None:
    """See that no setting is given that the trainer has no use for, or that lacks the setting it goes with.

    A trainer of the user's own takes what it likes.

    Raises:
        ConfigError: one is, with its name and value.
    """
    for name in _IDLE.get(settings.trainer, ()):
        if (value := getattr(settings, name)) is not None:
            other = next(trainer for trainer, idle in _IDLE.items() if name not in idle)
            remedy = _REMEDIES.get(settings.trainer, "leave it out").format(other=other)
            raise ConfigError(f"{name} is {value!r}, but trainer {settings.trainer!r} has no {name}; {remedy}")
    if settings.trainer not in _IDLE:
        return
    if settings.evaluate_every is not None and settings.patience is None:
        raise ConfigError(f"evaluate_every is {settings.evaluate_every}, but it is for patience alone; set patience")
    if settings.lora_alpha is not None and settings.lora_rank is None:
        raise ConfigError(f"lora_alpha is {settings.lora_alpha:g}, but there are no adapters; set lora_rank")
    if settings.frozen_prompts:
        beside = next((name for name in ("packing", "gradient_checkpointing") if getattr(settings, name)), None)
        if settings.lora_rank is None or beside is not None:
            remedy = f"leave {beside} out" if beside else "set lora_rank"
            raise ConfigError(f"frozen_prompts trains adapters after prompts that are read once; {remedy}")
    if settings.trainer == "retriever" and settings.batch_size == 1:
        raise ConfigError("batch_size is 1, but negatives are the other rows of a batch; give at least 2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a trainer takes where nothing is said; adapters begin at no change and stand a rate ten times as high."""

    steps: int
    batch_size: int
    learning_rate: float
    lora_learning_rate: float | None = None


DEFAULTS: Mapping[str, Defaults] = {
    "encoder": Defaults(steps=30, batch_size=16, learning_rate=1e-4, lora_learning_rate=1e-3),
    "setfit": Defaults(steps=30, batch_size=16, learning_rate=1e-4, lora_learning_rate=1e-3),
    "causal": Defaults(steps=60, batch_size=8, learning_rate=5e-5, lora_learning_rate=5e-4),
    "retriever": Defaults(steps=30, batch_size=16, learning_rate=5e-5, lora_learning_rate=5e-4),
}


class TrainedModel(Protocol):
    """A model that knows how it was trained, and can be kept."""

    @property
    def settings(self) -> TrainSettings:
        """How it was trained, nothing left open."""

    def save(self, folder: Path) -> None:
        """Write everything ``load_predictor`` needs into ``folder``."""


@runtime_checkable
class Predictor(Classifier, TrainedModel, Protocol):
    """A trained model: texts in, labels out."""

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most probable label of each text."""


@runtime_checkable
class TextWriter(Writer, TrainedModel, Protocol):
    """A trained language model: prompts in, completions out."""


@runtime_checkable
class Retriever(Ranker, TrainedModel, Protocol):
    """A trained retriever: queries and passages in, vectors out."""


# What a trainer makes, by task: classification, generation, retrieval.
Trained = Predictor | TextWriter | Retriever


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What a trainer is given.

    Attributes:
        corpus: rows that all count, in the order of the loss's weights; a classifier's have at least two labels.
        loss: prepared for them.
        settings: how to train, with what the loss took in place of None.
        encoder: sentence vectors, for trainers that stand on them.
        validation: real rows that are never trained on.
        progress: called as training goes on.
        folder: where checkpoints go; None keeps none.
    """

    corpus: Corpus
    loss: PreparedLoss
    settings: TrainSettings
    encoder: Encoder | None = None
    validation: Corpus | None = None
    progress: OnStep | None = None
    folder: Path | None = None


# Makes what the task asks for, trained for exactly the steps asked for unless ``patience`` ends it earlier. It raises
# TrainingError where training failed, and ConfigError for a setting that it has no use for.
Trainer = Callable[[Training], Trained]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The content of ``predictor.json``: which trainer made it, and what is needed to use it again."""

    format: int = FORMAT
    kind: str
    labels: tuple[str, ...]
    settings: TrainSettings
    extra: Mapping[str, str]

    def tell(self, folder: Path, key: str) -> str:
        """A value of ``extra``.

        Raises:
            InputError: there is none.
        """
        if key not in self.extra:
            raise InputError(f"{folder / PREDICTOR_FILE}: extra.{key} is missing; train again")
        return self.extra[key]


def write_description(folder: Path, description: Description) -> None:
    """Write ``predictor.json``, last of all files, so that a half-written folder is not taken for a predictor."""
    with whole_file(folder / PREDICTOR_FILE) as temporary:
        temporary.write_text(json.dumps(asdict(description), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_description(folder: Path) -> Description:
    """What ``write_description`` wrote.

    Raises:
        InputError: there is none, or it is broken or of another format.
    """
    from pydantic import TypeAdapter

    path = folder / PREDICTOR_FILE
    try:
        found = TypeAdapter(Description).validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as exc:
        is_known = (folder / "config.json").is_file()  # of transformers, or a sentence encoder
        how = (
            f"; load it with from_pretrained({str(folder)!r}), or train it on: --set model={folder}" if is_known else ""
        )
        raise InputError(f"{folder}: no {PREDICTOR_FILE} here; {_READABLE}{how}") from exc
    except (OSError, ValueError) as exc:
        raise InputError(f"{path}: broken ({_first_fault(exc)}); train again") from exc
    if found.format != FORMAT:
        raise InputError(f"{path}: format {found.format} is not {FORMAT}; use the version of Cuvée that wrote it")
    return found


def _first_fault(exc: OSError | ValueError) -> str:
    from pydantic import ValidationError

    if not isinstance(exc, ValidationError):
        return first_line(exc)
    fault = exc.errors(include_url=False, include_context=False)[0]
    place = ".".join(map(str, fault["loc"]))
    return f"{place + ': ' if place else ''}{fault['msg']}, got {show_value(fault['input'])}"


def given(value: T | None) -> T:
    """A setting that ``fill_settings`` has filled in."""
    assert value is not None
    return value


def fill_settings(trainer: str, settings: TrainSettings, **defaults: str | float) -> TrainSettings:
    """The settings with nothing left open that the trainer needs to know.

    Args:
        trainer: a name in ``DEFAULTS``.
        settings: as the user gave them.
        defaults: of settings that not every trainer has.

    Raises:
        ConfigError: a setting is given that the trainer has no use for.
    """
    refuse_idle(settings)
    own = DEFAULTS[trainer]
    rate = own.lora_learning_rate if settings.lora_rank else own.learning_rate
    wanted = {"steps": own.steps, "batch_size": own.batch_size, "learning_rate": rate, **defaults}
    filled: dict[str, Any] = {name: getattr(settings, name) or value for name, value in wanted.items()}
    return replace(settings, **filled)
