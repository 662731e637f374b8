"""The probe against scikit-learn, and what weights, penalties, phases and other losses promise."""

from dataclasses import dataclass

import numpy as np
import pytest

from cuvee.errors import TrainingError
from cuvee.probe import CHOICES, ProbeModel, choose_l2, cross_validated_proba, fit_objective, fit_probe
from cuvee.similarity import unit_rows


def clusters(n, d=32, k=4, noise=1.2, seed=0, centre_seed=99):
    centres = np.random.default_rng(centre_seed).normal(size=(k, d))
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % k
    vectors = unit_rows((centres[codes] + noise * rng.normal(size=(n, d)) * 1.5).astype(np.float32))
    return vectors, [f"label {c}" for c in codes]


def accuracy(said, targets):
    return np.mean(np.array(said) == np.array(targets))


@pytest.mark.parametrize("rows", [20, 400])  # fewer rows than dimensions, and more
@pytest.mark.parametrize("l2", [0.1, 1.0, 10.0])
def test_it_is_scikit_learns_optimum(rows, l2):
    from sklearn.linear_model import LogisticRegression

    vectors, targets = clusters(rows)
    held_out, truth = clusters(1000, seed=1000)
    peer = LogisticRegression(C=1 / l2, max_iter=5000, tol=1e-7).fit(vectors.astype(np.float64), targets)
    ours = fit_probe(vectors, targets, l2=l2)
    np.testing.assert_allclose(ours.proba(held_out), peer.predict_proba(held_out), atol=5e-3)
    assert abs(accuracy(ours.predict(held_out), truth) - peer.score(held_out, truth)) < 0.005


def test_a_weight_of_two_is_a_row_that_stands_twice():
    vectors, targets = clusters(60)
    weights = np.array([1.0, 2.0, 3.0] * 20)
    repeated = np.repeat(np.arange(60), weights.astype(int))
    weighted = fit_probe(vectors, targets, row_weights=weights)
    doubled = fit_probe(vectors[repeated], [targets[i] for i in repeated])
    np.testing.assert_allclose(weighted.proba(vectors), doubled.proba(vectors), atol=2e-3)
    plain = fit_probe(vectors, targets)
    assert np.abs(plain.proba(vectors) - doubled.proba(vectors)).max() > 0.02


def test_rows_of_zero_weight_change_nothing_at_all():
    vectors, targets = clusters(40)
    junk = np.full((8, 32), np.nan, dtype=np.float32)
    one = fit_probe(vectors, targets)
    weights = np.concatenate([np.ones(40), np.zeros(8)])
    other = fit_probe(np.vstack([vectors, junk]), targets + ["label 0"] * 8, row_weights=weights)
    np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(one.bias, other.bias)


def test_nothing_is_drawn_whatever_ran_before():
    vectors, targets = clusters(100)
    one = fit_probe(vectors, targets)
    np.random.default_rng(0).normal(size=1000)
    fit_probe(*clusters(30, seed=7))
    np.testing.assert_array_equal(one.weights, fit_probe(vectors, targets).weights)


def test_the_order_of_rows_moves_nothing_but_last_digits():
    vectors, targets = clusters(100)
    order = np.random.default_rng(0).permutation(100)
    one, other = fit_probe(vectors, targets), fit_probe(vectors[order], [targets[i] for i in order])
    np.testing.assert_allclose(one.proba(vectors), other.proba(vectors), atol=2e-3)


def test_labels_fix_the_columns_and_one_without_rows_has_next_to_none():
    vectors, targets = clusters(80)
    labels = ["zebra", "label 3", "label 2", "label 1", "label 0"]
    model = fit_probe(vectors, targets, labels=labels)
    proba = model.proba(vectors)
    assert model.labels == tuple(labels)
    assert proba.shape == (80, 5)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0)
    assert 5e-4 < proba[:, 0].mean() < 2e-3
    assert accuracy(model.predict(vectors), targets) > 0.9


def test_log_proba_is_finite_for_extreme_logits():
    model = ProbeModel(("a", "b"), np.array([[1e4, -1e4]], dtype=np.float32), np.zeros(2, dtype=np.float32))
    np.testing.assert_allclose(model.log_proba(np.ones((1, 1), dtype=np.float32)), [[0.0, -2e4]])
    assert model.log_proba(np.zeros((0, 1), dtype=np.float32)).shape == (0, 2)


def test_what_cannot_be_trained_on_is_refused():
    vectors, targets = clusters(8)
    with pytest.raises(TrainingError, match="no rows"):
        fit_probe(vectors[:0], [])
    with pytest.raises(TrainingError, match="no rows"):
        fit_probe(vectors, targets, row_weights=np.zeros(8))
    with pytest.raises(TrainingError, match="one label only \\('x'\\)"):
        fit_probe(vectors, ["x"] * 8)
    broken = vectors.copy()
    broken[5, 0] = np.inf
    with pytest.raises(TrainingError, match="row 5 is not finite"):
        fit_probe(broken, targets)


def test_arguments_that_do_not_fit_are_refused():
    vectors, targets = clusters(8)
    with pytest.raises(ValueError, match="'label 0', which is not among labels"):
        fit_probe(vectors, targets, labels=["label 1", "label 2", "label 3"])
    with pytest.raises(ValueError, match="negative or non-finite"):
        fit_probe(vectors, targets, row_weights=-np.ones(8))
    with pytest.raises(ValueError, match="l2 is 0"):
        fit_probe(vectors, targets, l2=0)
    with pytest.raises(ValueError, match="the probe takes"):
        fit_probe(vectors, targets).predict(vectors[:, :5])


def test_cross_validation_never_shows_a_row_to_its_own_probe():
    # labels are pure noise: a probe that saw its rows would be right far more often than one time in two
    rng = np.random.default_rng(0)
    vectors = unit_rows(rng.normal(size=(200, 100)).astype(np.float32))
    targets = ["ab"[i] for i in rng.integers(0, 2, size=200)]
    said = cross_validated_proba(vectors, targets, seed=1).argmax(axis=1)
    assert accuracy([("a", "b")[i] for i in said], targets) < 0.65
    assert accuracy(fit_probe(vectors, targets).predict(vectors), targets) > 0.8


def test_cross_validation_keeps_groups_together():
    # copies of a row share its noise label: only grouped folds keep them from telling
    rng = np.random.default_rng(0)
    vectors = np.repeat(unit_rows(rng.normal(size=(60, 100)).astype(np.float32)), 5, axis=0)
    targets = np.repeat([("a", "b")[i] for i in rng.integers(0, 2, size=60)], 5).tolist()
    groups = np.repeat([f"g{i}" for i in range(60)], 5).tolist()
    labels = np.array(["a", "b"])
    loose = labels[cross_validated_proba(vectors, targets).argmax(axis=1)]
    grouped = labels[cross_validated_proba(vectors, targets, groups=groups).argmax(axis=1)]
    assert accuracy(loose, targets) > 0.9
    assert accuracy(grouped, targets) < 0.7


def test_cross_validation_is_useful_stratified_and_works_on_few_rows():
    vectors, targets = clusters(200)
    proba = cross_validated_proba(vectors, targets, seed=3)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0)
    assert accuracy([f"label {i}" for i in proba.argmax(axis=1)], targets) > 0.8
    assert cross_validated_proba(vectors[:4], ["a", "b", "a", "b"]).shape == (4, 2)
    with pytest.raises(TrainingError, match="one label only"):
        cross_validated_proba(vectors[:2], ["a", "b"])
    with pytest.raises(TrainingError, match="no rows"):
        cross_validated_proba(vectors[:0], [])


# --- the strength of the penalty ---
def test_the_strength_moves_only_where_rows_tell():
    vectors, targets = clusters(16, noise=4.0)
    assert choose_l2(vectors, targets) == 1.0
    # one label of many rows and many of few: the usual penalty says the first too often
    rng = np.random.default_rng(0)
    codes = np.where(np.arange(120) < 60, 0, np.arange(120) % 30)
    vectors = unit_rows((rng.normal(size=(30, 64))[codes] + rng.normal(size=(120, 64))).astype(np.float32))
    targets = [f"label {code}" for code in codes]
    chosen = choose_l2(vectors, targets)
    assert chosen in CHOICES and chosen < 1.0
    assert choose_l2(vectors[:99], targets[:99]) == 1.0  # too few to tell


# --- any loss ---
@dataclass
class Part:
    rows: np.ndarray
    pull: float = 0.0


class Sloped:
    """A loss by its slopes."""

    def __init__(self, n, slope=lambda log_p: -np.ones_like(log_p), phases=None):
        self.weights = np.ones(n)
        self.phases = phases or [Part(np.arange(n))]
        self.slope = slope

    def slopes(self, rows, log_p):  # noqa: ARG002
        return self.slope(log_p)


def test_a_loss_of_slope_minus_one_is_the_plain_probe():
    vectors, targets = clusters(40)
    np.testing.assert_array_equal(
        fit_probe(vectors, targets).weights, fit_objective(vectors, targets, Sloped(40)).weights
    )


def test_a_loss_that_is_not_convex_ends_where_its_gradient_vanishes():
    vectors, targets = clusters(200)
    start = fit_probe(vectors, targets)

    def gradient(model):  # of gce with q = 0.7, by hand
        proba = model.proba(vectors)
        truth = np.array(targets)[:, None] == np.array(model.labels)[None, :]
        residual = (proba - truth) * (proba[truth] ** 0.7)[:, None]
        return np.abs(vectors.T @ residual + 0.1 * model.weights).max()

    found = fit_objective(vectors, targets, Sloped(200, lambda log_p: -np.exp(0.7 * log_p)))
    assert gradient(found) < 0.005 < 0.1 < gradient(start)


def test_a_loss_without_an_end_is_an_error_of_one_line():
    vectors, targets = clusters(40)
    with pytest.raises(TrainingError, match="slopes of the probe's loss are not finite"):
        fit_objective(vectors, targets, Sloped(40, lambda log_p: np.full_like(log_p, np.nan)))
    rng = np.random.default_rng(0)
    with pytest.raises(TrainingError, match="no optimum of the probe's loss in 2,000 gradients"):
        fit_objective(vectors, targets, Sloped(40, lambda log_p: rng.normal(size=log_p.shape)))


def test_phases_end_at_the_optimum_of_the_last_and_a_pull_holds_them_back():
    vectors, targets = clusters(40)
    halves = np.arange(0, 40, 2), np.arange(1, 40, 2)
    targets = [f"label {(i // 2) % 4}" for i in range(40)]
    first, last = (fit_probe(vectors[half], [targets[i] for i in half]) for half in halves)

    def after(pull):
        phases = [Part(halves[0]), Part(halves[1], pull=pull)]
        return fit_objective(vectors, targets, Sloped(40, phases=phases)).proba(vectors)

    np.testing.assert_allclose(after(0.0), last.proba(vectors), atol=5e-3)
    np.testing.assert_allclose(after(1e6), first.proba(vectors), atol=5e-3)
    between = after(0.05)
    assert np.abs(between - after(0.0)).max() > 0.05 < np.abs(between - after(1e6)).max()
