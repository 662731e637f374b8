"""Trials gathered by cell: one row of item scores a generation draw, and gains over the baselines."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cuvee.recommend.statistics import components_of, paired_gain, pool_gain, pool_spreads
from cuvee.records import Cell, CellSummary, Draw, Floats, Gain, Kind, Trial

_KINDS: tuple[Kind, ...] = ("real-only", "real-duplicated", "blend", "synthetic-only", "untuned")
BASELINES: tuple[Kind, ...] = ("real-only", "real-duplicated")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellTable:
    """One cell's item scores, shape (draws, items), the other draws averaged in each row.

    The draws are generations, or in the scope *this pool* subsamples.

    ``correct`` holds them: 1 for a correct item and 0 for another, or what the score of the task says between. Where
    items come in groups, each column is a group (:func:`merge_groups`); ``items`` counts the items themselves.
    """

    cell: Cell
    draws: tuple[int, ...]
    trials: int
    share: float
    items: int
    correct: Floats = field(repr=False, compare=False)

    @property
    def grouped(self) -> bool:
        """Whether items come in groups."""
        return bool(self.correct.shape[1] < self.items)

    @property
    def accuracy(self) -> float:
        """Mean over draws and items, each generation draw weighing the same."""
        return float(self.correct.mean())

    def take(self, draws: Iterable[int]) -> Floats:
        """The rows of these draws."""
        return self.correct[[self.draws.index(draw) for draw in draws]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedCells:
    """Whose cells are compared with each other: those of one trainer, one loss and one number of real rows."""

    trainer: str = "probe"
    loss: str = "ce"
    rows_per_label: int | None = None
    """None is the largest number that blends have"""

    def take(self, tables: Mapping[Cell, CellTable]) -> dict[Cell, CellTable]:
        """These cells of all; baselines of loss ``ce`` stand in."""
        own = {c: t for c, t in tables.items() if c.trainer == self.trainer and c.loss in (self.loss, "ce")}
        rows = self.rows_per_label
        if rows is None:
            rows = max((c.rows_per_label for c in own if (c.kind, c.loss) == ("blend", self.loss)), default=0)
        return {c: t for c, t in own.items() if c.rows_per_label == rows}


def is_among(share: float, shares: Iterable[float]) -> bool:
    """Whether a share is one of others, rounding aside."""
    return any(math.isclose(share, other, abs_tol=1e-9) for other in shares)


def collect_tables(
    trials: Iterable[Trial], *, part: Literal["validation", "test"] = "validation"
) -> dict[Cell, CellTable]:
    """Gather the trials evaluated on ``part`` by cell; where real rows were drawn several times, these are the draws.

    Raises:
        ValueError: trials were evaluated on different numbers of items or by different scores, or one trial comes
            twice.
    """
    by_cell: dict[Cell, dict[int, list[Trial]]] = defaultdict(lambda: defaultdict(list))
    trials = [trial for trial in trials if trial.part == part]
    reals: dict[Cell, set[int]] = defaultdict(set)
    items: set[tuple[int, bytes, str]] = set()
    for trial in trials:
        reals[trial.cell].add(trial.draw.real)
        groups = trial.scores.groups
        items.add((trial.scores.n, b"" if groups is None else groups.tobytes(), trial.scores.score))
    if len(items) > 1:
        told = ", ".join(f"{n} by {score}" for n, _, score in sorted(items))
        raise ValueError(f"trials were evaluated on different {part} items or scores ({told}); compare those of one")
    for trial in trials:
        row = trial.draw.real if len(reals[trial.cell]) > 1 else row_of(trial.cell, trial.draw)
        by_cell[trial.cell][row].append(trial)
    if len({(trial.cell, replace(trial.draw, real=0)) for trial in trials}) < len(trials):
        raise ValueError("trials holds a cell at one draw twice; give each once")
    return {cell: _tabulate(cell, by_draw) for cell, by_draw in by_cell.items()}


def row_of(cell: Cell, draw: Draw) -> int:
    """The number of the draw that is the unit of inference in the cell's scope."""
    return draw.sampling if cell.scope == "this pool" else draw.generation


def _tabulate(cell: Cell, by_draw: Mapping[int, Sequence[Trial]]) -> CellTable:
    draws = tuple(sorted(by_draw))
    rows = [np.mean([t.scores.per_item for t in by_draw[d]], axis=0, dtype=np.float64) for d in draws]
    groups = by_draw[draws[0]][0].scores.groups
    shares = [t.composition.share for d in draws for t in by_draw[d]]
    return CellTable(
        cell=cell,
        draws=draws,
        trials=len(shares),
        share=math.fsum(shares) / len(shares),
        items=rows[0].size,
        correct=np.stack(rows) if groups is None else merge_groups(np.stack(rows), groups),
    )


def merge_groups(correct: Floats, groups: NDArray[np.int64]) -> Floats:
    """What items score, shape (draws, items), as one column for each group, shape (draws, groups).

    Items of one group (a document, an author) share what makes them easy, so groups are what was sampled. The mean over
    items is a ratio of sums over groups; a column is the group's part in its linear form (Cochran 1977, *Sampling
    Techniques*, ch. 6): with n items of N in one of J groups, ``(J / N) (sum of the group - n mean) + mean``, the mean
    being that of the draw. The mean over columns is that over items, whatever the sizes of groups, and the variance
    over columns is the one that counts; for groups of one size a column is the mean of its group. Where one group holds
    a large part of all items, intervals are too narrow: there are few groups then, whatever their number.

    Args:
        correct: what each item scores.
        groups: codes from 0, shape (items,).
    """
    sizes = np.bincount(groups).astype(np.float64)
    sums = np.stack([np.bincount(groups, weights=row, minlength=sizes.size) for row in correct])
    mean = correct.mean(axis=1, keepdims=True)
    return np.asarray(mean + sizes.size / groups.size * (sums - sizes * mean))


def difference_of(table: CellTable, other: CellTable) -> Floats | None:
    """``table - other`` by draw and item, shape (draws, items), or None without draws in common.

    Draws are paired; those of different scopes have nothing in common. A baseline made of real rows alone does not
    depend on the draw of synthetic rows, and neither do all rows of a pool: where it lacks some of the draws, its mean
    over its draws stands in each.
    """
    pairs = table.cell.scope == other.cell.scope
    common = [d for d in table.draws if d in other.draws] if pairs else []
    if len(common) < len(table.draws) and (other.cell.kind in BASELINES or (pairs and other.cell.whole)):
        return np.asarray(table.correct - other.correct.mean(axis=0))
    if len(common) < len(other.draws) and pairs and (table.cell.whole or table.cell.kind == "untuned"):
        return np.asarray(table.correct.mean(axis=0) - other.correct)
    if not common:
        return None
    return table.take(common) - other.take(common)


def find_baseline(tables: Mapping[Cell, CellTable], cell: Cell, kind: Kind) -> CellTable | None:
    """The baseline of this kind for a cell: same rows, trainer and loss (else loss ``ce``), its scope first.

    ``real-duplicated`` must also carry the cell's share, so that the total of rows is the same.
    """
    found = [
        table
        for other, table in tables.items()
        if (other.kind, other.rows_per_label, other.trainer) == (kind, cell.rows_per_label, cell.trainer)
        and other.loss in (cell.loss, "ce")
        and (kind == "real-only" or is_among(other.share, [cell.share]))
    ]
    return min(found, key=lambda t: (t.cell.loss != cell.loss, t.cell.scope != cell.scope), default=None)


def find_rivals(cells: Iterable[Cell]) -> list[Cell]:
    """The blends that compete, among all cells: in the scope *the recipe* those not judged in *this pool* too.

    Where the real rows alone are in the scope *this pool* only, none of these: of files they serve the shape test.
    """
    every = set(cells)
    of_files = {c.scope for c in every if c.kind == "real-only"} == {"this pool"}
    rivals = [c for c in every if c.scope == "this pool" or not (of_files or replace(c, scope="this pool") in every)]
    return sorted((c for c in rivals if c.kind == "blend"), key=lambda c: (c.share, c.key))


def gains_of(tables: Mapping[Cell, CellTable], cell: Cell) -> tuple[Gain, ...]:
    """The cell's gains over the baselines that were trained, real-only first."""
    gains = []
    for kind in BASELINES[: _KINDS.index(cell.kind)]:
        baseline = find_baseline(tables, cell, kind)
        difference = None if baseline is None else difference_of(tables[cell], baseline)
        if difference is not None:
            gain = paired_gain(difference, 0.0, over=kind)
            gains.append(replace(gain, grouped=tables[cell].grouped, is_whole=cell.whole and gain.draws == 1))
    return tuple(gains)


def pool_gains(gains: Mapping[Cell, Sequence[Gain]]) -> dict[Cell, tuple[Gain, ...]]:
    """The gains with the spreads over draws pooled over the blends of one dial, trainer, loss and number of real rows.

    Other cells keep their own. Cells of one level share pools, so what the other *levels* know limits what is lent.
    Subsamples of a pool vary the less the more of it they take, so there only cells of one share are pooled.
    """
    pooled = {cell: tuple(own) for cell, own in gains.items()}
    alike: dict[tuple[object, ...], list[Cell]] = defaultdict(list)
    for cell in gains:
        if cell.kind == "blend" and not cell.whole:
            share = cell.share if cell.scope == "this pool" else None
            alike[cell.dial, cell.trainer, cell.loss, cell.rows_per_label, cell.scope, share].append(cell)
    for cells in alike.values():
        levels = len({cell.level for cell in cells})
        for over in BASELINES:
            found = [components_of(gain) for cell in cells for gain in gains[cell] if gain.over == over]
            least = min((c.draws for c in found), default=1)
            prior = pool_spreads(found, others=(levels - 1) * (least - 1))
            for cell in cells:
                pooled[cell] = tuple(pool_gain(g, prior) if g.over == over else g for g in pooled[cell])
    return pooled


def order_cells(cells: Iterable[Cell], level_ranks: Mapping[str, Sequence[str]]) -> list[Cell]:
    """Cells by trainer, loss, rows, kind, dial and level (as expected), then share."""

    def rank(cell: Cell) -> tuple[str | int | float, ...]:
        dials, names = list(level_ranks), list(level_ranks.get(cell.dial or "", ()))
        dial, level = cell.dial or "", cell.level or ""
        at = dials.index(dial) if dial in dials else len(dials), names.index(level) if level in names else len(names)
        grid = cell.trainer, cell.loss, cell.rows_per_label, _KINDS.index(cell.kind)
        return (*grid, at[0], dial, at[1], level, cell.scope == "the recipe", cell.share)

    return sorted(cells, key=rank)


def summarise_cell(table: CellTable, gains: tuple[Gain, ...]) -> CellSummary:
    """One cell over all its draws."""
    return CellSummary(
        cell=table.cell,
        accuracy=table.accuracy,
        draws=len(table.draws),
        trials=table.trials,
        share=table.share,
        gains=gains,
    )
