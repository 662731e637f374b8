"""A study is checked whole before a token is spent or a weight is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import TypeAdapter

from cuvee.config import DialConfig, FileGenerator
from cuvee.errors import ConfigError
from cuvee.records import Level
from cuvee.study.dials import StandIns, make_dials
from cuvee.study.grids import allowed_trials, plan_grids, planned_levels
from cuvee.study.judging import make_judging
from cuvee.study.readymade import check_files
from cuvee.study.running import grid_recipes
from cuvee.study.setup import Study
from cuvee.study.writing import note_left_out, study_writing
from cuvee.train import TrainSettings, check_fit


def _check_training(study: Study) -> None:
    """Check each trainer with each loss, and its settings."""
    train, task = study.config.train, study.config.task
    check = train.check
    recipes = [("train", each.trainer, each.loss, each.settings) for each in grid_recipes(study)]
    if check is not None:
        recipes.append(("train.check", check.trainer, "ce", check.settings))
    for where, trainer, loss, settings in recipes:
        weight = train.source_weight if loss == "source_weight" else None
        made = TypeAdapter(TrainSettings).validate_python(settings)
        try:
            check_fit(replace(made, trainer=trainer, loss=loss, source_weight=weight), task)
        except ConfigError as exc:
            raise ConfigError(f"{where}: {exc}") from exc


def _check_budget(study: Study, dials: Sequence[tuple[DialConfig, Sequence[Level]]]) -> None:
    """Refuse a search whose budget does not pay for the shape test."""
    grids = plan_grids(study, planned_levels(study, dials))
    for grid in grids:
        allowed_trials(study, grid, len(grids))


def validate_study(study: Study) -> None:
    """Check trainers, loss and dials against the data, and the files of ready-made pools.

    Raises:
        ConfigError: with the key and the remedy.
        InputError: a file cannot be read, or lacks a column, a label or rows.
    """
    study.config.execute.cluster()
    _check_training(study)
    make_judging(study.config.evaluate)  # reads the file of passages
    if isinstance(study.config.generator, FileGenerator):
        check_files(study)
        _check_budget(study, [])
        return
    wanted = study_writing(study)
    note_left_out(study, wanted)
    made = make_dials(study, StandIns())
    for number, (_, dial) in enumerate(made):
        try:
            dial.check(list(wanted.strata), wanted.rows)
        except ConfigError as exc:
            raise ConfigError(f"dials.{number}: {exc}") from exc
    _check_budget(study, [(settings, dial.levels) for settings, dial in made])
