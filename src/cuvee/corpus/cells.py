"""Cells of a column: what is read as a string, what is no value, and what is refused by its row."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from cuvee.characters import visible
from cuvee.corpus.content import UNSEEN
from cuvee.errors import InputError
from cuvee.inputs import show_value

READ_ROWS = 65_536  # that are Python strings at a time
_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair
_BLANK = rf"\A[\s\p{{Z}}\x1c-\x1f\x85{UNSEEN}]*\z"  # of Arrow
_AS_JSON = {b"cuvee": b"json"}


_AS_WRITTEN = (
    pa.types.is_integer, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_temporal, pa.types.is_decimal,
)  # fmt: skip


def json_column(name: str, values: Sequence[object], *, plain: bool = True) -> tuple[pa.Field, pa.Array]:
    """A column of JSON values: of Arrow's type where all are of one plain kind, else each cell as its JSON.

    Lists, objects, mixed kinds, numbers beyond 64 bits and halves of surrogate pairs thus stay as they are until
    someone reads them. NaN is no value.
    """
    kept = [None if value != value else value for value in values]
    kinds = {type(value) for value in kept} - {type(None)}
    if plain and len(kinds) <= 1 and not kinds & {list, dict}:
        try:
            made = pa.array(kept)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            pass
        else:
            return pa.field(name, made.type), made
    written = [None if value is None else json.dumps(value, default=_plain) for value in kept]
    return pa.field(name, pa.string(), metadata=_AS_JSON), pa.array(written, pa.string())


def is_json(field: pa.Field) -> bool:
    """Whether ``json_column`` wrote the cells as JSON."""
    return bool(field.metadata) and field.metadata.get(b"cuvee") == b"json"


def to_values(field: pa.Field, column: pa.ChunkedArray, where: str) -> list[object]:
    """The cells as values that JSON has."""
    if is_json(field):
        return [None if cell is None else json.loads(cell) for cell in column.to_pylist()]
    column = _stored(column)
    is_bytes = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
    values: list[object] = (as_strings(field, column, where, blank=True) if is_bytes else column).to_pylist()
    return values


def to_typed(field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column, of Arrow's type instead of JSON where it has one that holds all but fields that are null."""
    if not is_json(field):
        return column
    values = to_values(field, column, "")
    try:
        made = pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return column
    is_whole = "struct<>" not in str(made.type) and drop_nulls(made.to_pylist()) == drop_nulls(values)
    return pa.chunked_array([made]) if is_whole else column


def drop_nulls(value: object) -> object:
    """A value of JSON without the null fields that a table gives to each object."""
    if isinstance(value, dict):
        return {name: drop_nulls(each) for name, each in value.items() if each is not None}
    return [drop_nulls(each) for each in value] if isinstance(value, list) else value


def typed_table(table: pa.Table) -> pa.Table:
    """The table with columns of Arrow's types instead of JSON."""
    for place, field in enumerate(table.schema):
        if is_json(field):
            table = table.set_column(place, field.name, to_typed(field, table.column(place)))
    return table


def stack_tables(tables: Sequence[pa.Table], *, mixed: bool = False) -> pa.Table:
    """The rows of all tables, null where one lacks a column; JSON where some are, or where ``mixed`` types meet.

    Raises:
        ArrowException: types that do not go together, or values that JSON has not.
    """
    for name in dict.fromkeys(name for table in tables for name in table.column_names):
        columns = [table.select([name]) for table in tables if name in table.column_names]
        if len({is_json(column.schema.field(0)) for column in columns}) > 1 or (mixed and not _unify(columns)):
            tables = [_write_json(table, name) if name in table.column_names else table for table in tables]
    return pa.concat_tables(tables, promote_options="permissive")


def _unify(tables: Sequence[pa.Table]) -> bool:
    try:
        pa.unify_schemas([table.schema for table in tables], promote_options="permissive")
    except pa.ArrowException:
        return False
    return True


def _write_json(table: pa.Table, name: str) -> pa.Table:
    if is_json(table.schema.field(name)):
        return table
    try:
        made = json_column(name, table[name].to_pylist(), plain=False)
        return table.set_column(table.column_names.index(name), *made)
    except TypeError as exc:
        raise pa.ArrowInvalid(f"column {name!r}: {exc}") from exc


def to_text(field: pa.Field, column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """The column as CSV holds it: lists and objects as JSON in a cell."""
    column = _stored(column)
    if is_json(field) or pa.types.is_nested(column.type):
        values = to_values(field, column, where)
        cells = (v if v is None or (isinstance(v, str) and not _HALF.search(v)) else to_cell(v) for v in values)
        return pa.chunked_array([pa.array(cells, pa.string())])
    plain = pa.types.is_boolean(column.type) or pa.types.is_primitive(column.type)
    return column if plain else as_strings(field, column, where, blank=True)


def to_cell(value: object) -> str:
    """One line of JSON, which UTF-8 can hold."""
    written = json.dumps(value, ensure_ascii=False, default=_plain)
    return json.dumps(value, default=_plain) if _HALF.search(written) else written


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        raise TypeError("bytes are not JSON")
    return str(value)


def read_lists(column: pa.ChunkedArray) -> pa.Array:
    """A column of lists of strings, as it is or as the JSON of each cell."""
    cells = column.to_pylist()
    return pa.array([json.loads(cell) if isinstance(cell, str) else cell for cell in cells], pa.list_(pa.string()))


def as_strings(field: pa.Field, column: pa.ChunkedArray, where: str, *, blank: bool = False) -> pa.ChunkedArray:
    """A column as strings; null where there is nothing to read: null, NaN, and unless ``blank`` white space.

    Numbers, dates and true or false read as they are written; bytes are UTF-8.

    Raises:
        InputError: a cell is a list or an object, or no text; with its row.
    """
    column = _stored(column)
    kind = column.type
    if pa.types.is_string(kind) and not is_json(field):
        strings = column
    elif any(is_kind(kind) for is_kind in _AS_WRITTEN):
        strings = column.cast(pa.string())
    else:
        parts = []
        for start in range(0, len(column), READ_ROWS):
            part = column.slice(start, READ_ROWS).to_pylist()
            if is_json(field):
                part = [None if cell is None else json.loads(str(cell)) for cell in part]
            cells = enumerate(part, start=start + 1)
            parts.append(
                pa.array((read_string(v, f"{where}, row {n}: column {field.name!r}") for n, v in cells), pa.string())
            )
        strings = pa.chunked_array(parts, pa.string())
    if blank:
        return strings
    is_empty = pc.match_substring_regex(strings, _BLANK)
    return pc.if_else(is_empty, pa.scalar(None, pa.string()), strings)


def read_string(value: object, where: str) -> str | None:
    """A value as a string; None where there is none.

    Raises:
        InputError: it is a list or an object, or no text.
    """
    if value is None or value != value:
        return None
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise InputError(f"{where} holds bytes that are not UTF-8; decode it, or choose another column") from exc
    if isinstance(value, str):
        if _HALF.search(value):
            raise InputError(f"{where} holds half of a surrogate pair, \\ud...; remove it")
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    shown = visible(show_value(value)[:60])
    raise InputError(f"{where} holds {name_kind(value)}, not text: {shown}; name another column, or write a text a row")


def name_kind(value: object) -> str:
    """What kind of JSON a value is, in words."""
    kinds = {list: "a list", dict: "an object", str: "text", type(None): "nothing"}
    return kinds.get(type(value), type(value).__name__)


def _stored(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without dictionaries and extension types."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _stored(pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type))
    if pa.types.is_dictionary(kind):
        return _stored(pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], kind.value_type))
    return column
