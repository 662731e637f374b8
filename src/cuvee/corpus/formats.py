"""What a user's file holds, as a table: CSV, TSV, JSON, JSONL, Parquet, Hugging Face datasets, folders of them.

Kinds are told by content where the name misleads: gzip, Parquet, JSON, and UTF-16. Cells of CSV are strings.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from cuvee.corpus.cells import json_column, stack_tables
from cuvee.errors import InputError, InputWarning, MissingDependency
from cuvee.inputs import bounded_memory, check_memory, explain_damage, first_line, parse_json, show_bytes, to_utf8

if TYPE_CHECKING:
    import datasets

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
_SHARDS = (".parquet", ".jsonl", ".csv", ".tsv")  # of a folder: files of the first kind that it has
_SPLIT = re.compile(r"(?:^|[^a-z])(train(?:ing)?|valid(?:ation)?|val|dev|test(?:ing)?|eval(?:uation)?)(?![a-z])", re.I)
_ROWS_KEYS = ("data", "rows", "examples")  # that hold the rows of a JSON object
_SEPARATORS = (",", ";", "\t", "|")
_BLOCK, _SMALL = 2**20, 2**26
_PACKED = {
    b"BZh": "bzip2",
    b"\xfd7z": "xz",
    b"PK\x03\x04": "a zip file",
    b"ARRO": "Arrow or Feather",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_MOST_EXPANSION = 200  # bytes for one of a gzip file, rows for one of Parquet; of texts it is 2 to 20, below 1
_MOST_COLUMNS = 10_000
_SNIFFED = 2**16  # bytes


def read_table(path: Path) -> pa.Table:
    """Any supported file or folder as an Arrow table; ``PATH/train`` is the split ``train`` of what lies at PATH.

    Raises:
        InputError: it is missing, empty, of an unknown kind, broken at a named line, has splits of which none is
            chosen, or takes more than the memory that is free.
    """
    split = ""
    if not path.exists() and path.parent.exists() and path.parent != path:
        path, split = path.parent, path.name
    with bounded_memory(path):
        if path.is_dir():
            return _read_folder(path, split)
        if not path.exists() or (split and not _begins(path, b"{")):
            raise _missing(path / split)
        table = _read_file(path, split)
    if table.num_rows == 0:
        raise InputError(f"{path}: no rows; the file needs at least one")
    return table


def _missing(path: Path) -> InputError:
    return InputError(f"{path}: no such file; give a path to {', '.join(SUFFIXES)} or a saved dataset")


def _begins(path: Path, start: bytes) -> bool:
    with path.open("rb") as stream:
        return stream.read(_BLOCK).lstrip().startswith(start)


def _read_file(path: Path, split: str = "") -> pa.Table:
    """One file; it may have no rows."""
    kind = Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; it needs a header or rows")
    try:
        with bounded_memory(path):  # here too, as what memory lacks is no damage of the file
            return _parse_file(path, kind, split)
    except (OSError, EOFError, zlib.error, pa.ArrowException) as exc:
        raise InputError(f"{path}: cannot be read ({first_line(exc)}); is it really {kind or 'gzip'}?") from exc


def _parse_file(path: Path, kind: str, split: str) -> pa.Table:
    with path.open("rb") as stream:
        magic = stream.read(4)
    if packed := next((name for start, name in _PACKED.items() if magic.startswith(start)), None):
        raise InputError(f"{path}: is {packed}, which is not read; unpack it, or write {', '.join(SUFFIXES)}")
    if magic == b"PAR1" or kind == ".parquet":
        return name_classes(_read_parquet(path), str(path))
    data = to_utf8(_unpack(path) if magic.startswith(b"\x1f\x8b") else path.read_bytes(), str(path))
    if kind in (".csv", ".tsv") and not _is_json_line(data):
        return _parse_csv(data, path, kind)
    if kind not in SUFFIXES and data.lstrip()[:1] not in (b"{", b"["):
        known = f"use {', '.join(SUFFIXES)} (also .gz)"
        raise InputError(f"{path}: unknown kind of file {kind or path.name!r}; {known}")
    return _parse_json(data, path, split)


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
            raise InputError(f"{path}: claims {rows} rows in {show_bytes(size)}, and texts are longer; write it again")
        _check_width(file.metadata.num_columns, path)
    return pa_parquet.read_table(path)


def _check_width(columns: int, path: Path) -> None:
    if columns > _MOST_COLUMNS:
        raise InputError(f"{path}: has {columns} columns; give at most {_MOST_COLUMNS}, of which Cuvée reads four")


# --- CSV -------------------------------------------------------------------------------------------
def _parse_csv(data: bytes, path: Path, kind: str) -> pa.Table:
    own = "\t" if kind == ".tsv" else ","
    separator = _find_separator(data, own)
    if data[:4].lower() == b"sep=":  # as spreadsheets write it
        data = data[data.find(b"\n") % (len(data) + 1) + 1 :]
    if separator != own:
        named = "tabs" if separator == "\t" else repr(separator)
        warnings.warn(f"{path}: its cells are read as separated by {named}", InputWarning, stacklevel=2)
    _check_width(data.count(separator.encode(), 0, data.find(b"\n") % (len(data) + 1)) + 1, path)
    # Arrow holds the text as it was split besides the table, and ends the process where memory runs out
    check_memory(path, 3 * len(data) + 16 * (data.count(separator.encode()) + data.count(b"\n")))
    quoted = _is_quoted(data, separator.encode(), path, is_tsv=kind == ".tsv")
    mark = '"' if quoted else False
    parse = pa_csv.ParseOptions(delimiter=separator, quote_char=mark, double_quote=quoted, newlines_in_values=quoted)
    read = pa_csv.ReadOptions(use_threads=False, block_size=min(len(data) + 1, 2**30))  # a cell lies in one block
    with pa_csv.open_csv(io.BytesIO(data), read_options=read, parse_options=parse) as stream:
        names = stream.schema.names
    if odd := next((name for name in names if name != name.strip()), None):
        said = f"column {odd!r} has blanks at its edges; remove them from the header, or name the column so"
        warnings.warn(f"{path}: {said}", InputWarning, stacklevel=2)
    # a cell without anything is null, one of "" is an empty string: so what was written comes back
    convert = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )  # fmt: skip
    return pa_csv.read_csv(io.BytesIO(data), read_options=read, parse_options=parse, convert_options=convert)


def _find_separator(data: bytes, own: str) -> str:
    """The separator that splits the most of the first lines as it splits the header; the file's own where none does."""
    text = data[:_SNIFFED].decode("utf-8", "replace")
    if text[:4].lower() == "sep=" and text[4:5] in _SEPARATORS and text[5:6] in ("\r", "\n"):
        return text[4]
    lines = [line for line in re.sub(r'"[^"]*"', "", text).splitlines()[:50] if line.strip()]
    if len(data) > _SNIFFED and len(lines) > 1:
        lines.pop()

    def fit(separator: str) -> tuple[bool, float, bool]:
        wanted = lines[0].count(separator)
        return wanted > 0, sum(line.count(separator) == wanted for line in lines) / len(lines), separator == own

    return max((own, *_SEPARATORS), key=fit) if lines else own


def _is_quoted(data: bytes, separator: bytes, path: Path, *, is_tsv: bool) -> bool:
    """Whether quotation marks enclose cells. In a TSV, where each line is a row, only if they do so throughout.

    Raises:
        InputError: one opens a cell that does not end before a separator; with the line.
    """
    if b'"' not in data:
        return False
    ends = re.escape(separator) + rb"\r\n"
    opens, cell = re.compile(rb'(?:\A|(?<=[%s]))"' % ends), re.compile(rb'"[^"]*+(?:""[^"]*+)*+"(?=[%s]|\Z)' % ends)
    lines = [line for line in data.split(b"\n") if line.strip()]
    each_a_row = len({line.count(separator) for line in lines}) == 1
    at, needed = 0, True
    while found := opens.search(data, at):
        whole = cell.match(data, found.start())
        if whole is None:
            if each_a_row or separator == b"\t":
                return False
            line = data.count(b"\n", 0, found.start()) + 1
            raise InputError(f'{path}, line {line}: a quotation mark opens a cell, none closes it; write it twice, ""')
        needed &= b'""' in whole[0][1:-1]  # a cell without one would not have been enclosed
        at = whole.end()
    if not is_tsv or not each_a_row or (needed and at):
        return True
    rows = [line.rstrip(b"\r").split(separator) for line in lines[1:]]
    return any(all(cell.fullmatch(each) for each in column) for column in zip(*rows, strict=True))


# --- JSON ------------------------------------------------------------------------------------------
def _is_json_line(data: bytes) -> bool:
    """Whether the first line that is not blank is a JSON object, or begins a list of them."""
    line = data.lstrip()[:_SNIFFED].split(b"\n", 1)[0]
    if not line.startswith((b"{", b"[")):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return line.strip() in (b"[", b"{", b"[{") or len(line) == _SNIFFED
    return True


def _parse_json(data: bytes, path: Path, split: str) -> pa.Table:
    """Rows of JSONL, of a JSON list, or of an object that holds lists of rows."""
    lines = [(number, line) for number, line in enumerate(io.BytesIO(data), start=1) if line.strip()]
    first = lines[0][1].strip() if lines else b""
    if len(lines) == 1 or first.startswith(b"[") or not first.endswith(b"}"):
        found = _rows_of(parse_json(data.decode("utf-8"), str(path)), path, split)
        rows, places = found, [f"row {number}" for number in range(1, len(found) + 1)]
    else:
        rows = [parse_json(line.decode("utf-8"), str(path), number) for number, line in lines]
        places = [f"line {number}" for number, _ in lines]
    columns = dict[str, None]()
    for place, row in zip(places, rows, strict=True):
        if not isinstance(row, dict):
            raise InputError(f"{path}, {place}: a row must be a JSON object, got {type(row).__name__}")
        columns |= dict.fromkeys(row)
        _check_width(len(columns), path)
    try:
        for name in columns:
            name.encode()
        made = [json_column(name, [cast("dict[str, object]", row).get(name) for row in rows]) for name in columns]
    except RecursionError as exc:
        raise InputError(f"{path}: broken JSON (nested too deep)") from exc
    except UnicodeEncodeError as exc:
        raise InputError(f"{path}: the name of a column holds half of a surrogate pair, \\ud...; rename it") from exc
    return pa.table([array for _, array in made], schema=pa.schema([field for field, _ in made]))


def _rows_of(whole: object, path: Path, split: str) -> list[object]:
    """The rows of one JSON value."""
    if not isinstance(whole, dict):
        return whole if isinstance(whole, list) else [whole]
    lists = {
        name: rows
        for name, rows in whole.items()
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    }
    splits = {name: rows for name, rows in lists.items() if _SPLIT.fullmatch(name)}
    key = next((name for name in _ROWS_KEYS if name in lists), None)
    if splits and (split or key is None):
        return splits[_choose_split(path, list(splits), split)]
    return [whole] if key is None else lists[key]


# --- folders, and Hugging Face datasets ------------------------------------------------------------
def _choose_split(path: Path, splits: Sequence[str], split: str) -> str:
    """The split that is asked for, or the only one.

    Raises:
        InputError: there are several, or not this one.
    """
    if split in splits or (not split and len(splits) == 1):
        return split or splits[0]
    if not splits or Path(split).suffix:
        raise _missing(path / split)
    asked = f"{path / split}: no such file or split; {path} has" if split else f"{path}: has"
    usual = max(splits, key=lambda name: name.startswith("train"))
    raise InputError(f"{asked} the splits {', '.join(splits)}; give one of them, such as {path / usual}")


def _read_beir(path: Path, split: str) -> pa.Table:
    """Queries with their relevant passages of one split of a BEIR folder; the split ``corpus`` is all its passages.

    A passage is its title, a blank and its text, as BEIR's own evaluation joins them.

    Raises:
        InputError: a file lacks a column, an identifier is in no file, or there is no such split.
    """
    passages, queries = (_read_ids(_find(path, name)) for name in ("corpus", "queries"))
    if split == "corpus":
        return pa.table({"text": list(passages.values())})
    judged = {each.name.split(".")[0]: each for each in sorted((path / "qrels").glob("*.tsv"))}
    if not judged:
        raise InputError(f"{path / 'qrels'}: no .tsv here; it says which passages are relevant, such as qrels/test.tsv")
    chosen = judged[_choose_split(path, list(judged), split)]
    rows: dict[str, list[str]] = {"query": [], "passage": []}
    for number, line in enumerate(to_utf8(chosen.read_bytes(), str(chosen)).decode().splitlines(), start=1):
        cells = line.split("\t")
        if number == 1 and not cells[-1].strip().lstrip("-").isdigit():
            continue  # the header
        if len(cells) != 3 or not cells[2].strip().lstrip("-").isdigit():
            raise InputError(f"{chosen}, line {number}: needs query-id, corpus-id and a whole score, apart by tabs")
        for name, cell, known in (("queries", cells[0], queries), ("corpus", cells[1], passages)):
            if cell not in known:
                raise InputError(f"{chosen}, line {number}: {cell!r} is no _id of {_find(path, name)}")
        if int(cells[2]) > 0:
            rows["query"].append(queries[cells[0]])
            rows["passage"].append(passages[cells[1]])
    if not rows["query"]:
        raise InputError(f"{chosen}: no line has a score above 0, so no passage is relevant")
    return pa.table(rows)


def _find(path: Path, name: str) -> Path:
    """``NAME.jsonl`` of a BEIR folder, packed or not."""
    return next((at for at in (path / f"{name}.jsonl", path / f"{name}.jsonl.gz") if at.exists()), path / name)


def _read_ids(path: Path) -> dict[str, str]:
    """``_id`` -> title and text of each row."""
    table = _read_file(path)
    for name in ("_id", "text"):
        if name not in table.column_names:
            raise InputError(f"{path}: has no column {name!r}, which files of BEIR have")
    titles = table["title"].to_pylist() if "title" in table.column_names else [None] * table.num_rows
    rows = zip(table["_id"].to_pylist(), titles, table["text"].to_pylist(), strict=True)
    return {str(key): " ".join(part for part in (title, text) if part) for key, title, text in rows}


def _read_folder(path: Path, split: str) -> pa.Table:
    if (path / "qrels").is_dir() and all(_find(path, name).is_file() for name in ("corpus", "queries")):
        return _read_beir(path, split)
    if (path / "dataset_dict.json").exists():
        names = sorted(part.name for part in path.iterdir() if (part / "state.json").exists())
        return _read_folder(path / _choose_split(path, names, split), "")
    if (path / "state.json").exists():
        load = _import_datasets().load_from_disk
        with explain_damage(f"{path}", "save the dataset again"):
            return dataset_table(load(str(path)))
    kinds = [[file for file in sorted([*path.glob(f"*{kind}"), *path.glob(f"*/*{kind}")])] for kind in _SHARDS]
    splits: dict[str, list[Path]] = {}
    for shard in next(filter(None, kinds), []):
        found = _SPLIT.search(shard.name) or (_SPLIT.fullmatch(shard.parent.name) if shard.parent != path else None)
        splits.setdefault(found[1] if found else "", []).append(shard)
    if not splits and not split:
        raise InputError(f"{path}: is no saved Hugging Face dataset; give a file, Parquet shards or a saved dataset")
    named = [name for name in splits if name]
    if split or len(named) > 1:
        return _read_shards(splits[_choose_split(path, named, split)])
    return _read_shards([shard for shards in splits.values() for shard in shards])


def _read_shards(shards: Sequence[Path]) -> pa.Table:
    """The rows of files in the order of their names; one without rows among others is none."""
    found = {shard: table for shard in shards if (table := _read_file(shard)).num_rows}
    if not found:
        raise InputError(f"{shards[0].parent}: no rows; its {len(shards)} files are empty")
    first = next(iter(found.values()))
    for shard, table in found.items():
        if set(table.column_names) != set(first.column_names):
            odd = sorted(set(table.column_names) ^ set(first.column_names))[0]
            raise InputError(f"{shard}: column {odd!r} is not in all shards of this folder ({shards[0].name}, ...)")
    try:
        return stack_tables([*found.values()])
    except pa.ArrowException as exc:
        raise InputError(f"{shards[0].parent}: its shards have different types ({first_line(exc)})") from exc


def dataset_table(dataset: datasets.Dataset | datasets.IterableDataset) -> pa.Table:
    """The columns of a Hugging Face dataset, whatever its format; integer class labels become their names."""
    if isinstance(dataset, dict):
        raise InputError(f"the dataset has splits {', '.join(dataset)}; give one of them")
    if isinstance(dataset, _import_datasets().IterableDataset):
        parts = list(dataset.with_format("arrow").iter(_BLOCK))
        table = pa.concat_tables(parts) if parts else pa.table({})
    else:
        table = pa.table(dataset.with_format("arrow")[:])
    return name_classes(table, "datasets.Dataset")


def name_classes(table: pa.Table, where: str) -> pa.Table:
    """The table with names in place of numbers of classes, by the metadata of Hugging Face; -1 is no class.

    Raises:
        InputError: a number has no name; with its row.
    """
    features: object = {}
    if (written := (table.schema.metadata or {}).get(b"huggingface")) is not None:
        said = parse_json(written.decode("utf-8", "replace"), where)
        info = said.get("info") if isinstance(said, dict) else None
        features = (info.get("features") if isinstance(info, dict) else None) or {}
    for place, field in enumerate(table.schema):
        feature = features.get(field.name) if isinstance(features, dict) else None
        names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
        if not isinstance(names, list) or not pa.types.is_integer(field.type):
            continue
        numbers = table.column(place).to_pylist()
        wrong = next((row for row, n in enumerate(numbers, 1) if n is not None and not -1 <= n < len(names)), None)
        if wrong is not None:
            said = f"column {field.name!r} is class {numbers[wrong - 1]}, and {len(names)} classes have names"
            raise InputError(f"{where}, row {wrong}: {said}; write the dataset again")
        labels = pa.array([None if n is None or n < 0 else str(names[n]) for n in numbers], pa.string())
        table = table.set_column(place, field.name, labels)
    return table.replace_schema_metadata(None)


def _import_datasets() -> ModuleType:
    """The package ``datasets``, or MissingDependency with the command that installs it."""
    try:
        import datasets
    except ImportError as exc:
        raise MissingDependency("Hugging Face datasets are not installed: pip install 'cuvee[datasets]'") from exc
    return cast("ModuleType", datasets)
