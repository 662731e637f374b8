"""The verdict: which blend to use, or none, with the evidence.

**Who may win.** The cells of kind ``blend`` of the grid trainer and loss, at one number of real rows (the largest),
outside the descriptive shares, and with more than one generation draw where others have more than one.
``synthetic-only`` is a baseline: it is shown, and the advice says so when it scores higher, but a blend is what can be
recommended. Other trainers, losses and rows are summarised in ``cells`` and take no part. What is decided about them
:mod:`cuvee.recommend.deciding` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cuvee.recommend.cells import collect_tables, find_baseline, order_cells, summarise_cell
from cuvee.recommend.checks import DIVERSITY, check_manipulation
from cuvee.recommend.deciding import Tables, decide
from cuvee.recommend.optimism import estimate_optimism
from cuvee.recommend.slices import test_slices
from cuvee.recommend.wording import Case, write_scope, write_sentence
from cuvee.records import Advice, Cell, CellSummary, Confirmation, Measurement, Trial, TrialFailure
from cuvee.records.advice import Optimism


def recommend_mixture(
    trials: Sequence[Trial],
    failures: Sequence[TrialFailure] = (),
    *,
    level_ranks: Mapping[str, Sequence[str]],
    measurements: Mapping[str, Measurement] | None = None,
    shape_share: float = 0.75,
    descriptive_shares: Sequence[float] = (),
    delta: float = 0.01,
    alpha: float = 0.05,
    trainer: str = "probe",
    loss: str = "ce",
    rows_per_label: int | None = None,
    metric: str = DIVERSITY,
    confirmation: Confirmation | None = None,
    winner: Cell | None = None,
    scope: str = "",
) -> Advice:
    """Compare all trials and say which blend to use, or that none helps, or that it is not settled.

    Args:
        trials: finished trials; those evaluated on validation are compared.
        failures: trials that did not finish; counted.
        level_ranks: dial -> its level names from least to most diverse as expected.
        measurements: ``dial=level`` -> what was measured on that pool.
        shape_share: the share at which the shape over levels is tested, fixed before looking; where it is
            descriptive, no shape is tested and the scope says so.
        descriptive_shares: shares that are shown but neither tested nor recommended (draws that overlap).
        delta: the smallest gain that counts, a fraction of accuracy (0.01 is one point).
        alpha: the level of every test; intervals are always 95%.
        trainer: the trainer of the grid; the others are described only.
        loss: the loss of the grid.
        rows_per_label: the number of real rows whose cells are compared; None is the largest that blends have.
        metric: the measured diversity that levels are checked on, and that stands under the two lines.
        confirmation: the winner on fresh draws and the locked test, where that was done.
        winner: the cell that an adaptive search favours (``Search.best``); by default the highest mean.
        scope: to what the advice applies, in words; limits found here are added to it.

    Raises:
        ValueError: ``delta`` or ``alpha`` is out of range, the trials do not fit together, or ``winner`` may not win.
    """
    if delta <= 0 or not 0 < alpha < 1:
        raise ValueError(f"delta must be above 0 and alpha between 0 and 1, not {delta!r} and {alpha!r}")
    tables = collect_tables(trials)
    score = next((trial.scores.score for trial in trials), "accuracy")
    grid = _take_grid(tables, trainer=trainer, loss=loss, rows_per_label=rows_per_label)
    candidates = _find_candidates(grid, loss=loss, descriptive_shares=descriptive_shares)
    summaries = {cell: summarise_cell(tables, cell) for cell in order_cells(tables, level_ranks)}
    checks = tuple(
        check_manipulation(dial, names, measurements or {}, metric=metric) for dial, names in level_ranks.items()
    )
    checks = tuple(check for check in checks if check.levels)
    if winner is not None and winner not in candidates:
        raise ValueError(f"winner {winner.key!r} is not among the cells that may win: {[c.key for c in candidates]}")
    verdict = decide(grid, candidates, confirmation, winner=winner, delta=delta, alpha=alpha)
    best = None if verdict.best is None else summaries[verdict.best]
    case = Case(
        decision=verdict.decision,
        best=best,
        gains=verdict.gains,
        confirmed=verdict.confirmed,
        confirmation=confirmation,
        candidates=len(candidates),
        measurement=None if best is None else (measurements or {}).get(f"{best.cell.dial}={best.cell.level}"),
        synthetic_only=_best_of(
            s for s in summaries.values() if s.cell in grid and (s.cell.kind, s.cell.loss) == ("synthetic-only", loss)
        ),
        metric=metric,
        remedy=verdict.remedy,
        ruled_out=verdict.ruled_out,
        still_open=verdict.still_open,
        best_failures=sum(f.cell == verdict.best for f in failures),
        delta=delta,
        alpha=verdict.level,
        descriptive_shares=tuple(descriptive_shares),
        untested_share=shape_share if _is_among(shape_share, descriptive_shares) else None,
        other_trainers=tuple(sorted({c.trainer for c in tables} - {trainer})),
        other_losses=tuple(sorted({c.loss for c in tables if c.trainer == trainer} - {loss, "ce"})),
        score=score,
    )
    return Advice(
        decision=verdict.decision,
        sentence=write_sentence(case),
        best=best,
        equivalent=tuple(summaries[c] for c in verdict.equivalent),
        cells=tuple(summaries.values()),
        shapes=test_slices(
            {cell: grid[cell] for cell in candidates if _is_among(cell.share, [shape_share])},
            level_ranks,
            share=shape_share,
            delta=delta,
            alpha=alpha,
            checks=checks,
        ),
        checks=checks,
        confirmation=confirmation,
        more_draws=None if verdict.remedy is None else verdict.remedy.draws,
        more_of="generation" if verdict.remedy is None else verdict.remedy.of,
        scope=write_scope(case, scope),
        failures=len(failures),
        optimism=None if verdict.best is None else _estimate_optimism(grid, candidates, verdict.best),
        score=score,
    )


def _is_among(share: float, shares: Iterable[float]) -> bool:
    return any(abs(share - other) < 1e-9 for other in shares)


def _best_of(summaries: Iterable[CellSummary]) -> CellSummary | None:
    return max(summaries, key=lambda s: s.accuracy, default=None)


def _take_grid(tables: Tables, *, trainer: str, loss: str, rows_per_label: int | None) -> Tables:
    """The cells of one trainer, loss (baselines of loss ``ce`` stand in) and number of real rows."""
    own = {c: t for c, t in tables.items() if c.trainer == trainer and c.loss in (loss, "ce")}
    if rows_per_label is None:
        rows_per_label = max((c.rows_per_label for c in own if (c.kind, c.loss) == ("blend", loss)), default=0)
    return {c: t for c, t in own.items() if c.rows_per_label == rows_per_label}


def _find_candidates(grid: Tables, *, loss: str, descriptive_shares: Sequence[float]) -> list[Cell]:
    """The cells that may win, as the module says, in a fixed order."""
    blends = [c for c in grid if c.kind == "blend" and c.loss == loss]
    most_draws = max((len(grid[c].draws) for c in blends), default=0)
    return sorted(
        (
            c
            for c in blends
            if not _is_among(c.share, descriptive_shares) and (len(grid[c].draws) > 1 or most_draws == 1)
        ),
        key=lambda c: (c.share, c.key),
    )


def _estimate_optimism(grid: Tables, candidates: Sequence[Cell], best: Cell) -> Optimism | None:
    """Selection bias of the best cell's gain over real-only; None with one candidate or without the baseline."""
    differences = []
    for cell in candidates:
        baseline = find_baseline(grid, cell, "real-only")
        if baseline is None or len(candidates) < 2:
            return None
        differences.append(grid[cell].correct - baseline.correct.mean(axis=0))
    draws = sorted({d for c in candidates for d in grid[c].draws})
    gains = np.full((len(candidates), len(draws), grid[best].correct.shape[1]), np.nan)
    for k, (cell, difference) in enumerate(zip(candidates, differences, strict=True)):
        gains[k, [draws.index(d) for d in grid[cell].draws]] = difference
    return estimate_optimism(gains, over="real-only", best=candidates.index(best))
