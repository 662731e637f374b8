"""Losses: one number a row in, one slope a row out; the same for every trainer."""

from cuvee.train.losses.protocol import Judge, Judgement, Loss, Phase, PreparedLoss, TrainingRows
from cuvee.train.losses.rows import WeightedRows
from cuvee.train.losses.table import LOSSES, build_loss, fill_loss_settings

__all__ = [
    "LOSSES",
    "Judge",
    "Judgement",
    "Loss",
    "Phase",
    "PreparedLoss",
    "TrainingRows",
    "WeightedRows",
    "build_loss",
    "fill_loss_settings",
]
