"""The page of a model that was trained again and again on what it wrote."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt
import numpy as np

from cuvee.records import CollapseResult
from cuvee.records.collapse import MEASURES
from cuvee.report import charts, tables

_CURVES = 6  # densities of one figure
_RANGE = 4.0
_HIGHEST = 1.2  # density


def render_collapse(page: CollapseResult) -> str:
    """One self-contained HTML page; all text of the data is escaped, nothing is fetched."""
    return charts.render_page("collapse.html.j2", page, vars(tables) | globals())


def draw_measures(page: CollapseResult) -> list[charts.Figure]:
    """Each measure by generation, a line a course, with what theory expects dashed."""
    names = [course.name for course in page.courses]
    measures = dict.fromkeys(name for course in page.courses for name in course.values)
    figures = []
    for measure in measures:
        rows: list[charts.Row] = []
        theory: list[charts.Row] = []
        for course in page.courses:
            for at, point in enumerate(page.points[course.name].get(measure, ())):
                if math.isfinite(point.value):
                    ends = {"low": charts.finite(point.low), "high": charts.finite(point.high)}
                    tip = f"{course.name}, generation {at}: {tables.write_number(point.value)}"
                    rows.append({"course": course.name, "x": at, "y": point.value, **ends, "tip": tip})
            expected = enumerate(course.expected.get(measure, ()))
            theory += [{"course": course.name, "x": at, "y": float(value)} for at, value in expected]
        if rows:
            title, caption = MEASURES[measure]
            dashed = " Dashed: what theory expects." if theory else ""
            figures.append(_draw_lines(rows, theory, names, title, f"{tables.capitalise(caption)}.{dashed}"))
    return figures


def _draw_lines(
    rows: Sequence[charts.Row], theory: Sequence[charts.Row], names: Sequence[str], title: str, caption: str
) -> charts.Figure:
    scale = alt.Scale(zero=False)
    last = max(int(row["x"] or 0) for row in rows)
    x = alt.X("x:Q", title="generation", axis=alt.Axis(tickMinStep=1, tickCount=min(last, 10), format="d", grid=False))
    y = alt.Y("y:Q", title=None, scale=scale, axis=charts.NUMBERS)
    series = charts.by_name("course", charts.name_colours(names))
    layers = charts.draw_points(rows, x, y, series, scale=scale, line=1.6, size=30)
    if theory:
        layers.append(
            charts.chart_of(theory).mark_line(strokeDash=[4, 3], strokeWidth=1.2).encode(x=x, y=y, color=series.colour)
        )
    said = "; ".join(
        f"{name} from {own[0]:.3g} to {own[-1]:.3g}"
        for name in names
        if (own := [float(row["y"] or 0) for row in rows if row["course"] == name])
    )
    label, layer = f"{title} by generation: {said}", alt.layer(*layers)
    return charts.render_chart(layer, title, rows, label=label, caption=caption, height=200, keys=series.keys)


def draw_densities(page: CollapseResult) -> list[charts.Figure]:
    """The Gaussian of the first chain, its first coordinate, over generations, one figure a course."""
    if page.model != "gaussian":
        return []
    chosen = sorted({round(at) for at in np.linspace(0, page.generations, min(_CURVES, page.generations + 1))})
    names = [f"generation {at}" for at in chosen]
    series = charts.by_name("course", charts.name_colours(names, ordered=True), ("square",))
    grid = np.linspace(-_RANGE, _RANGE, 161)
    figures = []
    for course in page.courses:
        rows: list[charts.Row] = []
        for at, name in zip(chosen, names, strict=True):
            mean, sd = map(float, course.samples[at])
            if sd > 0:
                heights = np.exp(-(((grid - mean) / sd) ** 2) / 2) / (sd * math.sqrt(2 * math.pi))
                rows += [{"course": name, "x": float(u), "y": float(v)} for u, v in zip(grid, heights, strict=True)]
        real: list[charts.Row] = [{"x": float(u), "y": math.exp(-u * u / 2) / math.sqrt(2 * math.pi)} for u in grid]
        x, y = alt.X("x:Q", title=None, axis=charts.NUMBERS), alt.Y("y:Q", title="density", axis=charts.NUMBERS)
        highest = min(_HIGHEST, max(float(row["y"] or 0) for row in [*rows, *real]))
        y = y.scale(domain=[0, highest])  # a law that has shrunk to a point would hide the others
        lines = charts.chart_of(rows).mark_line(strokeWidth=1.8, clip=True)
        layers = [
            charts.chart_of(real).mark_area(color=charts.MUTED, opacity=0.18).encode(x=x, y=y),
            lines.encode(x=x, y=y, color=series.colour),
        ]
        label = f"Density of the first chain's law by generation, {course.name}"
        layer, real_law = alt.layer(*layers), "Grey: the real law."
        made = charts.render_chart(
            layer, course.name, rows, label=label, caption=real_law, height=200, keys=series.keys
        )
        figures.append(made)
    return figures
