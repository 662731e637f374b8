"""Trainers as a user writes them, that fail on some blends."""

from cuvee.train.probe import train_probe


def on_blends(training):
    """Has a bug that only synthetic rows show."""
    if "synthetic" in training.corpus.origins:
        raise KeyError("boom")
    return train_probe(training)


def on_some(training):
    """Fails on every blend of one pool."""
    if any(text.startswith("high") for text in training.corpus.texts):
        raise KeyError("boom")
    return train_probe(training)
