"""Trainers as a user writes them, that fail on some blends."""

from cuvee.train.probe import train_probe


def on_blends(corpus, loss, settings, **others):
    """Has a bug that only synthetic rows show."""
    if "synthetic" in corpus.origins:
        raise KeyError("boom")
    return train_probe(corpus, loss, settings, **others)


def on_some(corpus, loss, settings, **others):
    """Fails on every blend of one pool."""
    if any(text.startswith("high") for text in corpus.texts):
        raise KeyError("boom")
    return train_probe(corpus, loss, settings, **others)
