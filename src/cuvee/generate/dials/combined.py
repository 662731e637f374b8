"""Two dials at once: every row is asked for with what both of them set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

from cuvee.errors import ConfigError
from cuvee.generate.dials.slots import SETTINGS, Avoid, Dial, Slot, chosen_slots, rank_levels, slot_key, wanted_slots
from cuvee.registry import nearest_name

_MEANS = {"parent": "rows made of others", "seed_ids": "examples"}


class CombinedDial:
    """Each level is a pair of levels, one of each dial, named like ``4 x 0.7`` and ordered by the two ranks.

    One dial sets the slots (the one with paraphrases, else the first); the other adds what it sets to them. Its
    settings are dealt to the rows of each part of the first in turn, so that the two cross: with 4
    topics x 2 tones, half the rows of each topic have each tone. Levels share the rows that both dials give the same
    settings.

    Args:
        first: a dial.
        second: a dial that sets other things than the first.
        levels: names of the wanted pairs, such as ``["1 x 0.2", "4 x 0.7"]``; None is all.

    Raises:
        ConfigError: a pair that does not exist. ``check`` raises it where both dials set the same thing, or both ask
            for rows that others are made of.
    """

    def __init__(self, first: Dial, second: Dial, *, levels: Sequence[str] | None = None) -> None:
        self._first, self._second = first, second
        self.name = f"{first.name} x {second.name}"
        pairs = {f"{a.name} x {b.name}": (a.name, b.name) for a, b in product(first.levels, second.levels)}
        for name in levels or ():
            if name not in pairs:
                raise ConfigError(f"dial {self.name!r} has no level {name!r}; {nearest_name(name, pairs)}")
        wanted = rank_levels(self.name, list(pairs if levels is None else levels))
        self._pairs = {name: pair for name, pair in pairs.items() if name in {level.name for level in wanted}}
        self.levels = rank_levels(self.name, list(self._pairs))

    def check(self, labels: Sequence[str], rows_per_label: int) -> None:
        """Raise ConfigError if one of the dials refuses labels or rows, or both set the same thing."""
        both = _set_by(self._first, labels, rows_per_label) & _set_by(self._second, labels, rows_per_label)
        if both:
            raise ConfigError(
                f"dial {self.name!r}: both its dials set {' and '.join(sorted(both))}; combine dials that set "
                "different things"
            )

    def slots(self, level: str, labels: Sequence[str], block: int, rows_per_label: int) -> tuple[Slot, ...]:
        """The slots of one dial, with what both set."""
        a, b = self._pairs[level]
        lead = self._first.slots(a, labels, block, rows_per_label)
        other = self._second.slots(b, labels, block, rows_per_label)
        return _merge(other, lead) if any(slot.parent for slot in other) else _merge(lead, other)


def _merge(lead: Sequence[Slot], other: Sequence[Slot]) -> tuple[Slot, ...]:
    places = {(slot.label, slot.order): slot for slot in chosen_slots(other)}
    by_key = {slot.key: slot for slot in lead}
    dealt = _deal([slot for slot in lead if slot.parent is None])
    partner = {}
    for slot in lead:
        base = slot
        while base.parent is not None:
            base = by_key[base.parent]
        partner[slot.key] = places[slot.label, dealt[base.key]]
    keys = {key: slot_key(key, *_name_settings(found)) for key, found in partner.items()}
    # references to slots of the other dial become references to the base slots that they were dealt to
    moved = {partner[slot.key].key: keys[slot.key] for slot in lead if slot.parent is None}
    return tuple(_merge_slots(slot, partner[slot.key], keys, moved) for slot in lead)


def _deal(base: Sequence[Slot]) -> dict[str, int]:
    """Key -> place in the other dial: the rows of a label, part after part.

    A part is a run of rows with the same settings (one topic, say). Both dials hand out settings round robin; dealt
    row by row they would go in step, topic 1 always with tone 1.
    """
    dealt = {}
    for label in dict.fromkeys(slot.label for slot in base):
        parts: dict[tuple[object, ...], list[Slot]] = {}
        for slot in sorted((slot for slot in base if slot.label == label), key=lambda s: s.order):
            parts.setdefault(tuple(getattr(slot, name) for name in SETTINGS), []).append(slot)
        for place, slot in enumerate(slot for part in parts.values() for slot in part):
            dealt[slot.key] = place
    return dealt


def _merge_slots(slot: Slot, other: Slot, keys: Mapping[str, str], moved: Mapping[str, str]) -> Slot:
    merged = replace(slot, **{name: getattr(other, name) for name in _names_set(other) - _names_set(slot)})
    if slot.parent is None:
        avoid = _rename(slot.avoid, keys) or _rename(other.avoid, moved)
        return replace(merged, key=keys[slot.key], avoid=avoid)
    # a rewriting is asked for by its source's text alone: it takes no part in rounds and has no draft of its own
    parent, substitute = (None if key is None else keys[key] for key in (slot.parent, slot.substitute))
    return replace(merged, key=keys[slot.key], avoid=None, draft=None, parent=parent, substitute=substitute)


def _rename(avoid: Avoid | None, names: Mapping[str, str]) -> Avoid | None:
    if avoid is None:
        return None
    return replace(avoid, rounds=tuple(tuple(names[key] for key in keys) for keys in avoid.rounds))


def _names_set(slot: Slot) -> set[str]:
    return {name for name in SETTINGS if getattr(slot, name) not in (None, ())}


def _name_settings(slot: Slot) -> list[str]:
    """What the slot is asked for with, as parts of a key; rounds by their number, as their keys are long."""
    return [
        f"avoid {len(slot.avoid.rounds)}" if name == "avoid" and slot.avoid else f"{name} {getattr(slot, name)}"
        for name in SETTINGS
        if name in _names_set(slot)
    ]


def _set_by(dial: Dial, labels: Sequence[str], rows: int) -> set[str]:
    """What some slot of some level sets."""
    levels = [level.name for level in dial.levels]
    slots = wanted_slots(dial, labels, blocks=(0,), rows_per_label=rows, levels=levels).values()
    found = {name for slot in slots for name in _names_set(slot) | ({"parent"} if slot.parent else set())}
    return {_MEANS.get(name, name) for name in found}
