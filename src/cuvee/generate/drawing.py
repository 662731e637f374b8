"""Drawing the next tokens of a batch whose rows differ in temperature, top-p, top-k, min-p and seed. Imports torch.

Temperature first, then the truncations in vLLM's order: min-p, top-k, top-p. Hugging Face's ``generate`` has min-p
last; llama.cpp truncates before it applies the temperature, so that there a high temperature keeps no more
tokens than a low one. What each keeps:

- min-p (arXiv 2407.01082): tokens at least ``min_p`` times as probable as the most probable one;
- top-k (arXiv 1805.04833): the k most probable tokens;
- top-p (arXiv 1904.09751): the smallest set of most probable tokens whose probability, of what is left so far, reaches
  ``top_p``.

Tokens exactly as probable as the last one kept by top-k or top-p are kept too, so the order of a sort decides nothing.
The most probable token is always kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cuvee.errors import GenerationError
from cuvee.fingerprint import derive_rng
from cuvee.generate.calls import Sampling

_FIRST_LOOK = 1024
"""Most probable tokens that top-p looks at before it sorts the whole vocabulary."""


class Draws:
    """Draws a token for every row of a batch at each step, each row from a random stream of its own.

    A row's stream is that of its seed alone, one uniform number a step: what it draws depends on its logits and on
    nothing else in the batch. The streams are NumPy's, which promises that they stay the same.

    Args:
        samplings: how each row is drawn; temperature 0 takes the most probable token.
        seeds: of each row.
    """

    def __init__(self, samplings: Sequence[Sampling], seeds: Sequence[int]) -> None:
        self._streams = [derive_rng(seed, "tokens") for seed in seeds]
        self._greedy = torch.tensor([s.temperature <= 0 for s in samplings])
        self._temperature = _doubles([s.temperature if s.temperature > 0 else 1.0 for s in samplings])
        self._min_p = _doubles([s.min_p or 0.0 for s in samplings])
        self._top_k = torch.tensor([s.top_k if s.top_k and s.top_k > 0 else 0 for s in samplings])
        self._top_p = _doubles([s.top_p for s in samplings])

    def next_tokens(self, logits: torch.Tensor) -> torch.Tensor:
        """The next token of each row, on the CPU; ``logits`` has shape (rows, vocabulary).

        Raises:
            GenerationError: the logits are not numbers.
        """
        if logits.device.type == "mps":  # which has no double precision
            logits = logits.cpu()
        best = logits.max(dim=1)
        if not bool(torch.isfinite(best.values).all()):
            raise GenerationError(
                f"the model's logits are not finite in {logits.dtype}; set dtype: float32, or check its weights"
            )
        uniforms = _doubles([stream.random() for stream in self._streams])
        if bool(self._greedy.all()):
            return best.indices.cpu()
        weights = token_weights(logits, self._temperature)
        truncate(weights, min_p=self._min_p, top_k=self._top_k, top_p=self._top_p)
        return torch.where(self._greedy, best.indices.cpu(), pick_tokens(weights, uniforms).cpu())


def token_weights(logits: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """Probabilities at each row's temperature, relative to the row's most probable token: that one has weight 1."""
    scaled = logits.double() / temperature.to(logits.device).unsqueeze(1)
    return (scaled - scaled.max(dim=1, keepdim=True).values).exp()


def truncate(weights: torch.Tensor, *, min_p: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> None:
    """Set the weights of the tokens that each row's min-p, top-k and top-p leave out to 0, in place.

    Args:
        weights: shape (rows, vocabulary), the largest of each row 1.
        min_p: 0 keeps all.
        top_k: 0 keeps all.
        top_p: 1 or more keeps all.
    """
    if bool((min_p > 0).any()):
        weights[weights < min_p.to(weights.device).unsqueeze(1)] = 0.0
    vocabulary = weights.shape[1]
    if rows := torch.nonzero((top_k > 0) & (top_k < vocabulary)).flatten().tolist():
        _keep_top_k(weights, rows, top_k[rows])
    if rows := torch.nonzero(top_p < 1).flatten().tolist():
        _keep_top_p(weights, rows, top_p[rows])


def pick_tokens(weights: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """The token of each row at its uniform number in [0, 1), by the inverse of the cumulative weights."""
    cumulated = weights.cumsum(dim=1)
    # a uniform number is at most 1 - 2**-53, so this stays below the total even when rounded
    places = uniforms.to(weights.device).unsqueeze(1) * cumulated[:, -1:]
    return torch.searchsorted(cumulated, places, right=True).squeeze(1)


def _keep_top_k(weights: torch.Tensor, rows: Sequence[int], k: torch.Tensor) -> None:
    chosen = weights[rows]
    largest = chosen.topk(int(k.max()), dim=1).values
    last_kept = largest.gather(1, k.to(weights.device).unsqueeze(1) - 1)
    weights[rows] = chosen.masked_fill(chosen < last_kept, 0.0)


def _keep_top_p(weights: torch.Tensor, rows: Sequence[int], p: torch.Tensor) -> None:
    chosen = weights[rows]
    wanted = p.to(weights.device).unsqueeze(1) * chosen.sum(dim=1, keepdim=True)
    looked_at = min(_FIRST_LOOK, chosen.shape[1])
    largest = chosen.topk(looked_at, dim=1).values
    reached = largest.cumsum(dim=1)
    if looked_at < chosen.shape[1] and bool((reached[:, -1:] < wanted).any()):
        largest = chosen.sort(dim=1, descending=True).values
        reached = largest.cumsum(dim=1)
    # a token is kept if those before it do not reach what is wanted
    kept = 1 + (reached[:, :-1] < wanted).sum(dim=1, keepdim=True)
    weights[rows] = chosen.masked_fill(chosen < largest.gather(1, kept - 1), 0.0)


def _doubles(numbers: Sequence[float]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)
