"""What changes weights: trainers, losses, predictors."""

from cuvee.train.losses import LOSSES, Loss, build_loss
from cuvee.train.model import TRAINERS, load_predictor, train_model
from cuvee.train.probe import train_on_vectors
from cuvee.train.settings import Predictor, Progress, Trainer, TrainSettings

__all__ = [
    "LOSSES",
    "TRAINERS",
    "Loss",
    "Predictor",
    "Progress",
    "TrainSettings",
    "Trainer",
    "build_loss",
    "load_predictor",
    "train_model",
    "train_on_vectors",
]
