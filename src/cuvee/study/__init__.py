"""The whole flow on one page.

::

    real data ─split─▶ train | validation | test (locked)
    train ─generate─▶ pools ─measure─▶ diversity, shift, quality
    train + pools ─mix─▶ blends ─train─▶ predictors ─evaluate─▶ trials
    trials ─recommend─▶ advice ─confirm on fresh draws and the locked test─▶ report, blend

Where real data is too small to lock a test, each of several folds goes this way, and their trials are joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cuvee.config.reading import make_config, read_config
from cuvee.config.schema import StudyConfig
from cuvee.corpus import Corpus
from cuvee.errors import TrialsFailed
from cuvee.execute import Listener, Stages
from cuvee.records import Advice, Confirmation, FailedTrials, Measurement, Outcome, Trial, TrialFailure, count_failed
from cuvee.registry import trust_modules
from cuvee.store import RunFolder
from cuvee.study import outputs, trials
from cuvee.study.advising import Advisor
from cuvee.study.crossfit import join_confirmations, join_measurements, join_trials, name_items, open_folds, write_scope
from cuvee.study.demo import make_demo
from cuvee.study.draws import read_draws, save_draws
from cuvee.study.outputs import FinishedStudy, StudyResult, Winner
from cuvee.study.pools import PooledStudy
from cuvee.study.prepare import Pools, Study, load_rows
from cuvee.study.status import Recorder

if TYPE_CHECKING:
    import datasets


class Flow(PooledStudy):
    """A study's stages, each made when it is first asked for, from what the run folder does not hold yet."""

    wants_blend = False
    """Whether a blend is written even where the advice is not to use it."""
    charts: Path | None = None
    """A folder to which the report's charts are written as SVG, PNG and CSV."""
    confirmation_trials: trials.ConfirmationTrials | None = None

    @property
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

    @cached_property
    def result(self) -> StudyResult:
        """Write the report and the recommended blend.

        Raises:
            TrialsFailed: every trial of a blend failed; the report is written, and no blend.
        """
        advice = self.advice  # all stages, fold after fold
        outcomes = [part.outcomes for part in self.parts]
        done = FinishedStudy(
            study=self._shown,
            parts=self.parts,
            outcomes=outcomes,
            measurements=self.measurements,
            advice=advice,
            trials=[o for o in (*self.grid, *self.checks) if isinstance(o, Trial)],
            failed=self.failed,
        )
        result = outputs.write_outputs(done, wants_blend=self.wants_blend, charts=self.charts)
        if self.study.config.train_winner:
            result = replace(result, model=self.winner.folder)
        outputs.track_study(self._shown, advice, sum(map(len, outcomes)))
        self.check_trained()
        return result

    @cached_property
    def winner(self) -> Winner:
        """Train the advised blend, or the real rows alone, on all real rows but those of the locked test.

        Raises:
            TrialsFailed: every trial of a blend failed.
        """
        advice = self.advice
        self.check_trained()
        return outputs.train_advised(self, advice)

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
    def _shown(self) -> Study:
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
        self.folds, self._config = tuple(folds), config

    @property
    def parts(self) -> tuple[Flow, ...]:
        """The flow of each fold."""
        return self.folds

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
        return join_trials(found, [name_items(fold.study.split.validation) for fold in self.folds])

    def _confirm(self, draws: int) -> Confirmation | None:
        """What each fold chose without the rows that it held out, on fresh draws and those rows."""
        best = self.draft.best
        for fold in self._in_turn("confirmation"):
            fold.look(draws)
        found = [fold.confirmation_trials for fold in self.folds]
        done = [each for each in found if each is not None]
        joined = None if best is None or len(done) < len(found) else join_confirmations(done, best.cell)
        if joined is None:
            self.study.note("a fold has no trial that confirms its choice: the study is unconfirmed")
        return joined

    def _conclude(self) -> Advice:
        found = self._advisor.conclude(self.grid, confirmation=self.confirmation)
        return replace(found, scope=f"{found.scope} {write_scope(self.study, len(self.folds))}")

    def _in_turn(self, stage: str) -> Iterator[Flow]:
        """Every fold; which one is at work is noted, unless it has made this stage already."""
        for number, fold in enumerate(self.folds, start=1):
            if stage not in vars(fold):
                self.study.note(f"fold {number} of {len(self.folds)}: {stage}")
            yield fold

    @property
    def _shown(self) -> Study:
        return replace(self.study, config=self._config)


@contextmanager
def open_study(
    config: StudyConfig | dict[str, object] | str | Path,
    *,
    real: Corpus | datasets.Dataset | None = None,
    out: str | Path | None = None,
    listener: Listener | None = None,
    trust: Sequence[str] = (),
) -> Iterator[Flow]:
    """Prepare a study and hold its run folder; stages run as they are asked for.

    Args:
        config: a study.yaml, or its content.
        real: the real rows, a corpus or a Hugging Face dataset; read from ``data.real`` when left out.
        out: the run folder; ``runs/NAME`` when left out.
        listener: hears the progress.
        trust: modules whose code the config may name as ``module:Name``; see ``cuvee.registry.trust_modules``.

    Raises:
        CuveeError: bad input or config, a run folder of another study or in use.
    """
    if real is not None and isinstance(config, dict):
        config = {"data": {"real": "in memory"}, **config}
    settings = make_config(config)
    given = real if real is None or isinstance(real, Corpus) else load_rows(real, settings.data, settings.task)
    with trust_modules(*trust), RunFolder(out or Path("runs") / settings.name) as folder:
        outputs.check_tracking(settings)
        settings = settings.model_copy(update={"encoder": folder.keep_encoder(settings.encoder)})
        recorder = Recorder(folder, listener)
        try:
            with open_folds(settings, folder, Stages(recorder, recorder.seconds), given) as studies:
                for study in studies:
                    trials.validate_study(study)
                flows = [Flow(study) for study in studies]
                yield flows[0] if len(flows) == 1 else CrossfitFlow(flows, settings)
        finally:
            recorder.close()


def run_study(
    config: StudyConfig | dict[str, object] | str | Path,
    *,
    real: Corpus | datasets.Dataset | None = None,
    out: str | Path | None = None,
    listener: Listener | None = None,
    trust: Sequence[str] = (),
    blend: bool = False,
) -> StudyResult:
    """Run a study, or go on with one: what the run folder holds is not done again.

    Args:
        config: a study.yaml, or its content.
        real: the real rows, a corpus or a Hugging Face dataset; read from ``data.real`` when left out.
        out: the run folder; ``runs/NAME`` when left out.
        listener: hears the progress.
        trust: modules whose code the config may name as ``module:Name``; see ``cuvee.registry.trust_modules``.
        blend: write the best cell's blend even where the advice is not to use it.

    Raises:
        CuveeError: bad input or config, an endpoint that fails, a run folder of another study or in use.
        TrialsFailed: one of them: every trial of a blend failed.
    """
    with open_study(config, real=real, out=out, listener=listener, trust=trust) as flow:
        flow.wants_blend = blend
        return flow.result


def train_winner(run: str | Path, *, listener: Listener | None = None, trust: Sequence[str] = ()) -> Winner:
    """Train the model of a run folder into its ``model/``: of the advised blend; what the study lacks is run first.

    Read it back with :func:`cuvee.load_predictor`.

    Args:
        run: the run folder.
        listener: hears the progress.
        trust: as :func:`run_study` takes it.

    Raises:
        CuveeError: no run folder, a trial or the training fails.
    """
    with open_study(read_config(Path(run) / "study.yaml"), out=run, listener=listener, trust=trust) as flow:
        return flow.winner
