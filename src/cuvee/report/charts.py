"""Every chart of the pages: SVG text by Altair and vl-convert without a network.

Every chart stands on a transparent ground. Colours are the light theme's; the pages' style sheet maps each of them to
the dark theme by its value (``[fill="#..."]``), so a chart may only use those of ``COLOURS``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import altair as alt
import numpy as np
import vl_convert
from numpy.typing import NDArray

from cuvee.characters import to_html, visible
from cuvee.fingerprint import hash_texts
from cuvee.records import CellSummary, DatasetMap, Estimate, Gain, Profile
from cuvee.report.tables import capitalise, find_gain

INK, MUTED, GRID = "#2b2631", "#6d6675", "#e4dfd9"
ACCENT, REAL = "#8c1d40", "#1f6f8b"
LEVEL_COLOURS = ("#dfa321", "#d8722c", "#b8403f", "#85285c", "#4a2168", "#1c1548")
DIAL_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
GROUP_COLOURS = (*DIAL_COLOURS, "#6a51a3", "#b8860b", "#7f5539", "#12908e")
COLOURS = (INK, MUTED, GRID, ACCENT, REAL, *LEVEL_COLOURS, *GROUP_COLOURS)
DARK = (
    *("#e2dce6", "#a49cae", "#3a3441", "#f5799b", "#6cc3e0"),
    *("#ffe08a", "#f7ac5e", "#ec7f72", "#d16fa9", "#a585e6", "#8fb4ff"),
    *("#56b4e9", "#f0884a", "#3ecfa5", "#e5a3ca", "#b39df0", "#ffc857", "#cda183", "#5fd6d6"),
)
"""What each of ``COLOURS`` becomes on a dark page, in the same order."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")

WIDTH = 360
_LEVELS = alt.Axis(labelAngle=0, labelLimit=90, labelOverlap=False, grid=False)
_NUMBERS = alt.Axis(tickCount=6, labelFlush=False, format="~f")
Row = dict[str, str | float | bool | None]
Domain = tuple[float, float]


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


def by_level(names: Sequence[str]) -> tuple[alt.Color, alt.Shape]:
    """Colour and shape of levels, ordered from light to dark as the levels are."""
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


# --- a study ---
@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """Accuracies, as fractions, that cells are seen against; None where not trained."""

    real_only: float | None
    real_duplicated: float | None


def draw_gains(gains: Sequence[tuple[str, Gain]], *, delta: float, score: str = "accuracy") -> str:
    """Gains with their intervals, one line each, the band of what does not count behind them."""
    rows: list[Row] = [
        {"name": name, "gain": 100 * g.value, "low": 100 * g.low, "high": 100 * g.high} for name, g in gains
    ]
    axis = alt.Axis(labelLimit=220, minExtent=165, ticks=False, domain=False, grid=False)
    y = alt.Y("name:N", sort=[name for name, _ in gains], title=None, axis=axis)
    title, base = f"gain in {score}, points", chart_of(rows)
    layers = [
        _band(delta).encode(x=alt.X("low:Q", title=title), x2="high:Q"),
        chart_of([{"x": 0.0}]).mark_rule(color=INK, strokeWidth=1).encode(x="x:Q"),
        base.mark_rule(color=ACCENT, strokeWidth=2.5).encode(x=alt.X("low:Q"), x2="high:Q", y=y),
        base.mark_point(color=ACCENT, fill=ACCENT, size=90, opacity=1).encode(
            x=alt.X("gain:Q", title=title, axis=alt.Axis(tickCount=6)), y=y
        ),
    ]
    label = "Gains of the best blend with 95% intervals"
    return render_chart(alt.layer(*layers), label, height=36 * len(rows), width=210)


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
    rows = [row for row in map(_accuracy_row, cells) if row["level"] in levels]
    x = alt.X("level:N", sort=list(levels), title=f"{dial}: least → most diverse, as expected", axis=_LEVELS)
    y = _score_axis(score, domain)
    colour = alt.when(alt.datum.level == visible(best)).then(alt.value(ACCENT)).otherwise(alt.value(INK))
    base = chart_of(rows)
    layers = [
        *_baseline_rules(baselines, domain, at=len(levels)),
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
    names = [name for name in levels if any(c.cell.level == name for c in cells)]
    rows: list[Row] = []
    for name in names:
        if real_only is not None:
            rows.append({"level": name, "share": 0.0, "accuracy": 100 * real_only, "hollow": False, "start": True})
        for cell in cells:
            if cell.cell.level == name:
                hollow = any(math.isclose(cell.cell.share, s, abs_tol=1e-9) for s in descriptive_shares)
                rows.append(_accuracy_row(cell) | {"share": cell.share, "hollow": hollow, "start": False})
    x = alt.X("share:Q", title="share of synthetic rows", scale=alt.Scale(domain=[0, 1]), axis=_NUMBERS)
    y = _score_axis(score, domain)
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
    rows = [
        _accuracy_row(cell)
        | {"dial": cell.cell.dial, "diversity": e.value, "left": finite(e.low), "right": finite(e.high)}
        for cell, e in points
    ]
    title = "measured diversity (Vendi score, q = 1)"
    x = alt.X("diversity:Q", title=title, scale=alt.Scale(zero=False, nice=True), axis=_NUMBERS)
    y = _score_axis(score, domain)
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
    rows: list[Row] = [
        {"level": name, "value": e.value, "low": finite(e.low), "high": finite(e.high)}
        for name, e in ((name, estimates[name]) for name in levels if name in estimates)
    ]
    x = alt.X("level:N", sort=list(levels), title=dial, axis=_LEVELS)
    scale = alt.Scale(domain=list(domain), zero=False, nice=False)
    y = alt.Y("value:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5))
    base = chart_of(rows)
    layers: list[alt.Chart] = []
    if real is not None:
        layers += _draw_rule(real, "real data", above=False, dashed=False, at=len(levels))
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


def _score_axis(score: str, domain: Domain) -> alt.Y:
    title = "accuracy, %" if score == "accuracy" else f"{score} x 100"
    return alt.Y("accuracy:Q", title=title, scale=alt.Scale(domain=list(domain), zero=False))


def _band(delta: float) -> alt.Chart:
    """What is too small to count, ``delta`` as a fraction, from ``low`` to ``high``."""
    band: alt.Chart = chart_of([{"low": -100 * delta, "high": 100 * delta}]).mark_rect(color=GRID, opacity=0.55)
    return band


def _accuracy_row(summary: CellSummary) -> Row:
    """Level, accuracy and the interval of the gain over real-only laid around it, in percent."""
    gain = find_gain(summary.gains, "real-only")
    low = None if gain is None else 100 * (summary.accuracy + gain.low - gain.value)
    high = None if gain is None else 100 * (summary.accuracy + gain.high - gain.value)
    return {"level": summary.cell.level, "accuracy": 100 * summary.accuracy, "low": low, "high": high}


def _baseline_rules(baselines: Baselines, domain: Domain, *, at: int | None) -> list[alt.Chart]:
    real, repeated = baselines.real_only, baselines.real_duplicated
    layers = []
    higher = real is not None and repeated is not None and real > repeated
    if repeated is not None and domain[0] <= 100 * repeated <= domain[1]:
        layers += _draw_rule(100 * repeated, "real, repeated", above=not higher, dashed=True, at=at)
    if real is not None and domain[0] <= 100 * real <= domain[1]:
        layers += _draw_rule(100 * real, "real only", above=higher or repeated is None, dashed=False, at=at)
    return layers


def _draw_rule(value: float, label: str, *, above: bool, dashed: bool, at: int | None) -> list[alt.Chart]:
    """A baseline across the chart, named above or below it between the last two of ``at`` levels, clear of whiskers."""
    base = chart_of([{"value": value, "label": label}])
    rule = base.mark_rule(color=REAL, strokeWidth=1.5, strokeDash=[5, 4] if dashed else [1, 0]).encode(y="value:Q")
    if at is None:
        return [rule]
    text = base.mark_text(color=REAL, align="center", baseline="middle", fontSize=10, dy=-9 if above else 10)
    return [rule, text.encode(x=alt.value((WIDTH - 70) * (1 - 1 / max(at, 2))), y="value:Q", text="label:N")]


def draw_gain_by_rows(
    cells: Sequence[CellSummary], *, levels: Sequence[str], dial: str, delta: float, unit: str
) -> str:
    """Gain over real-only against the number of real rows (logarithmic), one line a level, with 95% intervals.

    Args:
        cells: blends of one dial at one share, each with its gain over real-only.
        levels: from least to most diverse as expected.
        dial: theirs.
        delta: the smallest gain that counts, as a fraction: the band behind the lines.
        unit: what the rows are counted by: ``real rows a label``.
    """
    names = [name for name in levels if any(cell.cell.level == name for cell in cells)]
    counts = sorted({cell.cell.rows_per_label for cell in cells})
    rows: list[Row] = []
    for cell in cells:
        gain, level = find_gain(cell.gains, "real-only"), cell.cell.level
        if gain is None or level not in names:
            continue
        # beside each other: levels of one number of rows would hide each other's whiskers
        place = cell.cell.rows_per_label * 1.035 ** (names.index(level) - (len(names) - 1) / 2)
        row: Row = {"level": level, "rows": place, "gain": 100 * gain.value}
        rows.append(row | {"low": finite(100 * gain.low), "high": finite(100 * gain.high)})
    scale = alt.Scale(type="log", domain=[counts[0] / 1.3, counts[-1] * 1.3], nice=False)
    axis = alt.Axis(values=counts, format="~f", labelFlush=False, grid=False)
    x = alt.X("rows:Q", title=unit, scale=scale, axis=axis)
    y = alt.Y("gain:Q", title="gain over the real rows alone, points")
    colour, shape = by_level(names)
    base = chart_of(rows)
    layers = [
        _band(delta).encode(y="low:Q", y2="high:Q"),
        chart_of([{"zero": 0.0}]).mark_rule(color=INK, strokeWidth=1).encode(y="zero:Q"),
        base.mark_rule(strokeWidth=1.4, opacity=0.7).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
    ]
    return render_chart(alt.layer(*layers), f"Gain over real-only by real rows, {dial}", height=230)


# --- a measured corpus ---
_CIRCLE, _TRIANGLE = "M5,0A5,5,0,1,1,-5,0A5,5,0,1,1,5,0", "M0,-4.8L5.5,4.8L-5.5,4.8Z"
OTHERS = ""
_MAP_WIDTH, _LONGEST_TITLE = 500, 160
_CROWD = 800  # points above which they are drawn smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class LegendEntry:
    """One kind of point: its name, how many there are, and how it is drawn (``path`` in a box of 12 x 12)."""

    name: str
    count: str
    colour: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPanel:
    """The map once, coloured by one thing."""

    title: str
    svg: str
    legend: tuple[LegendEntry, ...]


def draw_map_panels(points: DatasetMap) -> list[MapPanel]:
    """The map coloured by origin and by group; a colouring with one colour only is left out.

    Points whose coordinates are not finite are left out. Where nothing can be told apart there is one panel.
    """
    kept = [i for i in range(len(points.x)) if math.isfinite(points.x[i]) and math.isfinite(points.y[i])]
    if not kept:
        return []
    origins = [points.origin[i] for i in kept]
    groups = [points.group[i] for i in kept]
    panels = []
    if len(set(origins)) > 1 or len(set(groups)) == 1:
        panels.append(_draw_panel(points, kept, origins, "origin"))
    if len(set(groups)) > 1:
        panels.append(_draw_panel(points, kept, _keep_largest(groups), points.grouping))
    return panels


# --- the map ------------------------------------------------------------------------------------------
def _keep_largest(groups: Sequence[str]) -> list[str]:
    """The groups as they are, the smaller ones as OTHERS where there are more than colours."""
    counts = Counter(groups)
    if len(counts) <= len(GROUP_COLOURS):
        return [group or "(none)" for group in groups]
    ranked = sorted(filter(None, counts), key=lambda name: (-counts[name], name))
    largest = set(ranked[: len(GROUP_COLOURS)])
    return [group if group in largest else OTHERS for group in groups]


def _draw_panel(points: DatasetMap, kept: Sequence[int], names: Sequence[str], what: str) -> MapPanel:
    colours = _colours_of(names, by_origin=what == "origin")
    ranks = {name: rank for rank, name in enumerate(colours)}
    # what is drawn last lies on top: the named groups over the others, and the rarer origin over the commoner
    order = sorted(range(len(kept)), key=lambda i: (ranks[names[i]] if what == "origin" else names[i] != OTHERS, i))
    rows: list[Row] = [
        {
            "x": float(f"{points.x[kept[i]]:.5g}"),
            "y": float(f"{points.y[kept[i]]:.5g}"),
            "name": names[i],
            "origin": points.origin[kept[i]],
            "key": f"p{kept[i]}",
        }
        for i in order
    ]
    across, upward, height = _equal_scales(points.x[kept], points.y[kept])
    colour = alt.Color("name:N", scale=alt.Scale(domain=list(colours), range=list(colours.values())), legend=None)
    shape = alt.Shape(
        "origin:N", scale=alt.Scale(domain=["synthetic", "real"], range=["circle", "triangle-up"]), legend=None
    )
    area = 22 if len(kept) > _CROWD else 34
    size = alt.when(alt.datum.origin == "real").then(alt.value(1.5 * area)).otherwise(alt.value(area))
    opacity = alt.when(alt.datum.name == OTHERS).then(alt.value(0.3)).otherwise(alt.value(0.75))
    chart = (
        chart_of(rows)
        .mark_point(filled=True)
        .encode(
            x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=list(across), zero=False, nice=False)),
            y=alt.Y("y:Q", axis=None, scale=alt.Scale(domain=list(upward), zero=False, nice=False)),
            color=colour, shape=shape, size=size, opacity=opacity, description="key:N",
        )
    )  # fmt: skip
    label = f"Map of {len(kept):,} examples, coloured by {what}"
    svg = render_chart(alt.layer(chart), label, height=height, width=_MAP_WIDTH)
    members = {name: [i for i, own in zip(kept, names, strict=True) if own == name] for name in colours}
    legend = tuple(
        LegendEntry(
            name=_name_others({points.group[i] for i in of}, points.grouping) if name == OTHERS else name,
            count=f"{len(of):,}",
            colour=colours[name],
            path=_TRIANGLE if all(points.origin[i] == "real" for i in of) else _CIRCLE,
        )
        for name, of in members.items()
    )
    return MapPanel(title=f"By {what}", svg=_add_titles(svg, points), legend=legend)


def _colours_of(names: Sequence[str], *, by_origin: bool) -> dict[str, str]:
    """Name -> colour: origins by their number of points, groups by name or number, and the others at the end."""
    counts = Counter(names)
    if by_origin:
        ranked = sorted(counts, key=lambda name: (-counts[name], name))
        return {name: REAL if name == "real" else ACCENT for name in ranked}
    colours = dict(zip(sorted((name for name in counts if name != OTHERS), key=_rank), GROUP_COLOURS, strict=False))
    return colours | ({OTHERS: MUTED} if OTHERS in counts else {})


def _rank(name: str) -> tuple[bool, float, str]:
    """Numbers by size before names."""
    try:
        return False, float(name), name
    except ValueError:
        return True, 0.0, name


def _name_others(groups: Collection[str], what: str) -> str:
    return f"{len(groups):,} other {what}{'s' if len(groups) != 1 else ''}"


def _equal_scales(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[Domain, Domain, float]:
    """Domains and a height at which one unit is as long across as upwards."""
    wide, high = (max(float(np.ptp(values)), 1e-9) * 1.04 for values in (x, y))
    ratio = min(max(high / wide, 0.62), 1.0)
    unit = max(wide, high / ratio)
    middle = [float(values.max() + values.min()) / 2 for values in (x, y)]
    across = (middle[0] - unit / 2, middle[0] + unit / 2)
    upward = (middle[1] - unit * ratio / 2, middle[1] + unit * ratio / 2)
    return across, upward, round(_MAP_WIDTH * ratio)


def _add_titles(svg: str, points: DatasetMap) -> str:
    """Each point's key replaced by its text, which a browser shows under the pointer."""

    def write(found: re.Match[str]) -> str:
        i = int(found.group(1))
        rest = re.sub(r' (?:role|aria-roledescription|stroke-width)="[^"]*"', "", found.group(2))
        place = ", ".join(part for part in (points.origin[i], points.group[i]) if part)
        words = ": ".join(part for part in (place, _shorten(points.text[i])) if part)
        return f"<path{rest}><title>{to_html(words)}</title></path>"

    return re.sub(r'<path aria-label="p(\d+)"([^>]*)/>', write, svg)


def _shorten(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST_TITLE else flat[: _LONGEST_TITLE - 1] + "…"


# --- curves -------------------------------------------------------------------------------------------
def draw_profiles(profiles: Mapping[str, Profile], *, over_tau: bool) -> str:
    """Diversities against tau (logarithmic) or their order q, under the names given, with 95% bands.

    Empty where none has two points that a logarithmic axis of values can show.
    """
    curves: dict[str, list[tuple[float, Estimate]]] = {}
    for name, profile in profiles.items():
        found = [(at, e) for at, e in profile.points if math.isfinite(at) and math.isfinite(e.value) and e.value > 0]
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
    legend = alt.Legend(title=None, orient="bottom", columns=2, labelLimit=190, symbolOpacity=1)
    colour = alt.Color(
        "curve:N", scale=alt.Scale(domain=names, range=colours), sort=names, legend=legend if len(names) > 1 else None
    )
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
    return render_chart(alt.layer(*layers), label, height=210, width=WIDTH - 70)


def pick_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis: powers of ten, with 2 and 5 times them where few powers fit."""
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(np.arange(1, 10, 0.25).tolist())):
        ticks = [float(f"{step * 10.0**k:.6g}") for k in range(first, last) for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 4:
            return inside if len(inside) <= 9 else inside[:: math.ceil(len(inside) / 8)]
    return [low, high]
