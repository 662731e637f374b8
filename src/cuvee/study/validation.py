"""A study is checked whole before a token is spent or a weight is changed."""

from __future__ import annotations

from cuvee.errors import ConfigError
from cuvee.registry import resolve_name
from cuvee.study.dials import StandIns, make_dials
from cuvee.study.setup import Study
from cuvee.train import TRAINERS, TrainSettings, build_loss


def validate_study(study: Study) -> None:
    """Check trainers, loss and dials against the data.

    Raises:
        ConfigError: with the key and the remedy.
    """
    train = study.config.train
    resolve_name(train.trainer, TRAINERS, what="train.trainer")
    if train.check is not None:
        resolve_name(train.check.trainer, TRAINERS, what="train.check.trainer")
    build_loss(TrainSettings(trainer=train.trainer, loss=train.loss, source_weight=train.source_weight))
    labels, rows = study.train.labels, max(study.block_rows().values())
    for number, (_, dial) in enumerate(make_dials(study, StandIns())):
        try:
            dial.check(labels, rows)
        except ConfigError as exc:
            raise ConfigError(f"dials.{number}: {exc}") from exc
