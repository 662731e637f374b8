"""Which trainers there are, what they serve, and what reads back what they made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cuvee.encoders import Encoder
from cuvee.registry import Kind, resolve_name
from cuvee.train import causal, encoder, probe, retriever
from cuvee.train.causal import load_causal, train_causal
from cuvee.train.encoder import load_finetuned, train_encoder
from cuvee.train.probe import load_probe, train_probe
from cuvee.train.retriever import load_retriever, train_retriever
from cuvee.train.settings import Description, Trained, Trainer

TRAINERS: Mapping[str, Trainer] = {
    "probe": train_probe,
    "encoder": train_encoder,
    "causal": train_causal,
    "retriever": train_retriever,
}
_TRAINER = Kind(
    name="trainer", takes=("corpus", "loss", "settings", "*", "encoder", "validation", "progress", "folder")
)
DEFAULT_STEPS: Mapping[str, int] = {
    "probe": probe.STEPS,
    "encoder": encoder.STEPS,
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
    "probe": load_probe,
    "encoder": load_finetuned,
    "causal": load_causal,
    "retriever": load_retriever,
}


def find_trainer(name: str) -> Trainer:
    """The trainer of the table, or the user's own.

    Raises:
        ConfigError: there is none, or it is not trusted.
    """
    return resolve_name(name, TRAINERS, _TRAINER)
