"""What rows add, nearest rows by bin, clusters and the log-determinant against literal formulas."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.similarity import (
    kernel_diversity,
    kernel_diversity_without,
    log_det,
    row_sums,
    sampled_pass,
    spectrum,
    unit_rows,
    vendi_score,
)

ORDERS = (0.0, 0.5, 1.0, 2.0, 3.7, math.inf)


def some_rows(n, d, seed=0, shift=0.5, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return unit_rows(rng.normal(size=(n, d)) + shift, dtype=dtype)


@st.composite
def matrices(draw):
    n, d = draw(st.integers(1, 30)), draw(st.integers(2, 10))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    centre = rng.normal(size=d) * draw(st.sampled_from([0.0, 1.0, 5.0]))
    return unit_rows(rng.normal(size=(n, d)) + centre, dtype=np.float64)


def dcscore(unit, tau=0.1):
    return kernel_diversity(row_sums(unit, [tau])[0].total)


# --- effective numbers in float64 -------------------------------------------------------------------
@settings(max_examples=15, deadline=None)
@given(matrices(), st.sampled_from([1.0, 0.2, 0.05]))
def test_in_float64_order_and_duplication_change_nothing(unit, tau):
    n = len(unit)
    shuffled, doubled = unit[np.random.default_rng(0).permutation(n)], np.vstack([unit, unit])
    totals = [row_sums(u, [tau], tile=7)[0].total for u in (unit, shuffled, doubled)]
    spectra = [spectrum(u) for u in (unit, shuffled, doubled)]
    values = [kernel_diversity(totals[0], q) for q in ORDERS]
    assert all(a >= b * (1 - 1e-12) for a, b in itertools.pairwise(values))
    assert all(1 - 1e-9 <= v <= n * (1 + 1e-9) for v in values)
    for q, value in zip(ORDERS, values, strict=True):
        assert [kernel_diversity(t, q) for t in totals[1:]] == pytest.approx([value] * 2, rel=1e-9)
        if q > 0:  # order 0 counts eigenvalues, and rounding decides which are zero
            vendi = vendi_score(spectra[0], q)
            assert [vendi_score(s, q) for s in spectra[1:]] == pytest.approx([vendi] * 2, rel=1e-6 if q < 1 else 1e-9)


def test_identical_rows_score_one():
    unit = unit_rows(np.tile(np.arange(1, 10, dtype=np.float64), (33, 1)), dtype=np.float64)
    total = row_sums(unit, [0.05], tile=8)[0].total
    assert [kernel_diversity(total, q) for q in ORDERS] == pytest.approx([1.0] * 6, abs=1e-6)


@pytest.mark.slow  # importing sentropy takes seconds
def test_diversity_of_every_order_is_that_of_sentropy():
    sentropy = pytest.importorskip("sentropy").sentropy
    unit = some_rows(60, 8)
    similarity = np.exp((unit @ unit.T - 1.0) / 0.2)
    total = row_sums(unit, [0.2])[0].total
    for q in (0.0, 0.5, 1.0, 2.0, math.inf):
        theirs = sentropy(np.ones(60), similarity=similarity, q=q, measure="alpha")
        assert kernel_diversity(total, q) == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.parametrize("q", [0.5, 1.0, 2.0, math.inf])
def test_vendi_is_the_renyi_entropy_of_the_kernel_matrix(q):
    unit = some_rows(50, 12)
    values = np.linalg.eigvalsh(unit @ unit.T / 50)
    p = values[values > 1e-12]
    entropy = {1.0: -np.sum(p * np.log(p)), math.inf: -np.log(p.max())}.get(q)
    entropy = np.log(np.sum(p**q)) / (1 - q) if entropy is None else entropy
    assert vendi_score(spectrum(unit), q) == pytest.approx(math.exp(entropy), rel=1e-7)


def test_a_sample_of_all_rows_gives_the_exact_numbers_and_a_part_comes_close():
    unit = some_rows(400, 6)
    bins = np.arange(400) % 8
    exact = row_sums(unit, [0.2], bins=bins)[0]
    every = sampled_pass(unit, [0.2], np.arange(400), bins=bins)
    part = sampled_pass(unit, [0.2], np.arange(0, 400, 4), bins=bins)
    for q in (0.0, 1.0, 2.0):
        value = kernel_diversity(exact.total, q)
        assert kernel_diversity(every.sums[0].total, q, population=400) == pytest.approx(value, rel=1e-6)
        assert kernel_diversity(part.sums[0].total, q, population=400) == pytest.approx(value, rel=0.1)
        left = kernel_diversity_without(exact, bins, q)
        found = kernel_diversity_without(every.sums[0], bins, q, rows=np.arange(400))
        np.testing.assert_allclose(found, left, rtol=1e-5)


# --- volume ---
def test_log_det_is_that_of_the_matrix():
    for n, d in ((30, 8), (8, 30)):
        unit = some_rows(n, d)
        expected = np.linalg.slogdet(np.eye(n) + unit @ unit.T)[1] / n
        assert log_det(spectrum(unit), n) == pytest.approx(expected, rel=1e-9)
    assert log_det(spectrum(np.eye(5, 9)), 5) == pytest.approx(math.log(2))
    assert log_det(spectrum(np.eye(1, 9)[[0] * 5]), 5) == pytest.approx(math.log(6) / 5)
