"""From the settings of a config to a dial, with errors that name the dial, the setting and what is valid."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from cuvee.errors import ConfigError
from cuvee.generate.dials.protocol import Dial
from cuvee.registry import Kind, nearest_name, resolve_name

Setting: TypeAlias = "str | int | float | bool | Sequence[Setting] | Mapping[str, Setting] | None"
"""A value of YAML."""
DialFactory: TypeAlias = Callable[..., Dial]
PARTS = ("first", "second")
"""Settings of the dial *combined* that are dials themselves: mappings with a ``name``."""


def make_dial(name: str, settings: Mapping[str, Setting], table: Mapping[str, DialFactory]) -> Dial:
    """The dial called ``name`` with these settings.

    Args:
        name: a key of the table, or ``package.module:Name`` of a dial of the user's own, a class or function
            whose keyword arguments are its settings.
        settings: ``levels`` and the dial's own.
        table: the known dials.

    Raises:
        ConfigError: no such dial, a setting that it does not know or lacks, or one whose value it refuses.
    """
    factory = resolve_name(name, table, Kind(name="dial", makes=Dial))
    _check_names(name, factory, settings)
    given: dict[str, Setting | Dial] = dict(settings)
    for part in PARTS if name == "combined" else ():
        inner = settings[part]
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise ConfigError(f"dial 'combined': {part} {inner!r} must be a dial: its name and settings")
        given[part] = make_dial(str(inner["name"]), {k: v for k, v in inner.items() if k != "name"}, table)
    try:
        dial = factory(**given)
    except (TypeError, ValueError, AttributeError) as exc:
        raise ConfigError(f"dial {name!r} cannot be made of {dict(settings)!r}: {exc}") from exc
    if not isinstance(dial, Dial):
        raise ConfigError(f"dial {name!r} is no dial but a {type(dial).__name__}; see cuvee.generate.dials.Dial")
    return dial


def _check_names(name: str, factory: DialFactory, settings: Mapping[str, Setting]) -> None:
    known = inspect.signature(factory).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    for setting in settings:
        if setting not in known:
            raise ConfigError(f"dial {name!r} has no setting {setting!r}; {nearest_name(setting, known)}")
    for setting, parameter in known.items():
        if parameter.default is parameter.empty and setting not in settings:
            raise ConfigError(f"dial {name!r} needs the setting {setting!r}; its settings: {', '.join(known)}")
