"""The numbers of a measured corpus as rows of text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cuvee.records import Added, Decomposition, MeasurementPage
from cuvee.report.measured_numbers import (
    name_diversity,
    name_profile,
    write_settings,
    write_uncertainty,
    write_value,
)
from cuvee.report.tables import Number, Tile, write_number

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
_NO_FAMILY = "Other numbers"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """One metric in full; ``uncertain`` is its 95% interval, its p-value, or both."""

    name: str
    description: str
    value: str
    uncertain: str
    n: str
    settings: str
    reading: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyTable:
    """All metrics of one family."""

    title: str
    rows: tuple[MetricRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTable:
    """Some numbers of each part of a corpus: columns of names, then one row a part."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[Number, ...]], ...]
    """part, its rows, and one number a column"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRow:
    """One diversity of the whole, within and between parts."""

    name: str
    total: Number
    within: Number
    between: Number
    most: str
    """what ``between`` is where the parts share nothing"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitTable:
    """Decompositions over the same parts."""

    over: str
    rows: tuple[SplitRow, ...]
    parts: PartTable


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedRow:
    """One diversity of real rows, synthetic rows and both, with their number of rows."""

    name: str
    real: Number
    synthetic: Number
    union: Number
    gain: Number
    gain_equal_rows: Number | None
    sizes: tuple[str, str, str]
    equal_size: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveTable:
    """The numbers behind a curve."""

    title: str
    parameter: str
    rows: tuple[tuple[str, Number], ...]


def list_measured_tiles(page: MeasurementPage) -> list[Tile]:
    """The key figures, of those that were measured."""
    values = page.measurement.values
    return [
        Tile(name=words, number=write_value(values[metric], percent=metric in _RATES))
        for metric, words in _TILES
        if metric in values and math.isfinite(values[metric].value)
    ]


def list_families(page: MeasurementPage) -> list[FamilyTable]:
    """Every number of the measurement, family by family; those without a note come last."""
    tables: dict[str, list[MetricRow]] = {family: [] for family in _FAMILIES}
    for name, estimate in page.measurement.values.items():
        note = page.notes.get(name)
        family = "" if note is None else note.family
        row = MetricRow(
            name=name,
            description="" if note is None else note.description,
            value=write_number(estimate.value),
            uncertain=write_uncertainty(estimate),
            n=f"{estimate.n:,}",
            settings=write_settings(estimate),
            reading="" if note is None else note.better,
        )
        tables.setdefault(family, []).append(row)
    tables[""] = tables.pop("", [])
    return [
        FamilyTable(title=_FAMILIES.get(family, family.capitalize() or _NO_FAMILY), rows=tuple(rows))
        for family, rows in tables.items()
        if rows
    ]


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


def list_splits(page: MeasurementPage) -> list[SplitTable]:
    """Within and between, one table for each way of parting the corpus."""
    groups: dict[tuple[str, ...], list[Decomposition]] = {}
    for found in page.decomposition:
        groups.setdefault(tuple(found.parts), []).append(found)
    return [_show_split(_name_parts(parts, page), parts, found) for parts, found in groups.items()]


def _name_parts(parts: Sequence[str], page: MeasurementPage) -> str:
    """``origins``, ``5 labels``; parts that are not those measured one by one are just parts."""
    if set(parts) <= {"real", "synthetic"}:
        return "origins"
    known = page.by == "label" if not page.by_label else set(parts) == set(page.by_label)
    return f"{len(parts):,} {page.by if known else 'part'}{'s' if len(parts) != 1 else ''}"


def _show_split(over: str, parts: Sequence[str], found: Sequence[Decomposition]) -> SplitTable:
    return SplitTable(
        over=over,
        rows=tuple(
            SplitRow(
                name=name_diversity(d.name),
                total=write_value(d.total),
                within=write_value(d.within),
                between=write_value(d.between),
                most=write_number(_most_between(d.rows)),
            )
            for d in found
        ),
        parts=PartTable(
            columns=tuple(name_diversity(d.name) for d in found),
            rows=tuple(
                (part, f"{found[0].rows.get(part, 0):,}", tuple(write_value(d.parts[part]) for d in found))
                for part in parts
            ),
        ),
    )


def _most_between(rows: Mapping[str, int]) -> float:
    """The exponential of the entropy of the parts' shares of the rows."""
    total = sum(rows.values())
    shares = [count / total for count in rows.values() if count > 0]
    return math.exp(-sum(share * math.log(share) for share in shares))


def list_added(page: MeasurementPage) -> list[AddedRow]:
    """What the synthetic rows add, one row a diversity."""
    return [_show_added(added) for added in page.added]


def _show_added(added: Added) -> AddedRow:
    equal = added.gain_equal_rows
    return AddedRow(
        name=name_diversity(added.name),
        real=write_value(added.real),
        synthetic=write_value(added.synthetic),
        union=write_value(added.union),
        gain=write_value(added.gain, sign=True),
        gain_equal_rows=None if equal is None else write_value(equal, sign=True),
        sizes=(f"{added.real.n:,}", f"{added.synthetic.n:,}", f"{added.union.n:,}"),
        equal_size="" if equal is None else f"{equal.n:,}",
    )


def list_curves(page: MeasurementPage) -> list[CurveTable]:
    """The numbers behind the curves."""
    profiles = ([] if page.taus is None else [page.taus]) + list(page.orders)
    return [
        CurveTable(
            title=name_profile(profile),
            parameter=profile.parameter,
            rows=tuple((f"{parameter:g}", write_value(e)) for parameter, e in profile.points),
        )
        for profile in profiles
        if profile.points
    ]


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
