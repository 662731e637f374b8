"""The texts of the prompts: Jinja files that a user can print, copy and override.

A built-in file begins with a comment that says what it is for, its variables, and which of them it needs to make sense;
whatever lies in the folder is a prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cuvee.errors import ConfigError
from cuvee.fingerprint import hash_value
from cuvee.inputs import read_text
from cuvee.registry import nearest_name

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import SandboxedEnvironment

Value: TypeAlias = str | int | Sequence[str] | Sequence[tuple[str, str]] | Sequence[Mapping[str, str]] | None
"""What a prompt can be given under a name."""

SUFFIX = ".jinja"
BUILT_IN = Path(__file__).with_name("prompt_files")
_HEADER = re.compile(r"\{#\s*(.*?)\s*Variables:\s*(.*?)\.(?:\s*Needs:\s*(.*?)\.)?\s*#\}", flags=re.DOTALL)
_GAPS = re.compile(r"\n{3,}")
_PLACEHOLDERS: Mapping[str, Value] = {"attributes": [("[name]", "[value]")], "avoided": ["[word]"], "count": 3}
_ABSENT: Mapping[str, Value] = {"topic": None, "attributes": [], "avoided": [], "label": ""}
"""What may be missing from a prompt, as it is given then."""


@dataclass(frozen=True, kw_only=True)
class PromptFile:
    """One prompt.

    ``purpose`` says what it is for, ``variables`` what it may use (``examples.query`` is a field of each of
    ``examples``), ``needed`` what it must use. ``source`` is the text of the file, ``place`` where it was read.
    """

    name: str
    purpose: str
    variables: tuple[str, ...]
    needed: tuple[str, ...]
    source: str
    place: str

    @property
    def names(self) -> tuple[str, ...]:
        """The variables' own names, without fields."""
        return tuple(dict.fromkeys(variable.partition(".")[0] for variable in self.variables))

    def placeholders(self) -> dict[str, Value]:
        """A value for each variable that only shows where it stands."""
        made: dict[str, Value] = {}
        for name in self.names:
            fields = [v.partition(".")[2] for v in self.variables if v.startswith(f"{name}.")]
            some: Value = [{field: f"[{field}]" for field in fields}] if fields else None
            made[name] = some or _PLACEHOLDERS.get(name) or ([f"[{name}]"] if name == "examples" else f"[{name}]")
        return made

    @cached_property
    def _template(self) -> Template:
        from jinja2 import TemplateSyntaxError

        try:
            return _environment().from_string(self.source)
        except TemplateSyntaxError as exc:
            raise ConfigError(f"{self.place}, line {exc.lineno}: {exc.message}") from exc

    def render(self, values: Mapping[str, Value]) -> str:
        """The prompt with these values.

        Raises:
            ConfigError: it cannot be made with them.
        """
        with self._explained():
            return self._template.render({name: values[name] for name in self.names if name in values})

    @cached_property
    def pairs(self) -> tuple[str, ...]:
        """Both sides of the ``pairs`` that it sets to show what is meant; none where it sets none."""
        with self._explained():
            found = getattr(self._template.make_module(self.placeholders()), "pairs", ())
        return tuple(str(side) for pair in found for side in pair)

    def check(self) -> None:
        """Refuse a prompt that could not be asked.

        Raises:
            ConfigError: a syntax error, an unknown variable, one missing that it needs, or nothing to read.
        """
        from jinja2 import meta

        environment = self._template.environment
        used = meta.find_undeclared_variables(environment.parse(self.source)) - set(environment.globals)
        for name in sorted(used - set(self.names)):
            raise ConfigError(f"{self.place}: unknown variable {name!r}; {nearest_name(name, self.variables)}")
        for name in self.needed:
            if name not in used:
                raise ConfigError(f"{self.place}: it does not use {name!r}, which this prompt is about")
        values = self.placeholders()
        for given in (values, {name: _ABSENT.get(name, value) for name, value in values.items()}):
            if not self.render(given).strip():
                raise ConfigError(f"{self.place}: it makes an empty prompt")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What goes wrong while it is made, as one line that names it."""
        from jinja2 import TemplateError

        wrong = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)
        try:
            yield
        except (TemplateError, *wrong) as exc:
            what = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
            raise ConfigError(f"{self.place}: {what}; its variables: {', '.join(self.variables)}") from exc


class PromptSet:
    """Every prompt by its name, such as ``label_chat_user``: the built-in ones, some of them overridden.

    Args:
        files: all of them.
    """

    def __init__(self, files: Mapping[str, PromptFile]) -> None:
        self.files = dict(sorted(files.items()))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of all texts: what a caller's cache of generated rows must depend on."""
        return hash_value({name: file.source for name, file in self.files.items()})

    def file(self, name: str) -> PromptFile:
        """One prompt.

        Raises:
            ConfigError: there is none of this name.
        """
        if name not in self.files:
            raise ConfigError(f"no prompt is called {name!r}; {nearest_name(name, self.files)}")
        return self.files[name]


def load_prompts(folder: str | Path | None = None) -> PromptSet:
    """The built-in prompts, and instead of them those of the same name in a folder.

    Prompts run in Jinja's sandbox. Every one of the folder is rendered once with placeholders.

    Raises:
        ConfigError: no such folder, or no prompts in it; a file whose name is no prompt's; a prompt that is not UTF-8,
            has a syntax error (with its line), uses an unknown variable, or lacks one that it needs.
    """
    if folder is None:
        return _built_in()
    place, files = Path(folder), dict(_built_in().files)
    if not place.is_dir():
        raise ConfigError(f"prompts {str(folder)!r}: no such folder; cuvee prompts --out DIR writes one")
    found = sorted(path for path in place.iterdir() if not path.name.startswith("."))
    if not found:
        raise ConfigError(f"prompts {str(folder)!r}: the folder is empty; cuvee prompts NAME prints a prompt to copy")
    for path in found:
        name = path.name.removesuffix(SUFFIX)
        if path.suffix != SUFFIX or name not in files:
            known = [f"{name}{SUFFIX}" for name in files]
            raise ConfigError(f"{path}: no prompt has this name; {nearest_name(path.name, known)}")
        files[name] = replace(files[name], source=read_text(path, ConfigError), place=str(path))
        files[name].check()
    return PromptSet(files)


@lru_cache(maxsize=1)
def _built_in() -> PromptSet:
    return PromptSet({path.stem: _built_in_file(path) for path in sorted(BUILT_IN.glob(f"*{SUFFIX}"))})


def _built_in_file(path: Path) -> PromptFile:
    source = read_text(path, ConfigError)
    header = _HEADER.match(source)
    if header is None:
        raise ConfigError(f"{path}: begins with no comment that says what it is for and its variables")
    purpose, variables, needed = (" ".join((part or "").split()) for part in header.groups())
    return PromptFile(
        name=path.stem,
        purpose=purpose,
        variables=tuple(name for name in variables.split(", ") if name),
        needed=tuple(name for name in needed.split(", ") if name),
        source=source,
        place=path.name,
    )


# --- Jinja, imported when the first prompt is made ------------------------------------------------
@lru_cache(maxsize=1)
def _environment() -> SandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    made = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
    # Jinja's own tojson writes < > & ' as escapes for web pages, which an LLM would copy
    made.filters["json"] = _plain_json
    return made


def _plain_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def readable(name: str) -> str:
    """A name with spaces for underscores."""
    return " ".join(name.replace("_", " ").split())


def one_line(text: str) -> str:
    """A text without line breaks."""
    return " ".join(text.split())


def block(text: str) -> str:
    """A text with its paragraphs, without the space around them."""
    return _GAPS.sub("\n\n", "\n".join(line.rstrip() for line in text.strip().splitlines()))
