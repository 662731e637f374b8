"""What changes weights: trainers, losses, and what they make."""

from cuvee.train.fit import check_fit, needs_real_rows, without_loss
from cuvee.train.losses import LOSSES, Judge, Judgement, Loss, Phase, PreparedLoss, TrainingRows, build_loss
from cuvee.train.model import load_predictor, train_model
from cuvee.train.probe import train_on_vectors
from cuvee.train.settings import Predictor, Progress, Ranker, TextWriter, Trained, Trainer, TrainSettings
from cuvee.train.trainers import LOADERS, TASKS, TRAINERS, find_trainer

__all__ = [
    "LOADERS",
    "LOSSES",
    "TASKS",
    "TRAINERS",
    "Judge",
    "Judgement",
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
    "check_fit",
    "find_trainer",
    "load_predictor",
    "needs_real_rows",
    "train_model",
    "train_on_vectors",
    "without_loss",
]
