"""The engine of the pages: their templates, style sheet and script, and charts by Altair without a network.

Every chart stands on a transparent ground. Colours are the light theme's; the pages' style sheet maps each of them to
the dark theme by its value (``[fill="#..."]``), so a chart may only use those of ``COLOURS``. The script shows the text
of a mark (``data-tip``) under the pointer, and hides the marks of a colour whose key in the legend is pressed.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, cast

import altair as alt
import jinja2
import vl_convert
from markupsafe import Markup, escape

from cuvee.characters import to_html, visible, visible_lines
from cuvee.fingerprint import hash_texts
from cuvee.records import Estimate

INK, MUTED, GRID = "#2b2631", "#6d6675", "#e4dfd9"
ACCENT, REAL = "#8c1d40", "#1f6f8b"
LEVEL_COLOURS = ("#dfa321", "#d8722c", "#b8403f", "#85285c", "#4a2168", "#1c1548")
# The palette of Okabe and Ito, its yellow darkened, which white hides: the colour-blind tell them apart.
GROUP_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#a89400", "#000000")
LOSS, SLIGHT_LOSS, SLIGHT_GAIN, GAIN = HEAT = ("#b84e00", "#f2c4a0", "#a9d3ec", "#00679f")
WHITE = "#ffffff"
# What each of ``COLOURS`` becomes on a dark page, in the same order.
COLOURS = (INK, MUTED, GRID, ACCENT, REAL, *LEVEL_COLOURS, *GROUP_COLOURS, *HEAT, WHITE)
DARK = (
    *("#e2dce6", "#a49cae", "#3a3441", "#f5799b", "#6cc3e0"),
    *("#ffe08a", "#f7ac5e", "#ec7f72", "#d16fa9", "#a585e6", "#8fb4ff"),
    *("#4aa3e0", "#f0884a", "#3ecfa5", "#e5a3ca", "#ffc857", "#8fd3ff", "#e0d24a", "#fafafa"),
    *("#c85a08", "#5d3a22", "#1f4a66", "#0d76b3", "#fffffe"),
)
# Name of a shape -> its outline in a box of 12 units, centred.
_OUTLINES = {
    "circle": "M4,0A4,4,0,1,1,-4,0A4,4,0,1,1,4,0",
    "square": "M-4,-4h8v8h-8Z",
    "triangle-up": "M0,-5L5,4H-5Z",
    "diamond": "M0,-5.5L4.5,0L0,5.5L-4.5,0Z",
    "cross": "M-2,-5h4v3h3v4h-3v3h-4v-3h-3v-4h3Z",
    "triangle-down": "M0,5L5,-4H-5Z",
}
SHAPES = tuple(_OUTLINES)

WIDTH = 360
NUMBERS = alt.Axis(tickCount=6, labelFlush=False, format="~f")
Row = dict[str, str | float | bool | None]
Domain = tuple[float, float]
_HIDDEN = ("tip", "key", "shown")  # of a row: not data


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One chart with its data.

    Attributes:
        title, caption: what stands above and below it; plain text.
        label: the accessible name.
        spec: the chart, as Vega-Lite.
        rows: its data; what a row has under ``tip`` is shown when it is pointed at.
        keys: its series: name -> colour and shape.
    """

    title: str
    label: str
    spec: Mapping[str, Any]
    rows: Sequence[Row]
    caption: str = ""
    keys: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def svg(self) -> str:
        """SVG to stand in HTML, without the legend."""
        return _inline(_draw_svg(self.spec, legend=False), self.label, self.rows)

    @property
    def legend(self) -> list[tuple[str, str, str]]:
        """Each series: its name, colour, and the outline of its shape."""
        return [(name, colour, _OUTLINES[shape]) for name, (colour, shape) in self.keys.items()]

    @property
    def name(self) -> str:
        """For a file."""
        return re.sub(r"[^\w=.]+", "-", visible(self.title)).strip("-.").lower()[:80] or "chart"

    @property
    def csv(self) -> str:
        """The data; cells that a spreadsheet would run have an apostrophe before them."""
        names = dict.fromkeys(name for row in self.rows for name in row if name not in _HIDDEN)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(names), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _guard(value) for name, value in row.items()} for row in self.rows)
        return text.getvalue()

    @property
    def link(self) -> str:
        """The data as an address that asks no network."""
        return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(self.csv.encode()).decode()}"


def _guard(value: str | float | None) -> str | float | None:
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


def save_figures(figures: Iterable[Figure], folder: Path) -> list[Path]:
    """Write NAME.svg, NAME.png (on white, for print) and NAME.csv of each chart.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for figure in figures:
        name = figure.name
        while (folder / f"{name}.svg") in written:
            name += "-2"
        png = vl_convert.vegalite_to_png(_finish_spec(figure.spec, legend=True) | {"background": WHITE}, scale=3)
        parts = {"svg": _draw_svg(figure.spec, legend=True).encode(), "png": png, "csv": figure.csv.encode()}
        for ending, content in parts.items():
            path = folder / f"{name}.{ending}"
            path.write_bytes(content)
            written.append(path)
    return written


def join_figures(figures: Iterable[Figure]) -> alt.VConcatChart:
    """The charts one below the other, each row of their data named on hover."""
    parts = [{**figure.spec, "title": figure.title} for figure in figures]
    tables = {name: rows for part in parts for name, rows in part.pop("datasets", {}).items()}
    views = [{key: value for key, value in part.items() if key not in ("$schema", "config")} for part in parts]
    own = {"scale": {"color": "independent", "shape": "independent"}}
    spec = _finish_spec({"vconcat": views, "datasets": tables, "resolve": own}, legend=True)
    spec["config"]["mark"] = {"tooltip": {"content": "data"}}
    return alt.VConcatChart.from_dict(spec)


def write_dark_theme() -> str:
    """Style rules that turn each chart colour into its fellow of ``DARK`` on a dark screen."""
    rules = [
        f'.chart [fill="{day}"] {{ fill: {night}; }} .chart [stroke="{day}"] {{ stroke: {night}; }}'
        for day, night in zip(COLOURS, DARK, strict=True)
    ]
    return "\n".join(["@media screen and (prefers-color-scheme: dark) {", *rules, "}"])


def chart_of(rows: Sequence[Row]) -> alt.Chart:
    """A chart whose data are ``rows``, without marks."""
    named = [row | {"key": f"p{i}"} if "tip" in row else row for i, row in enumerate(rows)]
    return alt.Chart(alt.InlineData(values=[{k: v for k, v in row.items() if k != "tip"} for row in named]))


def finite(value: float | None) -> float | None:
    """The value, or None where it is none of a number."""
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Colour and shape of what has one of several names."""

    colour: alt.Color
    shape: alt.Shape
    keys: Mapping[str, tuple[str, str]]


def by_name(field: str, colours: Mapping[str, str], shapes: Sequence[str] = SHAPES) -> Series:
    """Name -> colour; the shapes follow each other. One name alone has no legend."""
    taken = [shapes[i % len(shapes)] for i in range(len(colours))]
    legend = (
        alt.Legend(title=None, orient="bottom", columns=3, labelLimit=190, symbolOpacity=1) if len(taken) > 1 else None
    )
    scales = [alt.Scale(domain=list(colours), range=list(own)) for own in (colours.values(), taken)]
    kind = f"{field}:N"
    return Series(
        colour=alt.Color(kind, scale=scales[0], sort=list(colours), legend=legend),
        shape=alt.Shape(kind, scale=scales[1], sort=list(colours), legend=legend),
        keys=dict(zip(colours, zip(colours.values(), taken, strict=True), strict=True)) if legend else {},
    )


def name_colours(names: Iterable[str], *, ordered: bool = False) -> dict[str, str]:
    """A colour for each name; those of ``ordered`` names run from light to dark."""
    found, most = list(names), len(LEVEL_COLOURS) - 1
    if ordered:
        last = max(len(found) - 1, 1)
        return {name: LEVEL_COLOURS[round(i * most / last)] for i, name in enumerate(found)}
    return {name: GROUP_COLOURS[i % len(GROUP_COLOURS)] for i, name in enumerate(found)}


def draw_points(
    rows: Sequence[Row], x: alt.X, y: alt.Y, series: Series | None = None, *, scale: alt.Scale | None = None,
    line: float = 0, size: float = 60, band: bool = False,
) -> list[alt.Chart]:  # fmt: skip
    """Rows as points, with whiskers, or a band, from ``low`` to ``high`` where these are known.

    Args:
        rows: with what the channels name.
        x, y: where they stand.
        series: their colours and shapes; without any they are alike.
        scale: of ``y``, for the whiskers.
        line: width of the line through the points of one colour; 0 draws none.
        size: of points.
        band: in place of whiskers.
    """
    base = chart_of(rows)
    paint, shape = (alt.value(INK), alt.Undefined) if series is None else (series.colour, series.shape)
    low = alt.Y("low:Q", scale=alt.Undefined if scale is None else scale)
    known = base.transform_filter("isValid(datum.low) && isValid(datum.high)")
    whiskers = known.mark_area(opacity=0.2) if band else known.mark_rule(strokeWidth=1.6, opacity=0.8)
    layers = [whiskers.encode(x=x, y=low, y2="high:Q", color=paint)]
    if line:
        layers.append(base.mark_line(strokeWidth=line).encode(x=x, y=y, color=paint))
    marked = base.mark_point(filled=True, size=size, opacity=1, strokeWidth=1.6)
    told = "key:N" if any("tip" in row for row in rows) else alt.Undefined
    return [*layers, marked.encode(x=x, y=y, color=paint, shape=shape, description=told)]


def draw_profiles(
    profiles: Mapping[str, Sequence[tuple[float, Estimate]]], title: str, caption: str, *, over_tau: bool = False
) -> list[Figure]:
    """Diversities against tau (logarithmic) or their order q, under the names given, with 95% bands.

    Empty where none has two points that a logarithmic axis of values can show.
    """
    curves: dict[str, list[tuple[float, Estimate]]] = {}
    for name, points in profiles.items():
        found = [(at, e) for at, e in points if math.isfinite(at) and math.isfinite(e.value) and e.value > 0]
        curves[name] = sorted(((at, e) for at, e in found if at > 0 or not over_tau), key=lambda point: point[0])
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    if not curves:
        return []
    across, upward = ("tau", "DCScore") if over_tau else ("order q", "effective number")
    floor = 0.5 * min(e.value for points in curves.values() for _, e in points)
    rows: list[Row] = [
        {
            "curve": name, "x": parameter, "y": e.value,
            "low": None if (low := finite(e.low)) is None else max(low, floor), "high": finite(e.high),
            "tip": f"{name}: {e.value:.4g} at {across} {parameter:g}",
        }
        for name, points in curves.items()
        for parameter, e in points
    ]  # fmt: skip
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
    series = by_name("curve", {names[0]: ACCENT} if len(names) == 1 else name_colours(names), ("circle",))
    layers = draw_points(rows, x, y, series, scale=y_scale, line=1.8, size=32, band=True)
    said = "; ".join(  # both ends of each curve in words, for who cannot see it
        f"{name} from {points[0][1].value:.3g} at {points[0][0]:g} to {points[-1][1].value:.3g} at {points[-1][0]:g}"
        for name, points in curves.items()
    )
    label = f"{upward} over {across}, with 95% bands: {said}"
    layer = alt.layer(*layers)
    return [render_chart(layer, title, rows, height=210, label=label, caption=caption, keys=series.keys)]


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
    chart: alt.LayerChart | alt.FacetChart, title: str, rows: Sequence[Row], *, height: float,
    width: float = WIDTH - 70, label: str = "", keys: Mapping[str, tuple[str, str]] | None = None, caption: str = "",
) -> Figure:  # fmt: skip
    """The chart of ``rows`` with its title, which is its accessible name too where no other is given."""
    spec: dict[str, Any] = chart.properties(width=width, height=height).to_dict(validate=False)
    return Figure(title=title, label=label or title, spec=spec, rows=rows, caption=caption, keys=keys or {})


def _draw_svg(spec: Mapping[str, Any], *, legend: bool) -> str:
    return vl_convert.vegalite_to_svg(_finish_spec(spec, legend=legend))


def _finish_spec(spec: Mapping[str, Any], *, legend: bool) -> dict[str, Any]:
    """The chart in the pages' style, with or without legends."""
    axis = {"labelColor": MUTED, "titleColor": MUTED, "gridColor": GRID, "domainColor": MUTED, "tickColor": GRID}
    text = {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal"}
    config = {
        "background": "transparent",
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": axis | text,
        "axisY": {"titlePadding": 13},
        "legend": {"labelColor": INK, "titleColor": MUTED, "symbolSize": 60} | text,
        "text": {"fontSize": 11},
    }
    return cast("dict[str, Any]", _visible_spec(spec, legend=legend)) | {"config": config}


def _visible_spec(part: object, *, legend: bool) -> object:
    """A chart's names and texts without control characters, which end the process that draws them."""
    if isinstance(part, dict):
        return {
            name: _visible_spec(inner, legend=legend) if legend or name != "legend" else None
            for name, inner in part.items()
        }
    if isinstance(part, list | tuple):
        return [_visible_spec(inner, legend=legend) for inner in part]
    return visible(part) if isinstance(part, str) else part


def _inline(svg: str, label: str, rows: Sequence[Row]) -> str:
    """An SVG fit to stand in HTML: one accessible name, no namespace addresses, ids of its own, texts of marks."""
    box = re.search(r'viewBox="([^"]+)"', svg)
    view = box.group(1) if box else f"0 0 {WIDTH} {WIDTH}"
    body = svg[svg.index(">") + 1 :]
    mark = hash_texts([label, svg])[:8]
    body = re.sub(r'id="([^"]+)"', rf'id="{mark}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{mark}-\1)", body)
    body = re.sub(r' (?:role|aria-(?!label="p\d+")[a-z]+)="[^"]*"', "", body)
    body = re.sub(r' aria-label="p(\d+)"', lambda at: f' data-tip="{to_html(str(rows[int(at[1])]["tip"]))}"', body)
    name, focus = to_html(label), ' tabindex="0"' if any("tip" in row for row in rows) else ""
    start = f'<svg class="chart" role="img" aria-label="{name}" viewBox="{view}" style="--w:{view.split()[2]}"{focus}>'
    return start + body


# --- pages ---
def render_page(template: str, page: object, parts: Mapping[str, object]) -> str:
    """One self-contained HTML page; all text of the data is escaped, nothing is fetched, and only its own script runs.

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
    script = _read_text("page.js")
    environment.globals["script"] = Markup(script)
    environment.globals["script_hash"] = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals["style_sheet"] = f"{_read_text('page.css')}\n{write_dark_theme()}"
    return environment


def _breakable(name: str) -> Markup:
    """A name, escaped, that may be broken after each of its underscores and slashes."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_/])", visible(name)))


def _read_text(name: str) -> str:
    return resources.files("cuvee.report").joinpath(name).read_text("utf-8")
