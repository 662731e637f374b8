"""The verdict: which blend to use, or none, with the evidence, and whether other choices would say the same.

**Who may win.** The cells of kind ``blend`` of the grid trainer and loss, at one number of real rows (the largest),
and with more than one draw where others have more than one, unless the cell is all of its pool. A blend that is judged
in the scope *this pool* does not compete in the scope *the recipe* too; that slice serves the shape test.
``synthetic-only`` is a baseline: it is shown, and the advice says so when it scores higher, but a blend is what can be
recommended. Other trainers, losses and rows are summarised in ``cells`` and take no part.

**Which is best.** The highest mean score among the cells that may win, each freed of what its draws share: from the
value of each draw the mean of all complete cells in that draw is taken, so a cell that lacks the bad draws gains
nothing by it. Ties go to the smaller share. An adaptive search names the winner itself; without a confirmation nothing
is decided of it, because for cells that were asked unevenly no p-value counts the choice.

**What is decided.** The winner's gains over real-only and over real-duplicated count: those of a confirmation on the
locked test, where there was one, else those on validation. The spreads of cells over draws are pooled over the blends
of a dial, and that of a confirmation with what validation knows of the same blend.

- *use*: both gains are above 0 with p at most ``alpha``. On validation p is Holm's over all candidates (the larger
  p-value of the two for each), because the best of many cells looks better than it is.
- *do-not-use*: for every candidate a gain of more than ``delta`` over real-only, or over real-duplicated, is ruled
  out: the upper end of its 1 - ``alpha`` interval is at most ``delta``. The winner's interval is that of the
  confirmation, the others' are those on validation. All must be ruled out, so no correction is needed (an
  intersection-union test). Where the winner alone is ruled out, that stands as a finding of its own: the blend that
  this study would choose is not worth it.
- *harm*: a blend hurts where its gain over the real rows alone is below 0 on validation, by Holm over all candidates.
- *underpowered*: neither, or the confirmation that was planned is missing: weaker evidence does not stand in for it. A
  gain that is shown but ruled out to be above ``delta`` is no reason to generate data, nor
  is one generation draw, which says nothing of how draws differ.

The locked test is read in several looks, which err at most as often as ``alpha`` says together
(:mod:`~cuvee.recommend.confirming`).

**Whether another choice would say the same.** The advice under other choices is set against the base. A variant *flips*
a conclusion where it says something else that is also settled: *use* against *do-not-use*, rising against inverted-U,
another best cell that the base could tell from its own. Where one of the two is underpowered, or its levels were not
interpreted, the variant does not contradict: it is *unsettled*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from cuvee.recommend import cells, statistics, wording
from cuvee.recommend.confirming import LookResult, find_level, judge_confirmation
from cuvee.recommend.leaning import find_lean, find_shared_part
from cuvee.recommend.shapes import DIVERSITY, check_manipulation, test_slices
from cuvee.records import UNORDERED, Advice, Cell, Confirmation, Gain, Measurement, Trial, TrialFailure
from cuvee.records.advice import Decision, DrawKind, Edge, RankAgreement, RowsFinding, SensitivityRow, SensitivityTable

Tables = Mapping[Cell, cells.CellTable]

# Generation draws from which the spread between draws can be told; what one draw alone is advised to reach.
DRAWS_TO_START = 5


def recommend_mixture(
    trials: Sequence[Trial],
    failures: Sequence[TrialFailure] = (),
    *,
    level_ranks: Mapping[str, Sequence[str]],
    measurements: Mapping[str, Measurement] | None = None,
    shape_share: float = 0.75,
    delta: float = 0.01,
    alpha: float = 0.05,
    compared: cells.ComparedCells | None = None,
    metric: str = DIVERSITY,
    confirmation: Confirmation | None = None,
    winner: Cell | None = None,
    unconfirmed: str = "",
) -> Advice:
    """Compare all trials and say which blend to use, or that none helps, or that it is not settled.

    Args:
        trials: finished trials; those evaluated on validation are compared.
        failures: trials that did not finish; counted.
        level_ranks: dial -> its level names from least to most diverse as expected.
        measurements: ``dial=level`` -> what was measured on that pool.
        shape_share: the share at which the shape over levels is tested, in the scope *the recipe*, fixed before
            looking.
        delta: the smallest gain that counts, a fraction of accuracy (0.01 is one point).
        alpha: the level of every test; intervals are always 95%.
        compared: the trainer, loss and number of real rows whose cells are compared, by default the probe at the
            largest number of rows that blends have; the others are described only.
        metric: the measured diversity that levels are checked on, and that stands under the two lines.
        confirmation: the winner on fresh draws and the locked test, where that was done.
        winner: the cell that an adaptive search favours (``Search.best``), or that was confirmed before; by default the
            highest mean.
        unconfirmed: why the winner lacks the confirmation that was planned, where it does, or that an adaptive search
            needs (``wording.SEARCHED``).

    Raises:
        ValueError: ``delta`` or ``alpha`` is out of range, the trials do not fit together, or ``winner`` may not win.
    """
    if delta <= 0 or not 0 < alpha < 1:
        raise ValueError(f"delta must be above 0 and alpha between 0 and 1, not {delta!r} and {alpha!r}")
    own = compared or cells.ComparedCells()
    tables = cells.collect_tables(trials)
    grid = own.take(tables)
    candidates = _find_candidates(grid, loss=own.loss)
    if winner is not None and winner not in candidates:
        raise ValueError(f"winner {winner.key!r} is not among the cells that may win: {[c.key for c in candidates]}")
    gains = cells.pool_gains({cell: cells.gains_of(tables, cell) for cell in cells.order_cells(tables, level_ranks)})
    summaries = {cell: cells.summarise_cell(tables[cell], own) for cell, own in gains.items()}
    ordered = {dial: names for dial, names in level_ranks.items() if dial != UNORDERED}
    checks = [check_manipulation(dial, names, measurements or {}, metric=metric) for dial, names in ordered.items()]
    checks = [check for check in checks if check.levels]
    rivals, tested = {c: gains[c] for c in candidates}, _find_slice(grid, own.loss, shape_share)
    verdict = decide(grid, rivals, confirmation, winner=winner, unconfirmed=unconfirmed, delta=delta, alpha=alpha)
    if confirmation is not None and verdict.confirmed:
        confirmation = replace(confirmation, gains=verdict.gains)
    best, remedy = verdict.best, verdict.remedy
    score = next((trial.scores.score for trial in trials), "accuracy")
    harmful = tuple(summary for cell, summary in summaries.items() if cell in verdict.harmful)
    advice = Advice(
        decision=verdict.decision,
        sentence="",
        best=None if best is None else summaries[best],
        not_distinguished=tuple(summaries[c] for c in verdict.not_distinguished),
        cells=tuple(summaries.values()),
        shapes=test_slices(tested, ordered, share=shape_share, delta=delta, alpha=alpha, checks=checks),
        checks=tuple(checks),
        confirmation=confirmation,
        more_draws=None if remedy is None else remedy.draws,
        more_of="generation" if remedy is None else remedy.of,
        more_items=None if remedy is None else remedy.items,
        edge=None if best is None else _find_edge(grid, candidates, best),
        scope="",
        failures=len(failures),
        score=score,
        headline=wording.write_headline(verdict),
        winner_ruled_out=verdict.ruled_out,
        lean=verdict.lean,
        today="" if verdict.decision == "use" else wording.write_lean(verdict, score),
        harmful=harmful,
        avoid=wording.write_harm(harmful, score),
    )
    measured = None if best is None else (measurements or {}).get(f"{best.dial}={best.level}")
    diversity = "" if measured is None else wording.write_diversity(metric, measured.values.get(metric))
    scope = wording.write_scope(advice, verdict, own, best_failures=sum(f.cell == best for f in failures))
    return replace(advice, sentence=wording.write_sentence(advice, verdict, diversity), scope=scope)


def _find_candidates(grid: Tables, *, loss: str) -> list[Cell]:
    """The cells that may win, as the module says, in a fixed order."""
    blends = cells.find_rivals(c for c in grid if c.kind != "blend" or c.loss == loss)
    least = min(2, max((len(grid[c].draws) for c in blends), default=0))
    return [c for c in blends if c.whole or len(grid[c].draws) >= least]


def _find_slice(grid: Tables, loss: str, share: float) -> Tables:
    """The cells of the shape test."""
    found = {c: t for c, t in grid.items() if (c.kind, c.loss, c.scope) == ("blend", loss, "the recipe")}
    found = {c: t for c, t in found.items() if cells.is_among(c.share, [share])}
    least = min(2, max((len(table.draws) for table in found.values()), default=0))
    return {cell: table for cell, table in found.items() if len(table.draws) >= least}


def _find_edge(grid: Tables, candidates: Sequence[Cell], best: Cell) -> Edge | None:
    """The last step of the amount, where the best is the largest of its level; None elsewhere, or with one amount."""
    own = [c for c in candidates if (c.dial, c.level) == (best.dial, best.level)]
    smaller = [c for c in own if c.share < best.share]
    if not smaller or any(c.share > best.share for c in own):
        return None
    before = max(smaller, key=lambda c: c.share)
    difference = cells.difference_of(grid[best], grid[before])
    gain = None
    if difference is not None and before.scope == best.scope:
        gain = statistics.paired_gain(difference, 0.0, over=before.key)
    return Edge(gain=gain, factor=best.amount / before.amount, is_everything=best.whole)


# --- the decision ---
def decide(
    grid: Tables,
    validated: Mapping[Cell, tuple[Gain, ...]],
    confirmation: Confirmation | None,
    *,
    winner: Cell | None,
    unconfirmed: str = "",
    delta: float,
    alpha: float,
) -> wording.Verdict:
    """The verdict on the candidates of a grid, as the module says.

    Args:
        grid: all cells of one trainer, loss and number of rows.
        validated: the cells that may win, with their gains on validation.
        confirmation: counts where it is of the best cell.
        winner: the best, where a search named it.
        unconfirmed: why a confirmation of the best cell is missing, where there should be one.
        delta: the smallest gain that counts.
        alpha: the level of every test.
    """
    candidates = list(validated)
    if not candidates:
        return wording.Verdict(decision="underpowered", best=None, candidates=0, delta=delta, level=alpha)
    best = winner or choose_best(grid, candidates)
    confirmed = confirmation is not None and confirmation.cell == best
    if confirmation is not None and confirmed:
        judged = judge_confirmation(confirmation, validated[best], delta=delta, alpha=alpha)
    else:
        own = validated[best]
        adjusted = statistics.adjust_holm([_find_p_value(validated[c]) for c in candidates])
        shown = adjusted[candidates.index(best)] <= alpha and all(gain.speaks_of_draws for gain in own)
        ruled_out = unconfirmed != wording.SEARCHED and _is_any_ruled_out(own, delta, alpha)
        judged = LookResult(gains=own, level=alpha, shown=shown and not unconfirmed, ruled_out=ruled_out)
    gains, level, ruled_out = judged.gains, judged.level, judged.ruled_out
    tested, still_open = level, tuple[Cell, ...]()
    if ruled_out:
        left = [c for c in candidates if c != best and not _is_any_ruled_out(validated[c], delta, alpha)]
        still_open = tuple(_rank(grid, left))
    decision: Decision = "use" if judged.shown and not ruled_out else "underpowered"
    if ruled_out and not still_open:
        decision = "do-not-use"
    remedy = None
    if decision == "underpowered" and still_open:
        remedy = _plan_ruling_out(grid, {cell: validated[cell] for cell in still_open}, delta=delta, alpha=alpha)
    elif decision == "underpowered" and _has_baselines(gains):
        # draws that took no part in the choice are wanted, where these are such
        fresh = unconfirmed == wording.SEARCHED
        if confirmed and confirmation is not None:
            fresh = confirmation.fresh_draws
            if looks := confirmation.looks:
                level = find_level((*looks, 2 * looks[-1]), confirmation.planned, alpha)
        remedy = _plan_remedy(best, gains, fresh=fresh, delta=delta, level=level)
    return wording.Verdict(
        decision=decision,
        best=best,
        candidates=len(candidates),
        delta=delta,
        gains=gains,
        confirmed=confirmed,
        unconfirmed="" if confirmed else unconfirmed,
        not_distinguished=_find_not_distinguished(grid, candidates, best, alpha=alpha),
        level=tested,
        ruled_out=ruled_out,
        still_open=still_open,
        remedy=remedy,
        harmful=_find_harmful(validated, alpha=alpha),
        lean=find_lean(grid, validated, {best: gains} if confirmed else {}),
    )


def _plan_ruling_out(
    grid: Tables, still_open: Mapping[Cell, tuple[Gain, ...]], *, delta: float, alpha: float
) -> wording.Remedy:
    """What rules out all blends that are left, were none to gain; over one baseline each, the one that takes less."""
    gains = [min(own, key=lambda gain: (gain.se_items, gain.se_draws)) for own in still_open.values()]
    shared = find_shared_part(grid, list(still_open), gains)
    draws, items = statistics.count_joint(gains, effect=delta, alpha=alpha, shared=shared)
    of = _kind_of(next((cell for cell in still_open if not cell.whole), next(iter(still_open))))
    draws = None if draws is None else max(draws, 1)
    return wording.Remedy(effect=delta, draws=draws, items=items, of=of, rules_out=True)


def _plan_remedy(best: Cell, gains: Sequence[Gain], *, fresh: bool, delta: float, level: float) -> wording.Remedy:
    """What shows the gains that were observed, or that a loss over one baseline is no gain of ``delta``."""
    lost = [gain for gain in gains if gain.value < 0]
    effects = [delta - gain.value for gain in lost] or [max(gain.value, delta) for gain in gains]
    pairs = list(zip(lost or gains, effects, strict=True))

    def settle(found: Sequence[int | None]) -> int | None:
        known = [n for n in found if n is not None]
        return max(1, min(known) if lost else max(known)) if known and (lost or len(known) == len(found)) else None

    draws = settle([statistics.count_more_draws(gain, effect=effect, alpha=level) for gain, effect in pairs])
    items = settle([statistics.count_items(gain, effect=effect, alpha=level) for gain, effect in pairs])
    if not best.whole and min(gain.draws for gain in gains) == 1:
        draws = DRAWS_TO_START - 1
    return wording.Remedy(
        effect=delta if lost else min(effects),
        draws=draws,
        items=items if draws is None else None,
        of="confirm" if fresh else _kind_of(best),
        level=level,
        rules_out=bool(lost),
    )


def _kind_of(cell: Cell) -> DrawKind:
    return "sampling" if cell.scope == "this pool" else "generation"


def _find_harmful(validated: Mapping[Cell, tuple[Gain, ...]], *, alpha: float) -> tuple[Cell, ...]:
    """The cells that are shown to be worse than the real rows alone."""
    found = {cell: gain for cell, gains in validated.items() for gain in gains if gain.over == "real-only"}
    losses = [g.p_value if g.value < 0 and g.speaks_of_draws else 1.0 for g in found.values()]
    return tuple(cell for cell, p in zip(found, statistics.adjust_holm(losses), strict=True) if p <= alpha)


def choose_best(grid: Tables, candidates: Sequence[Cell]) -> Cell:
    """The candidate with the highest mean, as the module says; the first of equals."""
    drawn = [c for c in candidates if not c.whole]
    every = sorted({d for c in drawn for d in grid[c].draws})
    complete = [c for c in drawn if len(grid[c].draws) == len(every)]
    if not complete or len(complete) == len(drawn) or len({c.scope for c in candidates}) > 1:
        return max(candidates, key=lambda c: grid[c].accuracy)
    shared = np.mean([grid[c].correct.mean(axis=1) for c in complete], axis=0)

    def find_lead(cell: Cell) -> float:
        table = grid[cell]
        if cell.whole:
            return table.accuracy - float(shared.mean())
        return float(np.mean(table.correct.mean(axis=1) - shared[[every.index(d) for d in table.draws]]))

    return max(candidates, key=find_lead)


def _has_baselines(gains: Iterable[Gain]) -> bool:
    return {gain.over for gain in gains} >= set(cells.BASELINES)


def _is_any_ruled_out(gains: Iterable[Gain], delta: float, alpha: float) -> bool:
    return any(statistics.is_ruled_out(gain, delta, alpha=alpha) for gain in gains)


def _rank(grid: Tables, found: Iterable[Cell]) -> list[Cell]:
    """Best first."""
    return sorted(found, key=lambda c: (-grid[c].accuracy, c.share, c.key))


def _find_p_value(gains: Sequence[Gain]) -> float:
    """The larger two-sided p-value of the gains over both baselines; 1 where one is missing or not a gain."""
    if not _has_baselines(gains):
        return 1.0
    return max(gain.p_value if gain.value > 0 else 1.0 for gain in gains)


def _find_not_distinguished(grid: Tables, candidates: Sequence[Cell], best: Cell, *, alpha: float) -> tuple[Cell, ...]:
    """The other candidates whose difference from the best is not shown (Holm over all of them), best first."""
    others = [c for c in candidates if c != best]
    tables = {c: cells.difference_of(grid[best], grid[c]) for c in others}
    found = {c: statistics.split_variance(table) for c, table in tables.items() if table is not None}
    levels = len({(c.dial, c.level) for c in others})
    least = min((f.draws for f in found.values()), default=1)
    prior = statistics.pool_spreads(list(found.values()), others=(levels - 1) * (least - 1))
    p_values = {c: 2.0 * each.measure(prior).find_tail(abs(each.value)) for c, each in found.items()}
    adjusted = statistics.adjust_holm([p_values.get(c, 1.0) for c in others])
    return tuple(_rank(grid, [c for c, p in zip(others, adjusted, strict=True) if p > alpha]))


# --- other choices ---
def compare_advice(base: Advice, variants: Mapping[str, Advice]) -> SensitivityTable:
    """Which conclusions of ``base`` another metric of diversity, trainer, loss or stopping rule would change.

    Args:
        base: the advice of the study.
        variants: name (``trainer encoder``, ``metric dcscore``, ``equal epochs``) -> advice under that choice.
    """
    rows = tuple(_compare(name, base, other) for name, other in variants.items())
    return SensitivityTable(base=_compare("base", base, base), rows=rows)


def _read_shapes(advice: Advice) -> dict[str, str]:
    """Dial -> the verdict on its shape, which says nothing where its levels do not differ."""
    return {s.dial: s.verdict if s.interpreted else "not interpreted" for s in advice.shapes}


def _read_lines(advice: Advice) -> dict[str, str]:
    """Dial -> what the two-lines test shows."""
    shown = [(s, s.two_lines.shape) for s in advice.shapes if s.two_lines is not None]
    return {s.dial: shape if s.interpreted else "not interpreted" for s, shape in shown}


def _list_conclusions(advice: Advice) -> dict[str, str]:
    return {
        "decision": advice.decision,
        **{f"shape of {dial}": verdict for dial, verdict in _read_shapes(advice).items()},
        **{f"two lines of {dial}": shown for dial, shown in _read_lines(advice).items()},
        **{f"manipulation check of {check.dial}": str(check.passed) for check in advice.checks},
    }


def _compare(name: str, base: Advice, other: Advice) -> SensitivityRow:
    flips: list[str] = []
    unsettled: list[str] = []
    theirs = _list_conclusions(other)
    for what, first in _list_conclusions(base).items():
        second = theirs.get(what, "underpowered" if what.startswith("shape of") else first)
        found = unsettled if {first, second} & {"underpowered", "not interpreted"} else flips
        if first != second:
            found.append(what)
        if what == "decision" and not _is_same_choice(base, other):
            found.append("best cell")
    return SensitivityRow(
        variant=name,
        decision=other.decision,
        best=None if other.best is None else other.best.cell,
        gains=() if other.best is None else other.best.gains,
        shapes=_read_shapes(other),
        two_lines=_read_lines(other),
        flips=tuple(flips),
        unsettled=tuple(unsettled),
        ranks=compare_ranks(base, other),
    )


def compare_ranks(base: Advice, other: Advice) -> RankAgreement | None:
    """How alike two trainers rank the cells that both trained: None for one trainer, or for cells of equal scores.

    The standard error of Fisher's z is the root of (1 + r^2/2) / (cells - 3) (Bonett and Wright 2000). Perfect
    agreement counts there as one swap of neighbours, since an interval of no width would promise too much.
    """
    from scipy.stats import rankdata

    if base.best is None or other.best is None or base.best.cell.trainer == other.best.cell.trainer:
        return None
    ours, theirs = (_list_scores(advice, advice.best.cell) for advice in (base, other) if advice.best is not None)
    shared = [cell for cell in ours if cell in theirs]
    scores = np.array([[ours[cell], theirs[cell]] for cell in shared])
    if len(shared) < 2 or (np.ptp(scores, axis=0) == 0).any():
        return None
    n, value = len(shared), float(np.corrcoef(rankdata(np.round(scores, 12), axis=0), rowvar=False)[0, 1])
    found = RankAgreement(base=base.best.cell.trainer, other=other.best.cell.trainer, value=value, cells=n)
    if n < 4:
        return found
    most = 1.0 - 12.0 / (n * (n * n - 1.0))
    z, error = np.arctanh(np.clip(value, -most, most)), 1.96 * np.sqrt((1.0 + value**2 / 2.0) / (n - 3.0))
    return replace(found, low=float(np.tanh(z - error)), high=float(np.tanh(z + error)))


def _list_scores(advice: Advice, like: Cell) -> dict[Cell, float]:
    """The mean score of each blend and of the real rows alone, by the cell without its trainer and loss."""
    return {
        replace(s.cell, trainer="", loss=""): s.accuracy
        for s in advice.cells
        if s.cell.kind in ("blend", "real-only")
        and (s.cell.trainer, s.cell.loss, s.cell.rows_per_label) == (like.trainer, like.loss, like.rows_per_label)
    }


def _is_same_choice(base: Advice, other: Advice) -> bool:
    """Whether each best cell is the other's, or not distinguishable from it; trainer and loss may differ."""
    if base.best is None or other.best is None:
        return base.best is other.best
    (ours, *our_rivals), (theirs, *their_rivals) = (
        [(s.cell.dial, s.cell.level, s.cell.share) for s in (best, *advice.not_distinguished)]
        for advice, best in ((base, base.best), (other, other.best))
    )
    return theirs in (ours, *our_rivals) or ours in their_rivals


def summarise_rows(advice: Mapping[int, Advice]) -> tuple[RowsFinding, ...]:
    """How the advice depends on the number of real rows a label, most first.

    Args:
        advice: rows a label -> the advice drawn from cells of so many.
    """
    return tuple(
        RowsFinding(
            rows_per_label=rows,
            decision=found.decision,
            real_only=_find_real_only(found, rows),
            best=found.best,
            shapes=found.shapes,
            lean=found.lean,
            more_draws=found.more_draws,
        )
        for rows, found in sorted(advice.items(), reverse=True)
    )


def _find_real_only(advice: Advice, rows: int) -> float | None:
    best = None if advice.best is None else advice.best.cell
    found = [s for s in advice.cells if s.cell.kind == "real-only" and s.cell.rows_per_label == rows]
    own = [s for s in found if best is None or (s.cell.trainer, s.cell.loss) == (best.trainer, best.loss)]
    return next((s.accuracy for s in own), None)
