"""How far a conclusion carries: over numbers of real rows, and under other choices of metric, trainer and loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cuvee.records import Cell, ShapeTest
from cuvee.records.advice import LostVariant, Optimism, RowsFinding, SensitivityRow
from cuvee.report.data import ReportData
from cuvee.report.figures import Figure
from cuvee.report.rows_chart import draw_gain_by_rows
from cuvee.report.tables import Number, find_gain, write_gain, write_number, write_p, write_percent, write_points

DECISIONS = {"use": "use", "do-not-use": "do not use", "underpowered": "not settled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsRow:
    """One number of real rows."""

    rows: str
    real_only: str
    best: str
    accuracy: str
    over_real: Number | None
    over_duplicated: Number | None
    decision: str
    shapes: str
    optimism: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRow:
    """One choice beside the study's own."""

    variant: str
    decision: str
    best: str
    gain: Number | None
    shapes: str
    two_lines: str
    flips: tuple[str, ...]
    unsettled: tuple[str, ...]
    base: bool
    lost: str = ""
    """why it could not be run"""


def list_asides(data: ReportData) -> list[tuple[str, str]]:
    """What stands beside the verdict: a heading and a sentence each."""
    advice = data.advice
    found = [] if data.failed is None else [("Failed trials", f"{data.failed}. Each is listed under Failed trials.")]
    found += [] if advice.optimism is None else [("Luck of the choice", write_optimism(data, advice.optimism))]
    lines = [write_two_lines(shape) for shape in advice.shapes if shape.two_lines is not None and shape.interpreted]
    if lines:
        found.append(("Two lines over measured diversity", " ".join(lines)))
    if advice.sensitivity is not None:
        flips = [f"{row.variant} ({', '.join(row.flips)})" for row in advice.sensitivity.rows if row.flips]
        tried = f"{len(advice.sensitivity.rows)} other choice{'s' if len(advice.sensitivity.rows) != 1 else ''}"
        said = f"The conclusion flips under {'; '.join(flips)}." if flips else f"None of {tried} flips the conclusion."
        lost = [each.variant for each in advice.sensitivity.lost]
        found.append(("Other choices", f"{said} Could not be run: {', '.join(lost)}." if lost else said))
    return found


def write_optimism(data: ReportData, optimism: Optimism) -> str:
    """What the choice of the best adds to its gain on validation, and what held-out rows say."""
    best, confirmation = data.advice.best, data.advice.confirmation
    confirmed = None
    if confirmation is not None and best is not None and confirmation.cell == best.cell:
        confirmed = find_gain(confirmation.gains, optimism.over)
    judges = "held-out folds" if confirmation is not None and confirmation.folds else "the locked test"
    last = "" if confirmed is None else f" Fresh draws and {judges} say {write_points(confirmed.value)}."
    return (
        f"On validation the best of {optimism.cells} blends gains {write_points(optimism.apparent)} points over "
        f"{optimism.over}. About {write_points(optimism.value)} of that come from having chosen the best, which leaves "
        f"{write_points(optimism.corrected)}; {optimism.same_choice:.0%} of {optimism.splits} splits choose the same "
        f"blend.{last}"
    )


def write_two_lines(shape: ShapeTest) -> str:
    """Simonsohn's test in words: where the lines break, their slopes, and what that shows."""
    lines = shape.two_lines
    if lines is None:
        return ""
    verdict = "not shown either way" if lines.shape == "underpowered" else f"shown {lines.shape}"
    return (
        f"{shape.dial}: {verdict}, {write_points(lines.low_slope)} points a unit of diversity below "
        f"{write_number(lines.break_at)} (p {_relate(lines.low_p)}), {write_points(lines.high_slope)} above it "
        f"(p {_relate(lines.high_p)})."
    )


def _relate(p_value: float) -> str:
    shown = write_p(p_value)
    return shown if shown.startswith("<") else f"= {shown}"


def list_rows(data: ReportData) -> list[RowsRow]:
    """How the advice depends on the number of real rows, fewest first."""
    return [_show_rows(found) for found in reversed(data.advice.by_rows)]


def _show_rows(found: RowsFinding) -> RowsRow:
    best = found.best
    gains = () if best is None else best.gains
    over_real, over_duplicated = find_gain(gains, "real-only"), find_gain(gains, "real-duplicated")
    return RowsRow(
        rows=f"{found.rows_per_label:,}",
        real_only="" if found.real_only is None else write_percent(found.real_only),
        best=_name_blend(None if best is None else best.cell),
        accuracy="" if best is None else write_percent(best.accuracy),
        over_real=None if over_real is None else write_gain(over_real),
        over_duplicated=None if over_duplicated is None else write_gain(over_duplicated),
        decision=DECISIONS[found.decision],
        shapes="; ".join(f"{shape.dial}: {_read_shape(shape)}" for shape in found.shapes),
        optimism="" if found.optimism is None else write_points(found.optimism.value),
    )


def _read_shape(shape: ShapeTest) -> str:
    return shape.verdict if shape.interpreted else "not interpreted"


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


def list_variants(data: ReportData) -> list[VariantRow]:
    """The sensitivity table, the study's own choice first."""
    table = data.advice.sensitivity
    if table is None:
        return []
    rows = [_show_variant(row, base=row is table.base) for row in (table.base, *table.rows)]
    return [*rows, *(_show_lost(each) for each in table.lost)]


def _show_lost(found: LostVariant) -> VariantRow:
    return VariantRow(
        variant=found.variant,
        decision="could not be run",
        best="",
        gain=None,
        shapes="",
        two_lines="",
        flips=(),
        unsettled=(),
        base=False,
        lost=str(found.failed),
    )


def _show_variant(row: SensitivityRow, *, base: bool) -> VariantRow:
    gain = find_gain(row.gains, "real-only")
    return VariantRow(
        variant="this study" if base else row.variant,
        decision=DECISIONS[row.decision],
        best=_name_blend(row.best),
        gain=None if gain is None else write_gain(gain),
        shapes=_join(row.shapes),
        two_lines=_join(row.two_lines),
        flips=row.flips,
        unsettled=row.unsettled,
        base=base,
    )


def _join(verdicts: Mapping[str, str]) -> str:
    return "; ".join(f"{dial}: {verdict}" for dial, verdict in verdicts.items())


def _name_blend(cell: Cell | None) -> str:
    return "" if cell is None else f"{cell.dial} = {cell.level} at {cell.share:g}"
