"""The stages of a study, or of one in folds, each made when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from cuvee.config.schema import StudyConfig
from cuvee.errors import TrialsFailed
from cuvee.records import Advice, Confirmation, FailedTrials, Measurement, Outcome, TrialFailure, count_failed
from cuvee.study import trials
from cuvee.study.advising import Advisor
from cuvee.study.crossfit import join_confirmations, join_measurements, join_trials, name_items, write_scope
from cuvee.study.draws import read_draws, save_draws
from cuvee.study.pools import PooledStudy
from cuvee.study.prepare import Pools, Study


class Flow(PooledStudy):
    """A study's stages, each made when it is first asked for, from what the run folder does not hold yet."""

    confirmation_trials: trials.ConfirmationTrials | None = None

    @cached_property
    def parts(self) -> tuple[Flow, ...]:
        """The studies that this one is made of: itself; of a cross-fitted one, each fold."""
        return (self,)

    @cached_property
    def grid(self) -> list[Outcome]:
        """Mix, train and evaluate: every cell at every draw, or what an adaptive search asks for."""
        return trials.run_grid(self)

    @cached_property
    def draft(self) -> Advice:
        """What the grid says, before the winner is confirmed."""
        return self._advisor.draft(self.grid)

    @cached_property
    def checks(self) -> list[Outcome]:
        """The dearer trainer on few cells."""
        return trials.check_trainer(self, self.draft)

    @cached_property
    def variants(self) -> dict[str, list[Outcome]]:
        """The slice of the shape test and the best cell, trained in other ways: by the name of each."""
        return trials.run_variants(self, self.draft)

    @cached_property
    def confirmation(self) -> Confirmation | None:
        """The winner on fresh draws and the locked test, look after look until one settles it."""
        found = None
        for draws in trials.list_looks(self.study):
            found = self._confirm(draws)
            if found is None or not found.looks or self._advisor.is_settled(self.draft, found):
                break
        return found

    def _confirm(self, draws: int) -> Confirmation | None:
        """One look."""
        self.look(draws)
        return trials.conclude_confirmation(self.study, self.confirmation_trials)

    def look(self, draws: int) -> None:
        """Run the trials of the winner on so many fresh draws and the locked test, into ``confirmation_trials``."""
        self.confirmation_trials = trials.run_confirmation(self, self.grid, self.draft, draws=draws)

    @cached_property
    def advice(self) -> Advice:
        """The verdict with all its evidence, and the failures of all stages and folds."""
        found = self._conclude()
        return replace(found, failures=0 if self.failed is None else self.failed.failed)

    def _conclude(self) -> Advice:
        return self._advisor.conclude(self.grid, self.checks, self.variants, self.confirmation)

    @cached_property
    def _advisor(self) -> Advisor:
        return Advisor(self, joined=len(self.parts) > 1)

    @property
    def outcomes(self) -> list[Outcome]:
        """The trials of every stage that trains, of this study or fold alone."""
        confirmed = self.confirmation_trials
        varied = [outcome for found in self.variants.values() for outcome in found]
        return [*self.grid, *self.checks, *varied, *(() if confirmed is None else confirmed.outcomes)]

    @cached_property
    def failed(self) -> FailedTrials | None:
        """How many trials of all stages and folds failed, and why most often; None where none did."""
        outcomes = [outcome for part in self.parts for outcome in part.outcomes]
        return count_failed([o for o in outcomes if isinstance(o, TrialFailure)], trials=len(outcomes))

    def check_trained(self) -> None:
        """See that there is a blend to speak of.

        Raises:
            TrialsFailed: every trial of a blend failed.
        """
        if self._advisor.lacks_blend(self.grid):
            path = self.study.folder.path
            kept = "; blend/ is of an earlier run" if (path / "blend").is_dir() else ""
            raise TrialsFailed(
                f"no blend could be trained, so there is nothing to recommend: {self.failed}; put that right "
                f"and run the same command again (every failure: {path / 'report.html'}, Failed trials{kept})"
            )

    @property
    def shown(self) -> Study:
        """The study as the report shows it."""
        return self.study


class CrossfitFlow(Flow):
    """The stages of a study in folds: the first fold is the study itself, and its trials are joined with the others'.

    Args:
        folds: the flow of each fold, as of a study of its own.
        config: the config as it was given; each fold has its part of the budget.
    """

    def __init__(self, folds: Sequence[Flow], config: StudyConfig) -> None:
        super().__init__(folds[0].study)
        self.parts, self._config = tuple(folds), config

    @cached_property
    def pools(self) -> Pools:
        """The pools of the first fold; those of the others are made too."""
        made = [fold.pools for fold in self._in_turn("pools")]
        return made[0]

    @cached_property
    def measurements(self) -> dict[str, Measurement]:
        """Of every pool and the real training rows: means over the folds, with their range."""
        return join_measurements([fold.measurements for fold in self._in_turn("measurements")])

    @cached_property
    def grid(self) -> list[Outcome]:
        """Each cell at each draw on the validation rows of all folds."""
        found = []
        for fold in self._in_turn("grid"):
            if (chosen := read_draws(self.study.folder.path)) is not None:  # by the first fold, for all of them
                save_draws(fold.study.folder, chosen)
            found.append(fold.grid)
        return join_trials(found, [name_items(fold.study.split.validation) for fold in self.parts])

    def _confirm(self, draws: int) -> Confirmation | None:
        """What each fold chose without the rows that it held out, on fresh draws and those rows."""
        best = self.draft.best
        for fold in self._in_turn("confirmation"):
            fold.look(draws)
        found = [fold.confirmation_trials for fold in self.parts]
        done = [each for each in found if each is not None]
        joined = None if best is None or len(done) < len(found) else join_confirmations(done, best.cell)
        if joined is None:
            self.study.note("a fold has no trial that confirms its choice: the study is unconfirmed")
        return joined

    def _conclude(self) -> Advice:
        found = self._advisor.conclude(self.grid, confirmation=self.confirmation)
        return replace(found, scope=f"{found.scope} {write_scope(self.study, len(self.parts))}")

    def _in_turn(self, stage: str) -> Iterator[Flow]:
        """Every fold; which one is at work is noted, unless it has made this stage already."""
        for number, fold in enumerate(self.parts, start=1):
            if stage not in vars(fold):
                self.study.note(f"fold {number} of {len(self.parts)}: {stage}")
            yield fold

    @property
    def shown(self) -> Study:
        """With the whole budget."""
        return replace(self.study, config=self._config)
