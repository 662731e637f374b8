"""What the terminal shows when work is done: tables, verdicts, JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import cast

from rich.text import Text

from cuvee.cli import console
from cuvee.records import (
    Advice,
    Cell,
    Comparison,
    Composition,
    Estimate,
    FailedTrials,
    Measurement,
    Scores,
    name_score,
)


def estimate_to_json(estimate: Estimate) -> dict[str, object]:
    """``{"value", "low", "high", ...}``."""
    return asdict(estimate)


def measurement_object(measurement: Measurement) -> dict[str, object]:
    """Provenance, and every number under its name in the METRICS table."""
    from cuvee.measure import measurement_to_json

    return cast("dict[str, object]", json.loads(measurement_to_json(measurement)))


def comparison_object(comparison: Comparison) -> dict[str, object]:
    """What was compared and how, then each metric's numbers and differences, one a corpus."""
    return cast("dict[str, object]", asdict(comparison))


def scores_to_json(scores: Scores) -> dict[str, object]:
    """Every score under its name."""
    return {"n": scores.n, **{name: estimate_to_json(e) for name, e in scores.values.items()}}


def show_values(title: str, values: Mapping[str, Estimate]) -> None:
    """A table of numbers with their intervals, a part for each family of metrics; p-values where there are tests."""
    from cuvee.measure import METRICS

    tested = any(e.p_value is not None for e in values.values())
    table = console.make_table(title, "metric")
    for column in ("value", "95% interval", *(["p"] if tested else [])):
        table.add_column(column, justify="right", no_wrap=True)
    families = [METRICS[name].family if name in METRICS else "" for name in values]
    for (name, e), family, after in zip(values.items(), families, [*families[1:], families[-1:]], strict=True):
        interval = "" if e.low is None or e.high is None else f"{e.low:.4g} to {e.high:.4g}"
        p_value = "" if e.p_value is None else f"{e.p_value:.3g}"
        table.add_row(name, f"{e.value:.4g}", interval, *([p_value] if tested else []), end_section=family != after)
    console.out.print(table)


_HEADS = {
    "vendi_q1": "Vendi\nq=1",
    "dcscore_tau0.1": "DCScore\ntau=0.1",
    "distinct_2": "distinct\n2-grams",
    "near_duplicate_rate": "near\ncopies",
    "mmd": "shift\nMMD",
    "label_agreement": "label\nagrees",
    "leakage": "leaks",
}


def show_measurements(measurements: Mapping[str, Measurement]) -> None:
    """Pools side by side: one row each, the main numbers."""
    shown = [name for name in _HEADS if any(name in m.values for m in measurements.values())]
    table = console.make_table("measured", "corpus")
    table.columns[0].max_width = 26 if console.out.is_terminal else None
    table.add_column("n", justify="right", no_wrap=True)
    for name in shown:
        table.add_column(_HEADS[name], justify="right", no_wrap=True)
    for name, measurement in measurements.items():
        cells = [f"{measurement.values[c].value:.3g}" if c in measurement.values else "" for c in shown]
        table.add_row(name, str(measurement.n), *cells)
    console.out.print(table)


def show_comparison(comparison: Comparison) -> None:
    """Numbers side by side, and each corpus less the first one; an interval that spans no zero is bold."""
    first = comparison.names[0]
    how = [f"{comparison.rows} rows each", f"encoder {comparison.encoder}"]
    how += [f"mean of {comparison.draws} draws"] if comparison.draws > 1 else []
    how += [f"words after the first {comparison.words} do not count in lexical numbers"] if comparison.words else []
    table = console.make_table(", ".join(how), "metric")
    for name in comparison.names:
        table.add_column(name, justify="right")
    for name in comparison.names[1:]:
        table.add_column(f"{name} - {first}", justify="right")
    for metric, values in comparison.values.items():
        cells = ["" if e is None else f"{e.value:.4g}" for e in values]
        table.add_row(metric, *cells, *(_difference(e) for e in comparison.differences[metric][1:]))
    console.out.print(table)
    for note in comparison.notes:
        console.out.print(f"note: {note}", style="yellow")


def _difference(estimate: Estimate | None) -> str | Text:
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.3g}"
    shown = f"{estimate.value:+.3g} [{estimate.low:+.3g}, {estimate.high:+.3g}]"
    return Text(shown, style="bold") if estimate.low > 0 or estimate.high < 0 else shown


def show_composition(composition: Composition) -> None:
    """What a blend really holds."""
    texts = "" if composition.unique_texts is None else f" with {composition.unique_texts} texts"
    words = "" if composition.words is None else f"; {composition.words} words"
    console.out.print(
        f"{composition.rows} rows: {composition.real_rows} real, {composition.synthetic_rows} synthetic "
        f"(share {composition.share:.3f}); {composition.unique_rows} distinct{texts}, "
        f"no row more than {composition.most_repeats} times{words}"
    )


def composition_to_json(made: Composition) -> dict[str, object]:
    """Everything that was counted."""
    return {
        "share": made.share,
        "rows": made.rows,
        "real_rows": made.real_rows,
        "synthetic_rows": made.synthetic_rows,
        "unique_rows": made.unique_rows,
        "unique_texts": made.unique_texts,
        "most_repeats": made.most_repeats,
        "words": made.words,
        "label_counts": {label: list(counts) for label, counts in made.label_counts.items()},
        "real": None if made.real is None else asdict(made.real),
        "synthetic": None if made.synthetic is None else asdict(made.synthetic),
    }


def name_cell(cell: Cell) -> str:
    """A short name for a table."""
    if cell.kind == "blend":
        return f"{cell.dial}={cell.level}"
    if cell.kind == "synthetic-only":
        return f"{cell.dial}={cell.level} alone"
    return "real rows" if cell.kind == "real-only" else "real repeated"


def show_advice(advice: Advice) -> None:
    """The verdict, the shapes, and the best cells."""
    from cuvee.recommend.wording import confirmed_best, write_optimism, write_rows, write_sensitivity

    score = "acc." if advice.score == "accuracy" else name_score(advice.score)
    several: dict[str, Callable[[Cell], str]] = {  # what all cells have in common needs no column
        "rows": lambda cell: str(cell.rows_per_label),
        "loss": lambda cell: cell.loss,
        "trainer": lambda cell: cell.trainer,
    }
    shown = [name for name, read in several.items() if len({read(s.cell) for s in advice.cells}) > 1]
    table = console.make_table("best cells, and the real rows (validation; gains in points)", "cell")
    for column in ("share", *shown, score):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("over real rows", "over repeated"):
        table.add_column(column, justify="right", min_width=12, overflow="fold")
    ranked = sorted(advice.cells, key=lambda s: -s.accuracy)
    real = [s for s in ranked[8:] if s.cell.kind == "real-only"]
    for summary in [*ranked[:8], *real]:
        gains = {g.over: f"{100 * g.value:+.1f} [{100 * g.low:.1f},{100 * g.high:.1f}]" for g in summary.gains}
        table.add_row(
            name_cell(summary.cell),
            f"{summary.share:.2f}",
            *(several[name](summary.cell) for name in shown),
            f"{100 * summary.accuracy:.1f}%",
            gains.get("real-only", ""),
            gains.get("real-duplicated", ""),
        )
    console.out.print(table)
    for shape in advice.shapes:
        means = ", ".join(f"{level}: {100 * m:.1f}%" for level, m in zip(shape.levels, shape.means, strict=True))
        note = f" ({shape.note})" if shape.note else ""
        console.out.print(f"{shape.dial} at share {shape.share:g}: {shape.verdict}; {means}{note}")
    if advice.shapes:
        console.out.print(
            "(A shape compares levels with each other. Whether the best blend beats the real rows is another question.)"
        )
    for found in advice.by_rows:
        console.out.print(write_rows(found, advice.score))
    if advice.optimism is not None:
        console.out.print(write_optimism(advice.optimism, confirmed_best(advice)))
    if advice.sensitivity is not None:
        console.out.print(write_sensitivity(advice.sensitivity))
        for lost in advice.sensitivity.lost:
            console.out.print(str(lost))
    console.out.print()
    console.out.print(f"Verdict: {advice.decision}. {advice.sentence}", style="bold")


def show_failed(failed: FailedTrials, folder: Path) -> None:
    """How many trials failed, why most often, and where all of them are listed."""
    page = folder / "report.html"
    listed = f"; each is listed in {page}, Failed trials" if page.is_file() else ""
    again = "to run the study again tries them again"
    console.out.print(f"{failed}{listed}; {again}", style="yellow", soft_wrap=True)
