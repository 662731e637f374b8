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


class WrappedEncoder:
    """What an encoder around another one says of itself: the other one's name, hash and dimension.

    Args:
        encoder: the other one.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @property
    def name(self) -> str:
        """The wrapped encoder's name."""
        return self._encoder.name

    @property
    def at_once(self) -> int:
        """Texts to embed in one call, where what is embedded shall be kept as it comes."""
        return getattr(self._encoder, "at_once", 2_048)

    @property
    def hash(self) -> str:
        """The wrapped encoder's hash."""
        return self._encoder.hash

    @property
    def dim(self) -> int:
        """The wrapped encoder's dimension."""
        return self._encoder.dim


def unit_rows_or_zero(vectors: Vectors) -> Vectors:
    """Rows of length 1; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    out: Vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return out
