"""Paired gains of accuracy and their uncertainty, what a planned design can detect, and the luck of the best cell.

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

**What a planned design can detect** (:func:`plan_power`, in percentage points). One cell's accuracy at a generation
draw, its ``repeats`` sampling and training draws averaged, varies by

    sd = sqrt(sd_between^2 + sd_within^2 / repeats)

so a paired difference of two cells varies by ``sqrt(2) sd`` over draws, and its mean over G draws has standard
error ``sqrt(2 / G) sd`` with G - 1 degrees of freedom. Power is that of the noncentral t distribution
(Cohen 1988, *Statistical Power Analysis*; Johnson, Kotz & Balakrishnan 1995, ch. 31).

- *A gain* over a baseline (``levels`` below 3): two-sided at ``alpha / tests``. Where the held-out items are
  a sample too, they add ``100^2 disagreement / items`` to the variance of the mean: two cells answer that
  fraction of items differently, whatever the number of draws. Degrees of freedom are those of :func:`join_df`.
- *An inverted U* over ``levels`` of 3 and more: the peak must beat both ends, each one-sided at
  ``alpha / (levels - 2)``. The two comparisons share the peak, so they are positively correlated and the
  chance of both is at least the product (Slepian 1962): each is planned with the root of the power.
  Neighbours of the peak that also beat the ends add to that, so this is a lower bound.

**How much better the best of many cells looks than it is** (:func:`estimate_optimism`). It owes part of its lead to
luck in the draws and in the held-out items it was chosen on (the winner's curse; Cawley & Talbot 2010, JMLR 11). A part
of the table of gains that took no part in the choice does not share that luck, so: leave out one generation draw *and*
one fold of the items, choose the best cell on what remains, and read its gain on the part left out; average over all
such splits. The apparent gain less that average is the optimism. Both must be left out: items answered by luck in one
draw tend to be answered by the same luck in the next, because the same model sees the same item.

For equal cells the corrected gain is unbiased. Where cells differ it errs to the safe side: each split chooses
with one draw and one fold less than the study did, so it finds the truly best cell a little less often.
(The bootstrap would err to the other side: it adds noise to means that already hold noise, and for equal
cells it finds about 0.7 of the optimism.) It is an estimate for the reader; a verdict rests on fresh draws and
the locked test. Cells that an adaptive search sampled unevenly were not chosen by the rule replayed here,
so for those it is a rough guide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from cuvee.records import Gain
from cuvee.records.advice import Optimism

Floats = NDArray[np.float64]

POWER = 0.8
MOST_DRAWS = 1000
"""Beyond this many generation draws a question counts as out of reach."""
_MATCHED = 0.9
"""The quantile that is matched; a higher one gives wider intervals (up to 97.1% with three draws, at 0.975)."""
_FOLDS = 5
"""Parts into which items are dealt in turn to estimate optimism: item i to part i modulo 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """Mean squares of a table of differences, shape (draws, items), and what follows from them.

    With one draw ``draw`` and ``rest`` are 0 and ``item`` is the variance over items.
    """

    value: float
    draws: int
    items: int
    draw: float
    item: float
    rest: float

    @property
    def parts(self) -> tuple[float, float]:
        """``A`` and ``B`` of the module: what draws and items add to the variance of the mean.

        Together at least ``1 / I^2``, one differing item in all the table: draws that agree to the last item, or an
        empty table of differences, are little evidence and not perfect knowledge. What is missing counts as draws',
        where there are several.
        """
        size, floor = self.draws * self.items, 1.0 / self.items**2
        of_items = max(self.item - self.rest, 0.0) / size
        if self.draws == 1:
            return 0.0, max(of_items, floor)
        return max(self.draw / size, floor - of_items), of_items

    @property
    def variance(self) -> float:
        """Variance of the mean."""
        return math.fsum(self.parts)

    @property
    def df(self) -> float:
        """Degrees of freedom of the variance, as the module says; items - 1 with one draw."""
        return join_df(*self.parts, draws=self.draws, items=self.items)

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return float(np.sqrt(self.variance))

    @property
    def p_value(self) -> float:
        """Two-sided p-value of "the gain is 0"."""
        return 2.0 * float(special.stdtr(self.df, -abs(self.value) / self.error))


def join_df(of_draws: float, of_items: float, *, draws: int, items: int) -> float:
    """Degrees of freedom of the sum of two variances, by Cochran & Cox as the module says.

    Args:
        of_draws: known from ``draws - 1`` degrees of freedom.
        of_items: known from ``items - 1``; not both are 0.
        draws, items: at least 1 and 2; with one draw ``of_draws`` is 0.
    """
    if draws == 1:
        return items - 1.0
    share = of_draws / (of_draws + of_items)
    ends = [float(special.stdtrit(n - 1.0, _MATCHED)) for n in (draws, items)]
    found = float(special.stdtridf(_MATCHED, share * ends[0] + (1.0 - share) * ends[1]))
    return max(found, min(draws, items) - 1.0)  # rounding aside it never is less


def split_variance(difference: ArrayLike) -> Components:
    """Two-way analysis of variance of a table of differences.

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
    several = draws > 1
    rest = float(((table - by_draw[:, None] - by_item[None, :] + mean) ** 2).sum())
    return Components(
        value=float(mean),
        draws=draws,
        items=items,
        draw=items * float(((by_draw - mean) ** 2).sum()) / (draws - 1) if several else 0.0,
        item=draws * float(((by_item - mean) ** 2).sum()) / (items - 1),
        rest=rest / ((draws - 1) * (items - 1)) if several else 0.0,
    )


def paired_difference(correct_a: ArrayLike, correct_b: ArrayLike) -> Floats:
    """``correct_a - correct_b``, shape (G, I); a table of one draw is set against every draw of the other.

    Raises:
        ValueError: the shapes do not pair.
    """
    first = np.atleast_2d(np.asarray(correct_a, dtype=np.float64))
    second = np.atleast_2d(np.asarray(correct_b, dtype=np.float64))
    draws = {first.shape[0], second.shape[0]} - {1}
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or len(draws) > 1:
        raise ValueError(f"correct_a {first.shape} and correct_b {second.shape} must pair as (draws, items)")
    return np.asarray(first - second)


def paired_gain(correct_a: ArrayLike, correct_b: ArrayLike, *, over: str) -> Gain:
    """Gain in accuracy of ``a`` over ``b`` with its 95% t interval, as a fraction.

    ``mde`` is the smallest true gain that a two-sided test at 5% finds with power 0.8 in this design:
    ``(t(0.975) + t(0.8)) * standard error``. With one generation draw the interval holds the items' part
    only: it speaks of that pool, not of the level.

    Args:
        correct_a: correctness, shape (G, I) or (I,), the other draws averaged first.
        correct_b: same items; one row pairs with every row of ``correct_a``.
        over: the name of ``b``.

    Raises:
        ValueError: the shapes do not pair, or there are fewer than two items.
    """
    found = split_variance(paired_difference(correct_a, correct_b))
    of_draws, of_items = found.parts
    half = float(special.stdtrit(found.df, 0.975)) * found.error
    return Gain(
        over=over,
        value=found.value,
        low=found.value - half,
        high=found.value + half,
        df=found.df,
        draws=found.draws,
        items=found.items,
        mde=half + float(special.stdtrit(found.df, POWER)) * found.error,
        p_value=found.p_value,
        se_draws=math.sqrt(of_draws),
        se_items=math.sqrt(of_items),
    )


def is_above(gain: Gain, *, alpha: float) -> bool:
    """Whether the gain is shown to be above 0, two-sided at ``alpha``; never with one draw, whose spread is unknown."""
    return gain.draws > 1 and gain.value > 0 and gain.p_value <= alpha


def is_ruled_out(gain: Gain, effect: float, *, alpha: float) -> bool:
    """Whether a gain above ``effect`` is ruled out by the end of the 1 - ``alpha`` interval; never with one draw."""
    reach = float(special.stdtrit(gain.df, 1.0 - alpha / 2.0)) * gain.error
    return gain.draws > 1 and gain.value + reach <= effect


def count_more_draws(gain: Gain, *, effect: float, alpha: float = 0.05) -> int | None:
    """How many further generation draws show ``effect`` with power 0.8 (two-sided test at ``alpha``).

    Extrapolates what was observed: the items' part of the variance stays, that of the draws shrinks as 1/draws.
    0 if the draws suffice; None if more draws cannot do it (the items are too few), if it would take more
    than a thousand, or if there is one draw only, whose spread is unknown.

    Raises:
        ValueError: ``effect`` is not above 0.
    """
    if effect <= 0:
        raise ValueError(f"effect must be above 0, not {effect!r}")
    if gain.draws == 1:
        return None
    each, of_items = gain.se_draws**2 * gain.draws, gain.se_items**2
    for draws in range(gain.draws, MOST_DRAWS + 1):
        df = join_df(each / draws, of_items, draws=draws, items=gain.items)
        needed = special.stdtrit(df, 1.0 - alpha / 2.0) + special.stdtrit(df, POWER)
        if float(needed) * math.sqrt(each / draws + of_items) <= effect:
            return draws - gain.draws
    return None


def adjust_holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down p-values (Holm 1979, Scand. J. Statist. 6), in the order given."""
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return tuple(float(v) for v in adjusted)


def plan_power(
    *,
    draws: int,
    sd_between: float,
    sd_within: float = 0.0,
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
        sd_within: SD of the mean of the sampling and training draws of one generation draw, points.
        alpha: level of the test.
        levels: below 3 a gain over a baseline; else the height of an inverted U above both of its ends.
        tests: gains that Bonferroni's (so also Holm's) correction covers, for a gain.
        items: held-out items, for a gain; None leaves them out, as the shape test does.
        disagreement: fraction of the items that two cells answer differently.

    Raises:
        ValueError: an argument is out of range.
    """
    for name, count, least in (("draws", draws, 1), ("levels", levels, 1), ("tests", tests, 1), ("items", items, 2)):
        if count is not None and count < least:
            raise ValueError(f"{name} must be at least {least}, not {count!r}")
    for name, spread in (("sd_between", sd_between), ("sd_within", sd_within)):
        if not (spread >= 0.0 and math.isfinite(spread)):
            raise ValueError(f"{name} must be at least 0 points, not {spread!r}")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha!r}")
    if not 0.0 <= disagreement <= 1.0:
        raise ValueError(f"disagreement must lie between 0 and 1, not {disagreement!r}")
    if draws == 1:
        return math.inf
    variance = 2.0 * (sd_between**2 + sd_within**2) / draws
    df = draws - 1.0
    if levels >= 3:
        tail, each = alpha / (levels - 2), math.sqrt(POWER)
    else:
        tail, each = alpha / (2 * tests), POWER
        by_item = 0.0 if items is None else 100.0**2 * disagreement / items
        if items is not None and by_item > 0.0:
            df = join_df(variance, by_item, draws=draws, items=items)
        variance += by_item
    critical = float(special.stdtrit(df, 1.0 - tail))
    return float(special.nctdtrinc(df, 1.0 - each, critical)) * math.sqrt(variance)


def estimate_optimism(gains: ArrayLike, *, over: str, best: int | None = None) -> Optimism | None:
    """The optimism of the best of many cells, as the module says.

    Args:
        gains: gain over the baseline, shape (cells, generation draws, items), as fractions, other draws averaged
            first; a draw that a cell lacks is NaN in all items, and each cell has a draw.
        over: the name of the baseline.
        best: the cell that was chosen; by default the one with the highest mean.

    Returns:
        None where there is nothing to split: fewer than two items a fold, or no split that can be read.
    """
    table = np.asarray(gains, dtype=np.float64)
    if table.shape[2] < 2 * _FOLDS:
        return None
    present = ~np.isnan(table[:, :, 0])
    sizes = np.bincount(np.arange(table.shape[2]) % _FOLDS, minlength=_FOLDS).astype(np.float64)
    sums = np.stack([table[:, :, f::_FOLDS].sum(axis=2) for f in range(_FOLDS)], axis=2)
    sums = np.where(present[:, :, None], sums, 0.0)
    means = sums.sum(axis=(1, 2)) / (present.sum(axis=1) * sizes.sum())
    chosen = int(np.argmax(means)) if best is None else best
    corrected, splits, same = _read_splits(sums, present, sizes, chosen)
    if not splits:
        return None
    apparent = float(means[chosen])
    return Optimism(
        over=over,
        cells=table.shape[0],
        apparent=apparent,
        corrected=corrected,
        value=apparent - corrected,
        splits=splits,
        same_choice=same / splits,
    )


def _read_splits(sums: Floats, present: np.ndarray, sizes: Floats, chosen: int) -> tuple[float, int, int]:
    """Mean gain on the left-out parts, the splits that could be read, and those that chose the same cell."""
    draws, folds = sums.shape[1:]
    total = weight = 0.0
    splits = same = 0
    for g in range(draws):
        kept = np.arange(draws) != g if draws > 1 else np.ones(1, dtype=bool)  # one draw: items alone are split
        counts = present[:, kept].sum(axis=1)
        for f in range(folds):
            rest = np.arange(folds) != f
            scores = sums[:, kept][:, :, rest].sum(axis=(1, 2)) / np.maximum(counts, 1) / sizes[rest].sum()
            winner = int(np.argmax(np.where(counts > 0, scores, -np.inf)))
            if counts[winner] == 0 or not present[winner, g]:
                continue
            total += float(sums[winner, g, f])
            weight += float(sizes[f])
            splits += 1
            same += winner == chosen
    return (total / weight if weight else 0.0), splits, same
