"""Cutting a ready-made pool into generation draws: disjoint blocks that no source row straddles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cuvee.corpus import Corpus, label_strata, link_rows, normalise_text, row_sources
from cuvee.errors import InputError
from cuvee.fingerprint import derive_rng

Codes = NDArray[np.int64]


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
    orders = {
        label: iter(members.in_order(label, derive_rng(seed, "blocks", label)).tolist()) for label in members.labels
    }
    for block in range(blocks):
        filled: Counter[str] = Counter()
        for label, order in orders.items():
            while filled[label] < rows[label]:
                key = next((key for key in order if members.block[key] < 0), None)
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

    def deal(key: int) -> None:
        labels = members.counts(key)

        def has(block: int) -> tuple[float, int]:
            return sum(n * filled[label][block] / totals[label] for label, n in labels.items()), block

        block = min(range(blocks), key=has)
        for label, n in members.put(key, block).items():
            filled[label][block] += n

    everything = members.in_order(None, derive_rng(seed, "deal"))
    for key in members.largest_first(everything[members.kinds[everything] > 1]):
        deal(key)
    for label in members.labels:
        order = members.in_order(label, derive_rng(seed, "deal", label))
        for key in members.largest_first(order[members.block[order] < 0]):
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
    groups = [f"group {group}" for group in pool.groups]
    sources = [None if source is None else f"about {normalise_text(source)}" for source in about]
    names = list(groups)
    for rows in link_rows(groups, sources):
        least = min(name for row in rows for name in (groups[row], sources[row]) if name is not None)
        for row in rows:
            names[row] = least
    return names


def take_blocks(pool: Corpus, blocks: frozenset[int] | set[int]) -> Corpus:
    """The rows of ``pool`` in these blocks."""
    return pool.keep(np.isin(pool.blocks, sorted(blocks)))


def full_blocks(pool: Corpus, rows: Mapping[str, int]) -> set[int]:
    """The blocks that hold at least ``rows[label]`` rows of every label."""
    counts = Counter(zip(pool.blocks.tolist(), label_strata(pool), strict=True))
    present = {b for b, _ in counts if b >= 0}
    return {b for b in present if all(counts[b, label] >= n for label, n in rows.items())}


class _Members:
    """The rows of each group and label, and the block that each group was put into.

    Groups are numbered in the order of their names; of a group, labels come in the order of its rows.

    Attributes:
        labels: those that are wanted, sorted.
        kinds: labels of each group, shape (groups,).
        block: of each group, shape (groups,); -1 where it is in none.
    """

    def __init__(self, labels: Sequence[str], rows: Codes, group: Codes, label: Codes) -> None:
        self.labels = labels
        self._rows, self._group = rows, group
        _, first, counts = np.unique(group * max(1, len(labels)) + label, return_index=True, return_counts=True)
        order = np.lexsort((first, group[first]))
        self._label, self._count = label[first][order], counts[order]
        owner = group[first][order]
        groups = int(owner.max(initial=-1)) + 1
        self.kinds = np.bincount(owner, minlength=groups)
        self._start = np.cumsum(self.kinds) - self.kinds
        self._sizes = np.bincount(group, minlength=groups)
        self._holding = [owner[self._label == number] for number in range(len(labels))]
        self._totals = [int(self._count[self._label == number].sum()) for number in range(len(labels))]
        self.block = np.full(groups, -1, dtype=np.int64)

    @classmethod
    def of(cls, pool: Corpus, labels: Iterable[str]) -> _Members:
        """Those of the labels that are wanted; rows of others get no block."""
        wanted = sorted(set(labels))
        number = {label: code for code, label in enumerate(wanted)}
        label = np.array([number.get(found, -1) for found in label_strata(pool)], dtype=np.int64)
        rows = np.flatnonzero(label >= 0)
        names = _group_names(pool).take(pa.array(rows)).dictionary_encode()
        rank = np.empty(len(names.dictionary), dtype=np.int64)
        rank[pc.sort_indices(names.dictionary).to_numpy()] = np.arange(len(rank))
        return cls(wanted, rows, rank[names.indices.to_numpy()], label[rows])

    def in_order(self, label: str | None, rng: np.random.Generator) -> Codes:
        """The groups that hold a label (None: all groups), in a drawn order."""
        keys = np.arange(len(self.block)) if label is None else self._holding[self.labels.index(label)]
        return keys[rng.permutation(len(keys))]

    def largest_first(self, keys: Codes) -> list[int]:
        """The groups by their size; equal ones stay in their order."""
        found: list[int] = keys[np.argsort(-self._sizes[keys], kind="stable")].tolist()
        return found

    def counts(self, key: int) -> dict[str, int]:
        """Label -> rows of a group."""
        start = int(self._start[key])
        pairs = range(start, start + int(self.kinds[key]))
        return {self.labels[self._label[pair]]: int(self._count[pair]) for pair in pairs}

    def count(self, label: str) -> tuple[int, int]:
        """Groups that hold a label, and its rows."""
        number = self.labels.index(label)
        return len(self._holding[number]), self._totals[number]

    def put(self, key: int, block: int) -> dict[str, int]:
        """Put a group into a block; label -> rows of the group."""
        self.block[key] = block
        return self.counts(key)

    def block_of(self, rows: int) -> Codes:
        """The block of each row, shape (rows,); -1 where there is none."""
        found = np.full(rows, -1, dtype=np.int64)
        found[self._rows] = self.block[self._group]
        return found


def _group_names(pool: Corpus) -> pa.Array:
    """What :func:`whole_groups` gives, as a column."""
    if any(source is not None for source in row_sources(pool)):
        return pa.array(whole_groups(pool), pa.string())
    alone = pc.binary_join_element_wise("row:", pool.table["id"], "")
    return pc.coalesce(pool.table["group"], alone).combine_chunks()


def _with_blocks(pool: Corpus, block_of: Codes, reserved: int, fresh: int) -> Corpus:
    numbers = np.where(block_of < reserved, fresh + block_of, block_of - reserved).astype(np.int32)
    return pool.with_columns(block=pa.array(numbers, mask=block_of < 0))
