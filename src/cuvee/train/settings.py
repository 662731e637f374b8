"""What a training run is told, and what every trainer and predictor can do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.encoders import Encoder
from cuvee.errors import InputError

Progress = Callable[[int, int, float], None]
"""Called with (steps done, all steps, loss so far)."""
PREDICTOR_FILE = "predictor.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How to train. None leaves a value to the trainer, whose predictor names what it took.

    ``steps`` counts optimiser steps of ``batch_size`` rows. ``head_learning_rate``, ``max_length`` (tokens),
    ``model`` (a folder, or a name on the hub) and ``device`` (auto, cpu, cuda, mps) are for fine-tuning.
    ``source_weight`` is the weight of synthetic rows under the loss of that name.
    """

    trainer: str = "probe"
    loss: str = "ce"
    steps: int | None = None
    seed: int = 0
    batch_size: int | None = None
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    max_length: int | None = None
    model: str | None = None
    device: str | None = None
    source_weight: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "max_length"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")
        for name in ("learning_rate", "head_learning_rate"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value!r}; it must be a finite number above 0")


@runtime_checkable
class Predictor(Protocol):
    """A trained model: texts in, labels out."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels it knows, in the order of its probabilities."""

    @property
    def settings(self) -> TrainSettings:
        """How it was trained, nothing left open."""

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability of each label, shape (len(texts), k); rows sum to 1."""

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most probable label of each text."""

    def save(self, folder: Path) -> None:
        """Write everything ``load_predictor`` needs into ``folder``."""


class Trainer(Protocol):
    """Trains on rows that all count: weights are positive, and there are at least two labels."""

    def __call__(
        self,
        corpus: Corpus,
        weights: NDArray[np.float64],
        settings: TrainSettings,
        *,
        encoder: Encoder | None,
        progress: Progress | None,
    ) -> Predictor:
        """A predictor trained for exactly the steps asked for.

        Raises:
            TrainingError: training failed. ConfigError: a setting it has no use for.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The content of ``predictor.json``: which trainer made it, and what is needed to use it again."""

    format: int = _FORMAT
    kind: str
    labels: tuple[str, ...]
    settings: TrainSettings
    extra: Mapping[str, str]


def write_description(folder: Path, description: Description) -> None:
    """Write ``predictor.json``, last of all files, so that a half-written folder is not taken for a predictor."""
    temporary = folder / f".{PREDICTOR_FILE}.tmp-{os.getpid()}"
    temporary.write_text(json.dumps(asdict(description), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(folder / PREDICTOR_FILE)


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
        raise InputError(f"{folder}: no {PREDICTOR_FILE} here; give a folder that cuvee train wrote") from exc
    except (OSError, ValueError) as exc:
        raise InputError(f"{path}: broken ({str(exc).splitlines()[0]}); train again") from exc
    if found.format != _FORMAT:
        raise InputError(f"{path}: format {found.format} is not {_FORMAT}; use the version of Cuvée that wrote it")
    return found
