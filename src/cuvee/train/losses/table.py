"""Which losses there are, and the settings each has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from cuvee.errors import ConfigError
from cuvee.registry import Kind, resolve_name
from cuvee.train.losses.checkers import AgreementFilter, CheckerAlone
from cuvee.train.losses.importance import DynamicImportanceLoss, ImportanceLoss
from cuvee.train.losses.plain import (
    CrossEntropy,
    Curriculum,
    GeneralizedCrossEntropy,
    OnlineSourceWeight,
    SymmetricCrossEntropy,
)
from cuvee.train.losses.protocol import Loss, PreparedLoss
from cuvee.train.losses.rows import OwnLoss, name_failure
from cuvee.train.losses.source_weight import SourceWeight, SourceWeightedRows
from cuvee.train.settings import TrainSettings

LossFactory = Callable[[TrainSettings], Loss]
SETTINGS: Mapping[str, Mapping[str, float | None]] = {
    "ce": {},
    "source_weight": {"source_weight": None},
    "online_source_weight": {"floor": 0.0},
    "imp": {"clip": 10.0},
    "dimp": {"gamma": 1.0, "clip": 10.0},
    "curriculum": {"synthetic_share": 0.5, "pull": 0.01},
    "gce": {"q": 0.7},
    "sce": {"alpha": 0.1, "beta": 1.0},
    "agreement_filter": {},
    "checker_alone": {},
}
"""The settings of each loss and their defaults; None is found from the rows."""
_ALL_SETTINGS = tuple(dict.fromkeys(name for own in SETTINGS.values() for name in own))


def _number(settings: TrainSettings, name: str) -> float:
    value: float | None = getattr(settings, name)
    default = SETTINGS[settings.loss][name]
    return float(value if value is not None else default or 0.0)


def _source_weight(settings: TrainSettings) -> Loss:
    weight = settings.source_weight
    if weight is not None and not (np.isfinite(weight) and weight >= 0):
        raise ConfigError(
            "loss 'source_weight' needs source_weight, a number of at least 0, or none to choose it from the real "
            f"rows; it is {weight!r}"
        )
    return SourceWeight(weight)


LOSSES: Mapping[str, LossFactory] = {
    "ce": lambda _: CrossEntropy(),
    "source_weight": _source_weight,
    "online_source_weight": lambda s: OnlineSourceWeight(_number(s, "floor")),
    "imp": lambda s: ImportanceLoss(_number(s, "clip")),
    "dimp": lambda s: DynamicImportanceLoss(_number(s, "gamma"), _number(s, "clip")),
    "curriculum": lambda s: Curriculum(_number(s, "synthetic_share"), _number(s, "pull")),
    "gce": lambda s: GeneralizedCrossEntropy(_number(s, "q")),
    "sce": lambda s: SymmetricCrossEntropy(_number(s, "alpha"), _number(s, "beta")),
    "agreement_filter": lambda _: AgreementFilter(),
    "checker_alone": lambda _: CheckerAlone(),
}


def build_loss(settings: TrainSettings) -> Loss:
    """The loss that ``settings`` name.

    Raises:
        ConfigError: no such loss, or settings that do not fit it.
    """
    factory = resolve_name(settings.loss, LOSSES, Kind(name="loss", makes=Loss))
    if settings.loss in SETTINGS:
        own = SETTINGS[settings.loss]
        for name in _ALL_SETTINGS:
            value = getattr(settings, name)
            if value is not None and name not in own:
                owners = " or ".join(loss for loss, names in SETTINGS.items() if name in names)
                raise ConfigError(f"{name} is {value!r}, but loss {settings.loss!r} has none; set loss: {owners}")
        if settings.loss == "sce" and _number(settings, "alpha") + _number(settings, "beta") == 0:
            raise ConfigError("loss 'sce' has alpha and beta of 0, so nothing would be learnt; give one above 0")
    if settings.loss in LOSSES:
        return factory(settings)
    with name_failure("loss", settings.loss):
        return OwnLoss(settings.loss, factory(settings))


def fill_loss_settings(settings: TrainSettings, prepared: PreparedLoss) -> TrainSettings:
    """The settings with what the loss took in place of None, a chosen source weight among it."""
    numbers = {name: getattr(settings, name) for name in _ALL_SETTINGS}
    for name, default in SETTINGS.get(settings.loss, {}).items():
        numbers[name] = default if numbers[name] is None else numbers[name]
    if isinstance(prepared, SourceWeightedRows):
        numbers["source_weight"] = prepared.source_weight
    return dataclasses.replace(settings, **numbers)
