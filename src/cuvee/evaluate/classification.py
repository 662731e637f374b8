"""Scores of a classifier, over all rows and label by label.

Every score is a function of weighted rows, so one pass gives its bootstrap too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.evaluate import judged as items
from cuvee.evaluate.judged import ITEM_SCORES, RESAMPLES, Codes, Columns, Floats, Judged, Score, mean_of
from cuvee.fingerprint import derive_rng
from cuvee.records import Estimate
from cuvee.similarity import wilson_interval

_BINS = 15  # of the calibration error


@runtime_checkable
class Classifier(Protocol):
    """A predictor of labels."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels it knows, in the order of its probabilities."""

    def predict_proba(self, texts: Sequence[str]) -> Floats:
        """Probability of each label, shape (n, k)."""


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
    out: Floats = f1.sum(axis=1) / seen.sum(axis=1)
    return out


def ece(columns: Columns, weights: Floats) -> Floats:
    """Expected calibration error of the most probable label, 15 bins of equal width (arXiv 1706.04599)."""
    confidence = columns["confidence"]
    bins = np.clip(np.ceil(confidence * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    inside = bins[:, None] == np.arange(_BINS)
    gap = columns["accuracy"] - confidence
    out: Floats = np.abs(weights @ (inside * gap[:, None])).sum(axis=1) / weights.sum(axis=1)
    return out


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
    probabilities and the true label's unit vector, from 0 to 2.

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
    correct = truth == predicted
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
        scores=SCORES,
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


def report_labels(judged: Judged, *, intervals: bool = True, seed: int = 0) -> ClassificationReport:
    """Precision, recall, F1 and confusions of every label, with 95% bootstrap intervals.

    Whole groups are drawn, as for the other scores. Where a number is not defined in a resample (a rare label was not
    drawn), its interval is over the resamples where it is. A number that is exactly 0 or 1 would have a bootstrap of
    no width; it has the Wilson interval of as many items as there are groups among its rows (F1 through the Jaccard
    index, f1 = 2 j / (1 + j), which is a fraction of rows).
    """
    labels = tuple(dict.fromkeys([*judged.labels, *judged.keys]))
    k, code = len(labels), {label: i for i, label in enumerate(labels)}
    true, said = (np.array([code[t] for t in judged.columns[name]], dtype=np.int64) for name in ("truth", "predicted"))
    cells, cell_of = np.unique(true * k + said, return_inverse=True)
    truth, predicted = np.divmod(cells, k)
    count = np.bincount(cell_of, minlength=len(cells))
    drawn = _draw_cells(cell_of, len(cells), judged.groups, RESAMPLES if intervals else 0, seed)
    # the sample itself comes first, its resamples after it
    found = _divide_cells(np.concatenate([count[None], drawn]), truth, predicted, k)

    def estimate(name: str, column: int, rows: NDArray[np.bool_]) -> Estimate | None:
        """The number, whose denominator is made of ``rows`` (n,); None where it is not defined."""
        value, draws, n = float(found[name][0, column]), found[name][1:, column], int(rows.sum())
        if np.isnan(value):
            return None
        if not intervals:
            return Estimate(value=value, n=n)
        if value in (0.0, 1.0):
            low, high = wilson_interval(value, len(np.unique(judged.groups[rows])))
            if name == "f1":
                low, high = 2 * low / (1 + low), 2 * high / (1 + high)
            return Estimate(value=value, low=low, high=high, n=n, interval="wilson")
        low, high = items.percentiles(draws[~np.isnan(draws)])
        return Estimate(value=value, low=low, high=high, n=n, interval=f"bootstrap, {RESAMPLES} resamples")

    matrix = np.zeros((k, k), dtype=np.int64)
    matrix[truth, predicted] = count
    scores = {
        label: LabelScores(
            support=int(matrix[i].sum()),
            predicted=int(matrix[:, i].sum()),
            precision=estimate("precision", i, said == i),
            recall=estimate("recall", i, true == i),
            f1=estimate("f1", i, (said == i) | (true == i)),
        )
        for i, label in enumerate(labels)
    }
    confusions = [
        Confusion(truth=labels[truth[c]], predicted=labels[predicted[c]], count=int(count[c]), rate=rate)
        for c in np.argsort(-count, kind="stable").tolist()
        if truth[c] != predicted[c] and (rate := estimate("rate", c, true == truth[c])) is not None
    ]
    return ClassificationReport(labels=labels, scores=scores, confusions=tuple(confusions), matrix=matrix)


def _divide_cells(counts: Floats, truth: Codes, predicted: Codes, k: int) -> dict[str, Floats]:
    """From counts of cells, shape (b, cells): numbers of labels or cells, nan where not defined."""
    support, said, right = (np.zeros((len(counts), k)) for _ in range(3))
    np.add.at(support.T, truth, counts.T)
    np.add.at(said.T, predicted, counts.T)
    right[:, truth[truth == predicted]] = counts[:, truth == predicted]
    return {
        "precision": _divide(right, said),
        "recall": _divide(right, support),
        "f1": _divide(2 * right, said + support),
        "rate": _divide(counts, support[:, truth]),
    }


def _draw_cells(cell_of: Codes, cells: int, groups: Codes, resamples: int, seed: int) -> Floats:
    """Counts of cells in bootstrap resamples of whole groups, shape (resamples, cells)."""
    count = int(groups.max()) + 1
    rng = derive_rng(seed, "evaluate", "labels")
    out = np.zeros((resamples, cells))
    for i in range(resamples):
        drawn = np.bincount(rng.integers(0, count, size=count), minlength=count)
        out[i] = np.bincount(cell_of, weights=drawn[groups], minlength=cells)
    return out


def _divide(above: Floats, below: Floats) -> Floats:
    out: Floats = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
    return out
