"""What a dial is: which rows each of its levels asks for; and two dials at once. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal, Protocol, TypedDict, runtime_checkable
from urllib.parse import quote

from cuvee.errors import ConfigError
from cuvee.records import Level
from cuvee.registry import nearest_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Avoid:
    """Which rows a row must not sound like: the ``words`` most characteristic words of each round are forbidden.

    ``rounds`` holds the slot keys of each round: rows of the slot's label, and rows of other labels that they are
    told apart from.
    """

    rounds: tuple[tuple[str, ...], ...]
    words: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A row is drafted at ``temperature`` in the form ``api``, then refined in the endpoint's own form.

    ``model`` is another model at the same endpoint that writes the draft; None is the model of the rows.
    """

    temperature: float
    api: Literal["completions", "chat"] = "completions"
    model: str | None = field(default=None, repr=False)  # keys of combined dials hold the repr


class Settings(TypedDict, total=False):
    """What a slot is asked for with; see :class:`Slot`."""

    topic: str | None
    attributes: tuple[tuple[str, str], ...]
    examples: tuple[int, ...]
    temperature: float | None
    top_p: float | None
    min_p: float | None
    draft: Draft | None
    avoid: Avoid | None


ANY = "any"  # what stands for a label where rows are written about nothing given
SETTINGS = tuple(Settings.__annotations__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One wanted row.

    ``key`` is unique within a dial and never changes when levels, blocks or rows are added. ``number`` counts the
    slots of one label, block and part (a topic, say): neighbours see the same seed examples. ``order`` is the row's
    place in its label and block. What the row is asked for with: a ``topic``; ``attributes``, pairs of a dimension
    and its value; the places of the seed ``examples`` shown in the label's seeded order;
    ``temperature``, ``top_p`` and ``min_p``, which override the study's; a ``draft`` that it
    refines; words to ``avoid``. ``parent`` is the key of the slot whose row this one paraphrases, ``substitute``
    that of the slot whose row is taken where this one cannot be filled.
    """

    key: str
    label: str
    block: int
    topic: str | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    examples: tuple[int, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    min_p: float | None = None
    draft: Draft | None = None
    avoid: Avoid | None = None
    parent: str | None = None
    substitute: str | None = None
    number: int
    order: int


@runtime_checkable
class Dial(Protocol):
    """One way to control diversity."""

    @property
    def name(self) -> str:
        """Its name in the DIALS table."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """All levels, from rank 0, the least diverse as expected."""

    def check(self, labels: Sequence[str], rows_per_label: int) -> None:
        """Raise ConfigError if these labels and rows cannot be served at every level."""

    def slots(self, level: str, labels: Sequence[str], block: int, rows_per_label: int) -> Sequence[Slot]:
        """What a level asks for in one block, in the order in which rows are judged against those before them.

        Levels and blocks are judged apart, so none changes a row of another; a slot that they share is asked for
        once. What a slot avoids, paraphrases or is substituted by comes before it.
        """


def slot_key(*parts: str | int) -> str:
    """Parts joined by slashes, those within a part escaped, so different parts give different keys."""
    return "/".join(quote(str(part), safe=" ,.'()-") for part in parts)


def chosen_slots(slots: Iterable[Slot]) -> list[Slot]:
    """The slots that form the rows of a level and block, in row order, without substitutes."""
    slots = list(slots)
    spare = {slot.substitute for slot in slots}
    return sorted((slot for slot in slots if slot.key not in spare), key=lambda s: (s.label, s.order))


def wanted_slots(
    dial: Dial, labels: Sequence[str], *, blocks: Iterable[int], rows_per_label: int, levels: Iterable[str]
) -> Mapping[str, Slot]:
    """What these levels of a dial ask for in all, each slot once, by key.

    Raises:
        ConfigError: labels and rows cannot be served.
    """
    dial.check(labels, rows_per_label)
    blocks = list(blocks)
    return {s.key: s for level in levels for block in blocks for s in dial.slots(level, labels, block, rows_per_label)}


# A part of a level's rows: what it is called in the keys of its slots, and what they are asked for with.
Part = tuple[tuple[str | int, ...], Settings]


class PartsDial:
    """What dials share that deal each label's rows of a block to the parts of a level in turn.

    A subclass sets ``name`` and says in ``parts`` which parts a level has. Parts of the same name are the same rows
    in every level, as far as both have them.

    Args:
        levels: their names, the least diverse first.
        rows: of a label in a block that the largest level needs.
    """

    name: str

    def __init__(self, levels: Sequence[str], rows: int = 1) -> None:
        self.levels = rank_levels(self.name, levels)
        self._rows_needed = rows

    def check(self, labels: Sequence[str], rows_per_label: int) -> None:
        """Raise ConfigError if these labels and rows cannot be served at every level."""
        if rows_per_label < self._rows_needed:
            raise ConfigError(
                f"dial {self.name!r}: its largest level needs {self._rows_needed} rows a block of each of the "
                f"{len(labels)} labels, there are {rows_per_label}; drop the level or raise the rows"
            )

    def slots(self, level: str, labels: Sequence[str], block: int, rows_per_label: int) -> tuple[Slot, ...]:
        """The rows of all labels, each dealt to the parts in turn."""
        parts = {label: self.parts(level, label) for label in labels}
        made = []
        for row in range(rows_per_label):
            for label, own in parts.items():
                number, part = divmod(row, len(own))
                names, settings = own[part]
                key = slot_key(label, block, *names, number)
                made.append(Slot(key=key, label=label, block=block, number=number, order=row, **settings))
        return tuple(made)

    def parts(self, level: str, label: str) -> Sequence[Part]:
        """What the rows of a label are dealt to at a level, in turn."""
        raise NotImplementedError


def rank_levels(dial: str, names: Sequence[str]) -> tuple[Level, ...]:
    """Levels of ``dial`` from their names, least diverse first.

    Raises:
        ConfigError: there is none, or one occurs twice.
    """
    if not names:
        raise ConfigError(f"dial {dial!r} needs at least one level; give levels: [...]")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ConfigError(f"dial {dial!r} has level {repeated[0]} twice; each level once")
    return tuple(Level(dial=dial, name=name, rank=rank) for rank, name in enumerate(names))


def whole_number(dial: str, setting: str, value: int | float, *, least: int = 1) -> int:
    """A setting that must be a whole number of at least ``least``.

    Raises:
        ConfigError: it is not.
    """
    if not value >= least or value != int(value):
        raise ConfigError(f"dial {dial!r}: {setting} {value!r} must be a whole number, {least} or more")
    return int(value)


def whole_levels(dial: str, levels: Sequence[int | float], *, least: int = 1) -> tuple[int, ...]:
    """Levels that must be whole numbers of at least ``least``, in rising order."""
    return tuple(sorted(whole_number(dial, "level", level, least=least) for level in levels))


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
            raise ConfigError(f"dial {self.name!r}: both its dials set {' and '.join(sorted(both))}; combine others")

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
    keys = {key: slot_key(key, *name_settings(found)) for key, found in partner.items()}
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


def name_settings(slot: Slot) -> list[str]:
    """What the slot is asked for with, as parts of a key; rounds by their number, as their keys are long."""
    return [
        f"avoid {len(slot.avoid.rounds)}" if name == "avoid" and slot.avoid else f"{name} {getattr(slot, name)}"
        for name in SETTINGS
        if name in _names_set(slot)
    ]


def shared_request(slot: Slot, rows: int) -> tuple[str | int, ...] | None:
    """What slots have in common whose rows one request asks for, ``rows`` at once; None for one that is asked alone."""
    if rows == 1 or slot.parent is not None or slot.draft is not None:
        return None
    return (slot.label, slot.block, slot.number // rows, *name_settings(slot))


def _set_by(dial: Dial, labels: Sequence[str], rows: int) -> set[str]:
    """Names of the settings that any slot of any level has."""
    levels = [level.name for level in dial.levels]
    slots = wanted_slots(dial, labels, blocks=(0,), rows_per_label=rows, levels=levels).values()
    return {name for slot in slots for name in _names_set(slot) | ({"rows made of others"} if slot.parent else set())}
