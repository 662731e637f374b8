"""Reading and writing study.yaml, the commented one of ``cuvee init``, and what a wrong one is told."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import yaml
from pydantic import ValidationError
from typing_extensions import TypeVar

from cuvee.config.schema import CheckRules, StudyConfig
from cuvee.config.sections import Section
from cuvee.corpus import Corpus
from cuvee.errors import ConfigError
from cuvee.inputs import parse_yaml, read_text, show_value
from cuvee.masking import mask_urls
from cuvee.registry import nearest_name
from cuvee.train import TASKS

S = TypeVar("S", bound=Section, default=StudyConfig)


# who writes a file of this kind
_HINTS: dict[type[Section], str] = {
    StudyConfig: "; `cuvee init DATA` writes a study.yaml",
    CheckRules: "; `cuvee check REAL --write-rules` proposes rules",
}


def read_config(path: str | Path, kind: type[S] = StudyConfig) -> S:  # type: ignore[assignment]
    """Read study.yaml, or a file of another ``kind``; its relative paths become absolute.

    Raises:
        ConfigError: with file, line, key, and the nearest valid key or what is expected.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file{_HINTS.get(kind, '')}")
    return parse_config(read_text(path, ConfigError), path, kind)


def parse_config(text: str, path: Path, kind: type[S] = StudyConfig) -> S:  # type: ignore[assignment]
    """The config that stands in ``path``, or is about to, as :func:`read_config` reads it."""
    node, raw = parse_yaml(text, str(path))
    if not isinstance(raw, dict):
        what = "a study is" if kind is StudyConfig else "this file must be"
        raise ConfigError(f"{path}: {what} a mapping of keys{_HINTS.get(kind, '')}")
    return _validate(raw, kind, path.resolve().parent, str(path), node)


def make_config(values: S | str | Path | dict[str, object], kind: type[S] = StudyConfig) -> S:  # type: ignore[assignment]
    """A config from its file, or from Python values, whose relative paths are relative to the working folder.

    Raises:
        ConfigError: as :func:`read_config`.
    """
    if isinstance(values, kind):
        return values
    if isinstance(values, str | Path):
        return read_config(values, kind)
    return _validate(values, kind, Path.cwd(), "config")


def _validate(values: object, kind: type[S], folder: Path, where: str, node: yaml.Node | None = None) -> S:
    try:
        return kind.model_validate(values, context=folder)
    except ValidationError as exc:
        raise ConfigError(explain_error(exc, where, values, node)) from exc


def config_to_yaml(config: Section) -> str:
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


def explain_error(exc: ValidationError, where: str, given: object, node: yaml.Node | None = None) -> str:
    """One line: file, line, key, what is wrong, the nearest valid key or value.

    Of several errors the most telling is told: an unknown key first, and a value that is wrong before another type that
    it might have had.
    """
    error = min(exc.errors(), key=lambda e: (e["type"] != "unknown_key", e["type"] != "value_error"))
    kind, context = error["type"], cast("dict[str, str]", error.get("ctx", {}))
    location = _follow(error["loc"], given, is_missing=kind == "missing")
    location += [context["key"]] if kind == "unknown_key" else []
    key, line = ".".join(map(str, location)), _line_of(node, location)
    place = f"{where}, line {line}" if line else where
    if kind == "unknown_key":
        return f"{place}: unknown key {key!r}; {context['nearest']}"
    if kind == "missing":
        return f"{place}: key {key!r} is missing; add it"
    if kind in ("union_tag_invalid", "literal_error"):
        expected = context.get("expected_tags", context.get("expected", "")).replace("'", "").replace(" or ", ", ")
        valid, told = expected.split(", "), context.get("tag", str(error["input"]))
        if kind == "union_tag_invalid":
            field = context["discriminator"].strip("'")
            key, valid = f"{key}.{field}", [*valid, "module:Name"] if field == "name" else valid
        return f"{place}: {key} is {show_value(told)}; {nearest_name(told, valid)}"
    if key == "name" and kind in ("string_pattern_mismatch", "string_too_long"):
        named = "it names the run folder: letters, digits, '.', '-', '_', and not dots alone"
        return f"{place}: name is {show_value(error['input'])}; {named}"
    message = error["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list, such as [a, b]")
    shown = "" if kind == "value_error" else f" (got {show_value(error['input'], mask_urls)})"
    return f"{place}: {key + ': ' if key else ''}{message[0].lower()}{message[1:]}{shown}"


def _follow(location: Sequence[int | str], given: object, *, is_missing: bool) -> list[int | str]:
    """The keys and numbers that lead to a place in what was given.

    Pydantic puts a name before what is wrong in one of several sections or types (``topics``, ``float``), which is no
    key of the file, though a key there may have the same name: then it is the first of the two.
    """
    shown: list[int | str] = []
    at, is_first = given, False
    for part in location[: len(location) - is_missing]:
        if isinstance(part, int):
            at = at[part] if isinstance(at, Sequence) and part < len(at) else None
        elif isinstance(at, Mapping) and part in at and not (is_first and part in (at.get("name"), at.get("kind"))):
            at = at[part]
        else:
            is_first = is_first and part == "named"  # the section's own name follows
            continue
        shown.append(part)
        is_first = True
    return [*shown, *location[len(location) - is_missing :]]


def _line_of(node: yaml.Node | None, location: Sequence[int | str]) -> int | None:
    """The line of the deepest part of ``location`` that is in the file."""
    line: int | None = None
    for part in location:
        found: dict[object, tuple[yaml.Node, yaml.Node]] = {}
        if isinstance(node, yaml.MappingNode):
            found = {key.value: (key, value) for key, value in node.value}
        elif isinstance(node, yaml.SequenceNode):
            found = {number: (item, item) for number, item in enumerate(node.value)}
        if part not in found:
            break
        place, node = found[part]
        line = place.start_mark.line + 1
    return line


def bare_name(path: Path) -> str:
    """The name of a file without what says its kind: ``reviews.v2`` of ``reviews.v2.csv.gz``."""
    return Path(path.name.removesuffix(".gz")).stem


def render_template(
    data: Path, corpus: Corpus, *, columns: Mapping[str, str], pools: Sequence[Mapping[str, str]] = (),
    base_url: str = "", model: str = "", time: str = "10m",
) -> str:  # fmt: skip
    """A commented study.yaml for ``data``, with what can be known from it filled in, as ``cuvee init`` writes it.

    Args:
        data: the file of real rows, as it shall be named in the config.
        corpus: what it holds.
        columns: its columns: ``text``, and unless the answer is a turn of a chat ``label``.
        pools: entries of ready-made pools, instead of an LLM.
        base_url, model: of the endpoint that writes them else; the embedded LLM where there is none.
        time: for the trials.
    """
    import jinja2

    is_labelled = corpus.task == "classification"
    counts = Counter(corpus.targets if is_labelled else ())
    listed = [f"{scalar_to_yaml(k)} ({v})" for k, v in counts.most_common(8)] + (["..."] if len(counts) > 8 else [])
    kept = "".join(c if c.isalpha() or c.isdecimal() or c in "_-" else " " for c in bare_name(data))
    template = jinja2.Template(
        Path(__file__).with_name("study.yaml.jinja").read_text(encoding="utf-8"),
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    written: str = template.render(
        name=scalar_to_yaml("-".join(kept.split()).strip("-") or "study"),
        data=scalar_to_yaml(str(data)),
        task=corpus.task,
        describe={"classification": "examples", "retrieval": "queries"}.get(
            corpus.task, "questions" if "context" in columns else "instructions"
        ),
        group="context" in columns and len(set(corpus.contexts)) >= _MANY_CONTEXTS,
        tokens=0 if is_labelled else _longest_tokens(map(" ".join, zip(corpus.texts, corpus.targets, strict=True))),
        answer=0 if is_labelled else _longest_tokens(corpus.targets),
        columns={role: scalar_to_yaml(column) for role, column in columns.items()},
        rows=len(corpus),
        rows_per_label=max(1, min(16, min(counts.values()) // 4) if counts else min(64, len(corpus) // 4)),
        trainer=TASKS[corpus.task][0],
        listed=", ".join(listed),
        labels=[_key(label) for label in counts],
        pools=[", ".join(f"{key}: {scalar_to_yaml(value)}" for key, value in pool.items()) for pool in pools],
        base_url=base_url and scalar_to_yaml(base_url),
        model=scalar_to_yaml(model),
        time=scalar_to_yaml(time),
    )
    return written


def _longest_tokens(texts: Iterable[str]) -> int:
    """Room for all but the longest twentieth of texts, at 2 tokens a word and 16 more, in steps of 32."""
    words = sorted(len(text.split()) for text in texts)
    return 32 * math.ceil((2 * words[math.ceil(0.95 * len(words)) - 1] + 16) / 32)


_MANY_CONTEXTS = 10  # enough to split by them
_LONGEST_KEY = 1000


def _key(value: str) -> str:
    """A text as a key of a commented mapping; YAML wants a mark before those that are long."""
    key = scalar_to_yaml(value)
    return f"{key}:" if len(key) < _LONGEST_KEY else f"? {key}\n  #     :"
