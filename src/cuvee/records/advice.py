"""The verdict with its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Literal

from cuvee.records.measurement import Estimate
from cuvee.records.trials import Cell

Shape = Literal["inverted-U", "U-shaped", "rising", "falling", "flat", "underpowered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A paired difference of accuracy, as a fraction, with its 95% t interval.

    The interval comes from the items x generation-draws variance components (Satterthwaite degrees of
    freedom ``df``). ``mde`` is the smallest gain this design detects with power 0.8.
    """

    over: str
    value: float
    low: float
    high: float
    df: float
    draws: int
    items: int
    mde: float


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
class Optimism:
    """How much better the best of ``cells`` looks than it is, estimated by splits of the trials it was chosen on.

    ``apparent`` is the chosen cell's mean gain over ``over``; ``corrected`` is the mean gain, on the left-out
    part, of the cell chosen on the rest; ``value`` is their difference. Fractions of accuracy.
    ``same_choice`` is the fraction of the ``splits`` that choose the same cell.
    """

    over: str
    cells: int
    apparent: float
    corrected: float
    value: float
    splits: int
    same_choice: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeTest:
    """The verdict on the shape of accuracy over the levels of one dial at one share.

    ``means`` has one accuracy a level, in the order of ``levels``; ``p_values`` the p-value of each
    alternative that was tested (after Bonferroni over interior levels). ``draws`` are generation draws.
    ``two_lines`` is the second test, over measured diversity, where that is known. ``interpreted`` is False
    where the levels were measured and do not differ: the verdict then says nothing about diversity.
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
class Confirmation:
    """The winner on fresh draws and the locked test."""

    cell: Cell
    accuracy: float
    gains: tuple[Gain, ...]
    test_items: int
    fresh_draws: bool
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManipulationCheck:
    """Whether the levels of a dial differ in *measured* diversity (their intervals do not all overlap)."""

    dial: str
    metric: str
    levels: tuple[str, ...]
    estimates: tuple[Estimate, ...]
    passed: bool
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The verdict with its evidence.

    ``decision`` is ``use`` (a cell beats real-only and real-duplicated), ``do-not-use`` (the best cell is
    shown not to help by more than ``delta``, or to hurt) or ``underpowered`` (neither is shown).
    ``sentence`` says it in words; ``more_draws`` how many further generation draws would settle it.
    ``optimism`` is what the choice among many cells adds to the winner's gain on validation.
    """

    decision: Literal["use", "do-not-use", "underpowered"]
    sentence: str
    best: CellSummary | None
    equivalent: tuple[CellSummary, ...]
    cells: tuple[CellSummary, ...]
    shapes: tuple[ShapeTest, ...]
    checks: tuple[ManipulationCheck, ...]
    confirmation: Confirmation | None
    more_draws: int | None
    scope: str
    failures: int
    optimism: Optimism | None = None

    def __str__(self) -> str:
        lines = [f"{self.decision}: {self.sentence}"]
        for summary in sorted(self.cells, key=lambda s: -s.accuracy)[:10]:
            gains = "  ".join(f"{100 * g.value:+.1f} over {g.over}" for g in summary.gains)
            lines.append(f"  {100 * summary.accuracy:5.1f}%  {summary.cell.key}  {gains}".rstrip())
        lines += [f"  {s.dial} at share {s.share:g}: {s.verdict}" for s in self.shapes]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"
