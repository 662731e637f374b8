"""Which trials a study will run, and how long they take here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cuvee.config import DialConfig, FileGenerator
from cuvee.execute.machine import usable_cores
from cuvee.records import Level
from cuvee.study.grids import PlannedGrid, allowed_trials, plan_grids
from cuvee.study.planned_requests import planned_draws
from cuvee.study.planned_timing import RecipeTime, TrialClock, Untimed, as_recipe, choose_typical
from cuvee.study.running import Recipe, grid_recipes
from cuvee.study.setup import Study
from cuvee.study.trials import count_epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """Trials of one stage with one trainer.

    Attributes:
        stage: grid, check, equal epochs, confirm.
        trainer: of all its trials.
        cells, trials: how many.
        steps: optimiser steps of each.
        seconds_each: of one, timed here on rows of this study, the mean over its losses and cells; None where that was
            not timed.
        start: seconds once in each place where trials run: models are loaded.
        rough: whether a step took so long that no more than one was timed.
    """

    stage: str
    trainer: str
    cells: int
    trials: int
    steps: int
    seconds_each: float | None
    start: float = 0.0
    rough: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialsPlan:
    """All trials of a study.

    Attributes:
        stages: in their order.
        timings: of each trainer and loss that could be timed.
        workers: trials at once; None where a cluster decides.
        seconds: of all stages that were timed, over the workers (one where they are not known); None if none was.
        notes: what was not timed and why, and how sure the numbers are.
    """

    stages: tuple[TrialPlan, ...]
    timings: tuple[RecipeTime, ...]
    workers: int | None
    seconds: float | None
    notes: tuple[str, ...]


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


def plan_trials(study: Study, levels: Mapping[Level, Sequence[int]]) -> TrialsPlan:
    """The trials of grids, check, equal epochs and confirmation, and their time.

    Every trainer with every loss is timed, some seconds each.

    Raises:
        ConfigError: the search's budget does not pay for the shape test.
    """
    grids = plan_grids(study, levels)
    counted = [allowed_trials(study, grid, len(grids)) for grid in grids]
    timed = _time_recipes(study, grids)
    stages = _plan_grids(study, grids, counted, timed)
    main = grids[0]
    stages += [*_plan_check(study, main, timed), *_plan_epochs(study, main, timed), *_plan_confirm(study, main, timed)]
    workers = count_workers(study)
    known = [each for each in timed.values() if isinstance(each, RecipeTime)]
    return TrialsPlan(
        stages=tuple(stages),
        timings=tuple(known),
        workers=workers,
        seconds=_add_up(study, stages, known, workers),
        notes=tuple(_notes(study, list(timed.values()), workers)),
    )


_Timed = Mapping[tuple[str, str, str], RecipeTime | Untimed]
"""By what it is for (grid or check), trainer and loss: the check has settings of its own."""


def _time_recipes(study: Study, grids: Sequence[PlannedGrid]) -> _Timed:
    clock, found = TrialClock(study), {}
    for recipe in grid_recipes(study):
        own = [g for g in grids if (g.trainer, g.loss) == (recipe.trainer, recipe.loss)]
        typical = choose_typical(study, [item for grid in own for item in grid.planned])
        found["grid", recipe.trainer, recipe.loss] = clock.time(recipe, typical)
    check = study.config.train.check
    if check is not None:
        recipe = Recipe(trainer=check.trainer, loss="ce", steps=check.steps, settings=check.settings)
        typical = choose_typical(study, grids[0].planned)
        found["check", recipe.trainer, recipe.loss] = clock.time(recipe, as_recipe(typical, recipe))
    return found


def _plan_grids(study: Study, grids: Sequence[PlannedGrid], counted: Sequence[int], timed: _Timed) -> list[TrialPlan]:
    rows, stages = len(study.split.validation), []
    for trainer in study.config.train.trainers:
        own = [(grid, count) for grid, count in zip(grids, counted, strict=True) if grid.trainer == trainer]
        steps = study.config.train.steps_of(trainer)
        pairs = [(timed["grid", trainer, grid.loss], count) for grid, count in own]
        known = [(each, count) for each, count in pairs if isinstance(each, RecipeTime)]
        spent = math.fsum(each.seconds(steps=steps, rows=rows) * count for each, count in known)
        stages.append(
            TrialPlan(
                stage="grid",
                trainer=trainer,
                cells=sum(len({item.cell for item in grid.planned}) for grid, _ in own),
                trials=sum(count for _, count in own),
                steps=steps,
                seconds_each=spent / sum(count for _, count in known) if known else None,
                start=max((each.start for each, _ in known), default=0.0),
                rough=any(each.rough for each, _ in known),
            )
        )
    return stages


def _plan_stage(
    name: str, trainer: str, timed: RecipeTime | Untimed, *, cells: int, trials: int, steps: int, seconds: float | None
) -> TrialPlan:
    known = timed if isinstance(timed, RecipeTime) else None
    return TrialPlan(
        stage=name,
        trainer=trainer,
        cells=cells,
        trials=trials,
        steps=steps,
        seconds_each=seconds,
        start=0.0 if known is None else known.start,
        rough=known is not None and known.rough,
    )


def _plan_check(study: Study, main: PlannedGrid, times: _Timed) -> list[TrialPlan]:
    """Real-only, the best cells, the most diverse one: at most, since they may be the same."""
    check = study.config.train.check
    if check is None:
        return []
    blends = len({item.cell for item in main.planned if item.cell.kind == "blend"})
    cells = 1 + min(1 + check.keep, blends)
    trials = cells * min(check.draws, study.config.draws.generation)
    timed = times["check", check.trainer, "ce"]
    each = timed.seconds(steps=check.steps, rows=len(study.split.validation)) if isinstance(timed, RecipeTime) else None
    return [_plan_stage("check", check.trainer, timed, cells=cells, trials=trials, steps=check.steps, seconds=each)]


def _plan_epochs(study: Study, main: PlannedGrid, times: _Timed) -> list[TrialPlan]:
    """The levels at the share of the shape test, the best cell, which may have another, their baselines: at most."""
    config = study.config
    if "equal-epochs" not in config.train.sensitivity:
        return []
    share = config.mix.shape_share
    wanted = [
        item
        for item in main.planned
        if (item.cell.kind in ("blend", "real-duplicated") and item.cell.share == share)
        or item.cell.kind == "real-only"
    ]
    best = 0 if len(set(config.mix.shares) - {0.0}) < 2 else 2  # the best cell, and the real rows repeated beside it
    draws = len({item.draw for item in wanted})
    epochs, steps = count_epochs(study), config.train.steps_of(main.trainer)
    longer = [epochs[item.cell.kind, item.cell.share] for item in wanted] + [epochs["blend", share]] * best * draws
    timed, seconds = times["grid", main.trainer, main.loss], None
    if isinstance(timed, RecipeTime):
        mean = steps * math.fsum(longer) / len(longer)
        seconds = timed.seconds(steps=mean, rows=len(study.split.validation))
    return [
        _plan_stage(
            "equal epochs",
            main.trainer,
            timed,
            cells=len({item.cell for item in wanted}) + best,
            trials=len(longer),
            steps=round(steps * epochs["blend", share]),
            seconds=seconds,
        )
    ]


def _plan_confirm(study: Study, main: PlannedGrid, times: _Timed) -> list[TrialPlan]:
    """The winner and its two baselines on the locked test."""
    draws, steps = study.config.draws, study.config.train.steps_of(main.trainer)
    if not draws.confirm:
        return []
    timed = times["grid", main.trainer, main.loss]
    each = timed.seconds(steps=steps, rows=len(study.split.test)) if isinstance(timed, RecipeTime) else None
    trials = 3 * draws.confirm * draws.sampling * draws.training
    return [_plan_stage("confirm", main.trainer, timed, cells=3, trials=trials, steps=steps, seconds=each)]


def _add_up(
    study: Study, stages: Sequence[TrialPlan], known: Sequence[RecipeTime], workers: int | None
) -> float | None:
    """Seconds of the timed stages: trials in rounds of as many as there are workers, models loaded on the way."""
    timed = [(stage, stage.seconds_each) for stage in stages if stage.seconds_each is not None]
    if not timed:
        return None
    spent = math.fsum(math.ceil(stage.trials / (workers or 1)) * each for stage, each in timed)
    # here a model stays loaded; workers are new ones in every stage, and load together
    is_local = study.config.execute.kind == "local"
    return spent + math.fsum([t.start for t in known] if is_local else [stage.start for stage, _ in timed])


def _notes(study: Study, timed: Sequence[RecipeTime | Untimed], workers: int | None) -> list[str]:
    notes = [
        f"trials of {each.trainer} with loss {each.loss} are not timed, and not in the estimate ({each.reason}); "
        "plan downloads nothing"
        for each in timed
        if isinstance(each, Untimed)
    ]
    notes += [
        f"{each.trainer} with loss {each.loss}: a trial of one step trained for {each.step:.0f} s, so none of more was "
        "timed; what a trial takes beside its steps is counted at every step: its time is at most as shown, and may be "
        "a fraction of it"
        for each in timed
        if isinstance(each, RecipeTime) and each.rough
    ]
    if study.config.execute.kind != "local" and len(notes) < len(timed):
        how = "as if one followed the other" if workers is None else f"and divided by {workers} workers"
        notes.append(
            f"trials were timed alone on this machine, {how}: trials that share memory and cores are slower, and "
            "starting workers is not in the estimate"
        )
    return notes


def count_workers(study: Study) -> int | None:
    """Trials at once; None where a cluster decides."""
    execute = study.config.execute
    if execute.kind == "local":
        return 1
    if execute.workers != "auto":
        return execute.workers
    return None if execute.kind == "ray" else max(1, usable_cores() // (execute.cpus or 1))
