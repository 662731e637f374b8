import numpy as np
import pytest
from scipy import interpolate, stats

from cuvee.recommend.shapes import fit_two_lines, smooth_spline

DIVERSITY = np.array([12.0, 19.0, 27.0, 33.0, 40.0])
HUMP = np.array([0.0, 1.5, 2.0, 1.5, 0.0])


def simulate(means, seed, *, draws=5, spread=0.7):
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 0.5, (draws, 1))
    return 0.7 + 0.01 * (np.asarray(means) + shared + rng.normal(0, spread, (draws, len(means))))


def fit(diversity, accuracy):
    """The test on items that all score the same."""
    return fit_two_lines(diversity, np.repeat(np.asarray(accuracy)[:, :, None], 10, axis=2))


def count(means, shape, repeats=60):
    return sum(fit(DIVERSITY, simulate(means, s)).shape == shape for s in range(repeats))


def test_a_hump_and_its_mirror_image_are_found():
    assert count(HUMP, "inverted-U") > 45
    assert count(-HUMP, "U-shaped") > 45
    assert count(-HUMP, "inverted-U") == 0


@pytest.mark.parametrize("means", [[0] * 5, [0, 1, 2, 3, 4], [0, 2, 2, 2, 2], [0, 3.1, 3.8, 3.95, 4]])
def test_other_curves_are_rarely_called_a_hump(means):
    assert count(means, "inverted-U") <= 10


def test_slopes_are_lines_on_both_sides_of_the_break():
    accuracy = simulate(HUMP, 0, spread=0.2)
    lines = fit(DIVERSITY, accuracy)
    x = np.tile(DIVERSITY, 5)
    for side, slope in ((x <= lines.break_at, lines.low_slope), (x >= lines.break_at, lines.high_slope)):
        assert slope == pytest.approx(np.polyfit(x[side], accuracy.ravel()[side], 1)[0])
    assert DIVERSITY[1] <= lines.break_at <= DIVERSITY[3]
    assert lines.low_slope > 0 > lines.high_slope and max(lines.low_p, lines.high_p) <= 0.05


def test_p_values_are_those_of_hc3():
    accuracy = simulate(HUMP, 1)
    lines = fit(DIVERSITY, accuracy)
    x, y = np.tile(DIVERSITY, 5), (accuracy - accuracy.mean(axis=1, keepdims=True)).ravel()
    low = x <= lines.break_at
    design = np.stack([np.ones(low.sum()), x[low]], axis=1)
    bread = np.linalg.inv(design.T @ design)
    coefficients = bread @ design.T @ y[low]
    hat = np.einsum("ij,jk,ik->i", design, bread, design)
    meat = design.T @ np.diag(((y[low] - design @ coefficients) / (1 - hat)) ** 2) @ design
    error = np.sqrt((bread @ meat @ bread)[1, 1] * 5 / 4)
    assert lines.low_p == pytest.approx(2 * stats.t.sf(abs(coefficients[1] / error), 25 - 4 - 4))


def test_what_draws_share_does_not_matter():
    accuracy = simulate(HUMP, 2)
    shifted = accuracy + np.array([[0.3], [-0.2], [0.1], [0.0], [0.05]])
    first, second = fit(DIVERSITY, accuracy), fit(DIVERSITY, shifted)
    assert (first.shape, first.low_p, first.high_p) == pytest.approx((second.shape, second.low_p, second.high_p))


def test_items_that_answer_levels_in_their_own_way_widen_the_lines():
    """Every draw repeats the luck of the items: the slopes' errors hold it however many draws there are."""
    rng = np.random.default_rng(6)
    own = rng.normal(0, 0.3, (5, 200))
    correct = 0.7 + own + rng.normal(0, 0.01, (30, 5, 200))
    alone, joint = fit(DIVERSITY, correct.mean(axis=2)), fit_two_lines(DIVERSITY, correct)
    assert min(alone.low_p, alone.high_p) < 1e-6 < 0.02 < min(joint.low_p, joint.high_p)


def test_too_little_to_tell():
    assert fit(DIVERSITY, simulate(HUMP, 0, draws=1)) is None
    assert fit(DIVERSITY[:2], simulate(HUMP[:2], 0)) is None
    assert fit([20.0] * 5, simulate(HUMP, 0)) is None
    assert fit([10.0, 20.0, 30.0], simulate([0, 3, 0], 0, draws=8, spread=0.3)).shape == "inverted-U"


def test_constant_accuracy_shows_nothing():
    lines = fit(DIVERSITY, np.full((5, 5), 0.8))
    assert lines.shape == "underpowered" and lines.low_p == lines.high_p == 1.0


def test_spline_is_that_of_scipy():
    """The same penalty gives the same curve; here it is told by the roughness that scipy chose."""
    rng = np.random.default_rng(4)
    x = np.sort(rng.uniform(0, 1, 30))
    y = np.sin(4 * x) + rng.normal(0, 0.1, 30)
    knots, fitted, errors = smooth_spline(x, y)
    assert fitted == pytest.approx(interpolate.make_smoothing_spline(x, y)(knots), abs=0.02)
    assert (errors > 0).all() and errors.max() < 0.15
    _, line, _ = smooth_spline(x, 3 * x + 1)
    assert line == pytest.approx(3 * x + 1)
