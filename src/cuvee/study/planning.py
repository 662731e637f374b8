"""What a study would take, before anything is spent: cells, trials, requests, tokens, money, time, power."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cuvee.config import (
    AttributesConfig,
    DialConfig,
    EmbeddedGenerator,
    FileGenerator,
    StudyConfig,
    TopicsConfig,
    make_config,
    read_config,
)
from cuvee.corpus import Corpus
from cuvee.encoders import DEFAULT_ENCODER
from cuvee.evaluate import score_proba
from cuvee.execute import Stages
from cuvee.execute.machine import usable_cores
from cuvee.fingerprint import derive_rng
from cuvee.generate import Dial, Sampling
from cuvee.generate.asking import ITEMS_A_REQUEST
from cuvee.generate.calls import Request
from cuvee.generate.dials import Slot, wanted_slots
from cuvee.generate.prompts import PromptWriter
from cuvee.mix import mix_corpora
from cuvee.recommend import PlannedTrial, plan_grid
from cuvee.recommend.power import plan_power
from cuvee.records import Cell, Level, Vectors
from cuvee.store import RunFolder
from cuvee.study.dials import StandIns, make_dials
from cuvee.study.generation import ATTEMPTS
from cuvee.study.setup import FRESH, Study, prepare_study
from cuvee.study.spending import find_prices
from cuvee.study.validation import require_trainable, validate_study
from cuvee.study.writing import Commission, commission
from cuvee.train import Predictor, TrainSettings, train_model

LETTERS_A_TOKEN = 4.0
"""Of English, by the tokenisers in use; other scripts have fewer, so they take more tokens."""
_PROMPTS_READ = 40
_TIMED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DialPlan:
    """What one dial asks for.

    Attributes:
        dial: its name.
        levels: their names.
        draws: generation draws of each.
        requests: each row of the union of its levels once, if every answer is usable.
        confirm_requests: for the level that asks for most, in fresh draws.
        list_requests: for topics or attributes that are asked for, at least.
        prompt_tokens, completion_tokens: of all these requests, estimated.
    """

    dial: str
    levels: tuple[str, ...]
    draws: int
    requests: int
    confirm_requests: int
    list_requests: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """Trials of one stage with one trainer.

    Attributes:
        stage: grid, check, confirm.
        trainer: of all its trials.
        cells, trials: how many.
        steps: optimiser steps of each.
        seconds_each: timed here, on rows of this study; None where that was not timed.
    """

    stage: str
    trainer: str
    cells: int
    trials: int
    steps: int
    seconds_each: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerPlan:
    """The smallest effects, in points, that the draws find with power .8, for assumed spreads (points).

    ``gain`` is of a blend over real-only, ``hump`` the height of an inverted U over both ends of its dial; None
    where the dial has fewer than three levels.
    """

    sd_between: float
    sd_within: float
    draws: int
    gain: float
    hump: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """What a study would take.

    Attributes:
        name: of the study.
        labels, train_rows, validation_rows, test_rows: of the real data.
        dials: what the LLM is asked for; none where pools are files.
        trials: of each stage.
        workers: trials at once, where that is known.
        requests: in all, if every answer is usable; ``most_requests`` if every row needs all its attempts.
        prompt_tokens, completion_tokens: of ``requests``.
        cost: of these tokens in ``currency``; None without prices.
        seconds: of the timed trials, over the workers; None if none was timed.
        power: what can be seen.
        notes: what the numbers leave out.
    """

    name: str
    labels: int
    train_rows: int
    validation_rows: int
    test_rows: int
    dials: tuple[DialPlan, ...]
    trials: tuple[TrialPlan, ...]
    workers: int | None
    requests: int
    most_requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    currency: str
    seconds: float | None
    power: PowerPlan
    notes: tuple[str, ...]


def plan_study(
    config: StudyConfig | dict[str, object] | str | Path, *, sd_between: float = 1.0, sd_within: float = 1.0
) -> StudyPlan:
    """Plan a study: nothing is sent, nothing is trained but two probes to time them, nothing is kept.

    Args:
        config: a study.yaml, or its content.
        sd_between: assumed SD of a cell's accuracy over generation draws, points.
        sd_within: assumed SD over sampling and training draws, points.

    Raises:
        CuveeError: whatever would stop the study before it spends anything.
    """
    settings = read_config(config) if isinstance(config, str | Path) else make_config(config)
    with TemporaryDirectory(prefix="cuvee-plan-") as folder, RunFolder(folder) as empty:
        study = prepare_study(settings, empty, Stages())
        validate_study(study)
        require_trainable(study)
        return _plan(study, sd_between, sd_within)


def _plan(study: Study, sd_between: float, sd_within: float) -> StudyPlan:
    config = study.config
    from_files = isinstance(config.generator, FileGenerator)
    wanted = None if from_files else commission(study)
    made = [] if wanted is None else make_dials(study, StandIns())
    dials = [] if wanted is None else [_plan_dial(study, wanted, settings, dial) for settings, dial in made]
    levels = _levels(study, [(settings, dial.levels) for settings, dial in made])
    stages = _plan_trials(study, levels)
    requests = sum(d.requests + d.list_requests for d in dials) + max((d.confirm_requests for d in dials), default=0)
    prompt, completion = sum(d.prompt_tokens for d in dials), sum(d.completion_tokens for d in dials)
    prices = find_prices(study)
    workers = _workers(study)
    timed = [stage for stage in stages if stage.seconds_each is not None]
    seconds = math.fsum((stage.seconds_each or 0.0) * stage.trials for stage in timed) / (workers or 1)
    return StudyPlan(
        name=config.name,
        labels=len(study.train.labels),
        train_rows=len(study.train),
        validation_rows=len(study.split.validation),
        test_rows=len(study.split.test),
        dials=tuple(dials),
        trials=tuple(stages),
        workers=workers,
        requests=requests,
        most_requests=requests * ATTEMPTS,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cost=None if prices is None else prices.cost(prompt, completion),
        currency="" if prices is None else prices.currency,
        seconds=seconds if timed else None,
        power=_plan_power(study, levels, sd_between, sd_within),
        notes=tuple(_notes(study, stages, priced=prices is not None)),
    )


# --- requests ---
def _plan_dial(study: Study, wanted: Commission, settings: DialConfig, dial: Dial) -> DialPlan:
    draws = _draws(study, settings)
    names = [level.name for level in dial.levels]
    slots = list(_slots(wanted, dial, names, range(draws)))
    fresh = range(FRESH, FRESH + study.config.draws.confirm)
    confirm = max((len(_slots(wanted, dial, [name], fresh)) for name in names), default=0) if fresh else 0
    each = 2 if any(slot.draft is not None for slot in slots) else 1
    prompt, completion = _tokens(study, wanted, slots)
    requests = len(slots) * each
    return DialPlan(
        dial=dial.name,
        levels=tuple(names),
        draws=draws,
        requests=requests,
        confirm_requests=confirm * each,
        list_requests=_list_requests(settings, len(wanted.strata)),
        prompt_tokens=round(prompt * requests),
        completion_tokens=round(completion * requests),
    )


def _slots(wanted: Commission, dial: Dial, levels: Sequence[str], blocks: range) -> Sequence[Slot]:
    if not blocks:
        return []
    batches = dial.batches(list(wanted.strata), blocks=list(blocks), rows_per_label=wanted.rows, levels=list(levels))
    return list(wanted_slots(batches).values())


def _draws(study: Study, settings: DialConfig | None) -> int:
    every = study.config.draws.generation
    return every if settings is None else min(settings.draws or every, every)


def _list_requests(settings: DialConfig, strata: int) -> int:
    if isinstance(settings, TopicsConfig) and settings.topics == "llm":
        degree = settings.degree or (max(settings.levels),)
        lists = [math.prod(degree[:depth]) * math.ceil(count / ITEMS_A_REQUEST) for depth, count in enumerate(degree)]
        return strata * sum(lists)
    if isinstance(settings, AttributesConfig) and settings.dimensions == "llm":
        asked, values = settings.asked_count, settings.asked_values
        return math.ceil(asked / ITEMS_A_REQUEST) + asked * math.ceil(values / ITEMS_A_REQUEST)
    return 0


def _tokens(study: Study, wanted: Commission, slots: Sequence[Slot]) -> tuple[float, float]:
    """Of prompt and answer of one request, from the finished prompts of some slots and the lengths of real rows."""
    generator = study.config.generator
    if isinstance(generator, FileGenerator) or not slots:
        return 0.0, 0.0
    api = "completions" if isinstance(generator, EmbeddedGenerator) else generator.api
    writer = PromptWriter(
        study.train, describe=study.config.describe, api=api, sampling=Sampling(max_tokens=generator.max_tokens),
        seed=study.config.seed, kind=wanted.kind, strata=wanted.strata, prompts=wanted.prompts,
    )  # fmt: skip
    chosen = [slots[i] for i in np.linspace(0, len(slots) - 1, min(_PROMPTS_READ, len(slots)), dtype=int)]
    prompts: list[Request] = []
    for slot in chosen:
        if slot.parent is not None:
            rows = wanted.strata[slot.label].rows
            prompts.append(writer.ask_for_paraphrase(slot, 0, study.train.texts[rows[0]], []).request)
        elif slot.draft is not None:
            question = writer.ask_for_draft(slot, 0)
            source = study.train.texts[wanted.strata[slot.label].rows[0]]
            prompts += [question.request, writer.ask_for_refinement(slot, 0, source, question.seed_ids).request]
        else:
            prompts.append(writer.ask_for_row(slot, 0).request)
    letters = [len(p.prompt or "") + sum(len(content) for _, content in p.messages) for p in prompts]
    rows = [len(t) for t in study.train.texts]
    if wanted.kind != "label":
        rows = [a + len(b) for a, b in zip(rows, study.train.targets, strict=True)]
    longest = prompts[0].sampling.max_tokens
    return float(np.mean(letters)) / LETTERS_A_TOKEN, min(longest, float(np.mean(rows)) / LETTERS_A_TOKEN + 1)


# --- trials ---
def _levels(study: Study, dials: Sequence[tuple[DialConfig, Sequence[Level]]]) -> dict[Level, list[int]]:
    """Level -> its generation draws, as far as they are known before there are pools."""
    draws = list(range(study.config.draws.generation))
    if isinstance(study.config.generator, FileGenerator):
        names = [(file.dial, level) for file in study.config.pools for level in file.levels]
        return {Level(dial=dial, name=level, rank=rank): draws for rank, (dial, level) in enumerate(names)}
    return {
        level: list(range(_draws(study, settings)))
        for settings, levels in dials
        for level in (levels if settings.target is None else levels[:1])
    }


def _plan_trials(study: Study, levels: dict[Level, list[int]]) -> list[TrialPlan]:
    config = study.config
    grid = plan_grid(
        levels,
        shares=config.mix.shares,
        base_share=config.mix.shape_share,
        rows_per_label=study.rows_per_label,
        sampling=config.draws.sampling,
        training=config.draws.training,
        trainer=config.train.trainer,
        loss=config.train.loss,
    )
    each = _time_probe(study) if config.train.trainer == "probe" and config.train.loss == "ce" else None
    stages = [_stage("grid", config.train.trainer, grid, config.train.steps, each)]
    if config.train.check is not None:
        check = config.train.check
        trials = 3 * min(check.draws, config.draws.generation)
        stages.append(
            TrialPlan(
                stage="check", trainer=check.trainer, cells=3, trials=trials, steps=check.steps, seconds_each=None
            )
        )
    if config.draws.confirm:
        trials = 3 * config.draws.confirm * config.draws.sampling * config.draws.training
        stages.append(
            TrialPlan(
                stage="confirm",
                trainer=config.train.trainer,
                cells=3,
                trials=trials,
                steps=config.train.steps,
                seconds_each=each,
            )
        )
    return stages


def _stage(name: str, trainer: str, planned: Sequence[PlannedTrial], steps: int, each: float | None) -> TrialPlan:
    cells: set[Cell] = {item.cell for item in planned}
    return TrialPlan(stage=name, trainer=trainer, cells=len(cells), trials=len(planned), steps=steps, seconds_each=each)


class _RandomVectors:
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


def _time_probe(study: Study) -> float:
    """Seconds of one trial: a blend as large as that of the shape test, trained and evaluated; the better of two."""
    mix, held_out = study.config.mix, study.split.validation
    dim = 384 if study.config.encoder == DEFAULT_ENCODER else study.encoder.dim
    encoder = _RandomVectors(dim)
    took = []
    for number in range(_TIMED):
        start = time.perf_counter()
        rows: Corpus = mix_corpora(
            study.train, share=mix.shape_share, regime=mix.regime, seed=number, kind="real-duplicated"
        ).corpus
        settings = TrainSettings(trainer="probe", steps=study.config.train.steps, seed=number)
        predictor = train_model(rows, settings=settings, encoder=encoder)
        assert isinstance(predictor, Predictor)
        score_proba(predictor.predict_proba(held_out.texts), predictor.labels, held_out.targets)
        took.append(time.perf_counter() - start)
    return min(took)


def _workers(study: Study) -> int | None:
    """Trials at once; None where a cluster decides."""
    execute = study.config.execute
    if execute.kind == "local":
        return 1
    if execute.workers != "auto":
        return execute.workers
    return None if execute.kind == "ray" else max(1, usable_cores() // (execute.cpus or 1))


# --- power and notes ---
def _plan_power(study: Study, levels: dict[Level, list[int]], sd_between: float, sd_within: float) -> PowerPlan:
    draws, alpha = study.config.draws, study.config.advice.alpha
    by_dial = [[level for level in levels if level.dial == dial] for dial in dict.fromkeys(x.dial for x in levels)]
    largest = max(by_dial, key=len)
    seen = min(len(levels[level]) for level in largest)
    cells = len(levels) * len([share for share in study.config.mix.shares if share > 0])
    repeats = draws.sampling * draws.training

    def smallest(count: int, *, tests: int, items: int | None) -> float:
        return plan_power(
            draws=seen,
            sd_between=sd_between,
            sd_within=sd_within,
            alpha=alpha,
            levels=count,
            repeats=repeats,
            tests=tests,
            items=items,
        )

    return PowerPlan(
        sd_between=sd_between,
        sd_within=sd_within,
        draws=seen,
        gain=smallest(1, tests=cells, items=len(study.split.validation)),
        hump=smallest(len(largest), tests=1, items=None) if len(largest) >= 3 else None,
    )


def _notes(study: Study, stages: Sequence[TrialPlan], *, priced: bool) -> list[str]:
    generator = study.config.generator
    notes = [
        f"{stage.trials} trials of {stage.steps} steps with trainer {stage.trainer} are not timed"
        for stage in stages
        if stage.seconds_each is None
    ]
    if isinstance(generator, FileGenerator):
        notes.append("pools are files: generation draws are at most those asked for, until the files are read")
    else:
        notes.append("time of generating, embedding and measuring is not estimated")
        notes.append(f"tokens: {LETTERS_A_TOKEN:g} letters each, as in English; answers as long as the real rows")
        notes.append("answers that cannot be used are asked for again, and are not in the estimate")
    if not priced and generator.kind == "endpoint":
        notes.append("no cost: give generator.prices")
    if any(settings.target is not None for settings in study.config.dials):
        notes.append("a dial with a target is searched: it may ask for fewer of its levels, and trains on one")
    return notes
