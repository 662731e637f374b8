"""Which losses there are and the settings of each; those without a checker."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from cuvee.errors import ConfigError
from cuvee.probe import Phase, WeightedRows
from cuvee.records import Floats
from cuvee.registry import Kind, resolve_name
from cuvee.train.checkers import AgreementFilter, CheckerAlone, DynamicImportanceLoss, ImportanceLoss, SourceWeight
from cuvee.train.settings import TrainSettings
from cuvee.train.weighting import Loss, PreparedLoss, TrainingRows, name_failure

_RAMP = 0.01  # of log p, over which the slope of tce ends
LOG_ZERO = -4.0  # what the reverse cross-entropy takes for log 0 (called A in the paper)


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Every row counts the same: real and synthetic rows are pooled."""

    def prepare(self, rows: TrainingRows) -> WeightedRows:
        """Ones."""
        return WeightedRows(np.ones(len(rows.synthetic)))


@dataclass(frozen=True, slots=True)
class Curriculum:
    """A synthetic phase of ``synthetic_share`` of the steps, then a real phase with a proximal pull.

    The pull, ``pull / 2 * |theta - theta_0|^2``, is L2-SP (Li et al. 2018, arXiv 1802.01483): towards the start of
    the phase and not towards zero. A pull without bound leaves the synthetic-only model, a pull of 0 with steps
    enough to converge, as the probe has them, the real-only one. Where one source is missing, the other one takes all
    steps. The probe reaches the optimum of each phase, so its share is of no account.
    """

    synthetic_share: float = 0.5
    pull: float = 0.01

    def prepare(self, rows: TrainingRows) -> WeightedRows:
        """Two phases."""
        weights = np.ones(len(rows.synthetic))
        synthetic, real = np.flatnonzero(rows.synthetic), np.flatnonzero(~rows.synthetic)
        if not len(synthetic) or not len(real):
            return WeightedRows(weights)
        first = Phase(rows=synthetic, share=self.synthetic_share)
        return WeightedRows(weights, (first, Phase(rows=real, share=1 - self.synthetic_share, pull=self.pull)))


@dataclass(frozen=True, slots=True)
class GeneralizedCrossEntropy:
    """GCE: ``(1 - p^q) / q``, between cross-entropy (q to 0) and mean absolute error (q = 1).

    Its gradient is p^q times that of cross-entropy: rows whose label the model finds unlikely count less
    (Zhang and Sabuncu 2018, arXiv 1805.07836; q = 0.7 there). For all rows, real ones too.
    """

    q: float = 0.7

    def prepare(self, rows: TrainingRows) -> WeightedRows:
        """The same for every row."""
        q = self.q
        return WeightedRows(
            np.ones(len(rows.synthetic)),
            slope=lambda log_p: -np.exp(q * log_p),
            value=lambda log_p: -np.expm1(q * log_p) / q,
        )


@dataclass(frozen=True, slots=True)
class SymmetricCrossEntropy:
    """SCE: ``alpha`` cross-entropies and ``beta`` reverse ones, ``-sum_k p_k log q_k`` with log 0 = -4.

    For a one-hot label the reverse part is ``4 (1 - p)``: four times the mean absolute error (Wang et al. 2019,
    arXiv 1908.06112; alpha 0.1, beta 1 on ten classes, 6 and 0.1 on a hundred). For all rows, real ones too.
    """

    alpha: float = 0.1
    beta: float = 1.0

    def __post_init__(self) -> None:
        if self.alpha + self.beta == 0:
            raise ConfigError("loss 'sce' has alpha and beta of 0, so nothing would be learnt; give one above 0")

    def prepare(self, rows: TrainingRows) -> WeightedRows:
        """The same for every row."""
        alpha, reverse = self.alpha, self.beta * LOG_ZERO
        return WeightedRows(
            np.ones(len(rows.synthetic)),
            slope=lambda log_p: -alpha + reverse * np.exp(log_p),
            value=lambda log_p: -alpha * log_p + reverse * np.expm1(log_p),
        )


@dataclass(frozen=True, slots=True)
class TruncatedCrossEntropy:
    """TCE: cross-entropy of rows whose target has a probability of at most ``gamma``; the others give no gradient.

    A model is surest of what it wrote itself, so such rows count less (Shabgahi et al. 2025, arXiv 2509.08972, there
    of single tokens; here of a row: of a completion the geometric mean over its tokens). It ends at the label law
    whose probabilities are cut to ``gamma``; gamma 1 is ``ce``. For all rows, real ones too. The slope falls
    to nothing within a hundredth above ``gamma``: at a jump no gradient vanishes, so no descent would end there.
    """

    gamma: float = 0.9

    def __post_init__(self) -> None:
        if self.gamma > 1:
            raise ConfigError(f"gamma is {self.gamma:g}; of loss 'tce' it is a probability, above 0 and at most 1")

    def prepare(self, rows: TrainingRows) -> WeightedRows:
        """The same for every row."""
        bound = np.log(self.gamma)

        def value(log_p: Floats) -> Floats:
            over = np.clip(log_p - bound, 0.0, _RAMP)
            return np.asarray(np.maximum(bound - log_p, 0.0) - over * (1.0 - over / (2.0 * _RAMP)))

        return WeightedRows(
            np.ones(len(rows.synthetic)),
            slope=lambda log_p: np.clip((log_p - bound) / _RAMP - 1.0, -1.0, 0.0),
            value=value,
        )


LOSSES: Mapping[str, Callable[..., Loss]] = {
    "ce": CrossEntropy,
    "source_weight": SourceWeight,
    "imp": ImportanceLoss,
    "dimp": DynamicImportanceLoss,
    "curriculum": Curriculum,
    "gce": GeneralizedCrossEntropy,
    "sce": SymmetricCrossEntropy,
    "tce": TruncatedCrossEntropy,
    "agreement_filter": AgreementFilter,
    "checker_alone": CheckerAlone,
}
# The settings of each loss and their defaults; None is found from the rows.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    name: {field.name: field.default for field in dataclasses.fields(cast("Any", loss))}
    for name, loss in LOSSES.items()
}
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
        return factory(settings)


def fill_loss_settings(settings: TrainSettings, prepared: PreparedLoss) -> TrainSettings:
    """The settings with what the loss took in place of None, a chosen source weight among it."""
    numbers = {name: getattr(settings, name) for name in _ALL_SETTINGS}
    for name, default in SETTINGS.get(settings.loss, {}).items():
        numbers[name] = default if numbers[name] is None else numbers[name]
    if isinstance(prepared, WeightedRows) and prepared.source_weight is not None:
        numbers["source_weight"] = prepared.source_weight
    return dataclasses.replace(settings, **numbers)
