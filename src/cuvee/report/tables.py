"""What a report is made of, and its numbers as rows of text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from cuvee import records
from cuvee.records.generation import GenerationAccount
from cuvee.records.measurement import write_seconds as write_seconds

MINUS = "−"
_OVER = {"real-only": "points over the real rows alone", "real-duplicated": "points over repeating them"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What the choice was made with.

    Attributes:
        trainer: whose cells are compared.
        tested_share: at which levels are compared.
        counts_from: the smallest gain that counts, as a fraction.
        folds: of a cross-fitted study, whose numbers are of all folds; 0 where there is one split.
    """

    trainer: str = "probe"
    tested_share: float = 0.75
    counts_from: float = 0.01
    folds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """What is told of the pool of a level.

    Attributes:
        samples: some of its rows: label, text (of pairs with context and answer), and ``most redundant``, ``most
            novel`` or nothing.
        rejected: reason -> rejected answers, or rows that a filter took.
        kept: rows of the pool.
        read: rows of the file that it is of; None where its rows were written for it.
        note: a remark, or nothing.
    """

    samples: Sequence[tuple[str, str, str]] = ()
    rejected: Mapping[str, int] = field(default_factory=dict)
    kept: int = 0
    read: int | None = None
    note: str = ""

    def list_steps(self) -> list[tuple[str, int]]:
        """What came in, what each filter took, and what is left: the first less the others is the last."""
        lost = sum(self.rejected.values())
        came = ("answers", self.kept + lost) if self.read is None else ("rows read", self.read)
        others = came[1] - lost - self.kept
        rest = [("not chosen for this level", others)] if others else []
        return [came, *Counter(self.rejected).most_common(), *rest, ("rows left", self.kept)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """How the study was run.

    Attributes:
        settings: what was chosen, in words: data, model, seeds.
        seconds: of each stage, of all runs, as they were when the page was written.
        access_log: who read the locked test, and what the leak guard removed.
        study_yaml: the resolved study, to run it again.
    """

    settings: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    access_log: Sequence[str] = ()
    study_yaml: str = ""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything the page shows; only ``title``, ``advice`` and ``levels`` are needed.

    Attributes:
        title: name of the study.
        advice: the verdict.
        levels: of all dials.
        measurements: ``dial=name`` of a level, or ``real`` for the real training data -> what was measured.
        pools: ``dial=name`` of a level -> what is told of its pool.
        design: what the choice was made with.
        failures: every trial that failed.
        failed: how many trials failed, of how many, and why most often; None where none did.
        generation: what generating took in the run folder, over all runs and folds; None where pools were ready-made.
        composition: of the recommended blend, as realised.
        written: cell -> diversity of what its models wrote, and of the real completions (``.real``), as means over its
            trials.
        outputs: names of columns, and rows: prompts, real answers, and what models wrote.
        map: of rows of all pools and real training rows.
        record: how the study was run.
        version: of Cuvée.
    """

    title: str
    advice: records.Advice
    levels: Sequence[records.Level]
    measurements: Mapping[str, records.Measurement] = field(default_factory=dict)
    pools: Mapping[str, PoolFacts] = field(default_factory=dict)
    design: Design = field(default_factory=Design)
    failures: Sequence[records.TrialFailure] = ()
    failed: records.FailedTrials | None = None
    generation: GenerationAccount | None = None
    composition: records.Composition | None = None
    written: Mapping[records.Cell, Mapping[str, float]] = field(default_factory=dict)
    outputs: tuple[Sequence[str], Sequence[Sequence[str]]] = ((), ())
    map: records.DatasetMap | None = None
    record: RunRecord = field(default_factory=RunRecord)
    version: str = ""

    @property
    def score(self) -> str:
        """What cells are compared by, in words."""
        return records.name_score(self.advice.score)

    @property
    def rows_unit(self) -> str:
        """What the number of real rows of a cell counts: tasks other than classification have no labels."""
        return "real rows a label" if self.advice.score == "accuracy" else "real rows"

    @property
    def folds(self) -> int:
        """In how many folds rows were held out; 0 where there is one split with a locked test."""
        return self.design.folds or (0 if self.advice.confirmation is None else self.advice.confirmation.folds)

    @property
    def level_ranks(self) -> dict[str, list[str]]:
        """Dial -> its level names from least to most diverse as expected, dials as they first come."""
        ranks: dict[str, list[str]] = {}
        for level in sorted(self.levels, key=lambda level: level.rank):
            ranks.setdefault(level.dial, []).append(level.name)
        dials = dict.fromkeys(level.dial for level in self.levels)
        return {dial: ranks[dial] for dial in dials}

    @cached_property
    def compared(self) -> tuple[records.CellSummary, ...]:
        """The cells of the trainer, loss and number of real rows that the choice was made with; of ``ce`` baselines."""
        own = [c for c in self.advice.cells if c.cell.trainer == self.design.trainer]
        best = None if self.advice.best is None else self.advice.best.cell
        rows = best.rows_per_label if best is not None else max((c.cell.rows_per_label for c in own), default=0)
        own = [c for c in own if c.cell.rows_per_label == rows]
        loss = best.loss if best is not None else next((c.cell.loss for c in own), "ce")
        return tuple(
            c
            for c in own
            if c.cell.loss == loss or (c.cell.loss == "ce" and c.cell.kind in ("real-only", "real-duplicated"))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number as shown, with what stands small beside it."""

    text: str
    small: str = ""
    sign: str = ""
    """``up`` or ``down`` where an interval excludes 0"""


def list_rivals(blends: Iterable[records.CellSummary]) -> tuple[records.CellSummary, ...]:
    """The blends that compete; of those that are judged in both scopes the one of *this pool*."""
    found = tuple(blends)
    of_pool = {replace(c.cell, scope="the recipe") for c in found if c.cell.scope == "this pool"}
    return tuple(c for c in found if c.cell not in of_pool)


def capitalise(name: str) -> str:
    """With a large first letter, unless it is a name with capitals of its own, such as nDCG@10."""
    return name[:1].upper() + name[1:] if name[1:2].islower() else name


def write_number(value: float) -> str:
    """About three digits: ``0.0412``, ``3.14``, ``31.4``, ``1,234``."""
    size = abs(value)
    if not math.isfinite(value):
        return "none"
    if size == 0:
        return "0"
    if size < 0.0005:
        return f"{value:.1e}".replace("-", MINUS, 1) if value < 0 else f"{value:.1e}"
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}".replace("-", MINUS)


def write_points(value: float) -> str:
    """A fraction as signed points with one digit."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def write_size(value: float) -> str:
    """A size in points with its unit: ``1 point``, ``0.5 points``."""
    return f"{100 * value:.3g} point" + ("" if round(100 * value, 9) == 1 else "s")


def write_gain(gain: records.Gain) -> Number:
    """``+3.1`` and, small, its interval."""
    sign = "up" if gain.low > 0 else "down" if gain.high < 0 else ""
    return Number(
        text=write_points(gain.value), small=f"{write_points(gain.low)} to {write_points(gain.high)}", sign=sign
    )


def write_uncertainty(estimate: records.Estimate, *, percent: bool = False) -> str:
    """``low to high``, ``p = 0.03``, or both with a comma."""
    parts, ends = [], (estimate.low, estimate.high)
    if all(end is not None and math.isfinite(end) for end in ends):
        parts.append(" to ".join(_write(end or 0.0, percent) for end in ends))
    if estimate.p_value is not None and math.isfinite(estimate.p_value):
        parts.append(f"p {_relate(estimate.p_value)}")
    return ", ".join(parts)


def write_value(estimate: records.Estimate, *, percent: bool = False) -> Number:
    """A number with its interval or p-value beside it, of a mean over folds their range too."""
    small = [write_uncertainty(estimate, percent=percent)]
    if "over_folds" in estimate.settings:
        small.append("folds " + " to ".join(write_number(float(estimate.settings[e])) for e in ("lowest", "highest")))
    return Number(text=_write(estimate.value, percent), small="; ".join(filter(None, small)))


def _write(value: float, percent: bool) -> str:
    return write_percent(value).replace("-", MINUS) if percent and math.isfinite(value) else write_number(value)


def write_p(value: float) -> str:
    """A p-value with two digits that say something."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def write_percent(value: float) -> str:
    """A fraction as percent with one digit."""
    return f"{100 * value:.1f}%"


def show_gain(gains: Sequence[records.Gain], over: str) -> Number | None:
    """The gain over one baseline as shown; None where it was not trained."""
    gain = find_gain(gains, over)
    return None if gain is None else write_gain(gain)


def is_share(share: float, other: float) -> bool:
    """Whether two shares are one."""
    return math.isclose(share, other, abs_tol=1e-9)


def find_gain(gains: Sequence[records.Gain], over: str) -> records.Gain | None:
    """The gain over one baseline."""
    return next((g for g in gains if g.over == over), None)


def list_tiles(data: ReportData) -> list[tuple[str, Number]]:
    """The key figures of the verdict: what each is, and its number."""
    best, confirmation, parts = data.advice.best, data.advice.confirmation, data.composition
    if best is None:
        return []
    confirmed = confirmation is not None and confirmation.cell == best.cell
    gains = confirmation.gains if confirmation is not None and confirmed else best.gains
    tiles = [(name, write_gain(g)) for over, name in _OVER.items() if (g := find_gain(gains, over)) is not None]
    rows = f"{parts.real_rows:,} real + {parts.synthetic_rows:,} synthetic" if parts and parts.synthetic_rows else ""
    tiles.append(("of the rows synthetic", Number(text=f"{100 * best.share:.0f}%", small=rows)))
    measurement = data.measurements.get(f"{best.cell.dial}={best.cell.level}")
    if measurement is not None and "vendi_q1" in measurement.values:
        tiles.append(("measured diversity (Vendi)", write_value(measurement.values["vendi_q1"])))
    if gains:
        held_out = "held-out" if confirmation is not None and confirmation.folds else "locked test"
        kind = f"{'groups of ' if gains[0].grouped else ''}{held_out if confirmed else 'validation'} items"
        items = f"{gains[0].items:,} {kind}"
        evidence = Number(
            text=f"{100 * max(g.mde for g in gains):.1f}",
            small=f"{gains[0].draws} draw{'s' if gains[0].draws != 1 else ''} × {items}",
        )
        tiles.append(("points is the smallest gain this design detects", evidence))
    return tiles


def list_cells(data: ReportData) -> list[tuple[records.CellSummary, str]]:
    """Every cell, those of the grid trainer first, and how it stands: the best, not distinguishable from it, lower."""
    cells = sorted(data.advice.cells, key=lambda s: (s.cell.trainer != data.design.trainer, s not in data.compared))
    return [(summary, tell_standing(data, summary)) for summary in cells]


def list_leaders(data: ReportData) -> list[tuple[records.CellSummary, str]]:
    """The blends at the tested share, the best wherever it is, and their baselines, by accuracy."""
    best, share = data.advice.best, data.design.tested_share
    found = [
        s
        for s in data.compared
        if s.cell.kind in ("real-only", "untuned")
        or (best is not None and s.cell == best.cell)
        or (s.cell.kind in ("blend", "real-duplicated") and is_share(s.cell.share, share))
    ]
    return [(summary, tell_standing(data, summary)) for summary in sorted(found, key=lambda s: -s.accuracy)]


def tell_standing(data: ReportData, summary: records.CellSummary) -> str:
    """How a cell stands against the best, in a word or two."""
    advice, cell = data.advice, summary.cell
    if advice.best is not None and cell == advice.best.cell:
        return "best"
    if any(cell == other.cell for other in advice.not_distinguished):
        return "not distinguishable"
    return "lower" if advice.best is not None and cell.kind == "blend" and summary in data.compared else ""


def list_metric_tables(data: ReportData) -> list[tuple[str, dict[str, records.Measurement], list[str]]]:
    """One table a dial: what was measured of each level, the real data last where it was, and all metrics' names."""
    tables = []
    for dial, names in data.level_ranks.items():
        found = {name: data.measurements[f"{dial}={name}"] for name in names if f"{dial}={name}" in data.measurements}
        if found:
            real = {"real data": data.measurements["real"]} if "real" in data.measurements else {}
            found |= real
            tables.append((dial, found, list(dict.fromkeys(name for m in found.values() for name in m.values))))
    return tables


def list_protocol(data: ReportData) -> list[tuple[bool, str]]:
    """What makes the result count: whether each part of the protocol holds, and that in a sentence."""
    advice, found = data.advice, list[tuple[bool, str]]()
    if (done := advice.confirmation) is None:
        found.append((False, "The best blend was not confirmed on the locked test; the best of many looks too good."))
    else:
        held = f"what {done.folds} folds held out" if done.folds else "the locked test"
        looks = len(done.looks)
        level = f", which was read {looks} times, at a level corrected for that" if looks > 1 else ""
        found.append((True, f"The best blend was confirmed on {done.test_items:,} rows of {held}{level}."))
        draws = "on fresh draws" if done.fresh_draws else "on the draws that it was chosen with"
        found.append((done.fresh_draws, f"It was confirmed {draws}."))
    gains = () if advice.best is None else advice.best.gains
    if gains:
        grouped = f"{gains[0].items:,} {'groups of ' if gains[0].grouped else ''}items"
        draws = f"{gains[0].draws} draw{'s' if gains[0].draws != 1 else ''}"
        spread = f"Gains are paired over {draws} and {grouped}, and both are counted as random."
        whole = f"Gains are paired over {grouped}; the blend holds all rows of its pool, so draws do not differ."
        found.append((gains[0].speaks_of_draws, whole if gains[0].is_whole else spread))
        repeated = find_gain(gains, "real-duplicated") is not None
        words = "were" if repeated else "were not"
        found.append((repeated, f"The real rows repeated to the same total {words} trained as a baseline."))
    found += [
        (check.passed, f"{check.dial}: the levels {'differ' if check.passed else 'do not differ'} in {check.metric}.")
        for check in advice.checks
    ]
    if (variants := advice.sensitivity) is not None:
        words = "No other choice flips" if variants.robust else "Another choice flips"
        found.append((variants.robust, f"{words} a conclusion, of {len(variants.rows)} that were tried."))
    lost = len(data.failures) or advice.failures
    found.append((not lost, f"{lost or 'No'} trial{'s' if lost > 1 else ''} failed."))
    return found


def list_written(data: ReportData) -> tuple[list[str], list[tuple[str, list[Number]]]]:
    """Names of metrics, and a row for each cell: what its models wrote, and what people wrote for the same prompts."""
    names = [n for n in dict.fromkeys(n for v in data.written.values() for n in v) if not n.endswith(".real")]
    rows = []
    for cell, values in data.written.items():
        numbers = [
            Number(text=write_number(values[n]), small=f"real {write_number(values[f'{n}.real'])}") for n in names
        ]
        rows.append((cell.key, numbers))
    return names, rows


def count_rejected(pools: Mapping[str, PoolFacts]) -> list[tuple[str, int, str]]:
    """Level key, rejected answers, and their reasons in words, most frequent first; of pools that are told of them."""
    rows = []
    for key, pool in pools.items():
        if pool.rejected:
            words = ", ".join(f"{reason} {count:,}" for reason, count in Counter(pool.rejected).most_common())
            rows.append((key, sum(pool.rejected.values()), words))
    return rows


def list_findings(data: ReportData) -> tuple[records.Finding, ...]:
    """The answer, what to avoid, what it holds for, and what was left out of the pools."""
    found, lost = list(data.advice.findings), count_rejected(data.pools)
    if lost:
        key, count, words = max(lost, key=lambda each: each[1])
        total = sum(each[1] for each in lost)
        pools = "1 pool" if len(lost) == 1 else f"{len(lost)} pools"
        sentence = f"{total:,} rows were left out of {pools}, most of {key}: {count:,} ({words})."
        remedy = "The report counts them by reason."
        found.append(records.Finding(id="left-out", sentence=sentence, remedy=remedy, value=float(total), severity=0.3))
    return tuple(found)


# --- how far a conclusion carries: over numbers of real rows, and under other choices ---
DECISIONS = {"use": "use", "do-not-use": "do not use", "underpowered": "not settled"}


def list_asides(data: ReportData) -> list[tuple[str, str]]:
    """What stands beside the verdict: a heading and a sentence each."""
    advice = data.advice
    found = [] if data.failed is None else [("Failed trials", f"{data.failed}. Each is listed under Failed trials.")]
    lines = [write_two_lines(shape) for shape in advice.shapes if shape.two_lines is not None and shape.interpreted]
    if lines:
        found.append(("Two lines over measured diversity", " ".join(lines)))
    if advice.sensitivity is not None:
        found.append(("Other choices", f"{advice.sensitivity}."))
    return found


def write_two_lines(shape: records.ShapeTest) -> str:
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


def write_verdicts(shapes: Mapping[str, str] | Sequence[records.ShapeTest]) -> str:
    """Dial and verdict, one after the other."""
    if not isinstance(shapes, Mapping):
        shapes = {s.dial: s.verdict if s.interpreted else "not interpreted" for s in shapes}
    return "; ".join(f"{dial}: {verdict}" for dial, verdict in shapes.items())
