"""The balanced slice of each dial: its levels at one share and the draws they all have, tested for their shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from cuvee.recommend.cells import CellTable
from cuvee.recommend.shapes import test_shape
from cuvee.recommend.statistics import Floats
from cuvee.records import Cell, ManipulationCheck, ShapeTest


def test_slices(
    tables: Mapping[Cell, CellTable],
    level_ranks: Mapping[str, Sequence[str]],
    *,
    share: float,
    delta: float,
    alpha: float,
    checks: Sequence[ManipulationCheck] = (),
) -> tuple[ShapeTest, ...]:
    """One test a dial, over the levels trained at ``share`` and the draws that all of them have.

    Levels stand in the order of their measured diversity where all were measured, because diversity is what was
    measured and not what was asked for; else in the expected one. Where the levels that a verdict rests on do not
    differ in measured diversity, it is marked as not interpreted.

    Args:
        tables: the cells that may win, at ``share``.
        level_ranks: dial -> its level names from least to most diverse as expected.
        share: of all cells in ``tables``.
        delta: the smallest difference that counts.
        alpha: the level of each test.
        checks: the manipulation checks, whose estimates are the measured diversity.
    """
    by_dial = {check.dial: check for check in checks}
    tests = []
    for dial, names in level_ranks.items():
        found = {str(c.level): table for c, table in tables.items() if c.dial == dial}
        check = by_dial.get(dial)
        levels = _order_levels([name for name in names if name in found], check)
        correct, notes = _stack_levels([found[name] for name in levels])
        if not correct.size:
            continue
        if len(levels) < len(names):
            absent = ", ".join(name for name in names if name not in found)
            notes.insert(0, f"left out for want of draws: {absent}, so the shape is that of the other levels")
        if levels != [name for name in names if name in found]:
            notes.append(f"levels stand in their measured order, {' < '.join(levels)}")
        test = test_shape(
            correct.mean(axis=2),
            levels=levels,
            delta=delta,
            alpha=alpha,
            dial=dial,
            share=share,
            items=correct[0] if len(correct) == 1 else None,
            diversity=None if check is None else _find_diversity(check, levels),
            note="; ".join(notes),
        )
        tests.append(_judge_manipulation(test, check))
    return tuple(tests)


def _find_diversity(check: ManipulationCheck, levels: Sequence[str]) -> list[float] | None:
    measured = {name: e.value for name, e in zip(check.levels, check.estimates, strict=True)}
    return [measured[name] for name in levels] if all(name in measured for name in levels) else None


def _order_levels(levels: list[str], check: ManipulationCheck | None) -> list[str]:
    """From least to most diverse as measured, where all were; ties and the rest as given."""
    measured = None if check is None else _find_diversity(check, levels)
    if measured is None:
        return levels
    return [levels[k] for k in np.argsort(measured, kind="stable")]


def _judge_manipulation(test: ShapeTest, check: ManipulationCheck | None) -> ShapeTest:
    if check is None or len(check.levels) < 2:
        return test
    if not check.passed:
        note = "not interpreted: the levels do not differ in measured diversity, so no effect of diversity can show"
    elif alike := _find_alike(test, check):
        note = (
            f"not interpreted: {test.peak} does not differ from {' and '.join(alike)} in measured diversity, so no "
            "turn of accuracy over diversity can show there"
        )
    else:
        return test
    return dataclasses.replace(test, interpreted=False, note="; ".join(n for n in (test.note, note) if n))


def _find_alike(test: ShapeTest, check: ManipulationCheck) -> list[str]:
    """The ends of an inverted U or a U whose measured diversity is not told apart from that of its peak."""
    found = dict(zip(check.levels, check.estimates, strict=True))
    if test.peak is None or not all(name in found for name in (test.peak, test.levels[0], test.levels[-1])):
        return []
    first, peak, last = found[test.levels[0]], found[test.peak], found[test.levels[-1]]
    return [
        name
        for name, low, high in ((test.levels[0], first, peak), (test.levels[-1], peak, last))
        if low.high is None or high.low is None or low.high >= high.low
    ]


def _stack_levels(tables: Sequence[CellTable]) -> tuple[Floats, list[str]]:
    """Correctness at the draws that all levels have, shape (draws, levels, items), and what was left out."""
    drawn = {d for table in tables for d in table.draws}
    common = sorted(d for d in drawn if all(d in table.draws for table in tables))
    if not common:
        return np.empty((0, 0, 0)), []
    rows = [table.correct[[table.draws.index(d) for d in common]] for table in tables]
    left_out = len(drawn) - len(common)
    notes = [f"draws that lack a level are left out: {left_out}"] if left_out else []
    return np.stack(rows, axis=1), notes
