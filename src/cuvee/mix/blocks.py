"""Cutting a ready-made pool into generation draws: disjoint blocks that no source row straddles."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cuvee.corpus import SCHEMA, Corpus, label_strata
from cuvee.errors import InputError
from cuvee.fingerprint import derive_rng


def assign_blocks(
    pool: Corpus, *, blocks: int, rows: Mapping[str, int], seed: int, reserved: int = 0, fresh: int = 0
) -> Corpus:
    """Give each row of ``pool`` the number of a block, or none where the blocks are full.

    Within each label the groups (all paraphrases of one source; single rows where there is no group) are
    dealt in a seeded order; each block takes whole groups until it has at least ``rows[label]`` rows.
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
    rows = {label: wanted for label, wanted in rows.items() if wanted}
    members: dict[str, dict[str, list[int]]] = {label: defaultdict(list) for label in rows}
    for i, (label, group) in enumerate(zip(label_strata(pool), pool.groups, strict=True)):
        if label in members:
            members[label][group].append(i)
    block_of = np.full(len(pool), -1, dtype=np.int64)
    for label, groups in sorted(members.items()):
        keys = sorted(groups)
        order = derive_rng(seed, "blocks", label).permutation(len(keys))
        filled: Counter[int] = Counter()
        current = 0
        for key in (keys[i] for i in order):
            if current == blocks:
                break
            block_of[groups[key]] = current
            filled[current] += len(groups[key])
            if filled[current] >= rows[label]:
                current += 1
        if current < blocks:
            raise InputError(
                f"label {label!r} has {sum(map(len, groups.values()))} rows in {len(groups)} groups: enough for "
                f"{current} draws of {rows[label]} rows, {blocks} were asked; "
                "lower draws, mix.shape_share or split.rows_per_label"
            )
    return _with_blocks(pool, block_of, reserved, fresh)


def deal_blocks(
    pool: Corpus, *, blocks: int, rows: Mapping[str, int], seed: int, reserved: int = 0, fresh: int = 0
) -> Corpus:
    """Deal *all* rows of ``pool`` out to the blocks, as evenly as whole groups allow.

    Where rows are selected within each block, a block should hold all that it can. Within each label the groups go, the
    largest first and equal ones in a seeded order, each to the block with the fewest rows so far.

    Args:
        pool, blocks, rows, seed, reserved, fresh: as :func:`assign_blocks`.

    Raises:
        InputError: a block gets fewer rows of a label than it needs.
    """
    members: dict[str, dict[str, list[int]]] = {label: defaultdict(list) for label in rows}
    for i, (label, group) in enumerate(zip(label_strata(pool), pool.groups, strict=True)):
        if label in members:
            members[label][group].append(i)
    block_of = np.full(len(pool), -1, dtype=np.int64)
    for label, groups in sorted(members.items()):
        keys = sorted(groups)
        mixed = [keys[i] for i in derive_rng(seed, "deal", label).permutation(len(keys))]
        filled = [0] * blocks
        for key in sorted(mixed, key=lambda k: -len(groups[k])):
            least = min(range(blocks), key=lambda b: (filled[b], b))
            block_of[groups[key]] = least
            filled[least] += len(groups[key])
        if min(filled) < rows[label]:
            raise InputError(
                f"label {label!r} has {sum(filled)} rows in {len(groups)} groups: dealt out to {blocks} draws, one has "
                f"{min(filled)} of the {rows[label]} that it needs; lower draws, mix.shape_share or "
                "split.rows_per_label, or give a larger pool"
            )
    return _with_blocks(pool, block_of, reserved, fresh)


def take_blocks(pool: Corpus, blocks: frozenset[int] | set[int]) -> Corpus:
    """The rows of ``pool`` in these blocks."""
    return pool.keep(np.isin(pool.blocks, sorted(blocks)))


def full_blocks(pool: Corpus, rows: Mapping[str, int]) -> set[int]:
    """The blocks that hold at least ``rows[label]`` rows of every label."""
    counts = Counter(zip(pool.blocks.tolist(), label_strata(pool), strict=True))
    present = {b for b, _ in counts if b >= 0}
    return {b for b in present if all(counts[b, label] >= n for label, n in rows.items())}


def _with_blocks(pool: Corpus, block_of: NDArray[np.int64], reserved: int, fresh: int) -> Corpus:
    numbers = [None if b < 0 else int(fresh + b if b < reserved else b - reserved) for b in block_of]
    column = pa.array(numbers, pa.int32())
    return Corpus(pool.table.set_column(SCHEMA.get_field_index("block"), "block", column), pool.task)
