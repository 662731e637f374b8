"""Weights of rows that bring them as near to the real data as weights can: a convex problem, solved to a known gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus, label_strata
from cuvee.errors import InputError
from cuvee.records import Vectors
from cuvee.similarity import median_distance, single_blas_thread, unit_rows

Codes: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
TOLERANCE = 1e-3
"""The largest gap left, as a part of the squared MMD at equal weights."""
STEPS = 50_000
"""The most steps for one label."""
_CACHE = 2**28  # bytes of kernel columns kept
_CELLS = 2**22  # kernel values made at a time
_SAME = 1e-9  # a curvature below it is that of two equal rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Weights of one simplex.

    Attributes:
        weights: not negative, of sum 1, shape (n,).
        gap: no weights have a squared MMD lower than these by more than this (the Frank-Wolfe duality gap).
        steps: that were taken.
    """

    weights: Floats
    gap: float
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighting:
    """Weights of the rows of a pool.

    Attributes:
        weights: not negative, of mean 1 within each label, shape (n,).
        value: squared MMD to the real rows, the mean over labels by their rows in the pool.
        equal: the same where every row weighs 1.
        gap: how far ``value`` may lie above the lowest that weights can reach.
        steps: of the search, over all labels.
    """

    weights: Floats
    value: float
    equal: float
    gap: float
    steps: int

    @property
    def effective_rows(self) -> float:
        """Rows of weight 1 that would vary an average as little as these do (Kish 1965): (sum w)^2 / sum w^2."""
        return float(self.weights.sum() ** 2 / (self.weights @ self.weights))

    def __str__(self) -> str:
        n, zero = len(self.weights), int((self.weights == 0).sum())
        return (
            f"weights of {n} rows: squared MMD to the real rows {self.value:.5f} (equal weights {self.equal:.5f}, "
            f"at most {self.gap:.1g} above the least possible); {zero} rows weigh 0, the largest weight is "
            f"{self.weights.max():.3g}, and the rows count as {self.effective_rows:.0f} of equal weight"
        )


@single_blas_thread()
def lowest_shift_weights(
    pool: Corpus,
    vectors: Vectors,
    real: Corpus,
    real_vectors: Vectors,
    *,
    bandwidth: float | None = None,
    tolerance: float = TOLERANCE,
    max_steps: int = STEPS,
    seed: int = 0,
) -> Weighting:
    """Weights of all rows of ``pool`` that make its squared MMD to the real training rows smallest, label by label.

    The aim of SynAlign (arXiv 2502.08661). Within a label the weights are not negative and sum to its rows, so labels
    keep their parts of the pool exactly; each label is brought near the real rows of that label (all rows are one
    label where the task has none). The problem is convex; see :func:`nearest_mixture`.

    Args:
        pool: the rows to weigh.
        vectors: of its rows, shape (n, d).
        real: real training rows.
        real_vectors: of these, shape (m, d).
        bandwidth: sigma of the RBF kernel ``exp(-|x - y|^2 / (2 sigma^2))``; None takes the median distance of the
            real rows.
        tolerance: the gap to stop at, as a part of the squared MMD at equal weights, above 0.
        max_steps: for one label; where they do not suffice, ``gap`` says how far off the weights are.
        seed: of the rows that the median is taken of.

    Raises:
        InputError: the pool has no rows, or a label that the real rows lack.
        ValueError: vectors that do not fit, or numbers out of range.
    """
    for name, given, corpus in (("vectors", vectors, pool), ("real_vectors", real_vectors, real)):
        if len(given) != len(corpus):
            raise ValueError(f"{name} has {len(given)} rows for a corpus of {len(corpus)}; give one a row")
    if not len(pool):
        raise InputError("the pool has no rows to weigh; give it some, or remove less of it")
    strata, known = label_strata(pool), label_strata(real)
    missing = sorted(set(strata) - set(known))
    if missing:
        raise InputError(
            f"weights bring each label near the real rows of that label, and there is no real row "
            f"{'of label ' + repr(missing[0]) if missing[0] else 'at all'}; drop those rows, or give more real ones"
        )
    unit, target = unit_rows(vectors), unit_rows(real_vectors)
    sigma = bandwidth if bandwidth is not None else median_distance(target, seed=seed)
    weights = np.empty(len(pool))
    value = equal = gap = 0.0
    steps = 0
    for label in sorted(set(strata)):
        rows, others = _places(strata, label), _places(known, label)
        found = _weigh_label(unit[rows], target[others], sigma, tolerance, max_steps)
        part = len(rows) / len(pool)
        weights[rows] = found.weights * len(rows)
        value, equal, gap = value + part * found.value, equal + part * found.equal, gap + part * found.gap
        steps += found.steps
    return Weighting(weights=weights, value=value, equal=equal, gap=gap, steps=steps)


def nearest_mixture(
    unit: Vectors, closeness: Floats, *, bandwidth: float, tolerance: float, max_steps: int = STEPS
) -> Mixture:
    """Weights p of sum 1 that make ``p^T K p - 2 p^T c`` smallest, by pairwise Frank-Wolfe steps.

    Each step moves weight between two rows, by exact line search: to the row along which the objective falls most, from
    the row that promises the largest fall with it (Lacoste-Julien and Jaggi 2015, arXiv 1511.05932, which shows linear
    convergence; the second-order choice of the pair is that of Fan, Chen and Lin 2005, JMLR 6). It begins at the one
    best row, so that the rows with weight stay few, and only their kernel columns are ever made.

    Args:
        unit: unit rows, shape (n, d).
        closeness: c, the mean kernel of each row to the target, shape (n,).
        bandwidth: of the RBF kernel K.
        tolerance: stop when the duality gap is no larger, above 0.
        max_steps: stop at the latest after these.

    Raises:
        ValueError: tolerance or max_steps out of range.
    """
    if not tolerance > 0 or max_steps < 1:
        raise ValueError(f"tolerance is {tolerance!r} and max_steps {max_steps!r}; both must be positive")
    columns = _Columns(unit, bandwidth)
    weights = np.zeros(len(unit))
    enter = int(closeness.argmax())
    weights[enter] = 1.0
    slope = columns.get(enter) - closeness  # half of the gradient
    gap, steps = np.inf, 0
    while True:
        enter = int(slope.argmin())
        active = np.flatnonzero(weights)
        gap = 2.0 * float(weights[active] @ slope[active] - slope[enter])
        if gap <= tolerance or steps == max_steps:
            break
        column = columns.get(enter)
        fall = slope[active] - slope[enter]
        curvature = np.maximum(2.0 - 2.0 * column[active], _SAME)
        place = int((np.maximum(fall, 0.0) ** 2 / curvature).argmax())
        leave = int(active[place])
        step = min(float(weights[leave]), float(fall[place] / curvature[place]))
        weights[enter] += step
        weights[leave] = 0.0 if step >= weights[leave] else weights[leave] - step
        slope += step * (column - columns.get(leave))
        steps += 1
    return Mixture(weights=weights / weights.sum(), gap=max(gap, 0.0), steps=steps)


# --- parts ----------------------------------------------------------------------------------------
def _places(strata: Sequence[str], label: str) -> Codes:
    return np.flatnonzero(np.array(strata) == label).astype(np.int64)


def _weigh_label(unit: Vectors, target: Vectors, sigma: float, tolerance: float, max_steps: int) -> Weighting:
    """Weights of sum 1 of one label's rows, with squared MMDs."""
    closeness = mean_kernel(unit, target, sigma)
    own = float(mean_kernel(target, target, sigma).mean())
    equal = float(mean_kernel(unit, unit, sigma).mean() - 2.0 * closeness.mean()) + own
    # where the pool is the real data itself, equal weights leave nothing to gain but rounding
    least = max(tolerance * equal, 1e-12)
    found = nearest_mixture(unit, closeness, bandwidth=sigma, tolerance=least, max_steps=max_steps)
    value = weighted_mmd(unit, found.weights, target, sigma)
    if value > equal:  # a search that was cut short
        weights = np.full(len(unit), 1.0 / len(unit))
        return Weighting(weights=weights, value=equal, equal=equal, gap=found.gap, steps=found.steps)
    return Weighting(weights=found.weights, value=value, equal=equal, gap=found.gap, steps=found.steps)


def weighted_mmd(unit: Vectors, weights: Floats, target: Vectors, bandwidth: float) -> float:
    """Squared MMD (the V-statistic, all pairs counted) of weighted rows to rows of equal weight.

    Args:
        unit: unit rows, shape (n, d).
        weights: of these, not negative, shape (n,); only their ratios matter.
        target: unit rows, shape (m, d).
        bandwidth: of the RBF kernel.
    """
    rows = np.flatnonzero(weights)
    part, own = weights[rows] / weights[rows].sum(), unit[rows]
    inner = float(part @ mean_kernel(own, own, bandwidth, weights=part))
    across = float(part @ mean_kernel(own, target, bandwidth))
    return inner - 2.0 * across + float(mean_kernel(target, target, bandwidth).mean())


def mean_kernel(rows: Vectors, columns: Vectors, bandwidth: float, *, weights: Floats | None = None) -> Floats:
    """Mean kernel of each row to all columns, weighted where ``weights`` of sum 1 are given, shape (rows,).

    Made in tiles: no more than a few million kernel values are in memory at a time.
    """
    part = np.full(len(columns), 1.0 / len(columns)) if weights is None else weights
    out = np.empty(len(rows))
    size = max(1, _CELLS // max(1, len(columns)))
    for start in range(0, len(rows), size):
        tile = _kernel(rows[start : start + size] @ columns.T, bandwidth)
        # sums in float64: the values are near each other, and so are the means that are subtracted
        out[start : start + len(tile)] = np.einsum("ij,j->i", tile, part, dtype=np.float64)
    return out


def _kernel(cosines: Vectors, bandwidth: float) -> Vectors:
    """``exp((cos - 1) / sigma^2)``, in place."""
    cosines -= 1.0
    np.minimum(cosines, 0.0, out=cosines)
    cosines /= cosines.dtype.type(bandwidth**2)
    return np.exp(cosines, out=cosines)


class _Columns:
    """Columns of the kernel matrix, made when they are first wanted; those not wanted for longest are let go."""

    def __init__(self, unit: Vectors, bandwidth: float) -> None:
        self._unit, self._bandwidth = unit, bandwidth
        self._room = max(8, _CACHE // max(1, unit.dtype.itemsize * len(unit)))
        self._kept: dict[int, Vectors] = {}

    def get(self, row: int) -> Vectors:
        """The kernel of a row with all rows, shape (n,)."""
        found = self._kept.pop(row, None)
        if found is None:
            found = _kernel(self._unit @ self._unit[row], self._bandwidth)
            found[row] = 1.0
            if len(self._kept) >= self._room:
                del self._kept[next(iter(self._kept))]
        self._kept[row] = found
        return found
