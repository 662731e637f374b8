"""A trained probe: a linear map and a softmax."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.records import Vectors
from cuvee.similarity import single_blas_thread


@dataclass(frozen=True, slots=True)
class ProbeModel:
    """A trained probe: ``softmax(vectors @ weights + bias)``.

    ``weights`` has shape (d, k) and ``bias`` shape (k,), float32, columns in the order of ``labels``.
    """

    labels: tuple[str, ...]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    @single_blas_thread()
    def log_proba(self, vectors: Vectors) -> NDArray[np.float64]:
        """Log probability of each label, shape (n, k).

        Raises:
            ValueError: ``vectors`` has another width than the probe was trained on.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.weights.shape[0]:
            raise ValueError(f"vectors has shape {vectors.shape!r}; the probe takes (n, {self.weights.shape[0]})")
        logits = (vectors @ self.weights + self.bias).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True, initial=-np.inf)
        out: NDArray[np.float64] = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return out

    def proba(self, vectors: Vectors) -> NDArray[np.float64]:
        """Probability of each label, shape (n, k); rows sum to 1."""
        out: NDArray[np.float64] = np.exp(self.log_proba(vectors))
        return out

    def predict(self, vectors: Vectors) -> list[str]:
        """The most probable label of each row; ties go to the earlier label."""
        return [self.labels[i] for i in self.log_proba(vectors).argmax(axis=1)]
