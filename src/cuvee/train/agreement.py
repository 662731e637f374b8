"""Whether synthetic rows pull the model where real rows would: the cosine of two gradients. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray


class Agreement:
    """The cosine of two gradients: of a batch's synthetic rows, and of real validation rows."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._parameters = parameters
        self._total: torch.Tensor | None = None

    @property
    def found_synthetic(self) -> bool:
        """Whether a gradient of synthetic rows was added."""
        return self._total is not None

    def add_synthetic(self, log_p: torch.Tensor, synthetic: NDArray[np.bool_]) -> None:
        """Add the gradient of a piece's synthetic rows; its graph is kept."""
        if not synthetic.any():
            return
        chosen = log_p[torch.from_numpy(np.flatnonzero(synthetic)).to(log_p.device)]
        found = self._gradient(-chosen.sum(), keep=True)
        self._total = found if self._total is None else self._total + found

    def compare(self, held_out: torch.Tensor) -> float:
        """The cosine with the gradient of validation rows; 0 where one of the two is 0."""
        assert self._total is not None
        real = self._gradient(-held_out.sum(), keep=False)
        norms = float(self._total.norm()) * float(real.norm())
        return float(self._total @ real) / norms if norms > 0 else 0.0

    def _gradient(self, of: torch.Tensor, *, keep: bool) -> torch.Tensor:
        parts = torch.autograd.grad(of, self._parameters, retain_graph=keep, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(self._parameters, parts, strict=True)]
        return torch.cat([g.float().ravel() for g in filled])
