"""Paired gains of accuracy and their uncertainty, from an items x generation-draws table.

A comparison of two cells is a table of differences ``D[g, i]``: how much more often the first cell than the
second was right about held-out item ``i`` in generation draw ``g``, sampling and training draws averaged
first (several trainings on one pool are not replicates of the pool). Both items and draws are samples of
something larger, so the table is read as a two-way random-effects model without replication,

    D[g, i] = gain + draw[g] + item[i] + rest[g, i]

and the variance of its mean is ``(MS_draw + MS_item - MS_rest) / (G I)`` with Satterthwaite's degrees of
freedom (Satterthwaite 1946, Biometrics Bulletin 2(6); Searle, Casella & McCulloch 1992, *Variance
Components*, ch. 4). A component whose estimate is negative counts as zero: the variance is never below
``MS_draw / (G I)`` (draws alone) or ``MS_item / (G I)`` (items alone). Satterthwaite's formula keeps all three
mean squares even then; dropping the truncated ones would pretend to know that they are zero. The variance is no less
known than the least known of its parts: the degrees of freedom are at least those of the draws, or of the items if
they are fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from cuvee.records import Gain

Floats = NDArray[np.float64]

POWER = 0.8
MOST_DRAWS = 1000
"""Beyond this many generation draws a question counts as out of reach."""


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
    def variance(self) -> float:
        """Variance of the mean, floored as the module says, and at one differing item in all the table.

        The last floor, ``1 / I^2``, only acts where fewer than about one item differs: an empty table of
        differences is little evidence, not perfect knowledge.
        """
        total = max(self.draw + self.item - self.rest, self.draw, self.item)
        return max(total / (self.draws * self.items), 1.0 / self.items**2)

    @property
    def df(self) -> float:
        """Satterthwaite's degrees of freedom of the variance; items - 1 with one draw or no variance."""
        over_items = self.items - 1.0
        if self.draws == 1:
            return over_items
        over_draws = self.draws - 1.0
        total = max(self.draw + self.item - self.rest, self.draw, self.item)
        spread = self.draw**2 / over_draws + self.item**2 / over_items + self.rest**2 / (over_draws * over_items)
        found = total**2 / spread if spread > 0 else over_items
        return max(found, min(over_draws, over_items))

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return float(np.sqrt(self.variance))

    @property
    def p_value(self) -> float:
        """Two-sided p-value of "the gain is 0"."""
        return 2.0 * float(special.stdtr(self.df, -abs(self.value) / self.error))


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
    mean = table.mean()
    by_item = table.mean(axis=0)
    between_items = draws * float(((by_item - mean) ** 2).sum()) / (items - 1)
    if draws == 1:
        return Components(value=float(mean), draws=1, items=items, draw=0.0, item=between_items, rest=0.0)
    by_draw = table.mean(axis=1)
    between_draws = items * float(((by_draw - mean) ** 2).sum()) / (draws - 1)
    rest = float(((table - by_draw[:, None] - by_item[None, :] + mean) ** 2).sum())
    return Components(
        value=float(mean),
        draws=draws,
        items=items,
        draw=between_draws,
        item=between_items,
        rest=rest / ((draws - 1) * (items - 1)),
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
    parts = split_variance(paired_difference(correct_a, correct_b))
    half = float(special.stdtrit(parts.df, 0.975)) * parts.error
    return Gain(
        over=over,
        value=parts.value,
        low=parts.value - half,
        high=parts.value + half,
        df=parts.df,
        draws=parts.draws,
        items=parts.items,
        mde=half + float(special.stdtrit(parts.df, POWER)) * parts.error,
    )


def count_more_draws(parts: Components, *, effect: float, alpha: float = 0.05) -> int | None:
    """How many further generation draws show ``effect`` with power 0.8 (two-sided test at ``alpha``).

    Extrapolates the mean squares of what was observed: the items' part stays, the rest shrinks as 1/draws.
    0 if the draws suffice; None if more draws cannot do it (the items are too few), if it would take more
    than a thousand, or if there is one draw only, whose spread is unknown.

    Raises:
        ValueError: ``effect`` is not above 0.
    """
    if effect <= 0:
        raise ValueError(f"effect must be above 0, not {effect!r}")
    if parts.draws == 1:
        return None
    item_part = max(parts.item - parts.rest, 0.0) / parts.draws
    draw_part = max(parts.draw - parts.rest, 0.0)
    for draws in range(parts.draws, MOST_DRAWS + 1):
        planned = Components(
            value=effect,
            draws=draws,
            items=parts.items,
            draw=parts.rest + draw_part,
            item=parts.rest + draws * item_part,
            rest=parts.rest,
        )
        needed = special.stdtrit(planned.df, 1.0 - alpha / 2.0) + special.stdtrit(planned.df, POWER)
        if float(needed) * planned.error <= effect:
            return draws - parts.draws
    return None


def adjust_holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down p-values (Holm 1979, Scand. J. Statist. 6), in the order given.

    Raises:
        ValueError: a p-value outside 0 to 1.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.size and not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p_values must lie between 0 and 1: {tuple(p_values)!r}")
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if values.size else steps
    return tuple(float(v) for v in adjusted)
