"""One weight for all synthetic rows, given or chosen by cross-validation on real rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import ConfigError, TrainingError
from cuvee.fingerprint import derive_seed
from cuvee.probe import encode_targets, fit_probe, stratified_folds
from cuvee.train.losses.checkers import (
    PROBE_STEPS,
    TUNED_CANDIDATES,
    SourceVectors,
    encode_sources,
    own_log_p,
    tuned_losses,
)
from cuvee.train.losses.protocol import TrainingRows
from cuvee.train.losses.rows import WeightedRows, scale_weights

CANDIDATES = (0.0, 0.1, 0.25, 0.5, 1.0)
_FOLDS = 5
_SLACK = 0.25  # standard errors


def choose_weight(rows: TrainingRows) -> float:
    """The smallest candidate whose log loss on held-out real rows is about the least.

    Each of 5 folds of the real rows (by group, stratified by label) is held out once; probes are trained on the
    other real rows and on the synthetic ones at each candidate weight. Log loss and not accuracy, because few-shot
    folds are too small to tell accuracies apart. "About" is a quarter of a standard error of the paired difference
    to the least: wrong trust in a damaged source costs more than a little less of a good one. A whole standard
    error (Breiman et al. 1984) gave away up to 2 points on clean rows (docs/studies/losses.md). Rows weigh what the
    corpus says, in fitting and in judging.

    Rows without labels: three candidates, each tried by a short training of the model itself on one held-out
    quarter of the real rows (``tuned_losses``), about one and a half trainings more.

    Raises:
        ConfigError: the trainer has no checker for the task.
        TrainingError: too few real rows to hold some out.
    """
    if not rows.synthetic.any():
        return 1.0
    if rows.corpus.task != "classification":
        tuned = tuned_losses(rows)
        return pick_weight(tuned.losses, TUNED_CANDIDATES, tuned.weights)
    sources = encode_sources(rows, "source_weight")
    return pick_weight(held_out_losses(rows, sources), weights=sources.real_weights)


def pick_weight(
    losses: NDArray[np.float64],
    candidates: Sequence[float] = CANDIDATES,
    weights: NDArray[np.float64] | None = None,
) -> float:
    """The smallest candidate within a quarter of a standard error of the best.

    Args:
        losses: shape (candidates, real rows).
        candidates: from the smallest.
        weights: of the rows, shape (real rows,), above 0; only their ratios matter. None weighs all the same.
    """
    rows = losses.shape[1]
    scaled = np.ones(rows) if weights is None else scale_weights(np.ones(rows), weights)
    above = losses - losses[(scaled * losses).mean(axis=1).argmin()]
    mean = (scaled * above).mean(axis=1)
    error = np.sqrt((scaled * (above - mean[:, None]) ** 2).sum(axis=1) / (rows - 1) / rows)
    return candidates[int(np.flatnonzero(mean <= _SLACK * error)[0])]


def held_out_losses(rows: TrainingRows, sources: SourceVectors) -> NDArray[np.float64]:
    """Log loss of each real row under each candidate, shape (candidates, real rows).

    Raises:
        TrainingError: too few real rows to hold some out.
    """
    _, codes = encode_targets(sources.real_targets, sources.labels)
    groups = [g for g, mark in zip(rows.corpus.groups, rows.synthetic, strict=True) if not mark]
    fold_of = stratified_folds(codes, groups, _FOLDS, rows.seed)
    vectors = np.vstack([sources.real, sources.synthetic])
    targets = [*sources.real_targets, *sources.synthetic_targets]
    made, given = len(sources.synthetic_targets), np.concatenate([sources.real_weights, sources.synthetic_weights])
    out = np.zeros((len(CANDIDATES), len(codes)))
    folds = np.unique(fold_of)
    done, steps = 0, len(folds) * len(CANDIDATES) * PROBE_STEPS
    for fold in folds:
        held = fold_of == fold
        seed = derive_seed(rows.seed, "source-weight", int(fold))
        for i, weight in enumerate(CANDIDATES):
            counts = scale_weights(np.concatenate([np.where(held, 0.0, 1.0), np.full(made, weight)]), given)
            try:
                model = fit_probe(
                    vectors, targets, labels=sources.labels, row_weights=counts, steps=PROBE_STEPS, seed=seed
                )
            except TrainingError as exc:
                raise TrainingError(
                    f"the {len(codes)} real rows are too few to choose source_weight by cross-validation; "
                    "give at least two rows of two labels, or a number"
                ) from exc
            own = [t for t, mark in zip(sources.real_targets, held, strict=True) if mark]
            out[i, held] = -own_log_p(model.log_proba(sources.real[held]), own, sources.labels)
            done += PROBE_STEPS
            rows.heard(done, steps, float(out[i, held].mean()))
    return out


class SourceWeightedRows(WeightedRows):
    """Cross-entropy in which synthetic rows count ``source_weight`` and real rows 1.

    Args:
        synthetic: marks the synthetic rows, shape (n,).
        source_weight: at least 0.
    """

    def __init__(self, synthetic: NDArray[np.bool_], source_weight: float) -> None:
        super().__init__(np.where(synthetic, np.float64(source_weight), 1.0))
        self.source_weight = source_weight


@dataclass(frozen=True, slots=True)
class SourceWeight:
    """Synthetic rows count ``source_weight``, real rows 1: 0 is real-only, 1 is pooled, bit for bit.

    None chooses the weight by cross-validation (``choose_weight``).
    """

    source_weight: float | None = None

    def __post_init__(self) -> None:
        weight = self.source_weight
        if weight is not None and not (np.isfinite(weight) and weight >= 0):
            raise ConfigError(
                "loss 'source_weight' needs source_weight, a number of at least 0, or none to choose it from the real "
                f"rows; it is {weight!r}"
            )

    def prepare(self, rows: TrainingRows) -> SourceWeightedRows:
        """1 for real and the weight for synthetic rows."""
        weight = self.source_weight
        return SourceWeightedRows(rows.synthetic, choose_weight(rows) if weight is None else weight)
