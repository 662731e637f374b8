"""An encoder without a model."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from cuvee.encoders.protocol import unit_rows_or_zero
from cuvee.records import Vectors


class HashingEncoder:
    """Character 3- to 5-grams within words, hashed (CRC-32, signed) to 512 dimensions, square-root weighted."""

    name = "hashing"
    hash = "hashing-v1-512"
    dim = 512

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), 512)."""
        out = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.casefold().split():
                padded = f" {word} "
                for size in (3, 4, 5):
                    for start in range(max(1, len(padded) - size + 1)):
                        code = zlib.crc32(padded[start : start + size].encode("utf-8", "surrogatepass"))
                        out[row, code % self.dim] += 1.0 if code & 0x80000000 else -1.0
        out = np.sign(out) * np.sqrt(np.abs(out))
        return unit_rows_or_zero(out)
