"""Which cells and draws to run: the full grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cuvee.records import Cell, Draw, Kind, Level


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
