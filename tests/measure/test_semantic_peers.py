"""Faults found in the vendi-score package and in DCScore's own code: none of them here."""

import math

import numpy as np
import pytest

from cuvee.similarity import kernel_diversity, row_sums, spectrum, unit_rows, vendi_score


def some_rows(n, d, seed=0):
    return unit_rows(np.random.default_rng(seed).normal(size=(n, d)) + 0.4, dtype=np.float64)


def dcscore(unit, tau):
    return kernel_diversity(row_sums(unit, [tau])[0].total)


def test_vendi_of_order_two_is_not_that_of_order_one():
    unit = some_rows(60, 10)
    kernel = unit @ unit.T / 60
    assert vendi_score(spectrum(unit), 2.0) == pytest.approx(1 / np.sum(kernel**2), rel=1e-9)
    assert vendi_score(spectrum(unit), 1.0) > 1.1 * vendi_score(spectrum(unit), 2.0)


def test_vendi_of_order_infinity_is_a_number():
    unit = some_rows(60, 10)
    largest = np.linalg.eigvalsh(unit @ unit.T / 60)[-1]
    assert vendi_score(spectrum(unit), math.inf) == pytest.approx(1 / largest, rel=1e-9)


def test_vendi_of_order_zero_counts_five_distinct_items_as_five():
    items = unit_rows(np.random.default_rng(0).normal(size=(5, 40)))
    assert vendi_score(spectrum(np.repeat(items, 52, axis=0)), 0.0) == pytest.approx(5)


def test_vendi_uses_all_eigenvalues_of_sparse_rows():
    assert vendi_score(spectrum(np.eye(30)), 1.0) == pytest.approx(30, rel=1e-12)


def test_near_duplicates_of_any_length_score_one_once_normalised():
    rng = np.random.default_rng(0)
    raw = rng.normal(size=64) * rng.uniform(0.1, 30, size=(200, 1)) * (1 + 0.01 * rng.normal(size=(200, 64)))
    unit = unit_rows(raw, dtype=np.float64)
    assert dcscore(unit, 1.0) == pytest.approx(1.0, abs=0.005)
    assert vendi_score(spectrum(unit), 1.0) == pytest.approx(1.0, abs=0.01)


def test_rows_without_a_direction_are_refused():
    with pytest.raises(ValueError, match="row 1 is zero"):
        unit_rows(np.array([[1.0, 2.0], [0.0, 0.0]]))


@pytest.mark.parametrize("n", [1, 10, 11, 513])
def test_a_last_batch_of_one_row_is_no_special_case(n):
    unit = some_rows(n, 6)
    softmax = np.exp(unit @ unit.T) / np.exp(unit @ unit.T).sum(axis=1, keepdims=True)
    tiled = row_sums(unit, [1.0], tile=512 if n > 512 else 10)[0].total
    assert kernel_diversity(tiled) == pytest.approx(np.trace(softmax), rel=1e-9)


@pytest.mark.parametrize("tau", [1.0, 0.1])
def test_dcscore_saturates_as_its_closed_form_says(tau):
    n = 700
    expected = n * math.exp(1 / tau) / (n - 1 + math.exp(1 / tau))
    assert dcscore(np.eye(n), tau) == pytest.approx(expected, rel=1e-9)
    assert dcscore(np.eye(n), 1.0) < math.e < dcscore(np.eye(n), 0.1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_peer_gives_the_same_number_where_it_is_right():
    vendi = pytest.importorskip("vendi_score.vendi")
    unit = some_rows(80, 10)
    assert vendi_score(spectrum(unit), 1.0) == pytest.approx(vendi.score_dual(unit, q=1), rel=1e-7)
    assert vendi_score(spectrum(unit), 2.0) == pytest.approx(vendi.score_dual(unit, q=2), rel=1e-7)
