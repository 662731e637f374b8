import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from cuvee.recommend.cells import merge_groups
from cuvee.recommend.statistics import (
    MeanError,
    adjust_holm,
    count_items,
    count_joint,
    count_more_draws,
    join_df,
    paired_gain,
    pool_again,
    pool_gain,
    pool_spreads,
    split_variance,
)

ITEMS = 1000


def draw_table(rng, *, gain=0.0, draw=0.0, item=0.0, rest=0.3, draws=5, items=ITEMS):
    return (
        gain + rng.normal(0, draw, (draws, 1)) + rng.normal(0, item, (1, items)) + rng.normal(0, rest, (draws, items))
    )


@pytest.mark.parametrize(("draw", "item"), [(0.0, 0.3), (0.01, 0.3), (0.03, 0.3), (0.02, 0.1)], ids=lambda v: f"{v:g}")
def test_interval_covers_as_it_says(draw, item):
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(1000):
        gain = paired_gain(draw_table(rng, gain=0.02, draw=draw, item=item), np.zeros(ITEMS), over="b")
        covered += gain.low <= 0.02 <= gain.high
    assert 0.92 <= covered / 1000 <= 0.98


def test_interval_covers_for_correctness_of_equal_cells():
    """Right-or-wrong answers, items of differing difficulty, nobody better."""
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(600):
        ease = rng.beta(2, 1, ITEMS)
        first, second = (rng.random((5, ITEMS)) < ease for _ in range(2))
        gain = paired_gain(first, second, over="b")
        inside += gain.low <= 0 <= gain.high
    assert 0.92 <= inside / 600 <= 0.99


def test_draws_alone_would_be_too_narrow():
    """What the items' part is for: with items that differ, t over the draws covers far too rarely."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        means = draw_table(rng, draw=0.002, item=0.5, rest=0.1).mean(axis=1)
        low, high = stats.t.interval(0.95, 4, means.mean(), stats.sem(means))
        covered += low <= 0 <= high
    assert covered / 300 < 0.7


def test_mean_squares_are_those_of_the_textbook():
    table = np.array([[1.0, 2.0, 6.0], [2.0, 5.0, 8.0]]) - 4.0
    parts = split_variance(table)
    assert parts.value == pytest.approx(0.0)
    # sums of squares by hand: total 38 = draws 6 + items 31 + rest 1
    assert parts.draw == pytest.approx(6.0)
    assert parts.item == pytest.approx(31.0 / 2)
    assert parts.rest == pytest.approx(1.0 / 2)
    assert parts.measure().variance == pytest.approx((6.0 + 15.5 - 0.5) / 6)
    # Cochran & Cox: the 90% quantiles of t with 1 and 2 degrees of freedom, weighted 6 to 15
    wanted = (6.0 * stats.t.ppf(0.9, 1) + 15.0 * stats.t.ppf(0.9, 2)) / 21.0
    assert stats.t.ppf(0.9, parts.measure().find_df()) == pytest.approx(wanted)


def test_one_draw_is_the_paired_t_test_over_items():
    rng = np.random.default_rng(0)
    first, second = rng.random(200) < 0.8, rng.random(200) < 0.7
    gain = paired_gain(first, second, over="real-only")
    expected = stats.ttest_rel(first.astype(float), second.astype(float))
    low, high = expected.confidence_interval(0.95)
    assert (gain.low, gain.high) == pytest.approx((low, high))
    assert gain.p_value == pytest.approx(expected.pvalue)
    assert (gain.draws, gain.items, gain.over) == (1, 200, "real-only")


def test_a_negative_part_of_the_items_counts_as_zero():
    """Items that agree better than chance leave the t test over draws."""
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.3, (5, ITEMS))
    table = noise - noise.mean(axis=0) + rng.normal(0, 0.05, (5, 1))
    parts = split_variance(table)
    assert parts.item < parts.rest
    assert parts.measure().variance == pytest.approx(parts.draw / (5 * ITEMS))
    assert parts.measure().find_df() == pytest.approx(4.0)
    assert paired_gain(table, 0.0, over="").p_value == pytest.approx(stats.ttest_1samp(table.mean(axis=1), 0.0).pvalue)


def test_draws_that_agree_exactly_leave_the_items():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.3, (5, ITEMS))
    table = noise - noise.mean(axis=1, keepdims=True) + rng.normal(0, 0.3, ITEMS)
    parts = split_variance(table)
    assert parts.draw < parts.rest
    assert parts.measure().variance == pytest.approx((parts.item - parts.rest) / (5 * ITEMS))
    assert parts.measure().find_df() == pytest.approx(ITEMS - 1)


@pytest.mark.parametrize(("draws", "least", "most"), [(2, 0.925, 0.972), (3, 0.946, 0.968), (5, 0.949, 0.963)])
def test_intervals_cover_whatever_part_of_the_variance_is_the_draws(draws, least, most):
    """By integration over what the draws' mean square may be; items so many that their part is known."""
    middle = (np.arange(4000) + 0.5) / 4000
    squares = stats.chi2.ppf(middle, draws - 1) / (draws - 1)
    for true in (0.01, 0.1, 0.3, 0.7, 0.95, 1.0):
        halves = [
            stats.t.ppf(0.975, join_df(true * square, 1.0 - true, df_draws=draws - 1, df_items=10**6))
            * np.sqrt(true * square + 1.0 - true)
            for square in squares[::8]
        ]
        covered = float(np.mean(2 * stats.norm.cdf(halves) - 1))
        assert least <= covered <= most


def test_identical_answers_are_not_certainty():
    same = np.ones((5, ITEMS))
    gain = paired_gain(same, same, over="b")
    assert gain.value == 0
    assert gain.low == pytest.approx(-gain.high)
    assert 0.001 < gain.high < 0.01 and gain.mde > 0.001


def test_a_baseline_of_one_row_pairs_with_every_draw():
    rng = np.random.default_rng(2)
    cell, base = rng.random((4, 50)) < 0.7, rng.random(50) < 0.6
    assert paired_gain(cell, base, over="b") == paired_gain(cell, np.tile(base, (4, 1)), over="b")


def test_mde_is_found_with_power_080():
    rng = np.random.default_rng(11)
    planned = np.mean(
        [paired_gain(draw_table(rng, draw=0.01, item=0.3), np.zeros(ITEMS), over="b").mde for _ in range(200)]
    )
    found = [
        paired_gain(draw_table(rng, gain=planned, draw=0.01, item=0.3), np.zeros(ITEMS), over="b").low > 0
        for _ in range(500)
    ]
    assert 0.74 <= np.mean(found) <= 0.88


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="items >= 2"):
        split_variance(np.ones((3, 1)))
    with pytest.raises(ValueError, match="finite"):
        split_variance([[1.0, np.nan]])


def gain_of(table):
    return paired_gain(table, np.zeros(np.shape(table)[-1]), over="b")


def test_more_draws_help_only_where_draws_are_the_trouble():
    rng = np.random.default_rng(4)
    noisy_draws = gain_of(draw_table(rng, draw=0.03, item=0.1, rest=0.1))
    more = count_more_draws(noisy_draws, effect=0.02)
    assert more is not None and 3 <= more <= 60
    assert (count_more_draws(noisy_draws, effect=0.04) or 0) < more
    noisy_items = gain_of(draw_table(rng, draw=0.0, item=1.0, rest=0.1))
    assert count_more_draws(noisy_items, effect=0.02) is None
    items = count_items(noisy_items, effect=0.02)
    assert items > 1.5 * noisy_items.items and count_items(noisy_items, effect=0.01) > 3.9 * items
    assert count_items(noisy_draws, effect=0.02) is None  # five draws are too few, whatever the items
    clear = gain_of(draw_table(rng, draw=0.001, item=0.1, rest=0.1))
    assert count_more_draws(clear, effect=0.05) == 0
    assert count_more_draws(gain_of(np.arange(9.0)), effect=0.05) is None


def test_planned_draws_reach_the_power():
    rng = np.random.default_rng(8)
    table = draw_table(rng, draw=0.02, item=0.2)
    pilot = gain_of(table)
    draws = 5 + (count_more_draws(pilot, effect=0.03) or 0)
    parts = split_variance(table)
    spread = np.sqrt(max(parts.draw - parts.rest, 0) / ITEMS)
    found = [
        paired_gain(draw_table(rng, gain=0.03, draw=spread, item=0.2, draws=draws), np.zeros(ITEMS), over="b").low > 0
        for _ in range(400)
    ]
    assert np.mean(found) > 0.74


def test_holm_by_hand_and_by_brute_force():
    assert adjust_holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert adjust_holm([]) == ()
    rng = np.random.default_rng(6)
    values = rng.random(5) ** 3

    def closed(k):  # Holm is the closure of Bonferroni: the largest p over all subsets that hold k
        subsets = (s for r in range(1, 6) for s in itertools.combinations(range(5), r) if k in s)
        return min(1.0, max(len(s) * min(values[j] for j in s) for s in subsets))

    assert adjust_holm(values) == pytest.approx([closed(k) for k in range(5)])


def test_draws_that_cancel_out_are_no_certainty():
    """Two draws that differ the other way round than items do: the variance is that of one item, known from draws."""
    table = np.array([[1.0, -1.0, 0.0, 0.0], [-1.0, 1.0, 0.0, 0.0]])
    gain = paired_gain(table, np.zeros((2, 4)), over="real-only")
    assert split_variance(table).measure().variance == pytest.approx(1 / 16)
    assert gain.df == pytest.approx(1.0) and gain.high == pytest.approx(stats.t.ppf(0.975, 1) / 4)


@pytest.mark.parametrize("draws", [2, 5])
def test_intervals_of_graded_scores_follow_the_scores(draws):
    """Scores ten times as fine give intervals ten times as narrow, and they cover: no answer counts as a whole one."""
    rng = np.random.default_rng(12)
    table = draw_table(rng, draw=0.001, item=0.02, rest=0.02, draws=draws, items=60)
    coarse, fine = gain_of(table), gain_of(table / 10)
    assert (fine.low, fine.high, fine.mde) == pytest.approx((coarse.low / 10, coarse.high / 10, coarse.mde / 10))
    assert fine.p_value == pytest.approx(coarse.p_value)
    covered = 0
    for _ in range(600):
        own = rng.beta(2, 2, 60) - 0.5  # an F1 of two cells differs by its own amount on each item
        gain = gain_of(0.004 + 0.03 * own + rng.normal(0, 0.01, (draws, 60)) + rng.normal(0, 0.002, (draws, 1)))
        covered += gain.low <= 0.004 <= gain.high
    assert 0.92 <= covered / 600 <= 0.98 and coarse.high - coarse.low < 0.08


def test_groups_are_the_items_where_items_come_in_groups():
    """Items of a document share what makes them easy; documents differ in length."""
    rng = np.random.default_rng(16)
    covered = np.zeros(2)
    for _ in range(300):
        groups = np.repeat(np.arange(40), rng.integers(5, 35, 40))
        own = np.sqrt(0.3) * rng.normal(0, 1, 40)[groups] + np.sqrt(0.7) * rng.normal(0, 1, groups.size)
        table = 0.02 + 0.3 * own + rng.normal(0, 0.3, (3, groups.size)) + rng.normal(0, 0.005, (3, 1))
        merged = merge_groups(table, groups)
        assert merged.shape == (3, 40) and merged.mean(axis=1) == pytest.approx(table.mean(axis=1))
        covered += [gain.low <= 0.02 <= gain.high for gain in (gain_of(table), gain_of(merged))]
    assert covered[0] / 300 < 0.8 and 0.91 <= covered[1] / 300 <= 0.985
    even = np.repeat(np.arange(3), 2)
    assert merge_groups(np.arange(6.0)[None], even) == pytest.approx(np.array([[0.5, 2.5, 4.5]]))


def pool_tables(tables):
    found = [split_variance(table) for table in tables]
    prior = pool_spreads(found, others=(len(found) - 1) * (len(tables[0]) - 1))
    return [pool_gain(gain_of(table), prior) for table in tables], prior


def test_pooled_spreads_narrow_intervals_that_still_cover():
    rng = np.random.default_rng(14)
    own, pooled, fresh = [], [], []
    for _ in range(120):
        tables = [draw_table(rng, gain=0.01, draw=0.015, item=0.1, draws=3, items=300) for _ in range(8)]
        own += [gain_of(table) for table in tables]
        gains, prior = pool_tables(tables)
        assert prior.df <= 12
        pooled += gains
        later = draw_table(rng, gain=0.01, draw=0.015, item=0.1, draws=3, items=700)
        fresh.append(pool_again(gain_of(later), gains[0]))
    for gains, least, most in ((pooled, 0.93, 0.98), (fresh, 0.89, 1.0)):
        assert least <= np.mean([gain.low <= 0.01 <= gain.high for gain in gains]) <= most
    assert np.mean([g.mde for g in pooled]) < 0.8 * np.mean([g.mde for g in own])
    assert np.mean([g.prior_df for g in fresh]) > 3


def test_what_is_not_pooled():
    """Two draws, two cells, or a cell whose draws vary out of all proportion."""
    rng = np.random.default_rng(15)
    two = [draw_table(rng, draw=0.02, draws=2, items=100) for _ in range(8)]
    assert pool_tables(two)[1] is None
    three = [draw_table(rng, draw=0.02, draws=3, items=100) for _ in range(8)]
    assert pool_tables(three[:2])[1] is None
    gains, prior = pool_tables([*three, draw_table(rng, draw=0.5, draws=3, items=100)])
    assert gains[-1].prior_df == 0 < gains[0].prior_df
    assert pool_gain(gain_of(two[0]), prior).prior_df == 0
    assert pool_again(gain_of(three[0]), gain_of(two[0])) == gain_of(three[0])


def test_small_tails_of_few_draws_are_not_too_frequent():
    """By integration over what the mean square of two or three draws may be, at the p-value that Holm asks of 36."""
    tail = 0.05 / 72
    for draws, most in ((2, 2.5), (3, 1.5)):
        squares = stats.chi2.ppf((np.arange(500) + 0.5) / 500, draws - 1) / (draws - 1)
        for true in (0.1, 0.5, 0.9):
            errors = [
                MeanError(of_draws=true * square, of_items=1.0 - true, df_draws=draws - 1, df_items=10**6)
                for square in squares
            ]
            assert np.mean(stats.norm.sf([error.reach(tail) for error in errors])) <= most * tail
    assert errors[250].find_tail(errors[250].reach(tail)) == pytest.approx(tail, rel=1e-3)


def test_ruling_out_many_blends_at_once_takes_more_draws_the_less_their_errors_share():
    rng = np.random.default_rng(3)
    gains = [gain_of(rng.normal(0, 0.02, (5, 1)) + rng.normal(0, 0.1, (5, 2000))) for _ in range(6)]
    alone, shared, apart = (
        count_joint(g, effect=0.02, alpha=0.05, shared=part)[0]
        for g, part in ((gains[:1], 0.0), (gains, 0.9), (gains, 0.0))
    )
    assert 0 < alone < shared < apart
    each = [count_more_draws(gain, effect=0.02) for gain in gains]
    assert min(each) <= count_joint([gains[0]], effect=0.02, alpha=0.05, shared=0.0)[0] + 2
    whole = replace(gain_of(rng.normal(0, 0.1, 2000)), is_whole=True)  # all rows: more draws say no more of it
    assert count_joint([*gains, whole], effect=0.02, alpha=0.05, shared=0.9)[0] == pytest.approx(shared, abs=2)
    few = [gain_of(rng.normal(0, 0.5, 40) + rng.normal(0, 0.1, (5, 40))) for _ in range(2)]
    none, items = count_joint(few, effect=0.01, alpha=0.05, shared=0.5)  # 40 items are too few
    assert none is None and items > 1.1 * count_items(few[0], effect=0.01)  # two are to be ruled out in place of one
