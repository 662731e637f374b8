"""Vectors embedded once for all draws of a comparison, or for all parts of a corpus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from cuvee.encoders import Encoder, WrappedEncoder
from cuvee.records import Vectors

_AT_A_TIME = 2_048  # what a cache has seen is kept when a run is stopped


class KnownVectors(WrappedEncoder):
    """An encoder that embeds each distinct text of ``texts`` once, up front, and keeps the vectors in memory.

    Args:
        encoder: does the work; also for texts that are not among ``texts``.
        texts: to embed now. They take 4 d bytes each, d being the length of a vector.
    """

    def __init__(self, encoder: Encoder, texts: Iterable[str]) -> None:
        super().__init__(encoder)
        self._row = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        distinct = list(self._row)
        parts = [encoder.encode(distinct[start : start + _AT_A_TIME]) for start in range(0, len(distinct), _AT_A_TIME)]
        self._vectors = np.concatenate(parts) if parts else np.zeros((0, encoder.dim), dtype=np.float32)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""
        if all(text in self._row for text in texts):
            rows = np.array([self._row[text] for text in texts], dtype=np.int64)
            out: Vectors = self._vectors[rows]
            return out
        return self._encoder.encode(texts)
