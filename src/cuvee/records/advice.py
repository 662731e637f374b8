"""The verdict with its evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cuvee.records.measurement import Estimate, Finding, Shown, html_list, html_table, text_table
from cuvee.records.trials import Cell, FailedTrials, name_score

Decision = Literal["use", "do-not-use", "underpowered"]
DrawKind = Literal["generation", "sampling", "confirm"]
Shape = Literal["inverted-U", "U-shaped", "rising", "falling", "flat", "underpowered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A paired difference of accuracy, as a fraction, with its 95% t interval.

    The interval comes from the items x generation-draws variance components: ``se_draws`` and ``se_items`` are what
    each adds to the standard error, the root of the sum of their squares, which has ``df`` degrees of freedom.
    ``se_rest`` is the part of ``se_draws`` that single answers add, and ``prior_df`` the degrees of freedom that other
    cells lend to the spread over draws. ``items`` are groups of items where ``grouped``. ``p_value`` is the two-sided
    one of "the gain is 0". ``mde`` is the smallest gain this design detects with power 0.8. ``is_whole`` marks a blend
    of all rows of its pool, whose draws can only agree: one of them is the test.
    """

    over: str
    value: float
    low: float
    high: float
    df: float
    draws: int
    items: int
    mde: float
    p_value: float
    se_draws: float
    se_items: float
    se_rest: float = 0.0
    prior_df: float = 0.0
    grouped: bool = False
    is_whole: bool = False

    @property
    def speaks_of_draws(self) -> bool:
        """Whether other draws are known of: one draw says nothing of them, unless there are no others."""
        return self.draws > 1 or self.is_whole

    @property
    def error(self) -> float:
        """Standard error."""
        return math.hypot(self.se_draws, self.se_items)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoLines:
    """Simonsohn's two-lines test of accuracy over *measured* diversity.

    ``low_slope`` and ``high_slope`` are the slopes at and below, at and above ``break_at``, as fractions of
    accuracy a unit of diversity, with two-sided p-values. ``shape`` is ``inverted-U`` or ``U-shaped`` where the
    slopes have opposite signs and both are shown, else ``underpowered``.
    """

    shape: Literal["inverted-U", "U-shaped", "underpowered"]
    break_at: float
    low_slope: float
    low_p: float
    high_slope: float
    high_p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lean:
    """What the evidence favours, settled or not.

    ``cell`` is the blend with the highest expected score, ``gain`` its expected gain over the better of both baselines
    as a fraction, shrunk for the choice among many, and ``probability`` that it helps over both. ``repeated`` is what
    repeating the real rows to the same total is expected to gain over the real rows alone.
    """

    cell: Cell
    probability: float
    gain: float
    repeated: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeTest:
    """The verdict on the shape of accuracy over the levels of one dial at one share.

    ``levels`` stand in the order of their measured diversity where all were measured, else in the expected one;
    ``means`` has one accuracy a level; ``p_values`` the p-value of each alternative that was tested (after Dunnett
    over interior levels). ``peak`` is the interior level that speaks most for an inverted U or a U. ``draws`` are
    generation draws. ``two_lines`` is the second test, over measured diversity, where that is known. ``interpreted``
    is False where the levels that the verdict rests on were measured and do not differ: it then says nothing about
    diversity.
    """

    dial: str
    share: float
    levels: tuple[str, ...]
    means: tuple[float, ...]
    draws: int
    verdict: Shape
    p_values: Mapping[str, float]
    delta: float
    alpha: float
    note: str = ""
    two_lines: TwoLines | None = None
    interpreted: bool = True
    peak: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSummary:
    """One cell over all its draws: mean accuracy and its paired gains over the baselines."""

    cell: Cell
    accuracy: float
    draws: int
    trials: int
    share: float
    gains: tuple[Gain, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """The best amount is the largest of its level.

    Attributes:
        gain: over the next smaller amount, paired; None where that is judged in another scope.
        factor: how many times as much it is.
        is_everything: it is all that the pool holds.
        rows, requests, tokens: what it would take to have three times as many rows of the pool, by what the run spent;
            0 where rows are not written by an LLM here.
        part: these requests over all that the run sent.
    """

    gain: Gain | None
    factor: float
    is_everything: bool
    rows: int = 0
    requests: int = 0
    tokens: int = 0
    part: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The winner on fresh draws and the locked test.

    ``folds`` is 0 there. Else the items were held out in so many folds, each of which chose a blend without them:
    what is confirmed is the worth of choosing that way, and ``cell`` is the choice of all folds together. ``looks``
    has the draws at each reading of the locked test, the last one that of these gains, and ``planned`` the draws at the
    last planned one; without ``looks`` there can be only one.
    """

    cell: Cell
    accuracy: float
    gains: tuple[Gain, ...]
    test_items: int
    fresh_draws: bool
    note: str = ""
    folds: int = 0
    looks: tuple[int, ...] = ()
    planned: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ManipulationCheck:
    """Whether the levels of a dial differ in *measured* diversity, the least from the most diverse one."""

    dial: str
    metric: str
    levels: tuple[str, ...]
    estimates: tuple[Estimate, ...]
    passed: bool
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RankAgreement:
    """How alike two trainers rank the blends and the real rows alone that both trained on.

    ``value`` is Spearman's rank correlation of the mean scores of ``cells`` cells; ``low`` and ``high`` are its 95%
    interval over cells (Bonett and Wright 2000), None for fewer than four cells.
    """

    base: str
    other: str
    value: float
    cells: int
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        told = f"rank correlation {self.value:.2f} over {self.cells} cells"
        if self.low is None or self.high is None:
            return f"{self.base} against {self.other}: {told}, too few for an interval"
        found = "both rank cells alike" if self.low > 0 else f"not shown that {self.base} ranks cells as {self.other}"
        return f"{self.base} against {self.other}: {found}, {told} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityRow:
    """One variant against the base.

    ``flips`` and ``unsettled`` name the conclusions: ``decision``, ``best cell``, ``shape of DIAL``,
    ``two lines of DIAL``, ``manipulation check of DIAL``. ``gains`` are the best cell's own; ``shapes`` and
    ``two_lines`` hold the verdict of each dial. ``ranks`` is there where it is of another trainer.
    """

    variant: str
    decision: Decision
    best: Cell | None
    gains: tuple[Gain, ...]
    shapes: Mapping[str, str]
    flips: tuple[str, ...]
    unsettled: tuple[str, ...]
    two_lines: Mapping[str, str] = field(default_factory=dict)
    ranks: RankAgreement | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LostVariant:
    """A variant that says nothing, because no trial of a blend under it finished. ``failed`` counts its trials."""

    variant: str
    failed: FailedTrials

    def __str__(self) -> str:
        return f"{self.variant}: could not be run: {self.failed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityTable:
    """The base first, then every variant in the order given; apart from these, the variants that could not be run."""

    base: SensitivityRow
    rows: tuple[SensitivityRow, ...]
    lost: tuple[LostVariant, ...] = ()

    def __str__(self) -> str:
        flips = [f"{row.variant} ({', '.join(row.flips)})" for row in self.rows if row.flips]
        names = ", ".join(row.variant for row in self.rows) or "none"
        lost = f"; could not be run: {', '.join(each.variant for each in self.lost)}" if self.lost else ""
        found = f"the conclusion flips under {'; '.join(flips)}" if flips else "no other choice flips the conclusion"
        ranks = "".join(f". Trainer {row.ranks}" for row in self.rows if row.ranks is not None)
        return f"On validation {found}; tried: {names}{lost}{ranks}"

    @property
    def robust(self) -> bool:
        """Whether no variant flips a conclusion, of those that could be run."""
        return not any(row.flips for row in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsFinding:
    """What the cells of one number of real rows say by themselves, on validation.

    ``real_only`` is the accuracy of the real rows alone, ``best`` the best blend of so many real rows.
    """

    rows_per_label: int
    decision: Decision
    real_only: float | None
    best: CellSummary | None
    shapes: tuple[ShapeTest, ...]
    lean: Lean | None
    more_draws: int | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Advice(Shown):
    """The verdict with its evidence.

    ``decision`` is ``use`` (a cell beats real-only and real-duplicated), ``do-not-use`` (every cell that could be
    recommended is shown not to help by more than ``delta``, or to hurt) or ``underpowered`` (neither is shown).
    ``sentence`` says it in words; ``more_draws`` how many further draws would show what it names with power 0.8, of
    generation, of subsamples or of confirmation (``more_of``); where draws cannot, ``more_items`` is how many held-out
    items in all would. ``edge`` is there where the best amount is the largest.
    ``score`` is what cells are compared by; where it is not accuracy, all that is called accuracy here is the mean of
    that score.
    ``sensitivity`` sets the advice against that of other measures of diversity, trainers, losses and equal epochs;
    ``by_rows`` says how it depends on the number of real rows, most first, where several were tried.
    ``headline`` is the verdict in a few words. ``winner_ruled_out`` says that the blend that this study would choose is
    shown not to help by more than ``delta``, whatever is known of the others. ``lean`` is what the evidence favours,
    ``today`` what to do on it if nothing more can be spent, empty where the verdict is to use a blend. ``harmful``
    holds the blends that are shown to be worse than the real rows alone; ``avoid`` names them.
    """

    decision: Decision = "underpowered"
    sentence: str = ""
    best: CellSummary | None = None
    not_distinguished: tuple[CellSummary, ...] = ()
    cells: tuple[CellSummary, ...] = ()
    shapes: tuple[ShapeTest, ...] = ()
    checks: tuple[ManipulationCheck, ...] = ()
    confirmation: Confirmation | None = None
    more_draws: int | None = None
    scope: str = ""
    failures: int = 0
    score: str = "accuracy"
    sensitivity: SensitivityTable | None = None
    by_rows: tuple[RowsFinding, ...] = ()
    more_of: DrawKind = "generation"
    more_items: int | None = None
    edge: Edge | None = None
    headline: str = ""
    winner_ruled_out: bool = False
    lean: Lean | None = None
    today: str = ""
    harmful: tuple[CellSummary, ...] = ()
    avoid: str = ""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The answer, what to avoid, and what it holds for, in this order."""
        today = self.best.cell.name if self.best is not None and self.decision == "use" else ""
        do = self.today or (f"Mix in {today}" if today else "Train on the real rows alone")
        chance = None if self.lean is None else self.lean.probability
        found = [
            Finding(id="answer", sentence=f"{self.headline}.", remedy=f"{do}.", value=chance, severity=1.0),
            Finding(id="avoid", sentence=f"{self.avoid}." if self.avoid else "", severity=0.8),
            Finding(id="scope", sentence=f"This holds for: {self.scope}" if self.scope else "", severity=0.6),
        ]
        return tuple(each for each in found if each.sentence.strip("."))

    def __str__(self) -> str:
        lines = [f"{self.decision}: {self.sentence}", *text_table(self.table), *map("  {}".format, self._shapes)]
        return "\n".join([*lines, *(f"{said}." for said in (self.today, self.avoid) if said)])

    def _repr_html_(self) -> str:
        heads, *rows = self.table
        return html_list(self.findings) + html_table(self.sentence, heads, rows) + html_list(self._shapes)

    @property
    def table(self) -> list[list[str]]:
        """Heads, then the best cells and the real rows; what all cells have in common needs no column."""
        score = "acc." if self.score == "accuracy" else name_score(self.score)
        varying = [name for name, read in _VARYING.items() if len({read(s.cell) for s in self.cells}) > 1]
        rows = [["cell", "share", *varying, score, *_BASELINES.values()]]
        ranked = sorted(self.cells, key=lambda summary: -summary.accuracy)
        losses = ("ce", self.best.cell.loss) if self.best is not None else ("ce",)  # of others only what is shown
        real = [s for s in ranked[_SHOWN:] if s.cell.kind in ("real-only", "untuned") and s.cell.loss in losses]
        for summary in [*ranked[:_SHOWN], *real]:
            cell = summary.cell
            gains = {g.over: f"{100 * g.value:+.1f} [{100 * g.low:.1f},{100 * g.high:.1f}]" for g in summary.gains}
            name, read = _KINDS.get(cell.kind, "{0.dial}={0.level}").format(cell), [_VARYING[v](cell) for v in varying]
            name += f" {1 + cell.amount:.3g}x" if cell.kind == "real-duplicated" else ""
            over = [gains.get(baseline, "") for baseline in _BASELINES]
            row = [name, f"{summary.share:.2f}", *read, f"{100 * summary.accuracy:.1f}%", *over]
            if row not in rows:
                rows.append(row)
        return rows

    @property
    def _shapes(self) -> list[str]:
        return [f"{s.dial} at share {s.share:g}: {s.verdict}" for s in self.shapes]


_SHOWN = 8
_BASELINES = {"real-only": "over real rows", "real-duplicated": "over repeated"}
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
