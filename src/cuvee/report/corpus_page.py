"""The page of one measured corpus: its map, its curves, and its numbers as rows of text."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np
from numpy.typing import NDArray

from cuvee.characters import to_html
from cuvee.records import DatasetMap, Decomposition, Estimate, MeasurementPage, MetricNote, Profile
from cuvee.report import tables
from cuvee.report.charts import (
    ACCENT,
    GROUP_COLOURS,
    MUTED,
    REAL,
    Domain,
    Figure,
    Row,
    chart_of,
    finite,
    render_chart,
    render_page,
)
from cuvee.report.tables import Number, write_number, write_percent, write_value

_HASH_DIGITS = 12
_TILES = (
    ("vendi_q1", "effective number of directions of meaning (Vendi, order 1)"),
    ("dcscore_tau0.1", "effective number of distinct meanings (DCScore, tau 0.1)"),
    ("near_duplicate_rate", "of the rows have a near-duplicate"),
    ("mmd", "shift from the real rows (squared MMD)"),
    ("label_agreement", "of the labels agree with a probe trained on the real rows"),
    ("leakage", "of the rows repeat a held-out text"),
)
_RATES = ("near_duplicate_rate", "label_agreement", "leakage")
_MAIN = (
    ("vendi_q1", "Vendi, q = 1"),
    ("dcscore_tau0.1", "DCScore, tau 0.1"),
    ("near_duplicate_rate", "near-duplicates"),
    ("distinct_2", "distinct-2"),
    ("mean_words", "words a row"),
    ("mmd", "squared MMD"),
    ("label_agreement", "label agreement"),
)
_FAMILIES = {
    "semantic": "Semantic diversity",
    "lexical": "Lexical diversity",
    "shift": "Shift from the real rows",
    "quality": "Quality",
}


def render_measurement(page: MeasurementPage) -> str:
    """One self-contained HTML page; all text of the data is escaped, nothing is fetched and nothing runs.

    What the page has no data for has no heading. Numbers that are not finite are written ``none``, and charts
    leave them out.

    Args:
        page: what the page shows.

    Raises:
        ValueError: a chart cannot be drawn from the numbers given.
    """
    return render_page("corpus.html.j2", page, vars(tables) | globals() | {"isfinite": math.isfinite})


def cut_hash(text: str) -> str:
    """The first digits of a long hash; a short name that serves as one in full."""
    return text if len(text) <= 2 * _HASH_DIGITS else text[:_HASH_DIGITS]


def write_sentence(page: MeasurementPage) -> str:
    """The corpus in one sentence."""
    rows = f"{page.measurement.n:,} row{'s' if page.measurement.n != 1 else ''}"
    vendi = page.measurement.values.get("vendi_q1")
    if vendi is None or not math.isfinite(vendi.value):
        return f"{rows}."
    return f"{rows}, as diverse as {write_number(vendi.value)} rows that have nothing in common (Vendi, order 1)."


def name_real(page: MeasurementPage) -> str:
    """The real corpus in a few words; empty where there was none."""
    if page.measurement.against is None:
        return ""
    fingerprint = f"fingerprint {cut_hash(page.measurement.against)}"
    rows = "" if page.against_rows is None else f"{page.against_rows:,} rows, "
    return f"{page.against_name or 'the real corpus'} ({rows}{fingerprint})"


def caption_map(points: DatasetMap) -> str:
    """How many points the map has, how they were chosen, and what its axes are."""
    count, rows = len(points.x), points.rows
    parts = [f"All {count:,} rows."]
    if rows is None:
        parts = [f"{count:,} rows."]
    elif rows > count:
        seeded = "" if points.seed is None else f" with seed {points.seed}"
        parts = [f"{count:,} of {rows:,} rows, drawn{seeded}; each origin and {points.grouping} has its share."]
    held = "" if points.explained is None else f", with {write_percent(points.explained)} of their variance"
    parts.append(
        f"The axes are the two widest directions of the vectors{held}: "
        "rows that lie together here may lie apart in the other directions."
    )
    if len(set(points.origin)) > 1:
        parts.append("Triangles are real rows, circles synthetic ones.")
    return " ".join([*parts, "Point at a mark to read its text."])


def draw_curves(page: MeasurementPage) -> list[Figure]:
    """DCScore over tau, and the profiles over q."""
    figures = []
    tau = "" if page.taus is None else draw_profiles({page.taus.name: page.taus}, over_tau=True)
    if tau:
        caption = "Near tau = 0 it counts rows, at tau = 1 it saturates near 2.7: only a curve can be compared."
        figures.append(Figure(title="DCScore over tau", svg=tau, caption=caption))
    orders = draw_profiles({name_profile(profile): profile for profile in page.orders}, over_tau=False)
    if orders:
        caption = (
            "At order 0 a rare meaning counts like a common one, at high orders only the common ones count: "
            "a curve that falls steeply says that a few meanings dominate."
        )
        figures.append(Figure(title="Diversity profile over q", svg=orders, caption=caption))
    return figures


# --- tables ---
@dataclass(frozen=True, slots=True, kw_only=True)
class PartTable:
    """Some numbers of each part of a corpus: columns of names, then one row a part."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[Number, ...]], ...]
    """part, its rows, and one number a column"""


def list_tiles(page: MeasurementPage) -> list[tuple[str, Number]]:
    """The key figures, of those that were measured."""
    values = page.measurement.values
    return [
        (words, write_value(values[metric], percent=metric in _RATES))
        for metric, words in _TILES
        if metric in values and math.isfinite(values[metric].value)
    ]


def list_families(page: MeasurementPage) -> list[tuple[str, list[tuple[str, Estimate, MetricNote | None]]]]:
    """Every number of the measurement with its note, family by family; those without a note come last."""
    tables: dict[str, list[tuple[str, Estimate, MetricNote | None]]] = {family: [] for family in _FAMILIES}
    for name, estimate in page.measurement.values.items():
        note = page.notes.get(name)
        tables.setdefault("" if note is None else note.family, []).append((name, estimate, note))
    tables[""] = tables.pop("", [])
    return [(_FAMILIES.get(f, f.capitalize() or "Other numbers"), rows) for f, rows in tables.items() if rows]


def list_labels(page: MeasurementPage) -> PartTable | None:
    """The main numbers of each label or level; None where none was measured."""
    if not page.by_label:
        return None
    measured = {name for m in page.by_label.values() for name in m.values}
    main = [(name, words) for name, words in _MAIN if name in measured]
    rows = tuple(
        (
            part,
            f"{m.n:,}",
            tuple(
                write_value(m.values[name], percent=name in _RATES) if name in m.values else Number(text="")
                for name, _ in main
            ),
        )
        for part, m in page.by_label.items()
    )
    return PartTable(columns=tuple(words for _, words in main), rows=rows)


def list_splits(page: MeasurementPage) -> list[tuple[str, list[Decomposition]]]:
    """For each way of dividing the corpus into parts: what the parts are, and the diversity within and between them."""
    groups: dict[tuple[str, ...], list[Decomposition]] = {}
    for found in page.decomposition:
        groups.setdefault(tuple(found.parts), []).append(found)
    return [(_name_parts(parts, page), found) for parts, found in groups.items()]


def _name_parts(parts: Sequence[str], page: MeasurementPage) -> str:
    """``origins``, ``5 labels``; parts that are not those measured one by one are just parts."""
    if set(parts) <= {"real", "synthetic"}:
        return "origins"
    known = page.by == "label" if not page.by_label else set(parts) == set(page.by_label)
    return f"{len(parts):,} {page.by if known else 'part'}{'s' if len(parts) != 1 else ''}"


def list_parts(found: Sequence[Decomposition]) -> PartTable:
    """The diversities of each part alone."""
    return PartTable(
        columns=tuple(name_diversity(d.name) for d in found),
        rows=tuple(
            (part, f"{found[0].rows.get(part, 0):,}", tuple(write_value(d.parts[part]) for d in found))
            for part in found[0].parts
        ),
    )


def find_most_between(rows: Mapping[str, int]) -> float:
    """The largest ``between``, where the parts share nothing: the exponential of the entropy of their shares."""
    total = sum(rows.values())
    shares = [count / total for count in rows.values() if count > 0]
    return math.exp(-sum(share * math.log(share) for share in shares))


def list_curves(page: MeasurementPage) -> list[Profile]:
    """The curves that have points."""
    return [p for p in (*([] if page.taus is None else [page.taus]), *page.orders) if p.points]


def list_provenance(page: MeasurementPage) -> list[tuple[str, str]]:
    """What was measured with what, in words."""
    measured = page.measurement
    rows = [
        ("corpus", measured.name),
        ("rows", f"{measured.n:,}"),
        ("fingerprint of the corpus", measured.fingerprint),
        ("encoder", measured.encoder),
        ("hash of the encoder", measured.encoder_hash),
        ("normalisation", measured.normalisation),
        ("real corpus", page.against_name),
        ("real rows", "" if page.against_rows is None else f"{page.against_rows:,}"),
        ("fingerprint of the real corpus", measured.against or ""),
        ("seed", str(measured.seed)),
        ("measured by", f"Cuvée {page.version}" if page.version else ""),
    ]
    taken = {name for name, _ in rows}
    rows += [(name, value) for name, value in page.settings.items() if name not in taken]
    return [(name, value) for name, value in rows if value]


# --- numbers and names ---
def write_probability(value: float) -> str:
    """As percent, never rounded to certainty: ``99.2%``, ``> 99.9%``."""
    if not math.isfinite(value):
        return write_number(value)
    return "> 99.9%" if 0.9995 <= value < 1.0 else write_percent(value)


def write_settings(estimate: Estimate) -> str:
    """``tau = 0.1, kernel = cosine, interval: jackknife``."""
    parts = [f"{key} = {f'{v:g}' if isinstance(v, float) else v}" for key, v in estimate.settings.items()]
    return ", ".join([*parts, f"interval: {estimate.interval}"] if estimate.interval else parts)


def name_diversity(name: str) -> str:
    """A diversity's name for readers: ``Vendi, order 1``, ``Leinster-Cobbold, order 1, tau = 0.1``."""
    family, _, rest = name.partition("_")
    families = {"vendi": "Vendi", "lc": "Leinster-Cobbold", "dcscore": "DCScore"}
    if family not in families:
        return name
    words = [families[family]]
    for part in rest.split("_"):
        if part.startswith("tau"):
            words.append(f"tau = {part[3:]}")
        elif part.startswith("q"):
            words.append(f"order {part[1:]}")
        elif part:
            return name
    return ", ".join(words)


def name_profile(profile: Profile) -> str:
    """As ``name_diversity``; DCScore over its order is the Leinster-Cobbold diversity."""
    name = name_diversity(profile.name)
    return name.replace("DCScore", "Leinster-Cobbold") if profile.parameter == "q" else name


# --- the map and the curves ---
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
    return render_chart(alt.layer(*layers), label, height=210)


def pick_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis: powers of ten, with 2 and 5 times them where few powers fit."""
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(np.arange(1, 10, 0.25).tolist())):
        ticks = [float(f"{step * 10.0**k:.6g}") for k in range(first, last) for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 4:
            return inside if len(inside) <= 9 else inside[:: math.ceil(len(inside) / 8)]
    return [low, high]
