"""Two predictors on the same items, against exact tests."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test
from statsmodels.stats.contingency_tables import mcnemar

from cuvee.corpus import Corpus
from cuvee.errors import IncomparableError
from cuvee.evaluate import SCORES, compare_predictors, evaluate_model, judge_model, judge_proba
from cuvee.evaluate.judged import Judged, code_groups, mean_of, score_items

LABELS = ("a", "b", "c")


class Fixed:
    def __init__(self, proba, labels=LABELS):
        self.proba, self.labels = np.asarray(proba, dtype=float), tuple(labels)

    def predict_proba(self, texts):
        return self.proba[: len(texts)]


def rows(targets, groups=None):
    marks = groups or [None] * len(targets)
    return Corpus.from_rows(
        [{"text": f"t{i}", "target": t, "group": g} for i, (t, g) in enumerate(zip(targets, marks, strict=True))]
    )


def drawn(n, seed, sharpness=0.7):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, size=n)
    proba = 0.5 * rng.dirichlet(np.full(3, sharpness), size=n) + 0.5 * rng.dirichlet(np.ones(3), size=n)
    return proba, [LABELS[i] for i in truth]


def compare_items(first, second, groups=None):
    """Items of one number each, whose mean is the score."""
    keys, codes = tuple(map(str, range(len(first)))), code_groups(groups, len(first))
    sides = (
        Judged(
            keys=keys, groups=codes, correct=side > 0, columns={"mean": np.asarray(side, dtype=float)},
            scores={"mean": mean_of("mean")}, graded=("mean",),
        )
        for side in (first, second)
    )  # fmt: skip
    return compare_predictors(*sides).values["mean"]


def mcnemar_p(first, second):
    one, other = int((first & ~second).sum()), int((~first & second).sum())
    return mcnemar([[0, one], [other, 0]], exact=True).pvalue


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=10))
@settings(max_examples=25)
def test_few_items_give_the_exact_test_of_mcnemar(pairs):
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    assert compare_items(first, second).p_value == pytest.approx(min(1.0, mcnemar_p(first, second)))


def test_many_items_come_close_to_it():
    rng = np.random.default_rng(0)
    first, second = rng.random(300) < 0.75, rng.random(300) < 0.66
    found = compare_items(first, second)
    assert found.p_value == pytest.approx(mcnemar_p(first, second), abs=0.02)
    error = (first.astype(float) - second).std() / np.sqrt(300)
    assert (found.high - found.low) == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.value == pytest.approx(first.mean() - second.mean())


def test_graded_numbers_agree_with_scipy():
    rng = np.random.default_rng(1)
    first, second = rng.random(10), rng.random(10) * 0.8
    expected = permutation_test(
        (first, second), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert compare_items(first, second).p_value == pytest.approx(expected)


def test_every_score_is_compared_and_names_its_two_sides():
    (one, targets), (other, _) = drawn(120, 0), drawn(120, 1)
    corpus = rows(targets)
    first, second = judge_model(Fixed(one), corpus), judge_model(Fixed(other), corpus)
    found = compare_predictors(first, second)
    alone = [evaluate_model(Fixed(p), corpus, intervals=False).values for p in (one, other)]
    assert list(found.values) == list(SCORES) and (found.n, found.groups) == (120, 120)
    for name, estimate in found.values.items():
        assert estimate.settings["first"] == pytest.approx(alone[0][name].value)
        assert estimate.settings["second"] == pytest.approx(alone[1][name].value)
        assert estimate.low <= estimate.value <= estimate.high and 0 < estimate.p_value <= 1
    again = compare_predictors(second, first)
    assert [e.value for e in again.values.values()] == pytest.approx([-e.value for e in found.values.values()])
    assert [e.p_value for e in again.values.values()] == pytest.approx([e.p_value for e in found.values.values()])


def test_a_predictor_does_not_differ_from_itself_whatever_the_order_of_its_labels():
    proba, targets = drawn(60, 2)
    proba[:20] = [0.4, 0.4, 0.2]  # ties: the first label wins, which another order of columns would change
    corpus = rows(targets)
    first = judge_model(Fixed(proba), corpus)
    same = compare_predictors(first, judge_model(Fixed(proba), corpus)).values
    assert all((e.value, e.low, e.high) == pytest.approx((0, 0, 0), abs=1e-12) for e in same.values())
    assert all(e.p_value == 1 for e in same.values())
    wider = np.concatenate([np.zeros((60, 1)), proba[:, [2, 0, 1]]], axis=1)
    other = compare_predictors(first, judge_model(Fixed(wider, "xcab"), corpus)).values
    assert {name: round(e.value, 12) for name, e in other.items()} == dict.fromkeys(SCORES, 0)


def test_scores_say_which_items_belong_together_where_some_do():
    proba, labels, truth = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), ("a", "b"), ("a", "b", "b")
    alone = score_items(judge_proba(proba, labels, truth), intervals=False, seed=0)
    pairs = score_items(judge_proba(proba, labels, truth, ("x", "y", "x")), intervals=False, seed=0)
    assert alone.groups is None and pairs.groups.tolist() == [0, 1, 0]


def test_groups_are_drawn_and_swapped_whole():
    rng = np.random.default_rng(3)
    first, second = np.repeat(rng.random(40) < 0.7, 10), np.repeat(rng.random(40) < 0.6, 10)
    groups = [str(i // 10) for i in range(400)]
    apart, together = compare_items(first, second), compare_items(first, second, groups=groups)
    assert apart.value == together.value
    assert (together.high - together.low) > 2.5 * (apart.high - apart.low)  # sqrt(10), were it exact
    assert together.p_value > 20 * apart.p_value
    assert together.settings["groups"] == 40


def test_the_test_keeps_its_level():
    rng = np.random.default_rng(4)
    p_values = [compare_items(rng.random(10) < 0.7, rng.random(10) < 0.7).p_value for _ in range(80)]
    assert np.mean(np.array(p_values) <= 0.05) <= 0.09


def test_what_does_not_pair_is_refused():
    proba, targets = drawn(20, 5)
    first = judge_model(Fixed(proba), rows(targets))
    with pytest.raises(IncomparableError, match="same rows"):
        compare_predictors(first, judge_model(Fixed(proba), rows(targets[::-1])))
    with pytest.raises(ValueError, match="groups has 1 entries for 20 items"):
        judge_proba(proba, LABELS, targets, ["x"])
