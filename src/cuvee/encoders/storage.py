"""Where vectors are kept: in memory, or many of them in a file that is mapped."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import numpy as np

from cuvee.records import Vectors

MAPPED_BYTES = 256 * 2**20
"""From here on rows lie in a temporary file: the system may write them out when memory is wanted for other things."""
BATCH = 65_536
"""Texts embedded at a time: 32 parts of an encoder, so that batches hold the parts that one call would."""


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
