"""Weights that rows bring along, on top of those of the loss."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cuvee.train.losses.protocol import Phase, PreparedLoss


class RowWeightedLoss:
    """A prepared loss whose rows also weigh what the corpus says; of any loss, and for every trainer.

    Only ratios matter: both weights together sum to what the loss's own do, and have mean 1 over the rows of a phase.
    Rows of weight 0 are left out before a loss is prepared. Checkers that a loss fits weigh rows alike
    (``scale_weights``).

    Args:
        loss: prepared for these rows.
        weights: of its kept rows, shape (kept,), above 0.
    """

    def __init__(self, loss: PreparedLoss, weights: NDArray[np.float64]) -> None:
        self._loss = loss
        own = np.asarray(loss.weights, dtype=np.float64)
        self.weights: NDArray[np.float64] = scale_weights(own, weights)
        self._factor: NDArray[np.float64] = np.ones(len(weights))
        for phase in loss.phases:
            part = own[phase.rows]
            if len(part):
                self._factor[phase.rows] = weights[phase.rows] * part.sum() / (weights[phase.rows] @ part)

    @property
    def kept(self) -> NDArray[np.bool_]:
        """As the loss has them."""
        return self._loss.kept

    @property
    def phases(self) -> tuple[Phase, ...]:
        """As the loss has them."""
        return self._loss.phases

    @property
    def needs_gradients(self) -> bool:
        """Whether ``observe`` wants the cosine of gradients."""
        return self._loss.needs_gradients

    def slopes(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """The loss's slopes times the rows' relative weights, shape (b,)."""
        found: NDArray[np.float64] = self._factor[rows] * self._loss.slopes(rows, log_p)
        return found

    def values(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """The loss's values times the rows' relative weights, shape (b,)."""
        found: NDArray[np.float64] = self._factor[rows] * self._loss.values(rows, log_p)
        return found

    def observe(self, step: int, agreement: float) -> None:
        """Told to the loss."""
        self._loss.observe(step, agreement)


def scale_weights(own: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Both weights of each row multiplied, and scaled to the sum of ``own``, shape (n,): only ratios of rows matter.

    Args:
        own: given by a loss, shape (n,), not negative.
        weights: that the rows bring along, shape (n,), above 0. Where those that count are all the same, this is
            ``own``, bit for bit.
    """
    counted = weights[own > 0]
    if len(counted) == 0 or bool((counted == counted[0]).all()):
        return own
    found: NDArray[np.float64] = own * weights * (own.sum() / (own @ weights))
    return found


def weigh_rows(loss: PreparedLoss, weights: NDArray[np.float64]) -> PreparedLoss:
    """The loss with the weights of all its rows, shape (n,); the loss itself where all weigh the same."""
    kept = weights[loss.kept]
    return loss if len(kept) == 0 or bool((kept == kept[0]).all()) else RowWeightedLoss(loss, kept)
