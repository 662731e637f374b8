"""Rows with static weights: what every prepared loss is built on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cuvee.train.losses.protocol import Phase


class WeightedRows:
    """Cross-entropy of weighted rows, and the ground that the other losses stand on.

    A row of weight 2 is a row that stands twice: weights are divided by their mean over the phase's rows, so only
    their ratios matter, and they mean the same in every batch. Rows of zero weight are dropped.

    Args:
        weights: of all rows, shape (n,), finite and not negative.
        phases: of the kept rows; by default one phase of them all.
    """

    def __init__(self, weights: NDArray[np.float64], phases: Sequence[Phase] | None = None) -> None:
        self.kept: NDArray[np.bool_] = weights > 0
        self.weights: NDArray[np.float64] = weights[self.kept]
        whole = Phase(rows=np.arange(len(self.weights)), share=1.0)
        self.phases: tuple[Phase, ...] = (whole,) if phases is None else tuple(phases)
        self.relative: NDArray[np.float64] = np.ones(len(self.weights))
        for phase in self.phases:
            part = self.weights[phase.rows]
            if len(part):
                self.relative[phase.rows] = part / part.mean()

    @property
    def needs_gradients(self) -> bool:
        """Whether ``observe`` wants the cosine of gradients."""
        return False

    def slopes(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Relative weight times the loss's own slope, shape (b,)."""
        out: NDArray[np.float64] = self.relative[rows] * self._slope(log_p)
        return out

    def values(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Relative weight times the loss's own value, shape (b,)."""
        out: NDArray[np.float64] = self.relative[rows] * self._value(log_p)
        return out

    def observe(self, step: int, agreement: float) -> None:
        """Takes no notice."""

    def _slope(self, log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.full_like(log_p, -1.0)

    def _value(self, log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        return -log_p
