"""Training a probe on vectors that are already there, for the benchmarks beside it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from cuvee.corpus import Corpus
from cuvee.probe import ProbeModel
from cuvee.train import TrainSettings, train_model


def train_on_vectors(
    vectors: np.ndarray, targets: Sequence[str], *, synthetic: np.ndarray, settings: TrainSettings
) -> ProbeModel:
    """A probe of ``vectors``, shape (n, d); every row is a group of its own, ``synthetic`` marks synthetic ones."""
    # a text that is its row's number leads back to the row's vector
    encoder = SimpleNamespace(
        name="given", hash="given", dim=vectors.shape[1], encode=lambda texts: vectors[[int(text) for text in texts]]
    )
    origins = np.where(synthetic, "synthetic", "real").tolist()
    rows = [{"text": str(i), "target": t, "origin": o} for i, (t, o) in enumerate(zip(targets, origins, strict=True))]
    return train_model(Corpus.from_rows(rows), encoder=encoder, settings=settings).model
