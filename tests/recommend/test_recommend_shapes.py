import numpy as np
import pytest
from scipy import stats

from cuvee.recommend import shapes
from cuvee.recommend.statistics import paired_gain

LEVELS = ("1", "4", "16", "64")


def spread_over_items(values, items=1000):
    """Accuracies of shape (draws, levels) as those of items that all score the same."""
    return np.repeat(np.asarray(values, dtype=np.float64)[:, :, None], items, axis=2)


def judge(values, **options):
    settings = {"levels": LEVELS, "delta": 0.01, "alpha": 0.05} | options
    return shapes.test_shape(spread_over_items(values), **settings)


def answer(truth, rng, *, items, draws, own_items=0.3, spread=1.0):
    """Right-or-wrong answers, shape (draws, levels, items): items differ in ease, to every level in its own way.

    ``truth`` is in points above 70%; two levels differ by ``spread`` points over draws.
    """
    size, total = (draws, len(truth), items), np.sqrt(1 + own_items**2 + 0.3**2)
    mean = stats.norm.ppf(0.7 + 0.01 * np.asarray(truth)) * total
    a_point = 0.01 * total / stats.norm.pdf(stats.norm.ppf(0.7))
    ease = rng.normal(0, 1, items) + rng.normal(0, own_items, size[1:])
    luck = rng.normal(0, spread / np.sqrt(2), size[:2]) * a_point
    return (mean[:, None] + ease + luck[:, :, None] + rng.normal(0, 0.3, size) > 0).astype(float)


def simulate(means, *, draws=5, spread=0.01, seed=0):
    return np.asarray(means) + np.random.default_rng(seed).normal(0, spread, (draws, len(means)))


@pytest.mark.parametrize(
    ("means", "verdict"),
    [
        ((0.70, 0.75, 0.76, 0.70), "inverted-U"),
        ((0.76, 0.70, 0.70, 0.76), "U-shaped"),
        ((0.70, 0.72, 0.75, 0.78), "rising"),
        ((0.78, 0.75, 0.72, 0.70), "falling"),
        ((0.75, 0.75, 0.75, 0.75), "flat"),
    ],
)
def test_clear_truths_are_named(means, verdict):
    result = judge(simulate(means, spread=0.003, seed=1))
    assert result.verdict == verdict
    assert result.p_values[verdict] <= 0.05
    assert result.draws == 5 and result.levels == LEVELS
    assert result.means == pytest.approx(means, abs=0.006)


def test_noise_is_underpowered():
    result = judge(simulate((0.75,) * 4, spread=0.05, draws=3))
    assert result.verdict == "underpowered"


def test_p_values_are_paired_t_tests_of_scipy():
    """Where items tell nothing apart; two draws, whose spread is not pooled over pairs."""
    values = simulate((0.70, 0.73, 0.74, 0.71), spread=0.02, seed=3, draws=2)
    p_values = judge(values).p_values

    def above(a, b, margin=0.0):
        return stats.ttest_rel(values[:, a] - margin, values[:, b], alternative="greater").pvalue

    best = stats.norm.isf(min(max(above(k, 0), above(k, 3)) for k in (1, 2)))
    none_above = stats.multivariate_normal(cov=[[1.0, 0.5], [0.5, 1.0]]).cdf([best, best])  # Dunnett's correction
    assert p_values["inverted-U"] == pytest.approx(1.0 - none_above, rel=1e-3)
    assert p_values["rising"] == pytest.approx(min(1, 3 * above(3, 0)), rel=1e-3)
    assert p_values["falling"] == pytest.approx(min(1, 3 * above(0, 3)), rel=1e-3)
    tost = [above(a, b, -0.01) for a in range(4) for b in range(4) if a != b]
    assert p_values["flat"] == pytest.approx(max(tost), rel=1e-3)


def test_pairs_are_compared_as_gains_are():
    """Two levels: their difference is a gain; of five, the spreads are pooled, which lends degrees of freedom."""
    table = answer((0, 2), np.random.default_rng(5), items=300, draws=4)
    gain = paired_gain(table[:, 1], table[:, 0], over="1")
    rising = shapes.test_shape(table, levels=("1", "4"), delta=0.01).p_values["rising"]
    assert gain.value > 0 and rising == pytest.approx(gain.p_value)


def test_more_draws_make_no_false_turns():
    """The items of one world answer one level a little better, draw after draw: that is no shape."""
    rng = np.random.default_rng(21)
    plateau, flat = (0.0, 3.0, 3.0, 3.0, 3.0), (0.0,) * 5
    found = {
        truth: [
            shapes.test_shape(answer(truth, rng, items=300, draws=10), levels=tuple("abcde"), delta=0.01).verdict
            for _ in range(100)
        ]
        for truth in (plateau, flat)
    }
    assert sum(verdict == "inverted-U" for verdict in found[plateau]) <= 11  # with the items fixed about 30
    assert sum(verdict != "underpowered" for verdict in found[flat]) <= 13  # and about 50


FLAT = (0.75,) * 5
SATURATING = tuple(0.70 + 0.08 * (1 - np.exp(-1.5 * k)) for k in range(5))
PLATEAU = (0.70, 0.78, 0.78, 0.78, 0.78)


@pytest.mark.parametrize("means", [FLAT, SATURATING, PLATEAU], ids=["flat", "saturating", "plateau"])
def test_false_inverted_u_stays_below_alpha(means):
    """The quadratic term errs up to 95% of the time on such curves; the intersection-union test must not."""
    rng = np.random.default_rng(9)
    verdicts = []
    for _ in range(300):
        pools = rng.normal(0, 0.01, (5, 1)) + rng.normal(0, 0.012, (5, 5))
        verdicts.append(judge(np.asarray(means) + pools, levels=tuple("abcde")).verdict)
    wrong = np.mean([v in ("inverted-U", "U-shaped") for v in verdicts])
    assert wrong <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 300)


def test_false_direction_stays_below_alpha():
    rng = np.random.default_rng(10)
    verdicts = [judge(0.75 + rng.normal(0, 0.01, (5, 4))).verdict for _ in range(300)]
    assert np.mean([v in ("rising", "falling") for v in verdicts]) <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 300)


def test_differences_alike_in_every_draw_are_known_to_one_item():
    few = np.zeros((5, 4, 50))
    few[:, 3, :2] = 1.0  # two items more, in every draw
    judged = shapes.test_shape(few, levels=LEVELS, delta=0.01)
    assert judged.verdict == "underpowered" and 0.1 < judged.p_values["rising"]
    assert judge(np.full((5, 4), 0.8)).verdict == "flat"


def test_small_but_shown_differences_say_so():
    result = judge(simulate((0.750, 0.751, 0.752, 0.754), spread=0.0003))
    assert result.verdict == "rising"
    assert "within 1 points" in result.note


def test_one_draw_speaks_of_its_pool_only():
    rng = np.random.default_rng(12)
    chance = np.array([0.6, 0.8, 0.8, 0.6])[:, None]
    judged = shapes.test_shape((rng.random((1, 4, 800)) < chance), levels=LEVELS, delta=0.01)
    assert judged.verdict == "inverted-U" and judged.draws == 1
    assert "that pool only" in judged.note


def test_few_levels():
    two = judge(simulate((0.70, 0.75), spread=0.002), levels=("a", "b"))
    assert two.verdict == "rising" and "inverted-U" not in two.p_values
    one = judge([[0.7], [0.8]], levels=("a",))
    assert one.verdict == "underpowered" and "at least two levels" in one.note


def test_two_lines_stand_beside_the_verdict():
    values = simulate((0.70, 0.74, 0.75, 0.70), spread=0.004)
    assert judge(values).two_lines is None
    judged = judge(values, diversity=[10.0, 20.0, 30.0, 60.0])
    assert judged.verdict == judged.two_lines.shape == "inverted-U"
    assert judge(values, diversity=[60.0, 30.0, 20.0, 10.0]).two_lines.high_slope < 0


@pytest.mark.parametrize("spread", [0.1, 0.5])
def test_false_verdicts_with_noisy_generation_and_training_draws(spread):
    """Both in points; training draws are averaged first."""
    rng = np.random.default_rng(11)
    truths = ([0.0] * 5, [0.0, 0.7, 1.4, 2.1, 2.8], [0.0, 3.1, 3.8, 3.9, 4.0], [0, 2, 2, 2, 2], [2.0, 0.5, 0, 0.5, 2.0])
    for means in truths:
        trained = rng.normal(0, 0.5, (60, 5, 5, 2)).mean(axis=3)
        values = 0.7 + 0.01 * (np.array(means) + rng.normal(0, spread, (60, 5, 5)) + trained)
        verdicts = [judge(table, levels=tuple("abcde")).verdict for table in values]
        assert verdicts.count("inverted-U") <= 8


def test_power_for_a_hump_of_two_points():
    rng = np.random.default_rng(13)
    hump = 2.0 * (1 - ((np.arange(5.0) - 2) / 2) ** 2)
    values = 0.7 + 0.01 * (hump + rng.normal(0, np.sqrt(0.5), (150, 5, 5)))
    assert sum(judge(table, levels=tuple("abcde")).verdict == "inverted-U" for table in values) >= 0.72 * 150
