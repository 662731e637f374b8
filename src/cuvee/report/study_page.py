"""The page of a study: which charts and tables it shows, with their titles and captions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import altair as alt

from cuvee.characters import visible
from cuvee.records import Advice, CellSummary, Estimate, Gain, Level, Measurement
from cuvee.report import charts, tables
from cuvee.report.charts import Domain, Figure, Row, by_name, chart_of, draw_points, finite, name_colours, render_chart
from cuvee.report.maps import draw_map
from cuvee.report.tables import Design, ReportData


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The cells of the grid trainer at the rows that the choice was made with, by what they are drawn as."""

    blends: tuple[CellSummary, ...]
    real_only: float | None
    duplicated: Mapping[float, float]


def render_report(data: ReportData) -> str:
    """One self-contained HTML page; all text of the study is escaped, nothing is fetched.

    Args:
        data: what the page shows.

    Raises:
        ValueError: a chart cannot be drawn from the numbers given.
    """
    return charts.render_page("study.html.j2", data, vars(tables) | globals())


def render_progress(data: ReportData, state: str, rows: Sequence[tuple[str, str]]) -> str:
    """The page of a study whose report is not written yet; a browser reads it again every few seconds.

    Args:
        data: the scores so far.
        state: how the study stands, in words.
        rows: names and numbers of its progress.
    """
    parts = {"state": state, "rows": rows, "draw_amounts": draw_amounts, "capitalise": tables.capitalise}
    return charts.render_page("progress.html.j2", data, parts)


def draw_figures(data: ReportData) -> list[Figure]:
    """Every chart of the page."""
    drawn = (draw_verdict, draw_amounts, draw_surface, draw_diversity, draw_shift, draw_study_map)
    return [figure for draw in drawn for figure in draw(data)]


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
    cost += [(f"time, {stage}", tables.write_seconds(seconds)) for stage, seconds in data.record.seconds.items()]
    if data.record.seconds:
        cost.append(("time, all these stages", tables.write_seconds(sum(data.record.seconds.values()))))
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
    own_first = sorted(data.compared, key=lambda c: c.cell.loss == "ce")
    return Grid(
        blends=tables.list_rivals(c for c in data.compared if c.cell.kind == "blend"),
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
    small = tables.write_size(data.design.counts_from)
    caption = f"95% intervals. Within the band, a gain of at most {small} is too small to count."
    axis = alt.Axis(labelLimit=220, minExtent=165, ticks=False, domain=False, grid=False)
    y = alt.Y("name:N", sort=[name for name, _ in gains], title=None, axis=axis)
    words = f"gain in {data.score}, points"
    rows: list[Row] = [
        {
            "name": name, "gain": 100 * g.value, "low": finite(100 * g.low), "high": finite(100 * g.high),
            "tip": f"{name}: {_tell_gain(g)}",
        }
        for name, g in gains
    ]  # fmt: skip
    base, counts = chart_of(rows), 100 * data.design.counts_from
    layers = [
        chart_of([{"low": -counts, "high": counts}])
        .mark_rect(color=charts.GRID, opacity=0.55)
        .encode(x=alt.X("low:Q", title=words), x2="high:Q"),
        chart_of([{"x": 0.0}]).mark_rule(color=charts.INK, strokeWidth=1).encode(x="x:Q"),
        base.mark_rule(color=charts.ACCENT, strokeWidth=2.5).encode(x=alt.X("low:Q"), x2="high:Q", y=y),
        base.mark_point(color=charts.ACCENT, fill=charts.ACCENT, size=90, opacity=1).encode(
            x=alt.X("gain:Q", title=words, axis=alt.Axis(tickCount=6)), y=y, description="key:N"
        ),
    ]
    label, height = "Gains of the best blend with 95% intervals", 36 * len(gains)
    title = "Gain of the best blend over"
    return [render_chart(alt.layer(*layers), title, rows, label=label, caption=caption, height=height, width=210)]


def draw_amounts(data: ReportData) -> list[Figure]:
    """The score against the amount, logarithmic: a chart a dial, a line a level; real rows alone are a band."""
    grid, best, figures = gather_grid(data), data.advice.best, []
    if not grid.blends:
        return []
    real, counts = grid.real_only, 100 * data.design.counts_from
    ends = [row[end] for row in (_score_row(data, c) for c in grid.blends) for end in ("score", "low", "high")]
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
            _score_row(data, c) | {"amount": _amount(c.share) * shift[c.cell.level or ""]}
            for c in sorted(cells, key=lambda c: (names.index(c.cell.level or ""), c.share))
        ]
        series, layers = by_name("level", name_colours(names, ordered=True)), []
        if real is not None:
            band = chart_of([{"from": 100 * real - counts, "to": 100 * real + counts, "real": 100 * real}])
            low = alt.Y("from:Q", scale=scale)
            layers += [
                band.mark_rect(color=charts.REAL, opacity=0.15).encode(y=low, y2="to:Q"),
                band.mark_rule(color=charts.REAL, strokeWidth=1.5).encode(y=alt.Y("real:Q", scale=scale)),
            ]
        repeated = chart_of([{"amount": _amount(s), "score": 100 * a} for s, a in sorted(grid.duplicated.items())])
        layers.append(repeated.mark_line(color=charts.REAL, strokeDash=[5, 4], strokeWidth=1.5).encode(x=x, y=y))
        layers += draw_points(rows, x, y, series, scale=scale, line=2)
        if best is not None and best.cell.dial == dial:
            layers += _mark_best(data, best, x, y, shift.get(best.cell.level or "", 1.0))
        title = f"{tables.capitalise(data.score)} by amount: {dial}"
        figures.append(render_chart(alt.layer(*layers), title, rows, height=230, keys=series.keys))
    return figures


def _mark_best(data: ReportData, best: CellSummary, x: alt.X, y: alt.Y, shift: float) -> list[alt.Chart]:
    """A ring around the advised point, with a line where no larger amount was tried."""
    words = "best" if data.advice.edge is None else "best, at the edge"
    point = chart_of([{"amount": _amount(best.share) * shift, "score": 100 * best.accuracy, "words": words}])
    ring = point.mark_point(color=charts.ACCENT, size=260, strokeWidth=2.2, filled=False, opacity=1).encode(x=x, y=y)
    text = point.mark_text(color=charts.ACCENT, align="right", dx=-13, dy=-11).encode(x=x, y=y, text="words:N")
    edge = point.mark_rule(color=charts.ACCENT, strokeDash=[2, 3], strokeWidth=1).encode(x=x)
    return [ring, text] if data.advice.edge is None else [edge, ring, text]


def _amount(share: float) -> float:
    """Synthetic rows for each real one, of a realised share."""
    return share / max(1.0 - share, 1e-6)


def draw_surface(data: ReportData) -> list[Figure]:
    """The score of every blend by its amount and the measured diversity of its pool, above both baselines.

    Rows of squares stand by diversity, the least below; what was not measured comes last.
    """
    grid, counts, rows = gather_grid(data), 100 * data.design.counts_from, list[Row]()
    if not grid.blends:
        return []
    for c in grid.blends:
        e = _find_estimate(data.measurements, f"{c.cell.dial}={c.cell.level}")
        pool = f"{c.cell.dial}={c.cell.level}" + ("" if e is None else f" ({tables.write_number(e.value)})")
        row = _score_row(data, c) | {"pool": pool, "diversity": None if e is None else e.value}
        rows.append(row | {"amount": "all" if c.cell.whole else _write_amount(c.cell.amount), "at": c.cell.amount})
    partial, real = {row["amount"] for row in rows}, grid.real_only
    pools = sorted({str(row["pool"]): -float(row["diversity"] or -1) for row in rows}.items(), key=lambda e: e[1])
    names = [*dict(pools), _REPEATED, _ALONE]
    bare = {} if real is None else {(_ALONE, "0x"): (0.0, real)}
    for share, score in sorted(grid.duplicated.items()):
        amount = _write_amount(_amount(share))
        bare[_REPEATED, amount if amount in partial else "all"] = _amount(share), score
    for (pool, amount), (at, score) in bare.items():
        to = "" if pool == _ALONE else f" to as many as at {amount}"
        row = {"pool": pool, "amount": amount, "at": at, "score": 100 * score, "standing": ""}
        gain = None if real is None else 100 * (score - real)
        rows.append(row | {"gain": gain, "tip": f"the {pool}{to}: {_tell_score(data, score)}"})
    columns = sorted(
        {str(row["amount"]): float(row["at"] or 0) for row in rows}.items(), key=lambda e: (e[0] == "all", e[1])
    )
    far = tables.write_size(3 * data.design.counts_from)
    bands = {f"loses over {far}": charts.LOSS, "loses": charts.SLIGHT_LOSS, "too small to count": charts.GRID}
    bands |= {"gains": charts.SLIGHT_GAIN, f"gains over {far}": charts.GAIN}
    for row in rows:
        edges = (-3 * counts, -counts, counts, 3 * counts)
        row["band"] = list(bands)[sum(float(row["gain"] or 0.0) > edge for edge in edges)]
        row["text"] = f"{row['score']:.1f}"
    series = by_name("band", bands, ("square",))
    x = alt.X("amount:N", sort=[name for name, _ in columns], title="synthetic rows for each real one", axis=_ACROSS)
    axis = alt.Axis(labelLimit=175, ticks=False, domain=False, grid=False)
    y = alt.Y("pool:N", sort=names, title=None, axis=axis)
    base = chart_of(rows)
    light = alt.FieldOneOfPredicate(
        field="band", oneOf=[b for b, c in bands.items() if c in (charts.LOSS, charts.GAIN)]
    )
    ink = alt.when(light).then(alt.value(charts.WHITE)).otherwise(alt.value(charts.INK))
    marks = [
        base.transform_filter(f"datum.standing == '{standing}'").mark_rect(
            filled=False, stroke=charts.ACCENT, strokeWidth=width, strokeDash=dash
        ).encode(x=x, y=y)
        for standing, width, dash in (("not distinguishable", 1.6, [3, 3]), ("best", 3, [1, 0]))
    ]  # fmt: skip
    layers = [
        base.mark_rect(cornerRadius=3).encode(x=x, y=y, color=series.colour, description="key:N"),
        *marks,
        base.mark_text(fontSize=11).encode(x=x, y=y, text="text:N", color=ink),
    ]
    title = f"{tables.capitalise(data.score)} by amount and measured diversity"
    caption = (
        "Each row is a pool, with its measured diversity (Vendi score, q = 1) in brackets, the most diverse above; "
        "colours are gains over the real rows alone, in points. Solid frame: the best blend; dashed: not distinguished "
        "from it."
    )
    layer, high, wide = alt.layer(*layers), 26.0 * len(names), 46.0 * len(columns)
    return [render_chart(layer, title, rows, caption=caption, keys=series.keys, height=high, width=wide)]


def _write_amount(amount: float) -> str:
    return f"{amount:.3g}x"


def draw_diversity(data: ReportData) -> list[Figure]:
    """The score against measured diversity, every level of every dial at the tested share."""
    grid, share = gather_grid(data), data.design.tested_share
    rows: list[Row] = []
    for cell in grid.blends:
        e = _find_estimate(data.measurements, f"{cell.cell.dial}={cell.cell.level}")
        if e is not None and tables.is_share(cell.cell.share, share):
            own: Row = {"dial": cell.cell.dial, "diversity": e.value, "left": finite(e.low), "right": finite(e.high)}
            rows.append(_score_row(data, cell) | own)
    if not rows:
        return []
    real = grid.real_only
    repeated = next((score for s, score in grid.duplicated.items() if tables.is_share(s, share)), None)
    ends = [v / 100 for row in rows for v in (row["score"], row["low"], row["high"]) if isinstance(v, float)]
    y, scale = _score_axis(data, _percent_domain([*ends, *(v for v in (real, repeated) if v is not None)]))
    x = alt.X("diversity:Q", title=_DIVERSITY, scale=alt.Scale(zero=False, nice=True), axis=charts.NUMBERS)
    rules = [
        chart_of([{"value": 100 * value}])
        .mark_rule(color=charts.REAL, strokeWidth=1.5, strokeDash=dash)
        .encode(y=alt.Y("value:Q", scale=scale))
        for value, dash in ((real, [1, 0]), (repeated, [5, 4]))
        if value is not None
    ]
    caption = f"Cells at share {share:g}, by what was measured. Solid line: the real rows alone; dashed: repeated."
    title = f"{tables.capitalise(data.score)} by measured diversity"
    return [_draw_pools(data.level_ranks, rows, x, y, title, caption, scale=scale, below=rules)]


def draw_shift(data: ReportData) -> list[Figure]:
    """Diversity against the shift from the real rows, every pool of every dial; the real rows' diversity is a line."""
    return _draw_shift(data.levels, data.measurements, data.level_ranks)


def _draw_shift(levels: Sequence[Level], measurements: Mapping[str, Measurement], dials: Iterable[str]) -> list[Figure]:
    rows: list[Row] = []
    for level in levels:
        metrics = (DIVERSITY, "mmd", "label_agreement")
        diversity, shift, agreement = (_find_estimate(measurements, level.key, metric) for metric in metrics)
        if diversity is None or shift is None:
            continue
        tip = f"{level.key.removeprefix('=')}: diversity {_tell(diversity)}, shift {_tell(shift)}"
        tip += "" if agreement is None else f", label agreement {_tell(agreement)}"
        ends = {"left": finite(diversity.low), "right": finite(diversity.high)}
        ends |= {"low": finite(shift.low), "high": finite(shift.high)}
        row: Row = {"dial": level.dial, "level": level.name, "diversity": diversity.value, "shift": shift.value}
        rows.append(row | ends | {"agreement": None if agreement is None else agreement.value, "tip": tip})
    if not rows:
        return []
    x = alt.X("diversity:Q", title=_DIVERSITY, scale=alt.Scale(zero=False, nice=True), axis=charts.NUMBERS)
    scale = alt.Scale(zero=False, nice=True)
    y = alt.Y("shift:Q", title="shift from the real rows (squared MMD)", scale=scale, axis=alt.Axis(tickCount=5))
    every = {key: m.values[DIVERSITY] for key, m in measurements.items() if DIVERSITY in m.values}
    real = every.get("real") if len({e.n for e in every.values()}) == 1 else None
    at = [] if real is None or not math.isfinite(real.value) else [chart_of([{"real": real.value}])]
    rules = [line.mark_rule(color=charts.REAL, strokeWidth=1.5).encode(x="real:Q") for line in at]
    caption = "To the right: more diverse; up: further from the real rows."
    caption += " The line is the diversity of as many real rows." if rules else ""
    return [_draw_pools(dials, rows, x, y, "Diversity and shift of every pool", caption, scale=scale, below=rules)]


def _draw_pools(
    dials: Iterable[str], rows: list[Row], x: alt.X, y: alt.Y, title: str, caption: str, *, scale: alt.Scale,
    below: list[alt.Chart],
) -> Figure:  # fmt: skip
    """Pools as named points in the colour of their dial, with whiskers both ways."""
    series, base = by_name("dial", name_colours(dials)), chart_of(rows)
    layers = [
        *below,
        base.transform_filter("isValid(datum.left)")
        .mark_rule(strokeWidth=1.2, opacity=0.55)
        .encode(x=alt.X("left:Q", scale=alt.Scale(zero=False)), x2="right:Q", y=y, color=series.colour),
        *draw_points(rows, x, y, series, scale=scale, size=75),
        base.mark_text(dx=7, dy=-7, align="left", fontSize=11, color=charts.INK).encode(x=x, y=y, text="level:N"),
    ]
    return render_chart(alt.layer(*layers), title, rows, caption=caption, keys=series.keys, height=250)


def draw_study_map(data: ReportData) -> list[Figure]:
    """Rows of all pools and real rows on their two widest directions, by level, or by dial where levels are many."""
    if data.map is None:
        return []
    dials = {level.key: level.dial for level in data.levels if level.key in data.map.group}
    is_few = len(dials) <= len(charts.GROUP_COLOURS)
    names = [name if is_few else dials.get(name, name) for name in data.map.group]
    colours = name_colours(dials if is_few else dict.fromkeys(dials.values()), ordered=len(data.level_ranks) == 1)
    what = "level" if is_few else "dial"
    return draw_map(data.map, names, {"real": charts.INK} | colours, "Real and synthetic rows", what)


# --- what charts are made of ---
DIVERSITY = "vendi_q1"
_DIVERSITY = "measured diversity (Vendi score, q = 1)"
_REPEATED, _ALONE = "real rows repeated", "real rows alone"
_ACROSS = alt.Axis(labelAngle=0, ticks=False, domain=False, grid=False)


def _tell(estimate: Estimate) -> str:
    shown = tables.write_value(estimate)
    return f"{shown.text} ({shown.small})" if shown.small else shown.text


def _tell_gain(gain: Gain) -> str:
    shown = tables.write_gain(gain)
    return f"{shown.text} points ({shown.small})"


def _tell_score(data: ReportData, score: float) -> str:
    return f"{data.score} {100 * score:.1f}{'%' if data.score == 'accuracy' else ''}"


def _score_row(data: ReportData, summary: CellSummary) -> Row:
    """Level, score, gain over real-only with its interval laid around the score, in percent, and all that in words."""
    cell, gain, standing = (
        summary.cell,
        tables.find_gain(summary.gains, "real-only"),
        tables.tell_standing(data, summary),
    )
    low = None if gain is None else 100 * (summary.accuracy + gain.low - gain.value)
    high = None if gain is None else 100 * (summary.accuracy + gain.high - gain.value)
    words = [f"{cell.dial}={cell.level}, {_write_amount(_amount(summary.share))}", _tell_score(data, summary.accuracy)]
    words += [] if gain is None else [f"{_tell_gain(gain)} over the real rows alone"]
    estimate = _find_estimate(data.measurements, f"{cell.dial}={cell.level}")
    words += [] if estimate is None else [f"diversity {tables.write_number(estimate.value)}"]
    row: Row = {"level": cell.level, "score": 100 * summary.accuracy, "low": low, "high": high, "standing": standing}
    tip = ", ".join([*words, *filter(None, [standing])])
    return row | {"gain": None if gain is None else 100 * gain.value, "draws": summary.draws, "tip": tip}


def _score_axis(data: ReportData, domain: Domain) -> tuple[alt.Y, alt.Scale]:
    title = "accuracy, %" if data.score == "accuracy" else f"{data.score} x 100"
    scale = alt.Scale(domain=list(domain), zero=False)
    return alt.Y("score:Q", title=title, scale=scale), scale


def _percent_domain(values: Iterable[float]) -> Domain:
    """An axis in percent that holds fractions ``values`` with some air."""
    low, high = 100 * min(values, default=0.0), 100 * max(values, default=1.0)
    air = max(0.08 * (high - low), 0.5)
    return math.floor(low - air), math.ceil(high + air)


def _find_estimate(measurements: Mapping[str, Measurement], key: str, metric: str = DIVERSITY) -> Estimate | None:
    """A finite number of a pool; None where it was not measured."""
    estimate = None if key not in measurements else measurements[key].values.get(metric)
    return estimate if estimate is not None and math.isfinite(estimate.value) else None


# --- charts for a notebook ---
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


def plot_measurements(measurements: Mapping[str, Measurement]) -> alt.VConcatChart:
    """Diversity (Vendi, q = 1) against shift (squared MMD): a point for each corpus that has both, with its intervals.

    Args:
        measurements: name of a corpus, a pool or a level -> what was measured, such as ``StudyResult.measurements``.

    Raises:
        ValueError: no corpus has both.
    """
    levels = [Level(dial="", name=visible(name), rank=rank) for rank, name in enumerate(measurements)]
    keyed = {level.key: measured for level, measured in zip(levels, measurements.values(), strict=True)}
    if not (figures := _draw_shift(levels, keyed, [""])):
        raise ValueError(f"no corpus has both {DIVERSITY!r} and 'mmd'; measure them against real rows")
    return charts.join_figures(figures)
