"""What an encoder is, what hands its texts to workers, and where vectors are kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from cuvee.records import Vectors

T = TypeVar("T")
R = TypeVar("R")
MAPPED_BYTES = 256 * 2**20
"""From here on rows lie in a temporary file: the system may write them out when memory is wanted for other things."""
BATCH = 65_536
"""Texts embedded at a time: 32 parts of an encoder, so that batches hold the parts that one call would."""
PART = 2_048
"""Texts of a part: what is embedded together has the same last bits wherever that is done."""


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
        return getattr(self._encoder, "at_once", PART)

    @property
    def hash(self) -> str:
        """The wrapped encoder's hash."""
        return self._encoder.hash

    @property
    def dim(self) -> int:
        """The wrapped encoder's dimension."""
        return self._encoder.dim


class WorkerPool(Protocol):
    """Applies one function to many items, in processes of this machine or of a cluster."""

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """``work(item)`` of each item, in the order of the items.

        Args:
            work: carried to each worker once; the same object again finds the workers ready.
            items: each carried to one worker.

        Raises:
            CuveeError: the work on an item was lost, or it raised one.
        """


def unit_rows_or_zero(vectors: Vectors) -> Vectors:
    """Rows of length 1; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    out: Vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return out


def empty_rows(rows: int, dim: int) -> Vectors:
    """Room for vectors, float32, shape (rows, dim); its content is anything.

    Where they are many it is a file without a name in the folder for temporary files (``TMPDIR``), which is gone when
    the array is.
    """
    size = rows * dim * np.dtype(np.float32).itemsize
    if size < MAPPED_BYTES:
        return np.empty((rows, dim), dtype=np.float32)
    with tempfile.TemporaryFile(prefix="cuvee-vectors-") as file:
        file.truncate(size)
        return np.asarray(np.memmap(file, dtype=np.float32, mode="r+", shape=(rows, dim)))


def batches(rows: int) -> Iterator[slice]:
    """The rows in batches, in order."""
    for start in range(0, rows, BATCH):
        yield slice(start, min(start + BATCH, rows))
