import numpy as np
import pytest
from scipy import stats

from cuvee.recommend import plan_power
from cuvee.recommend.shapes import test_shape as judge_shape

OWN = float(np.sqrt(0.5))  # of each cell, so that a paired difference has SD 1


def test_gains_of_the_protocol():
    """With a paired SD of 1 point, 10 draws detect 1 point and 34 half a point."""
    assert plan_power(draws=10, sd_between=OWN) == pytest.approx(1.0, abs=0.01)
    assert plan_power(draws=34, sd_between=OWN) == pytest.approx(0.5, abs=0.01)
    assert plan_power(draws=1, sd_between=0.5) == float("inf")


def test_power_is_that_of_the_noncentral_t():
    effect = plan_power(draws=6, sd_between=OWN, alpha=0.01)
    critical = stats.t.ppf(0.995, 5)
    assert stats.nct.sf(critical, 5, effect * np.sqrt(6)) == pytest.approx(0.8)


def test_a_peak_is_found_as_planned():
    effect = plan_power(draws=5, sd_between=0.7, levels=5)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(150):
        values = 0.7 + 0.01 * (effect * (np.arange(5) == 1) + rng.normal(0, 0.7, (5, 5)))
        correct = np.repeat(values[:, :, None], 100, axis=2)
        found += judge_shape(correct, levels=tuple("abcde"), delta=0.01).verdict == "inverted-U"
    assert 0.7 <= found / 150 <= 0.95


@pytest.mark.parametrize(
    ("more", "less"),
    [
        ({"sd_between": 1.0}, {"sd_between": 0.5}),
        ({"alpha": 0.01}, {"alpha": 0.1}),
        ({"levels": 7}, {"levels": 4}),
        ({"levels": 4}, {"levels": 3, "draws": 9}),
        ({"tests": 10}, {"tests": 1}),
        ({"items": 500}, {"items": None}),
        ({"items": 500, "disagreement": 0.3}, {"items": 500, "disagreement": 0.05}),
        ({"draws": 3}, {"draws": 9}),
    ],
)
def test_each_argument_moves_the_effect(more, less):
    base = {"draws": 5, "sd_between": 0.7}
    assert plan_power(**(base | more)) > plan_power(**(base | less))
