"""Whether synthetic rows pull the model where real rows would: the cosine of two gradients. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cuvee.train.schedule import Rows, Scores, Trainable, cut_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Cosine between two gradients, and the norm of that of the real rows."""

    cosine: float
    real_norm: float


def compare_gradients(
    model: Trainable, parameters: Sequence[torch.nn.Parameter], synthetic: Rows, real: Rows, *, pieces: int = 1
) -> Compared:
    """Cosine between the centred gradients of synthetic training rows and of real validation rows.

    A row's gradient by its scores is softmax minus one-hot. From it the mean over the rows of its source is taken:
    what all rows have in common only moves how often each target is said. Any two sources agree about that, even one
    of permuted labels, and at the beginning it is most of the gradient. For a linear model this is the gradient on
    centred inputs, as the probe has it.

    Args:
        model: in eval mode.
        parameters: that are trained.
        synthetic: places among the training rows.
        real: places among the validation rows.
        pieces: that rows are computed in, one after another, to save memory.

    Returns:
        The cosine, 0 where one gradient is zero, as that of a single row is; and the norm.
    """
    one = _centred_gradient(model, parameters, synthetic, pieces, held_out=False)
    other = _centred_gradient(model, parameters, real, pieces, held_out=True)
    norm = float(other.norm())
    norms = float(one.norm()) * norm
    return Compared(cosine=float(one @ other) / norms if norms > 0 else 0.0, real_norm=norm)


def _centred_gradient(
    model: Trainable, parameters: Sequence[torch.nn.Parameter], rows: Rows, pieces: int, *, held_out: bool
) -> torch.Tensor:
    parts = cut_rows(rows, pieces)
    mean: torch.Tensor | None = None
    if len(parts) > 1:  # the mean is of all rows, so it has to be known before the first piece
        with torch.no_grad():
            seen = [model.scores(part, held_out=held_out) for part in parts]
        mean = _mean([_residuals(s) for s in seen], [s.weights for s in seen])
        del seen
    total: torch.Tensor | None = None
    for part in parts:
        scores = model.scores(part, held_out=held_out)
        residuals = _residuals(scores)
        centre = _mean([residuals], [scores.weights]) if mean is None else mean
        logits = scores.logits.float()
        known = torch.isfinite(logits)  # a masked score has no gradient
        pull = torch.where(known, residuals - scores.weights[:, None] * centre, 0.0)
        surrogate = (torch.where(known, logits, 0.0) * pull).sum()
        found = _flatten(parameters, torch.autograd.grad(surrogate, parameters, allow_unused=True))
        total = found if total is None else total + found
    assert total is not None  # there are rows
    return total


@torch.no_grad()
def _residuals(scores: Scores) -> torch.Tensor:
    """Weighted softmax minus one-hot, shape (m, k)."""
    out = torch.softmax(scores.logits.float(), dim=1)
    out[torch.arange(len(out), device=out.device), scores.truth] -= 1.0
    out *= scores.weights[:, None]
    return out


def _mean(residuals: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> torch.Tensor:
    total = torch.stack([part.sum(dim=0) for part in residuals]).sum(dim=0)
    return total / torch.cat(list(weights)).sum()


def _flatten(parameters: Sequence[torch.nn.Parameter], parts: Sequence[torch.Tensor | None]) -> torch.Tensor:
    filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, parts, strict=True)]
    return torch.cat([g.float().ravel() for g in filled])
