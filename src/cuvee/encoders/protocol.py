"""What an encoder is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from cuvee.records import Vectors


@runtime_checkable
class Encoder(Protocol):
    """Maps texts to unit vectors. ``hash`` identifies the weights."""

    @property
    def name(self) -> str:
        """The name users know it by."""

    @property
    def hash(self) -> str:
        """Changes whenever the vectors would."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""


def unit_rows_or_zero(vectors: Vectors) -> Vectors:
    """Rows of length 1; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    out: Vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return out
