"""What trained models can do: what training makes, and evaluation asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cuvee.records.measurement import Vectors


@runtime_checkable
class Classifier(Protocol):
    """A predictor of labels."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels it knows, in the order of its probabilities."""

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Probability of each label, shape (len(texts), k); rows sum to 1."""


@runtime_checkable
class Writer(Protocol):
    """A predictor of completions."""

    def write(self, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int) -> list[str]:
        """A completion of each prompt, of at most ``max_tokens`` tokens; temperature 0 takes the likeliest token."""


@runtime_checkable
class Reader(Protocol):
    """A predictor that knows how probable a completion is, which not every writer does."""

    def log_likelihood(self, prompts: Sequence[str], completions: Sequence[str]) -> NDArray[np.float64]:
        """Of each completion: the sum of its tokens' log probabilities (nats) and their number, shape (n, 2)."""


@runtime_checkable
class Scored(Protocol):
    """A predictor that says how good it is on each input, and not what it predicts."""

    def score_inputs(self, inputs: Sequence[str]) -> NDArray[np.float64]:
        """A score of each text or prompt from 0 to 1, shape (n,)."""


@runtime_checkable
class Ranker(Protocol):
    """A predictor of passages: a passage's score for a query is the dot product of their vectors."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), d)."""

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), d)."""
