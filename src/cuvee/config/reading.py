"""Reading and writing study.yaml, and what a wrong one is told: the line, the nearest valid key or value."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, Tag, ValidationError

from cuvee.config.generators import FileGenerator, absolute_paths
from cuvee.config.schema import StudyConfig
from cuvee.errors import ConfigError
from cuvee.generate.masking import mask_urls
from cuvee.inputs import parse_yaml, read_text, show_value
from cuvee.registry import nearest_name


def read_config(path: str | Path) -> StudyConfig:
    """Read study.yaml; its relative paths become absolute.

    Raises:
        ConfigError: with file, line, key, and the nearest valid key or what is expected.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; `cuvee init DATA` writes a study.yaml")
    node, raw = parse_yaml(read_text(path, ConfigError), str(path))
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a study is a mapping of keys; `cuvee init DATA` writes one")
    try:
        config = StudyConfig.model_validate(raw)
    except ValidationError as exc:
        raise ConfigError(explain_error(exc, str(path), node)) from exc
    return _absolute(config, path.resolve().parent)


def make_config(values: StudyConfig | dict[str, object]) -> StudyConfig:
    """A config from Python values; relative paths are relative to the working folder.

    Raises:
        ConfigError: as :func:`read_config`.
    """
    if isinstance(values, StudyConfig):
        return values
    try:
        return _absolute(StudyConfig.model_validate(values), Path.cwd())
    except ValidationError as exc:
        raise ConfigError(explain_error(exc, "config", None)) from exc


def config_to_yaml(config: StudyConfig) -> str:
    """The resolved config: every key, defaults included."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def scalar_to_yaml(value: str) -> str:
    """A text on one line of nothing but printable characters, as it may stand in a comment too."""
    return yaml.dump(value, Dumper=_Dumper, allow_unicode=value.isprintable(), width=math.inf).split("\n")[0]


class _Dumper(yaml.SafeDumper):
    """Escapes what is not printable: in YAML's other styles several line breaks read back as spaces."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'
    ),
)


def config_schema() -> str:
    """JSON schema of study.yaml, for editors."""
    return json.dumps(StudyConfig.model_json_schema(), indent=2)


def _absolute(config: StudyConfig, folder: Path) -> StudyConfig:
    def fix(path: str | None) -> str | None:
        return None if path is None else str((folder / path).resolve())

    data = config.data.model_copy(update={k: fix(getattr(config.data, k)) for k in ("real", "test", "validation")})
    pools = tuple(p.model_copy(update={"path": fix(p.path)}) for p in config.pools)
    writing = config.writing.model_copy(update={k: fix(getattr(config.writing, k)) for k in ("prompts", "sources")})
    evaluate = config.evaluate.model_copy(update={"passages": fix(config.evaluate.passages)})
    generator = config.generator
    if not isinstance(generator, FileGenerator):
        generator = absolute_paths(generator, folder)
    track = config.track and config.track.in_folder(folder)
    made = {"data": data, "pools": pools, "generator": generator, "writing": writing, "track": track}
    return config.model_copy(update={**made, "evaluate": evaluate})


def explain_error(exc: ValidationError, where: str, node: yaml.Node | None) -> str:
    """One line: file, line, key, what is wrong, the nearest valid key or value.

    Of several errors the most telling is told: an unknown key before the missing one it was meant to be, and a value
    that is wrong before another type that it might have had.
    """
    error = min(exc.errors(), key=lambda e: (e["type"] != "extra_forbidden", e["type"] != "value_error"))
    location, valid = _follow(error["loc"])
    key = ".".join(str(p) for p in location)
    line = _line_of(node, location)
    place = f"{where}, line {line}" if line else where
    if error["type"] == "extra_forbidden":
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
        return f"{place}: {key}.{field} is {show_value(tag)}; {nearest_name(tag, valid)}"
    if error["type"] == "literal_error":
        expected = cast("dict[str, str]", error.get("ctx", {})).get("expected", "").replace("'", "")
        given = str(error["input"])
        return (
            f"{place}: {key} is {show_value(given)}; {nearest_name(given, expected.replace(' or ', ', ').split(', '))}"
        )
    if key == "name" and error["type"] in ("string_pattern_mismatch", "string_too_long"):
        named = "it names the run folder: letters, digits, '.', '-', '_', and not dots alone"
        return f"{place}: name is {show_value(error['input'])}; {named}"
    message = error["msg"].removeprefix("Value error, ")
    shown = "" if error["type"] == "value_error" else f" (got {show_value(error['input'], mask_urls)})"
    return f"{place}: {key + ': ' if key else ''}{message[0].lower()}{message[1:]}{shown}"


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


def _follow(location: Sequence[int | str]) -> tuple[list[int | str], list[str]]:
    """The keys and numbers that lead to a place, and the valid keys of the section where its last key stands.

    Pydantic puts a name before what is wrong in one of several sections or types (``topics``, ``float``), which is no
    key of the file: as a key may have the same name, only the schema tells them apart.
    """
    kind: object = StudyConfig
    shown: list[int | str] = []
    valid: list[str] = []
    for part in location:
        branches = _branches(kind)
        if isinstance(part, str) and len(branches) > 1:
            kind = next((branch for names, branch in branches if part in names), None)
            continue
        kind = branches[0][1] if branches else None
        shown.append(part)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            valid = list(kind.model_fields)
            kind = kind.model_fields[part].annotation if part in kind.model_fields else None
        else:  # the values of a mapping, the entries of a list
            inner = get_args(kind)
            kind = inner[-1 if isinstance(part, str) else 0] if inner else None
    return shown, valid


def _branches(kind: object) -> list[tuple[set[str], object]]:
    """The types that a value may have but None, each with the names that pydantic may give it."""
    if kind is None or kind is NoneType:
        return []
    if get_origin(kind) is Annotated:
        inner, *notes = get_args(kind)
        tags = {note.tag for note in notes if isinstance(note, Tag)}
        return [(names | tags, branch) for names, branch in _branches(inner)]
    if get_origin(kind) in (Union, UnionType):
        return [found for part in get_args(kind) for found in _branches(part)]
    names = {getattr(kind, "__name__", str(kind))}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        of = [kind.model_fields[name].annotation for name in ("kind", "name") if name in kind.model_fields]
        names |= {str(value) for each in of if get_origin(each) is Literal for value in get_args(each)}
    return [(names, kind)]
