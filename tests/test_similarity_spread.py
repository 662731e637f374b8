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
    score_rows,
    spectrum,
    unit_rows,
    vendi_score,
)
from cuvee.similarity.neighbours import row_surprisal

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


# --- what a row adds --------------------------------------------------------------------------------
@pytest.mark.parametrize("tau", [1.0, 0.1])
def test_added_is_dcscore_less_dcscore_without_the_row(tau):
    unit = np.vstack([some_rows(40, 5), some_rows(1, 5, seed=0)[[0] * 6]])  # six copies of one row among them
    found = score_rows(unit, tau, tile=7)
    whole = dcscore(unit, tau)
    left = [whole - dcscore(np.delete(unit, i, axis=0), tau) for i in range(46)]
    np.testing.assert_allclose(found.added, left, atol=1e-9)
    assert found.uniqueness.sum() == pytest.approx(whole, rel=1e-12)
    in_float32 = score_rows(unit.astype(np.float32), tau)
    np.testing.assert_allclose(in_float32.added, left, atol=2e-6)


@pytest.mark.parametrize(("n", "d"), [(50, 7), (12, 30)])
def test_the_mean_surprisal_is_the_logarithm_of_vendi(n, d):
    unit = some_rows(n, d)
    found = row_surprisal(unit)
    assert found.mean() == pytest.approx(math.log(vendi_score(spectrum(unit), 1.0)), rel=1e-9)
    values, vectors = np.linalg.eigh(unit.T @ unit / n)
    kept = values > 1e-12
    log_c = (vectors[:, kept] * np.log(values[kept])) @ vectors[:, kept].T
    np.testing.assert_allclose(found, [-x @ log_c @ x for x in unit], atol=1e-7)


def test_the_nearest_row_is_the_first_of_equals_and_clusters_are_linked():
    near = [math.cos(0.2), math.sin(0.2)]  # cosine 0.98 to its neighbours, 0.92 between them
    plane = np.array([[1.0, 0.0], near, [math.cos(0.4), math.sin(0.4)], [0.0, -1.0], [1.0, 0.0], [1.0, 0.0]])
    for dtype in (np.float32, np.float64):
        found = score_rows(unit_rows(plane, dtype=dtype), 0.1, tile=2)
        assert found.nearest.tolist() == [4, 0, 1, 0, 0, 0]
        assert found.nearest_cosine[:2] == pytest.approx([1.0, math.cos(0.2)], abs=1e-6)
        assert found.cluster.tolist() == [0, 0, 0, 3, 0, 0]


def test_a_single_row_has_no_nearest():
    found = score_rows(np.array([[1.0, 0.0]]), 0.1)
    assert (found.uniqueness[0], found.added[0], found.nearest[0]) == (1.0, 1.0, -1)
    assert found.surprisal[0] == pytest.approx(0.0)
    assert math.isnan(found.nearest_cosine[0])


# --- volume ---
def test_log_det_is_that_of_the_matrix():
    for n, d in ((30, 8), (8, 30)):
        unit = some_rows(n, d)
        expected = np.linalg.slogdet(np.eye(n) + unit @ unit.T)[1] / n
        assert log_det(spectrum(unit), n) == pytest.approx(expected, rel=1e-9)
    assert log_det(spectrum(np.eye(5, 9)), 5) == pytest.approx(math.log(2))
    assert log_det(spectrum(np.eye(1, 9)[[0] * 5]), 5) == pytest.approx(math.log(6) / 5)
