import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.errors import InputError
from cuvee.mix import assign_blocks, full_blocks, take_blocks

ROWS = {"a": 3, "b": 3}


def make_pool(sizes: list[int]) -> Corpus:
    rows = [
        {"text": f"{label} {g} {i}", "target": label, "group": f"{label}{g}"}
        for label in ROWS
        for g, size in enumerate(sizes)
        for i in range(size)
    ]
    return Corpus.from_rows(rows, origin="synthetic")


@given(st.lists(st.integers(1, 4), min_size=12, max_size=20), st.integers(0, 5))
def test_blocks_are_full_disjoint_and_never_split_a_group(sizes, seed):
    pool = assign_blocks(make_pool(sizes), blocks=3, rows=ROWS, seed=seed)
    assert full_blocks(pool, ROWS) == {0, 1, 2}
    blocks_of: dict[str, set[int]] = {}
    for group, block in zip(pool.groups, pool.blocks.tolist(), strict=True):
        blocks_of.setdefault(group, set()).add(block)
    assert all(len(b) == 1 for b in blocks_of.values())
    assert len(take_blocks(pool, {0, 1})) == int(np.isin(pool.blocks, [0, 1]).sum())


def test_more_blocks_leave_the_earlier_and_the_reserved_ones_alone():
    pool = make_pool([2] * 20)
    three = assign_blocks(pool, blocks=3, rows=ROWS, seed=0, reserved=1, fresh=1000)
    five = assign_blocks(pool, blocks=5, rows=ROWS, seed=0, reserved=1, fresh=1000)
    for block in (1000, 0, 1):
        assert take_blocks(three, {block}).ids == take_blocks(five, {block}).ids != []
    assert full_blocks(five, ROWS) == {1000, 0, 1, 2, 3}


def test_too_few_rows_say_how_many_draws_there_could_be():
    with pytest.raises(InputError, match=r"label 'a' has 8 rows in 4 groups: enough for 2 draws of 3 rows, 5 were"):
        assign_blocks(make_pool([2] * 4), blocks=5, rows=ROWS, seed=0)
