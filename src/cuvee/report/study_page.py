"""The page of a study: which charts and tables it shows, with their titles and captions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cuvee.records import CellSummary, Estimate, Gain
from cuvee.report import tables
from cuvee.report.charts import (
    Baselines,
    Domain,
    draw_accuracy_by_diversity,
    draw_accuracy_by_level,
    draw_accuracy_by_share,
    draw_gain_by_rows,
    draw_gains,
    draw_metric_by_level,
    draw_tau_curves,
)
from cuvee.report.data import ReportData
from cuvee.report.page import render_page
from cuvee.report.tables import (
    Figure,
    capitalise,
    find_gain,
    write_seconds,
    write_size,
)

_VERDICTS = {"use": "Use synthetic data", "do-not-use": "Do not use synthetic data", "underpowered": "Not settled"}
_METRICS = {
    "vendi_q1": ("Diversity", "Vendi score, q = 1"),
    "mmd": ("Shift from real", "squared MMD"),
    "label_agreement": ("Label agreement", "fraction of rows"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelFigures:
    """Accuracy by level, one chart a dial, and by measured diversity."""

    dials: tuple[Figure, ...] = ()
    diversity: Figure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The cells of the grid trainer at the rows that the choice was made with, by what they are drawn as."""

    blends: tuple[CellSummary, ...]
    real_only: CellSummary | None
    duplicated: Mapping[float, CellSummary]

    def at(self, share: float, dial: str) -> list[CellSummary]:
        """The blends of a dial at one share."""
        return [c for c in self.blends if c.cell.dial == dial and math.isclose(c.cell.share, share, abs_tol=1e-9)]

    def baselines(self, share: float) -> Baselines:
        """Accuracies of the baselines at one share."""
        found = [c for s, c in self.duplicated.items() if math.isclose(s, share, abs_tol=1e-9)]
        return Baselines(
            real_only=None if self.real_only is None else self.real_only.accuracy,
            real_duplicated=found[0].accuracy if found else None,
        )


def render_report(data: ReportData) -> str:
    """One self-contained HTML page; all text of the study is escaped, nothing is fetched.

    Args:
        data: what the page shows.

    Raises:
        ValueError: a chart cannot be drawn from the numbers given.
    """
    parts = (
        *(tables.list_tiles, tables.list_cells, tables.list_leaders, tables.list_metric_tables, tables.list_written),
        *(tables.list_asides, tables.count_rejected, tables.show_gain, tables.name_decision, tables.name_blend),
        *(tables.write_estimate, tables.write_gain, tables.write_p, tables.write_percent, tables.write_points),
        *(tables.write_size, tables.write_two_lines, tables.write_verdicts),
        *(gather_grid, draw_verdict, draw_levels, draw_shares, draw_measurements, draw_tau_ranges, draw_rows),
        *(name_verdict, shorten, list_samples, list_cost, write_provenance),
    )
    return render_page("study.html.j2", data, {part.__name__: part for part in parts})


def name_verdict(data: ReportData) -> str:
    """In large letters."""
    return _VERDICTS[data.advice.decision]


def shorten(sentence: str) -> str:
    """The sentence without the verdict before its colon, which stands above it in large letters."""
    _, colon, rest = sentence.partition(": ")
    return rest[:1].upper() + rest[1:] if colon else sentence


def list_samples(data: ReportData) -> dict[str, list[str]]:
    """Dial -> the levels of which rows are shown; what is of no level comes under its own key."""
    keys = [level.key for level in data.levels if level.key in data.samples]
    dials, groups = {level.key: level.dial for level in data.levels}, dict[str, list[str]]()
    for key in dict.fromkeys([*keys, *data.samples]):
        groups.setdefault(dials.get(key, key), []).append(key)
    return groups


def list_cost(data: ReportData) -> list[tuple[str, str]]:
    """What the study took beside generating: trials, time."""
    each = f", in each of {data.folds} folds" if data.folds else ""
    cost = [(f"trials of all cells{each}", f"{sum(cell.trials for cell in data.advice.cells):,}")]
    cost += [(f"time, {stage}", write_seconds(seconds)) for stage, seconds in data.seconds.items()]
    if data.seconds:
        cost.append(("time, all these stages", write_seconds(sum(data.seconds.values()))))
    return cost


def write_provenance(data: ReportData) -> str:
    """Which encoders measured."""
    encoders = sorted({f"{m.encoder} ({m.encoder_hash[:12]})" for m in data.measurements.values()})
    if not encoders:
        return ""
    return f"Encoder: {', '.join(encoders)}. Numbers of another encoder, tau or n are not comparable with these."


# --- charts ---
def gather_grid(data: ReportData) -> Grid:
    """The cells that charts compare."""
    cells = [c for c in data.advice.cells if c.cell.trainer == data.grid_trainer]
    best = data.advice.best
    rows = best.cell.rows_per_label if best is not None else max((c.cell.rows_per_label for c in cells), default=0)
    loss = best.cell.loss if best is not None else "ce"
    same = [c for c in cells if c.cell.rows_per_label == rows and c.cell.loss in (loss, "ce")]
    own_first = sorted(same, key=lambda c: c.cell.loss != loss)
    return Grid(
        blends=tuple(c for c in same if c.cell.kind == "blend" and c.cell.loss == loss),
        real_only=next((c for c in own_first if c.cell.kind == "real-only"), None),
        duplicated={c.cell.share: c for c in reversed(own_first) if c.cell.kind == "real-duplicated"},
    )


def draw_verdict(data: ReportData) -> list[Figure]:
    """The gains of the best blend, on the locked test where it was confirmed."""
    gains: list[tuple[str, Gain]] = []
    best, confirmation = data.advice.best, data.advice.confirmation
    if confirmation is not None:
        gains += [(f"{g.over}, test", g) for g in confirmation.gains]
    if best is not None:
        gains += [(f"{g.over}, validation", g) for g in best.gains]
    if not gains:
        return []
    title = "Gain of the best blend over"
    if confirmation is not None and best is not None and confirmation.cell != best.cell:
        title = "Gain of the confirmed blend (test), of the best (validation), over"
    caption = f"95% intervals. Within the band, ± {write_size(data.counts_from)}, a gain is too small to count."
    return [Figure(title=title, svg=draw_gains(gains, delta=data.counts_from, score=data.score), caption=caption)]


def draw_levels(data: ReportData, grid: Grid) -> LevelFigures:
    """The score by level for each dial at the tested share, then by measured diversity."""
    share, best, ranks = data.tested_share, data.advice.best, data.level_ranks
    baselines = grid.baselines(share)
    shown = [c for dial in ranks for c in grid.at(share, dial)]
    if not shown:
        return LevelFigures()
    domain = _percent_domain(_heights(shown, baselines))
    figures = []
    for dial, names in ranks.items():
        cells = grid.at(share, dial)
        if not cells:
            continue
        winner = best is not None and best.cell.dial == dial and math.isclose(best.cell.share, share, abs_tol=1e-9)
        svg = draw_accuracy_by_level(
            cells,
            levels=names,
            dial=dial,
            baselines=baselines,
            domain=domain,
            best=(best.cell.level or "") if winner and best is not None else "",
            score=data.score,
        )
        shape = next((s.verdict for s in data.advice.shapes if s.dial == dial), None)
        caption = "" if shape is None else f"Shape: {shape}."
        figures.append(Figure(title=f"{capitalise(data.score)} by level: {dial}", svg=svg, caption=caption))
    points = [(c, e) for c in shown if (e := _find_estimate(data, c.cell.dial, c.cell.level, "vendi_q1")) is not None]
    if points:
        title = f"{capitalise(data.score)} by measured diversity"
        svg = draw_accuracy_by_diversity(
            points, dials=list(ranks), baselines=baselines, domain=domain, score=data.score
        )
        caption = (
            "The same cells, placed by what was measured instead of what was asked for. "
            "Solid line: the real rows alone; dashed: the real rows repeated."
        )
        return LevelFigures(dials=tuple(figures), diversity=Figure(title=title, svg=svg, caption=caption))
    return LevelFigures(dials=tuple(figures))


def draw_shares(data: ReportData, grid: Grid) -> list[Figure]:
    """The score by share for each dial."""
    if not grid.blends:
        return []
    real = None if grid.real_only is None else grid.real_only.accuracy
    duplicated = {share: c.accuracy for share, c in grid.duplicated.items()}
    heights = [c.accuracy for c in grid.blends] + ([] if real is None else [real]) + list(duplicated.values())
    domain = _percent_domain(heights)
    figures = []
    for dial, names in data.level_ranks.items():
        cells = [c for c in grid.blends if c.cell.dial == dial]
        if cells:
            svg = draw_accuracy_by_share(
                cells,
                levels=names,
                dial=dial,
                real_only=real,
                duplicated=duplicated,
                descriptive_shares=data.descriptive_shares,
                domain=domain,
                score=data.score,
            )
            figures.append(Figure(title=f"{capitalise(data.score)} by share: {dial}", svg=svg))
    return figures


def draw_measurements(data: ReportData) -> list[Figure]:
    """Diversity, shift and label agreement side by side for each dial, on the same axes for all dials."""
    found = {
        (metric, dial): {name: e for name in names if (e := _find_estimate(data, dial, name, metric)) is not None}
        for metric in _METRICS
        for dial, names in data.level_ranks.items()
    }
    figures = []
    for dial, names in data.level_ranks.items():
        for metric, (title, unit) in _METRICS.items():
            estimates = found[metric, dial]
            if not estimates:
                continue
            every = [e for (other, _), of_dial in found.items() if other == metric for e in of_dial.values()]
            real = _find_real(data, metric, every)
            ends = [v for e in every for v in (e.value, e.low, e.high) if v is not None and math.isfinite(v)]
            svg = draw_metric_by_level(
                estimates,
                levels=names,
                dial=dial,
                title=unit,
                real=real,
                domain=_plain_domain(ends if real is None else [*ends, real]),
            )
            figures.append(Figure(title=f"{title}: {dial}", svg=svg))
    return figures


def draw_tau_ranges(data: ReportData) -> list[Figure]:
    """DCScore over tau for each dial."""
    figures = []
    for dial, names in data.level_ranks.items():
        curves = {name: points for name in names if len(points := _find_tau_curve(data, dial, name)) > 1}
        if curves:
            figures.append(Figure(title=f"DCScore over tau: {dial}", svg=draw_tau_curves(curves, dial=dial)))
    return figures


def _percent_domain(values: Sequence[float]) -> Domain:
    """An axis in percent that holds fractions ``values`` with some air."""
    low, high = 100 * min(values), 100 * max(values)
    air = max(0.08 * (high - low), 0.5)
    return math.floor(low - air), math.ceil(high + air)


def _plain_domain(values: Sequence[float]) -> Domain:
    """An axis that holds ``values`` with some air, and does not cross zero when they do not."""
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return (max(low - air, 0.0) if low >= 0 else low - air), high + air


def _find_real(data: ReportData, metric: str, others: Sequence[Estimate]) -> float | None:
    """The real data's diversity, where it was measured at the rows of all the others."""
    real = data.measurements.get("real")
    if real is None or metric != "vendi_q1" or metric not in real.values:
        return None
    return real.values[metric].value if {real.values[metric].n} == {e.n for e in others} else None


def _heights(cells: Sequence[CellSummary], baselines: Baselines) -> list[float]:
    values = [c.accuracy for c in cells]
    for cell in cells:
        gain = next((g for g in cell.gains if g.over == "real-only"), None)
        if gain is not None:
            values += [cell.accuracy + gain.low - gain.value, cell.accuracy + gain.high - gain.value]
    return values + [v for v in (baselines.real_only, baselines.real_duplicated) if v is not None]


def _find_estimate(data: ReportData, dial: str | None, level: str | None, metric: str) -> Estimate | None:
    measurement = data.measurements.get(f"{dial}={level}")
    estimate = None if measurement is None else measurement.values.get(metric)
    return estimate if estimate is not None and math.isfinite(estimate.value) else None


def _find_tau_curve(data: ReportData, dial: str, level: str) -> list[tuple[float, float]]:
    measurement = data.measurements.get(f"{dial}={level}")
    if measurement is None:
        return []
    points = [
        (float(e.settings["tau"]), e.value)
        for name, e in measurement.values.items()
        if name.startswith("dcscore") and "tau" in e.settings and math.isfinite(e.value) and e.value > 0
    ]
    return sorted(points)


def draw_rows(data: ReportData) -> list[Figure]:
    """The gain over real-only by the number of real rows, one chart a dial, one line a level, at the tested share."""
    if len(data.advice.by_rows) < 2:
        return []
    best = data.advice.best
    loss = "ce" if best is None else best.cell.loss
    figures = []
    for dial, names in data.level_ranks.items():
        cells = [
            summary
            for summary in data.advice.cells
            if (summary.cell.kind, summary.cell.dial) == ("blend", dial)
            and (summary.cell.trainer, summary.cell.loss) == (data.grid_trainer, loss)
            and math.isclose(summary.cell.share, data.tested_share, abs_tol=1e-9)
            and find_gain(summary.gains, "real-only") is not None
        ]
        if len({summary.cell.rows_per_label for summary in cells}) > 1:
            svg = draw_gain_by_rows(cells, levels=names, dial=dial, delta=data.counts_from, unit=data.rows_unit)
            figures.append(Figure(title=f"Gain by real rows: {dial}", svg=svg))
    return figures
