"""What a selection makes large or small, what it holds fixed, and how rows are found.

Rows of each label, and of each length within it, are fixed. Rows are found greedily, compact, spread out or at random,
then by swaps; levels lie between the extremes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus, label_strata, split_tokens
from cuvee.errors import InputError
from cuvee.mix.blend import apportion_rows
from cuvee.records import Vectors
from cuvee.similarity import log_det, median_distance, single_blas_thread, spectrum, vendi_score

Codes: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
_TILE = 2048
_OUTSIDE = 4096  # rows outside the selection that one round of swaps looks at
_ROUNDS = 60
_MOVES = 12  # of the centres of compact rows
_PATIENCE = 4  # rounds in a row without a gain worth having
_WORTH = 2e-4  # of the value
_CHUNK = 16_384
_LOOK = 32  # rows of a stratum that may leave, and that may enter, in one look
_SWAPS = 400  # after herding
_STARTS = 128  # places where a dense region is looked for


class Objective(Protocol):
    """A diversity of a set of unit rows."""

    def value(self, chosen: Vectors) -> float:
        """Of the chosen rows, shape (k, d)."""

    def contributions(self, chosen: Vectors, others: Vectors) -> tuple[Floats, Floats]:
        """What each chosen row adds to the rest of them, shape (k,), and each other row would add, shape (m,).

        To first order: the unit is that of the objective or of any rising function of it.
        """


class Vendi:
    """Vendi score of order 1 (arXiv 2210.02410) with the cosine kernel, exact."""

    def value(self, chosen: Vectors) -> float:
        """Of the chosen rows."""
        return vendi_score(spectrum(chosen), 1.0)

    @single_blas_thread()
    def contributions(self, chosen: Vectors, others: Vectors) -> tuple[Floats, Floats]:
        """The derivative of the entropy of C = X^T X / k along x x^T, ``-x^T log(C) x``.

        Eigenvalues below half a row count as half a row: a direction that nothing fills is not infinitely good.
        """
        k = len(chosen)
        gram = chosen.astype(np.float64).T @ chosen.astype(np.float64) / k
        values, vectors = np.linalg.eigh(gram)
        basis, scale = vectors.astype(np.float32), -np.log(np.maximum(values, 0.5 / k)).astype(np.float32)
        return _quadratic(chosen, basis, scale), _quadratic(others, basis, scale)


class LogDet:
    """``log det(I + K) / k`` of the cosine kernel: the log-volume of a determinantal point process."""

    def value(self, chosen: Vectors) -> float:
        """Of the chosen rows, per row."""
        return log_det(spectrum(chosen), len(chosen))

    @single_blas_thread()
    def contributions(self, chosen: Vectors, others: Vectors) -> tuple[Floats, Floats]:
        """``-log(1 - l)`` with a chosen row's leverage l, and ``log(1 + x^T A^-1 x)`` of another, both exact."""
        data = chosen.astype(np.float64)
        values, vectors = np.linalg.eigh(np.eye(data.shape[1]) + data.T @ data)
        basis, scale = vectors.astype(np.float32), (1.0 / values).astype(np.float32)
        leverage = np.minimum(_quadratic(chosen, basis, scale), 1.0 - 1e-7)
        return -np.log1p(-leverage), np.log1p(_quadratic(others, basis, scale))


class Shift:
    """Squared MMD (Gretton et al. 2012) to real rows, RBF kernel ``exp(-|x - y|^2 / (2 sigma^2))``, all pairs counted.

    Args:
        real: the real unit rows, shape (m, d).
        seed: of the rows whose median distance is sigma.
    """

    def __init__(self, real: Vectors, *, seed: int = 0) -> None:
        self._real, self._bandwidth = real, median_distance(real, seed=seed)
        self._real_mean = float(self.closeness(real).mean())

    def closeness(self, rows: Vectors) -> Floats:
        """Mean kernel of each row to the real rows, shape (n,)."""
        return self._mean_kernel(rows, self._real)

    def kernel(self, rows: Vectors, columns: Vectors) -> Floats:
        """The kernel of each row with each column, shape (rows, columns)."""
        cosines = np.minimum((rows @ columns.T).astype(np.float64), 1.0)
        return np.asarray(np.exp((cosines - 1.0) / self._bandwidth**2))

    def value(self, chosen: Vectors) -> float:
        """Of the chosen rows; it cannot be negative."""
        own = self._mean_kernel(chosen, chosen).mean()
        return float(own - 2.0 * self.closeness(chosen).mean() + self._real_mean)

    def _mean_kernel(self, rows: Vectors, columns: Vectors) -> Floats:
        parts = [self.kernel(rows[i : i + _TILE], columns).mean(axis=1) for i in range(0, len(rows), _TILE)]
        return np.concatenate(parts)


def _quadratic(rows: Vectors, basis: Vectors, scale: Vectors) -> Floats:
    """``x^T B diag(scale) B^T x`` of each row, a bounded number of rows at a time."""
    out = np.empty(len(rows))
    for start in range(0, len(rows), _TILE):
        part = rows[start : start + _TILE] @ basis
        out[start : start + len(part)] = (part * part) @ scale
    return out


# What a selection can be steered by.
OBJECTIVES: Mapping[str, Objective] = {"vendi": Vendi(), "log_det": LogDet()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Strata:
    """A pool in strata, from each of which a selection takes a fixed number of rows.

    Attributes:
        codes: stratum of each row, shape (n,).
        quotas: rows that a selection takes of each stratum, shape (strata,).
        words: words of each row, shape (n,).
        labels: label of each row, as its number, shape (n,).
    """

    codes: Codes
    quotas: Codes
    words: Codes
    labels: Codes

    @property
    def rows(self) -> int:
        """Rows of a selection."""
        return int(self.quotas.sum())

    def length_difference(self, chosen: Codes) -> float:
        """Standardised mean difference in words between chosen rows and the pool at the same label counts.

        The pool's rows are weighted so that each label weighs what it does among the chosen rows. The difference of
        the means over the standard deviation of the weighted pool (Cohen's d with the pool as reference); 0 where all
        rows are of one length.
        """
        sizes = np.bincount(self.labels)
        taken = np.bincount(self.labels[chosen], minlength=len(sizes))
        weights = (taken / np.maximum(sizes, 1))[self.labels]
        weights = weights / weights.sum()
        mean = float(weights @ self.words)
        spread = float(np.sqrt(weights @ (self.words - mean) ** 2))
        # weights are rounded, so lengths that are all the same spread by about the rounding of their mean
        return abs(float(self.words[chosen].mean()) - mean) / spread if spread > 1e-9 * mean else 0.0


def make_strata(pool: Corpus, wanted: Mapping[str, int], *, bins: int) -> Strata:
    """Strata of a pool: labels (all rows, for tasks without), each cut into bins of length with about as many rows.

    A label's rows are shared out over its bins in proportion to what the pool has there, so that every selection has
    the pool's distribution of lengths.

    Args:
        pool: the rows to choose from.
        wanted: label -> rows of a selection.
        bins: of length, for each label; 1 leaves length free.

    Raises:
        InputError: a label that the pool does not have, or has too few rows of, with the most that it has.
        ValueError: no rows are wanted, or bins below 1.
    """
    members_of = label_strata(pool)
    counts = Counter(members_of)
    if bins < 1 or not wanted or min(wanted.values()) < 0 or not any(wanted.values()):
        raise ValueError(f"bins is {bins!r} and wanted {dict(wanted)!r}; both must be positive")
    for label, rows in wanted.items():
        if rows > counts.get(label, 0):
            raise InputError(
                f"label {label!r}: {rows} rows were asked for, the pool has {counts.get(label, 0)}; ask for fewer, "
                "or give a larger pool"
            )
    words = np.array([len(split_tokens(text)) for text in pool.texts], dtype=np.int64)
    names = sorted(counts)
    labels = np.searchsorted(names, members_of).astype(np.int64)
    codes = np.full(len(pool), -1, dtype=np.int64)
    quotas: list[int] = []
    for number, label in enumerate(names):
        members = np.flatnonzero(labels == number)
        # each bin should give some rows: a few-shot label has fewer bins
        parts = min(bins, max(1, wanted.get(label, 0) // 2))
        cuts = np.quantile(words[members], np.linspace(0, 1, parts + 1)[1:-1]) if parts > 1 else np.array([])
        _, bin_of = np.unique(np.searchsorted(cuts, words[members], side="left"), return_inverse=True)
        sizes = np.bincount(bin_of)
        share = apportion_rows({str(i): int(size) for i, size in enumerate(sizes)}, wanted.get(label, 0))
        codes[members] = bin_of + len(quotas)
        quotas += share.values()
    return Strata(codes=codes, quotas=np.array(quotas, dtype=np.int64), words=words, labels=labels)


# --- beginnings: all take the strata's quotas exactly ---------------------------------------------
def grow(strata: Strata, scores: Floats, update: Callable[[int], None]) -> Codes:
    """Take the row of the largest score in a stratum that is not full, ``update`` the scores, and so on.

    Args:
        strata: whose quotas are taken.
        scores: of each row, shape (n,), changed in place by ``update`` (closed rows hold -inf, and stay there).
        update: called with the row that was taken.
    """
    left = strata.quotas.copy()
    is_open = left[strata.codes] > 0
    taken = np.empty(strata.rows, dtype=np.int64)
    for number in range(strata.rows):
        scores[~is_open] = -np.inf
        row = int(scores.argmax())  # the first of equals
        taken[number] = row
        _close(is_open, left, strata, row)
        if number + 1 < strata.rows:
            update(row)
    return taken


def _close(is_open: NDArray[np.bool_], left: Codes, strata: Strata, row: int) -> None:
    """Take an open row, and close its stratum if it is full."""
    stratum = strata.codes[row]
    left[stratum] -= 1
    is_open[row if left[stratum] else strata.codes == stratum] = False


@single_blas_thread()
def greedy_log_det(unit: Vectors, strata: Strata) -> Codes:
    """Rows that greedily make log det(I + K) of the cosine kernel largest; the choice of plain greedy, exactly.

    The gain of x is ``log(1 + x^T A^-1 x)`` with ``A = I + X^T X`` of the rows taken so far. All gains are
    kept up to date by the rank-one rule (Sherman and Morrison 1950; Chen et al. 2018, arXiv 1709.05135, for the same
    in the n x n form): O(n d) a row taken, and no n x n matrix.
    """
    inverse = np.eye(unit.shape[1])
    forms = np.einsum("ij,ij->i", unit, unit, dtype=np.float64)

    def update(row: int) -> None:
        nonlocal inverse
        direction = inverse @ unit[row].astype(np.float64)
        scale = 1.0 + float(unit[row].astype(np.float64) @ direction)
        inverse -= np.outer(direction, direction) / scale
        along = unit @ direction.astype(np.float32)
        np.subtract(forms, along.astype(np.float64) ** 2 / scale, out=forms)

    return grow(strata, forms, update)


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
    return np.asarray(np.arange(len(codes)) - np.repeat(starts, sizes))


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


# --- nearest to the real data ---------------------------------------------------------------------
@single_blas_thread()
def lowest_shift(unit: Vectors, strata: Strata, objective: Shift) -> Codes:
    """Rows, each of weight 1 / k, whose squared MMD to the real rows is as small as herding and swaps find.

    Herding (Welling 2009; Chen, Welling and Smola 2010, arXiv 1203.3472) takes the row that lowers the MMD most, over
    and over; then the chosen row whose leaving and the row of its stratum whose entering lower it most are swapped
    while that helps.
    """
    closeness = objective.closeness(unit)
    drawn = np.zeros(len(unit))  # sum of kernels with the rows chosen so far
    scores = closeness.copy()
    count = 0

    def kernel(row: int) -> Floats:
        return objective.kernel(unit, unit[row : row + 1])[:, 0]

    def update(row: int) -> None:
        nonlocal count
        count += 1
        np.add(drawn, kernel(row), out=drawn)
        scores[np.isfinite(scores)] = (closeness - drawn / (count + 1))[np.isfinite(scores)]

    rows = grow(strata, scores, update)
    drawn += kernel(int(rows[-1]))
    chosen = np.zeros(len(unit), dtype=bool)
    chosen[rows] = True
    for _ in range(_SWAPS):
        found = _best_swap(unit, strata, objective, chosen, drawn - len(rows) * closeness)
        if found is None:
            break
        leave, enter = found
        chosen[leave], chosen[enter] = False, True
        drawn += kernel(enter) - kernel(leave)
    return np.flatnonzero(chosen)


def _best_swap(
    unit: Vectors, strata: Strata, objective: Shift, chosen: NDArray[np.bool_], cost: Floats
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
        kernel = objective.kernel(unit[leave[code]], unit[enter[code]])
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
