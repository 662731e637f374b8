"""The chart of how much synthetic rows gain by how many real rows there are."""

from __future__ import annotations

from collections.abc import Sequence

from cuvee.records import CellSummary
from cuvee.report.chart_parts import GRID, INK, Row, by_level, chart_of, finite, render_chart
from cuvee.report.tables import find_gain


def draw_gain_by_rows(
    cells: Sequence[CellSummary], *, levels: Sequence[str], dial: str, delta: float, unit: str
) -> str:
    """Gain over real-only against the number of real rows (logarithmic), one line a level, with 95% intervals.

    Args:
        cells: blends of one dial at one share, each with its gain over real-only.
        levels: from least to most diverse as expected.
        dial: theirs.
        delta: the smallest gain that counts, as a fraction: the band behind the lines.
        unit: what the rows are counted by: ``real rows a label``.
    """
    import altair as alt

    names = [name for name in levels if any(cell.cell.level == name for cell in cells)]
    counts = sorted({cell.cell.rows_per_label for cell in cells})
    rows: list[Row] = []
    for cell in cells:
        gain, level = find_gain(cell.gains, "real-only"), cell.cell.level
        if gain is None or level not in names:
            continue
        # beside each other: levels of one number of rows would hide each other's whiskers
        place = cell.cell.rows_per_label * 1.035 ** (names.index(level) - (len(names) - 1) / 2)
        row: Row = {"level": level, "rows": place, "gain": 100 * gain.value}
        rows.append(row | {"low": finite(100 * gain.low), "high": finite(100 * gain.high)})
    scale = alt.Scale(type="log", domain=[counts[0] / 1.3, counts[-1] * 1.3], nice=False)
    axis = alt.Axis(values=counts, format="~f", labelFlush=False, grid=False)
    x = alt.X("rows:Q", title=unit, scale=scale, axis=axis)
    y = alt.Y("gain:Q", title="gain over the real rows alone, points")
    colour, shape = by_level(names)
    base = chart_of(rows)
    band = chart_of([{"low": -100 * delta, "high": 100 * delta}]).mark_rect(color=GRID, opacity=0.55)
    layers = [
        band.encode(y="low:Q", y2="high:Q"),
        chart_of([{"zero": 0.0}]).mark_rule(color=INK, strokeWidth=1).encode(y="zero:Q"),
        base.mark_rule(strokeWidth=1.4, opacity=0.7).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
    ]
    return render_chart(alt.layer(*layers), f"Gain over real-only by real rows, {dial}", height=230)
