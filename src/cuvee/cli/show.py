"""What the terminal shows when work is done: tables, verdicts, and what their JSON holds."""

from __future__ import annotations

import shlex
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import cast

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from cuvee.characters import visible, visible_lines
from cuvee.cli.console import fold_table, make_table, measure_columns, note, out
from cuvee.records import (
    Advice,
    Cell,
    Comparison,
    Composition,
    Estimate,
    FailedTrials,
    Finding,
    Measurement,
    Ranking,
    name_score,
)

_HEADS = {
    "vendi_q1": "Vendi\nq=1",
    "dcscore_tau0.1": "DCScore\ntau=0.1",
    "distinct_2": "distinct\n2-grams",
    "near_duplicate_rate": "near\ncopies",
    "mean_words": "words",
    "mmd": "shift\nMMD",
    "label_agreement": "label\nagrees",
    "leakage": "leaks",
}
_VARYING: dict[str, Callable[[Cell], str]] = {
    "rows": lambda cell: str(cell.rows_per_label),
    "loss": lambda cell: cell.loss,
    "trainer": lambda cell: cell.trainer,
    "scope": lambda cell: cell.scope.split()[-1] if cell.dial else "",  # pool, recipe; real rows are alike in both
}
_KINDS = {
    "synthetic-only": "{0.dial}={0.level} alone", "real-only": "real rows", "real-duplicated": "real repeated",
    "untuned": "untuned model",
}  # fmt: skip
_SHOWN = 8
_ABOUT_SHAPES = (
    "(A shape compares levels with each other. Whether the best blend beats the real rows is another question.)"
)


def measurement_object(measurement: Measurement) -> dict[str, object]:
    """Provenance, and every number under its name in the METRICS table."""
    content: dict[str, object] = asdict(measurement)
    return content | cast("dict[str, object]", content.pop("values"))


def composition_object(made: Composition) -> dict[str, object]:
    """Everything that was counted."""
    return {**asdict(made), "rows": made.rows, "words": made.words}


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
    shown = [name for name in _HEADS if any(name in m.values for m in measurements.values())]
    rows = (
        [name, str(m.n), *(f"{m.values[c].value:.3g}" if c in m.values else "" for c in shown)]
        for name, m in measurements.items()
    )
    table = make_table("measured", ["corpus", "n", *(_HEADS[name] for name in shown)], rows)
    table.columns[0].max_width = 26 if out.is_terminal else None
    return table


def list_comparison(comparison: Comparison) -> Iterable[RenderableType]:
    """Findings, numbers side by side, each corpus less the first one, and the ranking; a sure difference is bold."""
    names, legend = _short_names(comparison.names)
    first = names[0]
    how = [f"{comparison.rows} rows each", f"encoder {comparison.encoder}"]
    how += [f"mean of {comparison.draws} draws"] if comparison.draws > 1 else []
    how += [f"words after the first {comparison.words} do not count in lexical numbers"] if comparison.words else []
    heads = ["metric", *names, *(f"{name} - {first}" for name in names[1:])]
    rows, short = (
        [
            [
                metric,
                *("" if e is None else f"{e.value:.4g}" for e in values),
                *(_difference(e, brief=brief) for e in comparison.differences[metric][1:]),
            ]
            for metric, values in comparison.values.items()
        ]
        for brief in (False, True)
    )
    if sum(measure_columns(heads, rows)) > out.width:
        rows, how = short, [*how, "*: the 95% interval of the difference spans no zero"]
    yield from list_findings(comparison.findings)
    yield from legend
    yield from fold_table(", ".join(how), heads, rows)
    yield from map(note, comparison.notes)
    if comparison.ranking is not None:
        yield from _list_ranking(comparison.ranking, dict(zip(comparison.names, names, strict=True)))


def _short_names(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Letters for more than two corpora, and what they stand for."""
    if len(names) <= 2:
        return [*names], []
    letters = [string.ascii_uppercase[i] if i < 26 else f"Z{i - 25}" for i in range(len(names))]
    return letters, [f"{letter} = {name}" for letter, name in zip(letters, names, strict=True)]


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


def _difference(estimate: Estimate | None, *, brief: bool) -> str | Text:
    """With its interval or, where there is no room, a star in place of one that spans no zero."""
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.3g}"
    is_sure = estimate.low > 0 or estimate.high < 0
    end = ("*" if is_sure else " ") if brief else f" [{estimate.write_interval('+.3g')}]"
    return Text(f"{estimate.value:+.3g}{end}", style="bold" if is_sure else "")


_SIZES = ((86_400, "days"), (3_600, "hours"), (60, "min"))


def tell_seconds(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "not known"
    for size, unit in _SIZES:
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


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
        yield Text(write_edge(advice.edge, advice.score, takes=tell_seconds(took) if took else ""))


def _tabulate_cells(advice: Advice) -> Table:
    """The best cells and the real rows; what all cells have in common needs no column."""
    score = "acc." if advice.score == "accuracy" else name_score(advice.score)
    varying = [name for name, read in _VARYING.items() if len({read(s.cell) for s in advice.cells}) > 1]
    ranked = sorted(advice.cells, key=lambda s: -s.accuracy)
    rows = []
    for summary in [*ranked[:_SHOWN], *(s for s in ranked[_SHOWN:] if s.cell.kind in ("real-only", "untuned"))]:
        cell = summary.cell
        gains = {g.over: f"{100 * g.value:+.1f} [{100 * g.low:.1f},{100 * g.high:.1f}]" for g in summary.gains}
        name, read = _KINDS.get(cell.kind, "{0.dial}={0.level}").format(cell), [_VARYING[v](cell) for v in varying]
        over = [gains.get(baseline, "") for baseline in ("real-only", "real-duplicated")]
        row = [name, f"{summary.share:.2f}", *read, f"{100 * summary.accuracy:.1f}%", *over]
        if row not in rows:
            rows.append(row)
    heads = ["cell", "share", *varying, score, "over real rows", "over repeated"]
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
