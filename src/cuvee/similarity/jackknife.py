"""The grouped jackknife: intervals on numbers whose rows come in groups."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.fingerprint import derive_rng

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95% interval and the standard error it is made of."""

    low: float
    high: float
    se: float


def jackknife_bins(groups: Sequence[str], *, n_bins: int = 64, seed: int = 0) -> NDArray[np.int64]:
    """Bin of each row, shape (n,): whole groups, dealt so that at most ``n_bins`` bins have about equal size."""
    if n_bins < 2:
        raise ValueError(f"n_bins is {n_bins!r}; a jackknife needs at least 2")
    sizes: dict[str, int] = {}
    for name in groups:
        sizes[name] = sizes.get(name, 0) + 1
    names = list(sizes)
    shuffled = [names[i] for i in derive_rng(seed, "jackknife").permutation(len(names))]
    shuffled.sort(key=lambda name: -sizes[name])
    heap = [(0, b) for b in range(min(n_bins, len(names)))]
    bin_of: dict[str, int] = {}
    for name in shuffled:
        filled, b = heap[0]
        heapq.heapreplace(heap, (filled + sizes[name], b))
        bin_of[name] = b
    return np.array([bin_of[name] for name in groups], dtype=np.int64)


def jackknife_interval(value: float, without: Floats, bins: NDArray[np.int64]) -> Interval | None:
    """Value +- t quantile x standard error, from the values with each bin left out.

    The standard error is the delete-one-bin jackknife's; for bins of unequal size the delete-m_j jackknife
    (Busing, Meijer and van der Leeden 1999), which equals it for equal ones. None below four bins, or where a
    left-out value is not finite.

    Args:
        value: the statistic on all rows.
        without: shape (g,), the statistic with bin b left out.
        bins: bin of each row, shape (n,).
    """
    from scipy.special import stdtrit

    g = len(without)
    if g < 4 or not np.isfinite(without).all():
        return None
    h = len(bins) / np.bincount(bins, minlength=g)
    pseudo = h * value - (h - 1.0) * without
    centre = g * value - float(np.sum((1.0 - 1.0 / h) * without))
    se = float(np.sqrt(np.mean((pseudo - centre) ** 2 / (h - 1.0))))
    half = float(stdtrit(g - 1, 0.975)) * se
    return Interval(value - half, value + half, se)


def two_sample_interval(
    value: float, first: Interval, first_bins: int, second: Interval, second_bins: int, *, widen: float = 1.0
) -> Interval:
    """95% interval of a number of two independent samples, from the jackknife of each.

    The two variances add; t quantile with Satterthwaite's degrees of freedom.

    Args:
        value: the number on all rows of both.
        first, second: intervals of ``value`` with bins of one sample left out.
        first_bins, second_bins: how many bins each sample has.
        widen: factor on the standard error, where the left-out values do not show all of it.
    """
    from scipy.special import stdtrit

    sides = [(first.se**2, first_bins - 1), (second.se**2, second_bins - 1)]
    variance = sum(v for v, _ in sides)
    if variance == 0:
        return Interval(value, value, 0.0)
    df = variance**2 / sum(v**2 / f for v, f in sides)
    se = widen * float(np.sqrt(variance))
    half = float(stdtrit(df, 0.975)) * se
    return Interval(value - half, value + half, se)
