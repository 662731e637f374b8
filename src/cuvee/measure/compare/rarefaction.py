"""Rarefaction: numbers of n rows as the mean over draws, and the interval that such a mean deserves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.intervals import wilson_interval
from cuvee.measure.subject import Subject
from cuvee.records import Estimate

_Z = 1.959963984540054


class PointSubject(Subject):
    """A subject measured without intervals: with a single jackknife bin there is nothing to leave out.

    The jackknife is nearly all of the time that a draw takes, and its variance is much the same in every draw.
    """

    @cached_property
    def bins(self) -> NDArray[np.int64]:
        """One bin for all rows, shape (n,)."""
        return np.zeros(self.n, dtype=np.int64)

    @cached_property
    def against_bins(self) -> NDArray[np.int64]:
        """One bin for all real rows, shape (m,)."""
        return np.zeros(len(self.real), dtype=np.int64)


def mean_of_draws(draws: Sequence[Estimate], *, fraction: float, size: int) -> Estimate:
    """The expected number of n rows of the population, from draws of n of the corpus's N rows.

    The mean over B draws is an incomplete U-statistic of degree n. With V the variance of the number on one
    independent sample of n rows, the mean over *all* draws has a variance of at most (n / N) V (Hoeffding
    1948, Annals of Mathematical Statistics 19, section 5), and B draws at random add what the mean over all of
    them has less than V, over B:

        var <= V (f + (1 - f) / B),  f = n / N.

    V is the jackknife's (or Wilson's) of the first draw, which is conservative (Efron and Stein 1981, Annals
    of Statistics 9); quantiles and skewness stay those of that interval. At f = 1 or B = 1 it is the interval
    of one sample, as it should be.

    Args:
        draws: the number on each draw; only the first needs its interval.
        fraction: f, of the corpus in one draw.
        size: N, rows of the corpus.
    """
    first = draws[0]
    if len(draws) == 1:
        return first
    value = float(np.mean([estimate.value for estimate in draws]))
    settings = {**first.settings, "draws": len(draws)}
    bare = Estimate(value=value, n=first.n, settings=settings)
    if first.low is None or first.high is None:
        return bare
    if first.low == first.high and any(estimate.value != first.value for estimate in draws):
        return bare  # a first draw without a single hit knows nothing of the variance
    reduction = fraction + (1.0 - fraction) / len(draws)
    if first.interval.startswith("Wilson"):
        low, high = wilson_interval(value, _effective_rows(first.value, first.low, first.high) / reduction)
    else:
        scale = float(np.sqrt(reduction))
        low, high = value - scale * (first.value - first.low), value + scale * (first.high - first.value)
    method = f"{first.interval}; mean of {len(draws)} draws from {size} rows"
    return replace(bare, low=low, high=high, interval=method)


def subtract_estimates(estimate: Estimate, first: Estimate) -> Estimate:
    """``estimate`` less ``first``, two independent numbers, with the interval made of both intervals.

    MOVER, "method of variance estimates recovery" (Zou and Donner 2008, Statistics in Medicine 27), which adds
    the variances on each side and so keeps skewed intervals of rates. Where both corpora are held against the
    same real rows, or share rows of their own, the numbers rise and fall together and the interval is too wide
    rather than too narrow.
    """
    value = estimate.value - first.value
    bare = Estimate(value=value, n=estimate.n, settings=dict(estimate.settings))
    if estimate.low is None or estimate.high is None or first.low is None or first.high is None:
        return bare
    below = np.hypot(estimate.value - estimate.low, first.high - first.value)
    above = np.hypot(estimate.high - estimate.value, first.value - first.low)
    return replace(bare, low=value - float(below), high=value + float(above), interval="both intervals (MOVER)")


def subtract_first(estimates: Sequence[Estimate | None]) -> tuple[Estimate | None, ...]:
    """Each estimate less the first one; None for the first itself and where either is not there."""
    first = estimates[0]
    return (
        None,
        *(None if e is None or first is None else subtract_estimates(e, first) for e in estimates[1:]),
    )


def _effective_rows(rate: float, low: float, high: float) -> float:
    """The number of rows whose Wilson interval of ``rate`` has this width.

    With ``a = z^2 / n`` and h the half-width, ``h (1 + a) = sqrt(rate (1 - rate) a + a^2 / 4)``: a quadratic with
    one positive root.
    """
    half = (high - low) / 2
    square, linear, constant = half**2 - 0.25, 2 * half**2 - rate * (1 - rate), half**2
    root = (-linear - np.sqrt(linear**2 - 4 * square * constant)) / (2 * square)
    return float(_Z**2 / root)
