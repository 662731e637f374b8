"""Prompts and completions as the tensors that a causal language model reads: padded, or packed. Imports torch.

Both forms give the same log probability of each row. Packed, short rows share a sequence: positions begin anew
with each row, and transformers then keeps attention within rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

IGNORED = -100


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A prompt and the completion that follows it, each of at least one token."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Rows laid out as sequences, all of shape (sequences, length) but ``columns``.

    Attributes:
        ids: tokens.
        mask: 1 for tokens, 0 for padding; None where positions tell what belongs together.
        positions: of each token in its row.
        columns: those whose logits are wanted.
        targets: the token after each of ``columns``; IGNORED where none is wanted. Shape (sequences, columns).
        owners: the row that each target belongs to, same shape.
        rows: how many rows there are.
    """

    ids: torch.Tensor
    mask: torch.Tensor | None
    positions: torch.Tensor
    columns: torch.Tensor
    targets: torch.Tensor
    owners: torch.Tensor
    rows: int


def lay_out(pairs: Sequence[TokenPair], *, pack_to: int | None = None) -> Layout:
    """One row a sequence, padded on the right; or, with ``pack_to``, several to sequences of at most that length."""
    if pack_to is None:
        bins = [[i] for i in range(len(pairs))]
    else:
        bins = fill_bins([len(pair) for pair in pairs], pack_to)
    width = max(sum(len(pairs[i]) for i in chosen) for chosen in bins)
    shape = (len(bins), width)
    ids = torch.zeros(shape, dtype=torch.long)
    # padding is a row of its own to what is packed; elsewhere the mask hides it
    positions = torch.arange(width).repeat(len(bins), 1)
    targets, owners = torch.full(shape, IGNORED), torch.zeros(shape, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.long)
    for line, chosen in enumerate(bins):
        at = 0
        for i in chosen:
            pair, end = pairs[i], at + len(pairs[i])
            ids[line, at:end] = torch.tensor([*pair.prompt, *pair.completion])
            positions[line, at:end] = torch.arange(end - at)
            mask[line, at:end] = 1
            first = at + len(pair.prompt) - 1  # the last token of the prompt foretells the first of the completion
            targets[line, first : end - 1] = torch.tensor(pair.completion)
            owners[line, first : end - 1] = i
            at = end
        positions[line, at:] = torch.arange(width - at)
    columns = torch.nonzero((targets != IGNORED).any(dim=0)).ravel()
    return Layout(
        ids=ids,
        mask=mask if pack_to is None else None,
        positions=positions,
        columns=columns,
        targets=targets[:, columns],
        owners=owners[:, columns],
        rows=len(pairs),
    )


def fill_bins(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Rows to sequences of at most ``size`` tokens, the longest first, each into the first that has room.

    A row longer than ``size`` has a sequence of its own.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = next((b for b, left in enumerate(room) if left >= lengths[i]), None)
        if place is None:
            bins.append([i])
            room.append(size - lengths[i])
        else:
            bins[place].append(i)
            room[place] -= lengths[i]
    return bins
