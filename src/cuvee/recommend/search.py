"""Which cells and draws to run: the full grid, and the protocol by which any search asks and is told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cuvee.records import Cell, Draw, Kind, Level

LEAST_DRAWS = 2
"""Generation draws that a cell needs before it can be the best, where others have more than one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTrial:
    """A cell at a draw, to be run on validation (or the locked test when confirming)."""

    cell: Cell
    draw: Draw


def plan_grid(
    levels: Mapping[Level, Sequence[int]],
    *,
    shares: Iterable[float],
    base_share: float,
    rows_per_label: int,
    sampling: int,
    training: int,
    trainer: str,
    loss: str,
) -> tuple[PlannedTrial, ...]:
    """Every level at every share, synthetic-only at every level, and the real baselines, at paired draws.

    Args:
        levels: level -> its usable generation draws.
        shares: of synthetic rows; 0 is the baseline real-only and adds no cells of its own.
        base_share: synthetic-only cells hold the synthetic rows of this share.
        rows_per_label: real rows of a label.
        sampling, training: draws of each.
        trainer, loss: of every cell.
    """
    positive = sorted({s for s in shares if s > 0})

    def cell(kind: Kind, share: float, level: Level | None = None) -> Cell:
        return Cell(
            kind=kind,
            dial=level.dial if level else None,
            level=level.name if level else None,
            share=share,
            rows_per_label=rows_per_label,
            trainer=trainer,
            loss=loss,
        )

    def draws(blocks: Iterable[int]) -> list[Draw]:
        return [
            Draw(generation=g, sampling=s, training=t)
            for g in sorted(blocks)
            for s in range(sampling)
            for t in range(training)
        ]

    every = draws({g for blocks in levels.values() for g in blocks})
    planned = [PlannedTrial(cell=cell("real-only", 0.0), draw=d) for d in every]
    planned += [PlannedTrial(cell=cell("real-duplicated", s), draw=d) for s in positive for d in every]
    for level, blocks in levels.items():
        cells = [cell("blend", s, level) for s in positive] + [cell("synthetic-only", base_share, level)]
        planned += [PlannedTrial(cell=c, draw=d) for c in cells for d in draws(blocks)]
    return tuple(planned)


class Search(Protocol):
    """Asks for trials in rounds and is told what they gave.

    A round is asked, run in any order and told as a whole; then the next is asked. What is asked depends on the
    values told and on nothing else, so a study that is run again and told the same asks the same.
    """

    @property
    def done(self) -> bool:
        """Whether nothing is left to ask."""
        ...

    def ask(self, count: int | None = None) -> tuple[PlannedTrial, ...]:
        """The next round; empty when ``done``, or while an earlier round must be told first."""
        ...

    def tell(self, trial: PlannedTrial, value: float | None) -> None:
        """What a trial gave: its accuracy, or None where it failed.

        Raises:
            ValueError: the trial is not of this plan, or the value is not finite.
        """
        ...

    def best(self) -> Cell | None:
        """The blend that the values told so far favour; None before any."""
        ...


def check_value(value: float | None) -> None:
    """Refuse a value that is not a finite number.

    Raises:
        ValueError: it is NaN or infinite.
    """
    if value is not None and not math.isfinite(value):
        raise ValueError(f"value must be a finite number, or None for a trial that failed, not {value!r}")


class GridSearch:
    """Asks for all planned trials once, in the order planned."""

    def __init__(self, planned: Sequence[PlannedTrial]) -> None:
        self._planned = tuple(dict.fromkeys(planned))
        self._known = frozenset(self._planned)
        self._asked: set[PlannedTrial] = set()
        self._told: dict[PlannedTrial, float | None] = {}

    @property
    def done(self) -> bool:
        """Whether every planned trial was asked or told."""
        return len(self._asked) == len(self._planned)

    def ask(self, count: int | None = None) -> tuple[PlannedTrial, ...]:
        """The next ``count`` planned trials; by default all that are left."""
        if count is not None and count < 1:
            raise ValueError(f"count must be at least 1, not {count!r}")
        batch = tuple(t for t in self._planned if t not in self._asked)[:count]
        self._asked.update(batch)
        return batch

    def tell(self, trial: PlannedTrial, value: float | None) -> None:
        """What a planned trial gave; None where it failed."""
        if trial not in self._known:
            raise ValueError(f"trial {trial.cell.key} at {trial.draw} is not planned")
        check_value(value)
        self._told[trial] = value
        self._asked.add(trial)

    def best(self) -> Cell | None:
        """The blend with the highest mean, each generation draw weighing the same; ties go to the smaller share."""
        means = average_by_draw(self._planned, self._told)
        values = {c: m for c, m in means.items() if c.kind == "blend"}
        least = min(LEAST_DRAWS, max((len(m) for m in values.values()), default=1))
        scores = {c: math.fsum(m.values()) / len(m) for c, m in values.items() if len(m) >= least}
        return min(scores, key=lambda c: (-scores[c], c.share, c.key), default=None)


def average_by_draw(
    planned: Iterable[PlannedTrial], told: Mapping[PlannedTrial, float | None]
) -> dict[Cell, dict[int, float]]:
    """Cell -> generation draw -> mean value over its other draws, without trials that failed, in the planned order."""
    gathered: dict[Cell, dict[int, list[float]]] = {}
    for trial in planned:
        value = told.get(trial)
        if value is not None:
            gathered.setdefault(trial.cell, {}).setdefault(trial.draw.generation, []).append(value)
    return {c: {g: math.fsum(v) / len(v) for g, v in sorted(by.items())} for c, by in gathered.items()}


def halve(cells: Sequence[Cell], scores: Sequence[float | None], keep: int) -> tuple[Cell, ...]:
    """The ``keep`` best cells by a cheap score, best first, to be tried at a dearer fidelity.

    One rung of successive halving (Jamieson & Talwalkar 2016, AISTATS): all cells are scored by the cheap
    trainer, the best go on to the dearer one. Cells without a score (their trials failed) never go on.
    Ties go to the smaller share, then by name.

    Args:
        cells: each once.
        scores: one a cell, higher is better; None where there is none.
        keep: how many go on; fewer where fewer have a score.

    Raises:
        ValueError: lengths differ, a score is not finite, a cell comes twice, or ``keep`` is below 1.
    """
    if len(cells) != len(scores) or len(set(cells)) != len(cells):
        raise ValueError(f"cells ({len(cells)}, each once) and scores ({len(scores)}) must pair")
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep!r}")
    for score in scores:
        check_value(score)
    found = [(cell, score) for cell, score in zip(cells, scores, strict=True) if score is not None]
    return tuple(c for c, _ in sorted(found, key=lambda pair: (-pair[1], pair[0].share, pair[0].key))[:keep])
