"""Vectors of texts that are known beforehand, to be carried to where trials run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cuvee.encoders import Encoder, load_encoder
from cuvee.records import Vectors

Keys = NDArray[np.uint64]


class KnownVectors:
    """An encoder that looks texts up. What it does not know it has encoded by the encoder of its name.

    Vectors of a batch depend on it in their last bits, so all trials share those that were made once: they get the
    same bits wherever they run. Carried to another process, this is two arrays.

    Args:
        encoder: makes the vectors.
        texts: all that are known beforehand.
        source: what :func:`~cuvee.encoders.load_encoder` knows the encoder by.
    """

    def __init__(self, encoder: Encoder, texts: Sequence[str], *, source: str) -> None:
        distinct = list(dict.fromkeys(texts))
        self.name, self.hash, self.dim = encoder.name, encoder.hash, encoder.dim
        self._source = source
        self._spare: Encoder | None = encoder
        keys = _hash(distinct)
        order = np.argsort(keys)
        self._keys: Keys = keys[order]
        self._vectors: Vectors = encoder.encode(distinct)[order]

    def __getstate__(self) -> dict[str, object]:
        """All but the encoder, which may hold a model or an open file."""
        return {**self.__dict__, "_spare": None}

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""
        wanted = _hash(texts)
        if not len(self._keys) or not len(wanted):
            return self._encode_unknown(texts)
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        vectors: Vectors = self._vectors[places]
        unknown = np.flatnonzero(self._keys[places] != wanted)
        if len(unknown):
            vectors[unknown] = self._encode_unknown([texts[int(i)] for i in unknown])
        return vectors

    def _encode_unknown(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        if self._spare is None:
            self._spare = load_encoder(self._source)
        return self._spare.encode(texts)


def _hash(texts: Sequence[str]) -> Keys:
    digests = (hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), dtype=np.uint64)
