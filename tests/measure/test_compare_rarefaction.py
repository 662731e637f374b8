"""Means over draws and their intervals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder
from cuvee.measure import METRICS, Subject
from cuvee.measure.comparing import PointSubject
from cuvee.measure.intervals import mean_of_draws, subtract_estimates, subtract_first
from cuvee.measure.measuring import pick_groups
from cuvee.records import Estimate
from cuvee.similarity import wilson_interval

OWN = [name for name, metric in METRICS.items() if metric.standard and not set(metric.needs) - {"vectors"}]


def zipf_texts(n, seed, words=8, vocabulary=2000):
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, vocabulary + 1)
    drawn = rng.choice(vocabulary, size=(n, words), p=share / share.sum())
    return [" ".join(f"w{i}" for i in row) for row in drawn]


def corpus_of(texts):
    return Corpus.from_rows({"text": t, "target": "x", "id": f"r{i}"} for i, t in enumerate(texts))


def number(value, low=None, high=None, interval="grouped jackknife, 64 bins"):
    return Estimate(value=value, low=low, high=high, n=100, interval=interval, settings={"tau": 1.0})


@pytest.fixture(scope="module")
def subjects():
    corpus = corpus_of(zipf_texts(60, 1))
    return [kind(corpus=corpus, encoder=HashingEncoder()) for kind in (Subject, PointSubject)]


@pytest.mark.parametrize("name", OWN)
def test_a_number_without_interval_is_the_same_number(name, subjects):
    full, point = (METRICS[name].compute(subject) for subject in subjects)
    assert point.value == pytest.approx(full.value, rel=1e-6)
    assert point.low is None


def test_one_draw_is_its_own_mean():
    only = number(5.0, 4.0, 6.5)
    assert mean_of_draws([only], fraction=0.1, size=1000) is only


def test_the_variance_of_a_mean_is_between_that_of_all_draws_and_of_one():
    draws = [number(5.0, 4.0, 6.5), number(7.0), number(9.0)]
    mean = mean_of_draws(draws, fraction=0.25, size=400)
    scale = math.sqrt(0.25 + 0.75 / 3)
    assert (mean.value, mean.n) == (7.0, 100)
    assert (mean.low, mean.high) == (pytest.approx(7 - scale), pytest.approx(7 + 1.5 * scale))
    assert mean.settings == {"tau": 1.0, "draws": 3}
    assert mean.interval == "grouped jackknife, 64 bins; mean of 3 draws from 400 rows"
    used_up = mean_of_draws(draws, fraction=1.0, size=100)
    assert (used_up.low, used_up.high) == (pytest.approx(6.0), pytest.approx(8.5))
    assert mean_of_draws([number(5.0), number(7.0)], fraction=0.25, size=400).low is None
    assert mean_of_draws([number(0.0, 0.0, 0.0), number(0.1)], fraction=0.25, size=400).low is None


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_wilson_interval_is_taken_apart_and_put_together(counts):
    hits, n = counts
    low, high = wilson_interval(hits / n, n)
    rate = number(hits / n, low, high, "Wilson")
    mean = mean_of_draws([rate, rate], fraction=1.0, size=n)
    assert (mean.low, mean.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))


def test_a_rate_without_hits_in_the_first_draw_still_has_an_upper_end():
    draws = [number(0.0, *wilson_interval(0.0, 100), "Wilson"), number(0.04, interval="Wilson")]
    mean = mean_of_draws(draws, fraction=0.5, size=200)
    wanted = wilson_interval(0.02, 100 / 0.75)
    assert (mean.low, mean.high) == (pytest.approx(wanted[0]), pytest.approx(wanted[1]))


def test_the_difference_of_rates_has_newcombes_interval():
    """56/70 and 48/80: 0.0524 to 0.3339, method 10 of Newcombe 1998, Statistics in Medicine 17:873, table II."""
    one, other = (number(k / n, *wilson_interval(k / n, n), "Wilson") for k, n in ((56, 70), (48, 80)))
    found = subtract_estimates(one, other)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def test_variances_of_symmetric_intervals_add():
    found = subtract_estimates(number(10.0, 7.0, 13.0), number(4.0, 0.0, 8.0))
    assert (found.value, found.low, found.high) == (6.0, 1.0, 11.0)
    assert subtract_estimates(number(10.0, 7.0, 13.0), number(4.0)).low is None


def test_differences_are_to_the_first():
    first, second = number(4.0, 3.0, 5.0), number(6.0, 5.0, 7.0)
    assert [None if d is None else d.value for d in subtract_first([first, second, None])] == [None, 2.0, None]
    assert subtract_first([None, second]) == (None, None)


@pytest.fixture(scope="module")
def expected_distinct():
    """Distinct-1 of 100 rows of the population, by 300 fresh samples."""
    subjects = (PointSubject(corpus=corpus_of(zipf_texts(100, 10_000 + i))) for i in range(300))
    return np.mean([METRICS["distinct_1"].compute(subject).value for subject in subjects])


@pytest.mark.slow
@pytest.mark.parametrize("size", [120, 400])
def test_intervals_of_means_hold_the_expected_number(size, expected_distinct):
    """Distinct-1 of 100 rows: of 120 rows a mean of draws tells hardly more than one draw, of 400 much more."""
    metric, rows, found = METRICS["distinct_1"], 100, []
    for repeat in range(80):
        corpus = corpus_of(zipf_texts(size, repeat))
        parts = [corpus.take(pick_groups(corpus, rows, seed=i)) for i in range(8)]
        draws = [metric.compute((PointSubject if i else Subject)(corpus=part)) for i, part in enumerate(parts)]
        found.append(mean_of_draws(draws, fraction=rows / size, size=size))
    covered = np.mean([e.low <= expected_distinct <= e.high for e in found])
    spread = np.std([e.value for e in found])
    claimed = np.mean([e.high - e.low for e in found]) / 2 / 1.998  # t quantile at 63 degrees of freedom
    assert covered >= 0.9
    assert 0.9 < claimed / spread < 1.5
