"""What a dial is: which rows to ask for, and which of them form each level. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from urllib.parse import quote

from cuvee.errors import ConfigError
from cuvee.records import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One wanted row.

    ``key`` is unique within a dial and never changes when levels, blocks or rows are added. ``parent`` is
    the key of the slot whose row this one paraphrases, ``substitute`` that of the slot whose row is taken where
    this one cannot be filled. ``temperature`` overrides the study's. ``number`` counts the slots of one label,
    block and topic: neighbours see the same seed examples. ``order`` is the row's place in its label and block.
    """

    key: str
    label: str
    block: int
    topic: str | None = None
    temperature: float | None = None
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


def whole_levels(dial: str, levels: Sequence[int | float], *, least: int) -> tuple[int, ...]:
    """Levels that must be whole numbers of at least ``least``.

    Raises:
        ConfigError: one is not.
    """
    for level in levels:
        if isinstance(level, bool) or level != int(level) or level < least:
            raise ConfigError(f"dial {dial!r}: level {level!r} must be a whole number, {least} or more")
    return tuple(int(level) for level in levels)
