"""An encoder without a model."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cuvee.encoders.protocol import unit_rows_or_zero
from cuvee.encoders.storage import empty_rows
from cuvee.records import Vectors

_AT_A_TIME = 4_096  # texts whose n-grams are counted together


class HashingEncoder:
    """Character 3- to 5-grams within words, hashed (CRC-32, signed) to 512 dimensions, square-root weighted."""

    name = "hashing"
    hash = "hashing-v1-512"
    dim = 512

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), 512)."""
        out = empty_rows(len(texts), self.dim)
        for start in range(0, len(texts), _AT_A_TIME):
            sums = _count_grams(texts[start : start + _AT_A_TIME], self.dim)
            out[start : start + _AT_A_TIME] = unit_rows_or_zero(np.sign(sums) * np.sqrt(np.abs(sums)))
        return out


def _count_grams(texts: Sequence[str], dim: int) -> Vectors:
    """The signed counts of each text's n-grams, shape (len(texts), dim); each distinct word is hashed once."""
    number: dict[str, int] = {}
    rows: list[int] = []
    words: list[int] = []
    for row, text in enumerate(texts):
        found = text.casefold().split()
        words += [number.setdefault(word, len(number)) for word in found]
        rows += [row] * len(found)
    codes = [_hash_word(word) for word in number]
    sizes = np.array([len(code) for code in codes], dtype=np.int64)
    flat = np.concatenate([*codes, np.zeros(0, dtype=np.uint32)])
    of_word = np.array(words, dtype=np.int64)
    lengths = sizes[of_word]
    starts = np.cumsum(sizes) - sizes
    # the n-grams of every occurrence of a word, one occurrence after the other
    at = np.repeat(starts[of_word] - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))
    grams = flat[at]
    cells = np.repeat(np.array(rows, dtype=np.int64), lengths) * dim + grams % dim
    signs = np.where(grams & 0x80000000, 1.0, -1.0)
    sums = np.bincount(cells, weights=signs, minlength=len(texts) * dim)
    return sums.astype(np.float32).reshape(len(texts), dim)


def _hash_word(word: str) -> NDArray[np.uint32]:
    padded = f" {word} "
    grams = (padded[start : start + size] for size in (3, 4, 5) for start in range(max(1, len(padded) - size + 1)))
    return np.array([zlib.crc32(gram.encode("utf-8", "surrogatepass")) for gram in grams], dtype=np.uint32)
