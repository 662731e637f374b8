"""Weights of lowest shift: the duality gap goes to zero, KKT holds, label totals are exact, nothing is ever n x n."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from cuvee.corpus import Corpus, load_corpus
from cuvee.encoders import load_encoder
from cuvee.errors import InputError
from cuvee.fingerprint import derive_rng
from cuvee.mix.select import lowest_shift_weights, select_rows, weighted_mmd
from cuvee.mix.select.weights import mean_kernel, nearest_mixture
from cuvee.similarity import median_distance, unit_rows

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "workergpt_sentiment"


def points(rows: int, seed: int, *, dim: int = 6, shift: float = 0.0, dtype=np.float64):
    found = np.random.default_rng(seed).standard_normal((rows, dim)) + shift * np.eye(dim)[0]
    return unit_rows(found, dtype=dtype)


def corpus(targets, *, origin="synthetic", task="classification"):
    return Corpus.from_rows([{"text": f"t{i}", "target": y} for i, y in enumerate(targets)], origin=origin, task=task)


def kernel(rows, columns, sigma):
    return np.exp((rows @ columns.T - 1) / sigma**2)


# --- the solver -----------------------------------------------------------------------------------
@settings(deadline=None, max_examples=25)
@given(st.integers(2, 60), st.integers(1, 30), st.integers(0, 10**6), st.floats(0.4, 2.0))
def test_the_gap_goes_to_zero_and_kkt_holds(n, m, seed, sigma):
    unit, target = points(n, seed, shift=1.0), points(m, seed + 1)
    closeness = kernel(unit, target, sigma).mean(axis=1)
    gram = kernel(unit, unit, sigma)

    def objective(p):
        return p @ gram @ p - 2 * closeness @ p

    found = [nearest_mixture(unit, closeness, bandwidth=sigma, tolerance=t) for t in (1e-2, 1e-4, 1e-7, 1e-10)]
    best = objective(found[-1].weights)
    for mixture, tolerance in zip(found, (1e-2, 1e-4, 1e-7, 1e-10), strict=True):
        p = mixture.weights
        assert (p >= 0).all() and p.sum() == pytest.approx(1, abs=1e-12)
        assert 0 <= mixture.gap <= tolerance
        assert objective(p) - best <= mixture.gap + 1e-12  # what the gap says
    slope = 2 * (gram @ found[-1].weights - closeness)
    level = found[-1].weights @ slope
    used = found[-1].weights > 1e-3
    assert slope.min() >= level - 1e-9  # no row would lower it
    assert np.abs(slope[used] - level).max() < 1e-6  # and rows with weight are all as good


def test_the_least_value_is_that_of_a_general_solver():
    unit, target, sigma = points(12, 0, shift=1.0), points(9, 1), 0.8
    closeness, gram = kernel(unit, target, sigma).mean(axis=1), kernel(unit, unit, sigma)
    own = kernel(target, target, sigma).mean()
    general = minimize(
        lambda p: p @ gram @ p - 2 * closeness @ p,
        np.full(12, 1 / 12),
        jac=lambda p: 2 * (gram @ p - closeness),
        bounds=[(0, None)] * 12,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1, "jac": lambda _: np.ones(12)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    found = nearest_mixture(unit, closeness, bandwidth=sigma, tolerance=1e-12)
    assert weighted_mmd(unit, found.weights, target, sigma) == pytest.approx(general.fun + own, abs=1e-8)
    assert found.weights == pytest.approx(general.x, abs=1e-3)


def test_rows_that_are_the_real_ones_get_all_the_weight_in_equal_parts():
    target = points(8, 1)
    unit = np.vstack([target, points(30, 2, shift=3.0)])
    closeness = mean_kernel(unit, target, 0.7)
    found = nearest_mixture(unit, closeness, bandwidth=0.7, tolerance=1e-12)
    assert found.weights[:8] == pytest.approx(1 / 8, abs=1e-4) and found.weights[8:].max() < 1e-4
    assert weighted_mmd(unit, found.weights, target, 0.7) == pytest.approx(0, abs=1e-9)


def test_copies_of_rows_change_no_value_and_tolerances_must_be_positive():
    unit, target = points(20, 3, shift=1.0), points(10, 4)
    values = []
    for rows in (unit, np.vstack([unit, unit, unit[:5]])):
        closeness = mean_kernel(rows, target, 1.0)
        found = nearest_mixture(rows, closeness, bandwidth=1.0, tolerance=1e-10)
        values.append(weighted_mmd(rows, found.weights, target, 1.0))
    assert values[0] == pytest.approx(values[1], abs=1e-9)
    for bad in ({"tolerance": 0.0}, {"tolerance": float("nan")}, {"tolerance": 1.0, "max_steps": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            nearest_mixture(unit, closeness[:20], bandwidth=1.0, **bad)


# --- of a pool ------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from("abc"), min_size=3, max_size=80), st.integers(0, 1000))
def test_every_label_keeps_its_total_and_no_weights_are_nearer_by_more_than_the_gap(targets, seed):
    pool, real = corpus(targets), corpus("aabbcc", origin="real")
    vectors, other = points(len(targets), seed, shift=1.0, dtype=np.float32), points(6, seed + 1, dtype=np.float32)
    found = lowest_shift_weights(pool, vectors, real, other, tolerance=1e-3, seed=seed)
    assert (found.weights >= 0).all()
    for label in set(targets):
        rows = np.array([t == label for t in targets])
        assert found.weights[rows].sum() == pytest.approx(rows.sum())
    assert found.value <= found.equal + 1e-7
    assert 1 <= found.effective_rows <= len(pool) + 1e-6
    tighter = lowest_shift_weights(pool, vectors, real, other, tolerance=1e-5, seed=seed)
    assert found.value - tighter.value <= found.gap + 1e-6
    again = lowest_shift_weights(pool, vectors, real, other, tolerance=1e-3, seed=seed)
    assert np.array_equal(again.weights, found.weights)
    # as it is defined
    sigma = median_distance(other, seed=seed)
    parts = 0.0
    for label in set(targets):
        rows, others = np.array([t == label for t in targets]), np.array([t == label for t in real.targets])
        parts += rows.mean() * weighted_mmd(vectors[rows], found.weights[rows], other[others], sigma)
    assert found.value == pytest.approx(parts, abs=1e-6)


def test_a_search_cut_short_is_no_worse_than_equal_weights_and_says_how_far_off_it_is():
    pool, real = corpus("a" * 40, task="generation"), corpus("a" * 20, task="generation")
    vectors, other = points(40, 0, shift=0.5), points(20, 1)
    short = lowest_shift_weights(pool, vectors, real, other, max_steps=1)
    whole = lowest_shift_weights(pool, vectors, real, other, tolerance=1e-6)
    assert short.value == short.equal and (short.weights == 1).all() and short.steps == 1
    assert 0 < short.value - whole.value <= short.gap
    assert whole.gap <= 1e-6 * whole.equal and whole.value < whole.equal
    assert f"of {whole.effective_rows:.0f} of equal weight" in str(whole).replace("count as", "of")


def test_what_cannot_be_weighed_is_told():
    pool, real = corpus("aab"), corpus("aa")
    with pytest.raises(InputError, match="no real row of label 'b'"):
        lowest_shift_weights(pool, points(3, 0), real, points(2, 1))
    with pytest.raises(InputError, match="no rows to weigh"):
        lowest_shift_weights(corpus(""), np.zeros((0, 6)), real, points(2, 1))
    with pytest.raises(ValueError, match="real_vectors has 3 rows for a corpus of 2"):
        lowest_shift_weights(pool, points(3, 0), real, points(3, 1))


def test_the_kernel_of_all_pairs_is_never_in_memory():
    rows = 6000
    pool, real = corpus("a" * rows, task="generation"), corpus("a" * 50, task="generation")
    vectors, other = points(rows, 0, dim=16, shift=1.0, dtype=np.float32), points(50, 1, dim=16, dtype=np.float32)
    tracemalloc.start()
    found = lowest_shift_weights(pool, vectors, real, other, tolerance=1e-2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.value < found.equal
    assert peak < 4 * rows * rows / 2  # bytes of half of it in float32


# --- on real rows ---------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not on this machine")
def test_weights_bring_gpt_rows_nearer_to_held_back_real_rows():
    encoder = load_encoder("minilm")

    def sample(file, rows, origin, seed=0):
        whole = load_corpus(DATA / file, text="text", label="label", origin=origin)
        part = whole.take(np.sort(np.random.default_rng(seed).permutation(len(whole))[:rows]))
        return part, unit_rows(encoder.encode(part.texts))

    (pool, vectors), (train, real) = sample("synthetic.jsonl.gz", 2000, "synthetic"), sample("train.jsonl", 500, "real")
    held_back, other = sample("test.jsonl.gz", 800, "real")
    weighed = lowest_shift_weights(pool, vectors, train, real)
    sigma = median_distance(real)
    equal, lower, against_random = np.ones(len(pool)), [], []
    for seed in range(10):
        # held-back rows are drawn anew each time, so that their luck is part of the spread
        drawn = other[derive_rng(seed, "held back").permutation(len(held_back))[:400]]

        def shift(weights, drawn=drawn):
            return weighted_mmd(vectors, weights, drawn, sigma)

        random = select_rows(pool, vectors, rows=round(weighed.effective_rows), method="random", seed=seed)
        ours, chosen = shift(weighed.weights), np.isin(np.arange(len(pool)), random.rows).astype(float)
        lower.append(shift(equal) - ours)
        against_random.append(shift(chosen) - ours)
    for differences in (lower, against_random):
        mean, error = np.mean(differences), np.std(differences, ddof=1) / np.sqrt(10)
        assert mean - 2.26 * error > 0  # the 95% t interval of ten draws lies above 0
    assert weighed.gap <= 1e-3 * weighed.equal
