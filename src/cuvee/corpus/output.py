"""Files out: under a temporary name, then renamed, so that no half-written file is ever seen."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from cuvee.corpus.table import Corpus
from cuvee.errors import InputError

_RUN = r"\A[=+\-@\t\r\n＝＋－＠]"
_NUMBER = r"\A[+-]?[0-9]*[.,]?[0-9]+([eE][+-]?[0-9]+)?\z"
OUTPUTS = (".parquet", ".jsonl", ".csv")


def write_corpus(corpus: Corpus, path: str | Path, *, guard_cells: bool = False) -> None:
    """Write Parquet, or JSONL or CSV by suffix; ``guard_cells`` as in :func:`write_table`."""
    write_table(corpus.table, path, guard_cells=guard_cells)


def write_table(table: pa.Table, path: str | Path, *, guard_cells: bool = False) -> None:
    """Write an Arrow table as Parquet, or as JSONL or CSV by suffix.

    Args:
        table: what is written.
        path: the file.
        guard_cells: put an apostrophe before what a spreadsheet would run, in a CSV.

    Raises:
        InputError: the file cannot be written, or CSV cannot hold a column.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        rows = (json.dumps(r, ensure_ascii=False) for r in table.to_pylist())
        replace_text(path, "".join(f"{r}\n" for r in rows))
    elif path.suffix == ".csv":
        nested = [f.name for f in table.schema if pa.types.is_nested(f.type)]
        kept = table.drop_columns(nested)
        kept = _guard_cells(kept) if guard_cells else kept
        _replace(path, lambda temporary: pa_csv.write_csv(kept, temporary))
    else:
        _replace(path, lambda temporary: pa_parquet.write_table(table, temporary, compression="zstd"))


def _guard_cells(table: pa.Table) -> pa.Table:
    """Texts and column names that a spreadsheet would run as a formula, with an apostrophe; numbers stay as they are.

    The characters are those of OWASP's page on CSV injection.
    """

    def guard(column: pa.ChunkedArray) -> pa.ChunkedArray:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            return column
        texts = column.cast(pa.string())
        is_run = pc.and_not(pc.match_substring_regex(texts, _RUN), pc.match_substring_regex(texts, _NUMBER))
        return pc.if_else(is_run, pc.binary_join_element_wise("'", texts, ""), texts)

    names = guard(pa.chunked_array([table.column_names], pa.string())).to_pylist()
    return pa.table([guard(column) for column in table.columns], names=names)


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
