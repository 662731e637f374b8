r"""Text of others made safe to show: characters that act on a terminal or a page are written as escapes, ``\x1b``."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import MappingProxyType

# controls but the newline, line and paragraph separators, bidirectional controls, halves of surrogate pairs, and
# what no XML may hold
_HIDDEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
# what would begin a cell, a link, a tag or an entity; "[2, 5]" and "p < 0.05" are text as they stand
_MARKDOWN = re.compile(r"[\\|]|\](?=[(\[:])|<(?=[A-Za-z/!?])|&(?=[#A-Za-z])")
_ESCAPES = {"<": "&lt;", "&": "&amp;"}


def visible_lines(text: str) -> str:
    """The text with control characters as escapes; newlines stay."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible(text: str) -> str:
    """The text on one line, with control characters and newlines as escapes."""
    return visible_lines(text).replace("\n", "\\n")


def to_html(text: str) -> str:
    """The text to stand in HTML."""
    return html.escape(visible_lines(text))


def to_markdown(text: str) -> str:
    """The text to stand on one line or in a table of Markdown: no markup, no HTML."""
    shown = _MARKDOWN.sub(lambda found: _ESCAPES.get(found[0], f"\\{found[0]}"), visible_lines(" ".join(text.split())))
    return " ".join(shown.split())


def to_json(value: object) -> str:
    """One line of JSON in which every control character is an escape of JSON; dataclasses become objects.

    Numbers that are not finite, which JSON has no words for, become the strings "inf", "-inf" and "nan".
    """
    content = json.dumps(to_plain(value), ensure_ascii=False, allow_nan=False)
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", content)


def to_plain(
    value: object, *, other: Callable[[object], object] = str, derived: Mapping[type, str] = MappingProxyType({})
) -> object:
    """What JSON has: dataclasses become objects, tuples lists.

    Args:
        value: of dataclasses, mappings, sequences and scalars.
        other: says what becomes of anything else, such as a number that is not finite.
        derived: class -> a property that its objects have too, before their fields.
    """
    if is_dataclass(value) and not isinstance(value, type):
        first = [derived[type(value)]] if type(value) in derived else []
        value = {name: getattr(value, name) for name in [*first, *(each.name for each in fields(value))]}
    if isinstance(value, Mapping):
        return {str(key): to_plain(each, other=other, derived=derived) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(each, other=other, derived=derived) for each in value]
    is_plain = value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else other(value)


def no_number(value: object) -> object:
    """None in place of a number that is not finite, for ``to_plain``.

    Raises:
        TypeError: it is anything else.
    """
    if not isinstance(value, float):
        raise TypeError(f"a result holds a value of type {type(value).__name__}: {value!r}")
    return None


def check_name(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: it holds a control character.
    """
    if visible(name) != name:
        raise ValueError(f"'{visible(name)}' holds a control character, which no table or chart can show")
    return name
