import dataclasses
import json

import pytest

from cuvee.recommend import advice_to_json, compare_advice
from cuvee.records import Advice, Cell, CellSummary, Gain, ManipulationCheck, ShapeTest
from cuvee.records.advice import TwoLines


def make_summary(level="4", share=0.75, value=0.03, trainer="probe"):
    cell = Cell(kind="blend", dial="topics", level=level, share=share, rows_per_label=4, trainer=trainer)
    gain = Gain(
        over="real-only", value=value, low=value - 0.01, high=value + 0.01, df=4, draws=5, items=100, mde=0.02,
        p_value=0.01, se_draws=0.003, se_items=0.001,
    )  # fmt: skip
    return CellSummary(cell=cell, accuracy=0.8, draws=5, trials=5, share=share, gains=(gain,))


def make_advice(decision="use", *, best=None, alike=(), verdict="inverted-U", interpreted=True, passed=True):
    shape = ShapeTest(
        dial="topics", share=0.75, levels=("1", "4", "16"), means=(0.7, 0.8, 0.7), draws=5, verdict=verdict,
        p_values={}, delta=0.01, alpha=0.05, interpreted=interpreted,
    )  # fmt: skip
    check = ManipulationCheck(dial="topics", metric="vendi_q1", levels=(), estimates=(), passed=passed, note="")
    return Advice(
        decision=decision, sentence="", best=best or make_summary(), not_distinguished=tuple(alike), cells=(),
        shapes=(shape,), checks=(check,), confirmation=None, more_draws=None, scope="", failures=0,
    )  # fmt: skip


def flips(base, variant):
    (row,) = compare_advice(base, {"variant": variant}).rows
    return row.flips, row.unsettled


BASE = make_advice()


@pytest.mark.parametrize(
    ("variant", "flipped", "unsettled"),
    [
        (make_advice(), (), ()),
        (make_advice("do-not-use"), ("decision",), ()),
        (make_advice("underpowered"), (), ("decision",)),
        (make_advice(best=make_summary("64")), ("best cell",), ()),
        (make_advice("underpowered", best=make_summary("64")), (), ("decision", "best cell")),
        (make_advice(best=make_summary(trainer="encoder")), (), ()),
        (make_advice(best=make_summary("64"), alike=[make_summary("4")]), (), ()),
        (make_advice(verdict="rising"), ("shape of topics",), ()),
        (make_advice(verdict="underpowered"), (), ("shape of topics",)),
        (make_advice(verdict="rising", interpreted=False), (), ("shape of topics",)),
        (dataclasses.replace(make_advice(), shapes=()), (), ("shape of topics",)),
        (make_advice(passed=False), ("manipulation check of topics",), ()),
        (dataclasses.replace(make_advice(), best=None), ("best cell",), ()),
    ],
)
def test_what_flips(variant, flipped, unsettled):
    assert flips(BASE, variant) == (flipped, unsettled)


def test_the_base_may_know_that_cells_are_alike():
    base = make_advice(alike=[make_summary("16")])
    assert flips(base, make_advice(best=make_summary("16"))) == ((), ())


def test_the_table_says_where_it_flips():
    table = compare_advice(
        BASE, {"metric dcscore": make_advice(), "trainer encoder": make_advice("do-not-use", verdict="falling")}
    )
    assert [row.variant for row in table.rows] == ["metric dcscore", "trainer encoder"] and not table.robust
    held = dataclasses.replace(BASE, sensitivity=table)
    plain = json.loads(json.dumps(advice_to_json(held), allow_nan=False))["sensitivity"]
    assert plain["robust"] is False and plain["rows"][1]["flips"] == ["decision", "shape of topics"]
    robust = compare_advice(BASE, {"loss imp": make_advice()})
    assert robust.robust


def with_lines(shape):
    lines = TwoLines(shape=shape, break_at=30.0, low_slope=0.01, low_p=0.01, high_slope=-0.01, high_p=0.01)
    base = make_advice()
    return dataclasses.replace(base, shapes=(dataclasses.replace(base.shapes[0], two_lines=lines),))


def test_two_lines_flip_too():
    base = with_lines("inverted-U")
    assert flips(base, with_lines("U-shaped")) == (("two lines of topics",), ())
    assert flips(base, with_lines("underpowered")) == ((), ("two lines of topics",))
    assert flips(base, BASE) == ((), ()) and flips(base, base) == ((), ())
    assert compare_advice(base, {}).base.two_lines == {"topics": "inverted-U"}
    mute = dataclasses.replace(base, shapes=(dataclasses.replace(base.shapes[0], interpreted=False),))
    (row,) = compare_advice(mute, {"metric distinct_2": base}).rows
    assert "two lines of topics" in row.unsettled and "two lines of topics" not in row.flips
    assert compare_advice(mute, {}).base.two_lines == {"topics": "not interpreted"}


def with_scores(trainer, scores):
    """Advice with a blend of each score at a share of its own, and cells that no ranking counts."""
    found = [
        dataclasses.replace(make_summary(share=0.01 * (i + 1), trainer=trainer), accuracy=score)
        for i, score in enumerate(scores)
    ]
    other = [dataclasses.replace(s, cell=dataclasses.replace(s.cell, rows_per_label=1)) for s in found]
    alone = dataclasses.replace(found[0], cell=dataclasses.replace(found[0].cell, kind="synthetic-only"), accuracy=0.1)
    return dataclasses.replace(BASE, best=found[0], cells=(*found, *other, alone))


def test_another_trainer_is_set_against_the_base_by_ranks():
    # scipy.stats.spearmanr of both lists is 0.8857; Bonett and Wright: tanh(atanh(r) +- 1.96 sqrt((1 + r^2/2) / 3))
    cheap, dear = with_scores("probe", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]), with_scores("encoder", [1, 3, 2, 5, 4, 6])
    dear = dataclasses.replace(dear, cells=(*dear.cells, make_summary("only here", trainer="encoder")))
    table = compare_advice(cheap, {"trainer encoder": dear, "equal epochs": cheap})
    ranks, none = table.rows[0].ranks, table.rows[1].ranks
    assert none is None and ranks.cells == 6
    assert (ranks.value, ranks.low, ranks.high) == pytest.approx((0.8857, 0.0664, 0.9916), abs=1e-4)
    assert "Trainer probe against encoder: both rank cells alike, rank correlation 0.89 over 6 cells [0.07" in str(
        table
    )
    plain = advice_to_json(dataclasses.replace(BASE, sensitivity=table))["sensitivity"]["rows"][0]["ranks"]
    assert plain["cells"] == 6 and plain["base"] == "probe" and plain["other"] == "encoder"
    against = compare_advice(cheap, {"x": with_scores("encoder", [6, 5, 1, 3, 2, 4])}).rows[0].ranks
    assert against.low < 0 and "not shown that probe ranks cells as encoder" in str(against)
    few = compare_advice(with_scores("probe", [1, 2, 3]), {"x": with_scores("encoder", [1, 2, 3])}).rows[0].ranks
    assert (few.value, few.low) == (1.0, None) and "too few for an interval" in str(few)
    same = compare_advice(with_scores("probe", range(9)), {"x": with_scores("encoder", range(9))}).rows[0].ranks
    assert same.value == 1.0 and same.low < same.high < 1.0
    assert compare_advice(cheap, {"x": with_scores("encoder", [1] * 6)}).rows[0].ranks is None


def test_the_table_in_words():
    table = compare_advice(BASE, {"equal epochs": make_advice("do-not-use")})
    assert "the conclusion flips under equal epochs (decision)" in str(table)
    robust = compare_advice(BASE, {"loss imp": BASE})
    assert "no other choice flips the conclusion; tried: loss imp" in str(robust)
