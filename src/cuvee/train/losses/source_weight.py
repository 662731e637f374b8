"""One weight for all synthetic rows, given or chosen by cross-validation on real rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.train.losses.choosing import choose_weight
from cuvee.train.losses.protocol import TrainingRows
from cuvee.train.losses.rows import WeightedRows


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
    """Synthetic rows count ``weight``, real rows 1: 0 is real-only, 1 is pooled, bit for bit.

    None chooses the weight by cross-validation (``choose_weight``).
    """

    weight: float | None

    def prepare(self, rows: TrainingRows) -> SourceWeightedRows:
        """1 for real and the weight for synthetic rows."""
        return SourceWeightedRows(rows.synthetic, choose_weight(rows) if self.weight is None else self.weight)
