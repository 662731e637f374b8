"""The decision rule: which blend is best, and whether it, or none, is to be used.

**Which is best.** The highest mean score among the cells that may win, each freed of what its draws share: from the
value of each draw the mean of all complete cells in that draw is taken, so a cell that lacks the bad draws gains
nothing by it. Ties go to the smaller share. An adaptive search names the winner itself.

**What is decided.** The winner's gains over real-only and over real-duplicated count: those of a confirmation on the
locked test, where there was one, else those on validation.

- *use*: both gains are above 0 with p at most ``alpha``. On validation p is Holm's over all candidates (the larger
  p-value of the two for each), because the best of many cells looks better than it is.
- *do-not-use*: for every candidate a gain of more than ``delta`` over real-only, or over real-duplicated, is ruled
  out: the upper end of its 1 - ``alpha`` interval is at most ``delta``. The winner's interval is that of the
  confirmation, the others' are those on validation. All must be ruled out, so no correction is needed (an
  intersection-union test). Where the winner alone is ruled out, that is said, and nothing is decided.
- *underpowered*: neither. A gain that is shown but ruled out to be above ``delta`` is no reason to generate data, nor
  is one generation draw, which says nothing of how draws differ.

A second look at the locked test, with more draws, is tested at half of ``alpha``, a third at a quarter, and so on:
whoever goes on until something shows is then wrong at most twice as often as ``alpha`` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cuvee.recommend.cells import BASELINES, CellTable, difference_of, gains_of
from cuvee.recommend.statistics import adjust_holm, count_more_draws, is_above, is_ruled_out, split_variance
from cuvee.records import Cell, Confirmation, Gain
from cuvee.records.advice import Decision

Tables = Mapping[Cell, CellTable]

DRAWS_TO_START = 5
"""Generation draws from which the spread between draws can be told; what one draw alone is advised to reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What would show ``effect``: so many more draws of generation or confirmation; None where draws cannot."""

    effect: float
    draws: int | None
    of: Literal["generation", "confirm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was decided on which gains.

    Attributes:
        decision: as the module says.
        best: the winner; None without candidates.
        gains: those that decided.
        confirmed: whether they are those of a confirmation.
        equivalent: candidates that are not told apart from the best.
        level: that the best was tested at: ``alpha``, or less after several looks at the locked test.
        ruled_out: whether the best is shown not to gain more than ``delta``.
        still_open: the other candidates that are not ruled out, best first.
        remedy: where nothing was decided and a baseline can be compared with.
    """

    decision: Decision
    best: Cell | None
    gains: tuple[Gain, ...] = ()
    confirmed: bool = False
    equivalent: tuple[Cell, ...] = ()
    level: float = 0.05
    ruled_out: bool = False
    still_open: tuple[Cell, ...] = ()
    remedy: Remedy | None = None


def decide(
    grid: Tables,
    candidates: Sequence[Cell],
    confirmation: Confirmation | None,
    *,
    winner: Cell | None,
    delta: float,
    alpha: float,
) -> Verdict:
    """The verdict on the candidates of a grid.

    Args:
        grid: all cells of one trainer, loss and number of rows.
        candidates: those that may win.
        confirmation: counts where it is of the best cell.
        winner: the best, where a search named it.
        delta: the smallest gain that counts.
        alpha: the level of every test.
    """
    if not candidates:
        return Verdict(decision="underpowered", best=None)
    best = winner or choose_best(grid, candidates)
    validated = {cell: gains_of(grid, cell) for cell in candidates}
    confirmed = confirmation is not None and confirmation.cell == best
    level = alpha
    if confirmation is not None and confirmed:
        gains, level = confirmation.gains, alpha / 2 ** (confirmation.looks - 1)
        shown = _has_baselines(gains) and all(is_above(gain, alpha=level) for gain in gains)
    else:
        gains = validated[best]
        adjusted = adjust_holm([_find_p_value(validated[c]) for c in candidates])
        shown = adjusted[candidates.index(best)] <= alpha and all(gain.draws > 1 for gain in gains)
    ruled_out = _is_any_ruled_out(gains, delta, level)
    still_open: tuple[Cell, ...] = ()
    if ruled_out:
        found = [c for c in candidates if c != best and not _is_any_ruled_out(validated[c], delta, alpha)]
        still_open = tuple(_rank(grid, found))
    decision: Decision = "use" if shown and not ruled_out else "underpowered"
    if ruled_out and not still_open:
        decision = "do-not-use"
    remedy = None
    if decision == "underpowered":
        if still_open:
            remedy = _rule_out_all([validated[c] for c in still_open], delta=delta, alpha=alpha)
        else:
            fresh = confirmed and confirmation is not None and confirmation.fresh_draws
            remedy = _find_remedy(gains, delta=delta, alpha=level / 2 if confirmed else alpha, fresh=fresh)
    return Verdict(
        decision=decision,
        best=best,
        gains=gains,
        confirmed=confirmed,
        equivalent=_find_equivalent(grid, candidates, best, alpha=alpha),
        level=level,
        ruled_out=ruled_out,
        still_open=still_open,
        remedy=remedy,
    )


def choose_best(grid: Tables, candidates: Sequence[Cell]) -> Cell:
    """The candidate with the highest mean, as the module says; the first of equals."""
    every = sorted({d for c in candidates for d in grid[c].draws})
    complete = [c for c in candidates if len(grid[c].draws) == len(every)]
    if not complete or len(complete) == len(candidates):
        return max(candidates, key=lambda c: grid[c].accuracy)
    shared = np.mean([grid[c].correct.mean(axis=1) for c in complete], axis=0)

    def find_lead(cell: Cell) -> float:
        table = grid[cell]
        return float(np.mean(table.correct.mean(axis=1) - shared[[every.index(d) for d in table.draws]]))

    return max(candidates, key=find_lead)


def _has_baselines(gains: Iterable[Gain]) -> bool:
    return {gain.over for gain in gains} >= set(BASELINES)


def _is_any_ruled_out(gains: Iterable[Gain], delta: float, alpha: float) -> bool:
    return any(is_ruled_out(gain, delta, alpha=alpha) for gain in gains)


def _rank(grid: Tables, cells: Iterable[Cell]) -> list[Cell]:
    """Best first."""
    return sorted(cells, key=lambda c: (-grid[c].accuracy, c.share, c.key))


def _find_p_value(gains: Sequence[Gain]) -> float:
    """The larger two-sided p-value of the gains over both baselines; 1 where one is missing or not a gain."""
    if not _has_baselines(gains):
        return 1.0
    return max(gain.p_value if gain.value > 0 else 1.0 for gain in gains)


def _find_equivalent(grid: Tables, candidates: Sequence[Cell], best: Cell, *, alpha: float) -> tuple[Cell, ...]:
    """The other candidates whose difference from the best is not shown (Holm over all of them), best first."""
    others = [c for c in candidates if c != best]
    differences = [difference_of(grid[best], grid[c]) for c in others]
    adjusted = adjust_holm([1.0 if d is None else split_variance(d).p_value for d in differences])
    alike = [c for c, p in zip(others, adjusted, strict=True) if p > alpha]
    return tuple(_rank(grid, alike))


def _find_remedy(gains: Sequence[Gain], *, delta: float, alpha: float, fresh: bool) -> Remedy | None:
    """Draws that show the gains observed, or ``delta`` where that is larger, over both baselines.

    ``fresh``: whether these are gains of draws that took no part in the choice, so that more of those are wanted.
    """
    of: Literal["generation", "confirm"] = "confirm" if fresh else "generation"
    if not _has_baselines(gains):
        return None
    effect = max(delta, *(abs(gain.value) for gain in gains))
    if any(gain.draws == 1 for gain in gains):
        return Remedy(effect=effect, draws=DRAWS_TO_START - 1, of=of)
    effects = [max(abs(gain.value), delta) for gain in gains]
    needs = [count_more_draws(g, effect=e, alpha=alpha) for g, e in zip(gains, effects, strict=True)]
    found = [n for n in needs if n is not None]
    return Remedy(effect=min(effects), draws=max(*found, 1) if len(found) == len(needs) else None, of=of)


def _rule_out_all(each: Iterable[Sequence[Gain]], *, delta: float, alpha: float) -> Remedy:
    """Generation draws that rule out, for every cell, a gain of ``delta`` over one of the baselines, were it 0."""
    needs: list[int | None] = []
    for gains in each:
        found = [n for g in gains if (n := count_more_draws(g, effect=delta, alpha=alpha)) is not None]
        needs.append(min(found, default=None))
    known = [n for n in needs if n is not None]
    return Remedy(effect=delta, draws=max(*known, 1) if len(known) == len(needs) else None, of="generation")
