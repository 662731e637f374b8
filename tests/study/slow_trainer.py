"""Trainers as a user writes one: probes that take their time, or misbehave, by environment variables."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from cuvee.errors import TrainingError
from cuvee.train.probe import train_probe


def train(training):
    """A probe; notes every beginning in $TRAINER_LOG."""
    with Path(os.environ["TRAINER_LOG"]).open("a", encoding="utf-8") as log:
        log.write(f"{os.getpid()} {training.settings.seed} {training.corpus.fingerprint}\n")
    time.sleep(float(os.environ.get("TRAINER_SLEEP", "0")))
    return train_probe(training)


def plain(training):
    """A probe by another name, which has steps."""
    return train_probe(training)


def die_on_synthetic(training):
    """Killed by the kernel on every blend without a real row."""
    if "real" not in training.corpus.origins:
        os.kill(os.getpid(), signal.SIGKILL)
    return train_probe(training)


def hang_on_synthetic(training):
    """Hangs on every blend without a real row."""
    if "real" not in training.corpus.origins:
        time.sleep(600)
    return train_probe(training)


def fail_on_level_d(training):
    """Cannot be trained on rows of the pool whose texts begin with d."""
    if any(text.startswith("d ") for text in training.corpus.texts):
        raise TrainingError("these rows cannot be trained on")
    return train_probe(training)


def lucky(training):
    """A probe on texts in random order, so every training learns something else."""
    texts = list(np.random.default_rng(training.settings.seed).permutation(training.corpus.texts))
    return train_probe(replace(training, corpus=training.corpus.with_columns(text=texts)))
