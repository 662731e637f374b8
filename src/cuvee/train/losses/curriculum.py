"""Synthetic rows first, then real rows, held near to where the synthetic phase ended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cuvee.train.losses.protocol import Phase, TrainingRows
from cuvee.train.losses.rows import WeightedRows


@dataclass(frozen=True, slots=True)
class Curriculum:
    """A synthetic phase of ``synthetic_share`` of the steps, then a real phase with a proximal pull.

    The pull, ``pull / 2 * |theta - theta_0|^2``, is L2-SP (Li et al. 2018, arXiv 1802.01483): towards the start of
    the phase and not towards zero. A pull without bound leaves the synthetic-only model, a pull of 0 with steps
    enough to converge the real-only one. Where one source is missing, the other one takes all steps.
    """

    synthetic_share: float
    pull: float

    def prepare(self, rows: TrainingRows) -> WeightedRows:
        """Two phases."""
        weights = np.ones(len(rows.synthetic))
        synthetic, real = np.flatnonzero(rows.synthetic), np.flatnonzero(~rows.synthetic)
        if not len(synthetic) or not len(real):
            return WeightedRows(weights)
        first = Phase(rows=synthetic, share=self.synthetic_share)
        return WeightedRows(weights, (first, Phase(rows=real, share=1 - self.synthetic_share, pull=self.pull)))
