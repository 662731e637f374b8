"""Answers that are JSON: asking for a schema, and finding the JSON in what came back. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

MOST_STARTS = 64
"""Opening braces that are tried, so that a degenerate answer costs little."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", flags=re.DOTALL)


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

    Code fences, chatter around it and thoughts in ``<think>`` are skipped. The schema is JSON Schema of 2020-12.

    Raises:
        ValueError: the schema is no JSON object.
    """
    wanted = _validator(schema)
    for found in _objects(_THOUGHT.sub("", text)):
        if wanted.is_valid(found):
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


@lru_cache(maxsize=64)
def _validator(schema: str) -> Draft202012Validator:
    from jsonschema import Draft202012Validator
    from referencing import Registry

    return Draft202012Validator(read_schema(schema), registry=Registry())  # which fetches no schema from elsewhere
