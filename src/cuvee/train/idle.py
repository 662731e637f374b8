"""Which settings each trainer has no use for: given, they are refused and not ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cuvee.errors import ConfigError
from cuvee.train.settings import TrainSettings

IDLE: Mapping[str, Sequence[str]] = {
    "probe": (
        "head_learning_rate",
        "max_length",
        "model",
        "device",
        "lora_rank",
        "lora_alpha",
        "accumulate",
        "checkpoint_every",
        "patience",
        "evaluate_every",
        "precision",
        "gradient_checkpointing",
        "packing",
        "temperature",
    ),
    "encoder": ("packing", "temperature"),
    "causal": ("head_learning_rate", "temperature"),
    "retriever": ("head_learning_rate", "packing", "accumulate"),
}
_REMEDIES = {"probe": "leave it out, or set trainer: encoder"}


def refuse_idle(settings: TrainSettings) -> None:
    """See that no setting is given that the trainer has no use for, or that lacks the setting it goes with.

    A trainer of the user's own takes what it likes.

    Raises:
        ConfigError: one is, with its name and value.
    """
    for name in IDLE.get(settings.trainer, ()):
        if (value := getattr(settings, name)) is not None:
            remedy = _REMEDIES.get(settings.trainer, "leave it out")
            raise ConfigError(f"{name} is {value!r}, but trainer {settings.trainer!r} has no {name}; {remedy}")
    if settings.trainer not in IDLE:
        return
    if settings.evaluate_every is not None and settings.patience is None:
        raise ConfigError(f"evaluate_every is {settings.evaluate_every}, but it is for patience alone; set patience")
    if settings.lora_alpha is not None and settings.lora_rank is None:
        raise ConfigError(f"lora_alpha is {settings.lora_alpha:g}, but there are no adapters; set lora_rank")
    if settings.trainer == "retriever" and settings.batch_size == 1:
        raise ConfigError("batch_size is 1, but negatives are the other rows of a batch; give at least 2")
