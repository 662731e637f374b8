"""Which losses there are, and the settings each has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from cuvee.errors import ConfigError
from cuvee.registry import resolve_name
from cuvee.train.losses.cross_entropy import CrossEntropy
from cuvee.train.losses.protocol import Loss
from cuvee.train.losses.source_weight import SourceWeight
from cuvee.train.settings import TrainSettings

LossFactory = Callable[[TrainSettings], Loss]
LOSSES: Mapping[str, LossFactory] = {
    "ce": lambda _: CrossEntropy(),
    "source_weight": lambda s: SourceWeight(s.source_weight or 0.0),
}


def fill_loss_settings(settings: TrainSettings) -> TrainSettings:
    return settings


def build_loss(settings: TrainSettings) -> Loss:
    """The loss that ``settings`` name.

    Raises:
        ConfigError: no such loss, or settings that do not fit it.
    """
    return resolve_name(settings.loss, LOSSES, what="loss")(settings)
