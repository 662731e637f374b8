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
from cuvee.fingerprint import derive_rng, derive_seed, hash_each, scatter

Codes = NDArray[np.int64]


def assign_blocks(pool: Corpus, *, blocks: Sequence[int], rows: Mapping[str, int], seed: int) -> Corpus:
    """Give each row of ``pool`` the number of a block, or none where the blocks are full.

    Groups (see :func:`whole_groups`; single rows where there is no group) are dealt whole, whatever their labels: for
    each label in turn those that hold it, in an order of their names and the seed alone, until the block has at least
    ``rows[label]`` rows of it. Blocks are filled one after the other, so that asking for more blocks leaves the earlier
    ones as they are.

    Args:
        pool: synthetic rows.
        blocks: their numbers, in the order in which they are filled.
        rows: label -> rows needed in each block.
        seed: of the order.

    Raises:
        InputError: a label has too few rows, with how many blocks it could fill.
    """
    groups = _Groups(pool, [label for label, wanted in rows.items() if wanted])
    orders = {label: iter(groups.scattered(label, derive_seed(seed, "blocks", label))) for label in groups.labels}
    for place, block in enumerate(blocks):
        filled: Counter[str] = Counter()
        for label, order in orders.items():
            while filled[label] < rows[label]:
                key = next((key for key in order if groups.block[key] < 0), None)
                if key is None:
                    holding, total = groups.count(label)
                    raise InputError(
                        f"label {label!r} has {total} rows in {holding} groups: enough for {place} draws of "
                        f"{rows[label]} rows, {len(blocks)} were asked; lower draws, mix.shape_share or "
                        "split.rows_per_label"
                    )
                groups.block[key] = block
                filled.update(groups.counts(key))
    return groups.mark(pool)


def deal_blocks(pool: Corpus, *, blocks: Sequence[int], rows: Mapping[str, int], seed: int) -> Corpus:
    """Deal *all* rows of ``pool`` out to the blocks, as evenly as whole groups allow.

    Where rows are selected within each block, a block should hold all that it can. Groups of several labels go first,
    each to the block that has least of its labels so far; then, within each label, the others, each to the block with
    the fewest rows of the label. The largest go first, equal ones in a seeded order.

    Args:
        pool, blocks, rows, seed: as :func:`assign_blocks`.

    Raises:
        InputError: a block gets fewer rows of a label than it needs.
    """
    groups = _Groups(pool, rows)
    filled = {label: [0] * len(blocks) for label in groups.labels}
    totals = {label: groups.count(label)[1] for label in groups.labels}
    every = groups.in_order(None, derive_rng(seed, "deal"))
    turns = [every[groups.kinds[every] > 1]]
    turns += [groups.in_order(label, derive_rng(seed, "deal", label)) for label in groups.labels]
    for turn in turns:
        for key in groups.largest_first(turn[groups.block[turn] < 0]):
            counts = groups.counts(key)
            least = min(
                range(len(blocks)),
                key=lambda k: (sum(n * filled[label][k] / totals[label] for label, n in counts.items()), k),
            )
            groups.block[key] = blocks[least]
            for label, n in counts.items():
                filled[label][least] += n
    for label in groups.labels:
        if min(filled[label]) < rows[label]:
            raise InputError(
                f"label {label!r} has {sum(filled[label])} rows in {groups.count(label)[0]} groups: dealt out to "
                f"{len(blocks)} draws, one has {min(filled[label])} of the {rows[label]} that it needs; lower draws, "
                "mix.shape_share or split.rows_per_label, or give a larger pool"
            )
    return groups.mark(pool)


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


class _Groups:
    """The rows of each group and label, and the block that each group was put into; rows of other labels get none.

    Groups are numbered in the order of their names; of a group, labels come in the order of its rows.

    Attributes:
        labels: those that are wanted, sorted.
        kinds: labels of each group, shape (groups,).
        block: of each group, shape (groups,); -1 where it is in none.
    """

    def __init__(self, pool: Corpus, labels: Iterable[str]) -> None:
        self.labels = sorted(set(labels))
        number = {label: code for code, label in enumerate(self.labels)}
        label = np.array([number.get(found, -1) for found in label_strata(pool)], dtype=np.int64)
        self._rows = np.flatnonzero(label >= 0)
        names = _group_names(pool).take(pa.array(self._rows)).dictionary_encode()
        rank = np.empty(len(names.dictionary), dtype=np.int64)
        order = pc.sort_indices(names.dictionary)
        rank[order.to_numpy()] = np.arange(len(rank))
        self._hashes = hash_each(names.dictionary.take(order).to_pylist())
        self._group, label = rank[names.indices.to_numpy()], label[self._rows]
        pairs = self._group * max(1, len(self.labels)) + label
        _, first, counts = np.unique(pairs, return_index=True, return_counts=True)
        order = np.lexsort((first, self._group[first]))
        self._owner, self._label, self._count = self._group[first][order], label[first][order], counts[order]
        self._sizes = np.bincount(self._group, minlength=len(rank))
        self.kinds = np.bincount(self._owner, minlength=len(rank))
        self._start = np.cumsum(self.kinds) - self.kinds
        self.block = np.full(len(rank), -1, dtype=np.int64)

    def in_order(self, label: str | None, rng: np.random.Generator) -> Codes:
        """The groups that hold a label (None: all groups), in a drawn order."""
        every = np.arange(len(self.block)) if label is None else self._owner[self._label == self.labels.index(label)]
        return every[rng.permutation(len(every))]

    def scattered(self, label: str, seed: int) -> list[int]:
        """The groups that hold a label, in an order of each one's name and the seed alone."""
        every = self._owner[self._label == self.labels.index(label)]
        found: list[int] = every[np.argsort(scatter(self._hashes[every], seed), kind="stable")].tolist()
        return found

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
        held = self._label == self.labels.index(label)
        return int(held.sum()), int(self._count[held].sum())

    def mark(self, pool: Corpus) -> Corpus:
        """The pool with the block of each row."""
        found = np.full(len(pool), -1, dtype=np.int64)
        found[self._rows] = self.block[self._group]
        return pool.with_columns(block=pa.array(found.astype(np.int32), mask=found < 0))


def _group_names(pool: Corpus) -> pa.Array:
    """What :func:`whole_groups` gives, as a column."""
    if any(source is not None for source in row_sources(pool)):
        return pa.array(whole_groups(pool), pa.string())
    alone = pc.binary_join_element_wise("row:", pool.table["id"], "")
    return pc.coalesce(pool.table["group"], alone).combine_chunks()
