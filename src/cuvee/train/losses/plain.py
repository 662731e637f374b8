"""Losses without a checker: cross-entropy, a curriculum, a weight learnt in training, and those that forgive labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import ConfigError
from cuvee.train.losses.protocol import Phase, TrainingRows
from cuvee.train.losses.rows import WeightedRows

_RATE = 0.1  # change of the weight at a cosine of 1
LOG_ZERO = -4.0
"""What the reverse cross-entropy takes for log 0 (called A in the paper)."""


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Every row counts the same: real and synthetic rows are pooled."""

    def prepare(self, rows: TrainingRows) -> WeightedRows:
        """Ones."""
        return WeightedRows(np.ones(len(rows.synthetic)))


@dataclass(frozen=True, slots=True)
class Curriculum:
    """A synthetic phase of ``synthetic_share`` of the steps, then a real phase with a proximal pull.

    The pull, ``pull / 2 * |theta - theta_0|^2``, is L2-SP (Li et al. 2018, arXiv 1802.01483): towards the start of
    the phase and not towards zero. A pull without bound leaves the synthetic-only model, a pull of 0 with steps
    enough to converge the real-only one. Where one source is missing, the other one takes all steps.
    """

    synthetic_share: float = 0.5
    pull: float = 0.01

    def prepare(self, rows: TrainingRows) -> WeightedRows:
        """Two phases."""
        weights = np.ones(len(rows.synthetic))
        synthetic, real = np.flatnonzero(rows.synthetic), np.flatnonzero(~rows.synthetic)
        if not len(synthetic) or not len(real):
            return WeightedRows(weights)
        first = Phase(rows=synthetic, share=self.synthetic_share)
        return WeightedRows(weights, (first, Phase(rows=real, share=1 - self.synthetic_share, pull=self.pull)))


class OnlineRows(WeightedRows):
    """Cross-entropy in which the weight of synthetic rows moves from step to step.

    Args:
        synthetic: marks the rows whose weight moves, shape (n,).
        floor: least weight.
    """

    def __init__(self, synthetic: NDArray[np.bool_], floor: float) -> None:
        super().__init__(np.ones(len(synthetic)))
        self._synthetic, self._floor = synthetic, floor
        self._share = float(synthetic.mean()) if len(synthetic) else 0.0
        self.source_weight = 1.0

    @property
    def needs_gradients(self) -> bool:
        """Yes, where there are synthetic rows."""
        return self._share > 0

    def slopes(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Minus each row's present weight over the present mean weight of all rows, shape (b,)."""
        out: NDArray[np.float64] = self._present(rows) * self._slope(log_p)
        return out

    def values(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cross-entropy times that weight, shape (b,)."""
        out: NDArray[np.float64] = self._present(rows) * self._value(log_p)
        return out

    def observe(self, step: int, agreement: float) -> None:
        """Move the weight by a tenth of the cosine, within the floor and 1; the same at every ``step``."""
        del step
        self.source_weight = min(1.0, max(self._floor, self.source_weight + _RATE * agreement))

    def _present(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        mean = 1.0 + self._share * (self.source_weight - 1.0)
        out: NDArray[np.float64] = np.where(self._synthetic[rows], self.source_weight, 1.0) / mean
        return out


@dataclass(frozen=True, slots=True)
class OnlineSourceWeight:
    """Synthetic rows start at weight 1 and lose it as long as their gradient opposes that of held-out real rows.

    A step along the synthetic gradient lowers the real loss exactly while the two gradients' product is positive;
    that product is the derivative of the validation loss by the weight (Ren et al. 2018, arXiv 1803.09050, where
    each row has a weight). Its cosine (Du et al. 2018, arXiv 1812.02224) is summed over the steps, so the noise of
    single batches averages out: a source of permuted labels falls to ``floor``, one like the real rows stays near 1.
    """

    floor: float = 0.0

    def prepare(self, rows: TrainingRows) -> OnlineRows:
        """Weight 1 for every row, to begin with."""
        return OnlineRows(rows.synthetic, self.floor)


class GeneralizedRows(WeightedRows):
    """Generalized cross-entropy, prepared.

    Args:
        rows: how many.
        q: above 0, at most 1.
    """

    def __init__(self, rows: int, q: float) -> None:
        super().__init__(np.ones(rows))
        self._q = q

    def _slope(self, log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        out: NDArray[np.float64] = -np.exp(self._q * log_p)
        return out

    def _value(self, log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        out: NDArray[np.float64] = -np.expm1(self._q * log_p) / self._q
        return out


@dataclass(frozen=True, slots=True)
class GeneralizedCrossEntropy:
    """GCE: ``(1 - p^q) / q``, between cross-entropy (q to 0) and mean absolute error (q = 1).

    Its gradient is p^q times that of cross-entropy: rows whose label the model finds unlikely count less
    (Zhang and Sabuncu 2018, arXiv 1805.07836; q = 0.7 there). For all rows, real ones too.
    """

    q: float = 0.7

    def prepare(self, rows: TrainingRows) -> GeneralizedRows:
        """The same for every row."""
        return GeneralizedRows(len(rows.synthetic), self.q)


class SymmetricRows(WeightedRows):
    """Symmetric cross-entropy, prepared.

    Args:
        rows: how many.
        alpha, beta: parts of the cross-entropy and of the reverse one.
    """

    def __init__(self, rows: int, alpha: float, beta: float) -> None:
        super().__init__(np.ones(rows))
        self._alpha, self._beta = alpha, beta

    def _slope(self, log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        out: NDArray[np.float64] = -self._alpha + self._beta * LOG_ZERO * np.exp(log_p)
        return out

    def _value(self, log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        out: NDArray[np.float64] = -self._alpha * log_p + self._beta * LOG_ZERO * np.expm1(log_p)
        return out


@dataclass(frozen=True, slots=True)
class SymmetricCrossEntropy:
    """SCE: ``alpha`` cross-entropies and ``beta`` reverse ones, ``-sum_k p_k log q_k`` with log 0 = -4.

    For a one-hot label the reverse part is ``4 (1 - p)``: four times the mean absolute error (Wang et al. 2019,
    arXiv 1908.06112; alpha 0.1, beta 1 on ten classes, 6 and 0.1 on a hundred). For all rows, real ones too.
    """

    alpha: float = 0.1
    beta: float = 1.0

    def __post_init__(self) -> None:
        if self.alpha + self.beta == 0:
            raise ConfigError("loss 'sce' has alpha and beta of 0, so nothing would be learnt; give one above 0")

    def prepare(self, rows: TrainingRows) -> SymmetricRows:
        """The same for every row."""
        return SymmetricRows(len(rows.synthetic), self.alpha, self.beta)
