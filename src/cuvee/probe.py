"""Multinomial logistic regression on vectors: label agreement, checkers, the cheap trainer.

Trained by mini-batch gradient descent with Nesterov momentum for a *fixed number of steps*, so that "equal
optimiser steps" means the same thing here as for a fine-tuned model, and so that training draws differ by
their seed alone. numpy only; the same arguments give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


def fit_probe(
    vectors: Vectors,
    targets: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    row_weights: NDArray[np.floating] | None = None,
    steps: int = 300,
    batch: int = 32,
    learning_rate: float = 10.0,
    l2: float | None = None,
    seed: int = 0,
) -> ProbeModel:
    """Train a probe for exactly ``steps`` optimiser steps.

    The loss is the weighted mean cross-entropy plus ``l2 / 2`` times the squared norm of the weights (the
    bias is free). Rows of zero weight are dropped before batching: they change nothing, not even the random
    stream. Each epoch is one permutation of the rows, and a batch may straddle two epochs, so that every
    batch has ``batch`` rows however few there are.

    Args:
        vectors: shape (n, d), finite; unit rows are what ``learning_rate`` is meant for.
        targets: n labels.
        labels: columns of the model, in order; by default the sorted distinct targets.
        row_weights: shape (n,), finite and not negative; None weighs all rows the same.
        steps, batch: optimiser steps and rows a step.
        learning_rate: its peak; it rises over the first tenth of the steps and falls to zero as a cosine.
        l2: strength of the penalty; None means ``0.1 / sum of weights`` (with weights of 1, scikit-learn's
            ``LogisticRegression(C=10)``).
        seed: of the initial weights and the order of rows.

    Raises:
        TrainingError: no rows, one label only, or a vector that is not finite.
        ValueError: arguments that do not fit together.
    """
    names, codes = _encode_targets(targets, labels)
    data = np.ascontiguousarray(vectors, dtype=np.float32)
    weights = _check_rows(data, codes, row_weights, steps, batch)
    kept = weights > 0
    if not kept.any():
        raise TrainingError("the probe has no rows to train on; give it at least two labels' rows")
    data, codes, weights = data[kept], codes[kept], weights[kept]
    if len(np.unique(codes)) < 2:
        raise TrainingError(f"the probe has rows of one label only ({names[codes[0]]!r}); it needs at least two")
    if not np.isfinite(data).all():
        row = int(np.flatnonzero(~np.isfinite(data).all(axis=1))[0])
        raise TrainingError(f"vector of training row {row} is not finite; check the encoder and that row's text")
    penalty = 0.1 / float(weights.sum()) if l2 is None else l2
    rng = derive_rng(seed, "probe")
    order = _row_stream(len(data), steps * batch, rng).reshape(steps, batch)
    relative = (weights / weights.mean()).astype(np.float32)
    found = _descend(data, codes, relative, len(names), order, learning_rate, penalty, rng)
    return ProbeModel(names, found[:-1], found[-1])


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
    names, codes = _encode_targets(targets, labels)
    if len(codes) == 0:
        raise TrainingError("cross-validation has no rows; give it rows of at least two labels")
    fold_of = _stratified_folds(codes, groups, folds, seed)
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


def _encode_targets(targets: Sequence[str], labels: Sequence[str] | None) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    names = tuple(sorted(set(targets)) if labels is None else labels)
    position = {name: i for i, name in enumerate(names)}
    if len(position) != len(names):
        raise ValueError(f"labels has repeats: {names!r}")
    unknown = next((t for t in targets if t not in position), None)
    if unknown is not None:
        raise ValueError(f"targets has {unknown!r}, which is not among labels {names!r}")
    return names, np.array([position[t] for t in targets], dtype=np.int64)


def _check_rows(
    data: Vectors, codes: NDArray[np.int64], row_weights: NDArray[np.floating] | None, steps: int, batch: int
) -> NDArray[np.float64]:
    if data.ndim != 2 or len(data) != len(codes):
        raise ValueError(f"vectors has shape {data.shape!r} but there are {len(codes)} targets; give one row each")
    if steps < 1 or batch < 1:
        raise ValueError(f"steps is {steps!r} and batch {batch!r}; both must be at least 1")
    if row_weights is None:
        return np.ones(len(codes), dtype=np.float64)
    weights = np.asarray(row_weights, dtype=np.float64)
    if weights.shape != codes.shape:
        raise ValueError(f"row_weights has shape {weights.shape!r}; it must be {codes.shape!r}")
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("row_weights has negative or non-finite values; weights must be finite and at least 0")
    return weights


def _row_stream(rows: int, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Permutations of the rows, one after another, cut at ``length``."""
    epochs = -(-length // rows)
    stream: NDArray[np.int64] = rng.permuted(np.tile(np.arange(rows), (epochs, 1)), axis=1).ravel()[:length]
    return stream


@single_blas_thread()
def _descend(
    data: Vectors,
    codes: NDArray[np.int64],
    relative: NDArray[np.float32],
    k: int,
    order: NDArray[np.int64],
    learning_rate: float,
    l2: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Weights with the bias as last row, shape (d + 1, k)."""
    steps, batch = order.shape
    rows = np.hstack([data, np.ones((len(data), 1), dtype=np.float32)])
    weights = rng.normal(0.0, 0.01, size=(rows.shape[1], k)).astype(np.float32)
    weights[-1] = 0.0
    velocity = np.zeros_like(weights)
    scale = (relative / batch).astype(np.float32)[:, None]
    inside = np.arange(batch)
    for step in range(steps):
        rate = np.float32(learning_rate * _schedule(step, steps))
        chosen = order[step]
        part = rows[chosen]
        # Nesterov: the gradient is taken where the momentum is about to carry the weights
        ahead = weights + _MOMENTUM * velocity
        residual = part @ ahead
        residual -= residual.max(axis=1, keepdims=True)
        np.exp(residual, out=residual)
        residual /= residual.sum(axis=1, keepdims=True)
        residual[inside, codes[chosen]] -= 1.0
        residual *= scale[chosen]
        velocity *= _MOMENTUM
        velocity -= rate * (part.T @ residual)
        velocity[:-1] -= (rate * np.float32(l2)) * ahead[:-1]
        weights += velocity
    return weights


def _schedule(step: int, steps: int) -> float:
    warm = max(1.0, _WARM_UP * steps)
    if step + 1 < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + float(np.cos(np.pi * (step + 1 - warm) / max(1.0, steps - warm))))


def _stratified_folds(
    codes: NDArray[np.int64], groups: Sequence[str] | None, folds: int, seed: int
) -> NDArray[np.int64]:
    """Fold of each row: groups are dealt in turn, shuffled, one label (of a group's first row) after another."""
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
