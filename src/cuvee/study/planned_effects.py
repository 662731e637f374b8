"""The effects that a study can see, before it has any trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cuvee.recommend.power import plan_power
from cuvee.records import Level
from cuvee.study.setup import Study


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerPlan:
    """The smallest effects, in points, that the draws find with power .8, for assumed spreads (points).

    Attributes:
        sd_between, sd_within: as assumed.
        disagreement: fraction of held-out items that two cells are assumed to answer differently.
        draws: of generation.
        gain: of a blend over real-only on validation, one among all blends.
        hump: height of an inverted U over both ends of its dial; None where the dial has fewer than three levels.
        confirm_draws: of the confirmation.
        confirmed: gain of the winner over real-only on the locked test, which decides; None without a confirmation.
    """

    sd_between: float
    sd_within: float
    disagreement: float
    draws: int
    gain: float
    hump: float | None
    confirm_draws: int
    confirmed: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumed:
    """What a user assumes: spreads in points, items answered differently, seconds of a request."""

    sd_between: float
    sd_within: float
    disagreement: float
    latency: float | None


def plan_effects(
    study: Study, levels: Mapping[Level, Sequence[int]], assumed: Assumed, *, items: int, held_out: int
) -> PowerPlan:
    """What a study can see.

    Args:
        study: prepared.
        levels: with their generation draws.
        assumed: spreads and disagreement.
        items: that validation scores.
        held_out: rows of the locked test.
    """
    draws, alpha = study.config.draws, study.config.advice.alpha
    by_dial = [[level for level in levels if level.dial == dial] for dial in dict.fromkeys(x.dial for x in levels)]
    largest = max(by_dial, key=len)
    seen = min(len(levels[level]) for level in largest)
    cells = len(levels) * len([share for share in study.config.mix.shares if share > 0])

    def smallest(generation: int, *, levels: int = 1, tests: int = 1, items: int | None = None) -> float:
        return plan_power(
            draws=generation,
            sd_between=assumed.sd_between,
            sd_within=assumed.sd_within,
            alpha=alpha,
            levels=levels,
            repeats=draws.sampling * draws.training,
            tests=tests,
            items=items,
            disagreement=assumed.disagreement,
        )

    return PowerPlan(
        sd_between=assumed.sd_between,
        sd_within=assumed.sd_within,
        disagreement=assumed.disagreement,
        draws=seen,
        gain=smallest(seen, tests=cells, items=items),
        hump=smallest(seen, levels=len(largest)) if len(largest) >= 3 else None,
        confirm_draws=draws.confirm,
        confirmed=smallest(draws.confirm, items=held_out) if draws.confirm and held_out > 1 else None,
    )
