"""Checkpoints of a training under way: one file, always whole. Imports torch."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from cuvee.errors import TrainingError

CHECKPOINT_FILE = "checkpoint.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """All that a training under way consists of; ``key`` says which training it is."""

    key: str
    step: int
    weights: list[torch.Tensor]
    optimizer: dict[str, object]
    scheduler: dict[str, object]
    random: list[torch.Tensor]
    losses: list[float]
    anchor: list[torch.Tensor]
    agreements: list[tuple[int, float]]
    steepest: float
    best: list[torch.Tensor]
    best_score: float
    best_step: int
    bad: int


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint.pt`` under a temporary name and rename it: a kill at any instant leaves a whole one.

    Raises:
        TrainingError: the disk refuses.
    """
    temporary = folder / f".{CHECKPOINT_FILE}.tmp-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            torch.save({f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(folder / CHECKPOINT_FILE)
    except OSError as exc:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise TrainingError(
            f"{folder}: the checkpoint cannot be written ({exc}); free some disk, or leave checkpoint_every out"
        ) from exc


def find_checkpoint(folder: Path, key: str) -> Checkpoint | None:
    """The checkpoint in ``folder``, or None where there is none. Only tensors and plain values are read, no code.

    Raises:
        TrainingError: it is broken, or of another training.
    """
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return None
    try:
        if not zipfile.is_zipfile(path):  # what torch writes is one
            raise zipfile.BadZipFile("cut short, or not written by torch")
        found = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, TypeError, zipfile.BadZipFile, pickle.UnpicklingError) as exc:
        raise TrainingError(f"{path}: broken ({exc}); delete it to train from the start") from exc
    if found.key != key:
        raise TrainingError(f"{path}: of a training on other rows or settings; delete it, or give another folder")
    return found


def copy_all(source: Sequence[torch.Tensor], target: Sequence[torch.nn.Parameter]) -> None:
    """Write values into parameters, wherever they are."""
    with torch.no_grad():
        for value, parameter in zip(source, target, strict=True):
            parameter.copy_(value)
