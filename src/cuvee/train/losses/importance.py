"""Importance weights of synthetic rows: ``imp`` against the synthetic law, ``dimp`` against the model itself.

Both are of Kuo et al. 2024 (arXiv 2410.21526), which trains on synthetic rows alone and uses the real rows for
the checker P' only. Here real rows are trained on too, with weight 1: they are drawn from the law that the
weights aim at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.train.losses.checkers import (
    checker_log_p,
    encode_sources,
    judge_synthetic,
    require_completions,
    synthetic_law,
    synthetic_log_p,
)
from cuvee.train.losses.protocol import TrainingRows
from cuvee.train.losses.rows import WeightedRows


def importance(
    log_numerator: NDArray[np.float64], log_denominator: NDArray[np.float64], *, clip: float, gamma: float = 1.0
) -> NDArray[np.float64]:
    """``min((numerator / denominator) ** gamma, clip)``, from logarithms; 1 where one of them is not known (NaN)."""
    ratio = np.nan_to_num(log_numerator - log_denominator, nan=0.0, posinf=np.inf, neginf=-np.inf)
    exponent = np.minimum(gamma * ratio, np.log(clip))
    out: NDArray[np.float64] = np.exp(exponent)
    return out


@dataclass(frozen=True, slots=True)
class ImportanceLoss:
    """IMP: a synthetic row weighs ``min(P'(y|x) / P_syn(y|x), clip)``.

    P' is a checker of the real rows, P_syn a cross-validated one of the synthetic rows. The weighted synthetic
    rows then follow P' on their own texts: with enough of them the model converges to P'. The clip is ours: where
    P_syn calls a label unlikely, one row could outweigh all others.

    Completions: P' is the model tuned on the real rows, P_syn the same tuned on the other half of the synthetic rows,
    and log probabilities are means over tokens. That is three short trainings before the training.
    """

    clip: float = 10.0

    def prepare(self, rows: TrainingRows) -> WeightedRows:
        """Static weights; the batch mean is relative to the mean of all weights."""
        weights = np.ones(len(rows.synthetic))
        if not rows.synthetic.any():
            return WeightedRows(weights)
        if rows.corpus.task == "classification":
            sources = encode_sources(rows, "imp")
            real, made = checker_log_p(rows, sources), synthetic_log_p(rows, sources)
        else:
            require_completions(rows, "imp")
            real, made = judge_synthetic(rows, "imp").log_p, synthetic_law(rows, "imp")
        weights[rows.synthetic] = importance(real, made, clip=self.clip)
        return WeightedRows(weights)


class DynamicRows(WeightedRows):
    """DIMP, prepared: weights follow the model as it learns.

    Args:
        checker_log_p: log P'(y|x) of each row, shape (n,).
        synthetic: marks the rows that are weighed; the others count 1.
        gamma: exponent of the ratio.
        clip: largest weight.
    """

    def __init__(
        self, checker_log_p: NDArray[np.float64], synthetic: NDArray[np.bool_], *, gamma: float, clip: float
    ) -> None:
        super().__init__(np.ones(len(synthetic)))
        self._checker, self._synthetic = checker_log_p, synthetic
        self._gamma, self._clip = gamma, clip

    def slopes(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Minus each row's weight over the mean weight of the batch, shape (b,)."""
        out: NDArray[np.float64] = -self._batch_weights(rows, log_p)
        return out

    def values(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cross-entropy times that weight, shape (b,)."""
        out: NDArray[np.float64] = -self._batch_weights(rows, log_p) * log_p
        return out

    def _batch_weights(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        found = importance(self._checker[rows], log_p, clip=self._clip, gamma=self._gamma)
        weights = np.where(self._synthetic[rows], found, 1.0)
        mean = float(weights.mean())
        # all of a batch can underflow to weight 0: then it moves nothing
        out: NDArray[np.float64] = weights / mean if mean > 0 else weights
        return out


@dataclass(frozen=True, slots=True)
class DynamicImportanceLoss:
    """DIMP: a synthetic row weighs ``min((P'(y|x) / p(y|x)) ** gamma, clip)``, p the model's own, not differentiated.

    Weights are divided by their sum over the batch, as in the paper. On synthetic rows of the label law Q the
    model converges to ``(Q P'^gamma)^(1/(1 + gamma))``, normalised: half way, geometrically, to the checker at
    gamma 1, and not to it. ``gamma`` and the clip are ours; the paper's gamma is 1.

    Completions: P' is the model tuned on the real rows, one short training; log probabilities are means over tokens.
    """

    gamma: float = 1.0
    clip: float = 10.0

    def prepare(self, rows: TrainingRows) -> DynamicRows:
        """Fits the checker."""
        log_p = np.zeros(len(rows.synthetic))
        if rows.synthetic.any() and rows.corpus.task == "classification":
            log_p[rows.synthetic] = checker_log_p(rows, encode_sources(rows, "dimp"))
        elif rows.synthetic.any():
            require_completions(rows, "dimp")
            log_p[rows.synthetic] = judge_synthetic(rows, "dimp").log_p
        return DynamicRows(log_p, rows.synthetic, gamma=self.gamma, clip=self.clip)
