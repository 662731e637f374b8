"""The probe against scikit-learn, and what fixed steps, weights and seeds promise."""

from dataclasses import dataclass

import numpy as np
import pytest

from cuvee.errors import TrainingError
from cuvee.fingerprint import derive_rng
from cuvee.probe import Descent, ProbeModel, cross_validated_proba, fit_objective, fit_probe
from cuvee.similarity import single_blas_thread, unit_rows


def clusters(n, d=32, k=4, noise=1.2, seed=0, centre_seed=99):
    centres = np.random.default_rng(centre_seed).normal(size=(k, d))
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % k
    vectors = unit_rows((centres[codes] + noise * rng.normal(size=(n, d)) * 1.5).astype(np.float32))
    return vectors, [f"label {c}" for c in codes]


def accuracy(said, targets):
    return np.mean(np.array(said) == np.array(targets))


@pytest.mark.parametrize("rows", [20, 400])
def test_accuracy_is_that_of_scikit_learn(rows):
    from sklearn.linear_model import LogisticRegression

    held_out, truth = clusters(4000, seed=1000)
    ours, theirs = [], []
    for seed in range(6):
        vectors, targets = clusters(rows, seed=seed)
        ours.append(accuracy(fit_probe(vectors, targets, seed=seed).predict(held_out), truth))
        peer = LogisticRegression(C=10, max_iter=2000).fit(vectors, targets)
        theirs.append(accuracy(peer.predict(held_out), truth))
    assert 0.4 < np.mean(theirs) < 0.99  # neither trivial nor hopeless
    assert np.mean(ours) >= np.mean(theirs) - 0.005


def test_probabilities_are_those_of_the_converged_optimum():
    from sklearn.linear_model import LogisticRegression

    vectors, targets = clusters(200)
    peer = LogisticRegression(C=10, max_iter=5000, tol=1e-8).fit(vectors, targets)
    ours = fit_probe(vectors, targets, steps=3000, batch=200)
    np.testing.assert_allclose(ours.proba(vectors), peer.predict_proba(vectors), atol=5e-3)


def test_row_weights_have_the_optimum_of_repeated_rows():
    vectors, targets = clusters(60)
    weights = np.array([1.0, 2.0, 3.0] * 20)
    repeated = np.repeat(np.arange(60), weights.astype(int))
    options = {"steps": 4000, "l2": 0.01}
    weighted = fit_probe(vectors, targets, row_weights=weights, batch=60, **options)
    doubled = fit_probe(vectors[repeated], [targets[i] for i in repeated], batch=120, **options)
    np.testing.assert_allclose(weighted.proba(vectors), doubled.proba(vectors), atol=2e-3)


def test_rows_of_zero_weight_change_nothing_at_all():
    vectors, targets = clusters(40)
    junk = np.full((8, 32), np.nan, dtype=np.float32)
    one = fit_probe(vectors, targets, seed=5)
    other = fit_probe(
        np.vstack([vectors, junk]),
        targets + ["label 0"] * 8,
        row_weights=np.concatenate([np.ones(40), np.zeros(8)]),
        seed=5,
    )
    np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(one.bias, other.bias)


def test_a_seed_gives_the_same_bits_and_another_seed_others():
    vectors, targets = clusters(100)
    one, again, other = (fit_probe(vectors, targets, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.weights, again.weights)
    assert (one.weights != other.weights).any()


def test_the_number_of_steps_is_what_was_asked():
    vectors, targets = clusters(100)
    short, long = (fit_probe(vectors, targets, steps=s) for s in (1, 300))
    assert np.abs(short.weights).max() < np.abs(long.weights).max() / 3


def test_labels_fix_the_columns_and_unseen_ones_get_little():
    vectors, targets = clusters(80)
    labels = ["zebra", "label 3", "label 2", "label 1", "label 0"]
    model = fit_probe(vectors, targets, labels=labels)
    proba = model.proba(vectors)
    assert model.labels == tuple(labels)
    assert proba.shape == (80, 5)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0)
    assert proba[:, 0].max() < 0.1
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
    with pytest.raises(ValueError, match="repeats"):
        fit_probe(vectors, targets, labels=["a", "a"])
    with pytest.raises(ValueError, match="there are 7 targets"):
        fit_probe(vectors, targets[:7])
    with pytest.raises(ValueError, match="row_weights has shape"):
        fit_probe(vectors, targets, row_weights=np.ones(3))
    with pytest.raises(ValueError, match="negative or non-finite"):
        fit_probe(vectors, targets, row_weights=-np.ones(8))
    with pytest.raises(ValueError, match="steps is 0"):
        fit_probe(vectors, targets, steps=0)
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
    with pytest.raises(ValueError, match="folds is 1"):
        cross_validated_proba(vectors, targets, folds=1)
    with pytest.raises(ValueError, match="groups has 1"):
        cross_validated_proba(vectors, targets, groups=["x"])


def plain_descent(vectors, targets, steps, batch, seed, weights):
    """The probe as it was before losses had slopes: weighted cross-entropy, written out."""
    names = sorted(set(targets))
    codes = np.array([names.index(t) for t in targets])
    rng = derive_rng(seed, "probe")
    rows = np.hstack([vectors, np.ones((len(vectors), 1), dtype=np.float32)])
    epochs = -(-steps * batch // len(rows))
    order = rng.permuted(np.tile(np.arange(len(rows)), (epochs, 1)), axis=1).ravel()[: steps * batch]
    found = rng.normal(0.0, 0.01, size=(rows.shape[1], len(names))).astype(np.float32)
    found[-1] = 0.0
    velocity = np.zeros_like(found)
    scale = ((weights / weights.mean()).astype(np.float32) / batch).astype(np.float32)[:, None]
    penalty, warm = np.float32(0.1 / float(weights.sum())), 0.1 * steps
    for step, chosen in enumerate(order.reshape(steps, batch)):
        falling = 0.5 * (1.0 + float(np.cos(np.pi * (step + 1 - warm) / (steps - warm))))
        rate = np.float32(10.0 * ((step + 1) / warm if step + 1 < warm else falling))
        ahead = found + 0.9 * velocity
        residual = rows[chosen] @ ahead
        residual -= residual.max(axis=1, keepdims=True)
        np.exp(residual, out=residual)
        residual /= residual.sum(axis=1, keepdims=True)
        residual[np.arange(batch), codes[chosen]] -= 1.0
        residual *= scale[chosen]
        velocity *= 0.9
        velocity -= rate * (rows[chosen].T @ residual)
        velocity[:-1] -= (rate * penalty) * ahead[:-1]
        found += velocity
    return found


@pytest.mark.parametrize("weights", [np.ones(50), np.tile([0.3, 1.0], 25)])
def test_weighted_cross_entropy_keeps_its_bits(weights):
    vectors, targets = clusters(50)
    with single_blas_thread():
        expected = plain_descent(vectors, targets, 60, 16, 4, weights)
    found = fit_probe(vectors, targets, row_weights=weights, steps=60, batch=16, seed=4)
    np.testing.assert_array_equal(found.weights, expected[:-1])
    np.testing.assert_array_equal(found.bias, expected[-1])


@dataclass
class Part:
    rows: np.ndarray
    share: float
    pull: float = 0.0


class PlainLoss:
    """Cross-entropy that writes down what it is shown."""

    def __init__(self, n, phases=None):
        self.weights = np.ones(n)
        self.phases = phases or [Part(np.arange(n), 1.0)]
        self.batches = []

    def slopes(self, rows, log_p):
        self.batches.append(rows)
        assert (log_p <= 0).all()
        return -np.ones(len(rows))


def test_a_loss_of_slope_minus_one_is_the_plain_probe():
    vectors, targets = clusters(40)
    plain, sloped = (
        fit_probe(vectors, targets, steps=30),
        fit_objective(vectors, targets, PlainLoss(40), Descent(steps=30)),
    )
    np.testing.assert_array_equal(plain.weights, sloped.weights)


def test_log_probabilities_shown_to_the_loss_are_the_models_own():
    vectors, targets = clusters(40)
    loss = PlainLoss(40)
    shown = []
    loss.slopes = lambda rows, log_p: shown.append((rows, log_p)) or -np.ones(len(rows))
    fit_objective(vectors, targets, loss, Descent(steps=1, batch=40))
    np.testing.assert_allclose(shown[0][1], np.log(0.25), atol=0.2)  # nothing is known before the first step


def test_phases_take_their_share_of_the_steps_and_their_own_rows():
    vectors, targets = clusters(40)
    loss = PlainLoss(40, [Part(np.arange(0, 40, 2), 0.3), Part(np.arange(1, 40, 2), 0.7)])
    fit_objective(vectors, targets, loss, Descent(steps=20, batch=8))
    assert len(loss.batches) == 20
    assert {int(r) % 2 for batch in loss.batches[:6] for r in batch} == {0}
    assert {int(r) % 2 for batch in loss.batches[6:] for r in batch} == {1}


@pytest.mark.parametrize("share", [1e-6, 1 - 1e-6])
def test_every_phase_has_a_step(share):
    vectors, targets = clusters(40)
    loss = PlainLoss(40, [Part(np.arange(20), share), Part(np.arange(20, 40), 1 - share)])
    fit_objective(vectors, targets, loss, Descent(steps=5, batch=4))
    first = [batch.max() < 20 for batch in loss.batches]
    assert len(first) == 5
    assert 1 <= sum(first) <= 4
