"""Scores of a classifier, over all rows and label by label.

Every score is a function of weighted rows, so one pass gives its bootstrap too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.evaluate.judged import (
    RESAMPLES,
    Codes,
    Floats,
    WeightedScore,
    code_groups,
    percentiles,
    score_items,
    weighted_mean,
    wilson_interval,
)
from cuvee.fingerprint import derive_rng
from cuvee.records import Estimate, Scores

_BINS = 15  # of the calibration error


@runtime_checkable
class Classifier(Protocol):
    """A predictor of labels."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels it knows, in the order of its probabilities."""

    def predict_proba(self, texts: Sequence[str]) -> Floats:
        """Probability of each label, shape (n, k)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Probabilities and truth of ``n`` items.

    ``proba`` has shape (n, k); ``predicted`` and ``truth`` shape (n,). Labels the predictor does not know
    have codes from k upwards in ``truth``: nothing predicts them, and their probability is 0.
    """

    proba: Floats
    predicted: NDArray[np.int64]
    truth: NDArray[np.int64]

    def true_proba(self) -> Floats:
        """Probability given to the true label, shape (n,)."""
        padded = np.concatenate([self.proba, np.zeros((len(self.truth), 1))], axis=1)
        known = np.minimum(self.truth, self.proba.shape[1])
        out: Floats = padded[np.arange(len(self.truth)), known]
        return out


class Score(Protocol):
    """One number for each row of ``weights`` (shape (b, n), how often an item counts), shape (b,)."""

    def __call__(self, outcome: Outcome, weights: Floats) -> Floats:
        """The score under each row of weights."""


def accuracy(outcome: Outcome, weights: Floats) -> Floats:
    """Fraction of items whose most probable label is the true one."""
    return weighted_mean(outcome.predicted == outcome.truth, weights)


def macro_f1(outcome: Outcome, weights: Floats) -> Floats:
    """Mean F1 over the labels that occur as truth or prediction (in each row of weights)."""
    codes = np.union1d(outcome.truth, outcome.predicted)
    true = (outcome.truth[:, None] == codes).astype(np.float64)
    said = (outcome.predicted[:, None] == codes).astype(np.float64)
    size = weights @ (true + said)
    seen = size > 0
    f1 = np.divide(2 * (weights @ (true * said)), size, out=np.zeros_like(size), where=seen)
    out: Floats = f1.sum(axis=1) / seen.sum(axis=1)
    return out


def log_loss(outcome: Outcome, weights: Floats) -> Floats:
    """Mean negative log probability of the true label, in nats; probabilities are clipped at 2.2e-16."""
    return weighted_mean(-np.log(np.clip(outcome.true_proba(), np.finfo(np.float64).eps, 1.0)), weights)


def brier(outcome: Outcome, weights: Floats) -> Floats:
    """Mean squared distance between the probabilities and the true label's unit vector, from 0 to 2.

    Brier, Monthly Weather Review 78 (1950), in its original form with all labels.
    """
    return weighted_mean((outcome.proba**2).sum(axis=1) - 2 * outcome.true_proba() + 1, weights)


def ece(outcome: Outcome, weights: Floats) -> Floats:
    """Expected calibration error of the most probable label, 15 bins of equal width (arXiv 1706.04599)."""
    confidence = outcome.proba.max(axis=1)
    bins = np.clip(np.ceil(confidence * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    gap = (outcome.predicted == outcome.truth) - confidence
    inside = bins[:, None] == np.arange(_BINS)
    out: Floats = np.abs(weights @ (inside * gap[:, None])).sum(axis=1) / weights.sum(axis=1)
    return out


SCORES: Mapping[str, Score] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "log_loss": log_loss,
    "brier": brier,
    "ece": ece,
}


@dataclass(frozen=True, kw_only=True)
class ClassifiedItems:
    """Probabilities of ``n`` items, and their true labels.

    Attributes:
        labels: k labels, the columns of ``proba``.
        proba: shape (n, k), rows summing to 1.
        predicted: column of the most probable label, shape (n,).
        targets: n true labels; those not among ``labels`` count as wrong.
        groups: which items belong together, shape (n,).
    """

    labels: tuple[str, ...]
    proba: Floats
    predicted: NDArray[np.int64]
    targets: tuple[str, ...]
    groups: Codes
    fractions: ClassVar[tuple[str, ...]] = ("accuracy",)
    unit_means: ClassVar[tuple[str, ...]] = fractions

    @classmethod
    def from_proba(
        cls, proba: Floats, labels: Sequence[str], targets: Sequence[str], groups: Sequence[str] | None
    ) -> ClassifiedItems:
        """Items whose most probable label is the prediction; the first one, where several are.

        Raises:
            ValueError: shapes that do not fit, no rows, or values that are not probabilities.
        """
        _check_proba(proba, labels, targets)
        predicted = proba.argmax(axis=1).astype(np.int64)
        codes = code_groups(groups, len(targets))
        return cls(labels=tuple(labels), proba=proba, predicted=predicted, targets=tuple(targets), groups=codes)

    @property
    def keys(self) -> tuple[str, ...]:
        """The true labels."""
        return self.targets

    @cached_property
    def outcome(self) -> Outcome:
        """Labels as numbers."""
        codes = {label: i for i, label in enumerate(self.labels)}
        truth = np.array([codes.setdefault(t, len(codes)) for t in self.targets], dtype=np.int64)
        return Outcome(proba=self.proba, predicted=self.predicted, truth=truth)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the most probable label is the true one, shape (n,)."""
        out: NDArray[np.bool_] = self.outcome.predicted == self.outcome.truth
        return out

    @property
    def per_item(self) -> Mapping[str, Floats]:
        """Accuracy: 1 where the label is right."""
        return {"accuracy": self.correct.astype(np.float64)}

    def weighted(self) -> Mapping[str, WeightedScore]:
        """Every score of the SCORES table."""
        return {name: partial(score, self.outcome) for name, score in SCORES.items()}

    def joined(self, other: ClassifiedItems) -> ClassifiedItems:
        """These items, then the other's; a label that one predictor does not know has probability 0 there."""
        labels = (*self.labels, *(label for label in other.labels if label not in self.labels))
        columns = np.array([labels.index(label) for label in other.labels], dtype=np.int64)
        proba = np.zeros((len(self.proba) + len(other.proba), len(labels)))
        proba[: len(self.proba), : len(self.labels)] = self.proba
        proba[len(self.proba) :, columns] = other.proba
        return ClassifiedItems(
            labels=labels,
            proba=proba,
            # not argmax again: with columns in another order, equal probabilities would give another label
            predicted=np.concatenate([self.predicted, columns[other.predicted]]),
            targets=self.targets + other.targets,
            groups=np.concatenate([self.groups, other.groups]),
        )


def classify_items(predictor: Classifier, corpus: Corpus) -> ClassifiedItems:
    """Judge ``predictor`` on every row of ``corpus``; rows of one named group belong together."""
    named = any(group is not None for group in corpus.table["group"].to_pylist())
    proba = np.asarray(predictor.predict_proba(corpus.texts), dtype=np.float64)
    return ClassifiedItems.from_proba(proba, predictor.labels, corpus.targets, corpus.groups if named else None)


def score_proba(
    proba: NDArray[np.floating],
    labels: Sequence[str],
    targets: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    intervals: bool = False,
    seed: int = 0,
) -> Scores:
    """Scores of probabilities that are already there.

    Accuracy has the Wilson interval, the others the percentile bootstrap; with groups, both draw whole groups. The
    intervals speak of the items alone, not of training or generation draws.

    Args:
        proba: shape (n, k), rows summing to 1.
        labels: k labels, the columns of ``proba``.
        targets: n true labels; those not among ``labels`` count as wrong.
        groups: n names of what items belong to, such as a document; by default every item stands alone.
        intervals: whether to compute intervals.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes that do not fit, no rows, or values that are not probabilities.
    """
    items = ClassifiedItems.from_proba(np.asarray(proba, dtype=np.float64), labels, targets, groups)
    return score_items(items, intervals=intervals, seed=seed)


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


def report_labels(items: ClassifiedItems, *, intervals: bool = True, seed: int = 0) -> ClassificationReport:
    """Precision, recall, F1 and confusions of every label, with 95% bootstrap intervals.

    Whole groups are drawn, as for the other scores. Where a number is not defined in a resample (a rare label was not
    drawn), its interval is over the resamples where it is. A number that is exactly 0 or 1 would have a bootstrap of
    no width; it has the Wilson interval of as many items as there are groups among its rows (F1 through the Jaccard
    index, f1 = 2 j / (1 + j), which is a fraction of rows).
    """
    known = set(items.labels)
    labels = (*items.labels, *dict.fromkeys(t for t in items.targets if t not in known))
    counted = _Counted(items, len(labels), RESAMPLES if intervals else 0, seed)
    scores = {
        label: LabelScores(
            support=int(counted.matrix[i].sum()),
            predicted=int(counted.matrix[:, i].sum()),
            precision=counted.estimate("precision", i, counted.said == i),
            recall=counted.estimate("recall", i, counted.true == i),
            f1=counted.estimate("f1", i, (counted.said == i) | (counted.true == i)),
        )
        for i, label in enumerate(labels)
    }
    confusions = []
    for cell in counted.wrong_cells():
        truth, said = divmod(int(counted.cells[cell]), len(labels))
        rate = counted.estimate("rate", cell, counted.true == truth)
        if rate is not None:  # always: the cell has rows, so its label has
            count = int(counted.matrix[truth, said])
            confusions.append(Confusion(truth=labels[truth], predicted=labels[said], count=count, rate=rate))
    return ClassificationReport(labels=labels, scores=scores, confusions=tuple(confusions), matrix=counted.matrix)


class _Counted:
    """Counts of the cells (true label, predicted label) that occur, in the sample and in its resamples."""

    def __init__(self, items: ClassifiedItems, k: int, resamples: int, seed: int) -> None:
        self.true, self.said, self._groups = items.outcome.truth, items.outcome.predicted, items.groups
        self.cells, cell_of = np.unique(self.true * k + self.said, return_inverse=True)
        self._truth, self._predicted = self.cells // k, self.cells % k
        self._count = np.bincount(cell_of, minlength=len(self.cells)).astype(np.float64)
        self.matrix = np.zeros((k, k), dtype=np.int64)
        self.matrix[self._truth, self._predicted] = self._count.astype(np.int64)
        self._values = self._fractions(self._count[None], k)
        drawn = _draw_cells(cell_of, len(self.cells), items.groups, resamples, seed)
        self._draws = self._fractions(drawn, k) if resamples else None

    def wrong_cells(self) -> list[int]:
        """Cells off the diagonal, the most frequent first."""
        wrong = np.flatnonzero(self._truth != self._predicted)
        return [int(cell) for cell in wrong[np.argsort(-self._count[wrong], kind="stable")]]

    def estimate(self, name: str, column: int, rows: NDArray[np.bool_]) -> Estimate | None:
        """The number, whose denominator is made of ``rows`` (n,); None where it is not defined."""
        value, n = float(self._values[name][0, column]), int(rows.sum())
        if np.isnan(value):
            return None
        if self._draws is None:
            return Estimate(value=value, n=n)
        if value in (0.0, 1.0):
            low, high = wilson_interval(value, len(np.unique(self._groups[rows])))
            if name == "f1":
                low, high = 2 * low / (1 + low), 2 * high / (1 + high)
            return Estimate(value=value, low=low, high=high, n=n, interval="wilson")
        drawn = self._draws[name][:, column]
        low, high = percentiles(drawn[~np.isnan(drawn)])
        return Estimate(value=value, low=low, high=high, n=n, interval=f"bootstrap, {RESAMPLES} resamples")

    def _fractions(self, counts: Floats, k: int) -> dict[str, Floats]:
        """From counts of cells, shape (b, cells): numbers of labels or cells, nan where not defined."""
        support, said, right = (np.zeros((len(counts), k)) for _ in range(3))
        np.add.at(support.T, self._truth, counts.T)
        np.add.at(said.T, self._predicted, counts.T)
        agreed = self._truth == self._predicted
        right[:, self._truth[agreed]] = counts[:, agreed]
        return {
            "precision": _divide(right, said),
            "recall": _divide(right, support),
            "f1": _divide(2 * right, said + support),
            "rate": _divide(counts, support[:, self._truth]),
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
