"""Intervals that the plain jackknife of all bins does not give: merged bins, sampled rows, rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.intervals import wilson_interval
from cuvee.measure.subject import Subject
from cuvee.records import Estimate
from cuvee.similarity import jackknife_interval

MERGED = 16
Settings = Mapping[str, str | float]


def merge_bins(subject: Subject) -> NDArray[np.int64]:
    """The jackknife bins merged to at most 16, for numbers that must be computed anew for each bin; shape (n,)."""
    return subject.bins % MERGED


def estimate_with_bins(
    subject: Subject,
    value: float,
    without: Callable[[], NDArray[np.float64]],
    bins: NDArray[np.int64],
    settings: Settings,
) -> Estimate:
    """``value`` with its delete-one-bin jackknife interval over other bins than the subject's.

    Args:
        subject: gives the number of rows; where it has too few groups there is no interval.
        value: the number on all rows that ``bins`` covers.
        without: makes the numbers with each bin left out, shape (bins,); not called where no interval is due.
        bins: bin of each row the number was computed on: merged bins, or those of sampled rows.
        settings: what the number was computed with.
    """
    found = jackknife_interval(value, without(), bins) if subject.has_intervals else None
    if found is None:
        return Estimate(value=value, n=subject.n, settings=dict(settings))
    return Estimate(
        value=value, low=found.low, high=found.high, n=subject.n,
        interval=f"grouped jackknife, {int(bins.max()) + 1} bins", settings=dict(settings),
    )  # fmt: skip


def estimate_pair_rate(
    subject: Subject, rate: float, without: Callable[[], NDArray[np.float64]], settings: Settings
) -> Estimate:
    """A rate of rows that have a partner, with the Wilson interval at its effective number of rows.

    Such rows come in twos and more, so they are not independent hits even where groups are single rows: the
    effective number is that at which the binomial variance equals the jackknife variance, at most n. Where no
    or all rows are hits it is unknown and the number of groups counts. No interval below four groups.

    Args:
        subject: gives the rows, bins and groups.
        rate: the fraction of rows, 0 to 1.
        without: makes the rates with each bin left out, shape (bins,); not called where no interval is due.
        settings: what the rate was computed with.
    """
    if not subject.has_intervals:
        return Estimate(value=rate, n=subject.n, settings=dict(settings))
    effective = float(len(set(subject.corpus.groups)))
    if 0.0 < rate < 1.0:
        found = jackknife_interval(rate, without(), subject.bins)
        effective = float(subject.n)
        if found is not None and found.se > 0:
            effective = min(effective, rate * (1.0 - rate) / found.se**2)
    low, high = wilson_interval(rate, max(1.0, effective))
    method = f"Wilson, {effective:.0f} effective rows"
    return Estimate(value=rate, low=low, high=high, n=subject.n, interval=method, settings=dict(settings))
