"""The engine of the pages: their templates and style sheet, and charts as SVG text by Altair without a network.

Every chart stands on a transparent ground. Colours are the light theme's; the pages' style sheet maps each of them to
the dark theme by its value (``[fill="#..."]``), so a chart may only use those of ``COLOURS``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, cast

import altair as alt
import jinja2
import vl_convert
from markupsafe import Markup, escape

from cuvee.characters import to_html, visible, visible_lines
from cuvee.fingerprint import hash_texts
from cuvee.records import CollapseResult, Estimate, MeasurementPage
from cuvee.report.tables import ReportData

INK, MUTED, GRID = "#2b2631", "#6d6675", "#e4dfd9"
ACCENT, REAL = "#8c1d40", "#1f6f8b"
LEVEL_COLOURS = ("#dfa321", "#d8722c", "#b8403f", "#85285c", "#4a2168", "#1c1548")
DIAL_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
GROUP_COLOURS = (*DIAL_COLOURS, "#6a51a3", "#b8860b", "#7f5539", "#12908e")
# What each of ``COLOURS`` becomes on a dark page, in the same order.
COLOURS = (INK, MUTED, GRID, ACCENT, REAL, *LEVEL_COLOURS, *GROUP_COLOURS)
DARK = (
    *("#e2dce6", "#a49cae", "#3a3441", "#f5799b", "#6cc3e0"),
    *("#ffe08a", "#f7ac5e", "#ec7f72", "#d16fa9", "#a585e6", "#8fb4ff"),
    *("#56b4e9", "#f0884a", "#3ecfa5", "#e5a3ca", "#b39df0", "#ffc857", "#cda183", "#5fd6d6"),
)
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")

WIDTH = 360
LEVELS = alt.Axis(labelAngle=0, labelLimit=90, labelOverlap=False, grid=False)
NUMBERS = alt.Axis(tickCount=6, labelFlush=False, format="~f")
Row = dict[str, str | float | bool | None]
Domain = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One chart as SVG text with what stands above and below it; both are plain text."""

    title: str
    svg: str
    caption: str = ""


def write_dark_theme() -> str:
    """Style rules that turn each chart colour into its fellow of ``DARK`` on a dark screen."""
    rules = [
        f'.chart [fill="{day}"] {{ fill: {night}; }} .chart [stroke="{day}"] {{ stroke: {night}; }}'
        for day, night in zip(COLOURS, DARK, strict=True)
    ]
    return "\n".join(["@media screen and (prefers-color-scheme: dark) {", *rules, "}"])


def chart_of(rows: Sequence[Row]) -> alt.Chart:
    """A chart whose data are ``rows``, without marks."""
    return alt.Chart(alt.InlineData(values=list(rows)))


def finite(value: float | None) -> float | None:
    """The value, or None where it is none of a number."""
    return value if value is not None and math.isfinite(value) else None


def by_name(
    field: str, names: Sequence[str], colours: Sequence[str], legend: alt.Legend | None
) -> tuple[alt.Color, alt.Shape]:
    """Colour and shape of what has one of the names."""
    shapes = [SHAPES[i % len(SHAPES)] for i in range(len(names))]
    scales = [alt.Scale(domain=list(names), range=list(own)) for own in (colours, shapes)]
    kind = f"{field}:N"
    return alt.Color(kind, scale=scales[0], legend=legend), alt.Shape(kind, scale=scales[1], legend=legend)


def by_level(names: Sequence[str]) -> tuple[alt.Color, alt.Shape]:
    """Colour and shape of levels, ordered from light to dark as the levels are."""
    legend = alt.Legend(title=None, orient="top", columns=6, columnPadding=16, symbolOpacity=1)
    return by_name("level", names, colour_levels(len(names)), legend)


def colour_levels(count: int) -> list[str]:
    """Colours from light to dark."""
    last = max(count - 1, 1)
    return [LEVEL_COLOURS[round(i * (len(LEVEL_COLOURS) - 1) / last)] for i in range(count)]


def draw_points(
    rows: Sequence[Row],
    x: alt.X,
    y: alt.Y,
    *,
    scale: alt.Scale | None = None,
    series: tuple[alt.Color, alt.Shape] | None = None,
    best: str = "",
    line: float = 0,
    size: float = 60,
) -> list[alt.Chart]:
    """Rows as points, with whiskers from ``low`` to ``high`` where these are known.

    Args:
        rows: with what the channels name; those of ``start`` have no point, those of ``hollow`` an empty one.
        x, y: where they stand.
        scale: of ``y``, for the whiskers.
        series: colour and shape of the points of each dial, or the like.
        best: the level that is marked where there is no series.
        line: width of the line through the points of one colour; 0 draws none.
        size: of points.
    """
    base = chart_of(rows)
    colour, shape = series or (None, None)
    paint = colour or alt.when(alt.datum.level == best).then(alt.value(ACCENT)).otherwise(alt.value(INK))
    low = alt.Y("low:Q", scale=alt.Undefined if scale is None else scale)
    whiskers = base.transform_filter("isValid(datum.low) && isValid(datum.high)")
    layers = [whiskers.mark_rule(strokeWidth=1.6, opacity=0.8).encode(x=x, y=low, y2="high:Q", color=paint)]
    if line:
        layers.append(base.mark_line(strokeWidth=line).encode(x=x, y=y, color=paint))
    for test, filled in (("!datum.start && !datum.hollow", True), ("datum.hollow", False)):
        marked = base.transform_filter(test).mark_point(filled=filled, size=size, opacity=1, strokeWidth=1.6)
        marked = marked.encode(x=x, y=y, color=paint)
        layers.append(marked if shape is None else marked.encode(shape=shape))
    return layers


def draw_profiles(
    profiles: Mapping[str, Sequence[tuple[float, Estimate]]], *, over_tau: bool = False, ordered: bool = False
) -> str:
    """Diversities against tau (logarithmic) or their order q, under the names given, with 95% bands.

    Empty where none has two points that a logarithmic axis of values can show. The colours of ``ordered`` names run
    from light to dark.
    """
    curves: dict[str, list[tuple[float, Estimate]]] = {}
    for name, points in profiles.items():
        found = [(at, e) for at, e in points if math.isfinite(at) and math.isfinite(e.value) and e.value > 0]
        curves[name] = sorted(((at, e) for at, e in found if at > 0 or not over_tau), key=lambda point: point[0])
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    if not curves:
        return ""
    across, upward = ("tau", "DCScore") if over_tau else ("order q", "effective number")
    floor = 0.5 * min(e.value for points in curves.values() for _, e in points)
    rows: list[Row] = [
        {
            "curve": name,
            "x": parameter,
            "y": e.value,
            "low": None if (low := finite(e.low)) is None else max(low, floor),
            "high": finite(e.high),
        }
        for name, points in curves.items()
        for parameter, e in points
    ]
    heights = [float(v) for row in rows for v in (row["y"], row["low"], row["high"]) if isinstance(v, float)]
    domain = (min(heights) / 1.06, max(heights) * 1.06)
    y_axis = alt.Axis(values=pick_ticks(*domain), format=",~g" if domain[1] < 1 else ",~f")
    y_scale = alt.Scale(type="log", domain=list(domain), nice=False)
    y = alt.Y("y:Q", title=f"{upward}, logarithmic", scale=y_scale, axis=y_axis)
    ends = (min(float(row["x"] or 0) for row in rows), max(float(row["x"] or 0) for row in rows))
    x_axis = alt.Axis(values=pick_ticks(*ends), format="~f") if over_tau else alt.Axis(tickCount=8, format="~f")
    x_scale = alt.Scale(type="log" if over_tau else "linear", domain=list(ends), nice=False)
    x = alt.X("x:Q", title=f"{across}, logarithmic" if over_tau else across, scale=x_scale, axis=x_axis)
    names = list(curves)
    colours = [ACCENT] if len(names) == 1 else [GROUP_COLOURS[i % len(GROUP_COLOURS)] for i in range(len(names))]
    colours = colour_levels(len(names)) if ordered else colours
    legend = alt.Legend(title=None, orient="bottom", columns=2, labelLimit=190, symbolOpacity=1)
    colour, _ = by_name("curve", names, colours, legend if len(names) > 1 else None)
    base = chart_of(rows)
    lower = alt.Y("low:Q", scale=y_scale, title=f"{upward}, logarithmic", axis=y_axis)
    layers = [
        base.transform_filter("isValid(datum.low) && isValid(datum.high)")
        .mark_area(opacity=0.2)
        .encode(x=x, y=lower, y2="high:Q", color=colour),
        base.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour),
        base.mark_point(filled=True, size=32, opacity=1).encode(x=x, y=y, color=colour),
    ]
    said = "; ".join(  # both ends of each curve in words, for who cannot see it
        f"{name} from {points[0][1].value:.3g} at {points[0][0]:g} to {points[-1][1].value:.3g} at {points[-1][0]:g}"
        for name, points in curves.items()
    )
    label = f"{upward} over {across}, with 95% bands: {said}"
    return render_chart(alt.layer(*layers), label, height=210)


def pick_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis: powers of ten, with 2 and 5 times them where few powers fit."""
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(1 + k / 4 for k in range(36))):
        ticks = [float(f"{step * 10.0**k:.6g}") for k in range(first, last) for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 4:
            return inside if len(inside) <= 9 else inside[:: math.ceil(len(inside) / 8)]
    return [low, high]


def render_chart(
    chart: alt.LayerChart | alt.FacetChart, label: str, *, height: float, width: float = WIDTH - 70
) -> str:
    """The chart as SVG text to stand in HTML, with ``label`` as its accessible name; units of the view box."""
    axis = {"labelColor": MUTED, "titleColor": MUTED, "gridColor": GRID, "domainColor": MUTED, "tickColor": GRID}
    text = {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal"}
    spec: dict[str, Any] = chart.properties(width=width, height=height).to_dict(validate=False)
    spec["config"] = {
        "background": "transparent",
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": axis | text,
        "axisY": {"titlePadding": 13},
        "legend": {"labelColor": INK, "titleColor": MUTED, "symbolSize": 60} | text,
        "text": {"fontSize": 11},
    }
    return _inline(vl_convert.vegalite_to_svg(cast("dict[str, Any]", _visible_spec(spec))), label)


def _visible_spec(part: object) -> object:
    """A chart's names and texts without control characters, which end the process that draws them."""
    if isinstance(part, dict):
        return {name: _visible_spec(inner) for name, inner in part.items()}
    if isinstance(part, list | tuple):
        return [_visible_spec(inner) for inner in part]
    return visible(part) if isinstance(part, str) else part


def _inline(svg: str, label: str) -> str:
    """An SVG fit to stand in HTML: one accessible name, no namespace addresses, ids of its own."""
    box = re.search(r'viewBox="([^"]+)"', svg)
    view = box.group(1) if box else f"0 0 {WIDTH} {WIDTH}"
    body = svg[svg.index(">") + 1 :]
    mark = hash_texts([label, svg])[:8]
    body = re.sub(r'id="([^"]+)"', rf'id="{mark}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{mark}-\1)", body)
    name = to_html(label)
    return f'<svg class="chart" role="img" aria-label="{name}" viewBox="{view}" style="--w:{view.split()[2]}">{body}'


# --- pages ---
def render_page(template: str, page: ReportData | MeasurementPage | CollapseResult, parts: Mapping[str, object]) -> str:
    """One self-contained HTML page; all text of the data is escaped, nothing is fetched and nothing runs.

    Args:
        template: its file.
        page: what the page shows.
        parts: what the template calls by name: functions that make tables, charts and words.
    """
    return _open_templates().get_template(template, globals=dict(parts)).render(page=page)


@cache
def _open_templates() -> jinja2.Environment:
    """The pages' templates; what is written into one is escaped, control characters too."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cuvee", "report"),
        autoescape=True,
        finalize=lambda value: visible_lines(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    environment.globals["style_sheet"] = _style_sheet
    return environment


def _breakable(name: str) -> Markup:
    """A name, escaped, that may be broken after each of its underscores and slashes."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_/])", visible(name)))


@cache
def _style_sheet() -> str:
    """The style sheet, with the charts' colours mapped to the dark theme."""
    css = resources.files("cuvee.report").joinpath("page.css").read_text("utf-8")
    return f"{css}\n{write_dark_theme()}"
