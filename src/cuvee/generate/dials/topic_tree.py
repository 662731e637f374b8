"""Trees of topics: topics, subtopics of each, and so on; their leaves are what rows are asked for with. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from cuvee.errors import ConfigError

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
