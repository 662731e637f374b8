"""The grids of a study, one for each number of real rows, trainer and loss, and the search over each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cuvee.config import DialConfig, FileGenerator
from cuvee.errors import ConfigError
from cuvee.recommend import DIVERSITY, AdaptiveSearch, GridSearch, PlannedTrial, Search, plan_grid
from cuvee.records import Cell, Level, Measurement, Trial
from cuvee.study.setup import Study
from cuvee.study.work import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGrid:
    """Every level at every share, with the baselines, for one number of real rows, one trainer and one loss."""

    rows_per_label: int
    trainer: str
    loss: str
    planned: tuple[PlannedTrial, ...]

    @property
    def blends(self) -> int:
        """Planned trials of blends: the baselines are on top."""
        return sum(item.cell.kind == "blend" for item in self.planned)

    def holds(self, cell: Cell) -> bool:
        """Whether a cell is of this grid."""
        return (cell.rows_per_label, cell.trainer, cell.loss) == (self.rows_per_label, self.trainer, self.loss)


def plan_grids(study: Study, levels: Mapping[Level, Sequence[int]]) -> tuple[PlannedGrid, ...]:
    """All grids of the study; the first is the main one: the largest number of real rows, the first of trainers and
    losses.

    Args:
        study: prepared.
        levels: level -> its usable generation draws.
    """
    config = study.config
    return tuple(
        PlannedGrid(
            rows_per_label=rows,
            trainer=trainer,
            loss=loss,
            planned=plan_grid(
                levels,
                shares=config.mix.shares,
                base_share=config.mix.shape_share,
                rows_per_label=rows,
                sampling=config.draws.sampling,
                training=config.draws.training,
                trainer=trainer,
                loss=loss,
            ),
        )
        for trainer in config.train.trainers
        for loss in config.train.losses
        for rows in study.row_counts
    )


def planned_draws(study: Study, settings: DialConfig) -> int:
    """Generation draws of a dial."""
    every = study.config.draws.generation
    return min(settings.draws or every, every)


def planned_levels(study: Study, dials: Sequence[tuple[DialConfig, Sequence[Level]]]) -> dict[Level, list[int]]:
    """Level -> its generation draws, as far as they are known before there are pools."""
    draws = list(range(study.config.draws.generation))
    if isinstance(study.config.generator, FileGenerator):
        names = [(file.dial, level) for file in study.config.pools for level in file.levels]
        return {Level(dial=dial, name=level, rank=rank): draws for rank, (dial, level) in enumerate(names)}
    return {
        level: list(range(planned_draws(study, settings)))
        for settings, levels in dials
        for level in (levels if settings.target is None else levels[:1])
    }


def overlapping_shares(study: Study, rows_per_label: int | None = None) -> list[float]:
    """Shares whose blends need more rows than one generation draw holds: shown, but not tested."""
    shares = study.config.mix.shares
    return [share for share in shares if share > 0 and study.blocks_needed(share, rows_per_label) > 1]


def allowed_trials(study: Study, grid: PlannedGrid, grids: int) -> int:
    """Trials of a grid that the search may run, its baselines among them.

    Raises:
        ConfigError: the budget does not pay for the slice of the shape test.
    """
    search = study.config.search
    if search.kind == "grid":
        return len(grid.planned)
    fraction = _find_fraction(study, grid, grids)
    allowed = math.ceil(fraction * grid.blends - 1e-9)
    share = study.config.mix.shape_share
    sliced = sum(item.cell.kind == "blend" and item.cell.share == share for item in grid.planned)
    if allowed < sliced:
        raise ConfigError(
            f"search.budget {search.budget:g} gives {allowed} trials of blends to each of {grids} grids, and the "
            f"shape test alone takes {sliced}; raise it to {sliced * grids} or more, or lower draws"
        )
    return min(allowed, grid.blends) + len(grid.planned) - grid.blends


def _find_fraction(study: Study, grid: PlannedGrid, grids: int) -> float:
    """The part of its blends that a grid may run; a budget in trials is shared out evenly."""
    budget = study.config.search.budget
    return budget if budget <= 1 else min(1.0, (budget // grids) / grid.blends)


def make_search(
    study: Study, grid: PlannedGrid, measurements: Mapping[str, Measurement], *, grids: int, metric: str = DIVERSITY
) -> Search:
    """The search over a grid, nothing asked yet.

    Args:
        study: prepared.
        grid: what it may ask.
        measurements: ``dial=level`` -> what was measured on that pool.
        grids: how many share the budget.
        metric: the measured diversity that an adaptive search goes by.
    """
    search = study.config.search
    if search.kind == "grid":
        return GridSearch(grid.planned)
    allowed_trials(study, grid, grids)
    keys = {f"{item.cell.dial}={item.cell.level}" for item in grid.planned if item.cell.kind == "blend"}
    return AdaptiveSearch(
        grid.planned,
        diversity={key: measurements[key].values[metric].value for key in keys},
        shape_share=study.config.mix.shape_share,
        budget=_find_fraction(study, grid, grids),
        acquisition=search.acquisition,
        batch=search.batch,
        descriptive_shares=overlapping_shares(study, grid.rows_per_label),
    )


def value_of(outcome: Outcome) -> float | None:
    """What a search is told of a trial: its mean score, None where it failed."""
    return float(outcome.scores.per_item.mean()) if isinstance(outcome, Trial) else None


def find_winner(
    study: Study,
    grid: PlannedGrid,
    measurements: Mapping[str, Measurement],
    outcomes: Sequence[Outcome],
    *,
    grids: int,
    metric: str = DIVERSITY,
) -> Cell | None:
    """The blend that an adaptive search favours once it was told everything; None where the highest mean decides."""
    if study.config.search.kind == "grid":
        return None
    search = make_search(study, grid, measurements, grids=grids, metric=metric)
    for outcome in outcomes:
        if grid.holds(outcome.cell):
            search.tell(PlannedTrial(cell=outcome.cell, draw=outcome.draw), value_of(outcome))
    return search.best()
