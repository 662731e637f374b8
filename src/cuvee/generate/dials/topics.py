"""The dial *topics*: how many topics the rows of a label are spread over (arXiv 2506.19262)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cuvee.errors import ConfigError
from cuvee.generate.dials.protocol import (
    Batch,
    Slot,
    all_slots,
    check_rows,
    level_batches,
    rank_levels,
    slot_key,
    whole_levels,
)
from cuvee.records import Level


class TopicsDial:
    """Level k spreads each label's rows of a block round robin over the first k topics of that label.

    Topic j of level k gets rows_per_label / k rows, rounded up for the first ones, so the topics of
    level 4, and their rows, are among those asked for level 8. Each level is judged on its own: a slot has the
    same row in all levels, unless that row equals one before it in one of them; there, and only there, the
    slot takes its next answer. Adding or dropping a level therefore changes no row of another.

    Args:
        levels: numbers of topics a label.
        topics: label -> its topics, in a fixed order; level k uses the first k. ``topics_from_words`` finds some in
            the real data, ``topic_question`` asks the LLM for them.

    Raises:
        ConfigError: a level is no whole number above 0, or a label has fewer distinct topics than the largest.
    """

    def __init__(self, *, levels: Sequence[int | float], topics: Mapping[str, Sequence[str]]) -> None:
        self._counts = whole_levels(self.name, levels, least=1)
        self._levels = rank_levels(self.name, [str(k) for k in self._counts])
        if not isinstance(topics, Mapping) or any(isinstance(given, str) for given in topics.values()):
            raise ConfigError(f"dial 'topics': topics {topics!r} must map each label to a list of its topics")
        self._topics = {label: tuple(given) for label, given in topics.items()}
        for label, given in self._topics.items():
            distinct = len({t.casefold().strip() for t in given if t.strip()})
            if distinct != len(given):
                raise ConfigError(f"dial 'topics': label {label!r} has an empty or repeated topic; give each once")
            if distinct < self._counts[-1]:
                raise ConfigError(
                    f"dial 'topics': label {label!r} has {distinct} topics, level {self._counts[-1]} needs as many; "
                    "add topics or drop the level"
                )

    @property
    def name(self) -> str:
        """``topics``."""
        return "topics"

    @property
    def levels(self) -> tuple[Level, ...]:
        """One topic first."""
        return self._levels

    def check(self, labels: Sequence[str], rows_per_label: int) -> None:
        """Raise ConfigError if a label has no topics, or rows do not reach every topic of the largest level."""
        missing = [label for label in labels if label not in self._topics]
        if missing:
            raise ConfigError(f"dial 'topics': no topics for label {missing[0]!r}; it needs {self._counts[-1]}")
        check_rows(self.name, self._counts[-1], labels, rows_per_label)

    def batches(
        self, labels: Sequence[str], *, blocks: Sequence[int], rows_per_label: int, levels: Sequence[str]
    ) -> tuple[Batch, ...]:
        """One batch a level and block."""
        self.check(labels, rows_per_label)
        return level_batches(levels, blocks, lambda level, b: self._slots(labels, b, rows_per_label, int(level)))

    def compose(self, level: str, batch: Batch) -> tuple[Slot, ...]:
        """All slots of the level's own batch."""
        return all_slots(level, batch)

    def _slots(self, labels: Sequence[str], block: int, rows: int, k: int) -> tuple[Slot, ...]:
        return tuple(
            Slot(
                key=slot_key(label, block, self._topics[label][row % k], row // k),
                label=label,
                block=block,
                topic=self._topics[label][row % k],
                number=row // k,
                order=row,
            )
            for row in range(rows)
            for label in labels
        )
