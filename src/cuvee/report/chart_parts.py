"""What all charts of a report are made of: colours, axes, SVG text by Altair and vl-convert without a network.

Every chart is 360 units wide on a transparent ground. Colours are the light theme's; the page's style sheet
maps each of them to the dark theme by its value (``[fill="#..."]``), so a chart may only use those named here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from cuvee.characters import to_html, visible
from cuvee.fingerprint import hash_texts

if TYPE_CHECKING:
    import altair as alt

INK, MUTED, GRID = "#2b2631", "#6d6675", "#e4dfd9"
ACCENT, REAL = "#8c1d40", "#1f6f8b"
LEVEL_COLOURS = ("#dfa321", "#d8722c", "#b8403f", "#85285c", "#4a2168", "#1c1548")
DIAL_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
COLOURS = (INK, MUTED, GRID, ACCENT, REAL, *LEVEL_COLOURS, *DIAL_COLOURS)
DARK = (
    *("#e2dce6", "#a49cae", "#3a3441", "#f5799b", "#6cc3e0"),
    *("#ffe08a", "#f7ac5e", "#ec7f72", "#d16fa9", "#a585e6", "#8fb4ff"),
    *("#56b4e9", "#f0884a", "#3ecfa5", "#e5a3ca"),
)
"""What each of ``COLOURS`` becomes on a dark page, in the same order."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")

WIDTH = 360
Row = dict[str, str | float | bool | None]
Domain = tuple[float, float]


def capitalise(name: str) -> str:
    """With a large first letter, unless it is a name with capitals of its own, such as nDCG@10."""
    return name[:1].upper() + name[1:] if name[1:2].islower() else name


def percent_domain(values: Sequence[float]) -> Domain:
    """An axis in percent that holds fractions ``values`` with some air."""
    low, high = 100 * min(values), 100 * max(values)
    air = max(0.08 * (high - low), 0.5)
    return math.floor(low - air), math.ceil(high + air)


def plain_domain(values: Sequence[float]) -> Domain:
    """An axis that holds ``values`` with some air, and does not cross zero when they do not."""
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return (max(low - air, 0.0) if low >= 0 else low - air), high + air


def write_dark_theme(light: Sequence[str], dark: Sequence[str]) -> str:
    """Style rules that turn each chart colour of ``light`` into its fellow of ``dark`` on a dark screen."""
    rules = [
        f'.chart [fill="{day}"] {{ fill: {night}; }} .chart [stroke="{day}"] {{ stroke: {night}; }}'
        for day, night in zip(light, dark, strict=True)
    ]
    return "\n".join(["@media screen and (prefers-color-scheme: dark) {", *rules, "}"])


def chart_of(rows: Sequence[Row]) -> alt.Chart:
    """A chart whose data are ``rows``, without marks."""
    import altair as alt

    return alt.Chart(alt.InlineData(values=list(rows)))


def finite(value: float | None) -> float | None:
    """The value, or None where it is none of a number."""
    return value if value is not None and math.isfinite(value) else None


def level_axis() -> alt.Axis:
    """An axis of levels, all named."""
    import altair as alt

    return alt.Axis(labelAngle=0, labelLimit=90, labelOverlap=False, grid=False)


def number_axis(ticks: int) -> alt.Axis:
    """An axis of numbers with about so many ticks."""
    import altair as alt

    return alt.Axis(tickCount=ticks, labelFlush=False, format="~f")


def by_level(names: Sequence[str]) -> tuple[alt.Color, alt.Shape]:
    """Colour and shape of levels, ordered from light to dark as the levels are."""
    import altair as alt

    last = max(len(names) - 1, 1)
    steps = [round(i * (len(LEVEL_COLOURS) - 1) / last) for i in range(len(names))]
    legend = alt.Legend(title=None, orient="top", columns=6, columnPadding=16)
    colours = alt.Scale(domain=list(names), range=[LEVEL_COLOURS[s] for s in steps])
    shapes = alt.Scale(domain=list(names), range=[SHAPES[i % len(SHAPES)] for i in range(len(names))])
    return alt.Color("level:N", scale=colours, legend=legend), alt.Shape("level:N", scale=shapes, legend=legend)


def render_chart(
    chart: alt.LayerChart | alt.FacetChart, label: str, *, height: float, width: float = WIDTH - 70
) -> str:
    """The chart as SVG text to stand in HTML, with ``label`` as its accessible name; units of the view box."""
    import vl_convert

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
