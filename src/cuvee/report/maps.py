"""The map: rows as points on the two widest directions of their vectors, with their texts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np
from numpy.typing import NDArray

from cuvee.records import DatasetMap
from cuvee.report import charts
from cuvee.report.charts import Domain, Figure, Row
from cuvee.report.tables import write_percent

_WIDTH, _LONGEST = 500, 140
_CROWD = 800  # points above which they are drawn smaller


def caption_map(points: DatasetMap) -> str:
    """How many points the map has, how they were chosen, and what its axes are."""
    count, rows = len(points.x), points.rows
    parts = [f"All {count:,} rows."]
    if rows is None:
        parts = [f"{count:,} rows."]
    elif rows > count:
        seeded = "" if points.seed is None else f" with seed {points.seed}"
        parts = [f"{count:,} of {rows:,} rows, drawn at random{seeded}."]
    held = "" if points.explained is None else f", with {write_percent(points.explained)} of their variance"
    parts.append(
        f"The axes are the two widest directions of the vectors{held}: "
        "rows that lie together here may lie apart in the other directions."
    )
    if len(set(points.origin)) > 1:
        parts.append("Triangles are real rows, circles synthetic ones.")
    return " ".join([*parts, "Point at a mark to read its text."])


def draw_map(
    points: DatasetMap,
    found: Sequence[str],
    colours: Mapping[str, str],
    title: str,
    what: str,
    *,
    captioned: bool = True,
) -> list[Figure]:
    """The rows that have finite coordinates, coloured by what they are; nothing where there are none.

    Args:
        points: the map.
        found: of each row, shape (points,): its label, level or the like.
        colours: name -> colour; rows of other names share one more, faint.
        title: of the chart.
        what: names are.
        captioned: whether it says how rows were chosen, and what its axes are.
    """
    kept = [i for i in range(len(points.x)) if math.isfinite(points.x[i]) and math.isfinite(points.y[i])]
    if not kept:
        return []
    rest = len({found[i] for i in kept} - colours.keys())
    others = f"{rest:,} other {what}{'s' if rest != 1 else ''}"
    names = {i: found[i] if found[i] in colours else others for i in kept}
    counts = Counter(names.values())
    shown = {name: f"{name or '(none)'} ({counts[name]:,})" for name in [*colours, others] if counts[name]}
    origins = Counter(points.origin[i] for i in kept)
    rows: list[Row] = [
        {
            "x": float(f"{points.x[i]:.5g}"), "y": float(f"{points.y[i]:.5g}"), "origin": points.origin[i],
            what: found[i], "text": _shorten(points.text[i]), "opacity": 0.75 if names[i] in colours else 0.3,
            "shown": shown[names[i]],
            "tip": ": ".join(filter(None, (", ".join(filter(None, dict.fromkeys((points.origin[i], points.group[i])))),
                                           _shorten(points.text[i])))),
        }
        # what is drawn last lies on top: named rows over the others, the rarer origin over the commoner
        for i in sorted(kept, key=lambda i: (names[i] in colours, -origins[points.origin[i]], i))
    ]  # fmt: skip
    across, upward, height = _equal_scales(points.x[kept], points.y[kept])
    series = charts.by_name("shown", {shown[name]: colours.get(name, charts.MUTED) for name in shown}, ("circle",))
    shape = alt.Shape(
        "origin:N", scale=alt.Scale(domain=["synthetic", "real"], range=["circle", "triangle-up"]), legend=None
    )
    area = 22 if len(kept) > _CROWD else 34
    size = alt.when(alt.datum.origin == "real").then(alt.value(2 * area)).otherwise(alt.value(area))
    chart = (
        charts.chart_of(rows)
        .mark_point(filled=True)
        .encode(
            x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=list(across), zero=False, nice=False)),
            y=alt.Y("y:Q", axis=None, scale=alt.Scale(domain=list(upward), zero=False, nice=False)),
            color=series.colour, shape=shape, size=size, opacity=alt.Opacity("opacity:Q", scale=None),
            description="key:N",
        )
    )  # fmt: skip
    label = f"Map of {len(kept):,} examples, coloured by {what}"
    real = {shown[name] for name in shown if {points.origin[i] for i in kept if names[i] == name} == {"real"}}
    keys = {name: (colour, "triangle-up" if name in real else shape) for name, (colour, shape) in series.keys.items()}
    layer, caption = alt.layer(chart), caption_map(points) if captioned else ""
    return [
        charts.render_chart(layer, title, rows, label=label, caption=caption, height=height, width=_WIDTH, keys=keys)
    ]


def _equal_scales(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[Domain, Domain, float]:
    """Domains and a height at which one unit is as long across as upwards."""
    wide, high = (max(float(np.ptp(values)), 1e-9) * 1.04 for values in (x, y))
    ratio = min(max(high / wide, 0.62), 1.0)
    unit = max(wide, high / ratio)
    middle = [float(values.max() + values.min()) / 2 for values in (x, y)]
    across = (middle[0] - unit / 2, middle[0] + unit / 2)
    upward = (middle[1] - unit * ratio / 2, middle[1] + unit * ratio / 2)
    return across, upward, round(_WIDTH * ratio)


def _shorten(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST else flat[: _LONGEST - 1] + "…"
