import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, InputError
from cuvee.evaluate import SCORES, evaluate_model, judge_proba, score_items
from cuvee.similarity import wilson_interval

LABELS = ("a", "b", "c")


def score_proba(proba, labels, targets, *, groups=None, intervals=False, seed=0):
    return score_items(judge_proba(proba, labels, targets, groups), intervals=intervals, seed=seed)


def items(n=400, seed=0, labels=LABELS):
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.full(len(labels), 0.7), size=n)
    targets = [labels[rng.choice(len(labels), p=0.7 * p + 0.3 / len(labels))] for p in proba]
    return proba, targets


class Fixed:
    """A predictor that knows the answer's first letter, and how sure it is."""

    labels = ("a", "b", "c")

    def predict_proba(self, texts):
        sure = np.array([[8.0 if text[0] == label else 1.0 for label in self.labels] for text in texts])
        return sure / sure.sum(axis=1, keepdims=True)


def test_scores_agree_with_scikit_learn():
    proba, targets = items()
    predicted = [LABELS[i] for i in proba.argmax(axis=1)]
    values = {name: e.value for name, e in score_proba(proba, LABELS, targets).values.items()}
    assert values["accuracy"] == pytest.approx(metrics.accuracy_score(targets, predicted))
    assert values["macro_f1"] == pytest.approx(metrics.f1_score(targets, predicted, average="macro"))
    assert values["log_loss"] == pytest.approx(metrics.log_loss(targets, proba, labels=list(LABELS)))
    assert values["brier"] == pytest.approx(metrics.brier_score_loss(targets, proba, labels=list(LABELS)))


def test_calibration_error_of_two_bins_by_hand():
    # ten items at confidence 0.9, six right; ten at 0.6, six right: 0.5 * 0.3 + 0.5 * 0
    proba = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    targets = (["x"] * 6 + ["y"] * 4) * 2
    assert score_proba(proba, ("x", "y"), targets).values["ece"].value == pytest.approx(0.15)


def test_bins_of_the_calibration_error_are_closed_above():
    # 1/15 steps: a confidence on an edge belongs to the bin below it, and 1.0 to the last
    proba = np.array([[1.0, 0.0], [0.6, 0.4]])
    assert score_proba(proba, ("x", "y"), ["x", "x"]).values["ece"].value == pytest.approx(0.2)


def test_macro_f1_counts_labels_that_were_never_predicted_or_never_true():
    proba = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0.0]])
    targets = ["a", "c", "a"]
    found = score_proba(proba, LABELS, targets).values["macro_f1"].value
    assert found == pytest.approx(metrics.f1_score(targets, ["a", "a", "b"], average="macro", zero_division=0))


def test_labels_the_predictor_does_not_know_count_as_wrong():
    proba, targets = items(n=50)
    targets = [*targets[:40], *["unheard of"] * 10]
    scores = score_proba(proba, LABELS, targets)
    assert not scores.correct[40:].any()
    assert scores.values["accuracy"].value == pytest.approx(scores.correct[:40].sum() / 50)
    predicted = [LABELS[i] for i in proba.argmax(axis=1)]
    assert scores.values["macro_f1"].value == pytest.approx(metrics.f1_score(targets, predicted, average="macro"))
    only = score_proba(np.array([[0.5, 0.5]]), ("a", "b"), ["z"]).values
    assert only["brier"].value == pytest.approx(1.5)
    assert only["log_loss"].value == pytest.approx(-np.log(np.finfo(float).eps))


@pytest.mark.parametrize("n", [1, 7, 12, 36, 999])
def test_a_fraction_of_none_or_all_ends_at_zero_or_one(n):
    assert wilson_interval(0.0, n)[0] == 0.0 and wilson_interval(1.0, n)[1] == 1.0


def test_intervals_cover_their_value_and_accuracy_has_the_wilson_one():
    proba, targets = items()
    scores = score_proba(proba, LABELS, targets, intervals=True)
    for estimate in scores.values.values():
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.high - estimate.low < 0.5
    accuracy = scores.values["accuracy"]
    expected = binomtest(int(scores.correct.sum()), len(targets)).proportion_ci(method="wilson")
    assert (accuracy.low, accuracy.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert accuracy.interval == "wilson"


def test_bootstrap_width_agrees_with_the_normal_one():
    proba, targets = items(n=2000)
    brier = score_proba(proba, LABELS, targets, intervals=True).values["brier"]
    truth = np.array([[t == label for label in LABELS] for t in targets])
    error = ((proba - truth) ** 2).sum(axis=1).std() / np.sqrt(len(targets))
    assert (brier.high - brier.low) == pytest.approx(2 * 1.96 * error, rel=0.25)


def test_intervals_are_seeded_and_optional():
    proba, targets = items()
    one, same, other = (score_proba(proba, LABELS, targets, intervals=True, seed=s).values for s in (1, 1, 2))
    assert one == same
    assert one["ece"].low != other["ece"].low
    bare = score_proba(proba, LABELS, targets).values
    assert all(e.low is None and e.high is None and e.interval == "" for e in bare.values())
    assert {k: e.value for k, e in bare.items()} == {k: e.value for k, e in one.items()}


@pytest.mark.parametrize("name", SCORES)
def test_weights_mean_repetition(name):
    proba, targets = items(n=60)
    times = np.random.default_rng(3).integers(1, 4, size=60)

    def columns(rows):
        return judge_proba(proba[rows], LABELS, [targets[row] for row in rows]).columns

    weighted = SCORES[name](columns(np.arange(60)), times[None, :].astype(float))
    repeated = SCORES[name](columns(np.repeat(np.arange(60), times)), np.ones((1, times.sum())))
    assert weighted == pytest.approx(repeated)


def test_a_predictor_is_evaluated_in_the_order_of_the_corpus():
    corpus = Corpus.from_rows([{"text": t, "target": y} for t, y in ("aa", "bb", "ca", "dd", "cc")])
    scores = evaluate_model(Fixed(), corpus)
    assert scores.correct.tolist() == [True, True, False, False, True]
    assert scores.correct.dtype == np.bool_
    assert scores.n == 5
    assert list(scores.values) == list(SCORES)
    assert scores.values["accuracy"].low is not None
    assert evaluate_model(Fixed(), corpus, intervals=False).values["accuracy"].low is None


def test_one_item_and_certain_predictions_have_finite_scores():
    scores = score_proba(np.array([[0.0, 1.0]]), ("a", "b"), ["a"], intervals=True)
    assert all(np.isfinite([e.value, e.low, e.high]).all() for e in scores.values.values())


@pytest.mark.parametrize(
    ("proba", "targets", "message"),
    [
        (np.ones((2, 3)) / 3, ["a"], "proba has shape"),
        (np.ones((0, 3)), [], "targets is empty"),
        (np.full((1, 3), np.nan), ["a"], "not probabilities"),
        (np.array([[3.0, -1.0, -1.0]]), ["a"], "not probabilities"),
    ],
)
def test_what_is_no_probability_is_refused(proba, targets, message):
    with pytest.raises(ValueError, match=message):
        score_proba(proba, LABELS, targets)


def test_other_tasks_and_empty_data_are_refused():
    corpus = Corpus.from_rows([{"text": "a", "target": "a"}])
    with pytest.raises(
        ConfigError,
        match=r"needs a predictor with write; this one .Fixed. lacks write: it is for task 'classification'",
    ):
        evaluate_model(Fixed(), Corpus(corpus.table, "generation"))
    with pytest.raises(InputError, match="no rows to evaluate"):
        evaluate_model(Fixed(), corpus.take([]))
