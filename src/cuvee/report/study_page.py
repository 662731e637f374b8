"""The page of a study: which charts and tables it shows, with their titles and captions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import altair as alt

from cuvee.characters import visible
from cuvee.records import UNORDERED, CellSummary, Estimate, Gain
from cuvee.report import charts, tables
from cuvee.report.charts import Domain, Figure, Row, by_level, chart_of, draw_points, finite, render_chart
from cuvee.report.tables import ReportData, capitalise, find_gain, is_share, list_rivals, write_seconds, write_size

_METRICS = {
    "vendi_q1": ("Diversity", "Vendi score, q = 1"),
    "mmd": ("Shift from real", "squared MMD"),
    "label_agreement": ("Label agreement", "fraction of rows"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The cells of the grid trainer at the rows that the choice was made with, by what they are drawn as."""

    blends: tuple[CellSummary, ...]
    real_only: float | None
    duplicated: Mapping[float, float]

    def at(self, share: float) -> list[CellSummary]:
        """The blends at one share."""
        return [c for c in self.blends if is_share(c.cell.share, share)]

    def repeated(self, share: float) -> float | None:
        """The score of the real rows, repeated to the total of one share."""
        return next((score for s, score in self.duplicated.items() if is_share(s, share)), None)


def render_report(data: ReportData) -> str:
    """One self-contained HTML page; all text of the study is escaped, nothing is fetched.

    Args:
        data: what the page shows.

    Raises:
        ValueError: a chart cannot be drawn from the numbers given.
    """
    return charts.render_page("study.html.j2", data, vars(tables) | globals())


def shorten(sentence: str) -> str:
    """The sentence without the verdict before its colon, which stands above it in large letters."""
    _, colon, rest = sentence.partition(": ")
    return rest[:1].upper() + rest[1:] if colon else sentence


def list_samples(data: ReportData) -> dict[str, list[str]]:
    """Dial -> the levels of which rows are shown; what is of no level comes under its own key."""
    shown = [key for key, pool in data.pools.items() if pool.samples]
    dials, groups = {level.key: level.dial for level in data.levels}, dict[str, list[str]]()
    for key in dict.fromkeys([*(level.key for level in data.levels if level.key in shown), *shown]):
        groups.setdefault(dials.get(key, key), []).append(key)
    return groups


def list_cost(data: ReportData) -> list[tuple[str, str]]:
    """What the study took beside generating: trials, time."""
    each = f", in each of {data.folds} folds" if data.folds else ""
    cost = [(f"trials of all cells{each}", f"{sum(cell.trials for cell in data.advice.cells):,}")]
    cost += [(f"time, {stage}", write_seconds(seconds)) for stage, seconds in data.record.seconds.items()]
    if data.record.seconds:
        cost.append(("time, all these stages", write_seconds(sum(data.record.seconds.values()))))
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
    cells = [c for c in data.advice.cells if c.cell.trainer == data.design.trainer]
    best = data.advice.best
    rows = best.cell.rows_per_label if best is not None else max((c.cell.rows_per_label for c in cells), default=0)
    loss = best.cell.loss if best is not None else "ce"
    same = [c for c in cells if c.cell.rows_per_label == rows and c.cell.loss in (loss, "ce")]
    own_first = sorted(same, key=lambda c: c.cell.loss != loss)
    return Grid(
        blends=list_rivals(c for c in same if c.cell.kind == "blend" and c.cell.loss == loss),
        real_only=next((c.accuracy for c in own_first if c.cell.kind == "real-only"), None),
        duplicated={c.cell.share: c.accuracy for c in reversed(own_first) if c.cell.kind == "real-duplicated"},
    )


def draw_verdict(data: ReportData) -> list[Figure]:
    """The gains of the best blend, on the locked test where it was confirmed, and the band of what does not count."""
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
    caption = f"95% intervals. Within the band, ± {write_size(data.design.counts_from)}, a gain is too small to count."
    axis = alt.Axis(labelLimit=220, minExtent=165, ticks=False, domain=False, grid=False)
    y = alt.Y("name:N", sort=[name for name, _ in gains], title=None, axis=axis)
    words = f"gain in {data.score}, points"
    base = chart_of([{"name": name, **_percent(g)} for name, g in gains])
    layers = [
        _band(data.design.counts_from).encode(x=alt.X("low:Q", title=words), x2="high:Q"),
        chart_of([{"x": 0.0}]).mark_rule(color=charts.INK, strokeWidth=1).encode(x="x:Q"),
        base.mark_rule(color=charts.ACCENT, strokeWidth=2.5).encode(x=alt.X("low:Q"), x2="high:Q", y=y),
        base.mark_point(color=charts.ACCENT, fill=charts.ACCENT, size=90, opacity=1).encode(
            x=alt.X("gain:Q", title=words, axis=alt.Axis(tickCount=6)), y=y
        ),
    ]
    label = "Gains of the best blend with 95% intervals"
    svg = render_chart(alt.layer(*layers), label, height=36 * len(gains), width=210)
    return [Figure(title=title, svg=svg, caption=caption)]


def draw_levels(data: ReportData) -> list[Figure]:
    """The score of each level at the tested share, a chart a dial; whiskers are its gain's interval over real-only."""
    grid, best, share = gather_grid(data), data.advice.best, data.design.tested_share
    cells = grid.at(share)
    domain, figures = _level_domain(data, grid), []
    for dial, names in data.level_ranks.items():
        rows = [_score_row(cell) for cell in cells if cell.cell.dial == dial and cell.cell.level in names]
        if not rows:
            continue
        winner = ""
        if best is not None and best.cell.dial == dial and is_share(best.cell.share, share):
            winner = visible(best.cell.level or "")
        x = alt.X("level:N", sort=list(names), title=_name_axis(dial), axis=charts.LEVELS)
        y, scale = _score_axis(data, domain)
        layers = [
            *_baseline_rules(grid, share, domain, at=len(names)),
            *draw_points(rows, x, y, scale=scale, best=winner, size=80),
        ]
        title = f"{capitalise(data.score)} by level"
        svg = render_chart(alt.layer(*layers), f"{title} of {dial}", height=220)
        shape = next((s.verdict for s in data.advice.shapes if s.dial == dial), None)
        figures.append(Figure(title=f"{title}: {dial}", svg=svg, caption="" if shape is None else f"Shape: {shape}."))
    return figures


def _name_axis(dial: str) -> str:
    return "source: pools without an order" if dial == UNORDERED else f"{dial}: least → most diverse, as expected"


def draw_diversity(data: ReportData) -> list[Figure]:
    """The score against measured diversity, every level of every dial at the tested share."""
    grid, share, dials = gather_grid(data), data.design.tested_share, list(data.level_ranks)
    rows: list[Row] = []
    for cell in grid.at(share):
        e = _find_estimate(data, cell.cell.dial, cell.cell.level, "vendi_q1")
        if e is not None:
            own: Row = {"dial": cell.cell.dial, "diversity": e.value, "left": finite(e.low), "right": finite(e.high)}
            rows.append(_score_row(cell) | own)
    if not rows:
        return []
    domain = _level_domain(data, grid)
    words, apart = "measured diversity (Vendi score, q = 1)", alt.Scale(zero=False, nice=True)
    x, (y, scale) = alt.X("diversity:Q", title=words, scale=apart, axis=charts.NUMBERS), _score_axis(data, domain)
    colours = [charts.DIAL_COLOURS[i % len(charts.DIAL_COLOURS)] for i in range(len(dials))]
    legend = alt.Legend(title=None, orient="top", columnPadding=22, symbolOpacity=1)
    colour, shape = charts.by_name("dial", dials, colours, legend)
    base = chart_of(rows)
    layers = [
        *_baseline_rules(grid, share, domain, at=None),
        base.transform_filter("isValid(datum.left)")
        .mark_rule(strokeWidth=1.2, opacity=0.55)
        .encode(x=alt.X("left:Q", scale=alt.Scale(zero=False)), x2="right:Q", y=y, color=colour),
        *draw_points(rows, x, y, scale=scale, series=(colour, shape), size=75),
        base.mark_text(dx=7, dy=-7, align="left", fontSize=11, color=charts.INK).encode(x=x, y=y, text="level:N"),
    ]
    title = f"{capitalise(data.score)} by measured diversity"
    caption = (
        "The same cells, placed by what was measured instead of what was asked for. "
        "Solid line: the real rows alone; dashed: the real rows repeated."
    )
    return [Figure(title=title, svg=render_chart(alt.layer(*layers), title, height=250), caption=caption)]


def draw_amounts(data: ReportData) -> list[Figure]:
    """The score against the amount, logarithmic: a chart a dial, a line a level; real rows alone are a band."""
    grid, best, figures = gather_grid(data), data.advice.best, []
    if not grid.blends:
        return []
    real, counts = grid.real_only, 100 * data.design.counts_from
    ends = [row[end] for row in map(_score_row, grid.blends) for end in ("accuracy", "low", "high")]
    values = [v / 100 for v in ends if isinstance(v, float)] + ([] if real is None else [real])
    domain = _percent_domain([*values, *grid.duplicated.values()])
    amounts = sorted({_amount(c.share) for c in grid.blends})
    across = alt.Scale(type="log", domain=[amounts[0] / 1.25, amounts[-1] * 1.25], nice=False)
    ticks = [t for t in (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000) if amounts[0] / 1.25 <= t <= amounts[-1] * 1.25]
    axis = alt.Axis(values=ticks, labelExpr="format(datum.value, '~f') + 'x'", labelFlush=False, grid=False)
    x = alt.X("amount:Q", title="synthetic rows for each real one", scale=across, axis=axis)
    y, scale = _score_axis(data, domain)
    for dial, ranked in data.level_ranks.items():
        cells = [c for c in grid.blends if c.cell.dial == dial]
        names = [name for name in ranked if any(c.cell.level == name for c in cells)]
        if not cells:
            continue
        shift = {name: 1.03 ** (i - (len(names) - 1) / 2) for i, name in enumerate(names)}
        rows = [
            _score_row(c) | {"amount": _amount(c.share) * shift[c.cell.level or ""]}
            for c in sorted(cells, key=lambda c: (names.index(c.cell.level or ""), c.share))
        ]
        colour, shape = by_level(names)
        layers = []
        if real is not None:
            band = chart_of([{"from": 100 * real - counts, "to": 100 * real + counts, "real": 100 * real}])
            low = alt.Y("from:Q", scale=scale)
            layers += [
                band.mark_rect(color=charts.REAL, opacity=0.15).encode(y=low, y2="to:Q"),
                band.mark_rule(color=charts.REAL, strokeWidth=1.5).encode(y=alt.Y("real:Q", scale=scale)),
            ]
        repeated = chart_of([{"amount": _amount(s), "accuracy": 100 * a} for s, a in sorted(grid.duplicated.items())])
        layers.append(repeated.mark_line(color=charts.REAL, strokeDash=[5, 4], strokeWidth=1.5).encode(x=x, y=y))
        layers += draw_points(rows, x, y, scale=scale, series=(colour, shape), line=2)
        if best is not None and best.cell.dial == dial:
            layers += _mark_best(data, best, x, y, shift.get(best.cell.level or "", 1.0))
        title = f"{capitalise(data.score)} by amount"
        svg = render_chart(alt.layer(*layers), f"{title}, {dial}", height=230)
        figures.append(Figure(title=f"{title}: {dial}", svg=svg))
    return figures


def _mark_best(data: ReportData, best: CellSummary, x: alt.X, y: alt.Y, shift: float) -> list[alt.Chart]:
    """A ring around the advised point, with a line where no larger amount was tried."""
    words = "best" if data.advice.edge is None else "best, at the edge"
    point = chart_of([{"amount": _amount(best.share) * shift, "accuracy": 100 * best.accuracy, "words": words}])
    ring = point.mark_point(color=charts.ACCENT, size=260, strokeWidth=2.2, filled=False, opacity=1).encode(x=x, y=y)
    text = point.mark_text(color=charts.ACCENT, align="right", dx=-13, dy=-11).encode(x=x, y=y, text="words:N")
    edge = point.mark_rule(color=charts.ACCENT, strokeDash=[2, 3], strokeWidth=1).encode(x=x)
    return [ring, text] if data.advice.edge is None else [edge, ring, text]


def _amount(share: float) -> float:
    """Synthetic rows for each real one, of a realised share."""
    return share / max(1.0 - share, 1e-6)


def draw_measurements(data: ReportData) -> list[Figure]:
    """Diversity, shift and label agreement side by side for each dial, on the same axes for all dials."""
    found = {
        (dial, metric): {name: e for name in names if (e := _find_estimate(data, dial, name, metric)) is not None}
        for dial, names in data.level_ranks.items()
        for metric in _METRICS
    }
    figures = []
    for (dial, metric), estimates in found.items():
        if not estimates:
            continue
        title, unit = _METRICS[metric]
        every = [e for (_, other), of_dial in found.items() if other == metric for e in of_dial.values()]
        real = _find_real(data, metric, every)
        ends = [v for e in every for v in (e.value, e.low, e.high) if v is not None and math.isfinite(v)]
        domain = _plain_domain(ends if real is None else [*ends, real])
        rows: list[Row] = [
            {"level": name, "value": e.value, "low": finite(e.low), "high": finite(e.high)}
            for name, e in estimates.items()
        ]
        x = alt.X("level:N", sort=list(data.level_ranks[dial]), title=dial, axis=charts.LEVELS)
        scale = alt.Scale(domain=list(domain), zero=False, nice=False)
        y = alt.Y("value:Q", title=unit, scale=scale, axis=alt.Axis(tickCount=5))
        rule = [] if real is None else _draw_rule(real, "real data", above=False, at=len(data.level_ranks[dial]))
        chart = alt.layer(*rule, *draw_points(rows, x, y, scale=scale, line=1))
        svg = render_chart(chart, f"{unit} by level of {dial}", height=150)
        figures.append(Figure(title=f"{title}: {dial}", svg=svg))
    return figures


def draw_tau_ranges(data: ReportData) -> list[Figure]:
    """DCScore against tau, a chart a dial, a line a level."""
    figures = []
    for dial, ranked in data.level_ranks.items():
        curves = {name: _find_tau_curve(data, dial, name) for name in ranked}
        if svg := charts.draw_profiles(curves, over_tau=True, ordered=True):
            figures.append(Figure(title=f"DCScore over tau: {dial}", svg=svg))
    return figures


# --- what charts are made of ---
def _percent(gain: Gain) -> Row:
    return {"gain": 100 * gain.value, "low": finite(100 * gain.low), "high": finite(100 * gain.high)}


def _score_row(summary: CellSummary) -> Row:
    """Level, score and the interval of the gain over real-only laid around it, in percent."""
    gain = find_gain(summary.gains, "real-only")
    low = None if gain is None else 100 * (summary.accuracy + gain.low - gain.value)
    high = None if gain is None else 100 * (summary.accuracy + gain.high - gain.value)
    return {"level": summary.cell.level, "accuracy": 100 * summary.accuracy, "low": low, "high": high}


def _score_axis(data: ReportData, domain: Domain) -> tuple[alt.Y, alt.Scale]:
    title = "accuracy, %" if data.score == "accuracy" else f"{data.score} x 100"
    scale = alt.Scale(domain=list(domain), zero=False)
    return alt.Y("accuracy:Q", title=title, scale=scale), scale


def _level_domain(data: ReportData, grid: Grid) -> Domain:
    """The axis of all levels at the tested share, their whiskers and their baselines."""
    share, dials = data.design.tested_share, data.level_ranks
    rows = [_score_row(c) for c in grid.at(share) if c.cell.dial in dials]
    ends = [v / 100 for row in rows for v in (row["accuracy"], row["low"], row["high"]) if isinstance(v, float)]
    return _percent_domain([*ends, *(v for v in (grid.real_only, grid.repeated(share)) if v is not None)])


def _percent_domain(values: Iterable[float]) -> Domain:
    """An axis in percent that holds fractions ``values`` with some air."""
    low, high = 100 * min(values, default=0.0), 100 * max(values, default=1.0)
    air = max(0.08 * (high - low), 0.5)
    return math.floor(low - air), math.ceil(high + air)


def _plain_domain(values: Sequence[float]) -> Domain:
    """An axis that holds ``values`` with some air, and does not cross zero when they do not."""
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return (max(low - air, 0.0) if low >= 0 else low - air), high + air


def _band(delta: float) -> alt.Chart:
    """What is too small to count, ``delta`` as a fraction, from ``low`` to ``high``."""
    band: alt.Chart = chart_of([{"low": -100 * delta, "high": 100 * delta}]).mark_rect(color=charts.GRID, opacity=0.55)
    return band


def _baseline_rules(grid: Grid, share: float, domain: Domain, *, at: int | None) -> list[alt.Chart]:
    real, repeated, layers = grid.real_only, grid.repeated(share), []
    higher = real is not None and repeated is not None and real > repeated
    if repeated is not None and domain[0] <= 100 * repeated <= domain[1]:
        layers += _draw_rule(100 * repeated, "real, repeated", above=not higher, at=at, dash=(5, 4))
    if real is not None and domain[0] <= 100 * real <= domain[1]:
        layers += _draw_rule(100 * real, "real only", above=higher or repeated is None, at=at)
    return layers


def _draw_rule(
    value: float, label: str, *, above: bool, at: int | None, dash: tuple[int, int] = (1, 0)
) -> list[alt.Chart]:
    """A baseline across the chart, named above or below it between the last two of ``at`` levels, clear of whiskers."""
    base = chart_of([{"value": value, "label": label}])
    rule = base.mark_rule(color=charts.REAL, strokeWidth=1.5, strokeDash=list(dash)).encode(y="value:Q")
    if at is None:
        return [rule]
    text = base.mark_text(color=charts.REAL, align="center", baseline="middle", fontSize=10, dy=-9 if above else 10)
    return [rule, text.encode(x=alt.value((charts.WIDTH - 70) * (1 - 1 / max(at, 2))), y="value:Q", text="label:N")]


def _find_real(data: ReportData, metric: str, others: Sequence[Estimate]) -> float | None:
    """The real data's diversity, where it was measured at the rows of all the others."""
    real = data.measurements.get("real")
    if real is None or metric != "vendi_q1" or metric not in real.values:
        return None
    return real.values[metric].value if {real.values[metric].n} == {e.n for e in others} else None


def _find_estimate(data: ReportData, dial: str | None, level: str | None, metric: str) -> Estimate | None:
    measurement = data.measurements.get(f"{dial}={level}")
    estimate = None if measurement is None else measurement.values.get(metric)
    return estimate if estimate is not None and math.isfinite(estimate.value) else None


def _find_tau_curve(data: ReportData, dial: str, level: str) -> list[tuple[float, Estimate]]:
    measurement = data.measurements.get(f"{dial}={level}")
    values = {} if measurement is None else measurement.values
    return [
        (float(e.settings["tau"]), e) for key, e in values.items() if key.startswith("dcscore") and "tau" in e.settings
    ]
