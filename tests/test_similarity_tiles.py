"""The all-pairs engine: accuracy one answer on any number of threads, bounds."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.similarity import (
    find_near_duplicates,
    jackknife_bins,
    kernel_diversity,
    pairwise_pass,
    row_sums,
    sample_rows,
    sampled_pass,
    unit_rows,
)
from cuvee.similarity.neighbours import _bounding_rows

TAUS = (1.0, 0.5, 0.2, 0.1, 0.05)


def clustered(n, d=64, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, d))
    return unit_rows((centres[rng.integers(0, 12, n)] + noise * rng.normal(size=(n, d))).astype(np.float32))


def dcscore64(unit, tau):
    exact = unit.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    return float((1.0 / np.exp((exact @ exact.T - 1.0) / tau).sum(axis=1)).sum())


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_dcscore_is_as_exact_as_promised(noise):
    unit = clustered(2500, 384, noise=noise)
    for tau, found in zip(TAUS, row_sums(unit, TAUS), strict=True):
        assert kernel_diversity(found.total) == pytest.approx(dcscore64(unit, tau), rel=1e-6), tau


def test_exponentials_made_of_others_equal_those_computed_alone():
    unit = clustered(300)
    together = row_sums(unit, [0.05, 1.0, 0.3, 0.5, 0.2, 0.1])
    for tau, found in zip((0.05, 1.0, 0.3, 0.5, 0.2, 0.1), together, strict=True):
        np.testing.assert_allclose(found.total, row_sums(unit, [tau])[0].total, rtol=5e-6)


def test_float64_rows_are_computed_in_float64():
    unit = unit_rows(np.random.default_rng(0).normal(size=(200, 16)), dtype=np.float64)
    found = row_sums(unit, [0.05])[0]
    np.testing.assert_allclose(found.total, np.exp((unit @ unit.T - 1.0) / 0.05).sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_no_bit(threads, monkeypatch):
    unit, bins = clustered(1500), jackknife_bins([str(i % 90) for i in range(1500)])
    passes = []
    for cores in (1, threads):
        monkeypatch.setattr("cuvee.similarity.backends.usable_cores", partial(int, cores))
        passes.append(pairwise_pass(unit, [0.1, 0.5], bins=bins, tile=128))
    one, found = passes
    for first, second in zip(one.sums, found.sums, strict=True):
        np.testing.assert_array_equal(first.by_bin, second.by_bin)
    np.testing.assert_array_equal(one.nearest.index, found.nearest.index)


@pytest.mark.parametrize("n", [1, 2, 65, 700])
def test_nearest_other_rows_come_with_the_pass(n):
    unit = clustered(n)
    found = pairwise_pass(unit, [], bins=jackknife_bins([str(i % 7) for i in range(n)]), tile=64).nearest
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    np.testing.assert_allclose(found.cosine, cosines.max(axis=1), rtol=1e-5)
    if n == 1:
        assert found.index.tolist() == [-1]
    else:
        np.testing.assert_allclose(cosines[np.arange(n), found.index], cosines.max(axis=1), rtol=1e-5)


# --- a sample of rows ---------------------------------------------------------------------------------
def test_a_sample_of_all_rows_is_the_whole():
    unit, bins = clustered(400), jackknife_bins([str(i) for i in range(400)])
    whole = pairwise_pass(unit, [0.1], bins=bins)
    found = sampled_pass(unit, [0.1], np.arange(400), bins=bins)
    np.testing.assert_allclose(found.sums[0].by_bin, whole.sums[0].by_bin, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.nearest.cosine, whole.nearest.cosine, rtol=1e-6)


def test_the_sampling_error_is_as_stated():
    unit = clustered(3000)
    total = row_sums(unit, [0.1])[0].total
    exact, inside = kernel_diversity(total), 0
    for seed in range(60):
        rows = sample_rows(3000, 300, seed=seed)
        some = sampled_pass(unit, [0.1], rows).sums[0].total
        np.testing.assert_allclose(some, total[rows], rtol=1e-5)
        error = 1.96 * 3000 * np.std(1 / some, ddof=1) * np.sqrt(0.9 / 300)
        inside += abs(kernel_diversity(some, population=3000) - exact) <= error
    assert 52 <= inside <= 60


def test_samples_are_seeded_and_bounded():
    assert sample_rows(50, 10, seed=3).tolist() == sample_rows(50, 10, seed=3).tolist()
    assert sample_rows(50, 10, seed=3).tolist() != sample_rows(50, 10, seed=4).tolist()


# --- near-duplicates ----------------------------------------------------------------------------------
def with_copies(n, d, seed, share=0.3):
    """Rows with a steep spectrum, as embeddings have, some of them near-copies of others in chains."""
    rng = np.random.default_rng(seed)
    scale = (1.0 + np.arange(d)) ** -0.8
    rows = rng.normal(size=(n, d)) * scale
    for _ in range(int(share * n)):
        rows[rng.integers(n)] = rows[rng.integers(n)] + rng.choice([0.0, 0.1, 0.25]) * rng.normal(size=d) * scale
    return unit_rows(rows.astype(np.float32))


def clusters_by_hand(unit, threshold):
    from scipy.sparse.csgraph import connected_components

    label = connected_components((unit @ unit.T) >= np.float32(threshold), directed=False)[1]
    return np.array([np.flatnonzero(label == x)[0] for x in label])


@pytest.mark.parametrize("d", [8, 200])
@pytest.mark.parametrize("threshold", [0.8, 0.95])
def test_near_duplicates_are_those_of_the_full_matrix(d, threshold):
    unit = with_copies(2300, d, seed=d)
    if d == 200:
        assert _bounding_rows(unit).shape[1] < d / 2  # the bound is at work
    found = find_near_duplicates(unit, threshold)
    np.testing.assert_array_equal(found, clusters_by_hand(unit, threshold))
    nearest = pairwise_pass(unit, []).nearest.cosine
    alike = np.bincount(found)[found] > 1
    np.testing.assert_array_equal(alike, nearest >= np.float32(threshold))
    assert 0.05 < alike.mean() < 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_near_duplicates_of_any_rows(seed, n):
    unit = with_copies(n, 40, seed)
    np.testing.assert_array_equal(find_near_duplicates(unit, 0.9), clusters_by_hand(unit, 0.9))


def test_many_copies_of_one_row_stay_cheap():
    unit = np.repeat(clustered(2, 300), 3000, axis=0)
    found = find_near_duplicates(unit)
    assert np.unique(found).tolist() in ([0, 3000], [0])


def test_a_threshold_that_is_no_cosine_is_refused():
    with pytest.raises(ValueError, match=r"threshold is 1\.5"):
        find_near_duplicates(clustered(5), 1.5)
