"""The shape of accuracy over the levels of a dial, tested and not fitted.

**Inverted U** is the intersection-union test (Berger 1982, Technometrics 24): some interior level beats
*both* ends, each by a one-sided paired t test over generation draws; the p-value of an interior level is
the larger of its two, and Bonferroni's correction covers the choice among interior levels. Its level holds
whatever the truth is, a rising curve that saturates included, where the sign of a fitted quadratic term
is wrong up to 95% of the time. **U-shaped** is its mirror image. **Rising** and **falling** compare the two
ends, one-sided, corrected for asking both ways. **Flat** is two one-sided tests within ``delta`` for every
pair of levels (Schuirmann 1987), itself an intersection-union test, so it needs no correction.

Levels stand in the order given. Where their measured diversity is given, Simonsohn's two-lines test over it is
reported beside the verdict; it does not change it.

The verdict is the first of these that holds at ``alpha``, in this order: inverted-U or U-shaped (the
smaller p-value), rising or falling, flat; else *underpowered*.

Draws are the replicates and the held-out items are taken as they are: a verdict says what would happen
with new pools on these items. Where the differences of two levels are the same in every draw, t has no
denominator and the exact sign test takes its place (p = 2^-draws at best).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from cuvee.recommend.statistics import Floats
from cuvee.recommend.two_lines import fit_two_lines
from cuvee.records import Shape, ShapeTest

_SAME = 1e-12
"""Standard deviations of accuracies below this are rounding."""

_PRECEDENCE: tuple[tuple[Shape, ...], ...] = (("inverted-U", "U-shaped"), ("rising", "falling"), ("flat",))


def find_p_above(difference: ArrayLike, *, margin: float = 0.0) -> float:
    """One-sided p-value that the mean of paired differences is above ``margin``; shape (n,), n >= 2."""
    values = np.asarray(difference, dtype=np.float64) - margin
    if values.ndim != 1 or values.size < 2:
        raise ValueError(f"difference must have shape (n >= 2,), not {values.shape}")
    mean, spread = float(values.mean()), float(values.std(ddof=1))
    if spread <= _SAME:
        return float(0.5**values.size) if mean > _SAME else 1.0
    return float(special.stdtr(values.size - 1.0, -mean / spread * np.sqrt(values.size)))


def find_p_within(difference: ArrayLike, *, margin: float) -> float:
    """P-value that the mean of paired differences lies within ``margin`` of 0; shape (n,), n >= 2.

    Two one-sided tests (TOST: Schuirmann 1987, J. Pharmacokinet. Biopharm. 15): the larger of their p-values.

    Raises:
        ValueError: ``margin`` is not above 0, or there are fewer than two differences.
    """
    if not margin > 0:
        raise ValueError(f"margin must be above 0, not {margin!r}")
    values = np.asarray(difference, dtype=np.float64)
    return max(find_p_above(values, margin=-margin), find_p_above(-values, margin=-margin))


def _find_p_values(table: Floats, delta: float) -> tuple[dict[Shape, float], dict[Shape, int]]:
    """P-values of the five alternatives, and the interior level that speaks most for each of the first two.

    ``table`` has shape (replicates >= 2, levels >= 2).
    """
    first, last = table[:, 0], table[:, -1]
    interiors = range(1, table.shape[1] - 1)
    p_values: dict[Shape, float] = {}
    peaks: dict[Shape, int] = {}
    if interiors:
        above = [max(find_p_above(table[:, k] - first), find_p_above(table[:, k] - last)) for k in interiors]
        below = [max(find_p_above(first - table[:, k]), find_p_above(last - table[:, k])) for k in interiors]
        p_values["inverted-U"] = min(1.0, min(above) * len(interiors))
        p_values["U-shaped"] = min(1.0, min(below) * len(interiors))
        peaks = {"inverted-U": interiors[int(np.argmin(above))], "U-shaped": interiors[int(np.argmin(below))]}
    p_values["rising"] = min(1.0, 2.0 * find_p_above(last - first))
    p_values["falling"] = min(1.0, 2.0 * find_p_above(first - last))
    gaps = [table[:, j] - table[:, k] for j, k in combinations(range(table.shape[1]), 2)]
    p_values["flat"] = max(find_p_within(gap, margin=delta) for gap in gaps)
    return p_values, peaks


def _choose_verdict(p_values: Mapping[Shape, float], alpha: float) -> Shape:
    for rivals in _PRECEDENCE:
        held: list[Shape] = [name for name in rivals if p_values.get(name, 1.0) <= alpha]
        if held:
            return min(held, key=lambda name: p_values[name])
    return "underpowered"


def test_shape(
    values: ArrayLike,
    *,
    levels: Sequence[str],
    delta: float,
    alpha: float = 0.05,
    dial: str = "",
    share: float = 0.0,
    items: ArrayLike | None = None,
    diversity: ArrayLike | None = None,
    note: str = "",
) -> ShapeTest:
    """The verdict on the shape of accuracy over ordered levels, as the module says.

    Args:
        values: accuracies as fractions, shape (generation draws G, levels L), other draws averaged first.
        levels: the names of the L levels, from least to most diverse.
        delta: differences within this count as none (a fraction: 0.01 is one point).
        alpha: the level of each test.
        dial: what the levels are levels of.
        share: the share at which they were compared.
        items: correctness by item, shape (L, items), of the one draw, where G = 1. The held-out items are
            then the replicates, and the verdict speaks of that pool only.
        diversity: measured, shape (L,) or (G, L), for the two-lines test.
        note: a remark that stands before those found here.

    Raises:
        ValueError: shapes do not fit, or ``delta`` or ``alpha`` is out of range.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] != len(levels):
        raise ValueError(f"values must have shape (draws >= 1, {len(levels)} levels), not {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("values holds numbers that are not finite")
    if delta <= 0 or not 0 < alpha < 1:
        raise ValueError(f"delta must be above 0 and alpha between 0 and 1, not {delta!r} and {alpha!r}")
    draws, means = table.shape[0], tuple(float(v) for v in table.mean(axis=0))
    notes = [note] if note else []
    if draws == 1:
        notes.append("one generation draw: the verdict concerns that pool only")
        table = _replicate_by_item(items, len(levels))
    if len(levels) < 2:
        notes.append("a shape needs at least two levels")
    elif len(levels) < 3:
        notes.append("two levels have no interior: only rising, falling and flat were tested")
    if draws == 1 and not table.size:
        notes.append("no items were given to pair, so nothing was tested")
    p_values, peaks = _find_p_values(table, delta) if table.size and len(levels) > 1 else ({}, {})
    verdict = _choose_verdict(p_values, alpha)
    if verdict not in ("flat", "underpowered") and p_values["flat"] <= alpha:
        notes.append(f"shown, yet every difference lies within {100 * delta:g} points")
    return ShapeTest(
        dial=dial,
        share=share,
        levels=tuple(levels),
        means=means,
        draws=draws,
        verdict=verdict,
        p_values={str(name): p for name, p in p_values.items()},
        delta=delta,
        alpha=alpha,
        note="; ".join(notes),
        two_lines=None if diversity is None else fit_two_lines(diversity, values, alpha=alpha),
        peak=levels[peaks[verdict]] if verdict in peaks else None,
    )


def _replicate_by_item(items: ArrayLike | None, levels: int) -> Floats:
    """Items as replicates, shape (items, levels); empty where there are none."""
    if items is None:
        return np.empty((0, levels))
    table = np.asarray(items, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != levels or table.shape[1] < 2:
        raise ValueError(f"items must have shape ({levels} levels, items >= 2), not {table.shape}")
    return np.asarray(table.T)
