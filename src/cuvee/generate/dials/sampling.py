"""The dial *sampling*: the temperature the rows are drawn at."""

from __future__ import annotations

from collections.abc import Sequence

from cuvee.errors import ConfigError
from cuvee.generate.dials.protocol import Batch, Slot, rank_levels, slot_key
from cuvee.records import Level


class SamplingDial:
    """Level t draws all its rows at temperature t; levels share no row and are judged on their own.

    Args:
        levels: temperatures, 0 or more.

    Raises:
        ConfigError: a temperature is negative.
    """

    def __init__(self, *, levels: Sequence[int | float]) -> None:
        for level in levels:
            if isinstance(level, bool) or not 0 <= level <= 100:
                raise ConfigError(f"dial 'sampling': level {level!r} must be a temperature from 0 to 100")
        self._temperatures = {f"{t:g}": float(t) for t in sorted(levels)}
        self._levels = rank_levels(self.name, [f"{t:g}" for t in sorted(levels)])

    @property
    def name(self) -> str:
        """``sampling``."""
        return "sampling"

    @property
    def levels(self) -> tuple[Level, ...]:
        """The coolest first."""
        return self._levels

    def check(self, labels: Sequence[str], rows_per_label: int) -> None:
        """Any labels and rows will do."""

    def batches(
        self, labels: Sequence[str], *, blocks: Sequence[int], rows_per_label: int, levels: Sequence[str]
    ) -> tuple[Batch, ...]:
        """One batch a level and block."""
        return tuple(
            Batch(levels=(level,), block=block, slots=self._slots(labels, block, rows_per_label, level))
            for level in levels
            for block in blocks
        )

    def compose(self, level: str, batch: Batch) -> tuple[Slot, ...]:
        """All slots of the level's own batch."""
        if level not in batch.levels:
            return ()
        return tuple(sorted(batch.slots, key=lambda s: (s.label, s.order)))

    def _slots(self, labels: Sequence[str], block: int, rows: int, level: str) -> tuple[Slot, ...]:
        return tuple(
            Slot(
                key=slot_key(label, block, level, row),
                label=label,
                block=block,
                temperature=self._temperatures[level],
                number=row,
                order=row,
            )
            for row in range(rows)
            for label in labels
        )
