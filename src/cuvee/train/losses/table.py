"""Which losses there are, and the settings each has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

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

LOSSES: Mapping[str, Callable[..., Loss]] = {
    "ce": CrossEntropy,
    "source_weight": SourceWeight,
    "online_source_weight": OnlineSourceWeight,
    "imp": ImportanceLoss,
    "dimp": DynamicImportanceLoss,
    "curriculum": Curriculum,
    "gce": GeneralizedCrossEntropy,
    "sce": SymmetricCrossEntropy,
    "agreement_filter": AgreementFilter,
    "checker_alone": CheckerAlone,
}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    name: {field.name: field.default for field in dataclasses.fields(cast("Any", loss))}
    for name, loss in LOSSES.items()
}
"""The settings of each loss and their defaults; None is found from the rows."""
_ALL_SETTINGS = tuple(dict.fromkeys(name for own in SETTINGS.values() for name in own))


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
        return factory(**{name: value for name in own if (value := getattr(settings, name)) is not None})
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
