"""Which rows of a pool a draw takes: its own block, or a subsample of all rows but those that are set aside."""

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


def mix(share, draw, **cell):
    """Ids of the synthetic rows of a blend."""
    made = Cell(kind="blend", dial="d", level="x", share=share, rows_per_label=4, **cell)
    mixing = Mixing(train=REAL, pools={"d=x": POOL}, regime="augment", seed=0)
    blend = mixing.mix(made, draw).corpus
    return {i for i, origin in zip(blend.ids, blend.origins, strict=True) if origin == "synthetic"}


def generation(number):
    return Draw(generation=number, sampling=0, training=0)


def subsample(number):
    return Draw(generation=0, sampling=number, training=0)


@pytest.mark.parametrize("draw", [0, 2, FRESH, FRESH + 2])
def test_a_draw_of_the_recipe_takes_its_own_block_alone(draw):
    assert {BLOCK[i] for i in mix(0.6, generation(draw))} == {draw}
    with pytest.raises(InputError, match="synthetic rows were asked"):
        mix(0.9, generation(draw))


def test_subsamples_of_this_pool_are_nested_and_leave_the_confirmations_rows_alone():
    small, large = (mix(share, subsample(3), scope="this pool") for share in (0.6, 0.8))
    assert small < large and len({BLOCK[i] for i in large}) > 1
    assert mix(0.6, subsample(4), scope="this pool") != small
    every = {i for i, block in BLOCK.items() if block < FRESH}
    # more than there is takes what there is; all of it is the same in every draw
    assert mix(0.99, subsample(0), scope="this pool") == every
    assert mix(0.9, subsample(1), scope="this pool", whole=True) == every
