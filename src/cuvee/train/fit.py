"""Whether trainer, loss and settings go together: asked before anything is spent."""

from __future__ import annotations

from dataclasses import replace

from cuvee.corpus import Task
from cuvee.errors import ConfigError
from cuvee.train.idle import refuse_idle
from cuvee.train.losses import build_loss
from cuvee.train.settings import TrainSettings
from cuvee.train.trainers import TASKS, TRAINERS, find_trainer

_TWO_LAWS = ("imp", "dimp")
_NEEDING_REAL = (*_TWO_LAWS, "agreement_filter", "checker_alone", "online_source_weight")


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
