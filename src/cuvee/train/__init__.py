"""What changes weights: trainers, losses, and what they make."""

from cuvee.train.losses import LOSSES
from cuvee.train.model import (
    TASKS,
    TRAINERS,
    check_fit,
    find_trainer,
    is_deterministic,
    load_predictor,
    needs_real_rows,
    train_model,
    without_loss,
)
from cuvee.train.settings import Predictor, Program, Trained, Training, TrainSettings
