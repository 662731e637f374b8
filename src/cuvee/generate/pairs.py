"""Both sides of a row in one answer: as JSON, or under labelled heads. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from cuvee.generate.strata import Writing
from cuvee.generate.structured import Json, parse_structured, schema_text
from cuvee.generate.templates import block

SEPARATOR = "====="
"""The line after each pair of a completion prompt: unlike a blank line or a heading, no answer holds it."""

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", flags=re.DOTALL)
_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "question": ("q",),
    "answer": ("a",),
    "instruction": ("prompt", "task"),
    "response": ("output", "answer"),
    "beginning": ("start", "opening"),
    "continuation": ("story", "ending"),
}
"""What small models call the sides too."""
_ANY_OBJECT = '{"type":"object"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both sides as they were answered. ``whole`` says that the answer's form shows that nothing is cut off."""

    text: str
    target: str
    whole: bool


def pair_schema(writing: Writing) -> str:
    """The JSON schema of an answer that is a pair."""
    sides = (writing.text, writing.target)
    schema: dict[str, Json] = {
        "title": writing.kind,
        "type": "object",
        "properties": {side: {"type": "string"} for side in sides},
        "required": list(sides),
        "additionalProperties": False,
    }
    return schema_text(schema)


def find_pair(answer: str, writing: Writing) -> Pair | None:
    """The first pair in an answer: a JSON object, else labelled heads; None if it holds none.

    A completion goes on where its prompt ends, so what stands before the target's head is the text.
    """
    text = _THOUGHT.sub("", answer)
    return _find_json(text, writing) or _find_heads(text, writing)


def _find_json(text: str, writing: Writing) -> Pair | None:
    if "{" not in text:
        return None
    wanted = _lenient_schema(writing.text, writing.target)
    found = parse_structured(text, wanted)
    if found is None and (other := parse_structured(text, _ANY_OBJECT)) is not None:
        found = {name.casefold(): value for name, value in other.items()}
    if found is None:
        return None
    one, two = found.get(writing.text), found.get(writing.target)
    if not isinstance(one, str) or not isinstance(two, str):
        return None
    return Pair(text=one, target=two, whole=True)


@lru_cache(maxsize=8)
def _lenient_schema(text: str, target: str) -> str:
    properties: dict[str, Json] = {text: {"type": "string"}, target: {"type": "string"}}
    return schema_text({"type": "object", "properties": properties, "required": [text, target]})


def _find_heads(text: str, writing: Writing) -> Pair | None:
    head, answer_head, end = _heads(writing)
    split = answer_head.search(text)
    if split is None:
        return None
    before, after = text[: split.start()], text[split.end() :]
    named = list(head.finditer(before))
    if named:
        before = before[named[0].end() :]
    stop = end.search(after)
    return Pair(text=block(before), target=block(after[: stop.start()] if stop else after), whole=False)


@lru_cache(maxsize=8)
def _heads(writing: Writing) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Patterns of the text's head, the target's head, and what ends a pair."""
    closing = [name for name in (writing.source, writing.text) if name is not None]
    return (
        _head([writing.text, *_OTHER_NAMES.get(writing.text, ())]),
        _head([writing.target, *_OTHER_NAMES.get(writing.target, ())]),
        re.compile(rf"^\s*={{{len(SEPARATOR)},}}\s*$|{_head(closing).pattern}", flags=re.IGNORECASE | re.MULTILINE),
    )


def _head(names: list[str]) -> re.Pattern[str]:
    """One of the names at the start of a line with a colon, perhaps numbered or marked up."""
    wanted = "|".join(names)
    return re.compile(
        rf"^[ \t]*(?:\d{{1,3}}[.)][ \t]*|[-*#>]+[ \t]*)?\**(?:{wanted})(?:[ \t]*\d{{1,3}})?\**[ \t]*:\**[ \t]*",
        flags=re.IGNORECASE | re.MULTILINE,
    )
