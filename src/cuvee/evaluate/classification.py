"""Scores of a classifier, over all rows and label by label.

Every score is a function of weighted rows, so one pass gives its bootstrap too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.evaluate import judged as items
from cuvee.evaluate.judged import ITEM_SCORES, Columns, Judged, Score, mean_of
from cuvee.records import Classifier, Estimate, Floats
from cuvee.similarity import wilson_interval

_BINS = 15  # of the calibration error


def macro_f1(columns: Columns, weights: Floats) -> Floats:
    """Mean F1 over the labels that occur as truth or prediction (in each row of weights)."""
    n = weights.shape[1]
    _, codes = np.unique(np.concatenate([columns["truth"], columns["predicted"]]), return_inverse=True)
    each = np.arange(codes.max() + 1)
    true = (codes[:n, None] == each).astype(np.float64)
    said = (codes[n:, None] == each).astype(np.float64)
    size = weights @ (true + said)
    seen = size > 0
    f1 = np.divide(2 * (weights @ (true * said)), size, out=np.zeros_like(size), where=seen)
    return np.asarray(f1.sum(axis=1) / seen.sum(axis=1))


def ece(columns: Columns, weights: Floats) -> Floats:
    """Expected calibration error of the most probable label, 15 bins of equal width (arXiv 1706.04599)."""
    confidence = columns["confidence"]
    bins = np.clip(np.ceil(confidence * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    inside = bins[:, None] == np.arange(_BINS)
    gap = columns["accuracy"] - confidence
    return np.asarray(np.abs(weights @ (inside * gap[:, None])).sum(axis=1) / weights.sum(axis=1))


SCORES: Mapping[str, Score] = {
    "accuracy": mean_of("accuracy"),
    "macro_f1": macro_f1,
    "log_loss": mean_of("log_loss"),
    "brier": mean_of("brier"),
    "ece": ece,
}


def judge_classifier(predictor: Classifier, corpus: Corpus) -> Judged:
    """Judge ``predictor`` on every row of ``corpus``; rows of one named group belong together."""
    named = any(group is not None for group in corpus.table["group"].to_pylist())
    proba = np.asarray(predictor.predict_proba(corpus.texts), dtype=np.float64)
    return judge_proba(proba, predictor.labels, corpus.targets, corpus.groups if named else None)


def judge_proba(
    proba: Floats, labels: Sequence[str], targets: Sequence[str], groups: Sequence[str] | None = None
) -> Judged:
    """Items whose most probable label is the prediction; the first one, where several are.

    The log loss is the negative log probability of the true label, in nats, clipped at 2.2e-16. The Brier score
    (Monthly Weather Review 78, 1950, in its original form with all labels) is the squared distance between the
    probabilities and the true label's unit vector, from 0 to 2. Where every probability is 0 or 1, as of predictors
    that give labels alone, the scores of probabilities (these two and the calibration error) are left out.

    Args:
        proba: shape (n, k), rows summing to 1.
        labels: k labels, the columns of ``proba``.
        targets: n true labels; those not among ``labels`` have probability 0, and count as wrong.
        groups: n names of what items belong to, such as a document; by default every item stands alone.

    Raises:
        ValueError: shapes that do not fit, no rows, or values that are not probabilities.
    """
    _check_proba(proba, labels, targets)
    truth, predicted = (np.array(each, dtype=object) for each in (targets, [labels[i] for i in proba.argmax(axis=1)]))
    column = {label: i for i, label in enumerate(labels)}
    padded = np.concatenate([proba, np.zeros((len(targets), 1))], axis=1)  # of a label that is not known
    likely = padded[np.arange(len(targets)), [column.get(target, len(labels)) for target in targets]]
    correct, is_graded = truth == predicted, bool(((proba > 0) & (proba < 1)).any())
    return Judged(
        keys=tuple(targets),
        groups=items.code_groups(groups, len(targets)),
        correct=correct,
        columns={
            "truth": truth,
            "predicted": predicted,
            "accuracy": correct.astype(np.float64),
            "confidence": proba.max(axis=1),
            "log_loss": -np.log(np.clip(likely, np.finfo(np.float64).eps, 1.0)),
            "brier": (proba**2).sum(axis=1) - 2 * likely + 1,
        },
        scores=SCORES if is_graded else {name: SCORES[name] for name in ("accuracy", "macro_f1")},
        graded=ITEM_SCORES["classification"],
        labels=tuple(labels),
    )


def _check_proba(proba: Floats, labels: Sequence[str], targets: Sequence[str]) -> None:
    if proba.ndim != 2 or proba.shape != (len(targets), len(labels)):
        raise ValueError(f"proba has shape {proba.shape!r}; it must be {(len(targets), len(labels))!r}")
    if not len(targets):
        raise ValueError("targets is empty; give at least one item")
    if not np.isfinite(proba).all() or proba.min() < 0 or np.abs(proba.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("proba has rows that are not probabilities; each must be finite, not negative and sum to 1")
    if len(set(labels)) != len(labels):
        raise ValueError(f"labels has repeats: {list(labels)!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScores:
    """One label. A number is None where it is not defined.

    Attributes:
        support: rows whose true label it is.
        predicted: rows for which it was predicted.
        precision: of the rows predicted so, the fraction that are; None if there are none.
        recall: of the rows that are so, the fraction predicted so; None if there are none.
        f1: twice the right ones over support and predicted; None if both are 0.
    """

    support: int
    predicted: int
    precision: Estimate | None
    recall: Estimate | None
    f1: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Rows of one label that were taken for another; ``rate`` is their fraction of all rows of the true label."""

    truth: str
    predicted: str
    count: int
    rate: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationReport:
    """Every label of a predictor or of the rows.

    Attributes:
        labels: the predictor's, then those it does not know.
        scores: of each label.
        confusions: every wrong pair that occurs, the most frequent first.
        matrix: rows of each true label (first axis) predicted as each label (second), shape (k, k).
    """

    labels: tuple[str, ...]
    scores: Mapping[str, LabelScores]
    confusions: tuple[Confusion, ...]
    matrix: NDArray[np.int64] = field(compare=False, repr=False)


def report_labels(judged: Judged) -> ClassificationReport:
    """Precision, recall, F1 and confusions of every label, with 95% intervals.

    Each is a fraction of rows, and has the Wilson interval of as many items as there are groups among its rows: F1
    through the Jaccard index, f1 = 2 j / (1 + j).
    """
    labels = tuple(dict.fromkeys([*judged.labels, *judged.keys]))
    code = {label: i for i, label in enumerate(labels)}
    true, said = (np.array([code[t] for t in judged.columns[name]], dtype=np.int64) for name in ("truth", "predicted"))
    matrix = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(matrix, (true, said), 1)

    def find_share(hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> Estimate | None:
        """The fraction of some rows that are hits; None where there are no such rows."""
        if not among.any():
            return None
        value = float(hits[among].mean())
        low, high = wilson_interval(value, len(np.unique(judged.groups[among])))
        return Estimate(value=value, low=low, high=high, n=int(among.sum()), interval="wilson")

    def find_f1(jaccard: Estimate | None) -> Estimate | None:
        if jaccard is None or jaccard.low is None or jaccard.high is None:
            return None
        value, low, high = (2 * j / (1 + j) for j in (jaccard.value, jaccard.low, jaccard.high))
        return replace(jaccard, value=value, low=low, high=high)

    right = true == said
    scores = {
        label: LabelScores(
            support=int((true == i).sum()),
            predicted=int((said == i).sum()),
            precision=find_share(right, said == i),
            recall=find_share(right, true == i),
            f1=find_f1(find_share(right, (true == i) | (said == i))),
        )
        for i, label in enumerate(labels)
    }
    wrong = [(t, p) for t, p in np.argwhere(matrix).tolist() if t != p]
    confusions = [
        Confusion(truth=labels[t], predicted=labels[p], count=int(matrix[t, p]), rate=rate)
        for t, p in sorted(wrong, key=lambda pair: -matrix[pair])
        if (rate := find_share(said == p, true == t)) is not None
    ]
    return ClassificationReport(labels=labels, scores=scores, confusions=tuple(confusions), matrix=matrix)
