"""Looks at the locked test: when they are taken, and how much error all of them make together."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from cuvee.recommend.confirming import find_level, find_training_part, plan_looks
from cuvee.records import Cell, Composition, Draw, Gain, Scores, Trial


@pytest.mark.parametrize(
    ("draws", "looks"),
    [(0, ()), (1, (1,)), (2, (2,)), (3, (3,)), (6, (3, 6)), (8, (3, 6, 8)), (12, (4, 8, 12)), (20, (7, 14, 20))],
)
def test_looks_are_thirds_of_the_draws_of_three_at_least(draws, looks):
    assert plan_looks(draws) == looks


@pytest.mark.parametrize(
    ("looks", "planned", "spent"), [((4, 8, 12), 12, 0.045), ((3,), 3, 0.045), ((4, 8, 12, 16, 20, 24), 12, 0.049375)]
)
def test_all_looks_together_err_as_often_as_planned(looks, planned, spent):
    """Sums of normal draws without any gain, where nothing but draws varies: the worst case for looks."""
    rng = np.random.default_rng(0)
    sums = rng.normal(size=(200_000, max(looks))).cumsum(axis=1)[:, np.array(looks) - 1] / np.sqrt(looks)
    levels = [find_level(looks[: k + 1], planned, 0.05) for k in range(len(looks))]
    crossed = (sums > -special.ndtri(np.array(levels) / 2.0)).any(axis=1).mean()
    assert crossed == pytest.approx(spent / 2.0, abs=0.0012)


def test_a_test_that_no_look_can_follow_has_all_of_alpha():
    assert find_level((), 0, 0.05) == 0.05


def test_a_look_with_no_more_draws_spends_what_is_left_for_looks_beyond_the_plan():
    assert find_level((4, 8, 12, 12), 12, 0.05) == pytest.approx(0.0025)


CELL = Cell(kind="blend", dial="topics", level="2", share=0.5, rows_per_label=4)
GAIN = Gain(
    over="real-only", value=0.0, low=-1.0, high=1.0, df=4.0, draws=5, items=100, mde=0.1, p_value=1.0,
    se_draws=0.01, se_items=0.0,
)  # fmt: skip


def make_trial(draw: Draw, accuracy: float) -> Trial:
    correct = np.arange(1000) < 1000 * accuracy
    made = Composition(share=0.5, real_rows=4, synthetic_rows=4, unique_rows=8, most_repeats=1, label_counts={})
    scores = Scores(n=1000, values={}, correct=correct)
    return Trial(cell=CELL, draw=draw, composition=made, steps=1, part="validation", scores=scores)


def test_what_more_trainings_of_a_draw_take_off_the_variance_between_draws():
    """Trainings differ by an SD of 1 point, draws by sqrt(5) points: one of three adds 2 x 1 x 2/3 to 5."""
    trials = [
        make_trial(Draw(generation=g, sampling=0, training=t), 0.5 + luck)
        for g in range(5)
        for t, luck in enumerate((-0.01, 0.0, 0.01))
    ]
    assert find_training_part(trials, GAIN, CELL) == pytest.approx(4 / 15)
    assert find_training_part(trials[::3], GAIN, CELL) == np.inf  # of one training nothing is known


@pytest.mark.slow
def test_looks_find_a_gain_of_three_points_and_none_where_there_is_none(monkeypatch):
    """A small version of ``benchmarks/error_rates.py --only studies``, at the demo's noise."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    rates = importlib.import_module("error_rates")
    demo, world = rates.BUDGETS[1], rates.STUDY_WORLDS[0]
    good, null = (
        np.array([rates.judge_study(rates.GRIDS[name], demo, world, seed) for seed in range(30)])
        for name in ("all good", "null")
    )
    assert good[:, 0].mean() >= 0.7 and good[:, 9].mean() < 9  # "use", and fresh draws
    assert null[:, 1].sum() <= 2 and null[:, 6].mean() >= 0.85
