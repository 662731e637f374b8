"""What the terminal shows when work is done: tables, verdicts, and what their JSON holds."""

from __future__ import annotations

import shlex
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import cast

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from cuvee.characters import visible, visible_lines
from cuvee.cli.console import fold_table, make_table, note, out
from cuvee.records import Advice, Comparison, Estimate, FailedTrials, Finding, Measurement, Ranking
from cuvee.records.measurement import MAIN, write_seconds

_ABOUT_SHAPES = (
    "(A shape compares levels with each other. Whether the best blend beats the real rows is another question.)"
)


def measurement_object(measurement: Measurement) -> dict[str, object]:
    """Provenance, and every number under its name in the METRICS table."""
    content: dict[str, object] = asdict(measurement)
    return content | cast("dict[str, object]", content.pop("values"))


def tabulate_numbers(title: str, rows: Iterable[tuple[str, str] | None]) -> Table:
    """Names and numbers; None parts groups."""
    return make_table(title, ("what", "number"), rows)


def list_findings(findings: Sequence[Finding]) -> list[RenderableType]:
    """One paragraph a finding, the remedy in it in bold; nothing where there are none."""
    shown: list[RenderableType] = []
    for found in findings:
        line = Table.grid(padding=(0, 1, 0, 0))
        words = Text(visible_lines(f"{found.sentence} "), overflow="fold")
        words.append(found.remedy, style="bold")
        line.add_row("-" if found.severity else "+", words)
        shown.append(line)
    return [*shown, ""] if shown else []


def name_file(findings: Iterable[Finding], path: Path | None) -> tuple[Finding, ...]:
    """The findings, whose remedies name the file that they are about as a shell takes it."""
    named = "FILE" if path is None else shlex.quote(str(path))
    return tuple(replace(each, remedy=each.remedy.replace("select FILE", f"select {named}")) for each in findings)


def tabulate_values(title: str, values: Mapping[str, Estimate]) -> Table:
    """Numbers with their intervals, a part for each family of metrics; p-values where there are tests."""
    from cuvee.measure import METRICS

    tested = any(e.p_value is not None for e in values.values())
    rows: list[list[str] | None] = []
    family = ""
    for name, e in values.items():
        own = METRICS[name].family if name in METRICS else ""
        if rows and own != family:
            rows.append(None)
        rows.append([name, *e.write_cells(tested=tested)])
        family = own
    return make_table(title, ["metric", "value", "95% interval", *(["p"] if tested else [])], rows)


def tabulate_measurements(measurements: Mapping[str, Measurement]) -> Table:
    """Pools side by side: one row each, the main numbers."""
    shown = [name for name in MAIN if any(name in m.values for m in measurements.values())]
    rows = (
        [name, str(m.n), *(f"{m.values[c].value:.3g}" if c in m.values else "" for c in shown)]
        for name, m in measurements.items()
    )
    table = make_table("measured", ["corpus", "n", *(MAIN[name].replace(" ", "\n") for name in shown)], rows)
    table.columns[0].max_width = 26 if out.is_terminal else None
    return table


def list_comparison(comparison: Comparison) -> Iterable[RenderableType]:
    """Findings, numbers side by side, each corpus less the first one, and the ranking; many names as letters."""
    names = comparison.names
    yield from list_findings(comparison.findings)
    if len(names) > 2:
        names = tuple(string.ascii_uppercase[i] if i < 26 else f"Z{i - 25}" for i in range(len(names)))
        yield from (f"{letter} = {name}" for letter, name in zip(names, comparison.names, strict=True))
    short = replace(comparison, names=names)
    heads, *rows = short.table
    yield from fold_table(short.caption, heads, rows)
    yield from map(note, comparison.notes)
    if comparison.ranking is not None:
        yield from _list_ranking(comparison.ranking, dict(zip(comparison.names, names, strict=True)))


def _list_ranking(ranking: Ranking, names: Mapping[str, str]) -> Iterable[RenderableType]:
    """The pools by what they should gain, why, what to train with, and what all of them lack."""
    rows = [
        [f"{place}. {names[pool.name]}", f"{pool.score:.2f}", pool.reason]
        for place, pool in enumerate(ranking.pools, start=1)
    ]
    table = make_table("ranking: what the pools should gain, before any training", ["pool", "score", "why"], rows)
    table.columns[2].justify, table.columns[2].no_wrap, table.columns[2].overflow = "left", False, "fold"
    yield table
    if ranking.lacking:
        yield f"No pool has rows like these real rows ({100 * ranking.lacking_share:.1f}% of the real rows are so):"
        yield from (f"  {visible(text)}" for text in ranking.lacking)
    yield Text(ranking.finding.remedy, style="bold")


def list_advice(
    advice: Advice, seconds: Mapping[str, float] = MappingProxyType({}), more: Sequence[Finding] = ()
) -> Iterable[RenderableType]:
    """The findings, the best cells, the shapes, and the verdict.

    Args:
        advice: what is shown.
        seconds: of each stage; they tell how long a next step takes.
        more: findings that the advice does not know of.
    """
    from cuvee.recommend.wording import write_edge, write_rows

    yield from list_findings([*advice.findings, *more])
    yield _tabulate_cells(advice)
    for shape in advice.shapes:
        means = ", ".join(f"{level}: {100 * m:.1f}%" for level, m in zip(shape.levels, shape.means, strict=True))
        about = f" ({shape.note})" if shape.note else ""
        yield Text(f"{shape.dial} at share {shape.share:g}: {shape.verdict}; {means}{about}")
    told = [_ABOUT_SHAPES] if advice.shapes else []
    told += [write_rows(found, advice.score) for found in advice.by_rows]
    if advice.sensitivity is not None:
        told += map(str, (advice.sensitivity, *advice.sensitivity.lost))
    yield from map(Text, [*told, ""])
    yield Text(f"Verdict: {advice.sentence}", style="bold")
    if advice.edge is not None:
        took = advice.edge.part * seconds.get("generate", 0.0)
        yield Text(write_edge(advice.edge, advice.score, takes=write_seconds(took) if took else ""))


def _tabulate_cells(advice: Advice) -> Table:
    heads, *rows = advice.table
    table = make_table("best cells, and the real rows (validation; gains in points)", heads, rows)
    for column in table.columns[-2:]:
        column.min_width, column.no_wrap, column.overflow = 12, False, "fold"
    return table


def list_failed(failed: FailedTrials | None, folder: Path) -> list[RenderableType]:
    """How many trials failed, why most often, and where all of them are listed; nothing where none did."""
    page = folder / "report.html"
    listed = f"; each is listed in {page}, Failed trials" if page.is_file() else ""
    again = "to run the study again tries them again"
    return [] if failed is None else [Text(f"{failed}{listed}; {again}", style="yellow")]
