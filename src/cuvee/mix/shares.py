"""How many rows of each label a share means: pure arithmetic, exact and nested.

Nested means: with a larger share no label gets fewer synthetic rows, so that a smaller blend's synthetic
rows can be a prefix of a larger one's. Plain largest-remainder rounding breaks this (the Alabama paradox:
one more row in all can take one away from a label), so rows are apportioned by the quota method, which
keeps every label within one row of its exact part *and* never takes a row back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import get_args

import numpy as np

from cuvee.records import Regime

_SLACK = 1e-9  # 4 * 0.9 / (1 - 0.9) is 36.00000000000001 in floats


def apportion_rows(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """``total`` rows shared out in proportion to ``sizes``: exact in sum, each within one row of its part.

    The quota method of Balinski and Young (The American Mathematical Monthly 82, 1975, 701-730): row ``h``
    goes to the label with the largest ``size / (has + 1)`` among those still below their part of ``h`` rows.
    Raising ``total`` never lowers a label's count. Equal claims go to the first label in the given order.

    Raises:
        ValueError: ``total`` is negative, or all sizes are 0 while rows are asked for.
    """
    weights = np.array(list(sizes.values()), dtype=np.int64)
    whole = int(weights.sum())
    if total < 0 or (weights < 0).any():
        raise ValueError(f"total is {total!r} and sizes {dict(sizes)!r}; none may be negative")
    if total and not whole:
        raise ValueError(f"total is {total!r}, but sizes are all 0; give a label at least one row")
    # the method repeats itself after each full turn of the sizes in lowest terms
    turn = weights // (np.gcd.reduce(weights) or 1)
    full, rest = divmod(total, int(turn.sum()) or 1)
    counts = np.zeros_like(turn)
    for row in range(1, rest + 1):
        open_claims = counts * turn.sum() < row * turn
        claims = np.where(open_claims, turn / (counts + 1), -1.0)
        counts[int(claims.argmax())] += 1
    return dict(zip(sizes, (counts + full * turn).tolist(), strict=True))


def share_counts(
    real: Mapping[str, int], share: float, *, regime: Regime = "augment", total_rows: int | None = None
) -> dict[str, tuple[int, int]]:
    """Rows of each label at ``share``: label -> (real rows, synthetic rows).

    ``augment`` keeps all real rows and adds ``real * share / (1 - share)`` synthetic rows to each label,
    rounded half up. ``replace`` keeps the number of rows of each label and makes ``share`` of all rows
    synthetic.

    Args:
        real: real rows of each label.
        share: synthetic rows over all rows, from 0 to 1; below 1 in ``augment``.
        regime: ``augment`` or ``replace``.
        total_rows: of the blend, ``replace`` only; by default as many as there are real rows.

    Raises:
        ValueError: share out of range, an unknown regime, or ``total_rows`` with ``augment``.
    """
    if regime not in get_args(Regime):
        raise ValueError(f"regime is {regime!r}; valid: {', '.join(get_args(Regime))}")
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share!r}; it must be from 0 to 1")
    if regime == "augment":
        if share == 1:
            raise ValueError("share is 1, which augment cannot reach: it keeps all real rows; use replace")
        if total_rows is not None:
            raise ValueError(f"total_rows is {total_rows!r}, but augment's total follows from the share; use replace")
        odds = share / (1 - share)
        return {label: (rows, math.floor(rows * odds + 0.5 + _SLACK)) for label, rows in real.items()}
    total = sum(real.values()) if total_rows is None else total_rows
    totals = apportion_rows(real, total)
    synthetic = apportion_rows(totals, math.floor(share * total + 0.5 + _SLACK))
    return {label: (totals[label] - synthetic[label], synthetic[label]) for label in real}


def largest_share(
    real: Mapping[str, int],
    pool: Mapping[str, int],
    *,
    regime: Regime = "augment",
    total_rows: int | None = None,
) -> float:
    """The largest share, rounded down to 3 decimals, for which ``pool`` has rows enough of every label."""
    low, high = 0, 999 if regime == "augment" else 1000
    while low < high:  # counts never fall as the share rises, so bisection finds it
        middle = (low + high + 1) // 2
        counts = share_counts(real, middle / 1000, regime=regime, total_rows=total_rows)
        enough = all(synthetic <= pool.get(label, 0) for label, (_, synthetic) in counts.items())
        low, high = (middle, high) if enough else (low, middle - 1)
    return low / 1000
