"""Simonsohn's two-lines test of an inverted U over *measured* diversity, with the Robin Hood break point.

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
which is the pairing, and the degrees of freedom pay for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from cuvee.recommend.statistics import Floats
from cuvee.records.advice import TwoLines

_PENALTIES = np.logspace(-6, 6, 49)
_EDGES = (0.1, 0.9)
"""Percentiles of x between which the extreme is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    slope: float
    t: float
    p_value: float


_NO_LINE = _Line(slope=0.0, t=0.0, p_value=1.0)


def fit_two_lines(diversity: ArrayLike, accuracy: ArrayLike, *, alpha: float = 0.05) -> TwoLines | None:
    """The two-lines test, as the module says; None where it cannot be done.

    It takes at least two generation draws and three different values of diversity, one of them between the
    10th and the 90th percentile.

    Args:
        diversity: measured, shape (levels,) or (draws, levels).
        accuracy: shape (draws, levels), other draws averaged first.
        alpha: the level of each of the two slopes.

    Raises:
        ValueError: shapes do not fit, numbers are not finite, or ``alpha`` is out of range.
    """
    y = np.asarray(accuracy, dtype=np.float64)
    x = np.asarray(diversity, dtype=np.float64)
    if y.ndim != 2 or x.shape not in (y.shape, y.shape[1:]):
        raise ValueError(f"diversity {x.shape} must have the shape of accuracy {y.shape}, or its second part")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("diversity and accuracy must be finite")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha!r}")
    draws, levels = y.shape
    x = np.broadcast_to(x, y.shape).ravel()
    y = (y - y.mean(axis=1, keepdims=True)).ravel()
    df = y.size - 4.0 - (draws - 1.0)
    if draws < 2 or np.unique(x).size < 3 or df < 1:
        return None
    # a draw's mean taken out leaves (levels - 1) / levels of the noise; the slopes keep all of it
    inflate = levels / (levels - 1.0)
    knots, fitted, errors = smooth_spline(x, y)
    peak = _place_break(x, y, (knots, fitted, errors), df=df, inflate=inflate)
    trough = _place_break(x, -y, (knots, -fitted, errors), df=df, inflate=inflate)
    if peak is None or trough is None:
        return None
    up_down = _cut_lines(x, y, peak, df=df, inflate=inflate)
    down_up = _cut_lines(x, y, trough, df=df, inflate=inflate)
    if _is_shown(down_up, sign=-1, alpha=alpha) and not _is_shown(up_down, sign=1, alpha=alpha):
        return _name_lines(down_up, trough, "U-shaped")
    return _name_lines(up_down, peak, "inverted-U" if _is_shown(up_down, sign=1, alpha=alpha) else "underpowered")


def _name_lines(
    lines: tuple[_Line, _Line], at: float, shape: Literal["inverted-U", "U-shaped", "underpowered"]
) -> TwoLines:
    low, high = lines
    return TwoLines(
        shape=shape,
        break_at=at,
        low_slope=low.slope,
        low_p=low.p_value,
        high_slope=high.slope,
        high_p=high.p_value,
    )


def _is_shown(lines: tuple[_Line, _Line], *, sign: int, alpha: float) -> bool:
    low, high = lines
    return sign * low.slope > 0 > sign * high.slope and max(low.p_value, high.p_value) <= alpha


def _place_break(
    x: Floats, y: Floats, smooth: tuple[Floats, Floats, Floats], *, df: float, inflate: float
) -> float | None:
    """The Robin Hood break for a maximum of y; None where nothing lies between the edges."""
    low, high = np.quantile(x, _EDGES)
    knots, fitted, errors = smooth
    middle = (knots > low) & (knots < high)
    if not middle.any():
        return None
    peak = float(fitted[middle].max())
    flat = x[np.isin(x, knots[middle & (fitted + errors >= peak)])]
    first, second = _cut_lines(x, y, float(np.median(flat)), df=df, inflate=inflate)
    strength = abs(first.t) + abs(second.t)
    return float(np.quantile(flat, abs(second.t) / strength if strength > 0 else 0.5))


def _cut_lines(x: Floats, y: Floats, at: float, *, df: float, inflate: float) -> tuple[_Line, _Line]:
    """One line at and below the break, one at and above: points at the break serve in both, as published."""
    below, above = x <= at, x >= at
    return (
        _fit_line(x[below], y[below], df=df, inflate=inflate),
        _fit_line(x[above], y[above], df=df, inflate=inflate),
    )


def _fit_line(x: Floats, y: Floats, *, df: float, inflate: float) -> _Line:
    centred = x - x.mean() if x.size else x
    total = float(centred @ centred)
    if total <= 0.0 or x.size < 3:
        return _NO_LINE
    slope = float(centred @ y) / total
    rest = y - y.mean() - slope * centred
    leverage = 1.0 / x.size + centred**2 / total
    if (leverage >= 1.0 - 1e-9).any():  # a point that decides its own line has no residual
        return _NO_LINE
    variance = inflate * float(np.sum((centred * rest / (1.0 - leverage)) ** 2)) / total**2
    if variance <= 0.0:
        return _Line(slope=slope, t=0.0, p_value=1.0)
    t = slope / float(np.sqrt(variance))
    return _Line(slope=slope, t=t, p_value=2.0 * float(special.stdtr(df, -abs(t))))


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
