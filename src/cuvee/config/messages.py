"""What a wrong study.yaml is told: the line, and the nearest valid key or value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, get_args

import yaml
from pydantic import BaseModel, ValidationError

from cuvee.config.dials import (
    AttributesConfig,
    BaseThenRefineConfig,
    CombinedConfig,
    ExamplesConfig,
    ParaphraseConfig,
    SamplingConfig,
    TabooConfig,
    TopicsConfig,
)
from cuvee.config.generators import EmbeddedGenerator, EndpointGenerator, FileGenerator
from cuvee.config.schema import StudyConfig
from cuvee.registry import nearest_name

_TAGS = {
    *("embedded", "endpoint", "files", "topics", "paraphrase", "sampling", "attributes", "examples", "taboo"),
    *("base_then_refine", "combined", "own", "float", "SamplingLevel"),
}


def explain_error(exc: ValidationError, where: str, node: yaml.Node | None) -> str:
    """One line: file, line, key, what is wrong, the nearest valid key or value.

    Of several errors the most telling is told: an unknown key before the missing one it was meant to be.
    """
    error = min(exc.errors(), key=lambda e: e["type"] != "extra_forbidden")
    loc = error["loc"]
    # a dial's tag stands before its keys, of which one may have the same name: topics.topics
    location = [p for i, p in enumerate(loc) if p not in _TAGS or _is_key(node, p) or loc[i - 1] == p]
    key = ".".join(str(p) for p in location)
    line = _line_of(node, location)
    place = f"{where}, line {line}" if line else where
    if error["type"] == "extra_forbidden":
        valid = _keys_at(error["loc"][:-1])
        return f"{place}: unknown key {key!r}; {nearest_name(str(location[-1]), valid)}"
    if error["type"] == "missing":
        return f"{place}: key {key!r} is missing; add it"
    if error["type"] == "union_tag_invalid":
        context = cast("dict[str, str]", error.get("ctx", {}))
        valid = context.get("expected_tags", "").replace("'", "").split(", ")
        tag = context.get("tag", "")
        field = context.get("discriminator", "").strip("'")
        if field.endswith("()"):  # a dial's section is chosen by a function of its name
            field, valid = "name", ["module:Name" if v == "own" else v for v in valid]
        return f"{place}: {key}.{field} is {tag!r}; {nearest_name(tag, valid)}"
    if error["type"] == "literal_error":
        expected = cast("dict[str, str]", error.get("ctx", {})).get("expected", "").replace("'", "")
        given = str(error["input"])
        return f"{place}: {key} is {given!r}; {nearest_name(given, expected.replace(' or ', ', ').split(', '))}"
    message = error["msg"].removeprefix("Value error, ")
    shown = "" if error["type"] == "value_error" else f" (got {error['input']!r})"
    return f"{place}: {key + ': ' if key else ''}{message[0].lower()}{message[1:]}{shown}"


def _is_key(node: yaml.Node | None, part: int | str) -> bool:
    return isinstance(node, yaml.MappingNode) and any(k.value == part for k, _ in node.value)


def _line_of(node: yaml.Node | None, location: Sequence[int | str]) -> int | None:
    """The line of the deepest part of ``location`` that is in the file."""
    line: int | None = None
    for part in location:
        found: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    line, found = key.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = node.value[part]
            line = found.start_mark.line + 1
        if found is None:
            break
        node = found
    return line


def _keys_at(location: Sequence[int | str]) -> list[str]:
    """Valid keys of the section at ``location`` (with pydantic's union tags in it)."""
    model: type[BaseModel] = StudyConfig
    for part in location:
        if isinstance(part, str) and part in _TAGS:
            model = next(m for m in _MEMBERS if part in str(m.model_fields[_tag_field(m)].annotation))
        elif isinstance(part, str) and part in model.model_fields:
            model = _section_of(model.model_fields[part].annotation) or model
    return list(model.model_fields)


_MEMBERS: tuple[type[BaseModel], ...] = (
    EmbeddedGenerator, EndpointGenerator, FileGenerator, TopicsConfig, ParaphraseConfig, SamplingConfig,
    AttributesConfig, ExamplesConfig, TabooConfig, BaseThenRefineConfig, CombinedConfig,
)  # fmt: skip


def _tag_field(model: type[BaseModel]) -> str:
    return "kind" if "kind" in model.model_fields else "name"


def _section_of(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for a in get_args(annotation) if (found := _section_of(a))), None)
