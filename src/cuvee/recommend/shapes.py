"""The shape of accuracy over the levels of a dial, tested and not fitted, and whether the levels differ at all.

**Inverted U** is the intersection-union test (Berger 1982, Technometrics 24): some interior level beats
*both* ends, each by a one-sided paired test; the p-value of an interior level is
the larger of its two, and Dunnett's correction covers the choice among interior levels, which all share the noise of
the end that they are compared with (:func:`~cuvee.recommend.statistics.adjust_choice`). Its level holds
whatever the truth is, a rising curve that saturates included, where the sign of a fitted quadratic term
is wrong up to 95% of the time. **U-shaped** is its mirror image. **Rising** and **falling** compare the two
ends, one-sided, corrected for asking both ways, and for turns as a third where there are interior levels, so that a
flat truth is given any shape in about ``alpha`` of studies. **Flat** is two one-sided tests within ``delta`` for every
pair of levels (Schuirmann 1987), itself an intersection-union test, so it needs no correction.

The verdict is the first of these that holds at ``alpha``, in this order: inverted-U or U-shaped (the
smaller p-value), rising or falling, flat; else *underpowered*.

Two levels are compared as a blend is with a baseline (:mod:`cuvee.recommend.statistics`): generation draws *and*
held-out items are samples, and the spread over draws is pooled over all pairs of levels from three draws on, around
their mean, which is that of levels x draws in the analysis of variance and knows more than the median. With the items
taken as they are, more draws make false turns more certain: at the same truth items answer one level a little
better than another, draw after draw.

Levels stand in the order of their measured diversity, where that is known. **Simonsohn's two-lines test** over it, with
the Robin Hood break point, is reported beside the verdict; it does not change it.

Simonsohn 2018, "Two lines: a valid alternative to the invalid testing of U-shaped relationships with quadratic
regressions", Advances in Methods and Practices in Psychological Science 1(4). An inverted U is shown where a
line fitted at and below some break point rises, a line fitted at and above it falls, and both slopes differ
from 0. The break point is found so:

1. a cubic smoothing spline (the penalty by generalised cross-validation, standard errors from the Bayesian
   covariance: Wahba 1983, J. R. Stat. Soc. B 45; Green & Silverman 1994, ch. 2) gives the most extreme fitted
   value between the 10th and the 90th percentile of x, and the *flat region*: all x there whose fitted value
   lies within one standard error of it;
2. two lines broken at the median of the flat region give the t values ``t1`` and ``t2``;
3. the break is the ``|t2| / (|t1| + |t2|)`` quantile of the flat region, which takes points from the
   stronger line and gives them to the weaker (hence Robin Hood).

Slopes have heteroscedasticity-consistent standard errors (HC3: MacKinnon & White 1985, J. Econometrics 29).
Points are (generation draw, level): other draws are averaged before. Each draw's mean is taken out first,
which is the pairing, and the degrees of freedom pay for it. What the held-out items add to the variance of a slope is
found as for a gain, from the slope of each item in each draw, and joined with the HC3 variance.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cuvee.recommend.cells import CellTable
from cuvee.recommend.statistics import adjust_choice, pool_spreads, split_variance
from cuvee.records import Cell, Estimate, Floats, ManipulationCheck, Measurement, Shape, ShapeTest
from cuvee.records.advice import TwoLines

DIVERSITY = "vendi_q1"  # the metric that levels are checked on: the Vendi score of order 1
_ALIKE = 1.05  # numbers of rows that differ by no more than this factor count as equal

_PRECEDENCE: tuple[tuple[Shape, ...], ...] = (("inverted-U", "U-shaped"), ("rising", "falling"), ("flat",))
_PENALTIES = np.logspace(-6, 6, 49)
_EDGES = (0.1, 0.9)  # percentiles of x between which the extreme is looked for


class LevelPairs:
    """Every pair of levels compared, as the module says.

    Args:
        correct: shape (draws, levels >= 2, items >= 2).
    """

    def __init__(self, correct: Floats) -> None:
        draws, levels, items = correct.shape
        pairs = {(j, k): split_variance(correct[:, j] - correct[:, k]) for j, k in combinations(range(levels), 2)}
        prior = pool_spreads(list(pairs.values()), others=(levels - 2) * (draws - 1))
        mean = math.fsum(found.draw - found.rest for found in pairs.values()) / len(pairs) / items
        prior = prior and dataclasses.replace(prior, variance=max(mean, 0.0))
        self.found = {pair: (found.value, found.measure(prior)) for pair, found in pairs.items()}

    def find_p_above(self, level: int, other: int, *, margin: float = 0.0) -> float:
        """One-sided p-value that ``level`` is better than ``other`` by more than ``margin``."""
        value, error = self.found[min(level, other), max(level, other)]
        return error.find_tail((value if level < other else -value) - margin)


def _find_p_values(scores: Floats, delta: float) -> tuple[dict[Shape, float], dict[Shape, int]]:
    """P-values of the five alternatives, and the interior level that speaks most for each of the first two."""
    pairs, last = LevelPairs(scores), scores.shape[1] - 1
    above = pairs.find_p_above
    interiors = range(1, last)
    p_values: dict[Shape, float] = {}
    peaks: dict[Shape, int] = {}
    if interiors:
        over = [max(above(k, 0), above(k, last)) for k in interiors]
        under = [max(above(0, k), above(last, k)) for k in interiors]
        p_values["inverted-U"] = adjust_choice(min(over), len(interiors))
        p_values["U-shaped"] = adjust_choice(min(under), len(interiors))
        peaks = {"inverted-U": interiors[int(np.argmin(over))], "U-shaped": interiors[int(np.argmin(under))]}
    ways = 3.0 if interiors else 2.0
    p_values["rising"] = min(1.0, ways * above(last, 0))
    p_values["falling"] = min(1.0, ways * above(0, last))
    # two one-sided tests of each pair (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15)
    p_values["flat"] = max(above(*pair, margin=-delta) for j, k in pairs.found for pair in ((j, k), (k, j)))
    return p_values, peaks


def _choose_verdict(p_values: Mapping[Shape, float], alpha: float) -> Shape:
    for rivals in _PRECEDENCE:
        held: list[Shape] = [name for name in rivals if p_values.get(name, 1.0) <= alpha]
        if held:
            return min(held, key=lambda name: p_values[name])
    return "underpowered"


def test_shape(
    correct: ArrayLike,
    *,
    levels: Sequence[str],
    delta: float,
    alpha: float = 0.05,
    dial: str = "",
    share: float = 0.0,
    diversity: ArrayLike | None = None,
) -> ShapeTest:
    """The verdict on the shape of accuracy over ordered levels, as the module says.

    Args:
        correct: what each item scores, shape (generation draws, levels L, items), other draws averaged first. With one
            draw the items are the replicates, and the verdict speaks of that pool only.
        levels: the names of the L levels, from least to most diverse.
        delta: differences within this count as none (a fraction: 0.01 is one point).
        alpha: the level of each test.
        dial: what the levels are levels of.
        share: the share at which they were compared.
        diversity: measured, shape (L,), for the two-lines test.
    """
    scores = np.asarray(correct, dtype=np.float64)
    draws = len(scores)
    notes: list[str] = []
    if draws == 1:
        notes.append("one generation draw: the verdict concerns that pool only")
    if len(levels) < 2:
        notes.append("a shape needs at least two levels")
    elif len(levels) < 3:
        notes.append("two levels have no interior: only rising, falling and flat were tested")
    p_values, peaks = _find_p_values(scores, delta) if len(levels) > 1 else ({}, {})
    verdict = _choose_verdict(p_values, alpha)
    if verdict not in ("flat", "underpowered") and p_values["flat"] <= alpha:
        notes.append(f"shown, yet every difference lies within {100 * delta:g} points")
    return ShapeTest(
        dial=dial,
        share=share,
        levels=tuple(levels),
        means=tuple(float(v) for v in scores.mean(axis=(0, 2))),
        draws=draws,
        verdict=verdict,
        p_values={str(name): p for name, p in p_values.items()},
        delta=delta,
        alpha=alpha,
        note="; ".join(notes),
        two_lines=None if diversity is None else fit_two_lines(diversity, scores, alpha=alpha),
        peak=levels[peaks[verdict]] if verdict in peaks else None,
    )


# --- two lines ---
class _Line(NamedTuple):
    slope: float
    t: float
    p_value: float


def fit_two_lines(diversity: ArrayLike, correct: ArrayLike, *, alpha: float = 0.05) -> TwoLines | None:
    """The two-lines test, as the module says; None where it cannot be done.

    It takes at least two generation draws and three different values of diversity, one of them between the
    10th and the 90th percentile.

    Args:
        diversity: measured, shape (levels,).
        correct: what each item scores, shape (draws, levels, items), other draws averaged first.
        alpha: the level of each of the two slopes.
    """
    scores, at_level = np.asarray(correct, dtype=np.float64), np.asarray(diversity, dtype=np.float64)
    accuracy = scores.mean(axis=2)
    draws, levels = accuracy.shape
    x = np.tile(at_level, draws)
    y = (accuracy - accuracy.mean(axis=1, keepdims=True)).ravel()
    df = y.size - 4.0 - (draws - 1.0)
    if draws < 2 or np.unique(x).size < 3 or df < 1:
        return None
    knots, fitted, errors = smooth_spline(x, y)
    low, high = np.quantile(x, _EDGES)
    middle = (knots > low) & (knots < high)
    if not middle.any():
        return None

    def cut(at: float) -> tuple[_Line, _Line]:
        """One line at and below the break, one at and above: points at the break serve in both, as published."""
        # a draw's mean taken out leaves (levels - 1) / levels of the noise; the slopes keep all of it
        inflate = levels / (levels - 1.0)
        below, above = (
            _fit_line(x[on], y[on], df=df, inflate=inflate, items=_find_slopes(at_level[side], scores[:, side]))
            for on, side in ((x <= at, at_level <= at), (x >= at, at_level >= at))
        )
        return below, above

    turns: dict[Literal["inverted-U", "U-shaped"], int] = {"inverted-U": 1, "U-shaped": -1}
    found = {}
    for shape, sign in turns.items():
        peak = float((sign * fitted[middle]).max())
        flat = x[np.isin(x, knots[middle & (sign * fitted + errors >= peak)])]
        first, second = cut(float(np.median(flat)))
        strength = abs(first.t) + abs(second.t)
        at = float(np.quantile(flat, abs(second.t) / strength if strength > 0 else 0.5))
        first, second = cut(at)
        shown = sign * first.slope > 0 > sign * second.slope and max(first.p_value, second.p_value) <= alpha
        found[shape] = TwoLines(
            shape=shape if shown else "underpowered",
            break_at=at,
            low_slope=first.slope,
            low_p=first.p_value,
            high_slope=second.slope,
            high_p=second.p_value,
        )
    only_trough = found["U-shaped"].shape == "U-shaped" and found["inverted-U"].shape == "underpowered"
    return found["U-shaped" if only_trough else "inverted-U"]


def _find_slopes(x: Floats, correct: Floats) -> Floats | None:
    """The slope of each item in each draw, shape (draws, items); None where x does not vary."""
    centred = x - x.mean() if x.size else x
    total = float(centred @ centred)
    return np.einsum("k,gki->gi", centred / total, correct) if total > 0.0 else None


def _fit_line(x: Floats, y: Floats, *, df: float, inflate: float, items: Floats | None) -> _Line:
    """Slope with its error; no slope where a point decides its line.

    The variance is ``inflate`` times that of HC3, plus what the items add, whose slopes are ``items``.
    """
    centred = x - x.mean() if x.size else x
    total = float(centred @ centred)
    leverage = 1.0 / max(x.size, 1) + centred**2 / total if total > 0.0 else np.ones(1)
    if x.size < 3 or items is None or (leverage >= 1.0 - 1e-9).any():
        return _Line(slope=0.0, t=0.0, p_value=1.0)
    slope = float(centred @ y) / total
    rest = y - y.mean() - slope * centred
    variance = inflate * float(np.sum((centred * rest / (1.0 - leverage)) ** 2)) / total**2
    error = dataclasses.replace(split_variance(items).measure(), of_draws=variance, df_draws=df)
    if error.variance <= 0.0:
        return _Line(slope=slope, t=0.0, p_value=1.0)
    return _Line(slope=slope, t=slope / error.error, p_value=2.0 * error.find_tail(abs(slope)))


def smooth_spline(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """The natural cubic smoothing spline at the different values of x: those, the fit, and its standard errors.

    Args:
        x: shape (n,), at least three different values.
        y: shape (n,).
    """
    knots, where, counts = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(where, weights=y) / counts
    within = float(np.sum((y - means[where]) ** 2))
    roughness = _penalise_roughness((knots - knots[0]) / (knots[-1] - knots[0]))
    weights = np.diag(counts.astype(np.float64))
    scale = float(np.trace(weights) / np.trace(roughness))
    inverses = np.linalg.inv(weights + (_PENALTIES * scale)[:, None, None] * roughness)
    fits = inverses @ (counts * means)
    losses = within + (counts * (means - fits) ** 2).sum(axis=1)
    left = y.size - (inverses * counts).trace(axis1=1, axis2=2)
    scores = np.where(left >= 0.5, y.size * losses / np.maximum(left, 0.5) ** 2, np.inf)
    best = int(np.argmin(scores))  # the largest penalty leaves a straight line, so one score is finite
    errors = np.sqrt(np.maximum(losses[best] / left[best] * np.diag(inverses[best]), 0.0))
    return knots, fits[best], errors


def _penalise_roughness(knots: Floats) -> Floats:
    """The matrix of the integrated squared second derivative in the values at the knots (Green & Silverman)."""
    gaps = np.diff(knots)
    inner = knots.size - 2
    q, r = np.zeros((knots.size, inner)), np.zeros((inner, inner))
    for j in range(inner):
        q[j : j + 3, j] = 1.0 / gaps[j], -1.0 / gaps[j] - 1.0 / gaps[j + 1], 1.0 / gaps[j + 1]
        r[j, j] = (gaps[j] + gaps[j + 1]) / 3.0
        if j + 1 < inner:
            r[j, j + 1] = r[j + 1, j] = gaps[j + 1] / 6.0
    return np.asarray(q @ np.linalg.solve(r, q.T))


# --- the manipulation check ---
def check_manipulation(
    dial: str, names: Sequence[str], measurements: Mapping[str, Measurement], *, metric: str = DIVERSITY
) -> ManipulationCheck:
    """Compare the least and the most diverse level as measured: passed if their 95% intervals do not overlap.

    Levels measured at numbers of rows that differ by more than a twentieth do not pass, because rows alone move the
    score.

    Args:
        dial: the dial.
        names: its levels, from least to most diverse as expected.
        measurements: ``dial=level`` -> measurement; levels without one are left out.
        metric: the measure of diversity.
    """
    found: dict[str, Estimate] = {}
    for name in names:
        measurement = measurements.get(f"{dial}={name}")
        if measurement is not None and metric in measurement.values:
            found[name] = measurement.values[metric]
    passed, notes = _compare_levels(found)
    return ManipulationCheck(
        dial=dial,
        metric=metric,
        levels=tuple(found),
        estimates=tuple(found.values()),
        passed=passed,
        note="; ".join(notes),
    )


def _compare_levels(found: Mapping[str, Estimate]) -> tuple[bool, list[str]]:
    if len(found) < 2:
        return False, ["fewer than two levels were measured"]
    measured = sorted(found, key=lambda name: found[name].value)
    least, most = found[measured[0]], found[measured[-1]]
    passed, notes = False, []
    if least.high is None or most.low is None:
        notes.append("no interval is known, so no difference is shown")
    else:
        passed = most.low > least.high
        relation = "do not overlap" if passed else "overlap: this dial did not change the measured diversity"
        notes.append(
            f"least diverse {measured[0]} ({least.value:.1f}) and most diverse {measured[-1]} ({most.value:.1f}): "
            f"the intervals {relation}"
        )
    if measured != list(found):
        notes.append(
            f"measured order {' < '.join(measured)} differs from the expected {' < '.join(found)}: "
            "read diversity beside shift and quality, since noise can look less diverse to an embedder"
        )
    sizes = [estimate.n for estimate in found.values()]
    if min(sizes) != max(sizes):
        notes.append(f"measured at {min(sizes):,} to {max(sizes):,} rows, which alone moves the score")
        if max(sizes) > _ALIKE * min(sizes):
            passed = False
            notes.append("so the levels cannot be compared: measure them at equal rows")
    return passed, notes


# --- the balanced slice of each dial: its levels at one share ---
def test_slices(
    tables: Mapping[Cell, CellTable],
    level_ranks: Mapping[str, Sequence[str]],
    *,
    share: float,
    delta: float,
    alpha: float,
    checks: Sequence[ManipulationCheck] = (),
) -> tuple[ShapeTest, ...]:
    """One test a dial, over the levels trained at ``share`` and the draws that all of them have.

    Levels stand in the order of their measured diversity where all were measured, because diversity is what was
    measured and not what was asked for; else in the expected one. Where the levels that a verdict rests on do not
    differ in measured diversity, it is marked as not interpreted.

    Args:
        tables: the cells that may win, at ``share``.
        level_ranks: dial -> its level names from least to most diverse as expected.
        share: of all cells in ``tables``.
        delta: the smallest difference that counts.
        alpha: the level of each test.
        checks: the manipulation checks, whose estimates are the measured diversity.
    """
    by_dial = {check.dial: check for check in checks}
    tests = []
    for dial, names in level_ranks.items():
        found = {str(c.level): table for c, table in tables.items() if c.dial == dial}
        trained, check = [name for name in names if name in found], by_dial.get(dial)
        measured = _find_diversity(check, trained)
        # as measured, where all levels were; ties as expected
        levels = trained if measured is None else [trained[k] for k in np.argsort(measured, kind="stable")]
        drawn = {d for name in levels for d in found[name].draws}
        common = sorted(d for d in drawn if all(d in found[name].draws for name in levels))
        if not common:
            continue
        notes = []
        if len(trained) < len(names):
            absent = ", ".join(name for name in names if name not in found)
            notes.append(f"left out for want of draws: {absent}, so the shape is that of the other levels")
        if len(common) < len(drawn):
            notes.append(f"draws that lack a level are left out: {len(drawn) - len(common)}")
        if levels != trained:
            notes.append(f"levels stand in their measured order, {' < '.join(levels)}")
        test = test_shape(
            np.stack([found[name].take(common) for name in levels], axis=1),
            levels=levels,
            delta=delta,
            alpha=alpha,
            dial=dial,
            share=share,
            diversity=None if measured is None else sorted(measured),
        )
        why = _find_why_mute(test, check)
        note = "; ".join(filter(None, [*notes, test.note, why]))
        tests.append(dataclasses.replace(test, note=note, interpreted=not why))
    return tuple(tests)


def _find_diversity(check: ManipulationCheck | None, levels: Sequence[str]) -> list[float] | None:
    """What was measured of each level; None unless all were."""
    known = {} if check is None else {n: e.value for n, e in zip(check.levels, check.estimates, strict=True)}
    return [known[name] for name in levels] if check is not None and known.keys() >= set(levels) else None


def _find_why_mute(test: ShapeTest, check: ManipulationCheck | None) -> str:
    """Why a verdict says nothing of diversity; empty where it does, or nothing was measured."""
    if check is None or len(check.levels) < 2:
        return ""
    if not check.passed:
        return "not interpreted: the levels do not differ in measured diversity, so no effect of diversity can show"
    found, ends = dict(zip(check.levels, check.estimates, strict=True)), (test.levels[0], test.levels[-1])
    if test.peak is None or not found.keys() >= {test.peak, *ends}:
        return ""
    peak, (first, last) = found[test.peak], (found[end] for end in ends)
    alike = [
        end
        for end, low, high in ((ends[0], first, peak), (ends[1], peak, last))
        if low.high is None or high.low is None or low.high >= high.low
    ]
    why = f"not interpreted: {test.peak} does not differ from {' and '.join(alike)} in measured diversity, so no "
    return why + "turn of accuracy over diversity can show there" if alike else ""
