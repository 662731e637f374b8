"""Paired gains of accuracy and their uncertainty, and what a planned design can detect.

**A gain.** A comparison of two cells is a table of differences ``D[g, i]``: how much more often the first cell than the
second was right about held-out item ``i`` in generation draw ``g``, sampling and training draws averaged
first (several trainings on one pool are not replicates of the pool). Both items and draws are samples of
something larger, so the table is read as a two-way random-effects model without replication,

    D[g, i] = gain + draw[g] + item[i] + rest[g, i]

and the variance of its mean is ``A + B``: ``A = MS_draw / (G I)`` for the draws and ``B = (MS_item - MS_rest) /
(G I)`` for the items, at least 0 (Searle, Casella & McCulloch 1992, *Variance Components*, ch. 4). ``A`` is not
raised to ``MS_rest / (G I)``, although the truth is never below that: with it the intervals cover up to 98.7%.

``A`` is known from G - 1 degrees of freedom and ``B`` from as many as there are items, which is the problem of
Behrens and Fisher. Satterthwaite's (1946) degrees of freedom cover 87% with two draws and 92% with three, since they
trust the estimated share of ``A``. Cochran & Cox (1950, *Experimental Designs*; Cochran 1964, Biometrics 20) weight
the two t quantiles by ``A`` and ``B`` instead; here that gives the degrees of freedom: those of the t distribution
whose 90% quantile is the weighted one. By numerical integration over normal data the 95% interval then covers 92.6 to
97.1% with two draws, 94.7 to 96.7% with three, 95.0 to 96.2% with five, whatever the true shares.

Smaller tails, which corrections for many tests ask for, match a quantile further out, at ``0.1 (tail / 0.025)^2``.
With the 90% quantile kept, a p-value of 0.05/36 would occur up to 18 times too often with two draws and 4.8 times with
three; so it occurs 2.3 and 1.4 times as often in the worst case, and 0.6 and 0.5 times as often on average over shares.

**Spreads pooled over cells** (:func:`pool_spreads`). Two or four degrees of freedom for the draws are what makes
intervals wide. The spreads of several cells are moderated as in Smyth (2004, Stat. Appl. Genet. Mol. Biol. 3, 3): each
is taken as drawn around a common one, known from ``d`` prior degrees of freedom, and becomes

    (d common + (G - 1) own) / (d + G - 1)    with d + G - 1 degrees of freedom.

``d`` comes from the variance of the log spreads beyond that of chance, the common one from their median. Cells share
draws, pools and a baseline, so ``d`` is at most 12, and at most as many as the other pools have; it is 0 below three
draws. A spread that is larger than the common one beyond chance (p below 0.1) is not pooled: it is that cell's own.
What single answers add to a spread (``MS_rest / I``) is taken off and put back, because it depends on the items.

**What a planned design can detect** (:func:`plan_power`, in percentage points). One cell's accuracy at a generation
draw, its sampling and training draws averaged, varies by ``sd``, so a paired difference of two cells varies by
``sqrt(2) sd`` over draws, and its mean over G draws has standard error ``sqrt(2 / G) sd`` with G - 1 degrees of
freedom. Power is that of the noncentral t distribution (Cohen 1988, *Statistical Power Analysis*; Johnson, Kotz &
Balakrishnan 1995, ch. 31).

The held-out items are a sample too: they add ``100^2 disagreement / items`` to the variance of the mean, since two
cells answer that fraction of items differently, whatever the number of draws. Degrees of freedom are joined as above.

- *A gain* over a baseline (``levels`` below 3): two-sided at ``alpha / tests``.
- *An inverted U* over ``levels`` of 3 and more: the peak must beat both ends, each one-sided at the tail that
  :func:`adjust_choice` makes ``alpha`` of, with the spread over draws pooled over levels. The two comparisons share the
  peak, so they are positively correlated and the chance of both is at least the product (Slepian 1962): each is planned
  with the root of the power. Neighbours of the peak that also beat the ends add to that, so this is a lower bound.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from cuvee.records import Gain

POWER = 0.8
MOST_DRAWS = 1000  # beyond this many generation draws a question counts as out of reach
MOST_ITEMS = 1_000_000
_MATCHED = 0.1
_USUAL = 0.025  # the upper tail whose quantile is matched for tails of 2.5% and more, that is for 95% intervals
_LEAST = 1e-30  # no p-value is called smaller
LEAST_POOLED = 3  # draws from which on the spread of a cell is pooled with that of others
# Most degrees of freedom that other cells lend: their spreads share draws and a baseline, so they know less than their
# number says.
_MOST_PRIOR = 12.0
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(40)  # of integrals over a normal density
_OUTLIER = 0.1  # A spread that is larger than the pooled one with a p-value below this is not pooled


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanError:
    """The error of a mean: ``A`` and ``B`` of the module, and the degrees of freedom from which each is known.

    ``df_draws`` is 0 with one draw, where ``of_draws`` is 0.
    """

    of_draws: float
    of_items: float
    df_draws: float
    df_items: float

    @property
    def variance(self) -> float:
        """Variance of the mean."""
        return self.of_draws + self.of_items

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return math.sqrt(self.variance)

    def find_df(self, tail: float = _USUAL) -> float:
        """Degrees of freedom for a one-sided test at ``tail``, as the module says."""
        matched = _MATCHED * min(1.0, tail / _USUAL) ** 2
        return join_df(self.of_draws, self.of_items, df_draws=self.df_draws, df_items=self.df_items, matched=matched)

    def reach(self, tail: float) -> float:
        """How far the end of the interval lies from the mean, which the truth exceeds with probability ``tail``."""
        return -float(special.stdtrit(self.find_df(tail), tail)) * self.error

    def find_tail(self, distance: float) -> float:
        """One-sided p-value of a mean that lies ``distance`` above what is tested."""
        t = distance / self.error
        tail = float(special.stdtr(self.find_df(), -t))
        if tail >= _USUAL:
            return tail
        fewest = min(self.df_draws, self.df_items) or self.df_items
        least, most = (math.log(max(p, _LEAST)) for p in (tail, min(float(special.stdtr(fewest, -t)), _USUAL)))

        def find_room(log_tail: float) -> float:
            tail = math.exp(log_tail)
            return t + float(special.stdtrit(self.find_df(tail), tail))

        if find_room(least) >= 0.0:
            return math.exp(least)
        return math.exp(most if find_room(most) <= 0.0 else float(optimize.brentq(find_room, least, most, xtol=1e-9)))


def join_df(of_draws: float, of_items: float, *, df_draws: float, df_items: float, matched: float = _MATCHED) -> float:
    """Degrees of freedom of the sum of two variances, by Cochran & Cox as the module says.

    Args:
        of_draws: known from ``df_draws``; 0 with one draw.
        of_items: known from ``df_items``; not both are 0.
        df_draws, df_items: of one draw 0, else above 0.
        matched: the upper tail whose quantile is matched.
    """
    if df_draws == 0:
        return df_items
    share = of_draws / (of_draws + of_items)
    ends = [-float(special.stdtrit(df, matched)) for df in (df_draws, df_items)]
    found = float(special.stdtridf(matched, -(share * ends[0] + (1.0 - share) * ends[1])))
    return max(found, min(df_draws, df_items))  # rounding aside it never is less


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledSpread:
    """What the draws of many cells say of the spread that a further cell should have.

    Attributes:
        df: degrees of freedom that they lend.
        variance: of the mean of one draw over draws, without what single answers add to it, which the number of items
            decides.
    """

    df: float
    variance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """Mean squares of a table of differences, shape (draws, items), and what follows from them.

    With one draw ``draw`` and ``rest`` are 0 and ``item`` is the variance over items. ``unit`` is the square of the
    difference by which items differ that do, as :func:`split_variance` finds it.
    """

    value: float
    draws: int
    items: int
    draw: float
    item: float
    rest: float
    unit: float = 1.0

    def measure(self, prior: PooledSpread | None = None) -> MeanError:
        """The error of the mean, with the draws' part pooled with that of other cells where ``prior`` is given.

        ``A`` and ``B`` are together at least ``unit / I^2``, one differing item in all the table: draws that agree to
        the last item, or an empty table of differences, are little evidence and not perfect knowledge. What is missing
        counts as draws', where there are several.
        """
        size, floor = self.draws * self.items, self.unit / self.items**2
        of_items, df_items = max(self.item - self.rest, 0.0) / size, self.items - 1.0
        if self.draws == 1:
            return MeanError(of_draws=0.0, of_items=max(of_items, floor), df_draws=0.0, df_items=df_items)
        df, square = self.draws - 1.0, self.draw
        if prior is not None and self.draws >= LEAST_POOLED and prior.df > 0.0:
            expected = self.items * prior.variance + self.rest
            if float(special.fdtrc(df, prior.df, square / expected if expected > 0.0 else math.inf)) > _OUTLIER:
                square = (prior.df * expected + df * square) / (prior.df + df)
                df += prior.df
        of_draws = max(square / size, floor - of_items)
        return MeanError(of_draws=of_draws, of_items=of_items, df_draws=df, df_items=df_items)


def split_variance(difference: ArrayLike) -> Components:
    """Two-way analysis of variance of a table of differences.

    ``unit`` is the mean of the squared differences weighed by themselves: 1 where answers are right or wrong, and less
    where scores lie between. Without any difference it is 1.

    Args:
        difference: shape (G, I), or (I,) for one draw.

    Raises:
        ValueError: fewer than two items, or numbers that are not finite.
    """
    table = np.atleast_2d(np.asarray(difference, dtype=np.float64))
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] < 2:
        raise ValueError(f"difference must have shape (draws >= 1, items >= 2), not {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("difference holds numbers that are not finite")
    draws, items = table.shape
    mean, by_item, by_draw = table.mean(), table.mean(axis=0), table.mean(axis=1)
    several, squares = draws > 1, table**2
    differing = float(squares.sum())
    rest = float(((table - by_draw[:, None] - by_item[None, :] + mean) ** 2).sum())
    return Components(
        value=float(mean),
        draws=draws,
        items=items,
        draw=items * float(((by_draw - mean) ** 2).sum()) / (draws - 1) if several else 0.0,
        item=draws * float(((by_item - mean) ** 2).sum()) / (items - 1),
        rest=rest / ((draws - 1) * (items - 1)) if several else 0.0,
        unit=float((squares**2).sum()) / differing if differing > 0.0 else 1.0,
    )


def paired_gain(correct_a: ArrayLike, correct_b: ArrayLike, *, over: str) -> Gain:
    """Gain in accuracy of ``a`` over ``b`` with its 95% t interval, as a fraction.

    ``mde`` is the smallest true gain that a two-sided test at 5% finds with power 0.8 in this design:
    ``(t(0.975) + t(0.8)) * standard error``. With one generation draw the interval holds the items' part
    only: it speaks of that pool, not of the level.

    Args:
        correct_a: correctness, shape (G, I) or (I,), the other draws averaged first.
        correct_b: same items; one row pairs with every row of ``correct_a``, and 0 with all.
        over: the name of ``b``.

    Raises:
        ValueError: the shapes do not pair, or there are fewer than two items.
    """
    difference = np.asarray(correct_a, dtype=np.float64) - np.asarray(correct_b, dtype=np.float64)
    return _make_gain(split_variance(difference), over=over)


def _make_gain(found: Components, *, over: str, prior: PooledSpread | None = None) -> Gain:
    error = found.measure(prior)
    half, df = error.reach(_USUAL), error.find_df()
    return Gain(
        over=over,
        value=found.value,
        low=found.value - half,
        high=found.value + half,
        df=df,
        draws=found.draws,
        items=found.items,
        mde=half - float(special.stdtrit(df, 1.0 - POWER)) * error.error,
        p_value=2.0 * error.find_tail(abs(found.value)),
        se_draws=math.sqrt(error.of_draws),
        se_items=math.sqrt(error.of_items),
        se_rest=math.sqrt(found.rest / (found.draws * found.items)),
        prior_df=max(error.df_draws - (found.draws - 1), 0.0),
    )


def error_of(gain: Gain) -> MeanError:
    """What is known of the error of a gain."""
    return MeanError(
        of_draws=gain.se_draws**2,
        of_items=gain.se_items**2,
        df_draws=gain.draws - 1 + gain.prior_df,
        df_items=gain.items - 1.0,
    )


def components_of(gain: Gain) -> Components:
    """The mean squares behind a gain whose spread was not pooled; its floor is in them."""
    size = gain.draws * gain.items
    rest = size * gain.se_rest**2
    return Components(
        value=gain.value,
        draws=gain.draws,
        items=gain.items,
        draw=size * gain.se_draws**2,
        item=size * gain.se_items**2 + rest,
        rest=rest,
        unit=0.0,
    )


def pool_gain(gain: Gain, prior: PooledSpread | None) -> Gain:
    """The gain with its draws' spread pooled with that of other cells; itself without ``prior``."""
    if prior is None:
        return gain
    return replace(_make_gain(components_of(gain), over=gain.over, prior=prior), grouped=gain.grouped)


def pool_again(gain: Gain, pooled: Gain) -> Gain:
    """The gain of a cell on fresh draws and other items, its draws' spread pooled with what was known of it before.

    Args:
        gain: on fresh draws.
        pooled: of the same cell over the same baseline on earlier draws, pooled with other cells.
    """
    if pooled.draws < LEAST_POOLED:
        return gain
    variance = max(pooled.se_draws**2 - pooled.se_rest**2, 0.0) * pooled.draws
    df = min(pooled.draws - 1 + pooled.prior_df, _MOST_PRIOR)
    return pool_gain(gain, PooledSpread(df=df, variance=variance))


def pool_spreads(found: Sequence[Components], *, others: int) -> PooledSpread | None:
    """The prior of one spread from those of several cells, as the module says.

    Args:
        found: of cells that were compared with the same other; those of fewer than three draws are left out.
        others: degrees of freedom that the cells beside one have together, had each cell its own luck.

    Returns:
        None where nothing can be lent.
    """
    usable = [c for c in found if c.draws >= LEAST_POOLED and c.draw > 0.0]
    if len(usable) < 3 or others < 1:
        return None
    dfs = np.array([c.draws - 1.0 for c in usable])
    squares = np.array([c.draw / c.items for c in usable])
    logs = np.log(squares) - special.digamma(dfs / 2) + np.log(dfs / 2)
    excess = float(logs.var(ddof=1) - special.polygamma(1, dfs / 2).mean())
    most = min(_MOST_PRIOR, float(others))
    df = most if excess <= 0.0 else min(most, 2.0 * _invert_trigamma(excess))
    rest = float(np.mean([c.rest / c.items for c in usable]))
    scale = math.exp(float(np.median(logs)) + float(special.digamma(df / 2)) - math.log(df / 2))
    return PooledSpread(df=df, variance=max(scale - rest, 0.0))


def _invert_trigamma(value: float) -> float:
    """Where the trigamma function is ``value``; it falls from infinity to 0."""
    low, high = 0.5 / (value + 1.0), 1.0 / value + 1.0
    return float(optimize.brentq(lambda x: float(special.polygamma(1, x)) - value, low, high))


def is_above(gain: Gain, *, alpha: float) -> bool:
    """Whether the gain is shown to be above 0, two-sided at ``alpha``; one draw tells no spread, unless it is all."""
    return gain.speaks_of_draws and gain.value > 0 and gain.p_value <= alpha


def is_ruled_out(gain: Gain, effect: float, *, alpha: float) -> bool:
    """Whether a gain above ``effect`` is ruled out by the end of the 1 - ``alpha`` interval; see :func:`is_above`."""
    return gain.speaks_of_draws and gain.value + error_of(gain).reach(alpha / 2.0) <= effect


def count_more_draws(gain: Gain, *, effect: float, alpha: float = 0.05) -> int | None:
    """How many further generation draws show ``effect`` with power 0.8 (two-sided test at ``alpha``).

    Extrapolates what was observed: the items' part of the variance stays, that of the draws shrinks as 1/draws.
    0 if the draws suffice; None if more draws cannot do it (the items are too few), if it would take more
    than a thousand, or if there is one draw only, whose spread is unknown.
    """
    if gain.draws == 1:
        return None

    every = range(gain.draws, MOST_DRAWS + 1)
    least = _find_least(every, lambda draws: _finds(_expect_error(gain, draws), effect, alpha))
    return None if least is None else least - gain.draws


def count_items(gain: Gain, *, effect: float, alpha: float = 0.05) -> int | None:
    """How many held-out items in all show ``effect``, as :func:`count_more_draws`, with the draws that there are.

    None if a million cannot.
    """
    every = range(gain.items, MOST_ITEMS + 1)
    return _find_least(every, lambda items: _finds(_expect_error(gain, gain.draws, items), effect, alpha))


def _find_least(numbers: range, suffices: Callable[[int], bool]) -> int | None:
    """The least of the numbers that suffices, where each larger one does too; None where none does."""
    at = bisect_left(numbers, True, key=suffices)
    return numbers[at] if at < len(numbers) else None


def _finds(error: MeanError, effect: float, alpha: float) -> bool:
    return error.reach(alpha / 2.0) + float(special.stdtrit(error.find_df(), POWER)) * error.error <= effect


def _expect_error(gain: Gain, draws: int, items: int | None = None) -> MeanError:
    """Of a gain with so many draws and items, were all else as it is."""
    factor = 1.0 if items is None else items / gain.items
    of_draws = gain.se_draws**2 - min(gain.se_draws, gain.se_rest) ** 2 * (1.0 - 1.0 / factor)
    return MeanError(
        of_draws=of_draws * gain.draws / draws,
        of_items=gain.se_items**2 / factor,
        df_draws=0 if gain.is_whole else draws - 1 + gain.prior_df,
        df_items=gain.items * factor - 1.0,
    )


def count_joint(gains: Sequence[Gain], *, effect: float, alpha: float, shared: float) -> tuple[int | None, int | None]:
    """How many further draws rule ``effect`` out for all of several blends at once with power 0.8, were all gains 0.

    By 2,000 simulated studies with the errors of the gains; None as for :func:`count_more_draws`. More draws tell
    nothing more of a blend of all rows, which has one. Beside it, how many held-out items in all do so with the draws
    that there are, as :func:`count_items`; None where draws do.

    Args:
        gains: one a blend.
        effect: above 0.
        alpha: of each.
        shared: the part of their variance that all of them share.
    """
    luck = np.random.default_rng(0).normal(size=(2000, 1 + len(gains)))
    luck = math.sqrt(shared) * luck[:, :1] + math.sqrt(1.0 - shared) * luck[:, 1:]

    def suffice(more: int, items: int | None = None) -> bool:
        errors = [_expect_error(gain, gain.draws + more, items) for gain in gains]
        room = [effect - error.reach(alpha / 2.0) for error in errors]
        found = luck * [error.error for error in errors] <= room
        return bool(found.all(axis=1).mean() >= POWER)

    if not all(gain.speaks_of_draws for gain in gains):
        return None, None
    more = _find_least(range(MOST_DRAWS + 1), suffice)
    if more is not None:
        return more, None
    return None, _find_least(range(gains[0].items, MOST_ITEMS + 1), lambda items: suffice(0, items))


def adjust_holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down p-values (Holm 1979, Scand. J. Statist. 6), in the order given."""
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return tuple(float(v) for v in adjusted)


def adjust_choice(p_value: float, rivals: int) -> float:
    """A one-sided p-value, corrected for the choice of the best of ``rivals`` that were compared with the same other.

    By the normal form of Dunnett (1955, JASA 50): comparisons with one other share its noise, so where noise is equal
    they are correlated by one half. Bonferroni's correction, which takes no notice of that, is larger.
    """
    apart = math.sqrt(2.0) * -float(special.ndtri(p_value))
    above = -np.expm1(rivals * special.log_ndtr(apart - _NODES))
    return min(1.0, float(_WEIGHTS @ above / _WEIGHTS.sum()))


def plan_power(
    *,
    draws: int,
    sd_between: float,
    alpha: float = 0.05,
    levels: int = 1,
    tests: int = 1,
    items: int | None = None,
    disagreement: float = 0.1,
) -> float:
    """The smallest true effect, in points, that the design finds with power 0.8; infinite with one draw.

    Args:
        draws: generation draws, paired across cells.
        sd_between: SD over generation draws of one cell's accuracy, points.
        alpha: level of the test.
        levels: below 3 a gain over a baseline; else the height of an inverted U above both of its ends.
        tests: gains that Bonferroni's (so also Holm's) correction covers, for a gain.
        items: held-out items; None leaves out what they add.
        disagreement: fraction of the items that two cells answer differently, 0 to 1.
    """
    if draws == 1:
        return math.inf
    variance, df = 2.0 * sd_between**2 / draws, draws - 1.0
    tail, each = alpha / (2 * tests), POWER
    if levels >= 3:
        rivals = levels - 2
        tail = float(optimize.brentq(lambda p: adjust_choice(p, rivals) - alpha, 0.5 * alpha / rivals, 1.0))
        each = math.sqrt(POWER)
        if draws >= LEAST_POOLED:
            df += min(_MOST_PRIOR, (levels - 2) * df)
    by_item = 0.0 if items is None else 100.0**2 * disagreement / items
    if items is not None and by_item > 0.0:
        df = MeanError(of_draws=variance, of_items=by_item, df_draws=df, df_items=items - 1.0).find_df(tail)
    critical = -float(special.stdtrit(df, tail))
    return float(special.nctdtrinc(df, 1.0 - each, critical)) * math.sqrt(variance + by_item)
