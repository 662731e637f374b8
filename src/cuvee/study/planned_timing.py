"""How long a trial takes here: real trials of a few steps, on rows of the study, that nobody keeps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from cuvee.corpus import SCHEMA, Corpus, label_strata
from cuvee.encoders import DEFAULT_ENCODER, Encoder
from cuvee.errors import CuveeError
from cuvee.execute import LocalExecutor, Silent
from cuvee.execute.stages import Progress
from cuvee.fingerprint import derive_rng
from cuvee.hub import without_hub
from cuvee.mix import share_counts
from cuvee.recommend import PlannedTrial
from cuvee.records import Scores, TrialFailure, Vectors
from cuvee.study.judging import Judging, make_judging
from cuvee.study.known import KnownVectors
from cuvee.study.running import Recipe, RecipeWork, TrialRunner, make_mixing
from cuvee.study.setup import Study
from cuvee.study.work import TrialWork
from cuvee.train.settings import Trained

LONGEST_S = 20.0
"""Of timing one trainer with one loss, about: a step of a slow model is let run to its end."""
_STEPS_S, _ROWS_S = 5.0, 4.0
_REPEATS, _REPEATS_S = 5, 0.5
_FIRST_ROWS, _LAST_ROWS = 8, 2
_MINILM_DIM = 384


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeTime:
    """Seconds of a trial with one trainer and loss.

    Attributes:
        trainer, loss: of the trial.
        start: once in each place where trials run: a model is loaded.
        fixed: of each trial: mixing, a copy of the model, the loss and its checker prepared.
        step: of an optimiser step.
        row: of evaluating one held-out row.
        rough: one step was too slow to time more; what is fixed is in that step, and the numbers are at most so large.
    """

    trainer: str
    loss: str
    start: float
    fixed: float
    step: float
    row: float
    rough: bool = False

    def seconds(self, *, steps: float, rows: int) -> float:
        """Of one trial of so many steps, evaluated on so many rows."""
        return self.fixed + self.step * steps + self.row * rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Untimed:
    """A trainer with a loss that could not be timed, and why."""

    trainer: str
    loss: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClockedJudging(Judging):
    """Judges as the study does, and notes the seconds."""

    took: list[float] = field(default_factory=list)

    def judge(self, predictor: Trained, held_out: Corpus, *, encoder: Encoder, seed: int) -> Scores:
        """See :meth:`Judging.judge`."""
        start = time.perf_counter()
        scores = Judging.judge(self, predictor, held_out, encoder=encoder, seed=seed)
        self.took.append(time.perf_counter() - start)
        return scores


class RandomVectors:
    """An encoder for timing: vectors of the right width, which cost nothing and are never kept."""

    name = "random"
    hash = "random"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32, shape (len(texts), dim)."""
        drawn = derive_rng(0, "timing").standard_normal((len(texts), self.dim), dtype=np.float32)
        made: Vectors = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        return made


def stand_in_encoder(study: Study) -> RandomVectors:
    """Random vectors as wide as those of the study's encoder; of the default one's width where it cannot be loaded."""
    if study.config.encoder == DEFAULT_ENCODER:
        return RandomVectors(_MINILM_DIM)
    try:
        with without_hub():
            return RandomVectors(study.encoder.dim)
    except CuveeError:
        return RandomVectors(_MINILM_DIM)


def stand_in_pool(study: Study, dial: str, level: str, blocks: Sequence[int]) -> Corpus:
    """A pool of full blocks before there is one: real training rows, as often as it takes, as if an LLM wrote them."""
    strata = label_strata(study.train)
    mine = {name: [i for i, other in enumerate(strata) if other == name] for name in dict.fromkeys(strata)}
    chosen: list[int] = []
    numbers: list[int] = []
    for block in blocks:
        for name, count in study.block_rows().items():
            chosen += [mine[name][i % len(mine[name])] for i in range(count)]
            numbers += [block] * count
    columns: dict[str, pa.Array] = {
        "id": pa.array([f"timing-{i}" for i in range(len(chosen))], pa.string()),
        "origin": pa.array(["synthetic"] * len(chosen), pa.string()),
        "dial": pa.array([dial] * len(chosen), pa.string()),
        "level": pa.array([level] * len(chosen), pa.string()),
        "block": pa.array(numbers, pa.int32()),
    }
    table = study.train.take(chosen).table
    for name, column in columns.items():
        table = table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
    return Corpus(table, study.train.task)


class TrialClock:
    """Times trials of a study on its own rows, with the number of threads that its trials get.

    Vectors are random ones of the right width: embedding is no part of a trial.

    Args:
        study: prepared.
    """

    def __init__(self, study: Study) -> None:
        execute = study.config.execute
        self._study = study
        self._executor = LocalExecutor(execute.cpus if execute.kind == "local" else execute.cpus or 1)
        self._judging = make_judging(study.config.evaluate)
        texts = [*study.train.texts, *study.split.validation.texts, *self._judging.passages]
        self._runs = 0
        self._encoder = KnownVectors(stand_in_encoder(study), texts, source=study.config.encoder)

    def time(self, recipe: Recipe, item: PlannedTrial) -> RecipeTime | Untimed:
        """Seconds of a trial of a blend's cell, from trials of one step and of a few.

        A slow one is stopped after its first step: then ``rough`` is set. One whose model or package is not here is not
        timed; nothing is downloaded.
        """
        try:
            with without_hub():
                return self._time(recipe, item)
        except _Failed as exc:
            return Untimed(trainer=recipe.trainer, loss=recipe.loss, reason=str(exc))

    def _time(self, recipe: Recipe, item: PlannedTrial) -> RecipeTime:
        every, few = len(self._study.split.validation), _FIRST_ROWS
        cold = self._run(recipe, item, steps=1, rows=few)
        if cold.train + cold.judge > LONGEST_S:
            return _at_most(recipe, start=0.0, took=cold, rows=min(few, every))
        rows = min(every, max(few, int(_ROWS_S * min(few, every) / max(cold.judge, 1e-3))))
        short = self._run(recipe, item, steps=1, rows=rows)
        start = max(0.0, cold.train - short.train)
        if short.train + short.judge > LONGEST_S / 2:
            return _at_most(recipe, start=start, took=short, rows=rows)
        step = 0.0
        if recipe.steps > 1:
            steps = min(recipe.steps, max(2, int(_STEPS_S / max(short.train, 1e-3))))
            step = max(0.0, (self._run(recipe, item, steps=steps, rows=_LAST_ROWS).train - short.train) / (steps - 1))
        return RecipeTime(
            trainer=recipe.trainer,
            loss=recipe.loss,
            start=start,
            fixed=max(0.0, short.train - step),
            step=step,
            row=short.judge / rows,
        )

    def _run(self, recipe: Recipe, item: PlannedTrial, *, steps: int, rows: int) -> _Took:
        """Seconds of a trial of so many steps and held-out rows; a quick one is repeated, and their median counts."""
        study, every = self._study, self._study.split.validation
        part = np.linspace(0, len(every) - 1, min(rows, len(every)), dtype=int)
        passages = self._judging.passages
        judging = _ClockedJudging(
            score=self._judging.score,
            max_tokens=self._judging.max_tokens,
            diversity=self._judging.diversity,
            passages=passages[: -(-len(passages) * len(part) // len(every))],
        )
        work = TrialWork(
            mixing=make_mixing(study, self._pools(item)),
            held_out=every.take(part),
            part="validation",
            encoder=self._encoder,
            steps=steps,
            source_weight=study.config.train.source_weight,
            more=recipe.settings,
            judging=judging,
        )
        both = RecipeWork(works={(recipe.trainer, recipe.loss): work}, part="validation", epochs={})
        runner = TrialRunner(study, both, self._executor, Progress(Silent(), "timing"))
        found: list[_Took] = []
        begun = time.perf_counter()
        while not found or (len(found) < _REPEATS and time.perf_counter() - begun < _REPEATS_S):
            self._runs += 1  # a draw of its own: what the folder holds is not run again
            drawn = replace(item, draw=replace(item.draw, training=self._runs))
            start = time.perf_counter()
            (outcome,) = runner.run([drawn])  # committed to the folder of the plan, as in a study
            if isinstance(outcome, TrialFailure):
                raise _Failed(outcome.reason)
            judged = judging.took[-1]
            found.append(_Took(train=time.perf_counter() - start - judged, judge=judged))
        return _Took(train=float(np.median([f.train for f in found])), judge=float(np.median([f.judge for f in found])))

    def _pools(self, item: PlannedTrial) -> dict[str, Corpus]:
        cell = item.cell
        if cell.dial is None or cell.level is None:
            return {}
        needed = self._study.blocks_needed(cell.share, cell.rows_per_label)
        blocks = sorted({item.draw.generation, *range(needed)})
        return {f"{cell.dial}={cell.level}": stand_in_pool(self._study, cell.dial, cell.level, blocks)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Took:
    train: float
    judge: float


def _at_most(recipe: Recipe, *, start: float, took: _Took, rows: int) -> RecipeTime:
    """What one step tells: all of a trial's training counts as that step."""
    return RecipeTime(
        trainer=recipe.trainer, loss=recipe.loss, start=start, fixed=0.0, step=took.train, row=took.judge / rows,
        rough=True,
    )  # fmt: skip


class _Failed(CuveeError):
    """The timed trial failed."""


def choose_typical(study: Study, items: Sequence[PlannedTrial]) -> PlannedTrial:
    """Of planned trials the blend whose rows are nearest to the mean of all: time grows with rows evenly."""
    blends = [item for item in items if item.cell.kind == "blend" and item.cell.dial is not None]
    sizes = {item.cell: _count_rows(study, item) for item in items}
    mean = float(np.mean([sizes[item.cell] for item in items]))
    return min(blends, key=lambda item: abs(sizes[item.cell] - mean))


def as_recipe(item: PlannedTrial, recipe: Recipe) -> PlannedTrial:
    """The same planned trial with another trainer and loss."""
    return replace(item, cell=replace(item.cell, trainer=recipe.trainer, loss=recipe.loss))


def _count_rows(study: Study, item: PlannedTrial) -> int:
    cell = item.cell
    counts = share_counts(study.strata_counts(cell.rows_per_label), cell.share, regime=study.config.mix.regime)
    real, synthetic = sum(r for r, _ in counts.values()), sum(s for _, s in counts.values())
    return synthetic if cell.kind == "synthetic-only" else real + synthetic
