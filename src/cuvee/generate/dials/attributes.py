"""The dial *attributes*: how many combinations of attribute values rows are asked for with (AttrPrompt, 2306.15895)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from math import lcm, prod

import numpy as np

from cuvee.errors import ConfigError
from cuvee.fingerprint import derive_rng
from cuvee.generate.dials.protocol import (
    LevelDial,
    Slot,
    check_rows,
    rank_levels,
    slot_key,
    whole_levels,
)

Combination = tuple[tuple[str, str], ...]
"""One value of each dimension, as pairs (dimension, value)."""


class AttributesDial(LevelDial):
    """Level k spreads each label's rows of a block round robin over the first k combinations of attribute values.

    The combinations of level 4 are among those of level 16, and so are their rows, as with topics. They come in an
    order in which the first k, for every k, hold each value of a dimension as often as any other, give or take
    one: level 2 already varies every dimension that has two values.

    Args:
        levels: numbers of combinations.
        dimensions: dimension -> its values, the same for every label: ``{"tone": ["formal", "casual"], ...}``.
        seed: of the order of the combinations.

    Raises:
        ConfigError: a level is no whole number above 0, the largest exceeds the combinations there are, or a
            dimension has no value or one twice.
    """

    name = "attributes"

    def __init__(
        self, *, levels: Sequence[int | float], dimensions: Mapping[str, Sequence[str]], seed: int = 0
    ) -> None:
        self._counts = whole_levels(self.name, levels, least=1)
        self.levels = rank_levels(self.name, [str(k) for k in self._counts])
        _check_dimensions(dimensions)
        most = prod(len(values) for values in dimensions.values())
        if self._counts[-1] > most:
            raise ConfigError(
                f"dial 'attributes': level {self._counts[-1]} needs as many combinations, dimensions have {most}; "
                "add values or drop the level"
            )
        self._combinations = tuple(islice(balanced_combinations(dimensions, seed=seed), self._counts[-1]))

    @property
    def combinations(self) -> tuple[Combination, ...]:
        """Those of the largest level; level k uses the first k."""
        return self._combinations

    def check(self, labels: Sequence[str], rows_per_label: int) -> None:
        """Raise ConfigError if rows do not reach every combination of the largest level; any labels will do."""
        check_rows(self.name, self._counts[-1], labels, rows_per_label)

    def _slots(self, labels: Sequence[str], block: int, rows: int, level: str) -> tuple[Slot, ...]:
        k = int(level)
        slots = []
        for row in range(rows):
            attributes = self._combinations[row % k]
            for label in labels:
                key = slot_key(label, block, *(value for _, value in attributes), row // k)
                slots.append(Slot(key=key, label=label, block=block, attributes=attributes, number=row // k, order=row))
        return tuple(slots)


def balanced_combinations(dimensions: Mapping[str, Sequence[str]], *, seed: int) -> Iterator[Combination]:
    """All combinations of one value a dimension, each once, in a seeded order that is balanced from the start.

    Stepping to the next value in all dimensions at once runs through lcm(sizes) combinations, in which each
    dimension's values take turns, before it comes back to where it began; then another start is drawn. So in
    the first k combinations the counts of a dimension's values differ by one at most.
    """
    rng = derive_rng(seed, "attributes", *dimensions)
    values = {name: [given[i] for i in rng.permutation(len(given))] for name, given in dimensions.items()}
    sizes = np.array([len(given) for given in values.values()])
    seen: set[tuple[int, ...]] = set()
    total = prod(int(size) for size in sizes)
    while len(seen) < total:
        start = rng.integers(sizes)
        if tuple(start) in seen:
            continue
        for step in range(lcm(*(int(size) for size in sizes))):
            place = tuple(int(i) for i in (start + step) % sizes)
            seen.add(place)
            yield tuple((name, values[name][i]) for name, i in zip(values, place, strict=True))


def _check_dimensions(dimensions: Mapping[str, Sequence[str]]) -> None:
    if not isinstance(dimensions, Mapping) or not dimensions:
        raise ConfigError(
            f"dial 'attributes': dimensions {dimensions!r} must map each dimension to a list of its values, "
            "such as tone: [formal, casual]"
        )
    for name, values in dimensions.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ConfigError(f"dial 'attributes': dimension {name!r} has values {values!r}; give a list of them")
        texts = [value for value in values if isinstance(value, str) and value.strip()]
        if len({text.casefold().strip() for text in texts}) != len(values):
            raise ConfigError(f"dial 'attributes': dimension {name!r} has an empty or repeated value; give each once")
