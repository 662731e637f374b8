"""Plain cross-entropy: the loss that all others are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cuvee.train.losses.protocol import TrainingRows
from cuvee.train.losses.rows import WeightedRows


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Every row counts the same: real and synthetic rows are pooled."""

    def prepare(self, rows: TrainingRows) -> WeightedRows:
        """Ones."""
        return WeightedRows(np.ones(len(rows.synthetic)))
