"""How rows are found: greedily, compact, spread out or at random, then by swaps; levels between the extremes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cuvee.mix.objectives import Codes, DCScore, Floats, LogDet, Objective, Strata
from cuvee.records import Vectors
from cuvee.similarity import median_distance, single_blas_thread

CANDIDATES = 1024
"""Rows looked at for each pick of the greedy choice by DCScore: with k picks of n rows, one of the best n / k is
among them with probability 1 - exp(-CANDIDATES / k) (stochastic greedy, arXiv 1409.7938)."""
_OUTSIDE = 4096  # rows outside the selection that one round of swaps looks at
_ROUNDS = 60
_SWAPS = 400  # after herding
_MOVES = 12  # of the centres of compact rows
_PATIENCE = 4  # rounds in a row without a gain worth having
_WORTH = 2e-4  # of the value
_CHUNK = 16_384
_REAL_CHUNK = 1024
_STARTS = 128  # places where a dense region is looked for
_LOOK = 32  # rows of a stratum that may leave, and that may enter, in one look


# --- beginnings: all take the strata's quotas exactly ---------------------------------------------
class Quotas:
    """Which rows may still be taken, while a selection grows row by row."""

    def __init__(self, strata: Strata) -> None:
        self._codes = strata.codes
        self._left = strata.quotas.copy()
        self.rows = strata.rows
        self.open = self._left[strata.codes] > 0

    def take(self, row: int) -> Codes:
        """Take an open row; the rows that are open no longer."""
        stratum = int(self._codes[row])
        self._left[stratum] -= 1
        closed = np.array([row]) if self._left[stratum] else np.flatnonzero(self._codes == stratum)
        self.open[closed] = False
        return closed


def grow(strata: Strata, scores: Floats, update: Callable[[int], None]) -> Codes:
    """Take the open row of the largest score, ``update`` the scores, and again, until the quotas are full.

    Args:
        strata: whose quotas are taken.
        scores: of each row, shape (n,), changed in place by ``update`` (closed rows hold -inf, and stay there).
        update: called with the row that was taken.
    """
    quotas = Quotas(strata)
    scores[~quotas.open] = -np.inf
    taken = np.empty(quotas.rows, dtype=np.int64)
    for number in range(quotas.rows):
        row = int(scores.argmax())  # the first of equals
        taken[number] = row
        scores[quotas.take(row)] = -np.inf
        if number + 1 < quotas.rows:
            update(row)
    return taken


@single_blas_thread()
def greedy_log_det(unit: Vectors, strata: Strata, *, s: float = 1.0) -> Codes:
    """Rows that greedily make log det(I + K / s) of the cosine kernel largest; the choice of plain greedy, exactly.

    The gain of x is ``log(1 + x^T A^-1 x / s)`` with ``A = I + X^T X / s`` of the rows taken so far. All gains are
    kept up to date by the rank-one rule (Sherman and Morrison 1950; Chen et al. 2018, arXiv 1709.05135, for the same
    in the n x n form): O(n d) a row taken, and no n x n matrix.
    """
    inverse = np.eye(unit.shape[1])
    forms = np.einsum("ij,ij->i", unit, unit, dtype=np.float64)

    def update(row: int) -> None:
        nonlocal inverse
        direction = inverse @ unit[row].astype(np.float64)
        scale = s + float(unit[row].astype(np.float64) @ direction)
        inverse -= np.outer(direction, direction) / scale
        along = unit @ direction.astype(np.float32)
        np.subtract(forms, along.astype(np.float64) ** 2 / scale, out=forms)

    return grow(strata, forms, update)


@single_blas_thread()
def greedy_dcscore(unit: Vectors, strata: Strata, *, tau: float, rng: np.random.Generator | None = None) -> Codes:
    """Rows that greedily make DCScore largest.

    Args:
        unit: rows, shape (n, d).
        strata: whose quotas are taken.
        tau: of the score.
        rng: draws ``CANDIDATES`` of the open rows for each pick; None looks at all of them, which is plain greedy.
    """
    objective, quotas = DCScore(tau=tau), Quotas(strata)
    taken = np.empty(quotas.rows, dtype=np.int64)
    sums = np.empty(quotas.rows)
    # every first row gives the same score: the one least like the pool leaves most room
    mean = unit.mean(axis=0)
    first = np.where(quotas.open, unit @ mean, np.inf).argmin()
    for number in range(quotas.rows):
        if number:
            candidates = np.flatnonzero(quotas.open)
            if rng is not None and len(candidates) > CANDIDATES:
                candidates = np.sort(rng.choice(candidates, CANDIDATES, replace=False))
            gains = objective.gains(self_sums=sums[:number], chosen=unit[taken[:number]], others=unit[candidates])
            row = int(candidates[gains.argmax()])
        else:
            row = int(first)
        near = objective.similarities(unit[row : row + 1], unit[taken[:number]])[0]
        sums[:number] += near
        sums[number] = 1.0 + near.sum(dtype=np.float64)
        taken[number] = row
        quotas.take(row)
    return taken


@single_blas_thread()
def compact_rows(unit: Vectors, strata: Strata, objective: Objective, *, rng: np.random.Generator) -> Codes:
    """Rows close together: of each stratum those nearest to the centre of the chosen ones, over and over.

    One centre for all rows, and one for each label, are both tried; the less diverse outcome is taken. Each begins at
    the densest of some drawn places.
    """
    found: list[tuple[float, int, Codes]] = []
    for groups in (np.zeros(len(unit), dtype=np.int64), strata.labels):
        rows = take_best(strata, _closeness(unit, groups, _dense_centres(unit, strata, groups, rng)))
        for _ in range(_MOVES):
            moved = take_best(strata, _closeness(unit, groups, _centres(unit, groups, rows)))
            if np.array_equal(moved, rows):
                break
            rows = moved
        found.append((objective.value(unit[rows]), len(found), rows))
    return min(found)[2]


def random_rows(strata: Strata, rng: np.random.Generator) -> Codes:
    """A random sample of each stratum, sorted."""
    return take_best(strata, rng.random(len(strata.codes)))


@single_blas_thread()
def k_center(unit: Vectors, strata: Strata, *, rng: np.random.Generator) -> Codes:
    """Rows far from each other: each next one has the smallest greatest cosine to those before (Gonzalez 1985).

    Without strata the largest distance of a row to its nearest chosen one is at most twice the least possible.
    """
    nearest = np.full(len(unit), -1.0)  # greatest cosine to a chosen row
    scores = rng.random(len(unit))  # the first row is drawn

    def update(row: int) -> None:
        np.maximum(nearest, unit @ unit[row], out=nearest)
        scores[np.isfinite(scores)] = -nearest[np.isfinite(scores)]

    return grow(strata, scores, update)


def take_best(strata: Strata, scores: Floats) -> Codes:
    """Of each stratum its quota of rows with the largest scores, the first of equals, sorted by row."""
    order = np.lexsort((np.arange(len(scores)), -scores, strata.codes))
    codes = strata.codes[order]
    place = rank_in_groups(codes)
    return np.sort(order[place < strata.quotas[codes]])


def rank_in_groups(codes: Codes) -> Codes:
    """Place of each entry among those of its code, from 0; equal codes stand together."""
    starts = np.flatnonzero(np.diff(codes, prepend=codes[:1] - 1))
    sizes = np.diff(np.append(starts, len(codes)))
    ranks: Codes = np.arange(len(codes)) - np.repeat(starts, sizes)
    return ranks


def _dense_centres(unit: Vectors, strata: Strata, groups: Codes, rng: np.random.Generator) -> Vectors:
    """For each group the mean of as many rows as it gives, around the drawn row to which such rows are nearest."""
    quotas = np.bincount(groups, weights=strata.quotas[strata.codes] / np.bincount(strata.codes)[strata.codes])
    centres = np.zeros((len(quotas), unit.shape[1]), dtype=np.float32)
    for group, quota in enumerate(np.rint(quotas).astype(int).tolist()):
        members = np.flatnonzero(groups == group)
        if not quota or not len(members):
            continue
        starts = rng.choice(members, min(len(members), _STARTS), replace=False)
        cosines = unit[members] @ unit[starts].T
        nearest = np.partition(cosines, len(members) - quota, axis=0)[len(members) - quota :]
        best = int(nearest.sum(axis=0).argmax())
        centres[group] = unit[members[np.argsort(-cosines[:, best], kind="stable")[:quota]]].mean(axis=0)
    return centres


def _centres(unit: Vectors, groups: Codes, rows: Codes) -> Vectors:
    centres = np.zeros((int(groups.max(initial=0)) + 1, unit.shape[1]), dtype=np.float64)
    np.add.at(centres, groups[rows], unit[rows])
    return centres.astype(np.float32)


def _closeness(unit: Vectors, groups: Codes, centres: Vectors) -> Floats:
    """The product of each row with its group's centre."""
    out = np.empty(len(unit))
    for start in range(0, len(unit), _CHUNK):
        part = slice(start, start + _CHUNK)
        out[part] = np.einsum("ij,ij->i", unit[part], centres[groups[part]])
    return out


# --- swaps ----------------------------------------------------------------------------------------
@single_blas_thread()
def improve_rows(
    unit: Vectors, strata: Strata, rows: Codes, objective: Objective, *, sign: int, rng: np.random.Generator
) -> tuple[Codes, float]:
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
    for _ in range(_ROUNDS):
        outside = np.setdiff1d(np.arange(len(unit)), rows, assume_unique=True)
        if len(outside) > _OUTSIDE:
            outside = np.sort(rng.choice(outside, _OUTSIDE, replace=False))
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


# --- levels ---------------------------------------------------------------------------------------
def most_diverse(unit: Vectors, strata: Strata, objective: Objective, rng: np.random.Generator) -> tuple[Codes, float]:
    """Rows that make the objective large: greedy, then swaps."""
    if isinstance(objective, DCScore):
        rows = greedy_dcscore(unit, strata, tau=objective.tau, rng=rng)
    else:
        rows = greedy_log_det(unit, strata, s=objective.s if isinstance(objective, LogDet) else 1.0)
    return improve_rows(unit, strata, rows, objective, sign=1, rng=rng)


def least_diverse(unit: Vectors, strata: Strata, objective: Objective, rng: np.random.Generator) -> tuple[Codes, float]:
    """Rows that make the objective small: compact, then swaps."""
    return improve_rows(unit, strata, compact_rows(unit, strata, objective, rng=rng), objective, sign=-1, rng=rng)


class Path:
    """Selections between the least and the most diverse one, through a random one, swap by swap.

    Step 0 is the least diverse selection, the last step the most diverse; in between, rows of one stratum are
    exchanged in a seeded order, first for those of a random selection, then for those of the most diverse. So
    low levels hold some of the densest rows, middle ones are close to a plain sample of the pool, high ones hold
    rows that are far from all others.
    """

    def __init__(
        self, unit: Vectors, strata: Strata, objective: Objective, stations: Sequence[Codes], rng: np.random.Generator
    ) -> None:
        self._unit = unit
        self._objective = objective
        self._stations = [np.sort(rows) for rows in stations]
        self._exchanges = [
            _exchange(strata, first, second, rng)
            for first, second in zip(self._stations[:-1], self._stations[1:], strict=True)
        ]
        self._values: dict[int, float] = {}

    @property
    def last(self) -> int:
        """The number of the last step."""
        return sum(len(leave) for leave, _ in self._exchanges)

    def rows(self, step: int) -> Codes:
        """The selection at a step, sorted."""
        for station, (leave, enter) in zip(self._stations, self._exchanges, strict=False):
            if step <= len(leave):
                kept = np.setdiff1d(station, leave[:step], assume_unique=True)
                return np.sort(np.concatenate([kept, enter[:step]]))
            step -= len(leave)
        return self._stations[-1]

    def value(self, step: int) -> float:
        """The objective at a step."""
        if step not in self._values:
            self._values[step] = self._objective.value(self._unit[self.rows(step)])
        return self._values[step]

    def nearest_step(self, target: float) -> int:
        """The step whose value is nearest to ``target``, by bisection: values rise along the path, or all but do."""
        low, high = 0, self.last
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.value(middle) < target else (low, middle)
        return min((low, high), key=lambda step: abs(self.value(step) - target))


def make_path(unit: Vectors, strata: Strata, objective: Objective, rng: np.random.Generator) -> Path:
    """The path of a pool: its least diverse, a random, and its most diverse selection."""
    low, low_value = least_diverse(unit, strata, objective, rng)
    high, high_value = most_diverse(unit, strata, objective, rng)
    middle = random_rows(strata, rng)
    between = low_value < objective.value(unit[middle]) < high_value
    stations = [low, middle, high] if between else [low, high]
    return Path(unit, strata, objective, stations, rng)


def _exchange(strata: Strata, first: Codes, second: Codes, rng: np.random.Generator) -> tuple[Codes, Codes]:
    """Rows to take out of the first selection and rows to put in, pair by pair of one stratum, in a random order."""
    leave = _shuffled_by_stratum(strata, np.setdiff1d(first, second, assume_unique=True), rng)
    enter = _shuffled_by_stratum(strata, np.setdiff1d(second, first, assume_unique=True), rng)
    order = rng.permutation(len(leave))
    return leave[order], enter[order]


def _shuffled_by_stratum(strata: Strata, rows: Codes, rng: np.random.Generator) -> Codes:
    order = np.lexsort((rng.random(len(rows)), strata.codes[rows]))
    return rows[order]


# --- nearest to the real data ---------------------------------------------------------------------
class ShiftObjective:
    """Squared MMD (Gretton et al. 2012) of chosen rows to real ones, RBF kernel ``exp(-|x - y|^2 / (2 sigma^2))``.

    Args:
        unit: the pool's unit rows, shape (n, d).
        real: the real unit rows, shape (m, d).
        seed: of the rows whose median distance is sigma.
    """

    def __init__(self, unit: Vectors, real: Vectors, *, seed: int = 0) -> None:
        self._unit = unit
        self._real = real
        self.bandwidth = median_distance(real, seed=seed)
        self.closeness = self._mean_kernel(unit)
        """Mean kernel of each pool row to the real rows, shape (n,)."""
        self._real_mean = float(self._mean_kernel(real).mean())

    def kernel(self, row: int) -> Floats:
        """The kernel of one pool row with all, shape (n,)."""
        return self._of_cosines(self._unit @ self._unit[row])

    def kernels(self, rows: Codes, others: Codes) -> Floats:
        """The kernel of pool rows with other pool rows, shape (rows, others)."""
        return self._gram(self._unit[rows], self._unit[others])

    def value(self, rows: Codes) -> float:
        """Squared MMD of the chosen rows, all pairs counted (the V-statistic, which cannot be negative)."""
        own = self._gram(self._unit[rows], self._unit[rows]).mean()
        return float(own - 2.0 * self.closeness[rows].mean() + self._real_mean)

    def _mean_kernel(self, rows: Vectors) -> Floats:
        parts = [
            self._gram(rows[i : i + _REAL_CHUNK], self._real).mean(axis=1) for i in range(0, len(rows), _REAL_CHUNK)
        ]
        return np.concatenate(parts)

    def _gram(self, rows: Vectors, columns: Vectors) -> Floats:
        return self._of_cosines(rows @ columns.T)

    def _of_cosines(self, cosines: Vectors) -> Floats:
        found: Floats = np.exp((np.minimum(cosines.astype(np.float64), 1.0) - 1.0) / self.bandwidth**2)
        return found


@single_blas_thread()
def lowest_shift(unit: Vectors, real: Vectors, strata: Strata, *, seed: int) -> Codes:
    """Rows, each of weight 1 / k, whose squared MMD to the real rows is as small as herding and swaps find.

    Herding (Welling 2009; Chen, Welling and Smola 2010, arXiv 1203.3472) takes the row that lowers the MMD most, over
    and over; then the chosen row whose leaving and the row of its stratum whose entering lower it most are swapped
    while that helps.

    Args:
        unit: the pool's unit rows.
        real: real training rows as unit rows.
        strata: whose quotas are taken.
        seed: of the bandwidth's rows.

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
    return np.sort(_swap_rows(objective, strata, rows, drawn))


def _swap_rows(objective: ShiftObjective, strata: Strata, rows: Codes, drawn: Floats) -> Codes:
    """The best single swap, as long as one lowers the MMD; ``drawn`` are kernel sums with all chosen rows."""
    chosen = np.zeros(len(strata.codes), dtype=bool)
    chosen[rows] = True
    k = len(rows)
    for _ in range(_SWAPS):
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
