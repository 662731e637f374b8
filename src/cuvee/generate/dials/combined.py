"""Two dials at once: every row is asked for with what both of them set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from cuvee.errors import ConfigError
from cuvee.generate.dials.protocol import (
    Avoid,
    Batch,
    Dial,
    Slot,
    list_levels,
    rank_levels,
    slot_key,
    wanted_slots,
)
from cuvee.records import Level
from cuvee.registry import nearest_name

Content = tuple[object, ...]
"""What a slot is asked for with, in the order of ``_CONTENT``; parts that are not set are falsy or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinedBatch(Batch):
    """A batch that knows which of its slots form its one level."""

    chosen: tuple[Slot, ...]


class CombinedDial:
    """Each level is a pair of levels, one of each dial, named like ``4 x 0.7`` and ordered by the two ranks.

    One dial sets the slots (the one with paraphrases, else the first); the other adds what it sets to them. Its
    settings are dealt to the rows of each part of the first in turn, so that the two cross: with 4
    topics x 2 tones, half the rows of each topic have each tone. Levels share the rows that both dials give the same
    settings. Each level is judged on its own.

    Args:
        first: a dial.
        second: a dial that sets other things than the first.
        levels: names of the wanted pairs, such as ``["1 x 0.2", "4 x 0.7"]`` or ``[[1, 0.2], [4, 0.7]]``; None
            is all.

    Raises:
        ConfigError: a pair that does not exist. ``check`` raises it where both dials set the same thing, or both ask
            for rows that others are made of.
    """

    def __init__(
        self,
        first: Dial,
        second: Dial,
        *,
        levels: Sequence[str | Sequence[str | int | float]] | None = None,
    ) -> None:
        for called, dial in (("first", first), ("second", second)):
            if not isinstance(dial, Dial):
                raise ConfigError(f"dial 'combined': {called} {dial!r} is no dial; give a dial with its own levels")
        self._first, self._second = first, second
        pairs = {f"{a.name} x {b.name}": (a.name, b.name) for a, b in product(first.levels, second.levels)}
        if levels is not None:
            list_levels(self.name, levels)
            wanted = [_pair_name(level) for level in levels]
            for name in wanted:
                if name not in pairs:
                    raise ConfigError(f"dial {self.name!r} has no level {name!r}; {nearest_name(name, pairs)}")
            rank_levels(self.name, wanted)
            pairs = {name: pair for name, pair in pairs.items() if name in wanted}
        self._pairs = pairs
        self._levels = rank_levels(self.name, list(pairs))

    @property
    def name(self) -> str:
        """Both names, like ``topics x sampling``."""
        return f"{self._first.name} x {self._second.name}"

    @property
    def levels(self) -> tuple[Level, ...]:
        """By the rank of the first dial's level, then of the second's."""
        return self._levels

    def check(self, labels: Sequence[str], rows_per_label: int) -> None:
        """Raise ConfigError if one of the dials refuses labels or rows, or both set the same thing."""
        self._first.check(labels, rows_per_label)
        self._second.check(labels, rows_per_label)
        both = _set_by(self._first, labels, rows_per_label) & _set_by(self._second, labels, rows_per_label)
        if both:
            raise ConfigError(
                f"dial {self.name!r}: both its dials set {' and '.join(sorted(both))}; combine dials that set "
                "different things"
            )

    def batches(
        self, labels: Sequence[str], *, blocks: Sequence[int], rows_per_label: int, levels: Sequence[str]
    ) -> tuple[Batch, ...]:
        """One batch a pair of levels and block."""
        self.check(labels, rows_per_label)
        return tuple(self._batch(level, labels, block, rows_per_label) for level in levels for block in blocks)

    def compose(self, level: str, batch: Batch) -> tuple[Slot, ...]:
        """The slots that form the batch's pair of levels."""
        return batch.chosen if level in batch.levels and isinstance(batch, CombinedBatch) else ()

    def _batch(self, level: str, labels: Sequence[str], block: int, rows: int) -> CombinedBatch:
        a, b = self._pairs[level]
        parts = (_Part.of(self._first, a, labels, block, rows), _Part.of(self._second, b, labels, block, rows))
        lead, other = parts if not parts[1].derives else (parts[1], parts[0])
        merged = _merge(lead, other)
        return CombinedBatch(
            levels=(level,),
            block=block,
            slots=tuple(merged[slot.key] for slot in lead.batch.slots),
            chosen=tuple(merged[slot.key] for slot in lead.chosen),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """The slots of one level of one dial in one block."""

    batch: Batch
    chosen: tuple[Slot, ...]

    @classmethod
    def of(cls, dial: Dial, level: str, labels: Sequence[str], block: int, rows: int) -> _Part:
        batches = dial.batches(labels, blocks=(block,), rows_per_label=rows, levels=(level,))
        filled = [(batch, chosen) for batch in batches if (chosen := dial.compose(level, batch))]
        if len(filled) != 1:
            raise ConfigError(
                f"dial {dial.name!r}: level {level} has {len(filled)} batches a block; only dials with one combine"
            )
        return cls(batch=filled[0][0], chosen=filled[0][1])

    @property
    def derives(self) -> bool:
        """Whether some rows are made of others, or stand in for them."""
        return len(self.batch.slots) != len(self.chosen) or any(slot.parent for slot in self.batch.slots)


def _merge(lead: _Part, other: _Part) -> dict[str, Slot]:
    """Key in ``lead`` -> the slot with what both set."""
    places = {(slot.label, slot.order): slot for slot in other.chosen}
    by_key = {slot.key: slot for slot in lead.batch.slots}
    dealt = _deal([slot for slot in lead.batch.slots if slot.parent is None])
    partner = {}
    for slot in lead.batch.slots:
        base = slot
        while base.parent is not None:
            base = by_key[base.parent]
        partner[slot.key] = places[slot.label, dealt[base.key]]
    keys = {key: slot_key(key, *_content_names(found)) for key, found in partner.items()}
    # references to slots of the other dial become references to the base slots that they were dealt to
    moved = {partner[slot.key].key: keys[slot.key] for slot in lead.batch.slots if slot.parent is None}
    return {slot.key: _merge_slots(slot, partner[slot.key], keys, moved) for slot in lead.batch.slots}


def _deal(base: Sequence[Slot]) -> dict[str, int]:
    """Key -> place in the other dial: the rows of a label, part after part.

    A part is a run of rows with the same settings (one topic, say). Both dials hand out settings round robin; dealt
    row by row they would go in step, topic 1 always with tone 1.
    """
    dealt = {}
    for label in dict.fromkeys(slot.label for slot in base):
        mine = sorted((slot for slot in base if slot.label == label), key=lambda s: s.order)
        parts: dict[Content, list[Slot]] = {}
        for slot in mine:
            parts.setdefault(_content(slot), []).append(slot)
        for place, slot in enumerate(slot for part in parts.values() for slot in part):
            dealt[slot.key] = place
    return dealt


def _merge_slots(slot: Slot, other: Slot, keys: Mapping[str, str], moved: Mapping[str, str]) -> Slot:
    # a rewriting is asked for by its source's text alone: it takes no part in rounds and has no draft of its own
    avoid = _rename(slot.avoid, keys) or _rename(other.avoid, moved) if slot.parent is None else None
    draft = slot.draft or other.draft if slot.parent is None else None
    return replace(
        slot,
        key=keys[slot.key],
        topic=slot.topic if slot.topic is not None else other.topic,
        attributes=slot.attributes or other.attributes,
        examples=slot.examples or other.examples,
        seed_ids=slot.seed_ids or other.seed_ids,
        temperature=slot.temperature if slot.temperature is not None else other.temperature,
        top_p=slot.top_p if slot.top_p is not None else other.top_p,
        min_p=slot.min_p if slot.min_p is not None else other.min_p,
        draft=draft,
        avoid=avoid,
        parent=keys[slot.parent] if slot.parent is not None else None,
        substitute=keys[slot.substitute] if slot.substitute is not None else None,
    )


def _rename(avoid: Avoid | None, names: Mapping[str, str]) -> Avoid | None:
    if avoid is None:
        return None
    return replace(avoid, rounds=tuple(tuple(names[key] for key in keys) for keys in avoid.rounds))


_CONTENT = ("topic", "attributes", "examples", "seed_ids", "temperature", "top_p", "min_p", "draft", "avoid")
_FIELDS = (*_CONTENT, "parent", "substitute")
_MEANS = {"parent": "rows made of others", "substitute": "rows made of others", "seed_ids": "examples"}


def _content(slot: Slot) -> Content:
    return (
        slot.topic, slot.attributes, slot.examples, slot.seed_ids,
        slot.temperature, slot.top_p, slot.min_p, slot.draft, slot.avoid,
    )  # fmt: skip


def _content_names(slot: Slot) -> list[str]:
    """What the slot is asked for with, as parts of a key; rounds by their number, as their keys are long."""
    named = []
    for name, value in zip(_CONTENT, _content(slot), strict=True):
        if isinstance(value, Avoid):
            named.append(f"{name} {len(value.rounds)}")
        elif value not in (None, ()):
            named.append(f"{name} {value}")
    return named


def _set_by(dial: Dial, labels: Sequence[str], rows: int) -> set[str]:
    """What some slot of some level sets."""
    names = [level.name for level in dial.levels]
    batches = dial.batches(labels, blocks=(0,), rows_per_label=rows, levels=names)
    return {
        _MEANS.get(name, name)
        for slot in wanted_slots(batches).values()
        for name, value in zip(_FIELDS, (*_content(slot), slot.parent, slot.substitute), strict=True)
        if value not in (None, ())
    }


def _pair_name(level: str | Sequence[str | int | float]) -> str:
    if isinstance(level, str):
        return level
    return " x ".join(part if isinstance(part, str) else f"{part:g}" for part in level)
