"""User files in and out: CSV, TSV, JSONL (also .gz), Parquet, Hugging Face datasets; vectors as .npy or Parquet."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from cuvee.corpus.table import (
    LATER,
    NO_LABEL,
    SCHEMA,
    Corpus,
    Origin,
    Task,
    column_strings,
    corpus_from_table,
    guess_columns,
)
from cuvee.errors import InputError, MissingDependency
from cuvee.inputs import bounded_memory, check_memory, explain_damage, first_line, parse_json, show_bytes, strip_mark
from cuvee.records import Vectors
from cuvee.registry import nearest_name

if TYPE_CHECKING:
    import datasets

_RUN = r"\A[=+\-@\t\r\n＝＋－＠]"
_NUMBER = r"\A[+-]?[0-9]*[.,]?[0-9]+([eE][+-]?[0-9]+)?\z"
OUTPUTS = (".parquet", ".jsonl", ".csv")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_BLOCK, _SMALL = 2**20, 2**26
_MOST_EXPANSION = 200  # bytes for one of a gzip file, rows for one of Parquet; of texts it is 2 to 20, below 1
_MOST_COLUMNS = 10_000


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
    where: Mapping[str, Sequence[str]] | None = None,
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
        where: column -> values: only the rows that have one of them in each of these columns.

    Raises:
        InputError: missing or empty file, broken line (with its number), missing column (with the nearest), more
            than the memory that is free.
    """
    is_file = isinstance(source, str | os.PathLike)
    with bounded_memory(Path(source)) if is_file else nullcontext():
        if is_file:
            table, name = read_table(Path(source)), str(source)
            table = _take_where(table, where or {}, name)
            own = set(SCHEMA.names) - set(LATER) <= set(table.column_names)
            if own and text is None and label is None and context in (None, "context") and group in (None, "group"):
                return _read_own(table, name, task)
        else:
            table, name = _dataset_table(source), "datasets.Dataset"
            table = _take_where(table, where or {}, name)
        if not labelled and label is None and guess_columns(table.column_names)[1] is None:
            table, label = table.append_column(NO_LABEL, pa.array([""] * table.num_rows, pa.string())), NO_LABEL
        return corpus_from_table(
            table, text=text, label=label, group=group, context=context, origin=origin, task=task, where=name
        )


def _take_where(table: pa.Table, where: Mapping[str, Sequence[str]], name: str) -> pa.Table:
    """The rows that have one of the values in each of the columns."""
    for column, values in where.items():
        cells = column_strings(table, column, name)
        kept = pc.is_in(cells, value_set=pa.array(values, pa.string()))
        if absent := sorted(set(values) - set(cells.filter(kept).to_pylist())):
            known = sorted({str(value) for value in pc.unique(cells).to_pylist() if value is not None})
            raise InputError(f"{name}: no row has {absent[0]!r} in column {column!r}; {nearest_name(absent[0], known)}")
        table = table.filter(kept)
    return table


def read_columns(source: str | Path) -> dict[str, list[str]]:
    """Column names of a file, each with its first three values as strings."""
    table = read_table(Path(source))
    return {name: [str(v) for v in table[name].slice(0, 3).to_pylist()] for name in table.column_names}


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


def _dataset_table(dataset: datasets.Dataset) -> pa.Table:
    """The columns of a Hugging Face dataset; integer class labels become their names."""
    if isinstance(dataset, _import_datasets().DatasetDict):
        raise InputError(f"the dataset has splits {', '.join(dataset)}; give one of them")
    table = pa.table(dataset.with_format("arrow")[:])
    for name, feature in dataset.features.items():
        if hasattr(feature, "int2str"):
            names = [None if v is None else feature.int2str(v) for v in table[name].to_pylist()]
            table = table.set_column(table.column_names.index(name), name, pa.array(names, pa.string()))
    return table


def _import_datasets() -> ModuleType:
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
        splits = (path / "dataset_dict.json").exists()
        hint = "one of its splits" if splits else "a file, Parquet shards or a saved dataset"
        raise InputError(f"{path}: this folder is not a saved Hugging Face dataset; give {hint}")
    load = _import_datasets().load_from_disk
    with explain_damage(f"{path}", "save the dataset anew"):
        return _dataset_table(load(str(path)))


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


# --- vectors -----------------------------------------------------------------------------------
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
        found = _read_npy(path) if path.suffix == ".npy" else _read_list_column(path)
    if found.ndim != 2 or not found.size:
        raise InputError(f"{path}: has shape {found.shape}; it must be (rows, dimensions), neither of them 0")
    if found.dtype.kind not in "fiu":
        raise InputError(f"{path}: holds {found.dtype}, not numbers; save it as float32")
    return found


def _read_npy(path: Path) -> Vectors:
    # read as .npy whatever it is, so that nothing is unpickled; shapes beyond 64 bits are an error, not a warning
    with explain_damage(f"{path}", "save it with numpy.save"), np.errstate(over="raise"):
        return cast("Vectors", np.lib.format.open_memmap(path, mode="r"))


def _read_list_column(path: Path) -> Vectors:
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


# --- writing: under a temporary name, then renamed, so that no half-written file is ever seen -----
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


def check_folder(folder: str | Path, *, replaces: Callable[[Path], bool] | None = None) -> None:
    """Refuse a folder that ``fill_folder`` would refuse, before any work is done.

    Raises:
        InputError: it has other things in it, or is a file.
    """
    target = Path(folder).resolve()
    if target.exists() and not target.is_dir():
        raise InputError(f"{folder}: this is a file; choose another folder")
    taken = target.is_dir() and any(target.iterdir())
    if taken and not (replaces is not None and replaces(target)):
        raise InputError(f"{folder}: the folder is not empty; choose another, or empty it")


@contextmanager
def fill_folder(folder: str | Path, *, replaces: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """A temporary folder that takes the name of ``folder`` when all of it was written.

    Args:
        folder: where it is wanted; missing or empty, unless ``replaces`` says that what is there may go.
        replaces: whether a folder that is not empty may be replaced, as a whole.

    Raises:
        InputError: the folder has other things in it, or cannot be written.
    """
    check_folder(folder, replaces=replaces)
    target = Path(folder).resolve()
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        _swap(temporary, target)
    except OSError as exc:
        raise InputError(
            f"{folder}: cannot be written ({exc.strerror or exc}); free some space or choose another place"
        ) from exc
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, target: Path) -> None:
    """Give ``target`` the content of ``temporary``; at every instant each of them is whole."""
    if not target.exists() or not any(target.iterdir()):
        temporary.replace(target)
        return
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    shutil.rmtree(old, ignore_errors=True)
    target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        with contextlib.suppress(OSError):
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
