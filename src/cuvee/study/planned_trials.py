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
from cuvee.recommend import PlannedTrial, plan_grid
from cuvee.records import Cell, Level, Vectors
from cuvee.study.planned_requests import planned_draws
from cuvee.study.setup import Study
from cuvee.train import Predictor, TrainSettings, train_model

_TIMED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """Trials of one stage with one trainer.

    Attributes:
        stage: grid, check, confirm.
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
    """The trials of grid, check and confirmation."""
    config = study.config
    grid = plan_grid(
        levels,
        shares=config.mix.shares,
        base_share=config.mix.shape_share,
        rows_per_label=study.rows_per_label,
        sampling=config.draws.sampling,
        training=config.draws.training,
        trainer=config.train.trainer,
        loss=config.train.loss,
    )
    each = _time_probe(study) if config.train.trainer == "probe" and config.train.loss == "ce" else None
    stages = [_stage("grid", config.train.trainer, grid, config.train.steps, each)]
    if config.train.check is not None:
        check = config.train.check
        trials = 3 * min(check.draws, config.draws.generation)
        stages.append(
            TrialPlan(
                stage="check", trainer=check.trainer, cells=3, trials=trials, steps=check.steps, seconds_each=None
            )
        )
    if config.draws.confirm:
        trials = 3 * config.draws.confirm * config.draws.sampling * config.draws.training
        stages.append(
            TrialPlan(
                stage="confirm",
                trainer=config.train.trainer,
                cells=3,
                trials=trials,
                steps=config.train.steps,
                seconds_each=each,
            )
        )
    return stages


def _stage(name: str, trainer: str, planned: Sequence[PlannedTrial], steps: int, each: float | None) -> TrialPlan:
    cells: set[Cell] = {item.cell for item in planned}
    return TrialPlan(stage=name, trainer=trainer, cells=len(cells), trials=len(planned), steps=steps, seconds_each=each)


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
        settings = TrainSettings(trainer="probe", steps=study.config.train.steps, seed=number)
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
