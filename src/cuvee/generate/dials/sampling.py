"""The dial *sampling*: how the LLM draws its words: temperature, top_p, min_p."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cuvee.errors import ConfigError
from cuvee.fingerprint import derive_rng
from cuvee.generate.dials.protocol import (
    LevelDial,
    Slot,
    is_number,
    list_levels,
    rank_levels,
    slot_key,
)

Drawn = int | float | Sequence[int | float]
"""A number, or the two ends of a range from which every row draws its own."""

LIMITS = {"temperature": (0.0, 100.0), "top_p": (0.0, 1.0), "min_p": (0.0, 1.0)}
"""What a level may set, and from where to where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A range of one sampling parameter; both ends are the same where it is fixed."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g}-{self.high:g}"


class SamplingDial(LevelDial):
    """A level draws all its rows in one way; levels share no row and are judged on their own.

    A level is a temperature, or a mapping of ``temperature``, ``top_p`` and ``min_p``, each a number or a range
    ``[low, high]`` from which each row draws its own value. What a level leaves out is the study's.
    Temperatures alone are put in rising order; as soon as one level is a mapping, the levels stand in the order
    given: list them from the least diverse. A mapping is called by its ``name``, or by what it sets.

    Args:
        levels: temperatures from 0 to 100, or mappings; top_p and min_p lie from 0 to 1, top_p above 0.
        seed: of the values drawn from ranges.

    Raises:
        ConfigError: a value is out of its range, or a level sets something else.
    """

    name = "sampling"

    def __init__(self, *, levels: Sequence[int | float | Mapping[str, str | Drawn]], seed: int = 0) -> None:
        list_levels(self.name, levels)
        read = [_read_level(level) for level in levels]
        if not any(isinstance(level, Mapping) for level in levels):
            read.sort(key=lambda level: level[1]["temperature"].low)
        self.levels = rank_levels(self.name, [name for name, _ in read])
        self._spreads = dict(read)
        self._seed = seed

    def _slots(self, labels: Sequence[str], block: int, rows: int, level: str) -> tuple[Slot, ...]:
        slots = []
        for row in range(rows):
            for label in labels:
                key = slot_key(label, block, level, row)
                slots.append(
                    Slot(
                        key=key,
                        label=label,
                        block=block,
                        temperature=self._draw(level, "temperature", key),
                        top_p=self._draw(level, "top_p", key),
                        min_p=self._draw(level, "min_p", key),
                        number=row,
                        order=row,
                    )
                )
        return tuple(slots)

    def _draw(self, level: str, parameter: str, key: str) -> float | None:
        spread = self._spreads[level].get(parameter)
        if spread is None or spread.low == spread.high:
            return spread.low if spread is not None else None
        # four decimals: no server tells values apart that are nearer than that
        return round(float(derive_rng(self._seed, "sampling", parameter, key).uniform(spread.low, spread.high)), 4)


def _read_level(level: object) -> tuple[str, dict[str, Spread]]:
    if not isinstance(level, Mapping):
        if not is_number(level):
            raise ConfigError(
                f"dial 'sampling': level {level!r} must be a temperature from 0 to 100, or a mapping of {_VALID}"
            )
        return f"{level:g}", {"temperature": _read_spread("level", "temperature", level)}
    unknown = [key for key in level if key not in (*LIMITS, "name")]
    if unknown:
        raise ConfigError(f"dial 'sampling': level {dict(level)!r} sets {unknown[0]!r}; valid choices: {_VALID}")
    spreads = {key: _read_spread(key, key, level[key]) for key in LIMITS if key in level}
    if not spreads:
        raise ConfigError(f"dial 'sampling': level {dict(level)!r} sets nothing; valid choices: {_VALID}")
    name = level.get("name", ", ".join(f"{key} {spread}" for key, spread in spreads.items()))
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"dial 'sampling': name {name!r} of a level must be a text")
    return name, spreads


def _read_spread(called: str, parameter: str, value: object) -> Spread:
    least, most = LIMITS[parameter]
    given = value if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    ends = [float(end) for end in given if is_number(end)]
    above = parameter == "top_p"
    right = len(given) == len(ends) == 2 and least <= ends[0] <= ends[1] <= most
    if not right or (above and ends[0] == least):
        what = f"a {parameter}" if called != parameter else "a number"
        raise ConfigError(
            f"dial 'sampling': {called} {value!r} must be {what} {'above' if above else 'from'} {least:g} "
            f"{'and at most' if above else 'to'} {most:g}, or a range [low, high] of them"
        )
    return Spread(low=ends[0], high=ends[1])


_VALID = ", ".join([*LIMITS, "name"])
