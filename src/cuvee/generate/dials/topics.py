"""The dial *topics*: how many topics the rows of a label are spread over (arXiv 2506.19262)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from cuvee.errors import ConfigError
from cuvee.generate.dials.protocol import (
    LevelDial,
    Slot,
    check_rows,
    rank_levels,
    slot_key,
    whole_levels,
    whole_number,
)
from cuvee.generate.strata import ANY


class TopicsDial(LevelDial):
    """Level k spreads each label's rows of a block round robin over the first k topics of that label.

    Topic j of level k gets rows_per_label / k rows, rounded up for the first ones, so the topics of
    level 4, and their rows, are among those asked for level 8. Each level is judged on its own: a slot has the
    same row in all levels, unless that row equals one before it in one of them; there, and only there, the
    slot takes its next answer. Adding or dropping a level therefore changes no row of another.

    Args:
        levels: numbers of topics a label.
        topics: label -> its topics, in a fixed order, of which level k uses the first k; the entry ``any`` serves
            labels without one of their own, and so does a plain list. A label's topics may be a tree, a mapping of
            topics to subtopics (to any depth): level k then uses its first k leaves, spread over the tree from the top
            (see ``list_leaves``). ``topics_from_words`` finds some in the real data, ``ask_topics`` asks the LLM.
        degree: branches of every node of the trees, depth by depth; None takes them as they are.

    Raises:
        ConfigError: a level is no whole number above 0, a label has fewer distinct topics than the largest, or its tree
            has not the shape of ``degree``.
    """

    name = "topics"

    def __init__(
        self,
        *,
        levels: Sequence[int | float],
        topics: Mapping[str, Branches] | Sequence[str],
        degree: Sequence[int] | None = None,
    ) -> None:
        self._counts = whole_levels(self.name, levels, least=1)
        self.levels = rank_levels(self.name, [str(k) for k in self._counts])
        for part in degree or ():
            whole_number(self.name, "degree", part, least=1)
        self._topics: dict[str, tuple[str, ...]] = {}
        if isinstance(topics, Mapping) and not any(isinstance(given, str) for given in topics.values()):
            self._topics = {label: self._read(f"label {label!r}", given, degree) for label, given in topics.items()}
        elif isinstance(topics, Sequence) and not isinstance(topics, str):
            self._topics = {ANY: self._read("the list for every label", topics, degree)}
        else:
            raise ConfigError(f"dial 'topics': topics {topics!r} must map each label to a list of its topics")

    def check(self, labels: Sequence[str], rows_per_label: int) -> None:
        """Raise ConfigError if a label has no topics, or rows do not reach every topic of the largest level."""
        missing = [label for label in labels if not self._topics_of(label)]
        if missing:
            raise ConfigError(f"dial 'topics': no topics for label {missing[0]!r}; it needs {self._counts[-1]}")
        check_rows(self.name, self._counts[-1], labels, rows_per_label)

    def _slots(self, labels: Sequence[str], block: int, rows: int, level: str) -> tuple[Slot, ...]:
        k = int(level)
        topics = {label: self._topics_of(label) for label in labels}
        return tuple(
            Slot(
                key=slot_key(label, block, topics[label][row % k], row // k),
                label=label,
                block=block,
                topic=topics[label][row % k],
                number=row // k,
                order=row,
            )
            for row in range(rows)
            for label in labels
        )

    def _topics_of(self, label: str) -> tuple[str, ...]:
        return self._topics.get(label, self._topics.get(ANY, ()))

    def _read(self, where: str, given: Branches, degree: Sequence[int] | None) -> tuple[str, ...]:
        check_tree(f"dial 'topics': {where}", given)
        if degree is not None:
            check_degree(f"dial 'topics': {where}", given, degree)
        leaves = list_leaves(given)
        if len({leaf.casefold() for leaf in leaves}) != len(leaves):
            raise ConfigError(f"dial 'topics': {where} has a repeated topic; give each once")
        if len(leaves) < self._counts[-1]:
            raise ConfigError(
                f"dial 'topics': {where} has {len(leaves)} topics, level {self._counts[-1]} needs as many; "
                "add topics or drop the level"
            )
        return leaves if isinstance(given, Mapping) else tuple(given)


# --- trees of topics: topics, subtopics of each, and so on; their leaves are what rows are asked fo ---
Branches: TypeAlias = "Sequence[str] | Mapping[str, Branches]"
"""A list of topics, or a mapping of each topic to its subtopics (an empty list: it has none)."""


def list_leaves(branches: Branches) -> tuple[str, ...]:
    """The leaves, breadth first: their order takes the branches of every node in turn.

    So the first leaves come from different topics of the top, as many as there are; among the next ones no topic
    comes a third time before all have come twice; and below each topic its subtopics take turns in the same way.
    A leaf is named by its path, like ``tennis: Wimbledon``; a topic without subtopics by itself.
    """
    if not isinstance(branches, Mapping):
        return tuple(" ".join(topic.split()) for topic in branches)
    parts = []
    for topic, below in branches.items():
        name = " ".join(topic.split())
        parts.append([f"{name}: {leaf}" for leaf in list_leaves(below)] or [name])
    longest = max((len(part) for part in parts), default=0)
    return tuple(part[turn] for turn in range(longest) for part in parts if turn < len(part))


def check_tree(where: str, branches: Branches) -> None:
    """Refuse what is no tree.

    Raises:
        ConfigError: ``where`` holds something else than lists of topics and mappings, or an empty or repeated topic.
        ValueError: a topic is no text.
    """
    if isinstance(branches, str) or not isinstance(branches, Mapping | Sequence):
        raise ConfigError(f"{where} holds {branches!r}; it must be a list of topics, or map each topic to such a list")
    if not all(isinstance(topic, str) for topic in branches):
        raise ValueError(f"{where} has a topic that is no text in {list(branches)!r}; put it into quotes")
    if len({" ".join(topic.split()).casefold() for topic in branches if topic.strip()}) != len(branches):
        raise ConfigError(f"{where} has an empty or repeated topic; give each once")
    if isinstance(branches, Mapping):
        for topic, below in branches.items():
            check_tree(f"{where}, topic {topic!r}", below)


def check_degree(where: str, branches: Branches, degree: Sequence[int]) -> None:
    """Refuse a tree that has not exactly ``degree[d]`` branches at every node of depth d.

    Raises:
        ConfigError: with the first node that has another number, and how many are missing or too many there.
    """
    wanted = degree[0] if degree else 0
    if len(branches) != wanted:
        what = "missing" if len(branches) < wanted else "too many"
        raise ConfigError(
            f"{where} has {len(branches)} topics, degree wants {wanted} there: {abs(wanted - len(branches))} {what}; "
            "change the topics or the degree"
        )
    if isinstance(branches, Mapping):
        for topic, below in branches.items():
            check_degree(f"{where}, topic {topic!r}", below, degree[1:])
    elif len(degree) > 1 and branches:
        check_degree(f"{where}, topic {branches[0]!r}", (), degree[1:])
