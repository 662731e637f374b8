"""Vectors that a user has: .npy files, and list columns of Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from cuvee.errors import InputError
from cuvee.inputs import bounded_memory, explain_damage
from cuvee.records import Vectors


def load_vectors(path: str | Path) -> Vectors:
    """Vectors of shape (n, d) from a ``.npy`` file (mapped, not read) or the list column of a Parquet file.

    A Parquet file is read batch by batch; its column of lists of floats is found by its type.

    Raises:
        InputError: the file is missing, broken, of another kind, or does not hold rows of one length.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give vectors as .npy of shape (rows, dimensions), or .parquet")
    if path.suffix not in (".npy", ".parquet"):
        raise InputError(f"{path}: vectors come as .npy or .parquet, not {path.suffix or 'without a suffix'!r}")
    with bounded_memory(path):
        found = _read_npy(path) if path.suffix == ".npy" else _read_parquet(path)
    if found.ndim != 2 or not found.size:
        raise InputError(f"{path}: has shape {found.shape}; it must be (rows, dimensions), neither of them 0")
    if found.dtype.kind not in "fiu":
        raise InputError(f"{path}: holds {found.dtype}, not numbers; save it as float32")
    return found


def _read_npy(path: Path) -> Vectors:
    # read as .npy whatever it is, so that nothing is unpickled; shapes beyond 64 bits are an error, not a warning
    with explain_damage(f"{path}", "save it with numpy.save"), np.errstate(over="raise"):
        return cast("Vectors", np.lib.format.open_memmap(path, mode="r"))


def _read_parquet(path: Path) -> Vectors:
    with explain_damage(f"{path}", "is it really Parquet?"), pa_parquet.ParquetFile(path) as file:
        return _read_lists(file, path)


def _read_lists(file: pa_parquet.ParquetFile, path: Path) -> Vectors:
    schema = file.schema_arrow
    lists = [f.name for f in schema if pa.types.is_list(f.type) or pa.types.is_fixed_size_list(f.type)]
    lists = [n for n in lists if pa.types.is_floating(schema.field(n).type.value_type)]
    if len(lists) != 1:
        raise InputError(
            f"{path}: needs one column of lists of floats, has {', '.join(lists) or 'none'} "
            f"among {', '.join(schema.names)}"
        )
    rows, out, at = file.metadata.num_rows, np.zeros((0, 0), dtype=np.float32), 0
    for batch in file.iter_batches(batch_size=65_536, columns=lists):
        column = batch.column(0)
        values = column.flatten().to_numpy(zero_copy_only=False)
        width = len(values) // max(1, len(column))
        if not at:
            out = np.empty((rows, width), dtype=np.float32)
        if column.null_count or width != out.shape[1] or len(values) != width * len(column):
            raise InputError(f"{path}: column {lists[0]!r}, rows {at} to {at + len(column) - 1}: lengths differ")
        out[at : at + len(column)] = values.reshape(-1, width)
        at += len(column)
    if at != rows:
        raise InputError(f"{path}: says that it has {rows} rows and has {at}; write it anew")
    return out
