"""The semantic metrics on subjects: oracles, intervals, samples, few and equal rows, profiles."""

import math

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.measure import METRICS, GivenVectors
from cuvee.measure.semantic import measure_vendi, order_profile, tau_profile
from cuvee.measure.subject import Subject
from cuvee.similarity import unit_rows

TABLE = {name: metric for name, metric in METRICS.items() if metric.family == "semantic"}
NEED_TWO_ROWS = {"mean_pairwise_cosine", "mean_nearest_cosine"}


def corpus_of(n, prefix="t", group=None):
    return Corpus.from_rows(
        {"text": f"{prefix}{i}", "target": "x", "group": None if group is None else group(i)} for i in range(n)
    )


def subject_of(vectors, real=None, group=None, **options):
    against = None if real is None else corpus_of(len(real), "r")
    given = GivenVectors("numpy", vectors, real)
    return Subject(corpus=corpus_of(len(vectors), group=group), against=against, encoder=given, **options)


def rows(n, seed=0, d=8, shift=0.4):
    return (np.random.default_rng(seed).normal(size=(n, d)) + shift).astype(np.float32)


@pytest.fixture(scope="module")
def measured():
    subject = subject_of(rows(70), rows(50, 1))
    return {name: metric.compute(subject) for name, metric in TABLE.items()}


def test_standard_metrics_are_those_that_say_something_new():
    standard = [metric.name for metric in TABLE.values() if metric.standard]
    assert standard == [
        "dcscore_tau1", "dcscore_tau0.5", "dcscore_tau0.2", "dcscore_tau0.1", "dcscore_tau0.05", "vendi_q0.5",
        "vendi_q1", "vendi_q2", "vendi_qinf", "mean_pairwise_cosine", "mean_nearest_cosine", "near_duplicate_rate",
    ]  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_each_has_its_interval_and_settings(name, measured):
    found = measured[name]
    assert math.isfinite(found.value)
    assert found.n == 70
    assert found.settings
    if name == "mean_nearest_cosine":  # neighbours are no smooth function of the rows
        assert found.low is None
        return
    assert found.low <= found.value <= found.high
    assert found.interval


def test_the_order_of_rows_does_not_matter(measured):
    order = np.random.default_rng(2).permutation(70)
    shuffled = subject_of(rows(70)[order], rows(50, 1)[::-1])
    for name, metric in TABLE.items():
        assert metric.compute(shuffled).value == pytest.approx(measured[name].value, rel=1e-5), name


@pytest.mark.parametrize("n", [1, 2, 30])
def test_few_or_equal_rows_give_a_sane_number_or_none(n):
    subject = subject_of(np.ones((n, 5), dtype=np.float32), rows(20, 1, d=5))
    for name, metric in TABLE.items():
        found = metric.compute(subject)
        assert (found is None) == (n == 1 and name in NEED_TWO_ROWS), name
        if found is None:
            continue
        if name.startswith(("dcscore", "vendi")):
            assert found.value == pytest.approx(1.0, abs=1e-4), name
        if name == "mean_nearest_cosine":
            assert found.value == pytest.approx(1.0, abs=1e-6)
        assert all(math.isfinite(v) for v in (found.value, found.low or 0.0, found.high or 0.0)), name


def test_orthogonal_rows_have_their_closed_forms():
    n = 40
    subject = subject_of(np.eye(n, dtype=np.float32))
    expected = n * math.exp(10) / (n - 1 + math.exp(10))
    assert TABLE["dcscore_tau0.1"].compute(subject).value == pytest.approx(expected, rel=1e-6)
    assert measure_vendi(subject, 0.0).value == pytest.approx(n)
    assert measure_vendi(subject, 0.0).low is None
    assert TABLE["mean_nearest_cosine"].compute(subject).value == pytest.approx(0.0, abs=1e-7)


def test_left_out_bins_are_those_of_a_smaller_corpus():
    """The interval of each jackknifed metric is that of 12 measurements with one group left out each."""
    vectors = rows(36, 3)
    whole = subject_of(vectors, group=lambda i: f"g{i % 12}")
    table = {name: metric.compute for name, metric in TABLE.items()}
    for name in ("dcscore_tau0.1", "vendi_q1"):
        found = table[name](whole)
        left = [table[name](subject_of(vectors[np.arange(36) % 12 != g])).value for g in range(12)]
        se = math.sqrt(11 / 12 * np.sum((np.array(left) - np.mean(left)) ** 2))
        assert found.high - found.value == pytest.approx(2.200985 * se, rel=2e-3), name
        assert found.interval == "grouped jackknife, 12 bins"


def test_many_rows_are_sampled_and_the_numbers_say_so(monkeypatch):
    vectors = rows(1300, 4, d=4)
    exact = subject_of(vectors)
    assert exact.sample is None
    monkeypatch.setattr("cuvee.measure.subject.EXACT_ROWS", 1299)  # 100,000 would take a minute
    monkeypatch.setattr("cuvee.measure.subject.SAMPLED_ROWS", 1000)
    hurried = subject_of(vectors)
    assert hurried.sample is not None
    for name in ("dcscore_tau0.1", "mean_nearest_cosine", "near_duplicate_rate"):
        whole, part = TABLE[name].compute(exact), TABLE[name].compute(hurried)
        assert part.settings["sampled_rows"] == len(hurried.sample)
        assert part.n == 1300
        assert part.value == pytest.approx(whole.value, rel=0.1)
        assert part.low is None if name == "mean_nearest_cosine" else part.low <= whole.value <= part.high
        assert "sampled_rows" not in whole.settings


# --- profiles ---------------------------------------------------------------------------------------
def test_order_profiles_fall_and_hold_the_metrics_values(measured):
    subject = subject_of(rows(70), rows(50, 1))
    profile = order_profile(subject, orders=(0.0, 0.5, 1.0, 2.0, math.inf))
    values = [estimate.value for _, estimate in profile.points]
    assert values == sorted(values, reverse=True)
    assert dict(profile.points)[1.0] == measured["vendi_q1"]
    assert profile.parameter == "q"


def test_tau_profiles_run_from_counting_rows_to_one(measured):
    subject = subject_of(rows(70), rows(50, 1))
    profile = tau_profile(subject)
    values = [estimate.value for _, estimate in profile.points]
    assert values == sorted(values, reverse=True)
    assert all(estimate.low < estimate.value < estimate.high for _, estimate in profile.points)
    assert dict(profile.points)[0.1].value == pytest.approx(measured["dcscore_tau0.1"].value, rel=1e-6)
    assert dict(tau_profile(subject, taus=(0.001, 100.0)).points)[100.0].value == pytest.approx(1.0, abs=0.02)
    with pytest.raises(ValueError, match="tau is 0"):
        tau_profile(subject, taus=(0.0,))


def test_vectors_of_any_length_are_measured_by_direction():
    vectors = rows(20)
    long = vectors * np.linspace(0.1, 30, 20, dtype=np.float32)[:, None]
    for name in ("dcscore_tau1", "vendi_q1", "mean_nearest_cosine"):
        assert TABLE[name].compute(subject_of(long)).value == pytest.approx(
            TABLE[name].compute(subject_of(unit_rows(vectors))).value, rel=1e-5
        )
