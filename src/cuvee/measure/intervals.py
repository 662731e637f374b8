"""95% intervals on measured numbers: the grouped jackknife, and Wilson for rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.subject import MIN_BINS, Subject
from cuvee.records import Estimate
from cuvee.similarity import jackknife_interval, two_sample_interval

_Z = 1.959963984540054


def estimate_by_jackknife(
    subject: Subject,
    value: float,
    without: Callable[[], NDArray[np.float64]],
    settings: Mapping[str, str | float],
) -> Estimate:
    """``value`` with its delete-one-group interval; no interval where there are fewer than four groups.

    Args:
        subject: gives the rows and their bins.
        value: the number on all rows.
        without: makes the numbers with each bin left out, shape (bins,); not called where no interval is due.
        settings: what the number was computed with.
    """
    found = jackknife_interval(value, without(), subject.bins) if subject.has_intervals else None
    if found is None:
        return Estimate(value=value, n=subject.n, settings=dict(settings))
    bins = int(subject.bins.max()) + 1
    return Estimate(
        value=value,
        low=found.low,
        high=found.high,
        n=subject.n,
        interval=f"grouped jackknife, {bins} bins",
        settings=dict(settings),
    )


def estimate_two_samples(
    subject: Subject,
    value: float,
    without_ours: Callable[[], NDArray[np.float64]],
    without_theirs: Callable[[], NDArray[np.float64]],
    settings: Mapping[str, str | float],
    *,
    p_value: float | None = None,
) -> Estimate:
    """``value``, a number of the corpus *and* of the real rows, with an interval for the chance in both.

    The two grouped-jackknife variances add (the samples are independent); t quantile with Satterthwaite's
    degrees of freedom. Where the corpus *is* the real data, or either side has fewer than four groups, there
    is no interval.

    Args:
        subject: gives the bins of both sides (``bins`` and ``against_bins``).
        value: the number on all rows.
        without_ours: makes the numbers with each bin of the corpus left out, shape (bins,).
        without_theirs: the same for each bin of the real rows, shape (against bins,).
        settings: what the number was computed with.
        p_value: of a test that goes with it.
    """
    bare = Estimate(value=value, n=subject.n, p_value=p_value, settings=dict(settings))
    enough = int(subject.against_bins.max(initial=0)) + 1 >= MIN_BINS
    if not (subject.has_intervals and enough) or subject.is_real:
        return bare
    ours = jackknife_interval(value, without_ours(), subject.bins)
    theirs = jackknife_interval(value, without_theirs(), subject.against_bins)
    if ours is None or theirs is None:
        return bare
    counts = int(subject.bins.max()) + 1, int(subject.against_bins.max()) + 1
    found = two_sample_interval(value, ours, counts[0], theirs, counts[1])
    return replace(
        bare, low=found.low, high=found.high,
        interval=f"grouped jackknife of both sides, {counts[0]} and {counts[1]} bins",
    )  # fmt: skip


def estimate_rate(subject: Subject, hits: NDArray[np.bool_], settings: Mapping[str, str | float]) -> Estimate:
    """The fraction of rows that are ``hits``, with its Wilson interval at the effective number of rows.

    Rows of one group are not independent: n is divided by the design effect, the grouped jackknife variance
    of the rate over that of independent rows (at least 1). Where no or all rows are hits the design effect is
    unknown and the number of groups counts. No interval below four groups.
    """
    n, rate = len(hits), float(hits.mean())
    if not subject.has_intervals:
        return Estimate(value=rate, n=n, settings=dict(settings))
    groups = len(set(subject.corpus.groups))
    effective = float(groups)
    if groups == n:
        effective = float(n)
    elif 0.0 < rate < 1.0:
        found = jackknife_interval(rate, _rates_without(hits, subject.bins), subject.bins)
        effective = float(n) if found is None or found.se == 0 else min(n, rate * (1.0 - rate) / found.se**2)
    low, high = wilson_interval(rate, max(1.0, effective))
    method = "Wilson" if groups == n else f"Wilson, {effective:.0f} effective rows"
    return Estimate(value=rate, low=low, high=high, n=n, interval=method, settings=dict(settings))


def wilson_interval(rate: float, n: float) -> tuple[float, float]:
    """The 95% score interval of a rate among ``n`` independent rows (Wilson 1927)."""
    centre = (rate + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * float(np.sqrt(rate * (1 - rate) / n + _Z**2 / (4 * n**2)))
    # at the ends the formula gives the rate itself up to rounding
    return min(rate, max(0.0, centre - half)), max(rate, min(1.0, centre + half))


def _rates_without(hits: NDArray[np.bool_], bins: NDArray[np.int64]) -> NDArray[np.float64]:
    rows = np.bincount(bins)
    hit = np.bincount(bins, weights=hits)
    out: NDArray[np.float64] = (hit.sum() - hit) / (rows.sum() - rows)
    return out
