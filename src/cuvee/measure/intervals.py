"""95% intervals on measured numbers: the grouped jackknife, Wilson for rates, means over draws, differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.subject import MIN_BINS, Subject
from cuvee.records import Estimate, Floats, Ints
from cuvee.similarity import NORMAL_QUANTILE, jackknife_interval, two_sample_interval, wilson_interval

Settings = Mapping[str, str | int | float]
# Bounds of a fraction.
SHARE = (0.0, 1.0)
_ROUNDING = 1e-12


def estimate_by_jackknife(
    subject: Subject, value: float, without: Callable[[], Floats], settings: Settings, *, bins: Ints | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:  # fmt: skip
    """``value`` with its delete-one-group interval; no interval where there are fewer than four groups.

    Args:
        subject: gives the rows and their bins.
        value: the number on all rows.
        without: makes the numbers with each bin left out, shape (bins,); not called where no interval is due.
        settings: what the number was computed with.
        bins: bin of each row that the number was computed on, where they are not the subject's.
        bounds: of what the number can be; the interval is cut to them.
    """
    bins = subject.bins if bins is None else bins
    count = int(bins.max(initial=0)) + 1
    found = jackknife_interval(value, without(), bins) if count >= MIN_BINS else None
    if found is None:
        return Estimate(value=value, n=subject.n, settings=dict(settings))
    method = f"grouped jackknife, {count} bins"
    low, high = max(bounds[0], found.low), min(bounds[1], found.high)
    return Estimate(value=value, low=low, high=high, n=subject.n, interval=method, settings=dict(settings))


def estimate_two_samples(
    subject: Subject,
    value: float,
    without: Callable[[], tuple[Floats, Floats]],
    settings: Settings,
    *,
    bins: tuple[Ints, Ints] | None = None,
    p_value: float | None = None,
    widen: float = 1.0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """``value``, a number of the corpus *and* of the real rows, with an interval for the chance in both.

    The two grouped-jackknife variances add (the samples are independent); t quantile with Satterthwaite's
    degrees of freedom. Where the corpus *is* the real data, or either side has fewer than four groups, there
    is no interval.

    Args:
        subject: gives the bins of both sides.
        value: the number on all rows.
        without: makes the numbers with each bin left out, shapes (bins,) and (bins of the real rows,).
        settings: what the number was computed with.
        bins: of the rows that were used on each side, where that is not the bins of all.
        p_value: of a test that goes with it.
        widen: factor on the standard error, where the left-out values do not show all of it.
        bounds: of what the number can be; the interval is cut to them.
    """
    bare = Estimate(value=value, n=subject.n, p_value=p_value, settings=dict(settings))
    both = bins or (subject.bins, subject.against_bins)
    counts = [int(side.max(initial=-1)) + 1 for side in both]
    if min(counts) < MIN_BINS or subject.is_real:
        return bare
    ours, theirs = (jackknife_interval(value, left, side) for left, side in zip(without(), both, strict=True))
    if ours is None or theirs is None:
        return bare
    found = two_sample_interval(value, ours, counts[0], theirs, counts[1], widen=widen)
    method = f"grouped jackknife of both sides, {counts[0]} and {counts[1]} bins"
    return replace(bare, low=max(bounds[0], found.low), high=min(bounds[1], found.high), interval=method)


def estimate_rate(
    subject: Subject, rate: float, without: Callable[[], Floats], settings: Settings, *, paired: bool = False
) -> Estimate:
    """A fraction of rows with its Wilson interval at the effective number of rows.

    Rows of one group are not independent, and neither are rows that have a partner (``paired``), which come in twos
    and more even where groups are single rows: the effective number is that at which the binomial variance equals the
    jackknife variance, at most n. Where no or all rows count it is unknown, and the number of groups stands for it.
    No interval below four groups.

    Args:
        subject: gives the rows, bins and groups.
        rate: the fraction of rows, 0 to 1.
        without: makes the rates with each bin left out, shape (bins,); not called where no interval is due.
        settings: what the rate was computed with.
        paired: whether rows count because of another row.
    """
    bare = Estimate(value=rate, n=subject.n, settings=dict(settings))
    if not subject.has_intervals:
        return bare
    groups = len(set(subject.corpus.groups))
    single = groups == subject.n and not paired
    effective = float(groups)
    if 0.0 < rate < 1.0 and not single:
        found = jackknife_interval(rate, without(), subject.bins)
        effective = float(subject.n)
        if found is not None and found.se > 0:
            effective = min(effective, rate * (1.0 - rate) / found.se**2)
    low, high = wilson_interval(rate, max(1.0, effective))
    return replace(bare, low=low, high=high, interval="Wilson" if single else f"Wilson, {effective:.0f} effective rows")


def estimate_hits(subject: Subject, hits: NDArray[np.bool_], settings: Settings) -> Estimate:
    """The fraction of rows that are ``hits``, shape (n,), with its interval."""
    return estimate_rate(subject, float(hits.mean()), lambda: means_without(hits, subject.bins), settings)


def means_without(values: Floats | NDArray[np.bool_] | Ints, bins: Ints) -> Floats:
    """The mean of ``values``, shape (n,), over the rows that are left without each bin; nan where none is."""
    rows, sums = np.bincount(bins), np.bincount(bins, weights=values)
    with np.errstate(invalid="ignore"):
        out: Floats = (sums.sum() - sums) / (rows.sum() - rows)
    return out


def count_by_bin(codes: Ints, bins: Ints, size: int) -> Floats:
    """Rows by bin and code, shape (bins, size)."""
    out = np.zeros((int(bins.max()) + 1, size))
    np.add.at(out, (bins, codes), 1.0)
    return out


def mean_of_draws(draws: Sequence[Estimate], *, fraction: float, size: int) -> Estimate:
    """The expected number of n rows of the population, from draws of n of the corpus's N rows (rarefaction).

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
    bare = Estimate(value=value, n=first.n, settings={**first.settings, "draws": len(draws)})
    if first.low is None or first.high is None:
        return bare
    if first.low == first.high and any(estimate.value != first.value for estimate in draws):
        return bare  # a first draw without a single hit knows nothing of the variance
    reduction = fraction + (1.0 - fraction) / len(draws)
    if first.interval.startswith("Wilson"):
        low, high = wilson_interval(value, _effective_rows(first.value, first.low, first.high) / reduction)
    else:
        scale = float(np.sqrt(reduction))
        below, above = first.value - first.low, first.high - first.value
        if is_cut := first.low == 0.0 or first.high == 1.0:  # as that of a fraction; uncut it is as wide on both sides
            below = above = max(below, above)
        low, high = value - scale * below, value + scale * above
        low, high = (max(low, 0.0), min(high, 1.0)) if is_cut else (low, high)
    method = f"{first.interval}; mean of {len(draws)} draws from {size} rows"
    return replace(bare, low=low, high=high, interval=method)


def subtract_first(estimates: Sequence[Estimate | None]) -> tuple[Estimate | None, ...]:
    """Each estimate less the first one; None for the first itself and where either is not there."""
    first = estimates[0]
    rest = (None if e is None or first is None else subtract_estimates(e, first) for e in estimates[1:])
    return (None, *rest)


def subtract_estimates(estimate: Estimate, first: Estimate) -> Estimate:
    """``estimate`` less ``first``, two independent numbers, with the interval made of both intervals.

    MOVER, "method of variance estimates recovery" (Zou and Donner 2008, Statistics in Medicine 27), which adds
    the variances on each side and so keeps skewed intervals of rates. Where both corpora are held against the
    same real rows, or share rows of their own, the numbers rise and fall together and the interval is too wide
    rather than too narrow.
    """
    value = _drop_noise(estimate.value - first.value, first.value)
    bare = Estimate(value=value, n=estimate.n, settings=dict(estimate.settings))
    if estimate.low is None or estimate.high is None or first.low is None or first.high is None:
        return bare
    below = np.hypot(estimate.value - estimate.low, first.high - first.value)
    above = np.hypot(estimate.high - estimate.value, first.value - first.low)
    low, high = (value + _drop_noise(float(side), first.value) for side in (-below, above))
    return replace(bare, low=low, high=high, interval="both intervals (MOVER)")


def _drop_noise(difference: float, of: float) -> float:
    """A difference of two numbers, 0 where it is no more than the rounding of either."""
    return 0.0 if abs(difference) <= _ROUNDING * max(1.0, abs(of)) else difference


def _effective_rows(rate: float, low: float, high: float) -> float:
    """The number of rows whose Wilson interval of ``rate`` has this width.

    With ``a = z^2 / n`` and h the half-width, ``h (1 + a) = sqrt(rate (1 - rate) a + a^2 / 4)``: a quadratic with
    one positive root.
    """
    half = (high - low) / 2
    square, linear, constant = half**2 - 0.25, 2 * half**2 - rate * (1 - rate), half**2
    root = (-linear - np.sqrt(linear**2 - 4 * square * constant)) / (2 * square)
    return float(NORMAL_QUANTILE**2 / root)
