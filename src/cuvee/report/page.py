"""The report: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import jinja2

from cuvee.characters import visible_lines
from cuvee.records import Composition, Confirmation, ShapeTest
from cuvee.records.generation import Generation
from cuvee.report.chart_parts import COLOURS, DARK, capitalise, write_dark_theme
from cuvee.report.data import ReportData
from cuvee.report.figures import draw_levels, draw_measurements, draw_shares, draw_tau_ranges, draw_verdict, gather_grid
from cuvee.report.robustness import draw_rows, list_asides, list_rows, list_variants, write_two_lines
from cuvee.report.tables import (
    count_rejected,
    list_cells,
    list_leaders,
    list_metric_tables,
    list_tiles,
    list_written,
    write_gain,
    write_p,
    write_percent,
    write_seconds,
    write_size,
)

_VERDICTS = {"use": "Use synthetic data", "do-not-use": "Do not use synthetic data", "underpowered": "Not settled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool:
    """Some rows of one pool."""

    key: str
    rows: tuple[tuple[str, str], ...]
    note: str
    best: bool


def render_report(data: ReportData) -> str:
    """One self-contained HTML page; all text of the study is escaped, nothing is fetched.

    Args:
        data: what the page shows.

    Raises:
        ValueError: a chart cannot be drawn from the numbers given.
    """
    advice, grid = data.advice, gather_grid(data)
    rejected = count_rejected(data.rejected)
    template = open_templates().get_template("page.html.j2")
    return template.render(
        data=data,
        advice=advice,
        css=_style_sheet(),
        verdict=_VERDICTS[advice.decision],
        sentence=_shorten(advice.sentence),
        counts=write_size(data.counts_from),
        score=data.score,
        score_title=capitalise(data.score),
        verdict_figures=draw_verdict(data),
        tiles=list_tiles(data),
        level_figures=draw_levels(data, grid),
        share_figures=draw_shares(data, grid),
        measure_figures=draw_measurements(data),
        tau_figures=draw_tau_ranges(data),
        metric_tables=list_metric_tables(data),
        provenance=_write_provenance(data),
        written=list_written(data),
        asides=list_asides(data),
        rows_table=list_rows(data),
        rows_figures=draw_rows(data),
        variants=list_variants(data),
        shapes=[_show_shape(shape) for shape in advice.shapes],
        checks=advice.checks,
        leaders=list_leaders(data),
        cells=list_cells(data),
        parts=None if data.composition is None else _show_composition(data.composition),
        samples=_list_samples(data),
        confirmation=None if advice.confirmation is None else _show_confirmation(advice.confirmation),
        failures=data.failures,
        rejected=rejected,
        rejected_total=f"{sum(count for _, count, _ in rejected):,}",
        cost=_list_cost(data),
        generation=[] if data.generation is None else _list_generation(data.generation),
    )


def _shorten(sentence: str) -> str:
    """The sentence without the verdict before its colon, which stands above it in large letters."""
    _, colon, rest = sentence.partition(": ")
    return rest[:1].upper() + rest[1:] if colon else sentence


@cache
def open_templates() -> jinja2.Environment:
    """The pages' templates; what is written into one is escaped, control characters too."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("cuvee", "report"),
        autoescape=True,
        finalize=lambda value: visible_lines(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _style_sheet() -> str:
    """The style sheet, with the charts' colours mapped to the dark theme."""
    css = resources.files("cuvee.report").joinpath("page.css").read_text("utf-8")
    return f"{css}\n{write_dark_theme(COLOURS, DARK)}"


def _show_shape(shape: ShapeTest) -> dict[str, object]:
    return {
        "dial": shape.dial,
        "verdict": shape.verdict,
        "means": [(name, write_percent(mean)) for name, mean in zip(shape.levels, shape.means, strict=True)],
        "draws": shape.draws,
        "p_values": [(name, write_p(p)) for name, p in shape.p_values.items()],
        "two_lines": write_two_lines(shape),
        "interpreted": shape.interpreted,
        "note": shape.note,
    }


def _show_composition(parts: Composition) -> dict[str, object]:
    return {
        "rows": f"{parts.rows:,}",
        "share": write_percent(parts.share),
        "unique": f"{parts.unique_rows:,}",
        "repeats": "no row twice" if parts.most_repeats <= 1 else f"no row more than {parts.most_repeats:,} times",
        "labels": [(label, [f"{count:,}" for count in counts]) for label, counts in parts.label_counts.items()],
    }


def _show_confirmation(confirmation: Confirmation) -> dict[str, object]:
    return {
        "cell": confirmation.cell.key,
        "test_items": f"{confirmation.test_items:,}",
        "fresh": confirmation.fresh_draws,
        "accuracy": write_percent(confirmation.accuracy),
        "gains": [(gain.over, write_gain(gain)) for gain in confirmation.gains],
        "note": confirmation.note,
    }


def _list_samples(data: ReportData) -> dict[str, list[_Pool]]:
    """Dial -> the rows to show of its levels; what is of no level comes under its own key."""
    best = data.advice.best
    winner = "" if best is None else f"{best.cell.dial}={best.cell.level}"
    keys = [level.key for level in data.levels if level.key in data.samples]
    keys += [key for key in data.samples if key not in keys]
    dials = {level.key: level.dial for level in data.levels}
    groups: dict[str, list[_Pool]] = {}
    for key in keys:
        pool = _Pool(key=key, rows=tuple(data.samples[key]), note=data.notes.get(key, ""), best=key == winner)
        groups.setdefault(dials.get(key, key), []).append(pool)
    return groups


def _list_generation(found: Generation) -> list[tuple[str, str]]:
    """What was asked, spent and noted, as rows of a table; what did not occur is left out."""
    rows = [
        ("requests answered", f"{found.requests:,}"),
        ("answers replayed from the ledger", f"{found.replayed:,}"),
        ("tokens in", f"{found.prompt_tokens:,}"),
        ("tokens out", f"{found.completion_tokens:,}"),
        ("cost", "" if found.cost is None else f"{found.cost:,.4f} {found.currency}"),
        ("requests sent again after trouble", f"{found.retries:,}"),
        ("requests cut off unanswered", f"{found.unanswered:,}" if found.unanswered else ""),
        ("requests failed for good", _list_counts(found.failed) or "0"),
        ("answers rejected", _list_counts(found.rejected) or "0"),
        ("parameters the endpoint may have ignored", ", ".join(found.unverified)),
    ]
    return [row for row in rows if row[1]] + [("note", note) for note in found.notes]


def _list_counts(counts: Mapping[str, int]) -> str:
    parts = ", ".join(f"{n:,} {reason}" for reason, n in counts.items())
    return f"{sum(counts.values()):,} ({parts})" if parts else ""


def _list_cost(data: ReportData) -> list[tuple[str, str]]:
    usage = data.usage
    each = f", in each of {data.folds} folds" if data.folds else ""
    cost = (
        []
        if data.generation is not None
        else [
            ("LLM requests sent", f"{usage.requests:,}"),
            ("answers replayed from the ledger", f"{usage.replayed:,}"),
            ("prompt tokens", f"{usage.prompt_tokens:,}"),
            ("completion tokens", f"{usage.completion_tokens:,}"),
        ]
    )
    cost += [
        (f"trials of all cells{each}", f"{sum(cell.trials for cell in data.advice.cells):,}"),
    ]
    cost += [(f"time, {stage}", write_seconds(seconds)) for stage, seconds in data.seconds.items()]
    if data.seconds:
        cost.append(("time, all", write_seconds(sum(data.seconds.values()))))
    return cost


def _write_provenance(data: ReportData) -> str:
    encoders = sorted({f"{m.encoder} ({m.encoder_hash[:12]})" for m in data.measurements.values()})
    if not encoders:
        return ""
    return f"Encoder: {', '.join(encoders)}. Numbers of another encoder, tau or n are not comparable with these."
