"""Does the conclusion depend on how it was reached? Advice under other choices, set against the base.

A variant *flips* a conclusion where it says something else that is also settled: *use* against *do-not-use*,
rising against inverted-U, another best cell that the base could tell from its own. Where one of the two is
underpowered, or its levels were not interpreted, the variant does not contradict: it is *unsettled*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cuvee.records import Advice, Cell, Gain, ShapeTest


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityRow:
    """One variant against the base.

    ``flips`` and ``unsettled`` name the conclusions: ``decision``, ``best cell``, ``shape of DIAL``,
    ``manipulation check of DIAL``. ``gains`` are the best cell's own.
    """

    variant: str
    decision: str
    best: Cell | None
    gains: tuple[Gain, ...]
    shapes: Mapping[str, str]
    flips: tuple[str, ...]
    unsettled: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityTable:
    """The base first, then every variant in the order given."""

    base: SensitivityRow
    rows: tuple[SensitivityRow, ...]

    @property
    def robust(self) -> bool:
        """Whether no variant flips a conclusion."""
        return not any(row.flips for row in self.rows)

    def __str__(self) -> str:
        lines = [_write_row(row) for row in (self.base, *self.rows)]
        flipped = [row.variant for row in self.rows if row.flips]
        last = f"The conclusion flips under: {', '.join(flipped)}." if flipped else "No variant flips the conclusion."
        return "\n".join([*lines, last])


def compare_advice(base: Advice, variants: Mapping[str, Advice]) -> SensitivityTable:
    """Which conclusions of ``base`` another metric of diversity, trainer, loss or stopping rule would change.

    Args:
        base: the advice of the study.
        variants: name (``trainer encoder``, ``metric dcscore``, ``equal epochs``) -> advice under that choice.

    Raises:
        ValueError: a variant is named ``base``.
    """
    if "base" in variants:
        raise ValueError("variants holds the name 'base', which is that of the study itself")
    return SensitivityTable(
        base=_make_row("base", base, flips=(), unsettled=()),
        rows=tuple(_compare(name, base, other) for name, other in variants.items()),
    )


def _make_row(name: str, advice: Advice, *, flips: tuple[str, ...], unsettled: tuple[str, ...]) -> SensitivityRow:
    return SensitivityRow(
        variant=name,
        decision=advice.decision,
        best=None if advice.best is None else advice.best.cell,
        gains=() if advice.best is None else advice.best.gains,
        shapes={shape.dial: _read_shape(shape) for shape in advice.shapes},
        flips=flips,
        unsettled=unsettled,
    )


def _read_shape(shape: ShapeTest) -> str:
    return shape.verdict if shape.interpreted else "not interpreted"


def _compare(name: str, base: Advice, other: Advice) -> SensitivityRow:
    flips: list[str] = []
    unsettled: list[str] = []

    def judge(what: str, first: str, second: str, open_ends: tuple[str, ...]) -> None:
        if first != second:
            (unsettled if first in open_ends or second in open_ends else flips).append(what)

    judge("decision", base.decision, other.decision, ("underpowered",))
    if not _is_same_choice(base, other):
        (flips if "underpowered" not in (base.decision, other.decision) else unsettled).append("best cell")
    shapes = {shape.dial: _read_shape(shape) for shape in other.shapes}
    for shape in base.shapes:
        found = shapes.get(shape.dial, "underpowered")
        judge(f"shape of {shape.dial}", _read_shape(shape), found, ("underpowered", "not interpreted"))
    passed = {check.dial: check.passed for check in other.checks}
    for check in base.checks:
        if passed.get(check.dial, check.passed) != check.passed:
            flips.append(f"manipulation check of {check.dial}")
    return _make_row(name, other, flips=tuple(flips), unsettled=tuple(unsettled))


def _is_same_choice(base: Advice, other: Advice) -> bool:
    """Whether each best cell is the other's, or not distinguishable from it; trainer and loss may differ."""
    if base.best is None or other.best is None:
        return base.best is other.best

    def choices(advice: Advice) -> set[tuple[str | None, str | None, float]]:
        found = [advice.best] if advice.best is not None else []
        return {_place(summary.cell) for summary in (*found, *advice.equivalent)}

    return _place(other.best.cell) in choices(base) or _place(base.best.cell) in choices(other)


def _place(cell: Cell) -> tuple[str | None, str | None, float]:
    return cell.dial, cell.level, cell.share


def _write_row(row: SensitivityRow) -> str:
    gain = f" {100 * row.gains[0].value:+.1f} points over {row.gains[0].over}" if row.gains else ""
    best = f" {row.best.dial}={row.best.level} at share {row.best.share:g}" if row.best is not None else ""
    shapes = "".join(f"; {dial}: {verdict}" for dial, verdict in row.shapes.items())
    marks = f"; flips {', '.join(row.flips)}" if row.flips else ""
    marks += f"; not settled here: {', '.join(row.unsettled)}" if row.unsettled else ""
    return f"{row.variant}: {row.decision}{best}{gain}{shapes}{marks}"
