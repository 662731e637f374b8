"""Where the losses lead, against closed forms: a table of logits, every row in every step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.probe import WeightedRows, fit_objective
from cuvee.train.checkers import DynamicRows, importance
from cuvee.train.losses import CrossEntropy, GeneralizedCrossEntropy, SymmetricCrossEntropy, TruncatedCrossEntropy
from cuvee.train.weighting import TrainingRows

COUNTS = np.array([[6, 3, 1], [2, 2, 6], [1, 8, 1]])  # how often each label stands in each of three contexts
Q = COUNTS / COUNTS.sum(axis=1, keepdims=True)
CHECKER = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.25, 0.5, 0.25]])
PLACES = np.repeat(np.arange(9), COUNTS.ravel())
CONTEXT, LABEL = PLACES // 3, PLACES % 3
EVERY = np.arange(len(PLACES))


def prepare(loss, rows=1):
    """The loss for so many real rows."""
    return loss.prepare(TrainingRows(corpus=None, synthetic=np.zeros(rows, dtype=bool), encode=None, seed=0))


def descend(loss, steps=3000, rate=3.0):
    """Probabilities of the table where gradient descent on the loss ends, shape (contexts, labels)."""
    logits = np.zeros((3, 3))
    for _ in range(steps):
        p = np.exp(logits)
        p /= p.sum(axis=1, keepdims=True)
        slopes = loss.slopes(EVERY, np.log(p[CONTEXT, LABEL]))
        gradient = np.zeros((3, 3))
        np.add.at(gradient, CONTEXT, slopes[:, None] * (np.eye(3)[LABEL] - p[CONTEXT]) / len(EVERY))
        logits -= rate * gradient
    return p


def normalise(table):
    return table / table.sum(axis=1, keepdims=True)


def test_cross_entropy_finds_the_label_law():
    np.testing.assert_allclose(descend(WeightedRows(np.ones(len(EVERY)))), Q, atol=1e-4)


def test_imp_finds_the_checker():
    weights = importance(np.log(CHECKER[CONTEXT, LABEL]), np.log(Q[CONTEXT, LABEL]), clip=1e9)
    np.testing.assert_allclose(descend(WeightedRows(weights)), CHECKER, atol=1e-4)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_dimp_stops_between_the_label_law_and_the_checker(gamma):
    checker = np.log(CHECKER[CONTEXT, LABEL])
    loss = DynamicRows(checker, np.ones(len(EVERY), dtype=bool), gamma=gamma, clip=1e9)
    np.testing.assert_allclose(descend(loss), normalise((Q * CHECKER**gamma) ** (1 / (1 + gamma))), atol=1e-4)


def test_a_clip_bounds_the_weights():
    found = importance(np.log([0.9, 0.1]), np.log([1e-300, 0.1]), clip=5.0)
    np.testing.assert_allclose(found, [5.0, 1.0])


def test_dimp_weighs_the_real_rows_of_a_batch_one():
    loss = DynamicRows(np.log([0.5, 0.5, 0.5]), np.array([False, True, True]), gamma=1.0, clip=10.0)
    slopes = loss.slopes(np.arange(3), np.log([0.1, 0.25, 0.5]))
    np.testing.assert_allclose(slopes, -3 * np.array([1, 2, 1]) / 4)


def test_dimp_survives_a_batch_whose_weights_all_vanish():
    loss = DynamicRows(np.full(2, -2000.0), np.ones(2, dtype=bool), gamma=1.0, clip=10.0)
    assert np.array_equal(loss.slopes(np.arange(2), np.zeros(2)), np.zeros(2))


def test_tce_stops_at_the_label_law_cut_to_gamma():
    gamma, p = 0.5, Q.copy()
    for row in p:  # what is above gamma goes to the other labels
        if row[top := row.argmax()] > gamma:
            row *= (1 - gamma) / (1 - row[top])
            row[top] = gamma
    np.testing.assert_allclose(descend(prepare(TruncatedCrossEntropy(gamma), len(EVERY)), rate=0.1), p, atol=0.01)


@settings(max_examples=25)
@given(log_p=st.floats(-700, 0))
def test_tce_at_one_is_cross_entropy_bit_for_bit(log_p):
    tce, ce = prepare(TruncatedCrossEntropy(1.0)), prepare(CrossEntropy())
    for found, wanted in ((tce.slopes, ce.slopes), (tce.values, ce.values)):
        assert np.array_equal(found(np.array([0]), np.array([log_p])), wanted(np.array([0]), np.array([log_p])))


@pytest.mark.parametrize("seed", [2, 3, 10])
def test_a_probe_finds_the_optimum_of_tce_where_a_jump_of_the_slope_let_it_go_round(seed):
    chance = np.random.default_rng(seed)
    codes, middle = chance.integers(0, 3, 200), chance.normal(size=(3, 20))
    vectors = 4 * middle[codes] / np.sqrt(20) + 2 * chance.normal(size=(200, 20)) / np.sqrt(20)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    names = [str(code) for code in codes]
    found = fit_objective(vectors, names, prepare(TruncatedCrossEntropy(0.9), 200), l2=0.1)
    plain = fit_objective(vectors, names, prepare(CrossEntropy(), 200), l2=0.1)
    assert 0.5 < found.proba(vectors).max() < plain.proba(vectors).max()


LOG_P = st.floats(-20, -1e-6)


@settings(max_examples=25)
@given(log_p=LOG_P, q=st.floats(0.01, 1))
def test_the_gradient_of_gce_is_p_to_the_q_times_that_of_cross_entropy(log_p, q):
    slope = prepare(GeneralizedCrossEntropy(q)).slopes(np.array([0]), np.array([log_p]))
    np.testing.assert_allclose(slope, -(np.exp(log_p) ** q))


def test_gce_goes_to_cross_entropy_as_q_goes_to_zero():
    loss = prepare(GeneralizedCrossEntropy(1e-7), len(EVERY))
    log_p = np.log(np.linspace(0.01, 0.99, len(EVERY)))
    np.testing.assert_allclose(loss.values(EVERY, log_p), -log_p, rtol=1e-5)
    np.testing.assert_allclose(descend(loss), Q, atol=1e-4)


@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 1.0), (6.0, 0.1)])
def test_sce_adds_the_reverse_cross_entropy_with_log_zero_at_minus_four(alpha, beta):
    loss = prepare(SymmetricCrossEntropy(alpha, beta))
    p = np.array([0.7, 0.2, 0.1])
    reverse = -(p * np.array([0.0, -4.0, -4.0])).sum()
    value = loss.values(np.array([0]), np.log(p[:1]))
    np.testing.assert_allclose(value, alpha * -np.log(0.7) + beta * reverse)


@given(log_p=LOG_P, kind=st.sampled_from(["ce", "gce", "sce", "tce"]))
def test_slopes_are_the_derivatives_of_values(log_p, kind):
    losses = {"ce": CrossEntropy(), "gce": GeneralizedCrossEntropy(0.7), "sce": SymmetricCrossEntropy(0.5, 2.0)}
    loss = prepare({**losses, "tce": TruncatedCrossEntropy(0.5)}[kind])
    here, step = np.array([0]), 1e-6
    rise = loss.values(here, np.array([log_p + step])) - loss.values(here, np.array([log_p - step]))
    np.testing.assert_allclose(loss.slopes(here, np.array([log_p])), rise / (2 * step), rtol=1e-4, atol=1e-6)


@settings(max_examples=25)
@given(weights=st.lists(st.integers(0, 3), min_size=2, max_size=12).filter(any))
def test_a_weight_of_two_is_a_row_that_stands_twice(weights):
    counts = np.array(weights)
    weighted = WeightedRows(counts.astype(float))
    repeated = WeightedRows(np.ones(counts.sum()))
    rows = np.flatnonzero(counts)
    log_p = -np.arange(1.0, len(counts) + 1)
    one = weighted.slopes(np.arange(len(rows)), log_p[rows])
    other = repeated.slopes(np.arange(counts.sum()), np.repeat(log_p, counts))
    gradient = np.bincount(np.repeat(np.arange(len(counts)), counts), other, len(counts)) / counts.sum()
    np.testing.assert_allclose(one / len(rows), gradient[rows])
