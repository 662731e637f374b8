"""Losses as weights of rows: what a synthetic row counts.

A weighted loss is the sum of weight times cross-entropy over a batch, divided by the batch's rows and by the
mean weight of *all* rows. So weights mean the same in every batch, only their ratios matter, and a row of
weight 2 is a row that stands twice. Rows of zero weight are dropped before batches are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import ConfigError
from cuvee.registry import resolve_name
from cuvee.train.settings import TrainSettings


class Loss(Protocol):
    """How much each row counts."""

    def weigh_rows(self, synthetic: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Weights, shape (n,), finite and not negative; ``synthetic`` (n,) marks the synthetic rows."""


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Every row counts the same: real and synthetic rows are pooled."""

    def weigh_rows(self, synthetic: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Ones, shape (n,)."""
        return np.ones(len(synthetic))


@dataclass(frozen=True, slots=True)
class SourceWeight:
    """Synthetic rows count ``weight``, real rows 1: 0 is real-only, 1 is pooled, bit for bit."""

    weight: float

    def weigh_rows(self, synthetic: NDArray[np.bool_]) -> NDArray[np.float64]:
        """1 for real and ``weight`` for synthetic rows, shape (n,)."""
        return np.where(synthetic, np.float64(self.weight), 1.0)


def _cross_entropy(settings: TrainSettings) -> Loss:
    if settings.source_weight is not None:
        raise ConfigError(
            f"source_weight is {settings.source_weight!r}, but loss 'ce' has none; set loss: source_weight"
        )
    return CrossEntropy()


def _source_weight(settings: TrainSettings) -> Loss:
    weight = settings.source_weight
    if weight is None or not (np.isfinite(weight) and weight >= 0):
        raise ConfigError(f"loss 'source_weight' needs source_weight, a number of at least 0; it is {weight!r}")
    return SourceWeight(weight)


LossFactory = Callable[[TrainSettings], Loss]
LOSSES: Mapping[str, LossFactory] = {"ce": _cross_entropy, "source_weight": _source_weight}


def build_loss(settings: TrainSettings) -> Loss:
    """The loss that ``settings`` name.

    Raises:
        ConfigError: no such loss, or settings that do not fit it.
    """
    return resolve_name(settings.loss, LOSSES, what="loss")(settings)
