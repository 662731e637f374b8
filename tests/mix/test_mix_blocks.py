import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.errors import InputError
from cuvee.mix import assign_blocks, deal_blocks, full_blocks, take_blocks
from cuvee.mix.blend import whole_groups

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
    pool = assign_blocks(make_pool(sizes), blocks=range(3), rows=ROWS, seed=seed)
    assert full_blocks(pool, ROWS) == {0, 1, 2}
    blocks_of: dict[str, set[int]] = {}
    for group, block in zip(pool.groups, pool.blocks.tolist(), strict=True):
        blocks_of.setdefault(group, set()).add(block)
    assert all(len(b) == 1 for b in blocks_of.values())
    assert len(take_blocks(pool, {0, 1})) == int(np.isin(pool.blocks, [0, 1]).sum())


def test_more_blocks_leave_the_earlier_and_the_reserved_ones_alone():
    pool = make_pool([2] * 20)
    three = assign_blocks(pool, blocks=[1000, 0, 1], rows=ROWS, seed=0)
    five = assign_blocks(pool, blocks=[1000, 0, 1, 2, 3], rows=ROWS, seed=0)
    for block in (1000, 0, 1):
        assert take_blocks(three, {block}).ids == take_blocks(five, {block}).ids != []
    assert full_blocks(five, ROWS) == {1000, 0, 1, 2, 3}


def test_too_few_rows_say_how_many_draws_there_could_be():
    with pytest.raises(InputError, match=r"label 'a' has 8 rows in 4 groups: enough for 2 draws of 3 rows, 5 were"):
        assign_blocks(make_pool([2] * 4), blocks=range(5), rows=ROWS, seed=0)


@st.composite
def mixed_pools(draw):
    """Groups of one to three rows, each row of any label; a few rows have no group."""
    groups = draw(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), min_size=30, max_size=60))
    rows = [
        {"text": f"{g} {i}", "target": label, "group": None if len(labels) == 1 and g % 2 else f"g{g}"}
        for g, labels in enumerate(groups)
        for i, label in enumerate(labels)
    ]
    return Corpus.from_rows(rows, origin="synthetic")


@settings(max_examples=25)
@given(mixed_pools(), st.integers(0, 5), st.sampled_from([assign_blocks, deal_blocks]))
def test_a_group_of_several_labels_lies_in_one_draw_whole(pool, seed, cut):
    rows = {"a": 2, "b": 1}  # rows of c are not asked for
    try:
        made = cut(pool, blocks=[1000, 0, 1], rows=rows, seed=seed)
    except InputError:
        # a block takes at most 7 rows of a label: its own rows, and what comes with those of the other label
        assert min(pool.targets.count(label) for label in rows) < 3 * 7
        return
    assert full_blocks(made, rows) == {1000, 0, 1}
    blocks_of: dict[str, set[int]] = {}
    for group, label, block in zip(made.groups, made.targets, made.blocks.tolist(), strict=True):
        assert label != "c" or block == -1
        if label != "c":
            blocks_of.setdefault(group, set()).add(block)
    assert all(len(found) == 1 for found in blocks_of.values())
    if cut is deal_blocks:
        assert all(-1 not in found for found in blocks_of.values())


@settings(max_examples=20)
@given(mixed_pools(), st.integers(0, 3))
def test_more_blocks_leave_earlier_ones_alone_with_groups_of_several_labels_too(pool, seed):
    rows = {"a": 1, "b": 1, "c": 1}
    counts = pool.label_counts()
    if min(counts.get(label, 0) for label in rows) < 12:
        return
    two, four = (assign_blocks(pool, blocks=range(n), rows=rows, seed=seed) for n in (2, 4))
    for block in (0, 1):
        assert take_blocks(two, {block}).ids == take_blocks(four, {block}).ids


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=40, max_size=60), st.integers(0, 3))
def test_rows_about_one_passage_or_context_lie_in_one_draw(pairs, seed):
    for task, key in (("generation", "context"), ("retrieval", "target")):
        rows = [
            {"text": f"t{i}", "target": f"y{i}", "group": f"g{g}" if g < 4 else None, key: f"About {c}!"}
            for i, (g, c) in enumerate(pairs)
        ]
        pool = Corpus.from_rows(rows, origin="synthetic", task=task)
        try:
            made = deal_blocks(pool, blocks=range(2), rows={"": 1}, seed=seed)
        except InputError:
            assert len(set(whole_groups(pool))) < 2
            continue
        for column in (made.groups, [f"{c}" for _, c in pairs]):
            found: dict[str, set[int]] = {}
            for name, block in zip(column, made.blocks.tolist(), strict=True):
                found.setdefault(name, set()).add(block)
            assert all(len(blocks) == 1 for blocks in found.values())


def test_what_is_linked_through_other_rows_is_one_group():
    rows = [("g1", "One."), ("g2", "one"), ("g2", "Two"), (None, "two"), (None, "Three"), ("g3", None), ("g3", None)]
    pool = Corpus.from_rows(
        [{"text": f"t{i}", "target": "y", "group": g, "context": c} for i, (g, c) in enumerate(rows)],
        task="generation",
    )
    found = whole_groups(pool)
    assert len(set(found[:4])) == 1 and len({found[3], found[4], found[5]}) == 3 and found[5] == found[6]


def test_rows_fall_into_the_draws_that_they_always_fell_into_and_move_no_others_when_they_go():
    """Studies on disk hold such draws: as they were dealt when groups were still Python dictionaries."""
    rows = [
        {"text": f"row {i}", "target": "ab"[i % 3 == 0], "group": f"g{i // 4}" if i % 2 else None} for i in range(24)
    ]
    pool = Corpus.from_rows(rows, origin="synthetic")
    wanted = {"a": 3, "b": 2}
    assigned = assign_blocks(pool, blocks=[9, 0], rows=wanted, seed=1)
    dealt = deal_blocks(pool, blocks=[9, 0], rows=wanted, seed=1)
    used = assigned.blocks >= 0
    assert 0 < used.sum() < 24
    again = assign_blocks(pool.keep(used), blocks=[9, 0], rows=wanted, seed=1)
    assert again.blocks.tolist() == assigned.blocks[used].tolist()
    assert dealt.blocks.tolist() == [0, 9, 9, 9, 0, 9, 0, 9, 9, 9, 0, 9, 9, 0, 0, 0, 0, 0, 9, 0, 9, 0, 9, 0]
