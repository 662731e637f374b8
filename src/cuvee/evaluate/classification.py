"""Scores of a classifier. Every score is a function of weighted rows, so one pass gives its bootstrap too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, InputError
from cuvee.fingerprint import derive_rng
from cuvee.records import Estimate, Scores

RESAMPLES = 200
_BINS = 15  # of the calibration error
_Z = 1.959963984540054  # 97.5% point of the normal distribution
_BLOCK = 4_000_000  # bootstrap weights held at once
Floats = NDArray[np.float64]


class Classifier(Protocol):
    """What can be evaluated: a trained predictor."""

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
    return _mean(outcome.predicted == outcome.truth, weights)


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
    return _mean(-np.log(np.clip(outcome.true_proba(), np.finfo(np.float64).eps, 1.0)), weights)


def brier(outcome: Outcome, weights: Floats) -> Floats:
    """Mean squared distance between the probabilities and the true label's unit vector, from 0 to 2.

    Brier, Monthly Weather Review 78 (1950), in its original form with all labels.
    """
    return _mean((outcome.proba**2).sum(axis=1) - 2 * outcome.true_proba() + 1, weights)


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


def evaluate_model(predictor: Classifier, corpus: Corpus, *, seed: int = 0, intervals: bool = True) -> Scores:
    """Scores of ``predictor`` on ``corpus``, with 95% intervals.

    Rows whose label the predictor does not know count as wrong.

    Args:
        predictor: anything with ``labels`` and ``predict_proba``.
        corpus: held-out rows.
        seed: of the bootstrap.
        intervals: False leaves them out, for speed.

    Raises:
        ConfigError: the corpus is not for classification.
        InputError: the corpus has no rows.
    """
    if corpus.task != "classification":
        raise ConfigError(f"task {corpus.task!r} cannot be evaluated yet; only classification is built so far")
    if len(corpus) == 0:
        raise InputError("there are no rows to evaluate on; give held-out rows, for example a validation part")
    proba = predictor.predict_proba(corpus.texts)
    return score_proba(proba, predictor.labels, corpus.targets, intervals=intervals, seed=seed)


def score_proba(
    proba: NDArray[np.floating],
    labels: Sequence[str],
    targets: Sequence[str],
    *,
    intervals: bool = False,
    seed: int = 0,
) -> Scores:
    """Scores of probabilities that are already there.

    Accuracy has the Wilson interval, the others the percentile bootstrap over items (200 resamples). The
    intervals speak of the items alone, not of training or generation draws.

    Args:
        proba: shape (n, k), rows summing to 1.
        labels: k labels, the columns of ``proba``.
        targets: n true labels; those not among ``labels`` count as wrong.
        intervals: whether to compute intervals.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes that do not fit, no rows, or values that are not probabilities.
    """
    outcome = _code_outcome(np.asarray(proba, dtype=np.float64), labels, targets)
    n = len(targets)
    correct = outcome.predicted == outcome.truth
    once = np.ones((1, n))
    bounds = _bootstrap(outcome, seed) if intervals else {}
    values = {}
    for name, score in SCORES.items():
        value = float(score(outcome, once)[0])
        low, high = (wilson_interval(value, n) if name == "accuracy" else bounds[name]) if intervals else (None, None)
        method = "" if not intervals else "wilson" if name == "accuracy" else f"bootstrap of {RESAMPLES}"
        values[name] = Estimate(value=value, low=low, high=high, n=n, interval=method)
    return Scores(n=n, values=values, correct=correct)


def wilson_interval(fraction: float, n: int) -> tuple[float, float]:
    """95% interval of a fraction of ``n`` items (Wilson, JASA 22, 1927)."""
    middle = (fraction + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * float(np.sqrt(fraction * (1 - fraction) / n + _Z**2 / (4 * n**2)))
    return max(0.0, middle - half), min(1.0, middle + half)


def _bootstrap(outcome: Outcome, seed: int) -> dict[str, tuple[float, float]]:
    n = len(outcome.truth)
    rng = derive_rng(seed, "evaluate", "bootstrap")
    found: dict[str, list[Floats]] = {name: [] for name in SCORES if name != "accuracy"}
    rows = max(1, _BLOCK // n)
    for start in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - start)
        weights = rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
        for name, parts in found.items():
            parts.append(SCORES[name](outcome, weights))
    out = {}
    for name, parts in found.items():
        low, high = np.quantile(np.concatenate(parts), (0.025, 0.975))
        out[name] = (float(low), float(high))
    return out


def _code_outcome(proba: Floats, labels: Sequence[str], targets: Sequence[str]) -> Outcome:
    if proba.ndim != 2 or proba.shape != (len(targets), len(labels)):
        raise ValueError(f"proba has shape {proba.shape!r}; it must be {(len(targets), len(labels))!r}")
    if not len(targets):
        raise ValueError("targets is empty; give at least one item")
    if not np.isfinite(proba).all() or proba.min() < 0 or np.abs(proba.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("proba has rows that are not probabilities; each must be finite, not negative and sum to 1")
    codes = {label: i for i, label in enumerate(labels)}
    if len(codes) != len(labels):
        raise ValueError(f"labels has repeats: {list(labels)!r}")
    truth = np.array([codes.setdefault(t, len(codes)) for t in targets], dtype=np.int64)
    return Outcome(proba=proba, predicted=proba.argmax(axis=1).astype(np.int64), truth=truth)


def _mean(values: NDArray[np.float64] | NDArray[np.bool_], weights: Floats) -> Floats:
    out: Floats = (weights @ values) / weights.sum(axis=1)
    return out
