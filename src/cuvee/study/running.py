"""Running planned trials: what the run folder lacks goes to the executor, and comes back into the folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from cuvee.corpus import Corpus
from cuvee.errors import CuveeError
from cuvee.execute import Executor, Lost, Progress, open_executor
from cuvee.fingerprint import hash_value
from cuvee.recommend import PlannedTrial
from cuvee.records import Cell, Kind, Trial, TrialFailure
from cuvee.registry import hash_code
from cuvee.study.judging import make_judging
from cuvee.study.known import KnownVectors
from cuvee.study.setup import Study
from cuvee.study.work import Mixing, Outcome, Task, TrialWork

Settings = Mapping[str, bool | int | float | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the cells of one trainer and loss are trained: optimiser steps, settings of trainer and loss."""

    trainer: str
    loss: str
    steps: int
    settings: Settings

    @property
    def code(self) -> tuple[str, ...]:
        """Hashes of the code of its trainer and loss, as far as they are the user's own."""
        return hash_own([self.trainer, self.loss])


def hash_own(names: Sequence[str]) -> tuple[str, ...]:
    """Hashes of the code of the user's own among these names, which are written ``module:Name``."""
    return tuple(hash_code(name) for name in names if ":" in name)


def grid_recipes(study: Study) -> tuple[Recipe, ...]:
    """Of every trainer with every loss of the study, the main one first."""
    train = study.config.train
    return tuple(
        Recipe(trainer=t, loss=loss, steps=train.steps_of(t), settings=train.settings_of(t, loss))
        for t in train.trainers
        for loss in train.losses
    )


def make_mixing(study: Study, pools: Mapping[str, Corpus], more: Sequence[float] = ()) -> Mixing:
    """How the study mixes its cells, and cells at more shares than it plans."""
    shares = {0.0, *study.config.mix.shares, *more}
    return Mixing(
        train=study.train,
        pools=pools,
        blocks={(rows, share): study.blocks_needed(share, rows) for rows in study.row_counts for share in shares},
        regime=study.config.mix.regime,
        seed=study.config.seed,
        fewer=study.fewer,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeWork:
    """Runs each trial by the recipe of its trainer and loss. It is carried once to each place where trials run.

    Attributes:
        works: (trainer, loss) -> how its trials are run; they share their data.
        part: what predictors are evaluated on.
        epochs: (kind, share) -> rows of such a cell over its real rows, by which its steps are multiplied; empty
            where all cells get the same steps.
    """

    works: Mapping[tuple[str, str], TrialWork]
    part: Literal["validation", "test"]
    epochs: Mapping[tuple[Kind, float], float]

    def key(self, item: PlannedTrial) -> str:
        """Hash of all that determines the trial's result.

        Raises:
            InputError: its blend cannot be mixed.
        """
        return self._work(item.cell).key(item)

    def failure_key(self, item: PlannedTrial) -> str:
        """What a failure of the trial is kept under, however it failed."""
        return hash_value([item.cell, item.draw, self.part, "failed", *(["equal-epochs"] if self.epochs else [])])

    def __call__(self, task: Task) -> Outcome:
        """The trial, or the failure it ended in."""
        return self._work(task.item.cell)(task)

    def _work(self, cell: Cell) -> TrialWork:
        work = self.works[cell.trainer, cell.loss]
        if not self.epochs:
            return work
        return replace(work, steps=max(1, round(work.steps * self.epochs[cell.kind, cell.share])))


class TrialRunner:
    """Runs planned trials, round after round, in one place that stays open."""

    def __init__(self, study: Study, work: RecipeWork, executor: Executor, progress: Progress) -> None:
        self._study, self._work, self._executor, self._progress = study, work, executor, progress
        self._done = 0

    def run(self, planned: Sequence[PlannedTrial], *, total: int | None = None) -> list[Outcome]:
        """Run what the run folder does not hold yet; every outcome is committed as it comes.

        Args:
            planned: trials of one round.
            total: trials of all rounds, for the progress; those up to this round by default.

        Returns:
            The outcome of each, in the order of the plan. Failures are recorded, and tried again in the next run.
        """
        end = self._done + len(planned)
        lot = _Lot(self._study, planned, self._work, lambda done: self._progress(self._done + done, total or end))
        for task, result in self._executor.run_all(self._work, lot.tasks(), on_start=lot.mark):
            lot.keep(task, result)
        self._done = end
        return lot.outcomes()


@contextmanager
def open_trials(
    study: Study,
    pools: Mapping[str, Corpus],
    recipes: Sequence[Recipe],
    *,
    stage: str,
    test: Corpus | None = None,
    epochs: Mapping[tuple[Kind, float], float] | None = None,
) -> Iterator[TrialRunner]:
    """A stage of trials: data is embedded once, and one executor stays open over all its rounds.

    Results do not depend on where trials run.

    Args:
        study: prepared.
        pools: level key -> its rows.
        recipes: how the cells of each trainer and loss are trained.
        stage: its name.
        test: what predictors are evaluated on; None is validation.
        epochs: see :class:`RecipeWork`.
    """
    # rows in no generation draw are mixed into no blend: they are neither embedded nor carried
    pools = {key: pool.keep(pool.blocks >= 0) for key, pool in pools.items()}
    held_out = study.split.validation if test is None else test
    part: Literal["validation", "test"] = "validation" if test is None else "test"
    settings = study.config.execute
    with study.stages.stage(stage, "trials") as progress:
        judging = make_judging(study.config.evaluate)
        texts = [*study.train.texts, *held_out.texts, *judging.passages]
        texts += [text for pool in pools.values() for text in pool.texts]
        mixing = make_mixing(study, pools)
        encoder = KnownVectors(study.encoder, texts, source=study.config.encoder)
        works = {
            (recipe.trainer, recipe.loss): TrialWork(
                mixing=mixing,
                held_out=held_out,
                part=part,
                encoder=encoder,
                steps=recipe.steps,
                source_weight=study.config.train.source_weight,
                more=recipe.settings,
                judging=judging,
                code=recipe.code,
            )
            for recipe in recipes
        }
        work = RecipeWork(works=works, part=part, epochs=epochs or {})
        with open_executor(settings.kind, settings.terms(), address=settings.cluster()) as executor:
            yield TrialRunner(study, work, executor, progress)


class _Lot:
    """Planned trials of a round, those that are finished among them."""

    def __init__(
        self, study: Study, planned: Sequence[PlannedTrial], work: RecipeWork, progress: Callable[[int], None]
    ) -> None:
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
        if isinstance(result, Lost):
            result = TrialFailure(cell=task.item.cell, draw=task.item.draw, stage="train", reason=result.reason)
        failure = self._work.failure_key(task.item)
        key = failure if isinstance(result, TrialFailure) else task.key
        self._study.folder.add_trial(key, result, mark=task.key, replaces=failure)
        self._count(task.number, result)

    def _count(self, number: int, outcome: Outcome) -> None:
        self._found[number] = outcome
        self._progress(len(self._found))

    def outcomes(self) -> list[Outcome]:
        """Of every planned trial, in the order of the plan."""
        return [self._found[number] for number in range(len(self._planned))]
