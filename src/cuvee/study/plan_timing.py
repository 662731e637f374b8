"""How long a study takes here: real trials and one batch of requests, run as the study runs them, then multiplied."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from cuvee.config import FileGenerator
from cuvee.corpus import SCHEMA, Corpus, label_strata
from cuvee.encoders import HashingEncoder, build_encoder
from cuvee.errors import CuveeError
from cuvee.execute import LocalExecutor, Progress, Silent
from cuvee.execute.processes import usable_cores
from cuvee.generate import Ledger
from cuvee.generate.calls import Failure, Request
from cuvee.hub import without_hub
from cuvee.mix import share_counts
from cuvee.recommend import PlannedTrial
from cuvee.records import TrialFailure
from cuvee.study.generators import open_llm
from cuvee.study.running import KnownVectors, Recipe, TrialRunner, TrialWork, make_judging, make_mixing
from cuvee.study.setup import Study
from cuvee.study.trials import PlannedGrid

_RUNS, _LONGEST_S = 3, 10.0
"""A quick trial is run again, since the first one loads what all others share."""
_TEXTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePlan:
    """Seconds of the parts of a study, one after the other; None where one is not known.

    Attributes:
        trials: of all stages that were timed, over the workers.
        each: (trainer, loss) -> seconds of one trial.
        generating: of pools and confirmation.
        embedding: of all texts, if none is in the cache yet.
        notes: what was not timed and why.
    """

    trials: float | None
    each: Mapping[str, float]
    generating: float | None
    embedding: float | None
    notes: tuple[str, ...]

    @property
    def total(self) -> float | None:
        """Of the parts that are known."""
        known = [part for part in (self.trials, self.generating, self.embedding) if part is not None]
        return math.fsum(known) if known else None

    def times(self, folds: int) -> TimePlan:
        """So many times as much."""

        def all_of(seconds: float | None) -> float | None:
            return None if seconds is None else seconds * folds

        return replace(
            self,
            trials=all_of(self.trials),
            generating=all_of(self.generating),
            embedding=all_of(self.embedding),
        )


def time_study(
    study: Study,
    grids: Sequence[PlannedGrid],
    stages: Sequence[tuple[Recipe, int, float]],
    *,
    sample: Sequence[Request],
    requests: int,
    texts: int,
) -> TimePlan:
    """Time one trial of each recipe, one batch of requests and some texts; nothing is downloaded.

    Args:
        study: prepared, in a folder that nobody keeps.
        grids: all of the study; a trial's cell is taken from the first.
        stages: recipe, number of trials, and how many times the recipe's steps each of them has.
        sample: requests to send; none is sent where it is empty.
        requests: of the whole study.
        texts: to be embedded.
    """
    notes = [
        "loading, reading files, measuring, statistics and the report are in no estimate; one trial and one batch of "
        "requests were timed here, alone"
    ]

    def attempt(what: str, timed: Callable[[], float]) -> float | None:
        try:
            with without_hub():
                return timed()
        except CuveeError as exc:
            notes.append(f"the time of {what} is not known ({exc}); plan downloads nothing")
            return None

    clock, each = _TrialClock(study, _choose_typical(study, grids[0].planned)), {}
    for recipe in {(r.trainer, r.loss, r.steps): r for r, _, _ in stages}.values():
        took = attempt(f"trials of {recipe.trainer} with loss {recipe.loss}", lambda r=recipe: clock.time(r))  # type: ignore[misc]
        if took is not None:
            each[recipe.trainer, recipe.loss, recipe.steps] = took
    rounds = count_workers(study) or 1
    known = [
        math.ceil(trials / rounds) * longer * each[key]
        for recipe, trials, longer in stages
        if (key := (recipe.trainer, recipe.loss, recipe.steps)) in each
    ]
    generating: float | None = 0.0
    if not isinstance(study.config.generator, FileGenerator):
        generating = attempt("generating", lambda: requests * _time_request(study, sample)) if sample else None
        if not sample:
            notes.append("the time of generating is not known: --ask sends one batch of requests to the endpoint")
    return TimePlan(
        trials=math.fsum(known) if known else None,
        each={f"{trainer}, {loss}, {steps} steps": took for (trainer, loss, steps), took in each.items()},
        generating=generating,
        embedding=attempt("embedding", lambda: texts * _time_text(study)),
        notes=tuple(notes),
    )


def count_workers(study: Study) -> int | None:
    """Trials at once; None where a cluster decides."""
    execute = study.config.execute
    if execute.kind == "local":
        return 1
    if execute.workers != "auto":
        return execute.workers
    return None if execute.kind == "ray" else max(1, usable_cores() // (execute.cpus or 1))


def _time_request(study: Study, sample: Sequence[Request]) -> float:
    """Seconds of a request, as many of them under way at once as in the study."""
    with open_llm(study) as llm, Ledger() as ledger, llm.open_client(llm.endpoint, ledger) as client:
        begun = time.perf_counter()
        answers = client.answer_requests(list(sample))
        took = time.perf_counter() - begun
    failed = [answer for answer in answers if isinstance(answer, Failure)]
    if failed:
        raise CuveeError(f"{len(failed)} of {len(answers)} requests failed: {failed[0].message}")
    return took / len(answers)


def _time_text(study: Study) -> float:
    """Seconds of embedding a text; the cache is neither read nor filled."""
    encoder, texts = build_encoder(study.config.encoder), study.train.texts
    encoder.encode(texts[:1])
    part = [texts[i % len(texts)] for i in range(_TEXTS)]
    begun = time.perf_counter()
    encoder.encode(part)
    return (time.perf_counter() - begun) / len(part)


class _TrialClock:
    """Runs trials of one blend, on real rows of the study in place of a pool, with the threads that its trials get."""

    def __init__(self, study: Study, item: PlannedTrial) -> None:
        execute = study.config.execute
        self._study, self._item, self._runs = study, item, 0
        self._executor = LocalExecutor(execute.cpus if execute.kind == "local" else execute.cpus or 1)
        self._judging = make_judging(study.config.evaluate)
        texts = [*study.train.texts, *study.split.validation.texts, *self._judging.passages]
        # embedding is timed apart: these vectors cost nothing
        self._encoder = KnownVectors(HashingEncoder(), texts, source=study.config.encoder)
        needed = max(study.blocks_needed(item.cell.share, item.cell.rows_per_label), item.draw.generation + 1)
        self._pools = {f"{item.cell.dial}={item.cell.level}": _stand_in_pool(study, item, needed)}

    def time(self, recipe: Recipe) -> float:
        """Seconds of a trial, the least of a few runs.

        Raises:
            CuveeError: the trial failed.
        """
        study = self._study
        work = TrialWork(
            mixing=make_mixing(study, self._pools),
            held_out=study.split.validation,
            part="validation",
            encoder=self._encoder,
            recipes={(recipe.trainer, recipe.loss): recipe},
            source_weight=study.config.train.source_weight,
            judging=self._judging,
        )
        runner = TrialRunner(study, work, self._executor, Progress(Silent(), "timing"))
        took: list[float] = []
        while not took or (len(took) < _RUNS and sum(took) < _LONGEST_S):
            self._runs += 1  # a draw of its own: what the folder holds is not run again
            cell = replace(self._item.cell, trainer=recipe.trainer, loss=recipe.loss)
            drawn = PlannedTrial(cell=cell, draw=replace(self._item.draw, training=self._runs))
            begun = time.perf_counter()
            (outcome,) = runner.run([drawn])
            took.append(time.perf_counter() - begun)
            if isinstance(outcome, TrialFailure):
                raise CuveeError(outcome.reason)
        return min(took)


def _choose_typical(study: Study, items: Sequence[PlannedTrial]) -> PlannedTrial:
    """Of planned trials the blend whose rows are nearest to the mean of all: time grows with rows evenly."""
    blends = [item for item in items if item.cell.kind == "blend"]
    sizes = []
    for item in blends:
        counts = share_counts(
            study.strata_counts(item.cell.rows_per_label), item.cell.share, regime=study.config.mix.regime
        )
        sizes.append(sum(real + synthetic for real, synthetic in counts.values()))
    return blends[int(np.argmin(np.abs(np.array(sizes) - np.mean(sizes))))]


def _stand_in_pool(study: Study, item: PlannedTrial, blocks: int) -> Corpus:
    """A pool of full blocks before there is one: real training rows, as often as it takes, as if an LLM wrote them."""
    strata = label_strata(study.train)
    mine = {name: [i for i, other in enumerate(strata) if other == name] for name in dict.fromkeys(strata)}
    chosen: list[int] = []
    numbers: list[int] = []
    for block in range(blocks):
        for name, count in study.block_rows().items():
            chosen += [mine[name][i % len(mine[name])] for i in range(count)]
            numbers += [block] * count
    columns = {
        "id": pa.array([f"timing-{i}" for i in range(len(chosen))], pa.string()),
        "origin": pa.array(["synthetic"] * len(chosen), pa.string()),
        "dial": pa.array([item.cell.dial] * len(chosen), pa.string()),
        "level": pa.array([item.cell.level] * len(chosen), pa.string()),
        "block": pa.array(numbers, pa.int32()),
    }
    table = study.train.take(chosen).table
    for name, column in columns.items():
        table = table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
    return Corpus(table, study.train.task)
