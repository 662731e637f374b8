"""Fitting a probe for a fixed number of steps: with weights of rows, or by the slopes of any loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import TrainingError
from cuvee.fingerprint import derive_rng
from cuvee.probe.descent import Objective, Stage, Watch, descend
from cuvee.probe.model import ProbeModel
from cuvee.records import Vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class _AllRows:
    """The one stretch of plain training."""

    rows: NDArray[np.int64]
    share: float = 1.0
    pull: float = 0.0


class _WeightedRows:
    """Weighted cross-entropy."""

    needs_gradients = False

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.weights = weights
        self.phases: Sequence[Stage] = (_AllRows(rows=np.arange(len(weights))),)
        self._slopes: NDArray[np.float64] = -(weights / weights.mean())

    def slopes(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        out: NDArray[np.float64] = self._slopes[rows].reshape(log_p.shape)
        return out

    def observe(self, step: int, agreement: float) -> None:
        """Takes no notice."""


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
    names, codes = encode_targets(targets, labels)
    data = np.ascontiguousarray(vectors, dtype=np.float32)
    weights = _check_rows(data, codes, row_weights, steps, batch)
    kept = weights > 0
    if not kept.any():
        raise TrainingError("the probe has no rows to train on; give it at least two labels' rows")
    data, codes = data[kept], codes[kept]
    _check_kept(data, codes, names)
    rng = derive_rng(seed, "probe")
    objective = _WeightedRows(weights[kept])
    found = descend(data, codes, len(names), objective, steps, batch, learning_rate, l2, rng)
    return ProbeModel(names, found[:-1], found[-1])


def fit_objective(
    vectors: Vectors,
    targets: Sequence[str],
    objective: Objective,
    *,
    labels: Sequence[str] | None = None,
    steps: int = 300,
    batch: int = 32,
    learning_rate: float = 10.0,
    l2: float | None = None,
    seed: int = 0,
    synthetic: NDArray[np.bool_] | None = None,
    validation: tuple[Vectors, Sequence[str]] | None = None,
) -> ProbeModel:
    """As ``fit_probe``, for any loss that is a function of each row's log probability.

    Args:
        vectors, targets: n rows, all of which count.
        objective: slopes of the loss, weights and phases of those rows. A phase gets its share of the steps, its
            own learning rate schedule, and momentum from rest.
        labels, steps, batch, learning_rate, seed: as for ``fit_probe``.
        l2: as for ``fit_probe``; None means ``0.1 / sum of the phase's weights``.
        synthetic, validation: marks of the synthetic rows, shape (n,), and vectors and labels of real rows held
            out: between their gradients the objective observes the cosine, where it wants to. Rows of labels that
            the model lacks are left out.

    Raises:
        TrainingError: no rows, one label only, or a vector that is not finite.
        ValueError: arguments that do not fit together.
    """
    names, codes = encode_targets(targets, labels)
    data = np.ascontiguousarray(vectors, dtype=np.float32)
    _check_rows(data, codes, objective.weights, steps, batch)
    if len(data) == 0:
        raise TrainingError("the probe has no rows to train on; give it at least two labels' rows")
    _check_kept(data, codes, names)
    watch = None
    if objective.needs_gradients and synthetic is not None and validation is not None:
        column = {name: i for i, name in enumerate(names)}
        known = [i for i, target in enumerate(validation[1]) if target in column]
        watch = Watch(
            synthetic=np.flatnonzero(synthetic),
            data=np.ascontiguousarray(validation[0][known], dtype=np.float32),
            codes=np.array([column[validation[1][i]] for i in known], dtype=np.int64),
        )
    rng = derive_rng(seed, "probe")
    found = descend(data, codes, len(names), objective, steps, batch, learning_rate, l2, rng, watch)
    return ProbeModel(names, found[:-1], found[-1])


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


def _check_kept(data: Vectors, codes: NDArray[np.int64], names: Sequence[str]) -> None:
    if len(np.unique(codes)) < 2:
        raise TrainingError(f"the probe has rows of one label only ({names[codes[0]]!r}); it needs at least two")
    if not np.isfinite(data).all():
        row = int(np.flatnonzero(~np.isfinite(data).all(axis=1))[0])
        raise TrainingError(f"vector of training row {row} is not finite; check the encoder and that row's text")
