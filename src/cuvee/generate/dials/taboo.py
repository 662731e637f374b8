"""The dial *taboo*: rounds, each of which may not use the typical words of those before it (arXiv 2401.06643)."""

from __future__ import annotations

from collections.abc import Sequence

from cuvee.generate.dials.protocol import (
    Avoid,
    LevelDial,
    Slot,
    check_rows,
    rank_levels,
    slot_key,
    whole_levels,
    whole_number,
)


class TabooDial(LevelDial):
    """Level k spreads each label's rows of a block over k rounds.

    The prompts of a round forbid the ``words`` most characteristic words of its label in each earlier
    round, and an answer that uses one is asked for again. A round's words are found in its first
    ``read`` rows alone, so they are the same at every level, and the rounds of level 2, and their
    rows, are among those of level 4 (unless a row equals one before it at one of these levels only).
    Each level is judged on its own: adding or dropping one changes no row of another.

    Args:
        levels: numbers of rounds; level 1 forbids nothing.
        words: words that a round adds to those forbidden in its label.
        read: rows of a round, a label, that its words are found in; no round may have fewer.

    Raises:
        ConfigError: a level, ``words`` or ``read`` is no whole number above 0.
    """

    name = "taboo"

    def __init__(self, *, levels: Sequence[int | float], words: int = 3, read: int = 4) -> None:
        self._counts = whole_levels(self.name, levels, least=1)
        self.levels = rank_levels(self.name, [str(k) for k in self._counts])
        self._words = whole_number(self.name, "words", words, least=1)
        self._read = whole_number(self.name, "read", read, least=1)

    def check(self, labels: Sequence[str], rows_per_label: int) -> None:
        """Raise ConfigError if a round of the largest level has fewer rows than are read; any labels will do."""
        largest = self._counts[-1]
        check_rows(self.name, largest, labels, rows_per_label, each=self._read if largest > 1 else 1)

    def _slots(self, labels: Sequence[str], block: int, rows: int, level: str) -> tuple[Slot, ...]:
        k = int(level)
        read = [
            tuple(_key(label, block, number, place) for place in range(self._read) for label in labels)
            for number in range(k - 1)
        ]
        return tuple(
            Slot(
                key=_key(label, block, number, row // k),
                label=label,
                block=block,
                avoid=Avoid(rounds=tuple(read[:number]), words=self._words) if number else None,
                number=row // k,
                order=row,
            )
            for number in range(k)
            for row in range(number, rows, k)
            for label in labels
        )


def _key(label: str, block: int, number: int, place: int) -> str:
    return slot_key(label, block, f"r{number}", place)
