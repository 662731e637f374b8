"""Multinomial logistic regression on vectors: label agreement, checkers, the cheap trainer.

Trained by mini-batch gradient descent with Nesterov momentum for a *fixed number of steps*, so that "equal
optimiser steps" means the same thing here as for a fine-tuned model, and so that training draws differ by
their seed alone. numpy only; the same arguments give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import TrainingError
from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.records import Vectors
from cuvee.similarity import single_blas_thread

_MOMENTUM = 0.9
_WARM_UP = 0.1  # fraction of the steps over which the learning rate rises


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
        out: NDArray[np.float64] = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return out

    def proba(self, vectors: Vectors) -> NDArray[np.float64]:
        """Probability of each label, shape (n, k); rows sum to 1."""
        out: NDArray[np.float64] = np.exp(self.log_proba(vectors))
        return out

    def predict(self, vectors: Vectors) -> list[str]:
        """The most probable label of each row; ties go to the earlier label."""
        return [self.labels[i] for i in self.log_proba(vectors).argmax(axis=1)]


class Stage(Protocol):
    """A stretch of training: which rows, what share of the steps, how strong a pull to where it began."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows that batches are drawn from."""

    @property
    def share(self) -> float:
        """Of all steps."""

    @property
    def pull(self) -> float:
        """Strength of the proximal term: pull / 2 times the squared distance to where the stage began."""


class Objective(Protocol):
    """A loss that is, for each row, a function of the log probability of the row's label."""

    @property
    def weights(self) -> NDArray[np.float64]:
        """Static weight of each row, above 0: what the penalty is measured against."""

    @property
    def phases(self) -> Sequence[Stage]:
        """In the order they are run."""

    def slopes(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivative of each row's loss by its log probability, shape (b,): -1 is plain cross-entropy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Descent:
    """How a probe is trained.

    Attributes:
        steps, batch: optimiser steps and rows a step.
        learning_rate: its peak, meant for unit rows; it rises over the first tenth of the steps and falls to zero as
            a cosine.
        l2: strength of the penalty; None means ``0.1 / sum of weights`` (with weights of 1, scikit-learn's
            ``LogisticRegression(C=10)``).
        seed: of the initial weights and the order of rows.

    Raises:
        ValueError: fewer than one step or row.
    """

    steps: int = 300
    batch: int = 32
    learning_rate: float = 10.0
    l2: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ValueError(f"steps is {self.steps!r} and batch {self.batch!r}; both must be at least 1")


def fit_probe(
    vectors: Vectors,
    targets: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    row_weights: NDArray[np.floating] | None = None,
    steps: int = 300,
    batch: int = 32,
    l2: float | None = None,
    seed: int = 0,
) -> ProbeModel:
    """Train a probe for exactly ``steps`` optimiser steps.

    The loss is the weighted mean cross-entropy plus ``l2 / 2`` times the squared norm of the weights (the
    bias is free). Rows of zero weight are dropped before batching: they change nothing, not even the random
    stream. Each epoch is one permutation of the rows, and a batch may straddle two epochs, so that every
    batch has ``batch`` rows however few there are.

    Args:
        vectors: shape (n, d), finite, rows of length 1.
        targets: n labels.
        labels: columns of the model, in order; by default the sorted distinct targets.
        row_weights: shape (n,), finite and not negative; None weighs all rows the same.
        steps, batch, l2, seed: see :class:`Descent`.

    Raises:
        TrainingError: no rows, one label only, or a vector that is not finite.
        ValueError: arguments that do not fit together.
    """
    names, codes = encode_targets(targets, labels)
    data, weights = _check_rows(vectors, codes, row_weights)
    kept = weights > 0
    descent = Descent(steps=steps, batch=batch, l2=l2, seed=seed)
    return _Training(data[kept], codes[kept], names, _WeightedRows(weights[kept]), descent).run()


def fit_objective(vectors: Vectors, targets: Sequence[str], objective: Objective, descent: Descent) -> ProbeModel:
    """As :func:`fit_probe`, for any loss that is a function of each row's log probability.

    Args:
        vectors, targets: n rows, all of which count.
        objective: slopes of the loss, weights and phases of those rows. A phase gets its share of the steps, its
            own learning rate schedule, and momentum from rest; the default penalty goes by its weights.
        descent: steps and the like.

    Raises:
        TrainingError: no rows, one label only, or a vector that is not finite.
        ValueError: arguments that do not fit together.
    """
    names, codes = encode_targets(targets, None)
    data, _ = _check_rows(vectors, codes, objective.weights)
    return _Training(data, codes, names, objective, descent).run()


def encode_targets(targets: Sequence[str], labels: Sequence[str] | None) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The labels (by default sorted) and each target's place among them.

    Raises:
        ValueError: repeated labels, or a target that is not among them.
    """
    names = tuple(sorted(set(targets)) if labels is None else labels)
    position = {name: i for i, name in enumerate(names)}
    if len(position) != len(names):
        raise ValueError(f"labels has repeats: {names!r}")
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
    steps: int = 300,
) -> NDArray[np.float64]:
    """Probabilities of each row from a probe that never saw it, shape (n, k).

    Folds are stratified by label; rows of one group stay in one fold. With fewer groups than ``folds`` there
    are as many folds as groups. Columns are in the order of ``labels``, by default sorted.

    Raises:
        TrainingError: no rows, or some fold leaves rows of one label only to train on.
        ValueError: ``folds`` below 2.
    """
    if folds < 2:
        raise ValueError(f"folds is {folds!r}; cross-validation needs at least 2")
    names, codes = encode_targets(targets, labels)
    if len(codes) == 0:
        raise TrainingError("cross-validation has no rows; give it rows of at least two labels")
    fold_of = stratified_folds(codes, groups, folds, seed)
    out = np.zeros((len(codes), len(names)), dtype=np.float64)
    listed = list(targets)
    for fold in np.unique(fold_of):
        held = fold_of == fold
        train = np.flatnonzero(~held)
        model = fit_probe(
            vectors[train],
            [listed[i] for i in train],
            labels=names,
            steps=steps,
            seed=derive_seed(seed, "fold", int(fold)),
        )
        out[held] = model.proba(vectors[held])
    return out


def stratified_folds(
    codes: NDArray[np.int64], groups: Sequence[str] | None, folds: int, seed: int
) -> NDArray[np.int64]:
    """Fold of each row, shape (n,): groups are dealt in turn, shuffled, label (of a group's first row) after label.

    With fewer groups than ``folds`` there are as many folds as groups.

    Raises:
        ValueError: ``groups`` of another length than ``codes``.
    """
    if groups is not None and len(groups) != len(codes):
        raise ValueError(f"groups has {len(groups)} entries for {len(codes)} rows; give one each")
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
@dataclass(frozen=True, slots=True, kw_only=True)
class _AllRows:
    """The one stretch of plain training."""

    rows: NDArray[np.int64]
    share: float = 1.0
    pull: float = 0.0


class _WeightedRows:
    """Weighted cross-entropy."""

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.weights = weights
        self.phases: Sequence[Stage] = (_AllRows(rows=np.arange(len(weights))),)
        self._slopes: NDArray[np.float64] = -(weights / (weights.mean() if len(weights) else 1.0))

    def slopes(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        out: NDArray[np.float64] = self._slopes[rows].reshape(log_p.shape)
        return out


def _check_rows(
    vectors: Vectors, codes: NDArray[np.int64], row_weights: NDArray[np.floating] | None
) -> tuple[Vectors, NDArray[np.float64]]:
    data = np.ascontiguousarray(vectors, dtype=np.float32)
    if data.ndim != 2 or len(data) != len(codes):
        raise ValueError(f"vectors has shape {data.shape!r} but there are {len(codes)} targets; give one row each")
    weights = np.ones(len(codes)) if row_weights is None else np.asarray(row_weights, dtype=np.float64)
    if weights.shape != codes.shape:
        raise ValueError(f"row_weights has shape {weights.shape!r}; it must be {codes.shape!r}")
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("row_weights has negative or non-finite values; weights must be finite and at least 0")
    return data, weights


class _Training:
    """Rows, a loss and settings, from which weights are learnt.

    Raises:
        TrainingError: no rows, one label only, or a vector that is not finite.
    """

    def __init__(
        self, data: Vectors, codes: NDArray[np.int64], names: tuple[str, ...], objective: Objective, descent: Descent
    ) -> None:
        if len(data) == 0:
            raise TrainingError("the probe has no rows to train on; give it at least two labels' rows")
        if len(np.unique(codes)) < 2:
            raise TrainingError(f"the probe has rows of one label only ({names[codes[0]]!r}); it needs at least two")
        if not np.isfinite(data).all():
            row = int(np.flatnonzero(~np.isfinite(data).all(axis=1))[0])
            raise TrainingError(f"vector of training row {row} is not finite; check the encoder and that row's text")
        self._rows, self._codes, self._names = _with_bias(data), codes, names
        self._objective, self._descent = objective, descent

    @single_blas_thread()
    def run(self) -> ProbeModel:
        """The model after all steps over all phases."""
        objective, descent = self._objective, self._descent
        rng = derive_rng(descent.seed, "probe")
        lengths = _phase_steps([phase.share for phase in objective.phases], descent.steps)
        order = _draw_order(objective.phases[0].rows, lengths[0], descent.batch, rng)
        weights = rng.normal(0.0, 0.01, size=(self._rows.shape[1], len(self._names))).astype(np.float32)
        weights[-1] = 0.0
        for number, (phase, length) in enumerate(zip(objective.phases, lengths, strict=True)):
            if number > 0:
                order = _draw_order(phase.rows, length, descent.batch, rng)
            weights = self._run_phase(weights, order, phase)
        return ProbeModel(self._names, weights[:-1], weights[-1])

    def _run_phase(self, weights: NDArray[np.float32], order: NDArray[np.int64], phase: Stage) -> NDArray[np.float32]:
        objective, descent = self._objective, self._descent
        l2 = 0.1 / float(objective.weights[phase.rows].sum()) if descent.l2 is None else descent.l2
        steps, batch = order.shape
        anchor, weights = weights, weights.copy()
        velocity = np.zeros_like(weights)
        inside = np.arange(batch)
        for step in range(steps):
            rate = np.float32(descent.learning_rate * _schedule(step, steps))
            chosen = order[step]
            part = self._rows[chosen]
            # Nesterov: the gradient is taken where the momentum is about to carry the weights
            ahead = weights + _MOMENTUM * velocity
            residual, log_p = _residual(part, self._codes[chosen], ahead, inside)
            scale = (-objective.slopes(chosen, log_p)).astype(np.float32) / np.float32(batch)
            residual *= scale[:, None]
            velocity *= _MOMENTUM
            velocity -= rate * (part.T @ residual)
            velocity[:-1] -= (rate * np.float32(l2)) * ahead[:-1]
            if phase.pull > 0:
                # the proximal term's step is implicit: an explicit one diverges where rate * pull is over 2
                tie = np.float32(min(float(rate) * phase.pull, 1e30))
                moved = (weights + velocity - anchor) / (np.float32(1.0) + tie) + anchor
                velocity = moved - weights
            weights += velocity
        return weights


def _with_bias(data: Vectors) -> Vectors:
    out: Vectors = np.hstack([data, np.ones((len(data), 1), dtype=np.float32)]).astype(np.float32, copy=False)
    return out


def _residual(
    part: Vectors, codes: NDArray[np.int64], weights: NDArray[np.float32], inside: NDArray[np.int64]
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


def _phase_steps(shares: Sequence[float], steps: int) -> list[int]:
    """Steps of each phase; they sum to ``steps``, and each phase has one where there are enough."""
    ends = np.rint(np.cumsum(shares) / sum(shares) * steps).astype(int)
    if steps >= len(shares):
        for i in range(len(ends)):
            ends[i] = min(max(ends[i], (ends[i - 1] if i else 0) + 1), steps - (len(ends) - 1 - i))
    return [int(n) for n in np.diff(ends, prepend=0)]


def _draw_order(rows: NDArray[np.int64], steps: int, batch: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of each step, shape (steps, batch): permutations of ``rows``, one after another."""
    length = steps * batch
    epochs = -(-length // len(rows))
    places = rng.permuted(np.tile(np.arange(len(rows)), (epochs, 1)), axis=1).ravel()[:length]
    drawn: NDArray[np.int64] = rows[places].reshape(steps, batch)
    return drawn


def _schedule(step: int, steps: int) -> float:
    warm = max(1.0, _WARM_UP * steps)
    if step + 1 < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + float(np.cos(np.pi * (step + 1 - warm) / max(1.0, steps - warm))))
