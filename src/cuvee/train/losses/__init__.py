"""Losses: one number a row in, one slope a row out; the same for every trainer."""

from cuvee.train.losses.protocol import Loss, Phase, PreparedLoss, TrainingRows
from cuvee.train.losses.table import LOSSES, build_loss, fill_loss_settings

__all__ = [
    "LOSSES",
    "Loss",
    "Phase",
    "PreparedLoss",
    "TrainingRows",
    "build_loss",
    "fill_loss_settings",
]
