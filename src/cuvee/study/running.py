"""Running planned trials: what the run folder lacks goes to the executor, and comes back into the folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cuvee.corpus import Corpus
from cuvee.errors import CuveeError
from cuvee.execute import Lost, open_executor
from cuvee.execute.stages import Progress
from cuvee.fingerprint import hash_value
from cuvee.recommend import PlannedTrial
from cuvee.records import Trial, TrialFailure
from cuvee.study.known import KnownVectors
from cuvee.study.setup import Study
from cuvee.study.work import Mixing, Outcome, Task, TrialWork


def make_mixing(study: Study, pools: Mapping[str, Corpus], shares: Sequence[float]) -> Mixing:
    """How the study mixes cells of these shares."""
    return Mixing(
        train=study.train,
        pools=pools,
        blocks={share: study.blocks_needed(share) for share in sorted(set(shares))},
        regime=study.config.mix.regime,
        seed=study.config.seed,
    )


def run_planned(
    study: Study,
    planned: Sequence[PlannedTrial],
    pools: Mapping[str, Corpus],
    *,
    stage: str,
    steps: int,
    test: Corpus | None = None,
    more: Mapping[str, bool | int | float | str] | None = None,
) -> list[Outcome]:
    """Run what the run folder does not hold yet, in the order of the plan; every outcome is committed as it comes.

    ``more`` are settings of trainer and loss; None takes the grid's.
    Failures are recorded, and tried again in the next run. Results do not depend on where trials run.
    """
    held_out = study.split.validation if test is None else test
    more = study.config.train.settings if more is None else more
    settings = study.config.execute
    with study.stages.stage(stage, "trials") as progress:
        texts = [*study.train.texts, *held_out.texts, *(text for pool in pools.values() for text in pool.texts)]
        work = TrialWork(
            mixing=make_mixing(study, pools, [item.cell.share for item in planned]),
            held_out=held_out,
            part="validation" if test is None else "test",
            encoder=KnownVectors(study.encoder, texts, source=study.config.encoder),
            steps=steps,
            source_weight=study.config.train.source_weight,
            more=more,
        )
        lot = _Lot(study, planned, work, progress)
        with open_executor(settings.kind, settings.terms(), address=settings.address) as executor:
            for task, result in executor.run_all(work, lot.tasks(), on_start=lot.mark):
                lot.keep(task, result)
    return lot.outcomes()


class _Lot:
    """Planned trials, those that are finished among them."""

    def __init__(self, study: Study, planned: Sequence[PlannedTrial], work: TrialWork, progress: Progress) -> None:
        self._study, self._planned, self._work, self._progress = study, planned, work, progress
        self._found: dict[int, Outcome] = {}

    def tasks(self) -> Iterator[Task]:
        """What is to be run; what is known or cannot be mixed is dealt with on the way."""
        for number, item in enumerate(self._planned):
            try:
                key = self._work.key(item)
            except CuveeError as exc:
                failure = TrialFailure(cell=item.cell, draw=item.draw, stage="mix", reason=str(exc))
                self.keep(Task(number=number, item=item, key=""), failure)
                continue
            known = self._study.folder.find_trial(key)
            if isinstance(known, Trial):
                self._count(number, known)
            else:
                yield Task(number=number, item=item, key=key)

    def mark(self, task: Task) -> None:
        """Note that a trial begins."""
        self._study.folder.mark_trial(task.key, task.item.cell, task.item.draw)

    def keep(self, task: Task, result: Outcome | Lost) -> None:
        """Commit a result, then count it."""
        cell, draw = task.item.cell, task.item.draw
        if isinstance(result, Lost):
            result = TrialFailure(cell=cell, draw=draw, stage="train", reason=result.reason)
        failure = hash_value([cell, draw, self._work.part, "failed"])
        key = failure if isinstance(result, TrialFailure) else task.key
        self._study.folder.add_trial(key, result, mark=task.key, replaces=failure)
        self._count(task.number, result)

    def _count(self, number: int, outcome: Outcome) -> None:
        self._found[number] = outcome
        self._progress(len(self._found), len(self._planned))

    def outcomes(self) -> list[Outcome]:
        """Of every planned trial, in the order of the plan."""
        return [self._found[number] for number in range(len(self._planned))]
