"""What a dial is: which rows to ask for, and which of them form each level. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal, Protocol, TypeGuard, runtime_checkable
from urllib.parse import quote

from cuvee.errors import ConfigError
from cuvee.records import Level


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One wanted row.

    ``key`` is unique within a dial and never changes when levels, blocks or rows are added. ``number`` counts the
    slots of one label, block and part (a topic, say): neighbours see the same seed examples. ``order`` is the row's
    place in its label and block. What the row is asked for with: a ``topic``; ``attributes``, pairs of a dimension
    and its value; the seed examples shown, by their places in the label's seeded order (``examples``) or by their
    ids (``seed_ids``); ``temperature``, ``top_p`` and ``min_p``, which override the study's; a ``draft`` that it
    refines; words to ``avoid``. ``parent`` is the key of the slot whose row this one paraphrases, ``substitute``
    that of the slot whose row is taken where this one cannot be filled.
    """

    key: str
    label: str
    block: int
    topic: str | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    examples: tuple[int, ...] = ()
    seed_ids: tuple[str, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    min_p: float | None = None
    draft: Draft | None = None
    avoid: Avoid | None = None
    parent: str | None = None
    substitute: str | None = None
    number: int
    order: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Slots of one block that are judged against each other, in this order; they serve ``levels``.

    A row is compared with the rows before it in its batch only. So what a batch accepts depends on
    no other batch, and appending slots to one changes none of the rows before them.
    """

    levels: tuple[str, ...]
    block: int
    slots: tuple[Slot, ...]


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

    def batches(
        self, labels: Sequence[str], *, blocks: Sequence[int], rows_per_label: int, levels: Sequence[str]
    ) -> tuple[Batch, ...]:
        """What to ask for: the slots the named levels need. Batches share slots, which are asked for once."""

    def compose(self, level: str, batch: Batch) -> tuple[Slot, ...]:
        """The slots of ``batch`` that form ``level``, in row order; none if the batch does not serve it."""


def slot_key(*parts: str | int) -> str:
    """Parts joined by slashes, those within a part escaped, so different parts give different keys."""
    return "/".join(quote(str(part), safe=" ,.'()-") for part in parts)


def wanted_slots(batches: Sequence[Batch]) -> Mapping[str, Slot]:
    """All slots of the batches, each once, by key."""
    return {slot.key: slot for batch in batches for slot in batch.slots}


def level_batches(
    levels: Sequence[str], blocks: Sequence[int], slots: Callable[[str, int], tuple[Slot, ...]]
) -> tuple[Batch, ...]:
    """One batch a level and block, of ``slots(level, block)``: what a dial without shared judging needs."""
    return tuple(Batch(levels=(level,), block=block, slots=slots(level, block)) for level in levels for block in blocks)


def all_slots(level: str, batch: Batch) -> tuple[Slot, ...]:
    """All slots of a batch of :func:`level_batches` in row order; none if it is another level's."""
    return tuple(sorted(batch.slots, key=lambda s: (s.label, s.order))) if level in batch.levels else ()


class LevelDial:
    """What dials share whose levels each ask for rows of their own: one batch a level and block.

    A subclass sets ``name`` and ``levels`` and says which slots a level has in a block.
    """

    name: str
    levels: tuple[Level, ...]

    def check(self, labels: Sequence[str], rows_per_label: int) -> None:
        """Raise ConfigError if these labels and rows cannot be served at every level; here any will do."""

    def batches(
        self, labels: Sequence[str], *, blocks: Sequence[int], rows_per_label: int, levels: Sequence[str]
    ) -> tuple[Batch, ...]:
        """One batch a level and block."""
        self.check(labels, rows_per_label)
        return level_batches(levels, blocks, lambda level, b: self._slots(labels, b, rows_per_label, level))

    def compose(self, level: str, batch: Batch) -> tuple[Slot, ...]:
        """All slots of the level's own batch."""
        return all_slots(level, batch)

    def _slots(self, labels: Sequence[str], block: int, rows: int, level: str) -> tuple[Slot, ...]:
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


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite int or float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def list_levels(dial: str, levels: object) -> None:
    """Refuse levels that are no list.

    Raises:
        ConfigError: they are a single value or a text.
    """
    if not isinstance(levels, Sequence) or isinstance(levels, str):
        raise ConfigError(f"dial {dial!r}: levels {levels!r} must be a list; give levels: [...]")


def whole_number(dial: str, setting: str, value: int | float, *, least: int) -> int:
    """A setting that must be a whole number of at least ``least``.

    Raises:
        ConfigError: it is not.
    """
    if not is_number(value) or value != int(value) or value < least:
        raise ConfigError(f"dial {dial!r}: {setting} {value!r} must be a whole number, {least} or more")
    return int(value)


def whole_levels(dial: str, levels: Sequence[int | float], *, least: int) -> tuple[int, ...]:
    """Levels that must be whole numbers of at least ``least``, in rising order.

    Raises:
        ConfigError: one is not, or they are no list.
    """
    list_levels(dial, levels)
    return tuple(sorted(whole_number(dial, "level", level, least=least) for level in levels))


def check_rows(dial: str, largest: int, labels: Sequence[str], rows_per_label: int, *, each: int = 1) -> None:
    """Refuse rows that do not reach every part of the largest level, ``each`` rows a part.

    Raises:
        ConfigError: there are too few.
    """
    if rows_per_label < largest * each:
        raise ConfigError(
            f"dial {dial!r}: level {largest} needs {largest * each} rows a block of each of the {len(labels)} labels, "
            f"there are {rows_per_label}; drop the level or raise the rows"
        )
