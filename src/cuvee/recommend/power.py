"""What a planned design can detect, before anything is spent. All in percentage points.

One cell's accuracy at a generation draw, its ``repeats`` sampling and training draws averaged, varies by

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
"""

from __future__ import annotations

import math

from scipy import special

from cuvee.recommend.statistics import MOST_DRAWS, POWER, join_df

_POINTS = 100.0


def plan_power(
    *,
    draws: int,
    sd_between: float,
    sd_within: float = 0.0,
    alpha: float = 0.05,
    levels: int = 1,
    repeats: int = 1,
    tests: int = 1,
    items: int | None = None,
    disagreement: float = 0.1,
    power: float = POWER,
) -> float:
    """The smallest true effect, in points, that the design finds with this power; infinite with one draw.

    Args:
        draws: generation draws, paired across cells.
        sd_between: SD over generation draws of one cell's accuracy, points.
        sd_within: SD over sampling and training draws at one generation draw, points.
        alpha: level of the test.
        levels: below 3 a gain over a baseline; else the height of an inverted U above both of its ends.
        repeats: sampling x training draws at a generation draw.
        tests: gains that Bonferroni's (so also Holm's) correction covers, for a gain.
        items: held-out items, for a gain; None leaves them out, as the shape test does.
        disagreement: fraction of the items that two cells answer differently.
        power: chance to find the effect.

    Raises:
        ValueError: an argument is out of range.
    """
    _check_counts(draws=draws, levels=levels, repeats=repeats, tests=tests, items=2 if items is None else items)
    _check_numbers(sd_between, sd_within, alpha=alpha, disagreement=disagreement, power=power)
    if draws == 1:
        return math.inf
    by_draw = 2.0 * (sd_between**2 + sd_within**2 / repeats) / draws
    df = draws - 1.0
    if levels >= 3:
        tail, each = alpha / (levels - 2), math.sqrt(power)
        variance = by_draw
    else:
        tail, each = alpha / (2 * tests), power
        by_item = 0.0 if items is None else _POINTS**2 * disagreement / items
        variance = by_draw + by_item
        if items is not None and by_item > 0.0:
            df = join_df(by_draw, by_item, draws=draws, items=items)
    critical = float(special.stdtrit(df, 1.0 - tail))
    return float(special.nctdtrinc(df, 1.0 - each, critical)) * math.sqrt(variance)


def plan_draws(
    effect: float,
    *,
    sd_between: float,
    sd_within: float = 0.0,
    alpha: float = 0.05,
    levels: int = 1,
    repeats: int = 1,
    tests: int = 1,
    items: int | None = None,
    disagreement: float = 0.1,
    power: float = POWER,
) -> int | None:
    """The fewest generation draws that find ``effect`` points; the inverse of ``plan_power``.

    None where a thousand draws would not do: the items are too few, or the effect too small.

    Raises:
        ValueError: an argument is out of range.
    """
    if effect <= 0:
        raise ValueError(f"effect must be above 0 points, not {effect!r}")

    def is_enough(draws: int) -> bool:
        found = plan_power(
            draws=draws,
            sd_between=sd_between,
            sd_within=sd_within,
            alpha=alpha,
            levels=levels,
            repeats=repeats,
            tests=tests,
            items=items,
            disagreement=disagreement,
            power=power,
        )
        return found <= effect

    low, high = 1, MOST_DRAWS  # what can be detected shrinks with draws, so halving the range finds it
    if not is_enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _check_counts(*, draws: int, levels: int, repeats: int, tests: int, items: int) -> None:
    for name, count in (("draws", draws), ("levels", levels), ("repeats", repeats), ("tests", tests)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, not {count!r}")
    if items < 2:
        raise ValueError(f"items must be at least 2, not {items!r}")


def _check_numbers(sd_between: float, sd_within: float, *, alpha: float, disagreement: float, power: float) -> None:
    for name, spread in (("sd_between", sd_between), ("sd_within", sd_within)):
        if not (spread >= 0.0 and math.isfinite(spread)):
            raise ValueError(f"{name} must be at least 0 points, not {spread!r}")
    for name, chance in (("alpha", alpha), ("power", power)):
        if not 0.0 < chance < 1.0:
            raise ValueError(f"{name} must lie between 0 and 1, not {chance!r}")
    if not 0.0 <= disagreement <= 1.0:
        raise ValueError(f"disagreement must lie between 0 and 1, not {disagreement!r}")
