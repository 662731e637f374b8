"""Confirming the winner on the locked test, in a few looks, each with more fresh draws than the last.

Draws cost, and most winners are settled by a few of them. So the test is read after a third, two thirds and all of the
draws that were planned (:func:`plan_looks`), and no further where a look shows that the winner gains, or that it does
not gain more than ``delta``. Whoever looks again and again at 5% is wrong more often than in 5%; here the error of all
looks together is at most ``alpha`` (:func:`find_level`), by an alpha-spending function (Lan & DeMets 1983, Biometrika
70): up to the d-th of D planned draws ``0.9 alpha d / D`` may be spent (Kim & DeMets 1987, Biometrika 74). The looks at
4, 8 and 12 draws are each tested at 0.015, 0.020 and 0.025. A look beyond the plan, because someone asked for more
draws afterwards, may spend half of what is left.

A look holds the draws of the one before. Had the draws alone an error, the means at looks with ``d`` and ``e`` draws
would be correlated by ``sqrt(d / e)``; the held-out items are the same at each look, so they are correlated more, and
levels for the draws alone are on the safe side. Critical values are those of the normal distribution as p-values
(Jennison & Turnbull 2000, *Group Sequential Methods*, ch. 11), p-values those of t. By simulation
(``benchmarks/error_rates.py``) this decides with fewer draws than O'Brien-Fleming's function (6.9 in place of 9.0 for a
gain of 3 points, SD of draws 1 point), and more often than Pocock's (0.74 in place of 0.71, SD 2 points).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, special

from cuvee.recommend.cells import BASELINES, collect_tables, gains_of
from cuvee.recommend.statistics import LEAST_POOLED, is_above, is_ruled_out, pool_again
from cuvee.records import Cell, Confirmation, Floats, Gain, Trial

_LOOKS = 3
_PLANNED = 0.9  # of alpha, what the planned looks spend
# Where densities of sums of draws are computed, in standard deviations of the largest.
_GRID = np.linspace(-8.0, 8.0, 1601)


def plan_looks(draws: int) -> tuple[int, ...]:
    """After how many draws the test is read: ``12`` gives 4, 8 and 12; ``6`` gives 3 and 6; ``2`` gives 2."""
    step = max(LEAST_POOLED, math.ceil(draws / _LOOKS))
    return tuple(min(draws, step * k) for k in range(1, math.ceil(draws / step) + 1))


@cache
def find_level(looks: tuple[int, ...], planned: int, alpha: float) -> float:
    """The two-sided level of the last look, as the module says.

    Args:
        looks: draws at each look so far, none for a test that no other look can follow.
        planned: draws at the last planned look.
        alpha: of all looks together.
    """
    if not looks:
        return alpha
    tail, spent, level = alpha / 2.0, 0.0, 0.0
    sums, weights, before = np.zeros(1), np.ones(1), 0.0  # the sum of draws where no look has decided yet
    for k, draws in enumerate(looks):
        most = _PLANNED * tail * min(1.0, draws / planned)
        if k and looks[k - 1] >= planned:
            most = spent + (tail - spent) / 2.0
        increment, now = max(most - spent, 0.0), draws / max(looks)
        if now <= before or increment <= 0.0:  # no more draws than before, but otherwise made: another test
            level, spent = increment, spent + increment
            continue
        spread = math.sqrt(now - before)

        bound = _find_bound(sums, weights, spread, increment)
        level, spent = float(special.ndtr(-bound / math.sqrt(now))), spent + increment
        kept = _GRID[_GRID < bound]
        steps = np.exp(-0.5 * ((kept[:, None] - sums) / spread) ** 2) / (spread * math.sqrt(2.0 * math.pi))
        sums, weights, before = kept, (steps @ weights) * (_GRID[1] - _GRID[0]), now
    return 2.0 * level


def _find_bound(sums: Floats, weights: Floats, spread: float, tail: float) -> float:
    """What sums of that density exceed with probability ``tail`` once so much more is added to them."""
    return float(optimize.brentq(lambda b: float(weights @ special.ndtr((sums - b) / spread)) - tail, -8.0, 16.0))


def confirm_cell(trials: Iterable[Trial], cell: Cell, *, fresh_draws: bool) -> Confirmation:
    """The confirmation of ``cell`` from trials on the locked test, its baselines among them, which is read once.

    Args:
        trials: those with ``part == "test"`` count, at least one of ``cell``.
        cell: the winner on validation.
        fresh_draws: whether their draws took no part in the choice.
    """
    tables = collect_tables(trials, part="test")
    own = tables[cell]
    return Confirmation(
        cell=cell, accuracy=own.accuracy, gains=gains_of(tables, cell), test_items=own.items, fresh_draws=fresh_draws
    )


def find_training_part(trials: Iterable[Trial], gain: Gain, like: Cell) -> float:
    """By how much the variance of a gain over draws grows where a draw is trained on once, as a fraction of it.

    Args:
        trials: on validation; those of cells with the trainer and loss of ``like`` count.
        gain: of ``like``, with what its draws vary by.
        like: the cell.
    """
    scores: dict[tuple[Cell, int, int], list[float]] = defaultdict(list)
    for trial in trials:
        if (trial.part, trial.cell.trainer, trial.cell.loss) == ("validation", like.trainer, like.loss):
            scores[trial.cell, trial.draw.generation, trial.draw.sampling].append(float(trial.scores.per_item.mean()))
    repeated = [own for own in scores.values() if len(own) > 1]
    if not repeated or gain.draws < 2:
        return math.inf
    each = float(np.mean([np.var(own, ddof=1) * (1.0 - 1.0 / len(own)) for own in repeated]))
    samplings = max(Counter((cell, generation) for cell, generation, _ in scores).values())
    added = 2.0 * each / (samplings if like.scope == "the recipe" else 1)
    return added / max(gain.se_draws**2 * gain.draws, added * 1e-9, 1e-30)


@dataclass(frozen=True, slots=True, kw_only=True)
class LookResult:
    """What a look says.

    Attributes:
        gains: with the spread over draws pooled with what validation knows.
        level: that they are tested at, two-sided.
        shown: whether all are shown to be above 0.
        ruled_out: whether one is shown to be at most ``delta``.
    """

    gains: tuple[Gain, ...]
    level: float
    shown: bool
    ruled_out: bool

    @property
    def is_settled(self) -> bool:
        """Whether more draws of the winner have nothing to add to the verdict."""
        return self.shown or self.ruled_out


def judge_confirmation(
    confirmation: Confirmation, validated: Iterable[Gain], *, delta: float, alpha: float
) -> LookResult:
    """Test the winner's gains on the locked test.

    Args:
        confirmation: of the winner.
        validated: its gains on validation, pooled over the blends of its dial.
        delta: the smallest gain that counts.
        alpha: the level of all looks together.
    """
    gains, level = confirmation.gains, find_level(confirmation.looks, confirmation.planned, alpha)
    if confirmation.fresh_draws:
        known = {gain.over: gain for gain in validated}
        gains = tuple(pool_again(g, known[g.over]) if g.over in known else g for g in gains)
    return LookResult(
        gains=gains,
        level=level,
        shown={g.over for g in gains} >= set(BASELINES) and all(is_above(gain, alpha=level) for gain in gains),
        ruled_out=any(is_ruled_out(gain, delta, alpha=level) for gain in gains),
    )
