"""User files in and out: CSV, TSV, JSONL (also .gz), Parquet, Hugging Face datasets."""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from cuvee.corpus.table import LATER, SCHEMA, Corpus, Origin, Task
from cuvee.errors import InputError, MissingDependency
from cuvee.inputs import bounded_memory, check_memory, explain_damage, first_line, parse_json, show_bytes, strip_mark
from cuvee.registry import nearest_name

if TYPE_CHECKING:
    import datasets

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_LABEL_NAMES = ("label", "target", "category", "class", "intent", "completion", "answer")
_NO_LABEL = "(no label)"
_BATCH = 65_536  # values that are Python objects at a time
_BLOCK, _SMALL = 2**20, 2**26
_MOST_EXPANSION = 200  # bytes for one of a gzip file, rows for one of Parquet; of texts it is 2 to 20, below 1
_MOST_COLUMNS = 10_000
_TEXT_NAMES = ("text", "sentence", "question", "query", "utterance", "prompt", "content", "title")


def load_corpus(
    source: str | Path | datasets.Dataset,
    *,
    text: str | None = None,
    label: str | None = None,
    group: str | None = None,
    context: str | None = None,
    origin: Origin = "real",
    task: Task = "classification",
    labelled: bool = True,
) -> Corpus:
    """Read a corpus from a file, a folder of Parquet shards or of ``Dataset.save_to_disk``, or a ``datasets.Dataset``.

    Args:
        source: CSV, TSV, JSONL (each also with .gz), Parquet, a folder of Parquet files (read in the order of their
            names), a saved dataset, or a dataset in memory.
        text, label, group: column names. Left out, ``text`` and ``label`` are recognised by their usual
            names, and a file that Cuvée wrote is read back whole.
        context: the column of what each text is about, such as the passage of a question; blank cells are none.
        origin: of rows that do not carry one.
        task: what the rows are for.
        labelled: False lets a file have no label column (its targets are empty), for measuring texts alone.

    Raises:
        InputError: missing or empty file, broken line (with its number), missing column (with the nearest), more
            than the memory that is free.
    """
    if not isinstance(source, str | os.PathLike):
        return corpus_from_dataset(
            source, text=text, label=label, group=group, context=context, origin=origin, task=task
        )
    with bounded_memory(Path(source)):
        return _load_file(
            Path(source), text=text, label=label, group=group, context=context, origin=origin, task=task,
            labelled=labelled,
        )  # fmt: skip


def _load_file(
    source: Path, *, text: str | None, label: str | None, group: str | None, context: str | None, origin: Origin,
    task: Task, labelled: bool,
) -> Corpus:  # fmt: skip
    table, where = read_table(source), str(source)
    own = set(SCHEMA.names) - set(LATER) <= set(table.column_names)
    if own and text is None and label is None and context in (None, "context") and group in (None, "group"):
        return _read_own(table, where, task)
    if not labelled and label is None and guess_columns(table.column_names)[1] is None:
        table, label = table.append_column(_NO_LABEL, pa.array([""] * table.num_rows, pa.string())), _NO_LABEL
    return corpus_from_table(
        table, text=text, label=label, group=group, context=context, origin=origin, task=task, where=where
    )


def read_columns(source: str | Path) -> dict[str, list[str]]:
    """Column names of a file, each with its first three values as strings."""
    table = read_table(Path(source))
    return {name: [str(v) for v in table[name].slice(0, 3).to_pylist()] for name in table.column_names}


def guess_columns(names: Sequence[str]) -> tuple[str | None, str | None]:
    """The columns that are text and label by their usual names."""
    by_name = {n.casefold(): n for n in names}
    text = next((by_name[n] for n in _TEXT_NAMES if n in by_name), None)
    label = next((by_name[n] for n in _LABEL_NAMES if n in by_name), None)
    return text, label


def read_table(path: Path) -> pa.Table:
    """Any supported file as an Arrow table.

    Raises:
        InputError: it is missing, empty, of an unknown kind, broken at a named line, or takes more than the memory
            that is free.
    """
    if path.is_dir():
        shards = sorted(path.glob("*.parquet"))
        with bounded_memory(path):
            return _read_shards(shards) if shards else _read_saved_dataset(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; give a path to {', '.join(SUFFIXES)} or a saved dataset")
    suffixes = [s.lower() for s in path.suffixes]
    gz = bool(suffixes) and suffixes[-1] == ".gz"
    kind = suffixes[-2] if gz and len(suffixes) > 1 else (suffixes[-1] if suffixes else "")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; it needs a header or rows")
    if kind not in SUFFIXES:
        raise InputError(f"{path}: unknown kind of file {kind or path.name!r}; use {', '.join(SUFFIXES)} (also .gz)")
    try:
        with bounded_memory(path):
            if kind == ".parquet":
                table = _read_parquet(path)
            else:
                data = strip_mark(_unpack(path) if gz else path.read_bytes(), str(path))
                table = _parse_jsonl(data, path) if kind in (".jsonl", ".ndjson") else _parse_csv(data, path, kind)
    except (OSError, EOFError, zlib.error, pa.ArrowException) as exc:
        raise InputError(f"{path}: cannot be read ({first_line(exc)}); is it really {kind}?") from exc
    if table.num_rows == 0:
        raise InputError(f"{path}: no rows; the file needs at least one")
    return table


def _unpack(path: Path) -> bytes:
    """The contents of a gzip file, unless they are so much larger that no texts could be in it."""
    size, out = path.stat().st_size, bytearray()
    with gzip.open(path) as stream:
        while block := stream.read(_BLOCK):
            out += block
            if len(out) > max(_SMALL, _MOST_EXPANSION * size):
                raise InputError(
                    f"{path}: its contents are more than {_MOST_EXPANSION} times its {show_bytes(size)}, as those of "
                    "a file that is made to fill the memory; unpack it first if you trust it"
                )
    return bytes(out)


def _read_parquet(path: Path) -> pa.Table:
    with pa_parquet.ParquetFile(path) as file:
        size, rows = path.stat().st_size, file.metadata.num_rows
        if rows > max(_SMALL, _MOST_EXPANSION * size):
            raise InputError(
                f"{path}: says that it has {rows} rows in {show_bytes(size)}, and no texts are so short; write it anew"
            )
        _check_width(file.metadata.num_columns, path)
    return pa_parquet.read_table(path)


def _check_width(columns: int, path: Path) -> None:
    if columns > _MOST_COLUMNS:
        raise InputError(f"{path}: has {columns} columns; give at most {_MOST_COLUMNS}, of which Cuvée reads four")


def _parse_csv(data: bytes, path: Path, kind: str) -> pa.Table:
    delimiter = "\t" if kind == ".tsv" else ","
    _check_width(data.count(delimiter.encode(), 0, data.find(b"\n") % (len(data) + 1)) + 1, path)
    # Arrow holds the text as it was split besides the table, and ends the process where memory runs out
    check_memory(path, 3 * len(data) + 16 * (data.count(delimiter.encode()) + data.count(b"\n")))
    return pa_csv.read_csv(
        io.BytesIO(data),
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(strings_can_be_null=False),
    )


def _parse_jsonl(data: bytes, path: Path) -> pa.Table:
    rows, columns = [], dict[str, None]()
    for number, line in enumerate(io.BytesIO(data), start=1):
        if not line.strip():
            continue
        row = parse_json(line.decode("utf-8"), str(path), number)
        if b"\\ud" in line.lower():
            try:
                json.dumps(row, ensure_ascii=False).encode()
            except UnicodeEncodeError as exc:
                raise InputError(f"{path}, line {number}: holds half of a surrogate pair, \\ud...; remove it") from exc
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: a row must be a JSON object, got {type(row).__name__}")
        rows.append(row)
        columns |= dict.fromkeys(row)
        _check_width(len(columns), path)
    return pa.table({name: _json_column([row.get(name) for row in rows]) for name in columns})


def _json_column(values: list[object]) -> pa.Array:
    with suppress(pa.ArrowException, OverflowError):  # mixed kinds, numbers beyond 64 bits
        return pa.array(values)
    written = [None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values]
    return pa.array(written, pa.string())


def corpus_from_table(
    table: pa.Table, *, text: str | None, label: str | None, group: str | None = None, context: str | None = None,
    origin: Origin, task: Task, where: str,
) -> Corpus:  # fmt: skip
    """A corpus from an Arrow table with the user's own columns; ``where`` names it in messages."""
    guessed_text, guessed_label = guess_columns(table.column_names)
    text_column = _column(table, text or guessed_text, "text", where)
    label_column = _column(table, label or guessed_label, "label", where)
    columns = {"text": _filled(table, text_column, where)}
    is_empty = label_column == _NO_LABEL
    columns["target"] = _as_strings(table[label_column]) if is_empty else _filled(table, label_column, where)
    if group:
        columns["group"] = _as_strings(table[_column(table, group, "group", where)])
    if context:
        columns["context"] = _without_blanks(table[_column(table, context, "context", where)])
    return Corpus.from_columns(columns, origin=origin, task=task)


def _filled(table: pa.Table, name: str, where: str) -> pa.ChunkedArray:
    """A column as strings.

    Raises:
        InputError: a cell is empty.
    """
    strings = _as_strings(table[name])
    for row, value in enumerate(chain.from_iterable(_batches(strings)), start=1):
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{where}, row {row}: column {name!r} is empty; fill it or drop the row")
    return strings


def _without_blanks(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as strings, null where there is nothing to read."""
    parts = _batches(_as_strings(column))
    kept = [pa.array((v if isinstance(v, str) and v.strip() else None for v in part), pa.string()) for part in parts]
    return pa.chunked_array(kept, pa.string())


def _as_strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as strings; what is something else reads as Python writes it."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    written = [
        pa.array((None if v is None or v != v else str(v) for v in part), pa.string()) for part in _batches(column)
    ]
    return pa.chunked_array(written, pa.string())


def _batches(column: pa.ChunkedArray) -> Iterator[list[object]]:
    """The values of a column, a part of it at a time."""
    for start in range(0, len(column), _BATCH):
        values: list[object] = column.slice(start, _BATCH).to_pylist()
        yield values


def corpus_from_dataset(
    dataset: datasets.Dataset, *, text: str | None = None, label: str | None = None, group: str | None = None,
    context: str | None = None, origin: Origin = "real", task: Task = "classification",
) -> Corpus:  # fmt: skip
    """A corpus from a Hugging Face dataset; integer class labels become their names."""
    if isinstance(dataset, import_datasets().DatasetDict):
        raise InputError(f"the dataset has splits {', '.join(dataset)}; give one of them")
    table = pa.table(dataset.with_format("arrow")[:])
    for name, feature in dataset.features.items():
        if hasattr(feature, "int2str"):
            names = [None if v is None else feature.int2str(v) for v in table[name].to_pylist()]
            table = table.set_column(table.column_names.index(name), name, pa.array(names, pa.string()))
    return corpus_from_table(
        table, text=text, label=label, group=group, context=context, origin=origin, task=task,
        where="datasets.Dataset",
    )  # fmt: skip


def import_datasets() -> ModuleType:
    """The package ``datasets``, or MissingDependency with the command that installs it."""
    try:
        import datasets
    except ImportError as exc:
        raise MissingDependency("Hugging Face datasets are not installed: pip install 'cuvee[datasets]'") from exc
    return cast("ModuleType", datasets)


def _read_shards(shards: Sequence[Path]) -> pa.Table:
    """The rows of Parquet files in the order of their names."""
    tables = [read_table(shard) for shard in shards]
    for shard, table in zip(shards, tables, strict=True):
        if set(table.column_names) != set(tables[0].column_names):
            odd = sorted(set(table.column_names) ^ set(tables[0].column_names))[0]
            raise InputError(f"{shard}: column {odd!r} is not in all shards of this folder ({shards[0].name}, ...)")
    try:
        return pa.concat_tables(
            [table.select(tables[0].column_names) for table in tables], promote_options="permissive"
        )
    except pa.ArrowException as exc:
        raise InputError(f"{shards[0].parent}: its shards have different types ({str(exc).splitlines()[0]})") from exc


def _read_saved_dataset(path: Path) -> pa.Table:
    if not (path / "state.json").exists():
        hint = (
            "one of its splits"
            if (path / "dataset_dict.json").exists()
            else "a file, Parquet shards or a saved dataset"
        )
        raise InputError(f"{path}: this folder is not a saved Hugging Face dataset; give {hint}")
    load = import_datasets().load_from_disk
    with explain_damage(f"{path}", "save the dataset anew"):
        return corpus_from_saved(load(str(path)))


def corpus_from_saved(dataset: datasets.Dataset) -> pa.Table:
    """The columns of a saved dataset, class labels as names."""
    columns = {}
    for name, feature in dataset.features.items():
        values = dataset[name][:]
        columns[name] = [feature.int2str(v) if hasattr(feature, "int2str") and v is not None else v for v in values]
    return pa.table(columns)


def _column(table: pa.Table, name: str | None, role: str, where: str) -> str:
    if name is None:
        raise InputError(f"{where}: which column is the {role}? It has {', '.join(table.column_names)}; say --{role}")
    if name not in table.column_names:
        raise InputError(f"{where}: no column {name!r} for the {role}; {nearest_name(name, table.column_names)}")
    return name


def _read_own(table: pa.Table, where: str, task: Task) -> Corpus:
    try:
        known = [name for name in SCHEMA.names if name in table.column_names]
        typed = table.select(known).cast(pa.schema([SCHEMA.field(name) for name in known]))
        found = Corpus(typed.combine_chunks(), task)
        wrong = np.flatnonzero(~(np.isfinite(found.weights) & (found.weights >= 0)))
        if len(wrong):
            row, weight = int(wrong[0]), found.weights[wrong[0]]
            raise InputError(f"{where}, row {row + 1}: weight is {weight:g}; give a number of at least 0, or none")
        return found
    except pa.ArrowException as exc:
        raise InputError(f"{where}: has the columns of a Cuvée corpus with other types ({exc})") from exc
