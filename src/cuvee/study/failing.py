"""Trials that failed: counted over all stages and folds, and what a study without any blend leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cuvee.errors import TrialsFailed
from cuvee.records import FailedTrials, TrialFailure, count_failed
from cuvee.study.running import grid_recipes
from cuvee.study.setup import Study
from cuvee.study.tracking import TrainedTrials
from cuvee.study.work import Outcome


def list_failures(trained: Sequence[TrainedTrials]) -> list[TrialFailure]:
    """Every trial that failed, in the order of stages; of a cross-fitted study its fold stands before the reason."""
    return [
        outcome if part.fold is None else replace(outcome, reason=f"fold {part.fold}: {outcome.reason}")
        for part in trained
        for outcome in part.outcomes
        if isinstance(outcome, TrialFailure)
    ]


def find_failed(trained: Sequence[TrainedTrials]) -> FailedTrials | None:
    """How many trials of all stages failed, and why most often; None where none did."""
    failures = [o for part in trained for o in part.outcomes if isinstance(o, TrialFailure)]
    return count_failed(failures, trials=sum(len(part.outcomes) for part in trained))


def is_without_blend(study: Study, grid: Sequence[Outcome]) -> bool:
    """Whether every trial of a blend failed, of those that the advice is drawn from.

    Args:
        study: as it is shown.
        grid: the outcomes of all its grids, of all folds together.
    """
    main = grid_recipes(study)[0]
    wanted = (main.trainer, main.loss, study.rows_per_label)
    blends = [
        outcome
        for outcome in grid
        if outcome.cell.kind == "blend"
        and (outcome.cell.trainer, outcome.cell.loss, outcome.cell.rows_per_label) == wanted
    ]
    return bool(blends) and all(isinstance(outcome, TrialFailure) for outcome in blends)


def refuse_without_blend(study: Study, grid: Sequence[Outcome], failed: FailedTrials | None) -> None:
    """Tell that a study went through to its end and has no blend to speak of.

    Raises:
        TrialsFailed: with how many failed, the most common reason and the remedy.
    """
    if failed is None or not is_without_blend(study, grid):
        return
    path = study.folder.path
    kept = "; blend/ is of an earlier run" if (path / "blend").is_dir() else ""
    raise TrialsFailed(
        f"no blend could be trained, so there is nothing to recommend: {failed}; put that right and run the same "
        f"command again (every failure: {path / 'report.html'}, Failed trials{kept})"
    )
