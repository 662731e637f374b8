"""A look at learning rates before a study is paid for: one rate has to suit every cell."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cuvee.corpus import Corpus
from cuvee.encoders import Encoder
from cuvee.errors import TrainingError
from cuvee.train.model import train_model
from cuvee.train.settings import TrainSettings

_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateTrial:
    """One corner trained at one rate: training loss at the last step, or why it failed."""

    corner: str
    learning_rate: float
    loss: float
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCheck:
    """What came of the trials.

    Attributes:
        used: the rate that the settings ask for.
        best: the rate whose loss, at its worst over the corners, is least above that of the corner's own best rate.
        trials: corner by corner, rates ascending.
    """

    used: float
    best: float
    trials: tuple[RateTrial, ...]

    @property
    def rates(self) -> tuple[float, ...]:
        """All that were tried, ascending."""
        return tuple(sorted({trial.learning_rate for trial in self.trials}))

    @property
    def at_edge(self) -> bool:
        """Whether the best is the least or greatest that was tried: then look further that way."""
        return self.best in (self.rates[0], self.rates[-1])


def check_learning_rate(
    corners: Mapping[str, Corpus],
    settings: TrainSettings,
    *,
    steps: int = 10,
    factors: Sequence[float] = _FACTORS,
    encoder: Encoder | None = None,
) -> RateCheck:
    """Train the corners of a grid for few steps at several rates.

    It finds rates that run away or do not move, by the loss on the rows trained on. Which of those between
    generalises best, it does not say: that is for validation rows.

    Args:
        corners: blends by name, of the grid's extremes (least and greatest share, least and most diverse).
        settings: of the study; their rate, or the trainer's own, is the middle of those tried.
        steps: of each training.
        factors: times that rate.
        encoder: as for ``train_model``.

    Raises:
        ValueError: no corners, or a factor that is not above 0.
        TrainingError: every rate failed in some corner.
        ConfigError, InputError, MissingDependency: as ``train_model`` does.
    """
    if not corners:
        raise ValueError(f"corners is {corners!r}; give at least one")
    if not factors or not all(math.isfinite(factor) and factor > 0 for factor in factors):
        raise ValueError(f"factors is {factors!r}; give finite numbers above 0")
    short = dataclasses.replace(settings, steps=steps, checkpoint_every=None, patience=None, evaluate_every=None)
    used = _read_rate(next(iter(corners.values())), short, encoder)
    rates = sorted({used * factor for factor in factors})
    trials = [_try(name, corpus, short, rate, encoder) for name, corpus in corners.items() for rate in rates]
    return RateCheck(used=used, best=_choose(trials, rates), trials=tuple(trials))


def _read_rate(corpus: Corpus, settings: TrainSettings, encoder: Encoder | None) -> float:
    """The rate that the settings ask for; a trainer names its own after a step."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    taken = train_model(corpus, settings=dataclasses.replace(settings, steps=1), encoder=encoder).settings
    if taken.learning_rate is None:
        raise TrainingError(f"trainer {settings.trainer!r} does not name its learning rate; set learning_rate")
    return taken.learning_rate


def _try(corner: str, corpus: Corpus, settings: TrainSettings, rate: float, encoder: Encoder | None) -> RateTrial:
    losses = [math.nan]
    chosen = dataclasses.replace(settings, learning_rate=rate)
    try:
        train_model(corpus, settings=chosen, encoder=encoder, progress=lambda *event: losses.append(event[2]))
    except TrainingError as exc:
        return RateTrial(corner=corner, learning_rate=rate, loss=math.inf, failure=str(exc))
    return RateTrial(corner=corner, learning_rate=rate, loss=losses[-1])


def _choose(trials: Sequence[RateTrial], rates: Sequence[float]) -> float:
    least: dict[str, float] = {}
    for trial in trials:
        least[trial.corner] = min(trial.loss, least.get(trial.corner, math.inf))
    worst = {rate: max(t.loss - least[t.corner] for t in trials if t.learning_rate == rate) for rate in rates}
    usable = {rate: regret for rate, regret in worst.items() if math.isfinite(regret)}
    if not usable:
        reason = next(trial.failure for trial in trials if trial.failure)
        raise TrainingError(f"no rate trains every corner ({reason}); try factors below {rates[0]:g}")
    return min(usable, key=lambda rate: usable[rate])
