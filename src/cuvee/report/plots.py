"""Charts for a notebook: of an advice, and of what was measured in several corpora; each names its numbers on hover."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt

from cuvee.characters import visible
from cuvee.records import Advice, CellSummary, Measurement, name_score
from cuvee.report import charts
from cuvee.report.tables import find_gain, list_rivals

_WIDTH, _HEIGHT = 420, 260
Chart = alt.LayerChart | alt.FacetChart


def plot_advice(advice: Advice) -> Chart:
    """The amount curve: the score of every blend over its synthetic rows for each real one, a line a pool.

    Whiskers are the 95% interval of a blend's gain over the real rows alone, laid around its score. The rule is the
    score of the real rows alone, the ring the best blend. The trainer, the loss and the rows a label are those of the
    best blend, or of the most frequent cells where there is none.

    Raises:
        ValueError: the advice has no blend.
    """
    chosen = advice.best or next((cell for cell in advice.cells if cell.cell.kind == "blend"), None)
    if chosen is None:
        raise ValueError("the advice has no blend to plot: no trial of one finished")
    kind = chosen.cell
    cells = [c for c in advice.cells if (c.cell.trainer, c.cell.rows_per_label) == (kind.trainer, kind.rows_per_label)]
    blends = list_rivals(c for c in cells if c.cell.kind == "blend" and c.cell.loss == kind.loss)
    names = list(dict.fromkeys(_name(cell) for cell in blends))
    score = name_score(advice.score)
    x = alt.X("amount:Q", title="synthetic rows for each real one", scale=alt.Scale(type="log"))
    y, scale = alt.Y("score:Q", title=f"{score}, %", scale=alt.Scale(zero=False)), alt.Scale(zero=False)
    series = charts.by_name("pool", charts.name_colours(names))
    rows = [_row(cell) for cell in sorted(blends, key=lambda cell: cell.share)]
    layers = charts.draw_points(rows, x, y, series, scale=scale, line=2)
    layers.append(_hover(rows, x, y))
    for cell in cells:
        if cell.cell.kind == "real-only":
            real = charts.chart_of([{"score": 100 * cell.accuracy, "words": "the real rows alone"}])
            layers.append(real.mark_rule(color=charts.REAL).encode(y=y, tooltip=["words:N", "score:Q"]))
    if advice.best is not None:
        ring = charts.chart_of([_row(advice.best)]).mark_point(size=260, filled=False, color=charts.ACCENT, opacity=1)
        layers.append(ring.encode(x=x, y=y))
    return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT, title=visible(advice.headline))


def plot_measurements(
    measurements: Mapping[str, Measurement], *, diversity: str = "vendi_q1", shift: str = "mmd"
) -> Chart:
    """Diversity against shift: a point for each corpus that has both numbers, with the interval of its diversity.

    Args:
        measurements: name of a corpus, a pool or a level -> what was measured, such as ``StudyResult.measurements``.
        diversity: the metric that goes up.
        shift: the metric that goes across.

    Raises:
        ValueError: no corpus has both.
    """
    rows: list[charts.Row] = [
        {
            "name": visible(name),
            "shift": values[shift].value,
            "diversity": values[diversity].value,
            "low": charts.finite(values[diversity].low),
            "high": charts.finite(values[diversity].high),
        }
        for name, values in ((name, measured.values) for name, measured in measurements.items())
        if diversity in values and shift in values
    ]
    if not rows:
        raise ValueError(f"no corpus has both {diversity!r} and {shift!r}; measure them against real rows")
    x = alt.X("shift:Q", title=f"shift from the real rows ({shift})", scale=alt.Scale(zero=False))
    scale = alt.Scale(zero=False)
    y = alt.Y("diversity:Q", title=f"diversity ({diversity})", scale=scale)
    layers = charts.draw_points(rows, x, y, scale=scale)
    layers.append(_hover(rows, x, y))
    layers.append(charts.chart_of(rows).mark_text(dx=7, dy=-7, align="left").encode(x=x, y=y, text="name:N"))
    return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT)


def _name(cell: CellSummary) -> str:
    return visible(f"{cell.cell.dial}={cell.cell.level}")


def _row(cell: CellSummary) -> charts.Row:
    gain = find_gain(cell.gains, "real-only")
    ends = (None, None) if gain is None else (gain.low, gain.high)
    low, high = (None if end is None or gain is None else 100 * (cell.accuracy + end - gain.value) for end in ends)
    return {
        "pool": _name(cell),
        "amount": cell.share / max(1 - cell.share, 1e-6),
        "score": 100 * cell.accuracy,
        "low": charts.finite(low),
        "high": charts.finite(high),
    }


def _hover(rows: list[charts.Row], x: alt.X, y: alt.Y) -> alt.Chart:
    """Points that nobody sees and that name their numbers."""
    fields = [alt.Tooltip(f"{name}:{'N' if isinstance(rows[0][name], str) else 'Q'}") for name in rows[0]]
    marks: alt.Chart = charts.chart_of(rows).mark_point(size=150, opacity=0).encode(x=x, y=y, tooltip=fields)
    return marks
