"""The page of one measured corpus: its map, its curves, and its numbers as rows of text."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from cuvee.records import DatasetMap, Estimate, MeasurementPage, MetricNote, Profile
from cuvee.records.measurement import MAIN
from cuvee.report import charts, maps, tables
from cuvee.report.charts import Figure
from cuvee.report.maps import draw_map
from cuvee.report.tables import Number, write_number, write_value

_HASH_DIGITS = 12
_TILES = (
    ("vendi_q1", "effective number of directions of meaning (Vendi, order 1)"),
    ("dcscore_tau0.1", "effective number of distinct meanings (DCScore, tau 0.1)"),
    ("near_duplicate_rate", "of the rows have a near-duplicate"),
    ("mmd", "shift from the real rows (squared MMD)"),
    ("label_agreement", "of the labels agree with a probe trained on the real rows"),
    ("leakage", "of the rows repeat a held-out text"),
)
RATES = ("near_duplicate_rate", "label_agreement", "leakage")
_FAMILIES = {
    "semantic": "Semantic diversity",
    "lexical": "Lexical diversity",
    "shift": "Shift from the real rows",
    "quality": "Quality",
}


def render_measurement(page: MeasurementPage) -> str:
    """One self-contained HTML page; all text of the data is escaped, nothing is fetched.

    What the page has no data for has no heading. Numbers that are not finite are written ``none``, and charts
    leave them out.

    Args:
        page: what the page shows.

    Raises:
        ValueError: a chart cannot be drawn from the numbers given.
    """
    return charts.render_page(
        "corpus.html.j2", page, vars(tables) | vars(maps) | globals() | {"isfinite": math.isfinite}
    )


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


def draw_curves(page: MeasurementPage) -> list[Figure]:
    """DCScore over tau, and the profiles over q."""
    taus = {} if page.taus is None else {page.taus.name: page.taus.points}
    orders = {name_profile(profile): profile.points for profile in page.orders}
    caption = (
        "At order 0 a rare meaning counts like a common one, at high orders only the common ones count: "
        "a curve that falls steeply says that a few meanings dominate."
    )
    near = "Near tau = 0 it counts rows, at tau = 1 it saturates near 2.7: only a curve can be compared."
    return [
        *charts.draw_profiles(taus, "DCScore over tau", near, over_tau=True),
        *charts.draw_profiles(orders, "Diversity profile over q", caption),
    ]


def draw_map_panels(points: DatasetMap) -> list[Figure]:
    """The map coloured by origin and by group; a colouring with one colour only is left out."""
    kept = np.flatnonzero(np.isfinite(points.x) & np.isfinite(points.y))
    origins, groups = (Counter(names[i] for i in kept) for names in (points.origin, points.group))
    order = sorted(origins, key=lambda name: (-origins[name], name))
    by_origin = {name: charts.REAL if name == "real" else charts.ACCENT for name in order}
    panels = list[Figure]()
    if len(origins) > 1 or len(groups) == 1:
        panels = draw_map(points, points.origin, by_origin, "By origin", "origin", captioned=False)
    largest = sorted(groups, key=lambda name: (-groups[name], name))[: len(charts.GROUP_COLOURS)]
    colours = charts.name_colours(sorted(largest, key=_rank))
    what = points.grouping
    by_group = draw_map(points, points.group, colours, f"By {what}", what, captioned=False) if len(groups) > 1 else []
    return panels + by_group


def _rank(name: str) -> tuple[bool, float, str]:
    """Numbers by size before names."""
    try:
        return False, float(name), name
    except ValueError:
        return True, 0.0, name


# --- tables ---
def list_key_figures(page: MeasurementPage) -> list[tuple[str, Number]]:
    """The key figures, of those that were measured."""
    values = page.measurement.values
    return [
        (words, write_value(values[metric], percent=metric in RATES))
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


def list_main(page: MeasurementPage) -> list[tuple[str, str]]:
    """The main numbers that were measured of some label or level, and what they are called."""
    return [(name, words) for name, words in MAIN.items() if any(name in m.values for m in page.by_label.values())]


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
    """``Vendi``, ``DCScore``."""
    return {"vendi": "Vendi", "dcscore": "DCScore"}.get(profile.name, profile.name)
