"""Rows that together lie as close to the real data as the pool allows: kernel herding, then swaps."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cuvee.mix.select.greedy import grow
from cuvee.mix.select.strata import Strata
from cuvee.records import Vectors
from cuvee.similarity import median_distance, single_blas_thread

Codes: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
SWAPS = 400
"""The most swaps after herding."""
_CHUNK = 1024
_LOOK = 32  # rows of a stratum that may leave, and that may enter, in one look


class ShiftObjective:
    """Squared MMD (Gretton et al. 2012) of chosen rows to real ones, RBF kernel ``exp(-|x - y|^2 / (2 sigma^2))``.

    Args:
        unit: the pool's unit rows, shape (n, d).
        real: the real unit rows, shape (m, d).
        bandwidth: sigma; None takes the median distance of the real rows.
        seed: of the rows that the median is taken of.
    """

    def __init__(self, unit: Vectors, real: Vectors, *, bandwidth: float | None = None, seed: int = 0) -> None:
        self._unit = unit
        self._real = real
        self.bandwidth = bandwidth if bandwidth is not None else median_distance(real, seed=seed)
        self.closeness = self._mean_kernel(unit)
        """Mean kernel of each pool row to the real rows, shape (n,)."""
        self._real_mean = float(self._mean_kernel(real).mean())

    def kernel(self, row: int) -> Floats:
        """The kernel of one pool row with all, shape (n,)."""
        cosines = (self._unit @ self._unit[row]).astype(np.float64)
        found: Floats = np.exp((np.minimum(cosines, 1.0) - 1.0) / self.bandwidth**2)
        return found

    def kernels(self, rows: Codes, others: Codes) -> Floats:
        """The kernel of pool rows with other pool rows, shape (rows, others)."""
        return self._gram(self._unit[rows], self._unit[others])

    def value(self, rows: Codes) -> float:
        """Squared MMD of the chosen rows, all pairs counted (the V-statistic, which cannot be negative)."""
        own = self._gram(self._unit[rows], self._unit[rows]).mean()
        return float(own - 2.0 * self.closeness[rows].mean() + self._real_mean)

    def _mean_kernel(self, rows: Vectors) -> Floats:
        parts = [self._gram(rows[i : i + _CHUNK], self._real).mean(axis=1) for i in range(0, len(rows), _CHUNK)]
        return np.concatenate(parts)

    def _gram(self, rows: Vectors, columns: Vectors) -> Floats:
        cosines = (rows @ columns.T).astype(np.float64)
        found: Floats = np.exp((np.minimum(cosines, 1.0) - 1.0) / self.bandwidth**2)
        return found


@single_blas_thread()
def lowest_shift(unit: Vectors, real: Vectors, strata: Strata, *, seed: int, swaps: int = SWAPS) -> Codes:
    """Rows, each of weight 1 / k, whose squared MMD to the real rows is as small as herding and swaps find.

    Herding (Welling 2009; Chen, Welling and Smola 2010, arXiv 1203.3472) takes the row that lowers the MMD most, over
    and over; then the chosen row whose leaving and the row of its stratum whose entering lower it most are swapped
    while that helps.

    Args:
        unit: the pool's unit rows.
        real: real training rows as unit rows.
        strata: whose quotas are taken.
        seed: of the bandwidth's rows.
        swaps: the most.

    Returns:
        The chosen rows, sorted.
    """
    objective = ShiftObjective(unit, real, seed=seed)
    drawn = np.zeros(len(unit))  # sum of kernels with the rows chosen so far
    scores = objective.closeness.copy()
    count = 0

    def update(row: int) -> None:
        nonlocal count
        count += 1
        np.add(drawn, objective.kernel(row), out=drawn)
        is_open = np.isfinite(scores)
        scores[is_open] = objective.closeness[is_open] - drawn[is_open] / (count + 1)

    rows = grow(strata, scores, update)
    drawn += objective.kernel(int(rows[-1]))
    return np.sort(_swap_rows(objective, strata, rows, drawn, swaps))


def _swap_rows(objective: ShiftObjective, strata: Strata, rows: Codes, drawn: Floats, swaps: int) -> Codes:
    """The best single swap, as long as one lowers the MMD; ``drawn`` are kernel sums with all chosen rows."""
    chosen = np.zeros(len(strata.codes), dtype=bool)
    chosen[rows] = True
    k = len(rows)
    for _ in range(swaps):
        found = _best_swap(objective, strata, chosen, drawn - k * objective.closeness)
        if found is None:
            break
        leave, enter = found
        chosen[leave], chosen[enter] = False, True
        drawn += objective.kernel(enter) - objective.kernel(leave)
    return np.flatnonzero(chosen)


def _best_swap(
    objective: ShiftObjective, strata: Strata, chosen: NDArray[np.bool_], cost: Floats
) -> tuple[int, int] | None:
    """The swap that lowers the MMD most, or None where none does.

    Half of k^2 MMD^2 falls by cost(leave) - cost(enter) + K(leave, enter) - 1, which is at most the difference of the
    costs: strata are looked at in the order of that bound, and not at all once it is below what was found.
    """
    leave = _first_by_stratum(strata, np.where(chosen, -cost, np.inf))
    enter = _first_by_stratum(strata, np.where(chosen, np.inf, cost))
    bounds = {
        code: float(cost[leave[code][0]] - cost[enter[code][0]])
        for code in range(len(strata.quotas))
        if len(leave[code]) and len(enter[code])
    }
    best, swap = 1e-9, None
    for code in sorted(bounds, key=lambda c: -bounds[c]):
        if bounds[code] <= best:
            break
        kernel = objective.kernels(leave[code], enter[code])
        gains = cost[leave[code]][:, None] - cost[enter[code]] + kernel - 1.0
        place = np.unravel_index(int(gains.argmax()), gains.shape)
        if gains[place] > best:
            best, swap = float(gains[place]), (int(leave[code][place[0]]), int(enter[code][place[1]]))
    return swap


def _first_by_stratum(strata: Strata, values: Floats) -> list[Codes]:
    """Up to ``_LOOK`` rows of the smallest finite values of each stratum, smallest first."""
    rows = np.flatnonzero(np.isfinite(values))
    order = rows[np.lexsort((values[rows], strata.codes[rows]))]
    codes = strata.codes[order]
    ends = np.searchsorted(codes, np.arange(len(strata.quotas) + 1))
    return [order[start : min(start + _LOOK, end)] for start, end in pairwise(ends)]
