"""Jackknife estimates over bins other than the subject's own: of parts, of merged bins, of two corpora."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.subject import MIN_BINS
from cuvee.records import Estimate
from cuvee.similarity import Interval, jackknife_interval, two_sample_interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A statistic with each bin left out in turn, shape (bins,), and the bin of each row, shape (n,)."""

    without: Floats
    bins: Ints

    @property
    def count(self) -> int:
        """Bins."""
        return len(self.without)

    def interval(self, value: float) -> Interval | None:
        """The interval on ``value``; None below four bins or where a left-out value is not defined."""
        return jackknife_interval(value, self.without, self.bins) if self.count >= MIN_BINS else None


def estimate_over_bins(value: float, left_out: LeftOut, settings: Mapping[str, str | int | float]) -> Estimate:
    """``value`` with its grouped-jackknife interval, where there is one."""
    found, n = left_out.interval(value), len(left_out.bins)
    if found is None:
        return Estimate(value=value, n=n, settings=dict(settings))
    return Estimate(
        value=value, low=found.low, high=found.high, n=n, interval=f"grouped jackknife, {left_out.count} bins",
        settings=dict(settings),
    )  # fmt: skip


def estimate_over_both(
    value: float, first: LeftOut, second: LeftOut, settings: Mapping[str, str | int | float], *, n: int
) -> Estimate:
    """``value``, a number of two independent samples, with an interval for the chance in both.

    The two jackknife variances add; t quantile with Satterthwaite's degrees of freedom.
    """
    one, other = first.interval(value), second.interval(value)
    if one is None or other is None:
        return Estimate(value=value, n=n, settings=dict(settings))
    found = two_sample_interval(value, one, first.count, other, second.count)
    return Estimate(
        value=value, low=found.low, high=found.high, n=n,
        interval=f"grouped jackknife of both sides, {first.count} and {second.count} bins",
        settings=dict(settings),
    )  # fmt: skip


def left_out_everywhere(present: Ints, without: Floats, value: float, count: int) -> Floats:
    """Left-out values of the bins ``present`` among ``count`` bins; leaving out another bin changes nothing."""
    out = np.full(count, value)
    out[present] = without
    return out
