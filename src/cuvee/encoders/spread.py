"""An encoder whose texts are embedded by the workers of a crew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cuvee.crew import Crew
from cuvee.encoders.protocol import Encoder, WrappedEncoder
from cuvee.records import Vectors

PART = 2_048
"""Texts of a part: what is embedded together has the same last bits wherever that is done."""


class SpreadEncoder(WrappedEncoder):
    """Embeds texts in parts, each part by a worker.

    Args:
        encoder: the same one here, which is asked for its name, hash and dimension.
        work: embeds one part; carried to the workers.
        crew: the workers.
    """

    def __init__(self, encoder: Encoder, work: Callable[[Sequence[str]], Vectors], crew: Crew) -> None:
        super().__init__(encoder)
        self._work, self._crew = work, crew

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""
        parts = self.encode_parts([texts[start : start + PART] for start in range(0, len(texts), PART)])
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), dtype=np.float32)

    def encode_parts(self, parts: Sequence[Sequence[str]]) -> list[Vectors]:
        """The vectors of each part, in their order."""
        return list(self._crew.map(self._work, [list(part) for part in parts]))
