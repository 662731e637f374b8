"""Which cells and draws to run: the full grid, or a search that spends most of the budget on the cells that tell most.

**The adaptive search always asks first, and in full,** for the baselines (real-only, real-duplicated, synthetic-only)
and the balanced slice, which is all levels at the shape share with all planned draws. Adaptive sampling biases the
means of cells, since one that looked bad by chance is not tried again (Nie et al. 2018, AISTATS); the shape test is
made of the slice alone, so it stays valid.

**Then, round by round,** a Gaussian process over (measured diversity, share, log of rows where they vary, and a
coordinate for each further dial, trainer or loss) says which cell is worth one more generation draw, by upper
confidence bound or knowledge gradient. A draw is asked whole: all its sampling and training draws. Within a round the
cells already chosen are taken to give what is expected of them (kriging believer), so that parallel workers do not all
get the same cell.

The process holds every draw of every cell and knows what cells share in a generation draw; see
:mod:`cuvee.recommend.process`. Its parameters are fitted again once a tenth more draws were told.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from cuvee.recommend.process import Grid, Places, TrialProcess, Tried, bound_above, place_cells, value_knowledge
from cuvee.recommend.statistics import Floats
from cuvee.records import Cell, Draw, Kind, Level

Acquisition = Literal["upper-confidence-bound", "knowledge-gradient"]
_REFIT = 1.1
_WIDTH = 2.0
"""Of the upper confidence bound, in standard deviations."""
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


class AdaptiveSearch:
    """Ask-and-tell search over planned trials; see the module.

    Deterministic: what is asked depends on the plan, the settings and the values told, not on their order.
    """

    def __init__(
        self,
        planned: Sequence[PlannedTrial],
        *,
        diversity: Mapping[str, float],
        shape_share: float,
        budget: float,
        acquisition: Acquisition = "upper-confidence-bound",
        batch: int = 4,
        descriptive_shares: Sequence[float] = (),
    ) -> None:
        """Plan the search.

        Args:
            planned: the full grid (``plan_grid``): the search asks a part of it.
            diversity: ``dial=level`` -> measured diversity of the pool, for every level of a blend.
            shape_share: the share of the balanced slice, at the largest number of real rows.
            budget: fraction of the planned *blend* trials to run, above 0 to 1, the slice included; the baselines
                come on top. Failed trials count.
            acquisition: how a draw's worth is told.
            batch: (cell, generation draw) pairs asked in a round.
            descriptive_shares: shares that cannot be recommended, so nothing is spent on them.

        Raises:
            ValueError: an argument is out of range, a level has no measured diversity, the plan holds no blend at
                ``shape_share``, or the budget does not pay for the slice.
        """
        _check_settings(acquisition, batch=batch, budget=budget)
        self._planned = tuple(dict.fromkeys(planned))
        self._places_of = {trial: k for k, trial in enumerate(self._planned)}  # trials are kept by their place
        blends = [k for k, t in enumerate(self._planned) if t.cell.kind == "blend"]
        self._blends = frozenset(blends)
        rows = max((self._planned[k].cell.rows_per_label for k in blends), default=0)

        def is_sliced(cell: Cell) -> bool:
            return cell.rows_per_label == rows and math.isclose(cell.share, shape_share, abs_tol=1e-9)

        def is_described(cell: Cell) -> bool:
            return any(math.isclose(cell.share, s, abs_tol=1e-9) for s in descriptive_shares)

        pairs: dict[Cell, dict[int, list[int]]] = {}
        sliced = 0
        for k in blends:
            cell, draw = self._planned[k].cell, self._planned[k].draw
            sliced += is_sliced(cell)
            if is_sliced(cell) or not is_described(cell):
                pairs.setdefault(cell, {}).setdefault(draw.generation, []).append(k)
        self._budget = math.ceil(budget * len(blends) - 1e-9)
        _check_slice(sliced, blends=[self._planned[k].cell for k in blends], shape_share=shape_share, budget=budget)
        self._cells, self._pairs = tuple(pairs), tuple(dict(sorted(by_draw.items())) for by_draw in pairs.values())
        self._first = tuple(k for k, t in enumerate(self._planned) if k not in self._blends or is_sliced(t.cell))
        pools = {name: k for k, name in enumerate(dict.fromkeys((c.dial, c.level) for c in self._cells))}
        self._grid = Grid(
            places=place_cells(self._cells, diversity),
            pools=np.array([pools[c.dial, c.level] for c in self._cells], dtype=np.intp),
        )
        self._fitted: tuple[int, TrialProcess] | None = None
        self._may_win = tuple(c.rows_per_label == rows and not is_described(c) for c in self._cells)
        self._acquisition, self._batch = acquisition, batch
        self._asked: set[int] = set()
        self._told: dict[int, float | None] = {}

    @property
    def done(self) -> bool:
        """Whether the baselines and the slice were asked and no further draw fits the budget."""
        return self._asked.issuperset(self._first) and not self._open_pairs()

    def ask(self, count: int | None = None) -> tuple[PlannedTrial, ...]:
        """The next round.

        Args:
            count: (cell, generation draw) pairs; ``batch`` by default. The first round, baselines and slice, is
                asked whole.

        Returns:
            Nothing when ``done``, and while the first round is not told in full.
        """
        if count is not None and count < 1:
            raise ValueError(f"count must be at least 1, not {count!r}")
        first = [k for k in self._first if k not in self._asked]
        if first:
            self._asked.update(first)
            return tuple(self._planned[k] for k in first)
        if any(k not in self._told for k in self._first):
            return ()
        tried = self._gather()
        process = self._fit(tried)
        for cell, draw in self._find_pending():
            tried = self._imagine(process, tried, cell, draw)
        batch: list[int] = []
        for _ in range(count or self._batch):
            open_pairs = self._open_pairs()
            if not open_pairs:
                break
            cells = np.array(list(open_pairs), dtype=np.intp)
            draws = np.array([draw for draw, _ in open_pairs.values()], dtype=np.intp)
            chosen = int(cells[np.argmax(self._weigh(process, tried, cells, draws))])
            draw, pair = open_pairs[chosen]
            self._asked.update(pair)
            batch.extend(pair)
            tried = self._imagine(process, tried, chosen, draw)
        return tuple(self._planned[k] for k in batch)

    def tell(self, trial: PlannedTrial, value: float | None) -> None:
        """What a planned trial gave: its accuracy, or None where it failed."""
        place = self._places_of.get(trial)
        if place is None:
            raise ValueError(f"trial {trial.cell.key} at {trial.draw} is not planned")
        check_value(value)
        self._told[place] = value
        self._asked.add(place)

    def best(self) -> Cell | None:
        """The blend with the highest posterior mean, at the largest number of real rows.

        It must have two generation draws at least, where any has. The Gaussian process steadies cells that
        were drawn rarely by their neighbours.
        """
        counts = [
            len(by_draw) if may_win else 0
            for may_win, by_draw in zip(self._may_win, self._average_draws(), strict=True)
        ]
        least = min(LEAST_DRAWS, max(counts, default=0))
        if least == 0:
            return None
        tried = self._gather()
        surface = TrialProcess(self._grid, tried).look(tried)
        allowed = [k for k, n in enumerate(counts) if n >= least]
        cells = self._cells
        return cells[min(allowed, key=lambda k: (-surface.mean[k], cells[k].share, cells[k].key))]

    def _open_pairs(self) -> dict[int, tuple[int, list[int]]]:
        """Cell -> its next draw and the trials of it, where that fits the budget and the cell does not keep failing."""
        used = len(self._asked & self._blends)
        found: dict[int, tuple[int, list[int]]] = {}
        for cell, by_draw in enumerate(self._pairs):
            results = [self._told[k] for pair in by_draw.values() for k in pair if k in self._told]
            failures = sum(value is None for value in results)
            if failures > 1 and 2 * failures > len(results):
                continue
            for draw, pair in by_draw.items():
                left = [k for k in pair if k not in self._asked]
                if left:
                    if used + len(left) <= self._budget:
                        found[cell] = (draw, left)
                    break
        return found

    def _find_pending(self) -> list[tuple[int, int]]:
        """Cells and draws that were asked and are not told."""
        pending = self._asked - self._told.keys()
        return [
            (cell, draw)
            for cell, by_draw in enumerate(self._pairs)
            for draw, pair in by_draw.items()
            if not pending.isdisjoint(pair)
        ]

    def _average_draws(self) -> list[dict[int, float]]:
        """Of each cell: generation draw -> mean value over its other draws, without trials that failed."""
        found: list[dict[int, float]] = []
        for by_draw in self._pairs:
            values = {g: [v for k in pair if (v := self._told.get(k)) is not None] for g, pair in by_draw.items()}
            found.append({g: math.fsum(v) / len(v) for g, v in values.items() if v})
        return found

    def _gather(self) -> Tried:
        """All draws told, in the order of cells and draws."""
        known = [(cell, g, v) for cell, table in enumerate(self._average_draws()) for g, v in table.items()]
        return Tried(
            cells=np.array([cell for cell, _, _ in known], dtype=np.intp),
            draws=np.array([g for _, g, _ in known], dtype=np.intp),
            values=np.array([v for _, _, v in known], dtype=np.float64),
        )

    def _fit(self, tried: Tried) -> TrialProcess | None:
        """The process, fitted again if a tenth more is known; None while every trial failed."""
        size = tried.values.size
        if not size:
            return None
        if self._fitted is None or size >= _REFIT * self._fitted[0]:
            self._fitted = (size, TrialProcess(self._grid, tried))
        return self._fitted[1]

    def _weigh(self, process: TrialProcess | None, tried: Tried, cells: Places, draws: Places) -> Floats:
        """What a draw of each of these cells is worth."""
        if process is None:  # nothing is known of any cell
            return np.zeros(cells.size)
        surface = process.look(tried)
        if self._acquisition == "upper-confidence-bound":
            return np.asarray(bound_above(surface, width=_WIDTH)[cells])
        return value_knowledge(surface, process.look_ahead(tried, cells, draws).slopes)

    def _imagine(self, process: TrialProcess | None, tried: Tried, cell: int, draw: int) -> Tried:
        """With a draw that is still to be told, as it is expected: that moves no mean."""
        if process is None or np.any((tried.cells == cell) & (tried.draws == draw)):
            return tried
        return tried.add(cell, draw, float(process.look_ahead(tried, np.array([cell]), np.array([draw])).mean[0]))


def _check_settings(acquisition: str, *, batch: int, budget: float) -> None:
    if acquisition not in get_args(Acquisition):
        raise ValueError(f"acquisition is {acquisition!r}; choose one of {', '.join(get_args(Acquisition))}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch!r}")
    if not 0 < budget <= 1:
        raise ValueError(f"budget is a fraction of the planned blends, above 0 to 1, not {budget!r}")


def _check_slice(sliced: int, *, blends: Sequence[Cell], shape_share: float, budget: float) -> None:
    if not sliced:
        raise ValueError(f"shape_share {shape_share!r} is not among the planned {sorted({c.share for c in blends})!r}")
    if math.ceil(budget * len(blends) - 1e-9) < sliced:
        least = sliced / len(blends)
        raise ValueError(f"budget {budget!r} does not pay for the balanced slice; it takes at least {least:.3g}")
