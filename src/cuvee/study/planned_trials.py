"""Which trials a study will run, and how long a probe takes here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cuvee.config import DialConfig, FileGenerator
from cuvee.encoders import DEFAULT_ENCODER
from cuvee.evaluate import score_proba
from cuvee.execute.machine import usable_cores
from cuvee.fingerprint import derive_rng
from cuvee.mix import mix_corpora
from cuvee.records import Level, Vectors
from cuvee.study.grids import PlannedGrid, allowed_trials, plan_grids
from cuvee.study.planned_requests import planned_draws
from cuvee.study.running import grid_recipes
from cuvee.study.setup import Study
from cuvee.study.trials import count_epochs
from cuvee.train import Predictor, TrainSettings, train_model

_TIMED = 2
_TIMED_RECIPE = ("probe", "ce")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """Trials of one stage with one trainer.

    Attributes:
        stage: grid, check, equal epochs, confirm.
        trainer: of all its trials.
        cells, trials: how many.
        steps: optimiser steps of each.
        seconds_each: timed here, on rows of this study; None where that was not timed.
    """

    stage: str
    trainer: str
    cells: int
    trials: int
    steps: int
    seconds_each: float | None


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


def plan_trials(study: Study, levels: Mapping[Level, Sequence[int]]) -> list[TrialPlan]:
    """The trials of grids, check, equal epochs and confirmation.

    Raises:
        ConfigError: the search's budget does not pay for the shape test.
    """
    config, grids = study.config, plan_grids(study, levels)
    each = _time_probe(study) if any((g.trainer, g.loss) == _TIMED_RECIPE for g in grids) else None
    steps = {(r.trainer, r.loss): r.steps for r in grid_recipes(study)}
    stages = []
    for trainer in config.train.trainers:
        own = [grid for grid in grids if grid.trainer == trainer]
        timed = each if all((g.trainer, g.loss) == _TIMED_RECIPE for g in own) else None
        stages.append(
            TrialPlan(
                stage="grid",
                trainer=trainer,
                cells=sum(len({item.cell for item in grid.planned}) for grid in own),
                trials=sum(allowed_trials(study, grid, len(grids)) for grid in own),
                steps=steps[trainer, own[0].loss],
                seconds_each=timed,
            )
        )
    main = grids[0]
    timed = each if (main.trainer, main.loss) == _TIMED_RECIPE else None
    stages += [*_plan_check(study, main), *_plan_epochs(study, main, timed)]
    if config.draws.confirm:
        trials = 3 * config.draws.confirm * config.draws.sampling * config.draws.training
        stages.append(
            TrialPlan(
                stage="confirm",
                trainer=main.trainer,
                cells=3,
                trials=trials,
                steps=steps[main.trainer, main.loss],
                seconds_each=timed,
            )
        )
    return stages


def _plan_check(study: Study, main: PlannedGrid) -> list[TrialPlan]:
    """Real-only, the best cells, the most diverse one: at most, since they may be the same."""
    check = study.config.train.check
    if check is None:
        return []
    blends = len({item.cell for item in main.planned if item.cell.kind == "blend"})
    cells = 1 + min(1 + check.keep, blends)
    trials = cells * min(check.draws, study.config.draws.generation)
    return [
        TrialPlan(
            stage="check", trainer=check.trainer, cells=cells, trials=trials, steps=check.steps, seconds_each=None
        )
    ]


def _plan_epochs(study: Study, main: PlannedGrid, each: float | None) -> list[TrialPlan]:
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
    longer = count_epochs(study)["blend", share]
    return [
        TrialPlan(
            stage="equal epochs",
            trainer=main.trainer,
            cells=len({item.cell for item in wanted}) + best,
            trials=len(wanted) + best * draws,
            steps=round(config.train.steps_of(main.trainer) * longer),
            seconds_each=None if each is None else each * longer,
        )
    ]


class _RandomVectors:
    """An encoder for timing: vectors of the right width, which cost nothing and are never kept."""

    name = "random"
    hash = "random"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""
        drawn = derive_rng(0, "timing").standard_normal((len(texts), self.dim), dtype=np.float32)
        made: Vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        return made


def _time_probe(study: Study) -> float:
    """Seconds of one trial: a blend as large as that of the shape test, trained and evaluated; the better of two."""
    mix, held_out = study.config.mix, study.split.validation
    dim = 384 if study.config.encoder == DEFAULT_ENCODER else study.encoder.dim
    encoder = _RandomVectors(dim)
    took = []
    for number in range(_TIMED):
        start = time.perf_counter()
        rows = mix_corpora(
            study.train, share=mix.shape_share, regime=mix.regime, seed=number, kind="real-duplicated"
        ).corpus
        settings = TrainSettings(trainer="probe", steps=study.config.train.steps_of("probe"), seed=number)
        predictor = train_model(rows, settings=settings, encoder=encoder)
        assert isinstance(predictor, Predictor)
        score_proba(predictor.predict_proba(held_out.texts), predictor.labels, held_out.targets)
        took.append(time.perf_counter() - start)
    return min(took)


def count_workers(study: Study) -> int | None:
    """Trials at once; None where a cluster decides."""
    execute = study.config.execute
    if execute.kind == "local":
        return 1
    if execute.workers != "auto":
        return execute.workers
    return None if execute.kind == "ray" else max(1, usable_cores() // (execute.cpus or 1))
