"""Kernels, diversity, the jackknife and MMD against closed forms, naive formulas and axioms."""

import itertools
import math
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.similarity import (
    jackknife_bins,
    jackknife_interval,
    kernel_diversity,
    kernel_diversity_without,
    median_distance,
    mmd,
    nearest_neighbours,
    row_sums,
    single_blas_thread,
    spectra_without,
    spectrum,
    unit_rows,
    vendi_score,
)
from cuvee.similarity.diversity import (
    mean_cosine,
    mean_cosine_without,
)

TAUS = (1.0, 0.5, 0.2, 0.1, 0.05)
ORDERS = (0.0, 0.5, 1.0, 2.0, 3.7, math.inf)


def random_rows(n, d, seed=0, shift=0.5):
    rng = np.random.default_rng(seed)
    return unit_rows(rng.normal(size=(n, d)).astype(np.float32) + shift)


def dcscore(unit, tau, **options):
    return kernel_diversity(row_sums(unit, [tau], **options)[0].total)


def naive_dcscore(unit, tau):
    kernel = unit.astype(np.float64) @ unit.T.astype(np.float64) / tau
    softmax = np.exp(kernel) / np.exp(kernel).sum(axis=1, keepdims=True)
    return float(np.trace(softmax))


@st.composite
def matrices(draw):
    n, d = draw(st.integers(1, 40)), draw(st.integers(2, 12))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=d) * draw(st.sampled_from([0.0, 1.0, 5.0]))
    return unit_rows((rng.normal(size=(n, d)) + centre).astype(np.float32))


# --- rows -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("value", "words"), [(0.0, "is zero"), (np.nan, "not finite"), (np.inf, "not finite")])
def test_rows_without_direction_are_refused_by_number(value, words):
    rows = np.ones((5, 3), dtype=np.float32)
    rows[3] = value
    with pytest.raises(ValueError, match=f"row 3.*{words}"):
        unit_rows(rows)


def test_unit_rows_survive_extreme_scales():
    rows = np.array([[3e-30, 4e-30], [3e30, 4e30], [3, 4]], dtype=np.float32)
    np.testing.assert_allclose(unit_rows(rows), np.tile([0.6, 0.8], (3, 1)), rtol=1e-6)


def test_unit_rows_want_a_matrix():
    with pytest.raises(ValueError, match="must be"):
        unit_rows(np.ones(3, dtype=np.float32))


def test_nearest_neighbours_match_the_full_matrix(monkeypatch):
    x, y = random_rows(37, 8, 1), random_rows(11, 8, 2)
    monkeypatch.setattr("cuvee.similarity.neighbours._CELLS", 55)  # tiles of five rows
    found = nearest_neighbours(x, y)
    np.testing.assert_array_equal(found.index, (x @ y.T).argmax(axis=1))
    np.testing.assert_allclose(found.cosine, (x @ y.T).max(axis=1), rtol=1e-6)


# --- DCScore and Leinster-Cobbold -------------------------------------------------------------------
@pytest.mark.parametrize("tau", TAUS)
def test_dcscore_is_the_trace_of_the_softmax(tau):
    unit = random_rows(301, 24)
    assert dcscore(unit, tau) == pytest.approx(naive_dcscore(unit, tau), rel=2e-6)


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("n", [1, 2, 50])
def test_dcscore_of_orthogonal_rows_has_its_closed_form(n, tau):
    expected = n * math.exp(1 / tau) / (n - 1 + math.exp(1 / tau))
    assert dcscore(np.eye(n, 64, dtype=np.float32), tau) == pytest.approx(expected, rel=1e-6)


def test_dcscore_saturates_at_e_for_tau_one():
    assert dcscore(np.eye(2000, dtype=np.float32), 1.0) == pytest.approx(2000 * math.e / (1999 + math.e), rel=1e-6)


@pytest.mark.parametrize("n", [63, 64, 65, 129, 150])
def test_any_number_of_rows_and_a_last_tile_of_one_row_work(n):
    unit = random_rows(n, 16)
    bins = jackknife_bins([str(i % 10) for i in range(n)])
    whole = row_sums(unit, [0.2, 0.5], bins=bins, tile=1000)
    tiled = row_sums(unit, [0.2, 0.5], bins=bins, tile=64)
    cosines = unit @ unit.T
    np.testing.assert_allclose(whole[0].total, np.exp((cosines - 1) / 0.2).sum(axis=1), rtol=2e-6)
    for one, other in zip(whole, tiled, strict=True):
        np.testing.assert_allclose(one.total, other.total, rtol=2e-6)
        np.testing.assert_allclose(one.by_bin, other.by_bin, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one.by_bin.sum(axis=1), one.total, rtol=2e-6)


def test_near_duplicates_count_as_one_whatever_their_length():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=384) * rng.uniform(0.1, 30, size=(500, 1)) * (1 + 0.01 * rng.normal(size=(500, 384)))
    assert dcscore(unit_rows(rows.astype(np.float32)), 1.0) == pytest.approx(1.0, abs=0.005)


def test_kernel_diversity_of_a_hand_computed_case():
    # rows 0 and 1 are identical, row 2 orthogonal; similarity s between them and it
    unit = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    s = math.exp(-1 / 0.5)
    zp = [(2 + s) / 3, (2 + s) / 3, (1 + 2 * s) / 3]
    total = row_sums(unit, [0.5])[0].total
    expected = {
        0.0: sum(1 / 3 / z for z in zp),
        1.0: math.exp(-sum(math.log(z) / 3 for z in zp)),
        2.0: 1 / sum(z / 3 for z in zp),
        math.inf: 1 / max(zp),
    }
    for q, value in expected.items():
        assert kernel_diversity(total, q) == pytest.approx(value, rel=1e-6)


def test_row_sums_never_hold_an_n_by_n_matrix():
    unit = random_rows(8000, 16)
    tracemalloc.start()
    row_sums(unit, TAUS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8000 * 8000 * 4 / 8


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"tau is 0\.0"):
        row_sums(random_rows(2, 3), [0.0])


# --- Vendi ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("n", "d"), [(200, 24), (20, 60), (30, 30)])
def test_the_dual_spectrum_is_that_of_the_kernel(n, d):
    unit = random_rows(n, d)
    exact = np.linalg.eigvalsh(unit.astype(np.float64) @ unit.T.astype(np.float64) / n)[::-1]
    found = spectrum(unit)
    assert len(found) == min(n, d)
    np.testing.assert_allclose(found, exact[: min(n, d)], atol=1e-7)
    positive = exact[exact > 1e-10]
    shannon = math.exp(-np.sum(positive * np.log(positive)))
    assert vendi_score(found, 1.0) == pytest.approx(shannon, rel=1e-5)


def test_vendi_orders_have_their_own_values():
    unit = random_rows(80, 12)
    values = spectrum(unit)
    kernel = unit.astype(np.float64) @ unit.T.astype(np.float64)
    assert vendi_score(values, 2.0) == pytest.approx(80**2 / np.sum(kernel**2), rel=1e-6)
    assert vendi_score(values, math.inf) == pytest.approx(1 / values[0])
    assert vendi_score(values, 0.5) == pytest.approx(np.sqrt(values).sum() ** 2, rel=1e-6)
    assert abs(vendi_score(values, 2.0) - vendi_score(values, 1.0)) > 0.1


def test_vendi_of_order_zero_counts_distinct_directions():
    assert vendi_score(spectrum(np.repeat(np.eye(5, 52, dtype=np.float32), 10, axis=0)), 0.0) == pytest.approx(5)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(matrices())
def test_effective_numbers_obey_the_axioms(unit):
    n, d = unit.shape
    values = spectrum(unit)
    vendi = [vendi_score(values, q) for q in ORDERS]
    assert all(a >= b - 1e-6 * a for a, b in itertools.pairwise(vendi))
    assert all(1 - 1e-6 <= v <= min(n, d) * (1 + 1e-6) for v in vendi)
    shuffled = unit[np.random.default_rng(0).permutation(n)]
    doubled = np.vstack([unit, unit])
    for q, value in zip(ORDERS[1:], vendi[1:], strict=True):
        assert vendi_score(spectrum(shuffled), q) == pytest.approx(value, rel=1e-5)
        assert vendi_score(spectrum(doubled), q) == pytest.approx(value, rel=1e-4)
    for tau in TAUS:
        total = row_sums(unit, [tau], tile=7)[0].total
        orders = [kernel_diversity(total, q) for q in ORDERS]
        assert all(a >= b - 1e-6 * a for a, b in itertools.pairwise(orders))
        assert all(1 - 1e-5 <= v <= n * (1 + 1e-5) for v in orders)
        again = row_sums(shuffled, [tau], tile=7)[0].total
        assert kernel_diversity(again) == pytest.approx(orders[0], rel=1e-5)


@pytest.mark.parametrize("n", [1, 2, 77])
def test_identical_rows_score_one(n):
    unit = unit_rows(np.tile(np.arange(1, 10, dtype=np.float32), (n, 1)))
    for q in ORDERS:
        assert vendi_score(spectrum(unit), q) == pytest.approx(1.0, abs=1e-6)
        assert kernel_diversity(row_sums(unit, [0.05])[0].total, q) == pytest.approx(1.0, abs=1e-4)


def test_mean_cosine_is_the_mean_over_pairs():
    unit = random_rows(40, 6)
    cosines = unit @ unit.T
    assert mean_cosine(unit) == pytest.approx(cosines[np.triu_indices(40, 1)].mean(), rel=1e-5)


# --- leaving one bin out ----------------------------------------------------------------------------
@pytest.mark.parametrize(("n", "d"), [(90, 8), (30, 50)])
def test_left_out_values_are_those_of_the_remaining_rows(n, d):
    unit = random_rows(n, d)
    bins = jackknife_bins([str(i // 3) for i in range(n)], n_bins=7)
    sums = row_sums(unit, [0.2], bins=bins, tile=16)[0]
    without = kernel_diversity_without(sums, bins)
    spectra = spectra_without(unit, bins)
    means = mean_cosine_without(unit, bins)
    for b in range(7):
        rest = unit[bins != b]
        assert without[b] == pytest.approx(naive_dcscore(rest, 0.2), rel=1e-5)
        assert vendi_score(spectra[b], 1.0) == pytest.approx(vendi_score(spectrum(rest), 1.0), rel=1e-5)
        assert means[b] == pytest.approx(mean_cosine(rest), rel=1e-4)


def test_bins_keep_groups_whole_and_are_of_about_equal_size():
    rng = np.random.default_rng(0)
    groups = [f"g{i}" for i in rng.integers(0, 300, size=3000)]
    bins = jackknife_bins(groups, n_bins=64, seed=3)
    assert len(set(bins.tolist())) == 64
    home = {}
    for group, b in zip(groups, bins.tolist(), strict=True):
        assert home.setdefault(group, b) == b
    sizes = np.bincount(bins)
    assert sizes.max() <= 1.2 * sizes.min()
    assert (jackknife_bins(groups, n_bins=64, seed=3) == bins).all()
    assert (jackknife_bins(groups, n_bins=64, seed=4) != bins).any()


def test_fewer_groups_than_bins_give_a_bin_each():
    assert sorted(set(jackknife_bins(["a", "b", "a", "c"]).tolist())) == [0, 1, 2]


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(0).normal(size=40)
    without = (x.sum() - x) / 39
    found = jackknife_interval(x.mean(), without, np.arange(40))
    assert found.se == pytest.approx(x.std(ddof=1) / math.sqrt(40))
    assert found.high - x.mean() == pytest.approx(2.022691 * found.se, rel=1e-5)  # t quantile, 39 degrees


def test_unequal_bins_are_weighted():
    # the ratio of the estimated to the true variance of a mean of independent rows in bins of 1 to 9 rows
    rng = np.random.default_rng(1)
    bins = np.repeat(np.arange(20), rng.integers(1, 10, size=20))
    sizes = np.bincount(bins)
    ratios = []
    for _ in range(400):
        x = rng.normal(size=len(bins))
        without = (x.sum() - np.bincount(bins, weights=x)) / (len(x) - sizes)
        ratios.append(jackknife_interval(x.mean(), without, bins).se ** 2 * len(x))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)


def test_few_bins_or_undefined_values_have_no_interval():
    assert jackknife_interval(1.0, np.ones(3), np.arange(3)) is None
    assert jackknife_interval(1.0, np.array([1.0, np.nan, 1.0, 1.0]), np.arange(4)) is None


def test_the_grouped_interval_covers_where_the_row_interval_does_not():
    """200 rows that are five paraphrases of each of 40 sources, Vendi of order 1, truth by simulation."""
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(6, 12)) * 1.5

    def corpus():
        sources = centres[rng.integers(0, 6, size=40)] + rng.normal(size=(40, 12))
        rows = np.repeat(sources, 5, axis=0) + 0.1 * rng.normal(size=(200, 12))
        return unit_rows(rows.astype(np.float32))

    truth = np.mean([vendi_score(spectrum(corpus()), 1.0) for _ in range(300)])
    groupings = {"group": [str(i // 5) for i in range(200)], "row": [str(i) for i in range(200)]}
    covered = dict.fromkeys(groupings, 0)
    for seed in range(80):
        unit = corpus()
        value = vendi_score(spectrum(unit), 1.0)
        for name, groups in groupings.items():
            bins = jackknife_bins(groups, seed=seed)
            without = np.array([vendi_score(values, 1.0) for values in spectra_without(unit, bins)])
            interval = jackknife_interval(value, without, bins)
            covered[name] += interval.low <= truth <= interval.high
    assert covered["group"] / 80 >= 0.85
    assert covered["row"] / 80 <= 0.75


# --- MMD --------------------------------------------------------------------------------------------
def test_mmd_is_the_unbiased_estimator():
    x, y = random_rows(23, 6, 1), random_rows(31, 6, 2, shift=0.2)
    found = mmd(x, y, permutations=10)
    sigma = median_distance(np.vstack([x, y]))

    def k(a, b):
        cosines = a.astype(np.float64) @ b.T.astype(np.float64)
        return np.exp((2 * cosines - 2) / (2 * sigma**2))

    xx, yy = k(x, x), k(y, y)
    expected = (xx.sum() - np.trace(xx)) / (23 * 22) + (yy.sum() - np.trace(yy)) / (31 * 30) - 2 * k(x, y).mean()
    assert found.value == pytest.approx(expected, abs=1e-6)


def test_median_distance_is_that_of_the_pairs():
    unit = random_rows(30, 5)
    pairs = [np.linalg.norm(unit[i] - unit[j]) for i in range(30) for j in range(i)]
    assert median_distance(unit) == pytest.approx(np.median(pairs), rel=1e-4)
    assert median_distance(np.tile(unit[:1], (5, 1))) == 1.0


def test_mmd_rejects_one_distribution_about_as_often_as_it_should():
    p_values = [
        mmd(random_rows(40, 8, 2 * s), random_rows(25, 8, 2 * s + 1), permutations=99, seed=s).p_value
        for s in range(300)
    ]
    assert 0.02 <= np.mean(np.array(p_values) <= 0.05) <= 0.085
    assert 0.4 <= np.mean(p_values) <= 0.6


def test_mmd_sees_a_shift_at_the_smallest_p_value():
    found = mmd(random_rows(60, 8, 1), random_rows(60, 8, 2, shift=-0.5), permutations=200)
    assert found.p_value == pytest.approx(1 / 201)
    assert found.value > 0.1


# --- threads ----------------------------------------------------------------------------------------
def test_the_thread_limit_is_restored_after_overlapping_users():
    from threadpoolctl import threadpool_info

    def threads():
        return [entry["num_threads"] for entry in threadpool_info() if "numpy.libs" in entry["filepath"]]

    before = threads()
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with single_blas_thread():
            entered.set()
            leave.wait(10)

    other = threading.Thread(target=hold)
    with single_blas_thread():
        assert threads() == [1]
        other.start()
        assert entered.wait(10)
        with single_blas_thread():
            pass
        assert threads() == [1]
        leave.set()
        other.join()
        assert threads() == [1]
    assert threads() == before
