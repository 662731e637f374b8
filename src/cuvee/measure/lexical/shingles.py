"""Character shingles of texts as arrays of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH = 5
_CHUNK = 50_000  # pairs compared at a time
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shingles:
    """The set of shingles of each text, numbered exactly (no hashing): equal numbers are equal shingles.

    Attributes:
        flat: the shingles of all texts, those of one text sorted.
        starts: shape (n + 1,); those of text i are ``flat[starts[i] : starts[i + 1]]``.
        kinds: number of different shingles.
    """

    flat: Ints
    starts: Ints
    kinds: int

    @property
    def sizes(self) -> Ints:
        """Different shingles of each text, shape (n,)."""
        return np.diff(self.starts)


def make_shingles(texts: Sequence[str]) -> Shingles:
    """All runs of five characters of each text; a shorter text is one shingle, filled up with nothing."""
    padded = [text.ljust(WIDTH, "\0") for text in texts]
    data = "".join(padded).encode("utf-32-le", "surrogatepass")
    letters, character = np.unique(np.frombuffer(data, dtype=np.uint32), return_inverse=True)
    lengths = np.array([len(text) for text in padded], dtype=np.int64)
    text_of = np.repeat(np.arange(len(padded)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(character))
    starts = np.flatnonzero(left >= WIDTH)
    shingle = character[starts].astype(np.int64)
    for offset in range(1, WIDTH):
        if int(shingle.max(initial=0) + 1) * len(letters) >= 2**62:
            shingle = np.unique(shingle, return_inverse=True)[1]  # many letters: number anew, so that it fits
        shingle = shingle * len(letters) + character[starts + offset]
    kinds, shingle = np.unique(shingle, return_inverse=True)
    entries = sort_unique(text_of[starts] * max(1, len(kinds)) + shingle)
    text, flat = np.divmod(entries, max(1, len(kinds)))
    ends = np.searchsorted(text, np.arange(len(padded) + 1))
    return Shingles(flat=flat, starts=ends.astype(np.int64), kinds=len(kinds))


def jaccard(shingles: Shingles, pairs: Ints) -> NDArray[np.float64]:
    """Exact Jaccard similarity of pairs of texts: shared shingles over all shingles of both; shape (p,).

    Args:
        shingles: of n texts.
        pairs: numbers of texts, shape (p, 2).
    """
    from scipy import sparse

    data = np.ones(len(shingles.flat), dtype=np.int32)
    matrix = sparse.csr_array((data, shingles.flat, shingles.starts), shape=(len(shingles.starts) - 1, shingles.kinds))
    out = np.zeros(len(pairs))
    for start in range(0, len(pairs), _CHUNK):
        part = pairs[start : start + _CHUNK]
        shared: Ints = np.asarray(matrix[part[:, 0]].multiply(matrix[part[:, 1]]).sum(axis=1))
        out[start : start + _CHUNK] = shared / (shingles.sizes[part].sum(axis=1) - shared)
    return out


def sort_unique(keys: Ints) -> Ints:
    """The different keys, sorted.

    ``np.unique`` puts bare integers into a hash table that takes seconds for a million keys at regular distances,
    such as pairs of numbers in one integer are.
    """
    keys = np.sort(keys)
    return keys[np.append(True, np.diff(keys) > 0)] if len(keys) else keys
