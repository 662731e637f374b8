"""Does the conclusion depend on how it was reached? Advice under other choices, set against the base.

A variant *flips* a conclusion where it says something else that is also settled: *use* against *do-not-use*,
rising against inverted-U, another best cell that the base could tell from its own. Where one of the two is
underpowered, or its levels were not interpreted, the variant does not contradict: it is *unsettled*.
"""

from __future__ import annotations

from collections.abc import Mapping

from cuvee.records import Advice, Cell, ShapeTest
from cuvee.records.advice import RowsFinding, SensitivityRow, SensitivityTable


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
        two_lines=_read_lines(advice),
        flips=flips,
        unsettled=unsettled,
    )


def _read_shape(shape: ShapeTest) -> str:
    return shape.verdict if shape.interpreted else "not interpreted"


def _read_lines(advice: Advice) -> dict[str, str]:
    """Dial -> what the two-lines test shows, which says nothing either where levels do not differ."""
    return {
        shape.dial: shape.two_lines.shape if shape.interpreted else "not interpreted"
        for shape in advice.shapes
        if shape.two_lines is not None
    }


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
    lines = _read_lines(other)
    for dial, first in _read_lines(base).items():
        if dial in lines:
            judge(f"two lines of {dial}", first, lines[dial], ("underpowered", "not interpreted"))
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


def summarise_rows(advice: Mapping[int, Advice]) -> tuple[RowsFinding, ...]:
    """How the advice depends on the number of real rows a label, most first.

    Args:
        advice: rows a label -> the advice drawn from cells of so many.
    """
    return tuple(
        RowsFinding(
            rows_per_label=rows,
            decision=found.decision,
            real_only=_find_real_only(found, rows),
            best=found.best,
            shapes=found.shapes,
            optimism=found.optimism,
            more_draws=found.more_draws,
        )
        for rows, found in sorted(advice.items(), reverse=True)
    )


def _find_real_only(advice: Advice, rows: int) -> float | None:
    best = None if advice.best is None else advice.best.cell
    found = [s for s in advice.cells if s.cell.kind == "real-only" and s.cell.rows_per_label == rows]
    own = [s for s in found if best is None or (s.cell.trainer, s.cell.loss) == (best.trainer, best.loss)]
    return next((s.accuracy for s in own), None)
