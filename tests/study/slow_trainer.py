"""Trainers as a user writes one: probes that take their time, or misbehave, by environment variables."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from cuvee.errors import TrainingError
from cuvee.train.probe import train_probe


def train(corpus, loss, settings, *, encoder, validation, progress, folder):
    """A probe; notes every beginning in $TRAINER_LOG."""
    with Path(os.environ["TRAINER_LOG"]).open("a", encoding="utf-8") as log:
        log.write(f"{os.getpid()} {settings.seed} {corpus.fingerprint}\n")
    time.sleep(float(os.environ.get("TRAINER_SLEEP", "0")))
    return train_probe(corpus, loss, settings, encoder=encoder, validation=validation, progress=progress, folder=folder)


def plain(corpus, loss, settings, **others):
    """A probe by another name, which has steps."""
    return train_probe(corpus, loss, settings, **others)


def die_on_synthetic(corpus, loss, settings, **others):
    """Killed by the kernel on every blend without a real row."""
    if "real" not in corpus.origins:
        os.kill(os.getpid(), signal.SIGKILL)
    return train_probe(corpus, loss, settings, **others)


def hang_on_synthetic(corpus, loss, settings, **others):
    """Hangs on every blend without a real row."""
    if "real" not in corpus.origins:
        time.sleep(600)
    return train_probe(corpus, loss, settings, **others)


def fail_on_level_d(corpus, loss, settings, **others):
    """Cannot be trained on rows of the pool whose texts begin with d."""
    if any(text.startswith("d ") for text in corpus.texts):
        raise TrainingError("these rows cannot be trained on")
    return train_probe(corpus, loss, settings, **others)


def lucky(corpus, loss, settings, **others):
    """A probe on texts in random order, so every training learns something else."""
    texts = list(np.random.default_rng(settings.seed).permutation(corpus.texts))
    return train_probe(corpus.with_columns(text=texts), loss, settings, **others)
