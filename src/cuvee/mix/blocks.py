"""Cutting a ready-made pool into generation draws: disjoint blocks that no source row straddles."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cuvee.corpus import SCHEMA, Corpus, label_strata, normalise_text, row_sources
from cuvee.errors import InputError
from cuvee.fingerprint import derive_rng


def assign_blocks(
    pool: Corpus, *, blocks: int, rows: Mapping[str, int], seed: int, reserved: int = 0, fresh: int = 0
) -> Corpus:
    """Give each row of ``pool`` the number of a block, or none where the blocks are full.

    Groups (see :func:`whole_groups`; single rows where there is no group) are dealt whole, whatever their labels: for
    each label in turn those that hold it, in a seeded order, until the block has at least ``rows[label]`` rows of it.
    Blocks are filled one after the other, so that asking for more blocks leaves the earlier ones as they are.

    Args:
        pool: synthetic rows.
        blocks: how many blocks.
        rows: label -> rows needed in each block.
        seed: of the order.
        reserved: this many of the blocks, the first ones to be filled, are numbered from ``fresh``; the others
            from 0. So more blocks can be asked for later without touching the reserved ones.
        fresh: see ``reserved``.

    Raises:
        InputError: a label has too few rows, with how many blocks it could fill.
    """
    members = _Members.of(pool, [label for label, wanted in rows.items() if wanted])
    orders = {label: iter(members.in_order(label, derive_rng(seed, "blocks", label))) for label in members.labels}
    for block in range(blocks):
        filled: Counter[str] = Counter()
        for label, order in orders.items():
            while filled[label] < rows[label]:
                key = next((key for key in order if key not in members.block), None)
                if key is None:
                    groups, total = members.count(label)
                    raise InputError(
                        f"label {label!r} has {total} rows in {groups} groups: enough for {block} draws of "
                        f"{rows[label]} rows, {blocks} were asked; lower draws, mix.shape_share or split.rows_per_label"
                    )
                filled.update(members.put(key, block))
    return _with_blocks(pool, members.block_of(len(pool)), reserved, fresh)


def deal_blocks(
    pool: Corpus, *, blocks: int, rows: Mapping[str, int], seed: int, reserved: int = 0, fresh: int = 0
) -> Corpus:
    """Deal *all* rows of ``pool`` out to the blocks, as evenly as whole groups allow.

    Where rows are selected within each block, a block should hold all that it can. Groups of several labels go first,
    each to the block that has least of its labels so far; then, within each label, the others, each to the block with
    the fewest rows of the label. The largest go first, equal ones in a seeded order.

    Args:
        pool, blocks, rows, seed, reserved, fresh: as :func:`assign_blocks`.

    Raises:
        InputError: a block gets fewer rows of a label than it needs.
    """
    members = _Members.of(pool, rows)
    filled = {label: [0] * blocks for label in members.labels}
    totals = {label: members.count(label)[1] for label in members.labels}

    def deal(key: str) -> None:
        labels = members.counts(key)

        def has(block: int) -> tuple[float, int]:
            return sum(n * filled[label][block] / totals[label] for label, n in labels.items()), block

        block = min(range(blocks), key=has)
        for label, n in members.put(key, block).items():
            filled[label][block] += n

    mixed = [key for key in members.in_order(None, derive_rng(seed, "deal")) if len(members.counts(key)) > 1]
    for key in sorted(mixed, key=members.size):
        deal(key)
    for label in members.labels:
        order = [key for key in members.in_order(label, derive_rng(seed, "deal", label)) if key not in members.block]
        for key in sorted(order, key=members.size):
            deal(key)
    for label in members.labels:
        if min(filled[label]) < rows[label]:
            raise InputError(
                f"label {label!r} has {sum(filled[label])} rows in {members.count(label)[0]} groups: dealt out to "
                f"{blocks} draws, one has {min(filled[label])} of the {rows[label]} that it needs; lower draws, "
                "mix.shape_share or split.rows_per_label, or give a larger pool"
            )
    return _with_blocks(pool, members.block_of(len(pool)), reserved, fresh)


def whole_groups(pool: Corpus) -> list[str]:
    """What may not straddle draws, a name a row, shape (n,).

    Rows of one group belong together, and so do those about one context (generation) or with one passage (retrieval,
    where it is the target), by ``normalise_text``; what is linked through another row belongs together too.
    """
    about = row_sources(pool)
    if all(source is None for source in about):
        return pool.groups
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = parent.setdefault(above, above)
            name = parent[name]
        return name

    for group, source in zip(pool.groups, about, strict=True):
        if source is not None:
            first, second = find(f"group {group}"), find(f"about {normalise_text(source)}")
            parent[max(first, second)] = min(first, second)
    return [find(f"group {group}") for group in pool.groups]


def take_blocks(pool: Corpus, blocks: frozenset[int] | set[int]) -> Corpus:
    """The rows of ``pool`` in these blocks."""
    return pool.keep(np.isin(pool.blocks, sorted(blocks)))


def full_blocks(pool: Corpus, rows: Mapping[str, int]) -> set[int]:
    """The blocks that hold at least ``rows[label]`` rows of every label."""
    counts = Counter(zip(pool.blocks.tolist(), label_strata(pool), strict=True))
    present = {b for b, _ in counts if b >= 0}
    return {b for b in present if all(counts[b, label] >= n for label, n in rows.items())}


class _Members:
    """The rows of each group and label, and the block that each group was put into."""

    def __init__(self, rows: Mapping[str, Mapping[str, list[int]]], labels: Iterable[str]) -> None:
        self._rows = rows
        self.labels = sorted(labels)
        self.block: dict[str, int] = {}
        self._holding: dict[str, list[str]] = {label: [] for label in self.labels}
        for key in sorted(rows):
            for label in rows[key]:
                self._holding[label].append(key)

    @classmethod
    def of(cls, pool: Corpus, labels: Iterable[str]) -> _Members:
        """Those of the labels that are wanted; rows of others get no block."""
        wanted = set(labels)
        rows: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for i, (label, group) in enumerate(zip(label_strata(pool), whole_groups(pool), strict=True)):
            if label in wanted:
                rows[group][label].append(i)
        return cls(rows, wanted)

    def in_order(self, label: str | None, rng: np.random.Generator) -> list[str]:
        """The groups that hold a label (None: all groups), in a drawn order."""
        keys = sorted(self._rows) if label is None else self._holding[label]
        return [keys[i] for i in rng.permutation(len(keys))]

    def counts(self, key: str) -> dict[str, int]:
        """Label -> rows of a group."""
        return {label: len(rows) for label, rows in self._rows[key].items()}

    def size(self, key: str) -> int:
        """For sorting: the largest group first."""
        return -sum(self.counts(key).values())

    def count(self, label: str) -> tuple[int, int]:
        """Groups that hold a label, and its rows."""
        keys = self._holding[label]
        return len(keys), sum(len(self._rows[key][label]) for key in keys)

    def put(self, key: str, block: int) -> dict[str, int]:
        """Put a group into a block; label -> rows of the group."""
        self.block[key] = block
        return self.counts(key)

    def block_of(self, rows: int) -> NDArray[np.int64]:
        """The block of each row, shape (rows,); -1 where there is none."""
        found = np.full(rows, -1, dtype=np.int64)
        for key, block in self.block.items():
            for own in self._rows[key].values():
                found[own] = block
        return found


def _with_blocks(pool: Corpus, block_of: NDArray[np.int64], reserved: int, fresh: int) -> Corpus:
    numbers = [None if b < 0 else int(fresh + b if b < reserved else b - reserved) for b in block_of]
    column = pa.array(numbers, pa.int32())
    return Corpus(pool.table.set_column(SCHEMA.get_field_index("block"), "block", column), pool.task)
