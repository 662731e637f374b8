"""The charts of a measured corpus: the map of its examples, and diversity over tau and over the order q."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.characters import to_html
from cuvee.records import DatasetMap, Estimate, Profile
from cuvee.report.chart_parts import (
    ACCENT,
    DIAL_COLOURS,
    MUTED,
    REAL,
    WIDTH,
    Domain,
    Row,
    chart_of,
    finite,
    render_chart,
)

GROUP_COLOURS = (*DIAL_COLOURS, "#6a51a3", "#b8860b", "#7f5539", "#12908e")
EXTRA_COLOURS, EXTRA_DARK = GROUP_COLOURS[len(DIAL_COLOURS) :], ("#b39df0", "#ffc857", "#cda183", "#5fd6d6")
"""Chart colours beyond those of the study's charts, and what each becomes on a dark page."""
CIRCLE = "M{r},0A{r},{r},0,1,1,-{r},0A{r},{r},0,1,1,{r},0"
TRIANGLE = "M0,-{h}L{w},{h}L-{w},{h}Z"
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


def draw_tau_profile(profile: Profile) -> str:
    """DCScore against tau, both axes logarithmic, with its 95% band; empty where there are under two points."""
    curves = {profile.name: _usable(profile, positive=True)}
    return "" if len(curves[profile.name]) < 2 else _draw_curves(curves, "tau", "DCScore", log_across=True)


def draw_order_profiles(profiles: Mapping[str, Profile]) -> str:
    """Diversities against their order q, under the names given; empty where none has two finite orders."""
    curves = {name: _usable(profile, positive=False) for name, profile in profiles.items()}
    curves = {name: points for name, points in curves.items() if len(points) > 1}
    return "" if not curves else _draw_curves(curves, "order q", "effective number", log_across=False)


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
    import altair as alt

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
    counts = Counter(names)
    shapes = _shapes_of(points, kept, names)
    legend = tuple(
        LegendEntry(
            name=_name_others(names, points, kept) if name == OTHERS else name,
            count=f"{counts[name]:,}",
            colour=colours[name],
            path=shapes[name],
        )
        for name in colours
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


def _shapes_of(points: DatasetMap, kept: Sequence[int], names: Sequence[str]) -> dict[str, str]:
    """Name -> the legend's path: a triangle where all its points are real, else a circle."""
    synthetic = {name for name, i in zip(names, kept, strict=True) if points.origin[i] != "real"}
    circle, triangle = CIRCLE.format(r=5), TRIANGLE.format(w=5.5, h=4.8)
    return {name: circle if name in synthetic else triangle for name in names}


def _name_others(names: Sequence[str], points: DatasetMap, kept: Sequence[int]) -> str:
    others = {points.group[i] for name, i in zip(names, kept, strict=True) if name == OTHERS}
    return f"{len(others):,} other {points.grouping}{'s' if len(others) != 1 else ''}"


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
def _usable(profile: Profile, *, positive: bool) -> list[tuple[float, Estimate]]:
    """Points that a logarithmic axis of values can show, by parameter."""
    return sorted(
        (
            (parameter, e)
            for parameter, e in profile.points
            if math.isfinite(parameter) and (parameter > 0 or not positive) and math.isfinite(e.value) and e.value > 0
        ),
        key=lambda point: point[0],
    )


def _draw_curves(
    curves: Mapping[str, Sequence[tuple[float, Estimate]]], across: str, upward: str, *, log_across: bool
) -> str:
    import altair as alt

    floor = 0.5 * min(e.value for points in curves.values() for _, e in points)
    rows: list[Row] = [
        {"curve": name, "x": parameter, "y": e.value, "low": _above(e.low, floor), "high": finite(e.high)}
        for name, points in curves.items()
        for parameter, e in points
    ]
    heights = [float(v) for row in rows for v in (row["y"], row["low"], row["high"]) if isinstance(v, float)]
    domain = (min(heights) / 1.06, max(heights) * 1.06)
    y_axis = alt.Axis(values=pick_ticks(*domain), format=",~g" if domain[1] < 1 else ",~f")
    y_scale = alt.Scale(type="log", domain=list(domain), nice=False)
    y = alt.Y("y:Q", title=f"{upward}, logarithmic", scale=y_scale, axis=y_axis)
    ends = (min(float(row["x"] or 0) for row in rows), max(float(row["x"] or 0) for row in rows))
    x_axis = alt.Axis(values=pick_ticks(*ends), format="~f") if log_across else alt.Axis(tickCount=8, format="~f")
    x_scale = alt.Scale(type="log" if log_across else "linear", domain=list(ends), nice=False)
    x = alt.X("x:Q", title=f"{across}, logarithmic" if log_across else across, scale=x_scale, axis=x_axis)
    names = list(curves)
    colours = [ACCENT] if len(names) == 1 else [GROUP_COLOURS[i % len(GROUP_COLOURS)] for i in range(len(names))]
    legend = alt.Legend(title=None, orient="bottom", columns=2, labelLimit=190, symbolOpacity=1)
    colour = alt.Color(
        "curve:N", scale=alt.Scale(domain=names, range=colours), sort=names, legend=legend if len(names) > 1 else None
    )
    base = chart_of(rows)
    low = alt.Y("low:Q", scale=y_scale, title=f"{upward}, logarithmic", axis=y_axis)
    layers = [
        base.transform_filter("isValid(datum.low) && isValid(datum.high)")
        .mark_area(opacity=0.2)
        .encode(x=x, y=low, y2="high:Q", color=colour),
        base.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour),
        base.mark_point(filled=True, size=32, opacity=1).encode(x=x, y=y, color=colour),
    ]
    label = f"{upward} over {across}, with 95% bands: {_read_out(curves)}"
    return render_chart(alt.layer(*layers), label, height=210, width=WIDTH - 70)


def _above(value: float | None, floor: float) -> float | None:
    """The value, or the floor where it lies below: a logarithmic axis has no place for it."""
    kept = finite(value)
    return None if kept is None else max(kept, floor)


def _read_out(curves: Mapping[str, Sequence[tuple[float, Estimate]]]) -> str:
    """Both ends of each curve in words, for who cannot see it."""
    return "; ".join(
        f"{name} from {points[0][1].value:.3g} at {points[0][0]:g} to {points[-1][1].value:.3g} at {points[-1][0]:g}"
        for name, points in curves.items()
    )


def pick_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis: powers of ten, with 2 and 5 times them where few powers fit."""
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(np.arange(1, 10, 0.25).tolist())):
        ticks = [float(f"{step * 10.0**k:.6g}") for k in range(first, last) for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 4:
            return inside if len(inside) <= 9 else inside[:: math.ceil(len(inside) / 8)]
    return [low, high]
