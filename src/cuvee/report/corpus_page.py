"""The page of one measured corpus: its map, its curves, and its numbers as rows of text."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np
from numpy.typing import NDArray

from cuvee.characters import to_html
from cuvee.records import DatasetMap, Estimate, MeasurementPage, MetricNote, Profile
from cuvee.report import charts, tables
from cuvee.report.charts import Domain, Figure, Row
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
    return charts.render_page("corpus.html.j2", page, vars(tables) | globals() | {"isfinite": math.isfinite})


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
        parts = [f"{count:,} of {rows:,} rows, drawn at random{seeded}."]
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
    tau = "" if page.taus is None else charts.draw_profiles({page.taus.name: page.taus.points}, over_tau=True)
    if tau:
        caption = "Near tau = 0 it counts rows, at tau = 1 it saturates near 2.7: only a curve can be compared."
        figures.append(Figure(title="DCScore over tau", svg=tau, caption=caption))
    orders = charts.draw_profiles({name_profile(profile): profile.points for profile in page.orders})
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
def write_settings(estimate: Estimate) -> str:
    """``tau = 0.1, kernel = cosine, interval: jackknife``."""
    parts = [f"{key} = {f'{v:g}' if isinstance(v, float) else v}" for key, v in estimate.settings.items()]
    return ", ".join([*parts, f"interval: {estimate.interval}"] if estimate.interval else parts)


def name_profile(profile: Profile) -> str:
    """``Vendi``, ``Leinster-Cobbold, tau = 0.1``: DCScore over its order is the Leinster-Cobbold diversity."""
    name, _, tau = profile.name.partition("_tau")
    names = {"vendi": "Vendi", "dcscore": "Leinster-Cobbold" if profile.parameter == "q" else "DCScore"}
    return names.get(name, name) + (f", tau = {tau}" if tau else "")


# --- the map ---
_MAP_WIDTH, _LONGEST_TITLE = 500, 160
_CROWD = 800  # points above which they are drawn smaller


def draw_map_panels(points: DatasetMap) -> list[Figure]:
    """The map coloured by origin and by group; a colouring with one colour only is left out.

    Points whose coordinates are not finite are left out. Where nothing can be told apart there is one panel.
    """
    kept = [i for i in range(len(points.x)) if math.isfinite(points.x[i]) and math.isfinite(points.y[i])]
    if not kept:
        return []
    origins, groups = Counter(points.origin[i] for i in kept), Counter(points.group[i] or "(none)" for i in kept)
    panels = []
    if len(origins) > 1 or len(groups) == 1:
        order = sorted(origins, key=lambda name: (-origins[name], name))
        colours = {name: charts.REAL if name == "real" else charts.ACCENT for name in order}
        panels.append(_draw_panel(points, [(i, points.origin[i]) for i in kept], colours, "origin"))
    if len(groups) > 1:
        largest = sorted(groups, key=lambda name: (-groups[name], name))[: len(charts.GROUP_COLOURS)]
        rest = len(groups) - len(largest)
        others = f"{rest:,} other {points.grouping}{'s' if rest != 1 else ''}"
        colours = dict(zip(sorted(largest, key=_rank), charts.GROUP_COLOURS, strict=False))
        colours |= {others: charts.MUTED} if rest else {}
        named = [(i, name if (name := points.group[i] or "(none)") in largest else others) for i in kept]
        panels.append(_draw_panel(points, named, colours, points.grouping))
    return panels


def _draw_panel(points: DatasetMap, kept: Sequence[tuple[int, str]], colours: Mapping[str, str], what: str) -> Figure:
    """Points by their place in the map and the name that gives them their colour, under which the legend has them."""
    counts = Counter(name for _, name in kept)
    shown = {name: f"{name} ({counts[name]:,})" for name in colours}
    faint = {name for name, colour in colours.items() if colour == charts.MUTED}
    # what is drawn last lies on top: named groups over the others, and the rarer origin over the commoner
    ranks = {name: rank if what == "origin" else name not in faint for rank, name in enumerate(colours)}
    rows: list[Row] = [
        {
            "x": float(f"{points.x[i]:.5g}"), "y": float(f"{points.y[i]:.5g}"), "name": shown[name],
            "origin": points.origin[i], "key": f"p{i}", "opacity": 0.3 if name in faint else 0.75,
        }
        for i, name in sorted(kept, key=lambda each: (ranks[each[1]], each[0]))
    ]  # fmt: skip
    at = [i for i, _ in kept]
    across, upward, height = _equal_scales(points.x[at], points.y[at])
    legend = alt.Legend(title=None, orient="bottom", columns=3, columnPadding=16, labelLimit=150, symbolOpacity=1)
    scale = alt.Scale(domain=list(shown.values()), range=list(colours.values()))
    colour = alt.Color("name:N", scale=scale, sort=list(shown.values()), legend=legend)
    shape = alt.Shape(
        "origin:N", scale=alt.Scale(domain=["synthetic", "real"], range=["circle", "triangle-up"]), legend=None
    )
    area = 22 if len(kept) > _CROWD else 34
    size = alt.when(alt.datum.origin == "real").then(alt.value(1.5 * area)).otherwise(alt.value(area))
    chart = (
        charts.chart_of(rows)
        .mark_point(filled=True)
        .encode(
            x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=list(across), zero=False, nice=False)),
            y=alt.Y("y:Q", axis=None, scale=alt.Scale(domain=list(upward), zero=False, nice=False)),
            color=colour, shape=shape, size=size, opacity=alt.Opacity("opacity:Q", scale=None), description="key:N",
        )
    )  # fmt: skip
    label = f"Map of {len(kept):,} examples, coloured by {what}"
    svg = charts.render_chart(alt.layer(chart), label, height=height, width=_MAP_WIDTH)
    return Figure(title=f"By {what}", svg=_add_titles(svg, points))


def _rank(name: str) -> tuple[bool, float, str]:
    """Numbers by size before names."""
    try:
        return False, float(name), name
    except ValueError:
        return True, 0.0, name


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
