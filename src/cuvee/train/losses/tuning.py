"""Checkers where there are no labels: the trainer's own model, tuned on real rows for a few steps.

They read rows as the trainer does. For completions the log probability of a row is the mean over its tokens, so a
ratio of two probabilities is the geometric mean of its tokens' ratios, and long completions are not punished. They are
tuned with the weights that the corpus gives its rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, TrainingError
from cuvee.fingerprint import derive_seed
from cuvee.probe import stratified_folds
from cuvee.train.losses.protocol import Judge, Judgement, TrainingRows
from cuvee.train.losses.row_weights import scale_weights

CANDIDATES = (0.0, 0.25, 1.0)
"""Weights of synthetic rows that are tried: fewer than probes try, because each is a training."""
PASSES = 3
_HELD_OUT = 4  # one real row in so many is held out to choose the weight by
_LAW_FOLDS = 2


def require_judge(rows: TrainingRows, loss: str) -> Judge:
    """The checker of rows without labels.

    Raises:
        ConfigError: the trainer has none.
    """
    if rows.judge is None:
        raise ConfigError(
            f"loss {loss!r} needs a checker of its own for task {rows.corpus.task!r}, which trainers causal and "
            "retriever have; valid for others: ce, gce, sce, curriculum, and source_weight with a number"
        )
    return rows.judge


def require_completions(rows: TrainingRows, loss: str) -> None:
    """See that the rows have laws that can be divided.

    Raises:
        ConfigError: the task is retrieval, whose probabilities are over whatever passages share a batch: they are no
            law of the passage given the query, and their ratio is no importance weight. No published work has one.
    """
    if rows.corpus.task == "retrieval":
        raise ConfigError(
            f"loss {loss!r} divides two laws of a target, and a retriever has none: its probabilities are over the "
            "passages of one batch; set loss: agreement_filter, source_weight or curriculum"
        )


def judge_synthetic(rows: TrainingRows, loss: str) -> Judgement:
    """What a model of the real rows says of the synthetic ones, which it never saw: no folds are needed.

    Raises:
        ConfigError: the trainer has no checker.
        TrainingError: there are no real rows.
    """
    judge = require_judge(rows, loss)
    real = rows.corpus.keep(~rows.synthetic)
    if len(real) == 0:
        raise TrainingError(f"loss {loss!r} tunes a checker on the real rows, and there are none; give some")
    seed = derive_seed(rows.seed, "checker")
    weights = scale_weights(np.ones(len(real)), real.weights)
    return judge(real, rows.corpus.keep(rows.synthetic), weights=weights, passes=PASSES, seed=seed)


def synthetic_law(rows: TrainingRows, loss: str) -> NDArray[np.float64]:
    """Log P_syn of each synthetic row, from a model of the other half of the synthetic rows, by group.

    Raises:
        ConfigError: the trainer has no checker.
        TrainingError: the synthetic rows are of one group.
    """
    judge = require_judge(rows, loss)
    made = rows.corpus.keep(rows.synthetic)
    folds = _split(made, _LAW_FOLDS, derive_seed(rows.seed, "synthetic-law"))
    if len(np.unique(folds)) < _LAW_FOLDS:
        raise TrainingError(f"loss {loss!r} halves the synthetic rows by group, and there is one group; give more")
    out = np.zeros(len(made))
    for fold in range(_LAW_FOLDS):
        held = folds == fold
        rest = made.keep(~held)
        seed = derive_seed(rows.seed, "synthetic-law", fold)
        weights = scale_weights(np.ones(len(rest)), rest.weights)
        out[held] = judge(rest, made.keep(held), weights=weights, passes=PASSES, seed=seed).log_p
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedLosses:
    """Loss of held-out real rows under each of ``CANDIDATES``, shape (candidates, rows), and the rows' weights."""

    losses: NDArray[np.float64]
    weights: NDArray[np.float64]


def tuned_losses(rows: TrainingRows) -> TunedLosses:
    """Loss of held-out real rows under each of ``CANDIDATES``.

    One real row in four is held out, by group; a model is tuned on all other rows at each candidate weight, for half
    the steps of the training. Folds in turn, as probes have them, would cost four times as much.

    Raises:
        ConfigError: the trainer has no checker.
        TrainingError: too few real rows to hold some out.
    """
    judge = require_judge(rows, "source_weight")
    real = np.flatnonzero(~rows.synthetic)
    folds = _split(rows.corpus.take(real), _HELD_OUT, derive_seed(rows.seed, "source-weight")) if len(real) else real
    held = np.zeros(len(rows.corpus), dtype=np.bool_)
    held[real[folds == 0]] = True
    rest, judged = rows.corpus.keep(~held), rows.corpus.keep(held)
    if len(judged) < 2 or len(judged) == len(real):
        raise TrainingError(
            f"the {len(real)} real rows are too few to choose source_weight by holding a quarter out; "
            "give at least 8 of several groups, or a number"
        )
    marks, seed = rows.synthetic[~held], derive_seed(rows.seed, "source-weight", 0)
    given = [scale_weights(np.where(marks, weight, 1.0), rest.weights) for weight in CANDIDATES]
    tried = [judge(rest, judged, weights=weights, passes=None, seed=seed) for weights in given]
    losses = -np.stack([found.log_p for found in tried])
    fits = np.isfinite(losses).all(axis=0)
    if fits.sum() < 2:
        raise TrainingError("fewer than two held-out real rows fit max_length to choose source_weight by; raise it")
    return TunedLosses(losses=losses[:, fits], weights=judged.weights[fits])


def _split(corpus: Corpus, folds: int, seed: int) -> NDArray[np.int64]:
    return stratified_folds(np.zeros(len(corpus), dtype=np.int64), corpus.groups, folds, seed)
