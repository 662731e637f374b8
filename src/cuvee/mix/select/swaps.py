"""Making a selection better by swapping rows of one stratum."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cuvee.mix.select.greedy import rank_in_groups
from cuvee.mix.select.objectives import Objective
from cuvee.mix.select.strata import Strata
from cuvee.records import Vectors
from cuvee.similarity import single_blas_thread

Codes: TypeAlias = NDArray[np.int64]
CANDIDATES = 4096
"""Rows outside the selection that one round looks at."""
ROUNDS = 60
_PATIENCE = 4  # rounds in a row without a gain worth having
_WORTH = 2e-4  # of the value


@single_blas_thread()
def improve_rows(
    unit: Vectors, strata: Strata, rows: Codes, objective: Objective, *, sign: int, rng: np.random.Generator,
    rounds: int = ROUNDS,
) -> tuple[Codes, float]:  # fmt: skip
    """Swap rows, within strata, for as long as it makes the objective larger (``sign`` 1) or smaller (-1).

    Each round ranks the chosen rows by what they add and some others by what they would add, and makes the best swaps
    together; where the exact value shows that they hinder each other, half of them, and so on. The value never gets
    worse.

    Returns:
        The rows, sorted, and their value.
    """
    rows = np.sort(rows)
    value = objective.value(unit[rows])
    batch, stale = max(1, len(rows) // 8), 0
    for _ in range(rounds):
        outside = np.setdiff1d(np.arange(len(unit)), rows, assume_unique=True)
        if len(outside) > CANDIDATES:
            outside = np.sort(rng.choice(outside, CANDIDATES, replace=False))
        leave, enter = _best_swaps(unit, strata, rows, outside, objective, sign)
        before = value
        while len(leave):
            swapped = np.sort(np.concatenate([np.setdiff1d(rows, leave[:batch], assume_unique=True), enter[:batch]]))
            found = objective.value(unit[swapped])
            if sign * (found - value) > 0:
                rows, value = swapped, found
                batch = min(2 * batch, len(rows))
                break
            if batch == 1:
                break
            batch = max(1, min(batch, len(leave)) // 2)
        batch = max(batch, 2)
        stale = 0 if sign * (value - before) > _WORTH * abs(before) else stale + 1
        if stale == _PATIENCE:
            break
    return rows, value


def _best_swaps(
    unit: Vectors, strata: Strata, rows: Codes, outside: Codes, objective: Objective, sign: int
) -> tuple[Codes, Codes]:
    """Rows to leave and rows to enter in their place, those that promise most first."""
    inside, gains = objective.contributions(unit[rows], unit[outside])
    worst_first = np.lexsort((sign * inside, strata.codes[rows]))
    best_first = np.lexsort((-sign * gains, strata.codes[outside]))
    # the i-th worst chosen row of a stratum against the i-th best other one
    width = len(unit) + 1
    own, others = strata.codes[rows[worst_first]], strata.codes[outside[best_first]]
    _, a, b = np.intersect1d(
        own * width + rank_in_groups(own), others * width + rank_in_groups(others), assume_unique=True,
        return_indices=True,
    )  # fmt: skip
    a, b = worst_first[a], best_first[b]
    promise = sign * (gains[b] - inside[a])
    order = np.argsort(-promise, kind="stable")
    order = order[promise[order] > 0]
    return rows[a[order]], outside[b[order]]
