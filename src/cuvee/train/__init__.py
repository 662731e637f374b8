"""What changes weights: trainers, losses, and what they make."""

from cuvee.train.losses import LOSSES, Loss, Phase, PreparedLoss, TrainingRows, build_loss
from cuvee.train.model import LOADERS, TASKS, TRAINERS, load_predictor, train_model
from cuvee.train.probe import train_on_vectors
from cuvee.train.settings import Predictor, Progress, Ranker, TextWriter, Trained, Trainer, TrainSettings

__all__ = [
    "LOADERS",
    "LOSSES",
    "TASKS",
    "TRAINERS",
    "Loss",
    "Phase",
    "Predictor",
    "PreparedLoss",
    "Progress",
    "Ranker",
    "TextWriter",
    "TrainSettings",
    "Trained",
    "Trainer",
    "TrainingRows",
    "build_loss",
    "load_predictor",
    "train_model",
    "train_on_vectors",
]
