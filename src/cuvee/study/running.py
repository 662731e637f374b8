"""One trial as work that can run anywhere, and the running of planned ones: what the run folder lacks goes to the
executor, and comes back into the folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import TypeAdapter

from cuvee.config.generators import SPEED
from cuvee.config.schema import EvaluateConfig
from cuvee.config.sections import CHECK_STEPS, COMMAND, PROBE, CheckConfig, TrainConfig
from cuvee.corpus import Corpus, count_strata, load_corpus
from cuvee.corpus.files import replace_text
from cuvee.encoders import Encoder, KnownVectors
from cuvee.errors import CuveeError, TrainingError, TrialsAwaited
from cuvee.evaluate import Diversity, Writing, evaluate_model
from cuvee.execute import Executor, Lost, StageCounter, open_executor
from cuvee.fingerprint import derive_seed, hash_value
from cuvee.measure import measure_corpus
from cuvee.mix import Blend, first_rows, mix_corpora, share_counts, take_blocks
from cuvee.recommend import PlannedTrial
from cuvee.records import Cell, Draw, Kind, Outcome, Regime, Scores, Stage, Trial, TrialFailure, count_failed
from cuvee.registry import hash_own
from cuvee.similarity import single_blas_thread
from cuvee.store import safe_name
from cuvee.study.grids import find_needed, rows_at_hand
from cuvee.study.judge import Judge, open_judge, read_rubric
from cuvee.study.prepare import Study
from cuvee.train import TRAINERS, Program, TrainSettings, needs_real_rows, train_model, without_loss
from cuvee.train.command import hash_program, offer_inputs
from cuvee.train.settings import Trained

# What is measured of the texts that a model writes.
DIVERSITY = ("vendi_q1", "distinct_2", "compression_ratio", "self_bleu")


def read_passages(config: EvaluateConfig) -> tuple[str, ...]:
    """Retrieval: more passages to find the right ones among.

    Raises:
        InputError: their file cannot be read.
    """
    return () if config.passages is None else load_passages(config.passages)


def measure_written(encoder: Encoder, seed: int) -> Diversity:
    """Measures the diversity of what a model writes."""

    def measure(texts: Sequence[str]) -> dict[str, float]:
        # an empty completion has no vector, and is one way to write like any other
        corpus = Corpus.from_rows([{"text": t if t.strip() else "-", "target": ""} for t in texts])
        found = {}
        for name in DIVERSITY:
            with suppress(ValueError):  # not defined on these texts: pairs of words, where each has one
                found[name] = measure_corpus(corpus, encoder=encoder, metrics=[name], seed=seed).values[name].value
        return found

    return measure


def load_passages(path: str | Path, column: str | None = None) -> tuple[str, ...]:
    """The distinct passages of a file, in their order; ``column`` None takes a column of a usual name."""
    return tuple(dict.fromkeys(load_corpus(path, text=column, labelled=False, task="retrieval").texts))


# How trials are mixed, trained and scored. Raised where a change of cuvee's own code gives other numbers, so that a
# study that is continued with it mixes no trials of before and after.
NUMBERS = 5
_HOPELESS = 5  # trials of a program that fail in the same way, none having finished: the others would too


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixing:
    """How cells become blends.

    Attributes:
        real: (number of a choice of real rows, rows a label) -> its rows.
        pools: level key -> its rows.
        regime: of the shares.
        seed: of the study.
    """

    real: Mapping[tuple[int, int], Corpus]
    pools: Mapping[str, Corpus]
    regime: Regime
    seed: int

    def mix(self, cell: Cell, draw: Draw) -> Blend:
        """The blend of a cell at a draw: from its block, or from its whole pool, by the cell's scope.

        A label that the pool is short of has what there is.

        Raises:
            InputError: the block holds too few rows.
        """
        pool, of_pool = None, cell.scope == "this pool"
        if cell.dial is not None:
            pool = self.pools[f"{cell.dial}={cell.level}"]
            pool = rows_at_hand(pool) if of_pool else take_blocks(pool, {draw.generation})
        seed = derive_seed(self.seed, "sampling", draw.generation, draw.sampling)
        if pool is not None and of_pool and not cell.whole:
            real = self.real[0, cell.rows_per_label]
            counts = share_counts(count_strata(real), cell.share, regime=self.regime)
            pool = pool.take(first_rows(pool, {label: rows for label, (_, rows) in counts.items()}, seed))
        real, kind = self.real[draw.real, cell.rows_per_label], "real-only" if cell.kind == "untuned" else cell.kind
        share = None if cell.whole else cell.share
        amount: Literal["all"] | None = "all" if cell.whole else None
        return mix_corpora(
            real, pool, share=share, amount=amount, regime=self.regime, seed=seed, kind=kind, allow_fewer=of_pool
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedTrial:
    """A planned trial, under the key that the run folder keeps it by."""

    number: int
    item: PlannedTrial
    key: str


Settings = Mapping[str, bool | int | float | str]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the cells of one trainer and loss are trained.

    Attributes:
        trainer, loss: their names.
        steps: of the optimiser; None for the probe.
        settings: of trainer and loss.
        source_weight: of synthetic rows, for the loss of that name.
        program: of trainer ``command``.
    """

    trainer: str
    loss: str
    steps: int | None
    settings: Settings
    source_weight: float | None = None
    program: Program | None = None

    @property
    def name(self) -> str:
        """Trainer, loss, and steps or penalty in words."""
        told = f", {self.steps} steps" if self.steps is not None else ""
        penalty = f", penalty {self.settings['l2']:g}" if "l2" in self.settings else ""
        return f"{self.trainer}, {self.loss}{told}{penalty}"

    def fit(self, study: Study, factor: float = 1.0) -> Recipe:
        """With the penalty of the probe, times ``factor``; any other trainer's recipe is as it is."""
        if self.trainer != PROBE:
            return self
        l2 = float(self.settings.get("l2") or study.l2)
        return replace(self, settings={**self.settings, "l2": factor * l2})

    @cached_property
    def code(self) -> tuple[str, ...]:
        """Hashes of the code of its trainer and loss, as far as they are the user's own."""
        return (*hash_own([self.trainer, self.loss]), *(() if self.program is None else hash_program(self.program)))

    def make_settings(self, steps: int | None, seed: int) -> TrainSettings:
        """As trainers take them."""
        given, weight = TypeAdapter(TrainSettings).validate_python(self.settings), self.source_weight
        made = replace(given, trainer=self.trainer, loss=self.loss, source_weight=weight, program=self.program)
        return replace(made, steps=steps, seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Another way to train the cells of a study, which the advice is held against.

    Attributes:
        name: in words; empty for the study's own way.
        epochs: (kind, share) -> rows of such a cell over its real rows, by which its steps are multiplied; empty
            where all cells get the same steps.
        penalty: of the probe, over the study's own.
    """

    name: str = ""
    epochs: Mapping[tuple[Kind, float], float] = field(default_factory=dict)
    penalty: float = 1.0


OWN_WAY = Variant()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialWork:
    """Runs tasks, each by the recipe of its trainer and loss. It is carried once to each place where trials run.

    Attributes:
        mixing: makes the blend.
        held_out: what predictors are evaluated on.
        part: what it is.
        encoder: knows the vectors of all texts.
        recipes: (trainer, loss) -> how cells of both are trained.
        evaluate: how predictors are evaluated.
        passages: retrieval: more passages to find the right ones among.
        validation: real rows that no trial is trained on, for trainers of the user's own.
        folder: where the folders of programs that train go.
        variant: how cells are trained in another way than the study's own.
        rubric: what a judge is told of good answers.
    """

    mixing: Mixing
    held_out: Corpus
    part: Literal["validation", "test"]
    encoder: Encoder
    recipes: Mapping[tuple[str, str], Recipe]
    evaluate: EvaluateConfig
    passages: tuple[str, ...]
    validation: Corpus
    folder: Path
    variant: Variant = OWN_WAY
    rubric: str = ""

    def key(self, item: PlannedTrial) -> str:
        """Hash of all that determines the trial's result.

        Raises:
            InputError: its blend cannot be mixed.
        """
        cell, recipe = item.cell, self.recipes[item.cell.trainer, item.cell.loss]
        blend = self.mixing.mix(cell, item.draw).corpus.fingerprint
        data = [blend, self.held_out.fingerprint, self.encoder.hash, self.mixing.seed]
        more: list[object] = [dict(sorted(recipe.settings.items()))] if recipe.settings else []
        if self.evaluate != EvaluateConfig():
            more += [self.evaluate.model_dump(exclude={"judge", "rubric"}) | {"passages": self.passages}]
        if self.evaluate.judge is not None:
            more += [self.evaluate.judge.model_dump(mode="json", exclude=set(SPEED)), self.rubric]
        more += [["numbers", NUMBERS, *recipe.code, *hash_own([self.evaluate.score or ""])]]
        return hash_value([cell, item.draw, self.part, self._steps(cell), recipe.source_weight, *data, *more])

    def failure_key(self, item: PlannedTrial) -> str:
        """What a failure of the trial is kept under, however it failed."""
        return hash_value([item.cell, item.draw, self.part, "failed", *filter(None, [self.variant.name])])

    def folder_of(self, task: QueuedTrial) -> Path | None:
        """The folder that a program is handed; None for other trainers."""
        cell = task.item.cell
        if self.recipes[cell.trainer, cell.loss].program is None:
            return None
        return self.folder / f"{safe_name(cell.key)[:80]}-{task.key[:12]}"

    def __call__(self, task: QueuedTrial) -> Outcome | TrialsAwaited:
        """The trial, the failure it ended in, or, of one that runs elsewhere, that its predictions are awaited."""
        cell, draw = task.item.cell, task.item.draw
        doing: Stage = "mix"
        try:
            with single_blas_thread(), ExitStack() as opened:  # the same bits whatever the number of cores
                blend = self.mixing.mix(cell, draw)
                doing = "train"
                settings, folder = self._settings(cell, draw), self.folder_of(task)
                if folder is not None:
                    if not self.folder.is_dir():  # another machine, which does not see the run folder
                        folder = Path(opened.enter_context(TemporaryDirectory(prefix="cuvee-trial-")))
                    offer_inputs(folder, self.held_out)
                own = None if cell.trainer in TRAINERS and folder is None else self.validation
                made = train_model(blend.corpus, settings=settings, encoder=self.encoder, validation=own, folder=folder)
                doing = "evaluate"
                scores = self._evaluate(made, self._seed(draw))
        except TrialsAwaited as exc:
            return exc
        except (CuveeError, MemoryError) as exc:
            reason = str(exc) or "out of memory; lower split.validation or the trainer's batch size"
            return TrialFailure(cell=cell, draw=draw, stage=doing, reason=reason)
        return Trial(
            cell=cell, draw=draw, composition=blend.composition, steps=self._steps(cell), part=self.part, scores=scores
        )

    def _steps(self, cell: Cell) -> int:
        """0 where a model is fitted to its optimum, or not trained."""
        if cell.kind == "untuned":
            return 0
        steps, epochs = self.recipes[cell.trainer, cell.loss].steps or 0, self.variant.epochs
        return max(1, round(steps * epochs[cell.kind, cell.share])) if epochs else steps

    def _evaluate(self, predictor: Trained, seed: int) -> Scores:
        how, task = self.evaluate, self.held_out.task
        is_measured = task == "generation" and how.diversity
        return evaluate_model(
            predictor,
            self.held_out,
            seed=seed,
            intervals=False,  # those of a trial are never shown; its cell's are
            passages=self.passages or None,
            writing=Writing(max_tokens=how.max_tokens) if task == "generation" else None,
            diversity=measure_written(self.encoder, seed) if is_measured else None,
            score=None if how.judge is not None else how.score,
        )

    def _settings(self, cell: Cell, draw: Draw) -> TrainSettings:
        made = self.recipes[cell.trainer, cell.loss].make_settings(self._steps(cell) or None, self._seed(draw))
        if cell.kind == "untuned":  # one step at a rate that changes no weight
            return replace(without_loss(made), steps=1, learning_rate=1e-30)
        # synthetic rows alone: there is no real row to learn a weight from
        return without_loss(made) if cell.kind == "synthetic-only" and needs_real_rows(made) else made

    def _seed(self, draw: Draw) -> int:
        return derive_seed(self.mixing.seed, "training", draw.generation, draw.sampling, draw.training)


def grid_recipes(study: Study) -> tuple[Recipe, ...]:
    """Of every trainer with every loss of the study, the main one first."""
    train = study.config.train
    return tuple(
        Recipe(
            trainer=t,
            loss=loss,
            steps=train.steps_of(t),
            settings=train.settings_of(t, loss),
            source_weight=train.source_weight if loss == "source_weight" else None,
            program=find_program(train, t),
        )
        for t in train.trainers
        for loss in train.losses
    )


def find_program(train: TrainConfig, trainer: str) -> Program | None:
    """The program of trainer ``command``; None for others."""
    return train.command.program() if trainer == COMMAND and train.command is not None else None


def check_recipe(train: TrainConfig, check: CheckConfig) -> Recipe:
    """How the dearer trainer trains."""
    steps, program = None if check.trainer == PROBE else check.steps or CHECK_STEPS, find_program(train, check.trainer)
    return Recipe(trainer=check.trainer, loss="ce", steps=steps, settings=check.settings, program=program)


def make_mixing(study: Study, pools: Mapping[str, Corpus], samplings: Iterable[int]) -> Mixing:
    """How the study mixes its cells in these subsamples."""
    regime, seed = study.config.mix.regime, study.config.seed
    return Mixing(real=study.real_choices(samplings), pools=pools, regime=regime, seed=seed)


class TrialRunner:
    """Runs planned trials, round after round, in one place that stays open; ``begun`` counts those that were begun."""

    def __init__(
        self, study: Study, work: TrialWork, executor: Executor, progress: StageCounter, judge: Judge | None = None
    ) -> None:
        self._judge = judge
        self._folder, self._work, self._executor, self._progress = study.folder, work, executor, progress
        self._done = self._total = self.begun = 0
        self._found: dict[int, Outcome] = {}
        self._awaited: list[str] = []
        self._failures: list[TrialFailure] | None = []  # of a program, until a trial is finished

    def run(self, planned: Sequence[PlannedTrial], *, total: int | None = None, ahead: bool = False) -> list[Outcome]:
        """Run what the run folder does not hold yet; every outcome is committed as it comes.

        Args:
            planned: trials of one round.
            total: trials of all rounds, for the progress; those up to this round by default.
            ahead: they are asked for again in a later round, and count as done then.

        Returns:
            The outcome of each, in the order of the plan. Failures are recorded, and tried again in the next run.

        Raises:
            TrialsAwaited: some run elsewhere; all that could be run here was.
            TrainingError: the first trials of a program all failed in the same way.
        """
        self._found, self._total = {}, total or self._done + len(planned)
        for task, result in self._executor.run_all(self._work, self._list_tasks(planned)):
            self._keep(task, result)
        if self._awaited:
            path = Path(self._awaited[0]).parent / "awaited.txt"
            replace_text(path, "".join(f"{folder}\n" for folder in sorted(self._awaited)))
            raise TrialsAwaited(
                f"{len(self._awaited)} trials run elsewhere and have no predictions yet; {path} lists their folders, a "
                "line each: run them, then the same command again"
            )
        self._done += 0 if ahead else len(planned)
        return [self._found[number] for number in range(len(planned))]

    def _list_tasks(self, planned: Sequence[PlannedTrial]) -> Iterator[QueuedTrial]:
        """What is to be run; what is known or cannot be mixed is dealt with on the way."""
        for number, item in enumerate(planned):
            try:
                key = self._work.key(item)
            except CuveeError as exc:
                failure = TrialFailure(cell=item.cell, draw=item.draw, stage="mix", reason=str(exc))
                self._keep(QueuedTrial(number=number, item=item, key=""), failure)
                continue
            known = self._folder.find_trial(key)
            if isinstance(known, Trial):
                self._count(number, known)
            else:
                self.begun += 1
                yield QueuedTrial(number=number, item=item, key=key)

    def _keep(self, task: QueuedTrial, result: Outcome | TrialsAwaited | Lost) -> None:
        """Commit a result, then count it."""
        if isinstance(result, TrialsAwaited):
            self._awaited.append(str(result))
            return
        if isinstance(result, Lost):
            result = TrialFailure(cell=task.item.cell, draw=task.item.draw, stage="train", reason=result.reason)
        if self._judge is not None and isinstance(result, Trial):
            result = self._judge.judge(result)
        failure = self._work.failure_key(task.item)
        key = failure if isinstance(result, TrialFailure) else task.key
        self._folder.add_trial(key, result, replaces=failure)
        folder = self._work.folder_of(task)
        if folder is not None and isinstance(result, Trial):
            shutil.rmtree(folder, ignore_errors=True)
        self._count(task.number, result)
        if isinstance(result, TrialFailure) and folder is not None and self._failures is not None:
            self._failures.append(replace(result, reason=result.reason.partition(";")[0]))  # its log may name the trial
            failed = count_failed(self._failures, trials=len(self._failures))
            if failed is not None and failed.failed == failed.times == _HOPELESS:
                raise TrainingError(
                    f"the first {_HOPELESS} trials all failed in the same way: {result.reason}. They are kept in "
                    f"{self._work.folder}; mend the program, and run the same command again"
                )

    def _count(self, number: int, outcome: Outcome) -> None:
        if isinstance(outcome, Trial):
            self._failures = None
        self._found[number] = outcome
        self._progress(self._done + len(self._found), self._total)


@contextmanager
def open_trials(
    study: Study,
    pools: Mapping[str, Corpus],
    recipes: Sequence[Recipe],
    *,
    stage: str,
    test: Corpus | None = None,
    variant: Variant = OWN_WAY,
) -> Iterator[TrialRunner]:
    """A stage of trials: data is embedded once, and one executor stays open over all its rounds.

    Results do not depend on where trials run.

    Args:
        study: prepared.
        pools: level key -> its rows.
        recipes: how the cells of each trainer and loss are trained.
        stage: its name.
        test: what predictors are evaluated on; None is validation.
        variant: how cells are trained in another way than the study's own.
    """
    held_out = study.split.validation if test is None else test
    settings, evaluate, folder = study.config.execute, study.config.evaluate, study.folder.path.resolve() / "trials"
    if any(recipe.program for recipe in recipes):
        command = study.config.train.command
        folder = folder if command is None or command.folder is None else Path(command.folder)
        folder.mkdir(parents=True, exist_ok=True)
    with study.stages.stage(stage, "trials") as progress:
        passages, numbers = read_passages(evaluate), study.samplings(study.draws, fresh=test is not None)
        mixing = make_mixing(study, pools, numbers)
        texts = [*study.train.texts, *held_out.texts, *passages]
        texts += [text for rows in mixing.real.values() for text in rows.texts]
        for key, rows in pools.items():
            needed = find_needed(study, key, numbers)
            texts += (rows if needed is None else rows.keep(needed(rows))).texts
        by_name = {(recipe.trainer, recipe.loss): recipe.fit(study, variant.penalty) for recipe in recipes}
        work = TrialWork(
            mixing=mixing,
            held_out=held_out,
            part="validation" if test is None else "test",
            encoder=KnownVectors(study.encoder, texts, source=study.config.encoder),
            recipes=by_name,
            evaluate=evaluate,
            passages=passages,
            validation=study.split.validation,
            folder=folder,
            variant=variant,
            rubric=read_rubric(evaluate.rubric) if evaluate.judge else "",
        )
        place = open_executor(settings.kind, settings.terms(), address=settings.cluster())
        with open_judge(study, held_out, work.rubric) as judge, place as executor:
            yield TrialRunner(study, work, executor, progress, judge)
