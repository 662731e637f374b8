"""The charts of a report's findings, drawn from cells, gains and measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cuvee.characters import visible
from cuvee.records import CellSummary, Estimate, Gain
from cuvee.report.chart_parts import (
    ACCENT,
    DIAL_COLOURS,
    GRID,
    INK,
    MUTED,
    REAL,
    SHAPES,
    WIDTH,
    Domain,
    Row,
    by_level,
    capitalise,
    chart_of,
    finite,
    level_axis,
    number_axis,
    render_chart,
)

if TYPE_CHECKING:
    import altair as alt


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """Accuracies, as fractions, that cells are seen against; None where not trained."""

    real_only: float | None
    real_duplicated: float | None


def draw_gains(gains: Sequence[tuple[str, Gain]], *, delta: float, score: str = "accuracy") -> str:
    """Gains with their intervals, one line each, the band of what does not count behind them."""
    import altair as alt

    rows: list[Row] = [
        {"name": name, "gain": 100 * g.value, "low": 100 * g.low, "high": 100 * g.high} for name, g in gains
    ]
    order = [name for name, _ in gains]
    y = alt.Y(
        "name:N",
        sort=order,
        title=None,
        axis=alt.Axis(labelLimit=220, minExtent=165, ticks=False, domain=False, grid=False),
    )
    x = alt.X("gain:Q", title=f"gain in {score}, points", axis=alt.Axis(tickCount=6))
    band = chart_of([{"low": -100 * delta, "high": 100 * delta}]).mark_rect(color=GRID, opacity=0.55)
    zero = chart_of([{"x": 0.0}]).mark_rule(color=INK, strokeWidth=1)
    base = chart_of(rows)
    layers = [
        band.encode(x=alt.X("low:Q", title=f"gain in {score}, points"), x2="high:Q"),
        zero.encode(x="x:Q"),
        base.mark_rule(color=ACCENT, strokeWidth=2.5).encode(x=alt.X("low:Q"), x2="high:Q", y=y),
        base.mark_point(color=ACCENT, fill=ACCENT, size=90, opacity=1).encode(x=x, y=y),
    ]
    return render_chart(
        alt.layer(*layers), "Gains of the best blend with 95% intervals", height=36 * len(rows), width=210
    )


def draw_accuracy_by_level(
    cells: Sequence[CellSummary],
    *,
    levels: Sequence[str],
    dial: str,
    baselines: Baselines,
    domain: Domain,
    best: str,
    score: str = "accuracy",
) -> str:
    """The score of each level at one share; whiskers are the 95% interval of its gain over real-only."""
    import altair as alt

    rows = [row for row in map(_accuracy_row, cells) if row["level"] in levels]
    x = alt.X("level:N", sort=list(levels), title=f"{dial}: least → most diverse, as expected", axis=level_axis())
    y = alt.Y("accuracy:Q", title=_axis_title(score), scale=alt.Scale(domain=list(domain), zero=False))
    colour = alt.when(alt.datum.level == visible(best)).then(alt.value(ACCENT)).otherwise(alt.value(INK))
    base = chart_of(rows)
    layers = [
        *_baseline_rules(baselines, domain, at=_label_place(len(levels))),
        base.mark_rule(strokeWidth=1.8).encode(
            x=x, y=alt.Y("low:Q", scale=alt.Scale(domain=list(domain), zero=False)), y2="high:Q", color=colour
        ),
        base.mark_point(filled=True, size=80, opacity=1).encode(x=x, y=y, color=colour),
    ]
    return render_chart(alt.layer(*layers), f"{capitalise(score)} by level of {dial}", height=220)


def draw_accuracy_by_share(
    cells: Sequence[CellSummary],
    *,
    levels: Sequence[str],
    dial: str,
    real_only: float | None,
    duplicated: Mapping[float, float],
    descriptive_shares: Sequence[float],
    domain: Domain,
    score: str = "accuracy",
) -> str:
    """The score against the realised share, one line a level; shares that are only descriptive are hollow."""
    import altair as alt

    names = [name for name in levels if any(c.cell.level == name for c in cells)]
    rows: list[Row] = []
    for name in names:
        if real_only is not None:
            rows.append({"level": name, "share": 0.0, "accuracy": 100 * real_only, "hollow": False, "start": True})
        for cell in cells:
            if cell.cell.level == name:
                hollow = any(math.isclose(cell.cell.share, s, abs_tol=1e-9) for s in descriptive_shares)
                rows.append(_accuracy_row(cell) | {"share": cell.share, "hollow": hollow, "start": False})
    x = alt.X("share:Q", title="share of synthetic rows", scale=alt.Scale(domain=[0, 1]), axis=number_axis(6))
    y = alt.Y("accuracy:Q", title=_axis_title(score), scale=alt.Scale(domain=list(domain), zero=False))
    base = chart_of(rows)
    colour, shape = by_level(names)
    repeated = chart_of([{"share": s, "accuracy": 100 * a} for s, a in sorted(duplicated.items())])
    layers = [
        repeated.mark_line(color=REAL, strokeDash=[5, 4], strokeWidth=1.5).encode(x=x, y=y),
        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour),
        base.transform_filter("!datum.start && !datum.hollow")
        .mark_point(filled=True, size=60, opacity=1)
        .encode(x=x, y=y, color=colour, shape=shape),
        base.transform_filter("datum.hollow")
        .mark_point(filled=False, size=60, opacity=1, strokeWidth=1.6)
        .encode(x=x, y=y, color=colour, shape=shape),
    ]
    if real_only is not None:
        start = chart_of([{"share": 0.0, "accuracy": 100 * real_only}])
        layers.append(start.mark_point(filled=True, color=REAL, size=90, opacity=1).encode(x=x, y=y))
    return render_chart(alt.layer(*layers), f"{capitalise(score)} by share, {dial}", height=230)


def draw_accuracy_by_diversity(
    points: Sequence[tuple[CellSummary, Estimate]],
    *,
    dials: Sequence[str],
    baselines: Baselines,
    domain: Domain,
    score: str = "accuracy",
) -> str:
    """The score against measured diversity, every level of every dial at one share."""
    import altair as alt

    rows = [
        _accuracy_row(cell)
        | {"dial": cell.cell.dial, "diversity": e.value, "left": finite(e.low), "right": finite(e.high)}
        for cell, e in points
    ]
    title = "measured diversity (Vendi score, q = 1)"
    x = alt.X("diversity:Q", title=title, scale=alt.Scale(zero=False, nice=True), axis=number_axis(6))
    y = alt.Y("accuracy:Q", title=_axis_title(score), scale=alt.Scale(domain=list(domain), zero=False))
    legend = alt.Legend(title=None, orient="top", columnPadding=22, symbolOpacity=1)
    colours = [DIAL_COLOURS[i % len(DIAL_COLOURS)] for i in range(len(dials))]
    colour = alt.Color("dial:N", sort=list(dials), scale=alt.Scale(domain=list(dials), range=colours), legend=legend)
    marks = [SHAPES[i % len(SHAPES)] for i in range(len(dials))]
    shape = alt.Shape("dial:N", scale=alt.Scale(domain=list(dials), range=marks), legend=legend)
    base = chart_of(rows)
    layers = [
        *_baseline_rules(baselines, domain, at=None),
        base.transform_filter("isValid(datum.left)")
        .mark_rule(strokeWidth=1.2, opacity=0.55)
        .encode(x=alt.X("left:Q", scale=alt.Scale(zero=False)), x2="right:Q", y=y, color=colour),
        base.mark_rule(strokeWidth=1.2, opacity=0.55).encode(x=x, y="low:Q", y2="high:Q", color=colour),
        base.mark_point(filled=True, size=75, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
        base.mark_text(dx=7, dy=-7, align="left", fontSize=11, color=INK).encode(x=x, y=y, text="level:N"),
    ]
    return render_chart(alt.layer(*layers), f"{capitalise(score)} by measured diversity", height=250)


def draw_metric_by_level(
    estimates: Mapping[str, Estimate],
    *,
    levels: Sequence[str],
    dial: str,
    title: str,
    real: float | None,
    domain: Domain,
) -> str:
    """One metric of every level with its interval; the real training data as a rule."""
    import altair as alt

    rows: list[Row] = [
        {"level": name, "value": e.value, "low": finite(e.low), "high": finite(e.high)}
        for name, e in ((name, estimates[name]) for name in levels if name in estimates)
    ]
    x = alt.X("level:N", sort=list(levels), title=dial, axis=level_axis())
    scale = alt.Scale(domain=list(domain), zero=False, nice=False)
    y = alt.Y("value:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5))
    base = chart_of(rows)
    layers: list[alt.Chart] = []
    if real is not None:
        layers += _draw_rule(real, "real data", above=False, dashed=False, at=_label_place(len(levels)))
    layers += [
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=1.8, color=INK)
        .encode(x=x, y=alt.Y("low:Q", scale=scale), y2="high:Q"),
        base.mark_line(strokeWidth=1, color=MUTED, opacity=0.7).encode(x=x, y=y),
        base.mark_point(filled=True, size=60, opacity=1, color=INK).encode(x=x, y=y),
    ]
    return render_chart(alt.layer(*layers), f"{title} by level of {dial}", height=150)


def draw_tau_curves(curves: Mapping[str, Sequence[tuple[float, float]]], *, dial: str) -> str:
    """DCScore against tau, both logarithmic, one line a level."""
    import altair as alt

    names = list(curves)
    rows: list[Row] = [
        {"level": name, "tau": tau, "score": score} for name, points in curves.items() for tau, score in points
    ]
    taus = sorted({tau for points in curves.values() for tau, _ in points})
    scores = [score for points in curves.values() for _, score in points]
    lowest = math.floor(math.log10(min(scores)))
    powers = [10.0**k for k in range(lowest, max(math.ceil(math.log10(max(scores))), lowest + 1) + 1)]
    across = alt.Scale(type="log", domain=[taus[0], taus[-1]], nice=False)
    x = alt.X("tau:Q", title="tau", scale=across, axis=alt.Axis(values=taus, format="~f", labelFlush=False))
    upward = alt.Scale(type="log", domain=[powers[0], powers[-1]], nice=False)
    y = alt.Y("score:Q", title="DCScore", scale=upward, axis=alt.Axis(values=powers, format="~f"))
    colour, shape = by_level(names)
    base = chart_of(rows)
    layers = [
        base.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour),
        base.mark_point(filled=True, size=45, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
    ]
    return render_chart(alt.layer(*layers), f"DCScore over tau, {dial}", height=180)


def _axis_title(score: str) -> str:
    return "accuracy, %" if score == "accuracy" else f"{score} x 100"


def _accuracy_row(summary: CellSummary) -> Row:
    """Level, accuracy and the interval of the gain over real-only laid around it, in percent."""
    gain = next((g for g in summary.gains if g.over == "real-only"), None)
    low = None if gain is None else 100 * (summary.accuracy + gain.low - gain.value)
    high = None if gain is None else 100 * (summary.accuracy + gain.high - gain.value)
    return {"level": summary.cell.level, "accuracy": 100 * summary.accuracy, "low": low, "high": high}


def _label_place(levels: int) -> float:
    """Where a rule's name stands: between the last two levels, clear of their whiskers."""
    return (WIDTH - 70) * (1 - 1 / max(levels, 2))


def _baseline_rules(baselines: Baselines, domain: Domain, *, at: float | None) -> list[alt.Chart]:
    real, repeated = baselines.real_only, baselines.real_duplicated
    layers = []
    higher = real is not None and repeated is not None and real > repeated
    if repeated is not None and domain[0] <= 100 * repeated <= domain[1]:
        layers += _draw_rule(100 * repeated, "real, repeated", above=not higher, dashed=True, at=at)
    if real is not None and domain[0] <= 100 * real <= domain[1]:
        layers += _draw_rule(100 * real, "real only", above=higher or repeated is None, dashed=False, at=at)
    return layers


def _draw_rule(value: float, label: str, *, above: bool, dashed: bool, at: float | None) -> list[alt.Chart]:
    """A baseline across the chart, its name centred ``at`` this many units from the left, above or below it."""
    import altair as alt

    base = chart_of([{"value": value, "label": label}])
    rule = base.mark_rule(color=REAL, strokeWidth=1.5, strokeDash=[5, 4] if dashed else [1, 0]).encode(y="value:Q")
    if at is None:
        return [rule]
    text = base.mark_text(color=REAL, align="center", baseline="middle", fontSize=10, dy=-9 if above else 10)
    return [rule, text.encode(x=alt.value(at), y="value:Q", text="label:N")]
