"""A classifier label by label: precision, recall, F1, and which labels it takes for which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cuvee.evaluate.classification import ClassifiedItems
from cuvee.evaluate.judged import RESAMPLES, Codes, Floats, percentiles, wilson_interval
from cuvee.fingerprint import derive_rng
from cuvee.records import Estimate


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
