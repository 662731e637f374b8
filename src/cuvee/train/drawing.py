"""Drawing tokens from random streams of our own, one a row. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


class GumbelNoise:
    """Gumbel noise on logits over temperature: the largest is then a draw from their softmax, row by row.

    Args:
        streams: one a row.
        temperature: above 0.
    """

    def __init__(self, streams: Sequence[np.random.Generator], temperature: float) -> None:
        self._streams = streams
        self._temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The noised scores, shape (rows, vocabulary)."""
        del input_ids  # only the next token's logits matter
        noise = torch.from_numpy(np.stack([stream.gumbel(size=scores.shape[1]) for stream in self._streams]))
        noised: torch.Tensor = scores.cpu().double() / self._temperature + noise  # not every device has float64
        return noised.float().to(scores.device)
