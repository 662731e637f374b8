"""The dial *paraphrase*: rows replaced by paraphrases of others, m_r = m_p x r (arXiv 2506.19262)."""

from __future__ import annotations

from collections.abc import Sequence

from cuvee.errors import ConfigError
from cuvee.generate.dials.protocol import Batch, Slot, rank_levels, slot_key, whole_levels
from cuvee.records import Level


class ParaphraseDial:
    """Level m_p replaces the last m_p x r rows of each label and block by m_p paraphrases of its first r rows.

    The base has rows_per_label rows a label and block and is the same for all levels; m_p = 0 is the plain
    base. Paraphrase p of source s takes the place of row rows_per_label - 1 - (p x r + s), so the paraphrases
    of m_p = 2 are among those of m_p = 5, and where one could not be made the level keeps the base row. Each
    paraphrase is compared with the base and with paraphrases that every level holding it holds too, so
    adding or dropping a level changes no row of another.

    Args:
        levels: numbers of paraphrases of each source.
        sources: r, the rows of each label and block that are paraphrased.

    Raises:
        ConfigError: a level is no whole number, or ``sources`` is below 1.
    """

    def __init__(self, *, levels: Sequence[int | float], sources: int = 2) -> None:
        if sources < 1:
            raise ConfigError(f"dial 'paraphrase': sources {sources!r} must be 1 or more")
        self._sources = sources
        self._counts = tuple(sorted(whole_levels(self.name, levels, least=0), reverse=True))
        self._levels = rank_levels(self.name, [str(m) for m in self._counts])

    @property
    def name(self) -> str:
        """``paraphrase``."""
        return "paraphrase"

    @property
    def levels(self) -> tuple[Level, ...]:
        """Most paraphrases first."""
        return self._levels

    @property
    def sources(self) -> int:
        """Rows of each label and block that are paraphrased."""
        return self._sources

    def check(self, labels: Sequence[str], rows_per_label: int) -> None:
        """Raise ConfigError if sources and paraphrases do not fit into the rows."""
        most = rows_per_label // self._sources - 1
        if self._counts[0] > most:
            raise ConfigError(
                f"dial 'paraphrase': level {self._counts[0]} with {self._sources} sources needs "
                f"{self._sources * (1 + self._counts[0])} rows a block of each of the {len(labels)} labels, "
                f"there are {rows_per_label}; the largest possible level is {max(most, 0)}"
            )

    def batches(
        self, labels: Sequence[str], *, blocks: Sequence[int], rows_per_label: int, levels: Sequence[str]
    ) -> tuple[Batch, ...]:
        """One batch a block: the whole base, then the paraphrases."""
        self.check(labels, rows_per_label)
        most = max((int(level) for level in levels), default=0)
        return tuple(
            Batch(
                levels=tuple(levels),
                block=block,
                slots=(*_base(labels, block, rows_per_label), *self._paraphrases(labels, block, rows_per_label, most)),
            )
            for block in blocks
        )

    def compose(self, level: str, batch: Batch) -> tuple[Slot, ...]:
        """The base with its last rows replaced by the level's paraphrases."""
        if level not in batch.levels:
            return ()
        places = {(s.label, s.order): s for s in batch.slots if s.parent is None}
        rows = 1 + max((s.order for s in batch.slots), default=-1)
        for slot in batch.slots:
            number = rows - 1 - slot.order
            if slot.parent is not None and number < int(level) * self._sources:
                places[slot.label, slot.order] = slot
        return tuple(places[place] for place in sorted(places))

    def _paraphrases(self, labels: Sequence[str], block: int, rows: int, most: int) -> tuple[Slot, ...]:
        slots = []
        for number in range(most * self._sources):
            p, source = divmod(number, self._sources)
            replaced = rows - 1 - number
            for label in labels:
                slots.append(
                    Slot(
                        key=slot_key(label, block, source, f"p{p}"),
                        label=label,
                        block=block,
                        parent=slot_key(label, block, source),
                        substitute=slot_key(label, block, replaced),
                        number=p,
                        order=replaced,
                    )
                )
        return tuple(slots)


def _base(labels: Sequence[str], block: int, rows: int) -> tuple[Slot, ...]:
    return tuple(
        Slot(key=slot_key(label, block, row), label=label, block=block, number=row, order=row)
        for row in range(rows)
        for label in labels
    )
