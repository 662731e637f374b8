"""Charts for a notebook: of an advice, and of what was measured in several corpora; each names its numbers on hover."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt

from cuvee.characters import visible
from cuvee.records import Advice, Level, Measurement
from cuvee.report import charts
from cuvee.report.study_page import draw_amounts
from cuvee.report.tables import Design, ReportData

_WIDTH, _HEIGHT = 420, 260


def plot_advice(advice: Advice) -> alt.VConcatChart:
    """The amount curve: the score of every blend over its synthetic rows for each real one, as on the page of a study.

    A chart a dial, a line a level. Whiskers are the 95% interval of a blend's gain over the real rows alone, laid
    around its score. The line across is the score of the real rows alone, the dashed one of the real rows repeated,
    the ring the best blend. Trainer, loss and rows a label are those of the best blend.

    Raises:
        ValueError: the advice has no blend.
    """
    blends = [cell.cell for cell in advice.cells if cell.cell.kind == "blend"]
    if not blends:
        raise ValueError("the advice has no blend to plot: no trial of one finished")
    pools = dict.fromkeys((cell.dial or "", cell.level or "") for cell in blends)
    levels = [Level(dial=dial, name=level, rank=rank) for rank, (dial, level) in enumerate(pools)]
    chosen = blends[0] if advice.best is None else advice.best.cell
    data = ReportData(title="", advice=advice, levels=levels, design=Design(trainer=chosen.trainer))
    return charts.join_figures(draw_amounts(data))


def plot_measurements(
    measurements: Mapping[str, Measurement], *, diversity: str = "vendi_q1", shift: str = "mmd"
) -> alt.LayerChart | alt.FacetChart:
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


def _hover(rows: list[charts.Row], x: alt.X, y: alt.Y) -> alt.Chart:
    """Points that nobody sees and that name their numbers."""
    fields = [alt.Tooltip(f"{name}:{'N' if isinstance(rows[0][name], str) else 'Q'}") for name in rows[0]]
    marks: alt.Chart = charts.chart_of(rows).mark_point(size=150, opacity=0).encode(x=x, y=y, tooltip=fields)
    return marks
