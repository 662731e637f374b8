"""Losses that forgive wrong labels: no checker, no sources, the same for every row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.train.losses.protocol import TrainingRows
from cuvee.train.losses.rows import WeightedRows

LOG_ZERO = -4.0
"""What the reverse cross-entropy takes for log 0 (called A in the paper)."""


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

    q: float

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

    alpha: float
    beta: float

    def prepare(self, rows: TrainingRows) -> SymmetricRows:
        """The same for every row."""
        return SymmetricRows(len(rows.synthetic), self.alpha, self.beta)
