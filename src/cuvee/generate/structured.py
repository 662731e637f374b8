"""Answers that are JSON: asking for a schema, and finding the JSON in what came back. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

MOST_STARTS = 64
"""Opening braces that are tried, so that a degenerate answer costs little."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", flags=re.DOTALL)
_TYPES: Mapping[str, Callable[[Json], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    ),
}


def schema_text(schema: Mapping[str, Json]) -> str:
    """A JSON schema as the text a request carries: compact, its properties in the order given.

    The order stays because endpoints that hold answers to a schema write the properties in it.
    """
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


@lru_cache(maxsize=64)
def read_schema(text: str) -> dict[str, Json]:
    """The schema that the text holds.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise ValueError(f'schema {text[:60]!r}; must be the JSON text of an object, such as \'{{"type":"object"}}\'')
    return schema


def response_format(text: str) -> dict[str, Json]:
    """What asks an OpenAI-compatible endpoint for answers that fit the schema; named by the schema's title.

    Raises:
        ValueError: the schema is no JSON object.
    """
    schema = read_schema(text)
    title = schema.get("title")
    name = title if isinstance(title, str) and _NAME.fullmatch(title) else "answer"
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}


def parse_structured(text: str, schema: str) -> dict[str, Json] | None:
    """The first JSON object in an answer that fits the schema; None if there is none.

    Code fences, chatter around it and thoughts in ``<think>`` are skipped. Of the schema ``type``, ``required``,
    ``properties``, ``additionalProperties: false``, ``items``, ``minItems``, ``maxItems``, ``enum`` and ``const`` are
    checked at every depth; its other words are not.

    Raises:
        ValueError: the schema is no JSON object.
    """
    wanted = read_schema(schema)
    for found in _objects(_THOUGHT.sub("", text)):
        if _fits(found, wanted):
            return found
    return None


def _objects(text: str) -> Iterator[dict[str, Json]]:
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    start = text.find("{")
    for _ in range(MOST_STARTS):
        if start < 0:
            return
        try:
            found, _end = decoder.raw_decode(text, start)
            yield _whole(found)
        except (ValueError, RecursionError):
            pass  # this brace opens no object: the next one may
        start = text.find("{", start + 1)


def _refuse_constant(name: str) -> Json:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _whole(found: dict[str, Json]) -> dict[str, Json]:
    """Escaped halves of surrogate pairs replaced: only whole characters can be stored."""
    text = json.dumps(found, ensure_ascii=False)
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if whole == text:
        return found
    mended: dict[str, Json] = json.loads(whole)
    return mended


def _fits(value: Json, schema: Json) -> bool:
    if not isinstance(schema, dict):
        return schema is not False
    kinds = schema.get("type")
    names = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    if names and not any(_TYPES[n](value) for n in names if isinstance(n, str) and n in _TYPES):
        return False
    choices = schema.get("enum")
    if isinstance(choices, list) and not any(_same(value, choice) for choice in choices):
        return False
    if "const" in schema and not _same(value, schema["const"]):
        return False
    if isinstance(value, dict):
        return _object_fits(value, schema)
    return _array_fits(value, schema) if isinstance(value, list) else True


def _object_fits(value: Mapping[str, Json], schema: Mapping[str, Json]) -> bool:
    required, properties = schema.get("required"), schema.get("properties")
    if isinstance(required, list) and any(name not in value for name in required):
        return False
    known = properties if isinstance(properties, dict) else {}
    if schema.get("additionalProperties") is False and any(name not in known for name in value):
        return False
    return all(_fits(part, known[name]) for name, part in value.items() if name in known)


def _array_fits(value: Sequence[Json], schema: Mapping[str, Json]) -> bool:
    least, most = schema.get("minItems"), schema.get("maxItems")
    if isinstance(least, int) and len(value) < least:
        return False
    if isinstance(most, int) and len(value) > most:
        return False
    return "items" not in schema or all(_fits(part, schema["items"]) for part in value)


def _same(value: Json, other: Json) -> bool:
    """Equal as JSON: true is not 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)
