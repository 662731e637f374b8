"""A classifier label by label, against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from cuvee.evaluate import judge_proba, report_labels, score_items

LABELS = ("a", "b", "c")


def items(n=200, seed=0, groups=None):
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.full(3, 0.7), size=n)
    targets = [LABELS[rng.choice(3, p=0.7 * p + 0.1)] for p in proba]
    return proba, targets, judge_proba(proba, LABELS, targets, groups)


def said(*pairs, labels=LABELS, groups=None):
    """Items of given truth and prediction."""
    proba = np.array([[float(label == guess) for label in labels] for _, guess in pairs])
    return judge_proba(proba, labels, [truth for truth, _ in pairs], groups)


def test_numbers_are_those_of_scikit_learn():
    proba, targets, judged = items()
    predicted = [LABELS[i] for i in proba.argmax(axis=1)]
    precision, recall, f1, support = metrics.precision_recall_fscore_support(targets, predicted, labels=LABELS)
    report = report_labels(judged)
    assert report.matrix.tolist() == metrics.confusion_matrix(targets, predicted, labels=LABELS).tolist()
    for i, (label, found) in enumerate(report.scores.items()):
        assert (label, found.support) == (LABELS[i], support[i])
        assert [found.precision.value, found.recall.value, found.f1.value] == pytest.approx(
            [precision[i], recall[i], f1[i]]
        )
        for estimate in (found.precision, found.recall, found.f1):
            assert 0 <= estimate.low < estimate.value < estimate.high <= 1
        assert (found.precision.n, found.recall.n) == (found.predicted, found.support)
    counts = [c.count for c in report.confusions]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == (np.array(predicted) != np.array(targets)).sum()
    for c in report.confusions:
        assert c.rate.value == pytest.approx(c.count / report.scores[c.truth].support)
        assert c.rate.low < c.rate.value < c.rate.high


def test_a_label_without_rows_or_predictions_has_no_number_where_none_is_defined():
    report = report_labels(said(("a", "a"), ("a", "b"), ("new", "a")))
    assert report.labels == ("a", "b", "c", "new")
    idle, wrong, new = report.scores["c"], report.scores["b"], report.scores["new"]
    assert (idle.support, idle.predicted, idle.precision, idle.recall, idle.f1) == (0, 0, None, None, None)
    assert wrong.recall is None and (wrong.precision.value, wrong.f1.value) == (0, 0)
    assert new.precision is None and (new.recall.value, new.f1.value, new.support) == (0, 0, 1)
    assert report.matrix.sum() == 3 and report.matrix[3, 0] == 1


def test_a_perfect_label_has_an_interval_of_some_width():
    found = report_labels(said(*[("a", "a")] * 9, *[("b", "b")] * 40)).scores
    assert found["a"].recall.interval == "wilson"
    assert found["a"].recall.low == pytest.approx(0.7009, abs=1e-3)  # Wilson, 9 of 9
    assert found["a"].f1.low == pytest.approx(2 * 0.7009 / 1.7009, abs=1e-3)
    assert found["b"].recall.low > found["a"].recall.low
    grouped = report_labels(said(*[("a", "a")] * 9, groups=["x"] * 8 + ["y"])).scores["a"]
    assert grouped.recall.low < 0.4  # two groups say little


def test_intervals_are_wider_where_rows_belong_together():
    proba, targets, _ = items(n=240, seed=3)
    copies = [i // 8 for i in range(240)]
    proba, targets = proba[np.array(copies) * 8], [targets[i * 8] for i in copies]
    alone = judge_proba(proba, LABELS, targets)
    grouped = judge_proba(proba, LABELS, targets, [str(i) for i in copies])
    narrow, wide = (report_labels(x).scores["a"].recall for x in (alone, grouped))
    assert narrow.value == wide.value and (wide.high - wide.low) > 2 * (narrow.high - narrow.low)
    free_values = score_items(alone, intervals=True, seed=0).values
    for name, estimate in score_items(grouped, intervals=True, seed=0).values.items():
        free = free_values[name]
        assert (estimate.high - estimate.low) > 1.8 * (free.high - free.low), name
