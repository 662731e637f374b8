"""The page of one measured corpus: one HTML file that needs nothing but itself."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

import jinja2
from markupsafe import Markup, escape

from cuvee.characters import visible
from cuvee.records import DatasetMap, MeasurementPage, SampleRow
from cuvee.report.chart_parts import COLOURS, DARK, write_dark_theme
from cuvee.report.figures import Figure
from cuvee.report.measured_charts import (
    EXTRA_COLOURS,
    EXTRA_DARK,
    draw_map_panels,
    draw_order_profiles,
    draw_tau_profile,
)
from cuvee.report.measured_numbers import name_profile, write_probability
from cuvee.report.measured_tables import (
    list_added,
    list_curves,
    list_families,
    list_labels,
    list_measured_tiles,
    list_provenance,
    list_splits,
)
from cuvee.report.page import open_templates
from cuvee.report.tables import write_number, write_percent

_HASH_DIGITS = 12
_UMAP_CAPTION = (
    "UMAP keeps who is near whom, roughly; the sizes of clusters and the distances between them mean nothing."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """One example as shown."""

    text: str
    target: str
    numbers: str
    nearest: str
    cosine: str


def render_measurement(page: MeasurementPage) -> str:
    """One self-contained HTML page; all text of the data is escaped, nothing is fetched and nothing runs.

    What the page has no data for has no heading. Numbers that are not finite are written ``none``, and charts
    leave them out.

    Args:
        page: what the page shows.

    Raises:
        ValueError: a chart cannot be drawn from the numbers given.
    """
    measured = page.measurement
    panels = [] if page.map is None else draw_map_panels(page.map)
    return _template().render(
        page=page,
        measured=measured,
        css=_style_sheet(),
        encoder_hash=_cut_hash(measured.encoder_hash),
        sentence=_write_sentence(page),
        against=_name_real(page),
        tiles=list_measured_tiles(page),
        panels=panels,
        map_caption="" if page.map is None else _caption_map(page.map),
        curves=_draw_curves(page),
        curve_tables=list_curves(page),
        labels=list_labels(page),
        splits=list_splits(page),
        added=list_added(page),
        redundant=[_show_sample(row) for row in page.redundant],
        novel=[_show_sample(row) for row in page.novel],
        giveaways=[(text, write_probability(probability)) for text, probability in page.giveaways],
        families=list_families(page),
        provenance=list_provenance(page),
    )


@cache
def _template() -> jinja2.Template:
    environment = open_templates()
    environment.filters["breakable"] = _breakable
    return environment.get_template("measured.html.j2")


def _breakable(name: str) -> Markup:
    """A name, escaped, that may be broken after each of its underscores and slashes."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_/])", visible(name)))


def _cut_hash(text: str) -> str:
    """The first digits of a long hash; a short name that serves as one in full."""
    return text if len(text) <= 2 * _HASH_DIGITS else text[:_HASH_DIGITS]


@cache
def _style_sheet() -> str:
    """The style sheet of every report, with the colours of this page's charts mapped to the dark theme."""
    css = resources.files("cuvee.report").joinpath("page.css").read_text("utf-8")
    return f"{css}\n{write_dark_theme((*COLOURS, *EXTRA_COLOURS), (*DARK, *EXTRA_DARK))}"


def _write_sentence(page: MeasurementPage) -> str:
    """The corpus in one sentence."""
    rows = f"{page.measurement.n:,} row{'s' if page.measurement.n != 1 else ''}"
    vendi = page.measurement.values.get("vendi_q1")
    if vendi is None or not math.isfinite(vendi.value):
        return f"{rows}."
    return f"{rows}, as diverse as {write_number(vendi.value)} rows that have nothing in common (Vendi, order 1)."


def _name_real(page: MeasurementPage) -> str:
    """The real corpus in a few words; empty where there was none."""
    if page.measurement.against is None:
        return ""
    fingerprint = f"fingerprint {_cut_hash(page.measurement.against)}"
    rows = "" if page.against_rows is None else f"{page.against_rows:,} rows, "
    return f"{page.against_name or 'the real corpus'} ({rows}{fingerprint})"


def _caption_map(points: DatasetMap) -> str:
    """How many points the map has, how they were chosen, and what its axes are."""
    count, rows = len(points.x), points.rows
    parts = [f"All {count:,} rows."]
    if rows is None:
        parts = [f"{count:,} rows."]
    elif rows > count:
        seeded = "" if points.seed is None else f" with seed {points.seed}"
        parts = [f"{count:,} of {rows:,} rows, drawn{seeded}; each origin and {points.grouping} has its share."]
    if points.method == "pca":
        held = "" if points.explained is None else f", with {write_percent(points.explained)} of their variance"
        parts.append(
            f"The axes are the two widest directions of the vectors{held}: "
            "rows that lie together here may lie apart in the other directions."
        )
    elif points.method == "umap":
        parts.append(_UMAP_CAPTION)
    if len(set(points.origin)) > 1:
        parts.append("Triangles are real rows, circles synthetic ones.")
    return " ".join([*parts, "Point at a mark to read its text."])


def _draw_curves(page: MeasurementPage) -> list[Figure]:
    """DCScore over tau, and the profiles over q."""
    figures = []
    tau = "" if page.taus is None else draw_tau_profile(page.taus)
    if tau:
        caption = "Near tau = 0 it counts rows, at tau = 1 it saturates near 2.7: only a curve can be compared."
        figures.append(Figure(title="DCScore over tau", svg=tau, caption=caption))
    orders = draw_order_profiles({name_profile(profile): profile for profile in page.orders})
    if orders:
        caption = (
            "At order 0 a rare meaning counts like a common one, at high orders only the common ones count: "
            "a curve that falls steeply says that a few meanings dominate."
        )
        figures.append(Figure(title="Diversity profile over q", svg=orders, caption=caption))
    return figures


def _show_sample(row: SampleRow) -> _Sample:
    alone = not math.isfinite(row.nearest_cosine)
    return _Sample(
        text=row.text,
        target=row.target,
        numbers=f"uniqueness {write_number(row.uniqueness)}, adds {write_number(row.added)}",
        nearest="" if alone else row.nearest_text,
        cosine="" if alone else f"{row.nearest_cosine:.3f}",
    )
