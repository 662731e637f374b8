"""The page of one measured corpus: its map, its curves, and its numbers as rows of text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cuvee.records import DatasetMap, Decomposition, Estimate, MeasurementPage, MetricNote, Profile
from cuvee.report.charts import MapPanel, draw_map_panels, draw_profiles
from cuvee.report.page import render_page
from cuvee.report.tables import MINUS, Figure, Number, Tile, write_number, write_p, write_percent

_HASH_DIGITS = 12
_TILES = (
    ("vendi_q1", "effective number of directions of meaning (Vendi, order 1)"),
    ("dcscore_tau0.1", "effective number of distinct meanings (DCScore, tau 0.1)"),
    ("near_duplicate_rate", "of the rows have a near-duplicate"),
    ("mmd", "shift from the real rows (squared MMD)"),
    ("label_agreement", "of the labels are what a probe of the real rows says"),
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
    parts = (
        *(list_tiles, list_curves, list_labels, list_splits, list_families, list_provenance),
        *(cut_hash, write_sentence, name_real, caption_map, draw_map, draw_curves),
        *(write_number, write_probability, write_value, write_uncertainty, write_settings, math.isfinite),
        *(name_diversity, name_profile, list_parts, find_most_between),
    )
    return render_page("corpus.html.j2", page, {part.__name__: part for part in parts})


def draw_map(page: MeasurementPage) -> list[MapPanel]:
    """The map, once for each thing that it is coloured by."""
    return [] if page.map is None else draw_map_panels(page.map)


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


def list_tiles(page: MeasurementPage) -> list[Tile]:
    """The key figures, of those that were measured."""
    values = page.measurement.values
    return [
        Tile(name=words, number=write_value(values[metric], percent=metric in _RATES))
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
    main = main or [(name, name) for name in sorted(measured)[: len(_MAIN)]]
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
    """Within and between: over what, and the decompositions, for each way of parting the corpus."""
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
    """What ``between`` is where the parts share nothing: the exponential of the entropy of their shares of the rows."""
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
def write_uncertainty(estimate: Estimate, *, percent: bool = False, sign: bool = False) -> str:
    """``low to high``, ``p = 0.03``, or both with a comma."""
    parts = []
    if _is_finite(estimate.low) and _is_finite(estimate.high):
        parts.append(f"{_write(estimate.low, percent, sign)} to {_write(estimate.high, percent, sign)}")
    if _is_finite(estimate.p_value):
        p = write_p(estimate.p_value or 0.0)
        parts.append(f"p {p}" if p.startswith("<") else f"p = {p}")
    return ", ".join(parts)


def write_value(estimate: Estimate, *, percent: bool = False, sign: bool = False) -> Number:
    """A number with its interval or p-value beside it; signed numbers are marked where the interval excludes 0."""
    clear = ""
    if sign and _is_finite(estimate.low) and _is_finite(estimate.high):
        clear = "up" if (estimate.low or 0.0) > 0 else "down" if (estimate.high or 0.0) < 0 else ""
    return Number(
        text=_write(estimate.value, percent, sign),
        small=write_uncertainty(estimate, percent=percent, sign=sign),
        sign=clear,
    )


def write_probability(value: float) -> str:
    """As percent, never rounded to certainty: ``99.2%``, ``> 99.9%``."""
    if not math.isfinite(value):
        return write_number(value)
    return "> 99.9%" if 0.9995 <= value < 1.0 else write_percent(value)


def write_settings(estimate: Estimate) -> str:
    """``tau = 0.1, kernel = cosine, interval: jackknife``."""
    parts = [f"{key} = {_write_setting(value)}" for key, value in estimate.settings.items()]
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


def _write(value: float | None, percent: bool, sign: bool) -> str:
    if value is None:
        return ""
    text = write_percent(value).replace("-", MINUS) if percent and math.isfinite(value) else write_number(value)
    return f"+{text}" if sign and value > 0 else text


def _write_setting(value: str | int | float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
