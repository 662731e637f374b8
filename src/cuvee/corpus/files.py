"""User files in and out: CSV, TSV, JSONL (also .gz), Parquet, Hugging Face datasets; vectors as .npy or Parquet."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from cuvee.corpus.cells import to_cell, to_text, to_values, typed_table
from cuvee.corpus.content import warn_of_variants
from cuvee.corpus.formats import dataset_table, read_table
from cuvee.corpus.table import Corpus, Origin, Task, column_strings, corpus_from_table, is_ours, read_ours
from cuvee.errors import InputError
from cuvee.inputs import bounded_memory, explain_damage, first_line, whole_file
from cuvee.records import Vectors
from cuvee.registry import nearest_name

if TYPE_CHECKING:
    import datasets

_RUN = r"\A[=+\-@\t\r\n＝＋－＠]"
_NUMBER = r"\A[+-]?[0-9]*[.,]?[0-9]+([eE][+-]?[0-9]+)?\z"
OUTPUTS = (".parquet", ".jsonl", ".csv")


def load_corpus(
    source: str | Path | datasets.Dataset,
    *,
    text: str | None = None,
    label: str | None = None,
    group: str | None = None,
    context: str | None = None,
    seed: str | None = None,
    origin: Origin = "real",
    task: Task | None = None,
    labelled: bool = True,
    where: Mapping[str, Sequence[str]] | None = None,
) -> Corpus:
    """Read a corpus from a file, a folder of Parquet shards or of ``Dataset.save_to_disk``, or a ``datasets.Dataset``.

    Args:
        source: CSV, TSV, JSONL (each also with .gz), Parquet, a folder of Parquet files (read in the order of their
            names), a saved dataset, or a dataset in memory.
        text: the column of texts. Left out, it is recognised by its usual names, and a file that Cuvée wrote is read
            back whole.
        label: the column of labels or completions; left out as ``text``.
        group: the column whose equal values stay on one side of a split.
        context: the column of what each text is about, such as the passage of a question; blank cells are none.
        seed: the column that names the real row that each row was written from.
        origin: of rows that do not carry one.
        task: what the rows are for; left out, generation for chats and instructions, retrieval for queries with
            passages, else classification.
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
            known = [(text, None), (label, None), (context, "context"), (group, "group"), (seed, "seed_ids")]
            if is_ours(table.column_names) and all(given in (None, own) for given, own in known):
                return read_ours(table, name, task)
        else:
            table, name = _other_table(source), "datasets.Dataset"
            table = _take_where(table, where or {}, name)
        named = {"text": text, "label": label, "group": group, "context": context}
        found = corpus_from_table(table, named, origin=origin, task=task, where=name, labelled=labelled)
        if found.task == "classification":
            warn_of_variants(found.labels, name)
        if seed:
            names = column_strings(table, seed, name).combine_chunks()
            found = found.with_columns(seed_ids=pa.ListArray.from_arrays(np.arange(len(names) + 1, dtype="i4"), names))
        return found


def _other_table(source: object) -> pa.Table:
    """A dataset in memory as a table."""
    if not hasattr(source, "features") and not isinstance(source, dict):
        raise InputError(
            f"cannot read a corpus from {type(source).__name__}; give a path or a datasets.Dataset, or make one with "
            "Corpus.from_pandas or Corpus.from_rows"
        )
    return dataset_table(cast("datasets.Dataset", source))


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


def read_columns(source: str | Path) -> list[str]:
    """The names of the columns of a file."""
    return list(read_table(Path(source)).column_names)


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
    # read as .npy whatever it is, so that nothing is unpickled; shapes beyond 64 bits are an error, not a warning
    with bounded_memory(path), explain_damage(f"{path}", "write it again"), np.errstate(over="raise"):
        if path.suffix == ".npy":
            found = cast("Vectors", np.lib.format.open_memmap(path, mode="r"))
        else:
            with pa_parquet.ParquetFile(path) as file:
                found = _read_lists(file, path)
    if found.ndim != 2 or not found.size:
        raise InputError(f"{path}: has shape {found.shape}; it must be (rows, dimensions), neither of them 0")
    if found.dtype.kind not in "fiu":
        raise InputError(f"{path}: holds {found.dtype}, not numbers; save it as float32")
    return found


def _read_lists(file: pa_parquet.ParquetFile, path: Path) -> Vectors:
    schema = file.schema_arrow
    lists = [f.name for f in schema if pa.types.is_list(f.type) or pa.types.is_fixed_size_list(f.type)]
    lists = [n for n in lists if pa.types.is_floating(schema.field(n).type.value_type)]
    if len(lists) != 1:
        raise InputError(
            f"{path}: needs one column of float lists, has {', '.join(lists) or 'none'} of {', '.join(schema.names)}"
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
        raise InputError(f"{path}: says that it has {rows} rows and has {at}; write it again")
    return out


# --- writing: under a temporary name, then renamed, so that no half-written file is ever seen -----
def write_corpus(corpus: Corpus, path: str | Path, *, guard_cells: bool = False) -> None:
    """Write Parquet, or JSONL or CSV by suffix; ``guard_cells`` as in ``write_table``."""
    write_table(corpus.formed_like(corpus).table, path, guard_cells=guard_cells)


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
    if len(set(table.column_names)) < table.num_columns:
        name, count = Counter(table.column_names).most_common(1)[0]
        raise InputError(f"{path}: cannot be written with {count} columns {name!r}; rename them in their file")
    try:
        if path.suffix == ".jsonl":
            columns = [to_values(f, c, str(path)) for f, c in zip(table.schema, table.columns, strict=True)]
            rows = (dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True))
            replace_text(path, "".join(f"{to_cell(row)}\n" for row in rows))
        elif path.suffix == ".csv":
            columns = [to_text(f, c, str(path)) for f, c in zip(table.schema, table.columns, strict=True)]
            flat = pa.table(columns, names=table.column_names)
            flat = _guard_cells(flat) if guard_cells else flat
            _replace(path, lambda temporary: pa_csv.write_csv(flat, temporary))
        else:
            table = typed_table(table)
            _replace(path, lambda temporary: pa_parquet.write_table(table, temporary, compression="zstd"))
    except (pa.ArrowException, UnicodeEncodeError, TypeError) as exc:
        raise InputError(f"{path}: cannot hold what is written ({first_line(exc)}); try Parquet or JSONL") from exc


def _guard_cells(table: pa.Table) -> pa.Table:
    """Texts and column names that a spreadsheet would run as a formula, with an apostrophe; numbers stay as they are.

    The characters are those of OWASP's page on CSV injection.
    """

    def guard(texts: pa.ChunkedArray) -> pa.ChunkedArray:
        if not pa.types.is_string(texts.type):
            return texts
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
    try:
        with whole_file(path) as temporary:
            write(temporary)
    except OSError as exc:
        raise _unwritable(path, exc) from exc


def _unwritable(path: str | Path, exc: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({exc.strerror or exc}); free some space or choose another place")


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
        raise _unwritable(folder, exc) from exc
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, target: Path) -> None:
    """Give ``target`` the content of ``temporary``; at every instant each of them is whole."""
    if not target.exists() or not any(target.iterdir()):
        temporary.replace(target)
        return
    old = target.with_name(f".{target.name}.tmp-old-{os.getpid()}")
    shutil.rmtree(old, ignore_errors=True)
    target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        with contextlib.suppress(OSError):
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
