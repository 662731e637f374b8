"""An encoder whose texts are embedded by the workers of a crew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cuvee.crew import Crew
from cuvee.encoders.protocol import Encoder, WrappedEncoder
from cuvee.encoders.storage import empty_rows
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

    at_once = 32 * PART

    def __init__(self, encoder: Encoder, work: Callable[[Sequence[str]], Vectors], crew: Crew) -> None:
        super().__init__(encoder)
        self._work, self._crew = work, crew

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""
        out = empty_rows(len(texts), self.dim)
        parts = [texts[start : start + PART] for start in range(0, len(texts), PART)]
        for number, vectors in enumerate(self.encode_parts(parts)):
            out[number * PART : number * PART + len(vectors)] = vectors
        return out

    def encode_parts(self, parts: Sequence[Sequence[str]]) -> Iterator[Vectors]:
        """The vectors of each part, in their order, as they come."""
        return self._crew.map(self._work, [list(part) for part in parts])
