"""The synthetic source's weight, learnt while training from the agreement of gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.train.losses.protocol import TrainingRows
from cuvee.train.losses.rows import WeightedRows

_RATE = 0.1  # change of the weight at a cosine of 1


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

    floor: float

    def prepare(self, rows: TrainingRows) -> OnlineRows:
        """Weight 1 for every row, to begin with."""
        return OnlineRows(rows.synthetic, self.floor)
