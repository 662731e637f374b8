"""Multinomial logistic regression on vectors: label agreement, checkers, the cheap trainer.

Fitted to its optimum: L-BFGS until no step could lower the loss by a ten-millionth a row. It draws nothing, so equal
arguments give equal bits, and a training has no draws. numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import TrainingError
from cuvee.fingerprint import derive_rng
from cuvee.records import Floats, Vectors
from cuvee.similarity import single_blas_thread

DEFAULT_L2 = 1.0  # strength of the penalty of a trainer: scikit-learn's ``C = 1``
# Strength where probabilities count and not accuracy alone, as for checkers of labels. With few rows of many labels
# those of ``DEFAULT_L2`` are almost the same for all labels (docs/decisions.md).
CHECKING_L2 = 0.1
CHOICES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)  # strengths that :func:`choose_l2` tries
_CHOICE_ROWS = 100, 1_000  # with fewer it is luck, and more are not needed
_SLACK = 0.5  # standard errors
_TOLERANCE = 1e-7  # of the loss a row that one more step could gain
_GRADIENTS = 2_000
_UNSEEN = 1e-3  # probability of a label without rows, to those of all others together
_MEMORY = 10  # steps that L-BFGS remembers
_CURVATURE = 0.9  # a step is taken once it has this much less slope in its direction


@dataclass(frozen=True, slots=True)
class ProbeModel:
    """A trained probe: ``softmax(vectors @ weights + bias)``.

    ``weights`` has shape (d, k) and ``bias`` shape (k,), float32, columns in the order of ``labels``.
    """

    labels: tuple[str, ...]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    @single_blas_thread()
    def log_proba(self, vectors: Vectors) -> NDArray[np.float64]:
        """Log probability of each label, shape (n, k).

        Raises:
            ValueError: ``vectors`` has another width than the probe was trained on.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.weights.shape[0]:
            raise ValueError(f"vectors has shape {vectors.shape!r}; the probe takes (n, {self.weights.shape[0]})")
        logits = (vectors @ self.weights + self.bias).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True, initial=-np.inf)
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))

    def proba(self, vectors: Vectors) -> NDArray[np.float64]:
        """Probability of each label, shape (n, k); rows sum to 1."""
        return np.asarray(np.exp(self.log_proba(vectors)))

    def predict(self, vectors: Vectors) -> list[str]:
        """The most probable label of each row; ties go to the earlier label."""
        return [self.labels[i] for i in self.log_proba(vectors).argmax(axis=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of training.

    Args:
        rows: places among the kept rows that batches are drawn from.
        share: of all steps; the shares of all phases sum to 1.
        pull: strength of the pull back to where the phase began: the term pull / 2 * |theta - theta_0|^2.
    """

    rows: NDArray[np.int64]
    share: float = 1.0
    pull: float = 0.0


class Objective(Protocol):
    """A loss that is, for each row, a function of the log probability of the row's target."""

    @property
    def weights(self) -> Floats:
        """Static weight of each row, above 0: what a penalty is measured against; their mean need not be 1."""

    @property
    def phases(self) -> Sequence[Phase]:
        """In the order they are run; one by default, of all rows."""

    def slopes(self, rows: NDArray[np.int64], log_p: Floats) -> Floats:
        """Derivative of each row's loss by its log p, shape (b,): -1 is plain cross-entropy.

        Static weights (relative to their mean over the phase's rows), detached weights and normalisation are
        inside: a batch's gradient is the *mean* over the batch of slope times grad log p.

        Args:
            rows: places among the rows, shape (b,).
            log_p: log probability of each row's target, shape (b,).
        """


class WeightedRows:
    """A loss of weighted rows: cross-entropy, or what ``slope`` and ``value`` make of log p.

    A row of weight 2 is a row that stands twice: weights are divided by their mean over the phase's rows, so only
    their ratios matter, and they mean the same in every batch. Rows of zero weight are dropped.

    Args:
        weights: of all rows, shape (n,), finite and not negative.
        phases: of the kept rows; by default one phase of them all.
        slope, value: derivative by log p and loss of each row, shape (b,) -> (b,).
        source_weight: of the synthetic rows, where the loss has chosen it.
    """

    def __init__(
        self, weights: Floats, phases: Sequence[Phase] | None = None, *,
        slope: Callable[[Floats], Floats] = lambda log_p: np.full_like(log_p, -1.0),
        value: Callable[[Floats], Floats] = np.negative, source_weight: float | None = None,
    ) -> None:  # fmt: skip
        self.kept: NDArray[np.bool_] = weights > 0
        self.weights: Floats = weights[self.kept]
        whole = Phase(rows=np.arange(len(self.weights)))
        self.phases: Sequence[Phase] = (whole,) if phases is None else tuple(phases)
        self.slope, self.value, self.source_weight = slope, value, source_weight
        self._relative: Floats = np.ones(len(self.weights))
        for phase in self.phases:
            part = self.weights[phase.rows]
            if len(part):
                self._relative[phase.rows] = part / part.mean()

    def relative(self, rows: NDArray[np.int64], log_p: Floats) -> Floats:
        """Weight of each row of a batch, relative to the mean, shape (b,); ``log_p`` may move it."""
        del log_p  # static here
        return np.asarray(self._relative[rows])

    def slopes(self, rows: NDArray[np.int64], log_p: Floats) -> Floats:
        """Relative weight times the loss's own slope, shape (b,)."""
        return np.asarray(self.relative(rows, log_p) * self.slope(log_p))

    def values(self, rows: NDArray[np.int64], log_p: Floats) -> Floats:
        """Relative weight times the loss's own value, shape (b,)."""
        return np.asarray(self.relative(rows, log_p) * self.value(log_p))


def fit_probe(
    vectors: Vectors,
    targets: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    row_weights: NDArray[np.floating] | None = None,
    l2: float = CHECKING_L2,
) -> ProbeModel:
    """Fit a probe to the optimum of its loss.

    The loss is the sum of the rows' weighted cross-entropies plus ``l2 / 2`` times the squared norm of the weights
    (the bias is free): scikit-learn's ``LogisticRegression(C=1 / l2)``. Rows of zero weight are dropped and change
    nothing.

    Args:
        vectors: shape (n, d), finite, rows of length 1.
        targets: n labels.
        labels: columns of the model, in order; by default the sorted distinct targets. A label without rows has a
            probability of about a thousandth, since at the optimum it would have none at all.
        row_weights: shape (n,), finite and not negative; None weighs all rows 1.
        l2: strength of the penalty, above 0.

    Raises:
        TrainingError: no rows, one label only, or a vector that is not finite.
        ValueError: a weight that is negative or not finite, or a target that is not among ``labels``.
    """
    names, codes = encode_targets(targets, labels)
    data, weights = _check_rows(vectors, codes, row_weights)
    loss = WeightedRows(weights)
    return _Fit(data[loss.kept], codes[loss.kept], names, loss, l2).run()


def fit_objective(
    vectors: Vectors, targets: Sequence[str], objective: Objective, *, l2: float = CHECKING_L2
) -> ProbeModel:
    """As :func:`fit_probe`, for any loss that is a function of each row's log probability.

    Each phase is fitted to its optimum from where the one before it ended. A loss that is not cross-entropy may have
    several optima: the one is taken that L-BFGS reaches from the optimum of cross-entropy.

    Args:
        vectors, targets: n rows, all of which count.
        objective: slopes of the loss, weights and phases of those rows.
        l2: strength of the penalty, above 0.

    Raises:
        TrainingError: no rows, one label only, a vector that is not finite, or a loss whose optimum is not found.
        ValueError: a weight that is negative or not finite.
    """
    names, codes = encode_targets(targets, None)
    data, _ = _check_rows(vectors, codes, objective.weights)
    return _Fit(data, codes, names, objective, l2).run()


def encode_targets(targets: Sequence[str], labels: Sequence[str] | None) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The labels (by default sorted) and each target's place among them.

    Raises:
        ValueError: a target that is not among them.
    """
    names = tuple(sorted(set(targets)) if labels is None else labels)
    position = {name: i for i, name in enumerate(names)}
    unknown = next((t for t in targets if t not in position), None)
    if unknown is not None:
        raise ValueError(f"targets has {unknown!r}, which is not among labels {names!r}")
    return names, np.array([position[t] for t in targets], dtype=np.int64)


def cross_validated_proba(
    vectors: Vectors,
    targets: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    folds: int = 5,
    seed: int = 0,
    l2: float = CHECKING_L2,
) -> NDArray[np.float64]:
    """Probabilities of each row from a probe that never saw it, shape (n, k).

    Folds are stratified by label; rows of one group stay in one fold. With fewer groups than ``folds`` there
    are as many folds as groups. Columns are in the order of ``labels``, by default sorted. ``seed`` deals the folds.

    Raises:
        TrainingError: no rows, or some fold leaves rows of one label only to train on.
    """
    names, codes = encode_targets(targets, labels)
    if len(codes) == 0:
        raise TrainingError("cross-validation has no rows; give it rows of at least two labels")
    fold_of = stratified_folds(codes, groups, folds, seed)
    out = np.zeros((len(codes), len(names)), dtype=np.float64)
    listed = list(targets)
    for fold in np.unique(fold_of):
        held = fold_of == fold
        train = np.flatnonzero(~held)
        present = np.bincount(codes[train], minlength=len(names))
        # a label weighs what it does in all rows: else a row's own label would be the one that is short of it
        weights = (np.bincount(codes, minlength=len(names)) / np.maximum(present, 1))[codes[train]]
        model = fit_probe(vectors[train], [listed[i] for i in train], labels=names, row_weights=weights, l2=l2)
        out[held] = model.proba(vectors[held])
    return out


def choose_l2(vectors: Vectors, targets: Sequence[str], groups: Sequence[str] | None = None) -> float:
    """The strength of the penalty for these rows, by cross-validated accuracy.

    Of ``CHOICES`` those count whose accuracy is within half a standard error (of the paired difference) of the best,
    and of them the one nearest to ``DEFAULT_L2`` is taken. Fewer than 100 rows cannot tell, and leave it there.

    Args:
        vectors: shape (n, d), finite, rows of length 1; of more than 1,000 rows, 1,000 are looked at.
        targets: n labels.
        groups: rows of one group are held out together.
    """
    least, most = _CHOICE_ROWS
    rows = np.arange(len(targets))
    if len(rows) < least:
        return DEFAULT_L2
    if len(rows) > most:
        rows = np.sort(derive_rng(0, "choose-l2").choice(len(rows), most, replace=False))
    own = [targets[int(i)] for i in rows]
    names, codes = encode_targets(own, None)
    grouped = None if groups is None else [groups[int(i)] for i in rows]
    try:
        right = np.array(
            [
                cross_validated_proba(vectors[rows], own, labels=names, groups=grouped, l2=l2).argmax(axis=1) == codes
                for l2 in CHOICES
            ],
            dtype=np.float64,
        )
    except TrainingError:  # a fold leaves rows of one label only
        return DEFAULT_L2
    lost = right[right.mean(axis=1).argmax()] - right
    error = lost.std(axis=1, ddof=1) / np.sqrt(len(rows))
    likely = [l2 for l2, mean, slack in zip(CHOICES, lost.mean(axis=1), error, strict=True) if mean <= _SLACK * slack]
    return min(likely, key=lambda l2: abs(np.log(l2 / DEFAULT_L2)))


def stratified_folds(
    codes: NDArray[np.int64], groups: Sequence[str] | None, folds: int, seed: int
) -> NDArray[np.int64]:
    """Fold of each row, shape (n,): groups are dealt in turn, shuffled, label (of a group's first row) after label.

    With fewer groups than ``folds`` there are as many folds as groups.
    """
    names = list(groups) if groups is not None else [str(i) for i in range(len(codes))]
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        first.setdefault(name, row)
    heads = np.array(list(first.values()))
    shuffled = heads[derive_rng(seed, "folds").permutation(len(heads))]
    dealt = shuffled[np.argsort(codes[shuffled], kind="stable")]
    count = min(folds, len(heads))
    fold_of_group = {names[row]: position % count for position, row in enumerate(dealt)}
    return np.array([fold_of_group[name] for name in names], dtype=np.int64)


# --- parts ----------------------------------------------------------------------------------------
Weights = NDArray[np.float32]


def _check_rows(
    vectors: Vectors, codes: NDArray[np.int64], row_weights: NDArray[np.floating] | None
) -> tuple[Vectors, NDArray[np.float64]]:
    data = np.ascontiguousarray(vectors, dtype=np.float32)
    weights = np.ones(len(codes)) if row_weights is None else np.asarray(row_weights, dtype=np.float64)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("row_weights has negative or non-finite values; weights must be finite and at least 0")
    return data, weights


class _Fit:
    """Rows, a loss and a penalty, from which weights are learnt.

    Raises:
        TrainingError: no rows, one label only, or a vector that is not finite.
        ValueError: a penalty that is not above 0.
    """

    def __init__(
        self, data: Vectors, codes: NDArray[np.int64], names: tuple[str, ...], objective: Objective, l2: float
    ) -> None:
        if not (np.isfinite(l2) and l2 > 0):
            raise ValueError(f"l2 is {l2!r}; it must be a finite number above 0")
        if len(data) == 0:
            raise TrainingError("the probe has no rows to train on; give it at least two labels' rows")
        self._seen, self._codes = np.unique(codes, return_inverse=True)
        if len(self._seen) < 2:
            raise TrainingError(f"the probe has rows of one label only ({names[codes[0]]!r}); it needs at least two")
        if not np.isfinite(data).all():
            row = int(np.flatnonzero(~np.isfinite(data).all(axis=1))[0])
            raise TrainingError(f"vector of training row {row} is not finite; check the encoder and that row's text")
        self._data, self._names, self._objective, self._l2 = data, names, objective, l2

    @single_blas_thread()
    def run(self) -> ProbeModel:
        """The model at the optimum of the last phase."""
        rows, directions = self._data, None
        if 5 * rows.shape[0] <= 3 * rows.shape[1]:  # with more rows than this it costs more than it saves
            # the optimum lies in the span of the rows: fewer numbers to find, and the penalty stays what it is
            directions, mixed = np.linalg.qr(rows.T.astype(np.float64))
            rows = mixed.T.astype(np.float32)
        rows = np.hstack([rows, np.ones((len(rows), 1), dtype=np.float32)])
        found = np.zeros((rows.shape[1], len(self._seen)), dtype=np.float32)
        for phase in self._objective.phases:
            found = self._run_phase(rows, found, phase)
        logits = rows @ found
        top = logits.max(axis=1)
        total = float(np.mean(top + np.log(np.exp(logits - top[:, None]).sum(axis=1))))
        weights = found[:-1] if directions is None else (directions @ found[:-1]).astype(np.float32)
        full = np.zeros((weights.shape[0], len(self._names)), dtype=np.float32)
        bias = np.full(len(self._names), total + np.log(_UNSEEN), dtype=np.float32)
        full[:, self._seen], bias[self._seen] = weights, found[-1]
        return ProbeModel(self._names, full, bias)

    def _run_phase(self, rows: Vectors, start: Weights, phase: Phase) -> Weights:
        """The optimum of a phase: of cross-entropy first, where other losses start."""
        objective, chosen = self._objective, phase.rows
        part, codes, labels = rows[chosen], self._codes[chosen], len(self._seen)
        static = objective.weights[chosen]
        total, inside = float(static.sum()), np.arange(len(chosen))
        penalty = np.full((rows.shape[1], 1), self._l2, dtype=np.float32)
        penalty[-1] = 0.0
        pull = np.float32(min(phase.pull * total, 1e30))

        def slope_of(loss: Objective, places: NDArray[np.int64]) -> Callable[[Weights], Weights]:
            def gradient(weights: Weights) -> Weights:
                residual, log_p = _residual(part, codes, weights, inside)
                scale = -loss.slopes(places, log_p) * (total / len(places))
                residual *= scale.astype(np.float32)[:, None]
                out: Weights = part.T @ residual + penalty * weights
                return out + pull * (weights - start) if pull > 0 else out

            return gradient

        # the Hessian where all labels are as probable: what steps are measured by
        hessian = ((part * static.astype(np.float32)[:, None]).T @ part).astype(np.float64) / labels
        hessian[np.diag_indices_from(hessian)] += penalty[:, 0].astype(np.float64) + float(pull)
        inverse = np.linalg.inv(hessian).astype(np.float32)
        least = _TOLERANCE * total
        found = _descend(slope_of(WeightedRows(static), inside), start, inverse, least)
        return _descend(slope_of(objective, chosen), found, inverse, least)


def _residual(
    part: Vectors, codes: NDArray[np.int64], weights: Weights, inside: NDArray[np.int64]
) -> tuple[Vectors, NDArray[np.float64]]:
    """Softmax minus one-hot, shape (b, k), and the log probability of each label, shape (b,)."""
    residual = part @ weights
    residual -= residual.max(axis=1, keepdims=True)
    own = residual[inside, codes].astype(np.float64)
    np.exp(residual, out=residual)
    total = residual.sum(axis=1, keepdims=True)
    residual /= total
    residual[inside, codes] -= 1.0
    return residual, own - np.log(total[:, 0].astype(np.float64))


def _descend(gradient: Callable[[Weights], Weights], start: Weights, inverse: Weights, least: float) -> Weights:
    """Where the gradient vanishes, by L-BFGS (Nocedal and Wright 2006, algorithm 7.4) from ``start``.

    It looks at gradients alone, so a loss whose weights follow the model, and which is therefore no function that
    could be evaluated, is solved like any other.

    Args:
        gradient: of weights, shape (d, k).
        start: of the descent, shape (d, k).
        inverse: of the Hessian near the start, shape (d, d), the same for all labels.
        least: what one more step would gain where the descent ends, in the units of the loss.

    Raises:
        TrainingError: the end is not reached.
    """
    weights, slope = start, gradient(start)
    history: list[tuple[Weights, Weights, np.float32]] = []
    size, calls = np.float32(1.0), 1
    while calls < _GRADIENTS:
        step = slope.copy()
        parts = []
        for moved, changed, scale in reversed(history):
            part = scale * np.vdot(moved, step)
            parts.append(part)
            step -= part * changed
        step = size * (inverse @ step)
        for (moved, changed, scale), part in zip(history, reversed(parts), strict=True):
            step += (part - scale * np.vdot(changed, step)) * moved
        gain = float(np.vdot(slope, step))
        if not np.isfinite(gain):
            raise TrainingError("the slopes of the probe's loss are not finite; take another loss, or raise l2")
        if not gain > 2.0 * least:  # the model of the loss has its minimum gain / 2 lower
            return weights
        length, low, high = 1.0, 0.0, np.inf
        while calls < _GRADIENTS:
            there = weights - np.float32(length) * step
            found = gradient(there)
            calls += 1
            along = float(np.vdot(found, step))
            if abs(along) <= _CURVATURE * gain:
                break
            low, high = (length, high) if along > 0 else (low, length)
            length = 2.0 * length if np.isinf(high) else (low + high) / 2.0
        moved, changed = there - weights, found - slope
        curvature = float(np.vdot(moved, changed))
        if curvature > 0:
            history = [*history[1 - _MEMORY :], (moved, changed, np.float32(1.0 / curvature))]
            size = np.float32(curvature / float(np.vdot(changed, inverse @ changed)))
        weights, slope = there, found
    raise TrainingError(f"no optimum of the probe's loss in {_GRADIENTS:,} gradients; raise l2, or take another loss")
