"""What a study would take, before anything is spent: cells, trials, requests, tokens, cost, time, power."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cuvee.config import (
    AttributesConfig,
    DialConfig,
    EmbeddedGenerator,
    EndpointGenerator,
    FileGenerator,
    StudyConfig,
    TopicsConfig,
    make_config,
    read_config,
)
from cuvee.execute import Stages
from cuvee.generate import Dial, Prices, Sampling
from cuvee.generate.asking import ITEMS_A_REQUEST
from cuvee.generate.calls import Request
from cuvee.generate.dials import Slot, wanted_slots
from cuvee.generate.prompts import PromptWriter
from cuvee.recommend import plan_power
from cuvee.records import Level, Usage
from cuvee.store import RunFolder
from cuvee.study.crossfit import name_items, open_folds
from cuvee.study.dials import StandIns, make_dials
from cuvee.study.generation import ATTEMPTS
from cuvee.study.plan_timing import TimePlan, count_workers, time_study
from cuvee.study.running import Recipe, grid_recipes, make_judging
from cuvee.study.setup import FRESH, Study
from cuvee.study.trials import (
    PlannedGrid,
    allowed_trials,
    count_epochs,
    plan_grids,
    planned_levels,
    validate_study,
)
from cuvee.study.writing import StudyWriting, study_writing

LETTERS_A_TOKEN = 4.0
"""Of English, by the tokenisers in use; other scripts have fewer, so they take more tokens."""
_RUNS, _RUN = 4, 10
"""Requests that are written: runs of neighbours, which a server answers faster than strangers, spread over all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialPlan:
    """What one dial asks for, where every answer is usable.

    Attributes:
        dial: its name.
        levels: their names.
        draws: generation draws of each.
        rows: of the union of its levels, each once.
        usage: requests for these rows and for the dial's lists, with estimated tokens; drafts are requests too.
        list_requests: those of ``usage`` that ask for topics or attributes, at least.
        confirm_rows: of the level that asks for most, in fresh draws.
        confirm: requests and tokens of these.
        sample: some of the requests, as they would be sent.
    """

    dial: str
    levels: tuple[str, ...]
    draws: int
    rows: int
    usage: Usage
    list_requests: int
    confirm_rows: int
    confirm: Usage
    sample: tuple[Request, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """Trials of one stage with one trainer.

    Attributes:
        stage: grid, check, equal epochs, confirm.
        recipe: trainer, loss and steps of each; a grid's has the first loss of several.
        cells, trials: how many.
        longer: steps of a trial over those of the recipe.
    """

    stage: str
    recipe: Recipe
    cells: int
    trials: int
    longer: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerPlan:
    """The smallest effects, in points, that the draws find with power .8, for assumed spreads (points).

    Attributes:
        sd_between, sd_within: as assumed.
        disagreement: fraction of held-out items that two cells are assumed to answer differently.
        draws: of generation.
        gain: of a blend over real-only on validation, one among all blends.
        hump: height of an inverted U over both ends of its dial; None where the dial has fewer than three levels.
        confirm_draws: of the confirmation.
        confirmed: gain of the winner over real-only on the locked test, which decides; None without a confirmation.
    """

    sd_between: float
    sd_within: float
    disagreement: float
    draws: int
    gain: float
    hump: float | None
    confirm_draws: int
    confirmed: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """What a study would take.

    Attributes:
        name: of the study.
        labels, train_rows, validation_rows, test_rows: of the real data; with folds train and validation of one of
            them, and all rows that are held out.
        dials: what the LLM is asked for; none where pools are files.
        trials: of each stage.
        workers: trials at once; None where a cluster decides.
        usage: requests and tokens in all, if every answer is usable.
        most_requests: if every row needs all its attempts.
        cost: of these tokens in ``currency``; None without prices, 0 where all is written on this machine.
        texts: to be embedded.
        time: of each part, and together.
        power: what can be seen.
        notes: what the numbers rest on and leave out.
        folds: usage, cost, trials and seconds are those of so many; 1 without ``split.crossfit``.
    """

    name: str
    labels: int
    train_rows: int
    validation_rows: int
    test_rows: int
    dials: tuple[DialPlan, ...]
    trials: tuple[TrialPlan, ...]
    workers: int | None
    usage: Usage
    most_requests: int
    cost: float | None
    currency: str
    texts: int
    time: TimePlan
    power: PowerPlan
    notes: tuple[str, ...]
    folds: int = 1


def plan_study(
    config: StudyConfig | dict[str, object] | str | Path,
    *,
    ask: bool = False,
    sd_between: float = 1.0,
    sd_within: float = 1.0,
    disagreement: float = 0.1,
) -> StudyPlan:
    """Plan a study: nothing is downloaded, nothing is kept, and without ``ask`` nothing is sent to an endpoint.

    One trial is run with each trainer and loss, and an embedded LLM answers one batch of requests; both are multiplied.

    Args:
        config: a study.yaml, or its content.
        ask: send one small batch of requests to the study's endpoint too, to time it. They are paid for.
        sd_between: assumed SD of a cell's accuracy over generation draws, points.
        sd_within: assumed SD over sampling and training draws, points.
        disagreement: assumed fraction of held-out items that two cells answer differently.

    Raises:
        CuveeError: whatever would stop the study before it spends anything.
        ValueError: a spread or the disagreement is out of range.
    """
    settings = read_config(config) if isinstance(config, str | Path) else make_config(config)
    with (
        TemporaryDirectory(prefix="cuvee-plan-") as folder,
        RunFolder(folder) as empty,
        open_folds(settings, empty, Stages()) as studies,
    ):
        for study in studies:
            validate_study(study)
        study, folds = studies[0], len(studies)
        held_out = sum(len(each.split.test) for each in studies)
        # an item that several folds validate on counts once, as where their trials are joined
        items = len({name for each in studies for name in name_items(each.split.validation)})
        # the first fold is counted and timed; each of the others asks for as much and trains as often
        dials, levels = _plan_dials(study)
        grids = plan_grids(study, levels)
        trials = _plan_trials(study, grids)
        usage = _add_usage(dials)
        texts = _count_texts(study, levels, dials)
        sample = dials[0].sample if dials and (ask or isinstance(study.config.generator, EmbeddedGenerator)) else ()
        timed = time_study(
            study, grids, [(stage.recipe, stage.trials, stage.longer) for stage in trials],
            sample=sample, requests=usage.requests, texts=texts,
        )  # fmt: skip
        power = _plan_power(study, levels, items, held_out, sd_between, sd_within, disagreement)
        usage = _times(usage, folds)
        cost, currency = _find_cost(settings, usage)
        return StudyPlan(
            name=settings.name,
            labels=len(study.train.labels),
            train_rows=len(study.train),
            validation_rows=len(study.split.validation),
            test_rows=held_out,
            dials=tuple(
                replace(dial, usage=_times(dial.usage, folds), confirm=_times(dial.confirm, folds)) for dial in dials
            ),
            trials=tuple(replace(stage, trials=stage.trials * folds) for stage in trials),
            workers=count_workers(study),
            usage=usage,
            most_requests=usage.requests * ATTEMPTS,
            cost=cost,
            currency=currency,
            texts=texts * folds,
            time=timed.times(folds),
            power=power,
            notes=(*_notes(study, folds, held_out), *_compare_budget(settings, usage, cost), *timed.notes),
            folds=folds,
        )


# --- requests ---
def _plan_dials(study: Study) -> tuple[list[DialPlan], dict[Level, list[int]]]:
    """What each dial asks for, and the levels with their generation draws."""
    if isinstance(study.config.generator, FileGenerator):
        return [], planned_levels(study, [])
    wanted, made = study_writing(study), make_dials(study, StandIns())
    dials = [_plan_dial(study, wanted, section, dial) for section, dial in made]
    return dials, planned_levels(study, [(section, dial.levels) for section, dial in made])


def _plan_dial(study: Study, wanted: StudyWriting, settings: DialConfig, dial: Dial) -> DialPlan:
    """What one dial asks for, in all its draws and for the confirmation."""
    draws = study.draws_of(settings)
    names = [level.name for level in dial.levels]
    slots = _list_slots(wanted, dial, names, range(draws))
    fresh = range(FRESH, FRESH + study.config.draws.confirm)
    confirm = max((_list_slots(wanted, dial, [name], fresh) for name in names), key=len) if fresh else []
    sample = _write_requests(study, wanted, slots)
    lists = _count_lists(settings, len(wanted.strata))
    return DialPlan(
        dial=dial.name,
        levels=tuple(names),
        draws=draws,
        rows=len(slots),
        usage=_estimate_usage(study, wanted, sample, _count_requests(slots) + lists),
        list_requests=lists,
        confirm_rows=len(confirm),
        confirm=_estimate_usage(study, wanted, sample, _count_requests(confirm)),
        sample=tuple(sample),
    )


def _list_slots(wanted: StudyWriting, dial: Dial, levels: Sequence[str], blocks: range) -> list[Slot]:
    slots = wanted_slots(dial, list(wanted.strata), blocks=blocks, rows_per_label=wanted.rows, levels=levels)
    return list(slots.values())


def _count_requests(slots: Sequence[Slot]) -> int:
    return len(slots) + sum(slot.draft is not None and slot.parent is None for slot in slots)


def _count_lists(settings: DialConfig, strata: int) -> int:
    """Requests that ask for a dial's topics or attributes, at least."""
    if isinstance(settings, TopicsConfig) and settings.topics == "llm":
        degree = settings.degree or (max(settings.levels),)
        lists = [math.prod(degree[:depth]) * math.ceil(count / ITEMS_A_REQUEST) for depth, count in enumerate(degree)]
        return strata * sum(lists)
    if isinstance(settings, AttributesConfig) and settings.dimensions == "llm":
        asked, values = settings.asked_count, settings.asked_values
        return math.ceil(asked / ITEMS_A_REQUEST) + asked * math.ceil(values / ITEMS_A_REQUEST)
    return 0


def _write_requests(study: Study, wanted: StudyWriting, slots: Sequence[Slot]) -> list[Request]:
    """Finished requests of some slots."""
    generator = study.config.generator
    if isinstance(generator, FileGenerator) or not slots:
        return []
    writer = PromptWriter(
        study.train, describe=study.config.describe,
        api="completions" if isinstance(generator, EmbeddedGenerator) else generator.api,
        sampling=Sampling(max_tokens=generator.max_tokens), seed=study.config.seed, kind=wanted.kind,
        strata=wanted.strata, prompts=wanted.prompts,
    )  # fmt: skip
    requests: list[Request] = []
    starts = np.linspace(0, max(0, len(slots) - _RUN), _RUNS, dtype=int).tolist()
    for place in sorted({start + i for start in starts for i in range(min(_RUN, len(slots)))}):
        slot = slots[place]
        source = study.train.texts[wanted.strata[slot.label].rows[0]]
        if slot.parent is not None:
            requests.append(writer.ask(slot, 0, step="paraphrase", source=source).request)
        elif slot.draft is not None:
            question = writer.ask(slot, 0, step="draft")
            refined = writer.ask(slot, 0, step="refinement", source=source, seed_ids=question.seed_ids)
            requests += [question.request, refined.request]
        else:
            requests.append(writer.ask(slot, 0).request)
    return requests


def _estimate_usage(study: Study, wanted: StudyWriting, sample: Sequence[Request], requests: int) -> Usage:
    """Tokens of so many requests like those of the sample, whose answers are as long as real rows."""
    if not sample:
        return Usage()
    letters = [len(r.prompt or "") + sum(len(content) for _, content in r.messages) for r in sample]
    answers = [len(text) for text in study.train.texts]
    if wanted.kind != "label":
        answers = [a + len(b) for a, b in zip(answers, study.train.targets, strict=True)]
    written = min(sample[0].sampling.max_tokens, float(np.mean(answers)) / LETTERS_A_TOKEN + 1)
    return Usage(
        requests=requests,
        prompt_tokens=round(float(np.mean(letters)) / LETTERS_A_TOKEN * requests),
        completion_tokens=round(written * requests),
    )


def _add_usage(dials: Sequence[DialPlan]) -> Usage:
    """Of the dials, and the confirmation of the one that asks for most."""
    total = max((dial.confirm for dial in dials), key=lambda usage: usage.requests, default=Usage())
    for dial in dials:
        total = total.plus(dial.usage)
    return total


def _times(usage: Usage, count: int) -> Usage:
    return reduce(Usage.plus, [usage] * count)


def _find_cost(config: StudyConfig, usage: Usage) -> tuple[float | None, str]:
    """The cost and its currency: None without prices, 0 where everything is written on this machine."""
    generator = config.generator
    if not isinstance(generator, EndpointGenerator):
        return 0.0, ""
    if generator.prices is None:
        return None, ""
    prices = Prices(**generator.prices.model_dump())
    return prices.cost(usage.prompt_tokens, usage.completion_tokens), prices.currency


def _compare_budget(config: StudyConfig, usage: Usage, cost: float | None) -> list[str]:
    """Which budgets the plan would pass, with the numbers; a run stops there."""
    generator = config.generator
    if not isinstance(generator, EndpointGenerator):
        return []
    budget = generator.budget
    tokens = usage.prompt_tokens + usage.completion_tokens
    wanted = {
        "requests": (budget.requests, usage.requests),
        "tokens": (budget.tokens, tokens),
        "cost": (budget.cost, math.nan if cost is None else cost),
    }
    return [
        f"generator.budget.{name} is {most:,.10g}, and the plan takes about {asked:,.6g}: the run would stop there; "
        "raise it, or ask for fewer levels, draws or rows"
        for name, (most, asked) in wanted.items()
        if most is not None and asked > most
    ]


def _count_texts(study: Study, levels: Mapping[Level, Sequence[int]], dials: Sequence[DialPlan]) -> int:
    """Real training, validation and test texts, passages, and the rows of all pools and of the confirmation."""
    real = len(study.train) + len(study.split.validation) + len(study.split.test)
    passages = len(make_judging(study.config.evaluate).passages)
    if isinstance(study.config.generator, FileGenerator):
        draws = study.config.draws
        pools = len(levels) * sum(study.block_rows().values()) * (draws.generation + draws.confirm)
    else:
        pools = sum(dial.rows for dial in dials) + max((dial.confirm_rows for dial in dials), default=0)
    return real + passages + pools


# --- trials ---
def _plan_trials(study: Study, grids: Sequence[PlannedGrid]) -> list[TrialPlan]:
    """The trials of grids, check, equal epochs and confirmation.

    Raises:
        ConfigError: the search's budget does not pay for the shape test.
    """
    config, main = study.config, grids[0]
    recipes = grid_recipes(study)
    stages = []
    for recipe in recipes:
        own = [grid for grid in grids if (grid.trainer, grid.loss) == (recipe.trainer, recipe.loss)]
        trials = sum(allowed_trials(study, grid) for grid in own)
        cells = sum(len({item.cell for item in grid.planned}) for grid in own)
        stages.append(TrialPlan(stage="grid", recipe=recipe, cells=cells, trials=trials))
    if (check := config.train.check) is not None:
        # real-only, the best cells, the most diverse one: at most, since they may be the same
        cells = 1 + min(1 + check.keep, len({item.cell for item in main.planned if item.cell.kind == "blend"}))
        recipe = Recipe(trainer=check.trainer, loss="ce", steps=check.steps, settings=check.settings)
        trials = cells * min(check.draws, config.draws.generation)
        stages.append(TrialPlan(stage="check", recipe=recipe, cells=cells, trials=trials))
    if "equal-epochs" in config.train.sensitivity:
        stages.append(_plan_epochs(study, main, recipes[0]))
    if draws := config.draws.confirm * config.draws.sampling * config.draws.training:  # the winner and two baselines
        stages.append(TrialPlan(stage="confirm", recipe=recipes[0], cells=3, trials=3 * draws))
    return stages


def _plan_epochs(study: Study, main: PlannedGrid, recipe: Recipe) -> TrialPlan:
    """The levels at the share of the shape test, the best cell, which may have another, their baselines: at most."""
    share = study.config.mix.shape_share
    wanted = [
        item
        for item in main.planned
        if (item.cell.kind in ("blend", "real-duplicated") and item.cell.share == share)
        or item.cell.kind == "real-only"
    ]
    best = 0 if len(set(study.config.mix.shares) - {0.0}) < 2 else 2  # the best cell, and the real rows repeated
    draws = len({item.draw for item in wanted})
    epochs = count_epochs(study)
    longer = [epochs[item.cell.kind, item.cell.share] for item in wanted] + [epochs["blend", share]] * best * draws
    return TrialPlan(
        stage="equal epochs",
        recipe=recipe,
        cells=len({item.cell for item in wanted}) + best,
        trials=len(longer),
        longer=math.fsum(longer) / len(longer),
    )


# --- power and notes ---
def _plan_power(
    study: Study,
    levels: Mapping[Level, Sequence[int]],
    items: int,
    held_out: int,
    sd_between: float,
    sd_within: float,
    disagreement: float,
) -> PowerPlan:
    """What a study can see: ``items`` are scored by validation, ``held_out`` by the locked test."""
    draws, alpha = study.config.draws, study.config.advice.alpha
    by_dial = [[level for level in levels if level.dial == dial] for dial in dict.fromkeys(x.dial for x in levels)]
    largest = max(by_dial, key=len)
    seen = min(len(levels[level]) for level in largest)
    cells = len(levels) * len([share for share in study.config.mix.shares if share > 0])

    def smallest(generation: int, *, levels: int = 1, tests: int = 1, items: int | None = None) -> float:
        return plan_power(
            draws=generation, sd_between=sd_between, sd_within=sd_within / math.sqrt(draws.sampling * draws.training),
            alpha=alpha, levels=levels, tests=tests, items=items, disagreement=disagreement,
        )  # fmt: skip

    return PowerPlan(
        sd_between=sd_between,
        sd_within=sd_within,
        disagreement=disagreement,
        draws=seen,
        gain=smallest(seen, tests=cells, items=items),
        hump=smallest(seen, levels=len(largest)) if len(largest) >= 3 else None,
        confirm_draws=draws.confirm,
        confirmed=smallest(draws.confirm, items=held_out) if draws.confirm and held_out > 1 else None,
    )


def _notes(study: Study, folds: int, held_out: int) -> list[str]:
    generator = study.config.generator
    notes = []
    if folds > 1:
        notes.append(
            f"cross-fitted: requests, tokens, cost, trials and time are those of {folds} folds; each has "
            f"{len(study.train)} training and {len(study.split.validation)} validation rows, and together they hold "
            f"out all {held_out} real rows once, in place of a locked test"
        )
    if isinstance(generator, FileGenerator):
        notes.append("pools are files: generation draws are at most those asked for, until the files are read")
    else:
        notes.append(f"tokens: {LETTERS_A_TOKEN:g} letters each, as in English; answers as long as the real rows")
        notes.append("answers that cannot be used are asked for again, and are not among requests, tokens and cost")
    if study.config.search.kind == "adaptive":
        notes.append("the search chooses which blends are drawn how often; all draws go to baselines and shape test")
    if isinstance(generator, EndpointGenerator) and generator.prices is None:
        notes.append("no cost: give generator.prices")
    if any(settings.target is not None for settings in study.config.dials):
        notes.append("a dial with a target is searched: it may ask for fewer of its levels, and trains on one")
    return notes
