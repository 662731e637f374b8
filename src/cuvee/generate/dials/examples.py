"""The dial *examples*: from how many seed examples of a label the prompts draw the few that they show.

Rotating the seed examples is the plainest way to vary few-shot prompts, and choosing them at random is as good a
default as informed ways of choosing (arXiv 2410.10756).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError
from cuvee.fingerprint import derive_rng
from cuvee.generate.dials.protocol import (
    LevelDial,
    Slot,
    rank_levels,
    slot_key,
    whole_levels,
    whole_number,
)
from cuvee.records import Vectors

SELECTIONS = ("similar", "diverse")
"""Ways :func:`order_examples` knows; without it the order is random, another in each block."""


class ExamplesDial(LevelDial):
    """Level k lets the prompts of a label show k different seed examples over a block, a few at a time.

    The first k examples of the label's order are cut into sets of ``shown``; rows take the sets in turn, so each
    example is shown equally often (the last set is filled up from the first examples). Levels that share a set
    share its rows: with shown = 4, those of level 16 begin with the 4 examples of level 4. A level below
    ``shown`` shows all its examples in every prompt, and so fewer than the levels above it.

    Args:
        levels: numbers of seed examples.
        shown: seed examples in a prompt.
        order: label -> ids of its seed examples, of which level k takes the first k (see :func:`order_examples`);
            None is a random order, another in each block.

    Raises:
        ConfigError: a level or ``shown`` is no whole number above 0, or ``order`` has too few ids or one twice.
    """

    name = "examples"

    def __init__(
        self, *, levels: Sequence[int | float], shown: int = 4, order: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self._counts = whole_levels(self.name, levels, least=1)
        self.levels = rank_levels(self.name, [str(k) for k in self._counts])
        self._shown = whole_number(self.name, "shown", shown, least=1)
        self._order = {label: tuple(ids) for label, ids in order.items()} if order is not None else None
        for label, ids in (self._order or {}).items():
            if len(set(ids)) != len(ids) or len(ids) < self._counts[-1]:
                raise ConfigError(
                    f"dial 'examples': order of label {label!r} has {len(set(ids))} different ids in {len(ids)}, "
                    f"level {self._counts[-1]} needs as many; give each seed example once or drop the level"
                )

    def check(self, labels: Sequence[str], rows_per_label: int) -> None:
        """Raise ConfigError if a label has no order, or rows are too few to show every example."""
        missing = [label for label in labels if self._order is not None and label not in self._order]
        if missing:
            raise ConfigError(f"dial 'examples': order has no label {missing[0]!r}; it needs one list a label")
        largest = self._counts[-1]
        if rows_per_label < ceil(largest / self._shown):
            raise ConfigError(
                f"dial 'examples': level {largest} needs {ceil(largest / self._shown)} rows a label and block to show "
                f"as many examples by {self._shown}, there are {rows_per_label}; drop the level or raise the rows"
            )

    def _slots(self, labels: Sequence[str], block: int, rows: int, level: str) -> tuple[Slot, ...]:
        k = int(level)
        sets = ceil(k / self._shown)
        slots = []
        for row in range(rows):
            first = row % sets * self._shown
            places = tuple((first + i) % k for i in range(min(self._shown, k)))
            for label in labels:
                ids = self._order[label] if self._order is not None else ()
                slots.append(
                    Slot(
                        key=slot_key(label, block, "-".join(map(str, places)), row // sets),
                        label=label,
                        block=block,
                        examples=() if ids else places,
                        seed_ids=tuple(ids[place] for place in places) if ids else (),
                        number=row // sets,
                        order=row,
                    )
                )
        return tuple(slots)


def order_examples(
    train: Corpus, vectors: Vectors, *, selection: str, seed: int, strata: Mapping[str, Sequence[int]] | None = None,
    count: int | None = None,
) -> dict[str, tuple[str, ...]]:  # fmt: skip
    """Order each label's rows so that the first k, for every k, are much alike, or as unlike as can be.

    Both begin with a random row of the label. ``similar`` goes on with the rows nearest to it. ``diverse`` takes
    the row farthest from all taken so far (farthest-first traversal, Gonzalez 1985). Equal rows come in the
    order of the corpus. Of n rows of a label ``similar`` compares each with one, ``diverse`` each with ``count``; no
    more than n numbers are held at once.

    Args:
        train: the real training rows.
        vectors: unit vectors of its texts, shape (n, d).
        selection: ``similar`` or ``diverse``.
        seed: of the first row.
        strata: what a dial calls labels -> places of the rows that may be shown for it; None: labels and their rows.
        count: rows of a label that are wanted, the most that a level shows; None is all.

    Raises:
        ValueError: an unknown selection, vectors of another number of rows, or a count below 1.
    """
    if selection not in SELECTIONS:
        raise ValueError(f"selection {selection!r}; valid choices: {', '.join(SELECTIONS)}")
    if len(vectors) != len(train):
        raise ValueError(f"vectors has {len(vectors)} rows for {len(train)} training rows; give one each")
    if count is not None and count < 1:
        raise ValueError(f"count {count!r}; must be 1 or more, or None for all")
    order = _nearest_first if selection == "similar" else _farthest_first
    ordered = {}
    for label, members in (strata or _rows_by_label(train)).items():
        rows = np.array(members)
        first = int(derive_rng(seed, "example-order", label).integers(len(rows)))
        whole = len(rows) == len(vectors) and bool((rows == np.arange(len(rows))).all())  # which needs no copy
        taken = order(vectors if whole else vectors[rows], first, min(count or len(rows), len(rows)))
        ordered[label] = tuple(train.ids[rows[i]] for i in taken)
    return ordered


def _similarity(vectors: Vectors, to: int) -> Vectors:
    """Of every row to one of them; equal rows get equal bits, which products of matrices do not promise."""
    found: Vectors = np.einsum("ij,j->i", vectors, vectors[to])
    return found


def _nearest_first(vectors: Vectors, first: int, count: int) -> list[int]:
    near = _similarity(vectors, first)
    near[first] = np.inf
    return [int(i) for i in np.argsort(-near, kind="stable")[:count]]


def _farthest_first(vectors: Vectors, first: int, count: int) -> list[int]:
    taken, nearest = [first], _similarity(vectors, first)
    while len(taken) < count:
        nearest[taken[-1]] = np.inf
        taken.append(int(nearest.argmin()))
        np.maximum(nearest, _similarity(vectors, taken[-1]), out=nearest)
    return taken


def _rows_by_label(train: Corpus) -> dict[str, list[int]]:
    return {label: [i for i, target in enumerate(train.targets) if target == label] for label in train.labels}
