"""The verdict: which blend to use, or none, with the evidence, and whether other choices would say the same.

**Who may win.** The cells of kind ``blend`` of the grid trainer and loss, at one number of real rows (the largest),
outside the descriptive shares, and with more than one generation draw where others have more than one.
``synthetic-only`` is a baseline: it is shown, and the advice says so when it scores higher, but a blend is what can be
recommended. Other trainers, losses and rows are summarised in ``cells`` and take no part. What is decided about them
:mod:`cuvee.recommend.deciding` says.

**Whether another choice would say the same.** The advice under other choices is set against the base. A variant *flips*
a conclusion where it says something else that is also settled: *use* against *do-not-use*, rising against inverted-U,
another best cell that the base could tell from its own. Where one of the two is underpowered, or its levels were not
interpreted, the variant does not contradict: it is *unsettled*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cuvee.recommend.cells import ComparedCells, collect_tables, find_baseline, order_cells, summarise_cell
from cuvee.recommend.deciding import Tables, decide
from cuvee.recommend.shapes import DIVERSITY, check_manipulation, test_slices
from cuvee.recommend.statistics import estimate_optimism
from cuvee.recommend.wording import Case, Limits, write_scope, write_sentence
from cuvee.records import Advice, Cell, CellSummary, Confirmation, Estimate, Measurement, ShapeTest, Trial, TrialFailure
from cuvee.records.advice import Optimism, RowsFinding, SensitivityRow, SensitivityTable


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
    compared: ComparedCells | None = None,
    metric: str = DIVERSITY,
    confirmation: Confirmation | None = None,
    winner: Cell | None = None,
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
        compared: the trainer, loss and number of real rows whose cells are compared, by default the probe at the
            largest number of rows that blends have; the others are described only.
        metric: the measured diversity that levels are checked on, and that stands under the two lines.
        confirmation: the winner on fresh draws and the locked test, where that was done.
        winner: the cell that an adaptive search favours (``Search.best``); by default the highest mean.

    Raises:
        ValueError: ``delta`` or ``alpha`` is out of range, the trials do not fit together, or ``winner`` may not win.
    """
    if delta <= 0 or not 0 < alpha < 1:
        raise ValueError(f"delta must be above 0 and alpha between 0 and 1, not {delta!r} and {alpha!r}")
    own = compared or ComparedCells()
    tables = collect_tables(trials)
    score = next((trial.scores.score for trial in trials), "accuracy")
    grid = own.take(tables)
    candidates = _find_candidates(grid, loss=own.loss, descriptive_shares=descriptive_shares)
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
        verdict=verdict,
        best=best,
        confirmation=confirmation,
        candidates=len(candidates),
        diversity=_find_diversity(best, measurements or {}, metric),
        metric=metric,
        delta=delta,
        score=score,
    )
    limits = Limits(
        synthetic_only=_best_of(summaries[c] for c in grid if (c.kind, c.loss) == ("synthetic-only", own.loss)),
        best_failures=sum(f.cell == verdict.best for f in failures),
        descriptive_shares=tuple(descriptive_shares),
        untested_share=shape_share if _is_among(shape_share, descriptive_shares) else None,
        other_trainers=tuple(sorted({c.trainer for c in tables} - {own.trainer})),
        other_losses=tuple(sorted({c.loss for c in tables if c.trainer == own.trainer} - {own.loss, "ce"})),
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
        scope=write_scope(case, limits),
        failures=len(failures),
        optimism=None if verdict.best is None else _estimate_optimism(grid, candidates, verdict.best),
        score=score,
    )


def _find_diversity(best: CellSummary | None, measurements: Mapping[str, Measurement], metric: str) -> Estimate | None:
    measured = None if best is None else measurements.get(f"{best.cell.dial}={best.cell.level}")
    return None if measured is None else measured.values.get(metric)


def _is_among(share: float, shares: Iterable[float]) -> bool:
    return any(abs(share - other) < 1e-9 for other in shares)


def _best_of(summaries: Iterable[CellSummary]) -> CellSummary | None:
    return max(summaries, key=lambda s: s.accuracy, default=None)


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


# --- other choices ---
def compare_advice(base: Advice, variants: Mapping[str, Advice]) -> SensitivityTable:
    """Which conclusions of ``base`` another metric of diversity, trainer, loss or stopping rule would change.

    Args:
        base: the advice of the study.
        variants: name (``trainer encoder``, ``metric dcscore``, ``equal epochs``) -> advice under that choice.

    Raises:
        ValueError: a variant is named ``base``.
    """
    if "base" in variants:
        raise ValueError("variants holds the name 'base', which is that of the study itself")
    return SensitivityTable(
        base=_make_row("base", base, flips=(), unsettled=()),
        rows=tuple(_compare(name, base, other) for name, other in variants.items()),
    )


def _make_row(name: str, advice: Advice, *, flips: tuple[str, ...], unsettled: tuple[str, ...]) -> SensitivityRow:
    return SensitivityRow(
        variant=name,
        decision=advice.decision,
        best=None if advice.best is None else advice.best.cell,
        gains=() if advice.best is None else advice.best.gains,
        shapes={shape.dial: _read_shape(shape) for shape in advice.shapes},
        two_lines=_read_lines(advice),
        flips=flips,
        unsettled=unsettled,
    )


def _read_shape(shape: ShapeTest) -> str:
    return shape.verdict if shape.interpreted else "not interpreted"


def _read_lines(advice: Advice) -> dict[str, str]:
    """Dial -> what the two-lines test shows, which says nothing either where levels do not differ."""
    return {
        shape.dial: shape.two_lines.shape if shape.interpreted else "not interpreted"
        for shape in advice.shapes
        if shape.two_lines is not None
    }


def _compare(name: str, base: Advice, other: Advice) -> SensitivityRow:
    flips: list[str] = []
    unsettled: list[str] = []

    def judge(what: str, first: str, second: str, open_ends: tuple[str, ...]) -> None:
        if first != second:
            (unsettled if first in open_ends or second in open_ends else flips).append(what)

    judge("decision", base.decision, other.decision, ("underpowered",))
    if not _is_same_choice(base, other):
        (flips if "underpowered" not in (base.decision, other.decision) else unsettled).append("best cell")
    shapes = {shape.dial: _read_shape(shape) for shape in other.shapes}
    for shape in base.shapes:
        found = shapes.get(shape.dial, "underpowered")
        judge(f"shape of {shape.dial}", _read_shape(shape), found, ("underpowered", "not interpreted"))
    lines = _read_lines(other)
    for dial, first in _read_lines(base).items():
        if dial in lines:
            judge(f"two lines of {dial}", first, lines[dial], ("underpowered", "not interpreted"))
    passed = {check.dial: check.passed for check in other.checks}
    for check in base.checks:
        if passed.get(check.dial, check.passed) != check.passed:
            flips.append(f"manipulation check of {check.dial}")
    return _make_row(name, other, flips=tuple(flips), unsettled=tuple(unsettled))


def _is_same_choice(base: Advice, other: Advice) -> bool:
    """Whether each best cell is the other's, or not distinguishable from it; trainer and loss may differ."""
    if base.best is None or other.best is None:
        return base.best is other.best

    def choices(advice: Advice) -> set[tuple[str | None, str | None, float]]:
        found = [advice.best] if advice.best is not None else []
        return {_place(summary.cell) for summary in (*found, *advice.equivalent)}

    return _place(other.best.cell) in choices(base) or _place(base.best.cell) in choices(other)


def _place(cell: Cell) -> tuple[str | None, str | None, float]:
    return cell.dial, cell.level, cell.share


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
            optimism=found.optimism,
            more_draws=found.more_draws,
        )
        for rows, found in sorted(advice.items(), reverse=True)
    )


def _find_real_only(advice: Advice, rows: int) -> float | None:
    best = None if advice.best is None else advice.best.cell
    found = [s for s in advice.cells if s.cell.kind == "real-only" and s.cell.rows_per_label == rows]
    own = [s for s in found if best is None or (s.cell.trainer, s.cell.loss) == (best.trainer, best.loss)]
    return next((s.accuracy for s in own), None)
