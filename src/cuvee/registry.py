"""Names in YAML to objects: an entry of a table, or ``module:Name`` of the user's own."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from cuvee.errors import ConfigError

T = TypeVar("T")


def nearest_name(name: str, valid: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for a near miss, else the list of valid names."""
    names = [str(v) for v in valid]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(names)}"


def resolve_name(name: str, table: Mapping[str, T], *, what: str) -> T:
    """The entry called ``name`` in ``table``, or the object at ``module:Name``.

    Args:
        name: a key of the table, or ``package.module:Attribute``.
        table: the known entries.
        what: the kind of thing, for messages ("trainer", "dial").

    Raises:
        ConfigError: no such entry, module or attribute.
    """
    if name in table:
        return table[name]
    if ":" not in name:
        raise ConfigError(f"unknown {what} {name!r}; {nearest_name(name, table)}")
    module_name, _, attribute = name.partition(":")
    try:
        found: T = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as exc:
        raise ConfigError(f"{what} {name!r} cannot be loaded: {exc}") from exc
    return found
