"""The values that travel between rooms: frozen, slotted, keyword-only.

Corpora themselves are in ``cuvee.corpus``. Nothing here does work beyond deriving a name or a number
from its own fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Regime = Literal["augment", "replace"]
Kind = Literal["blend", "real-only", "real-duplicated", "synthetic-only"]
Stage = Literal["generate", "measure", "mix", "train", "evaluate"]
Shape = Literal["inverted-U", "U-shaped", "rising", "falling", "flat", "underpowered"]
Vectors = NDArray[np.float32]


# --- generation -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One setting of a dial. ``rank`` 0 is the least diverse as expected, before anything is measured."""

    dial: str
    name: str
    rank: int

    @property
    def key(self) -> str:
        """``dial=name``, unique within a study."""
        return f"{self.dial}={self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """An answer of the LLM that did not become an example, and why."""

    slot: str
    reason: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a generation cost. ``requests`` were sent now; ``replayed`` came from the ledger."""

    requests: int = 0
    replayed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, other: Usage) -> Usage:
        """The sum of two usages."""
        return Usage(
            requests=self.requests + other.requests,
            replayed=self.replayed + other.replayed,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


# --- measurement ----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95% interval and what it was computed with.

    ``low`` and ``high`` are None where no valid interval is known; ``interval`` names the method.
    ``p_value`` is set for tests. ``settings`` holds tau, q, kernel and the like.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int
    interval: str = ""
    p_value: float | None = None
    settings: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """All numbers of one corpus, under their names in the METRICS table, with their provenance."""

    name: str
    fingerprint: str
    against: str | None
    n: int
    encoder: str
    encoder_hash: str
    seed: int
    values: Mapping[str, Estimate]

    def __str__(self) -> str:
        return "\n".join([f"{self.name}  n={self.n}  encoder={self.encoder}", *_value_lines(self.values)])

    def _repr_html_(self) -> str:
        return _value_table(f"{self.name} (n={self.n}, encoder {self.encoder})", self.values)


def _value_lines(values: Mapping[str, Estimate]) -> list[str]:
    width = max((len(k) for k in values), default=0)
    return [f"  {k:<{width}}  {v.value:>10.4g}  {_interval(v)}".rstrip() for k, v in values.items()]


def _value_table(caption: str, values: Mapping[str, Estimate]) -> str:
    rows = "".join(
        f"<tr><td>{escape(k)}</td><td>{v.value:.4g}</td><td>{_interval(v)}</td></tr>" for k, v in values.items()
    )
    head = f"<caption>{escape(caption)}</caption><tr><th>metric</th><th>value</th><th>95%</th></tr>"
    return f"<table>{head}{rows}</table>"


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "" if estimate.p_value is None else f"p = {estimate.p_value:.3g}"
    return f"[{estimate.low:.4g}, {estimate.high:.4g}]"


# --- mixing ---------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """What a blend really holds. ``share`` is synthetic rows over all rows, as realised."""

    share: float
    real_rows: int
    synthetic_rows: int
    unique_rows: int
    most_repeats: int
    label_counts: Mapping[str, tuple[int, int]]
    """label -> (real rows, synthetic rows)"""

    @property
    def rows(self) -> int:
        """All rows, repeats counted."""
        return self.real_rows + self.synthetic_rows


# --- trials ---------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One square of the grid. Baselines without a pool have ``dial`` and ``level`` None.

    ``share`` is the share asked for; ``rows_per_label`` counts the real training rows of each label.
    ``real-duplicated`` carries the share whose total rows it matches.
    """

    kind: Kind
    dial: str | None = None
    level: str | None = None
    share: float = 0.0
    rows_per_label: int
    trainer: str = "probe"
    loss: str = "ce"

    @property
    def key(self) -> str:
        """A readable name, unique within a study."""
        pool = f"{self.dial}={self.level} " if self.dial is not None else ""
        share = "" if self.kind in ("real-only", "synthetic-only") else f"share={self.share:g} "
        return f"{self.kind} {pool}{share}rows={self.rows_per_label} {self.trainer}/{self.loss}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """The three random streams of a trial, each counted from 0."""

    generation: int
    sampling: int
    training: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How a predictor did on ``n`` held-out real items.

    ``values`` are under their names in the SCORES table (accuracy, macro_f1, ...). ``correct`` has shape
    (n,), bool, in the order of the evaluated corpus: it is what paired comparisons are made of.
    """

    n: int
    values: Mapping[str, Estimate]
    correct: NDArray[np.bool_] = field(compare=False, repr=False)

    def __str__(self) -> str:
        return "\n".join([f"Scores on {self.n} items", *_value_lines(self.values)])

    def _repr_html_(self) -> str:
        return _value_table(f"Scores on {self.n} items", self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One cell at one draw: trained for ``steps`` optimiser steps and evaluated."""

    cell: Cell
    draw: Draw
    composition: Composition
    steps: int
    part: Literal["validation", "test"]
    scores: Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFailure:
    """A trial that did not finish: counted and shown, never dropped."""

    cell: Cell
    draw: Draw
    stage: Stage
    reason: str


# --- advice ---------------------------------------------------------------------------------------
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
class ShapeTest:
    """The verdict on the shape of accuracy over the levels of one dial at one share.

    ``means`` has one accuracy a level, in the order of ``levels``; ``p_values`` the p-value of each
    alternative that was tested (after Bonferroni over interior levels). ``draws`` are generation draws.
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

    def __str__(self) -> str:
        lines = [f"{self.decision}: {self.sentence}"]
        for summary in sorted(self.cells, key=lambda s: -s.accuracy)[:10]:
            gains = "  ".join(f"{100 * g.value:+.1f} over {g.over}" for g in summary.gains)
            lines.append(f"  {100 * summary.accuracy:5.1f}%  {summary.cell.key}  {gains}".rstrip())
        lines += [f"  {s.dial} at share {s.share:g}: {s.verdict}" for s in self.shapes]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"
