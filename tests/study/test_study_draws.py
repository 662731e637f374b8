"""Blends that need more rows than one draw has: from the next draws of their kind, never from those set aside."""

import pytest

from cuvee.corpus import Corpus
from cuvee.errors import InputError
from cuvee.mix import assign_blocks
from cuvee.records import Cell, Draw
from cuvee.study.prepare import FRESH
from cuvee.study.running import Mixing

REAL = Corpus.from_rows([{"text": f"real {y} {i}", "target": y} for y in "ab" for i in range(4)])
MADE = Corpus.from_rows([{"text": f"made {y} {i}", "target": y} for y in "ab" for i in range(60)], origin="synthetic")
POOL = assign_blocks(MADE, blocks=[*range(FRESH, FRESH + 3), *range(3)], rows={"a": 8, "b": 8}, seed=0)
BLOCK = dict(zip(POOL.ids, POOL.blocks.tolist(), strict=True))


def blocks_of(share, draw, needed):
    mixing = Mixing(
        train=REAL, pools={"d=x": POOL}, blocks={(4, share): needed}, regime="augment", seed=0
    )  # fmt: skip
    cell = Cell(kind="blend", dial="d", level="x", share=share, rows_per_label=4)
    blend = mixing.mix(cell, Draw(generation=draw, sampling=0, training=0)).corpus
    return {BLOCK[i] for i, origin in zip(blend.ids, blend.origins, strict=True) if origin == "synthetic"}


@pytest.mark.parametrize(
    ("draw", "kind"), [(d, {0, 1, 2}) for d in range(3)] + [(FRESH + d, {1000, 1001, 1002}) for d in range(3)]
)
def test_a_large_share_borrows_from_draws_of_its_own_kind_alone(draw, kind):
    assert blocks_of(0.6, draw, 1) == {draw}
    two = blocks_of(0.8, draw, 2)
    assert draw in two and len(two) == 2 and two <= kind
    assert blocks_of(6 / 7, draw, 3) == kind


def test_more_than_all_draws_of_a_kind_hold_is_refused():
    for draw in (2, FRESH + 1):
        with pytest.raises(InputError, match="the pool has 24"):
            blocks_of(0.9, draw, 5)
