"""Files out: under a temporary name, then renamed, so that no half-written file is ever seen."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from cuvee.corpus.table import Corpus
from cuvee.errors import InputError

OUTPUTS = (".parquet", ".jsonl", ".csv")


def write_corpus(corpus: Corpus, path: str | Path) -> None:
    """Write Parquet, or JSONL or CSV by suffix."""
    write_table(corpus.table, path)


def write_table(table: pa.Table, path: str | Path) -> None:
    """Write an Arrow table as Parquet, or as JSONL or CSV by suffix.

    Raises:
        InputError: the file cannot be written, or CSV cannot hold a column.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        rows = (json.dumps(r, ensure_ascii=False) for r in table.to_pylist())
        replace_text(path, "".join(f"{r}\n" for r in rows))
    elif path.suffix == ".csv":
        nested = [f.name for f in table.schema if pa.types.is_nested(f.type)]
        _replace(path, lambda temporary: pa_csv.write_csv(table.drop_columns(nested), temporary))
    else:
        _replace(path, lambda temporary: pa_parquet.write_table(table, temporary, compression="zstd"))


def replace_text(path: str | Path, content: str) -> None:
    """Write a text file, UTF-8.

    Raises:
        InputError: it cannot be written.
    """
    _replace(Path(path), lambda temporary: temporary.write_text(content, encoding="utf-8"))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):  # where its folder is a file, say
            temporary.unlink(missing_ok=True)
        raise InputError(
            f"{path}: cannot be written ({exc.strerror or exc}); free some space or choose another place"
        ) from exc
