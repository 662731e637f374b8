"""A study is checked whole before a token is spent or a weight is changed."""

from __future__ import annotations

from dataclasses import replace

from pydantic import TypeAdapter

from cuvee.config import FileGenerator
from cuvee.errors import ConfigError
from cuvee.registry import resolve_name
from cuvee.study.dials import StandIns, make_dials
from cuvee.study.setup import Study
from cuvee.study.writing import commission
from cuvee.train import TASKS, TRAINERS, TrainSettings, build_loss


def require_trainable(study: Study) -> None:
    """Refuse to go beyond pools and measurements where there is no trainer for the task.

    Raises:
        ConfigError: the task is not classification.
    """
    if study.config.task != "classification":
        raise ConfigError(
            f"task {study.config.task}: training and evaluation serve classification so far; "
            "`cuvee generate` and `cuvee measure` make and measure the pools of this study"
        )


def validate_study(study: Study) -> None:
    """Check trainers, loss and dials against the data.

    Raises:
        ConfigError: with the key and the remedy.
    """
    train = study.config.train
    resolve_name(train.trainer, TRAINERS, what="train.trainer")
    if train.check is not None:
        resolve_name(train.check.trainer, TRAINERS, what="train.check.trainer")
    more = TypeAdapter(TrainSettings).validate_python(train.settings)
    named = {"train.trainer": train.trainer} | ({"train.check.trainer": train.check.trainer} if train.check else {})
    for key, name in named.items():
        if name in TRAINERS and name not in TASKS["classification"]:
            raise ConfigError(f"{key}: {name!r} trains no classifier; valid: {', '.join(TASKS['classification'])}")
    build_loss(replace(more, trainer=train.trainer, loss=train.loss, source_weight=train.source_weight))
    if isinstance(study.config.generator, FileGenerator):
        return
    wanted = commission(study)
    for number, (_, dial) in enumerate(make_dials(study, StandIns())):
        try:
            dial.check(list(wanted.strata), wanted.rows)
        except ConfigError as exc:
            raise ConfigError(f"dials.{number}: {exc}") from exc
