"""What a study would take, before anything is spent: cells, trials, requests, tokens, cost, power; and time, from real
trials and one batch of requests, run as the study runs them and then multiplied.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cuvee.config.dials import AttributesConfig, DialConfig, TopicsConfig
from cuvee.config.generators import EmbeddedGenerator, EndpointGenerator, FileGenerator
from cuvee.config.opening import find_sampling
from cuvee.config.reading import make_config
from cuvee.config.schema import StudyConfig
from cuvee.config.sections import PROBE, ExecuteConfig
from cuvee.corpus import Corpus, label_strata
from cuvee.encoders import HashingEncoder, build_encoder
from cuvee.errors import CuveeError, InputError
from cuvee.execute import Stages
from cuvee.generate.asking import ITEMS_A_REQUEST
from cuvee.generate.calls import Failure, Request
from cuvee.generate.dials import Dial, Slot
from cuvee.generate.ledger import Ledger
from cuvee.generate.prompts import PromptWriter
from cuvee.hub import without_hub
from cuvee.inputs import usable_cores
from cuvee.probe import DEFAULT_L2
from cuvee.recommend import PlannedTrial, plan_power
from cuvee.recommend.cells import find_rivals
from cuvee.recommend.confirming import find_level, plan_looks
from cuvee.records import Level, TrialFailure, Usage
from cuvee.store import RunFolder
from cuvee.study.amounts import LevelRows, tell_short_labels
from cuvee.study.crossfit import name_items, open_folds
from cuvee.study.dials import language_model, make_dials, open_llm
from cuvee.study.draws import bound_draws, choose_draws, is_open, save_draws, write_draws
from cuvee.study.generation import ATTEMPTS, count_requests
from cuvee.study.prepare import FRESH, Study
from cuvee.study.running import Recipe, Variant, grid_recipes, open_trials, read_passages
from cuvee.study.status import find_prices
from cuvee.study.trials import (
    PlannedGrid,
    allowed_trials,
    check_recipe,
    count_confirmation,
    count_epochs,
    list_variants,
    plan_grids,
    planned_levels,
    slice_grid,
    split_draws,
    validate_study,
)

# Of English, by the tokenisers in use; other scripts have fewer, so they take more tokens.
LETTERS_A_TOKEN = 4.0
# Requests that are written: runs of neighbours, which a server answers faster than strangers, spread over all.
_RUNS, _RUN = 4, 10
# Each so many of these is sent before the others are timed: a server answers its first requests more slowly.
_WARMING = 5
_TRIALS, _LONGEST_S = 3, 10.0  # A quick trial is run again, since the first one loads what all others share
# SD of a gain between draws in recorded studies, in points: the quartiles.
_TEXTS = 64
RECORDED_SPREADS = (1.4, 2.4, 3.4)


@dataclass(frozen=True, slots=True, kw_only=True)
class DialPlan:
    """What one dial asks for, where every answer is usable.

    Attributes:
        dial: its name.
        levels: their names.
        draws: generation draws of each.
        usage: requests for rows, of the union of its levels, and for the dial's lists; drafts are requests too.
        list_requests: those of ``usage`` that ask for topics or attributes, at least.
        confirm: requests for the level that asks for most, in fresh draws.
    """

    dial: str
    levels: tuple[str, ...]
    draws: int
    usage: Usage
    list_requests: int
    confirm: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """Trials of one stage with one trainer.

    Attributes:
        stage: grid, check, another way to train, confirm.
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
class TimePlan:
    """Seconds of the parts of a study, one after the other; None where one is not known.

    Attributes:
        trials: of all stages that were timed, over the workers.
        each: trainer, loss and steps -> seconds of one trial.
        generating: of pools and confirmation.
        embedding: of all texts, if none is in the cache yet.
    """

    trials: float | None
    each: Mapping[str, float]
    generating: float | None
    embedding: float | None

    @property
    def total(self) -> float | None:
        """Of the parts that are known."""
        known = [part for part in (self.trials, self.generating, self.embedding) if part is not None]
        return math.fsum(known) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerPlan:
    """The smallest effects, in points, that the draws find in 80% of studies, for one spread.

    Attributes:
        spread: SD of a gain between draws, in points.
        draws: of generation.
        gain: of a blend over real-only on validation, one among all blends.
        hump: height of an inverted U over both ends of its dial; None where the dial has fewer than three levels.
        confirm_draws: of the confirmation, at most.
        confirmed: gain of the winner over real-only on the locked test, which decides; None without a confirmation.
    """

    spread: float
    draws: int
    gain: float
    hump: float | None
    confirm_draws: int
    confirmed: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlan:
    """Real rows: for training and validation, and all that are held out; with ``folds`` the first two are of one."""

    train: int
    validation: int
    held_out: int
    folds: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMPlan:
    """What the LLM is asked for.

    Attributes:
        dials: each of them; none where pools are files.
        usage: requests and tokens in all, if every answer is usable.
        most_requests: if every row needs all its attempts.
        cost: of these tokens in ``currency``; None without prices, 0 where all is written on this machine.
    """

    dials: tuple[DialPlan, ...]
    usage: Usage
    most_requests: int
    cost: float | None
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """What a study would take, in all its folds.

    Attributes:
        name: of the study.
        rows: real rows.
        llm: what is generated.
        trials: of each stage.
        workers: trials at once; None where a cluster decides.
        time: of each part, and together.
        power: what can be seen, for each spread.
        notes: what the numbers rest on and leave out.
    """

    name: str
    rows: RowPlan
    llm: LLMPlan
    trials: tuple[TrialPlan, ...]
    workers: int | None
    time: TimePlan
    power: tuple[PowerPlan, ...]
    notes: tuple[str, ...]


def plan_study(
    config: StudyConfig | dict[str, object] | str | Path,
    *,
    ask: bool = False,
    spread: float | None = None,
    pilot: str | Path | None = None,
    disagreement: float = 0.1,
) -> StudyPlan:
    """Plan a study: nothing is downloaded, nothing is kept, and without ``ask`` nothing is sent to an endpoint.

    One trial is run with each trainer and loss, and an embedded LLM answers one batch of requests; both are multiplied.

    Args:
        config: a study.yaml, or its content.
        ask: send one small batch of requests to the study's endpoint too, to time it. They are paid for.
        spread: assumed SD of a gain between draws, in points; None takes that of the pilot, or of recorded studies.
        pilot: the run folder of a study like this one.
        disagreement: assumed fraction of held-out items that two cells answer differently.

    Raises:
        CuveeError: whatever would stop the study before it spends anything.
        ValueError: the spread or the disagreement is out of range, or both spread and pilot are given.
    """
    spreads = find_spreads(spread, pilot)
    settings = make_config(config)
    generator = settings.generator
    with (
        TemporaryDirectory(prefix="cuvee-plan-") as folder,
        RunFolder(folder) as empty,
        open_folds(settings, empty, Stages()) as studies,
    ):
        files, *_ = (validate_study(each) for each in studies)
        # the first fold is counted and timed; each of the others asks for as much and trains as often
        study, folds = studies[0], len(studies)
        made = [] if isinstance(generator, FileGenerator) else make_dials(study)
        levels = planned_levels(study, [(section, dial.levels) for section, dial in made], files)
        planned = [_plan_dial(study, section, dial, folds) for section, dial in made]
        dials = [dial for dial, _ in planned]
        confirm = max((dial.confirm for dial in dials), key=lambda usage: usage.requests, default=Usage())
        usage = reduce(Usage.plus, [dial.usage for dial in dials], confirm)
        notes: list[str] = []
        each = _time_trials(study, plan_grids(study, levels)[0], notes)
        notes += _choose_draws(study, plan_grids(study, levels), each)
        grids = plan_grids(study, levels)
        stages = [replace(stage, trials=stage.trials * folds) for stage in _plan_trials(study, grids)]
        sample = planned[0][1] if planned and (ask or isinstance(generator, EmbeddedGenerator)) else []
        execute = settings.execute
        workers = 1 if execute.kind == "local" else execute.terms().workers
        if execute.kind == "processes" and workers is None:
            workers = max(1, usable_cores() // (execute.cpus or 1))
        read = sum(has.rows for has in files.values())
        took = _time_study(study, stages, each, usage=usage, sample=sample, workers=workers, read=read, notes=notes)
        held_out = sum(len(each.split.test) for each in studies)
        # an item that several folds validate on counts once, as where their trials are joined
        items = len({name for each in studies for name in name_items(each.split.validation)})
        power = partial(plan_power, disagreement=disagreement, alpha=settings.advice.alpha)
        prices = find_prices(settings)
        cost = None if prices is None else prices.cost(usage.prompt_tokens, usage.completion_tokens)
        return StudyPlan(
            name=settings.name,
            rows=RowPlan(
                train=len(study.train), validation=len(study.split.validation), held_out=held_out, folds=folds
            ),
            llm=LLMPlan(
                dials=tuple(dials),
                usage=usage,
                most_requests=usage.requests * ATTEMPTS,
                cost=cost if isinstance(generator, EndpointGenerator) else 0.0,
                currency="" if prices is None else prices.currency,
            ),
            trials=tuple(stages),
            workers=workers,
            time=took,
            power=tuple(
                _plan_power(study, levels, grids[0], power, spread=each, items=items, held_out=held_out)
                for each in spreads
            ),
            notes=(*_notes(study, levels, folds, held_out), *_compare_budget(settings, usage, cost), *notes),
        )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


# --- requests ---
def _plan_dial(study: Study, settings: DialConfig, dial: Dial, folds: int) -> tuple[DialPlan, list[Request]]:
    """What one dial asks for, in all its draws and for the confirmation; some of its requests."""
    wanted, draws = study.writing, study.draws_of(settings)
    names = [level.name for level in dial.levels]

    slots = wanted.slots(dial, range(draws), names)
    fresh = range(FRESH, FRESH + study.draws.confirm)
    confirm = max((wanted.slots(dial, fresh, [name]) for name in names), key=len) if fresh else []
    sample = _write_requests(study, slots)
    lists = _count_lists(settings, len(wanted.strata))

    def estimate(slots: Sequence[Slot], others: int = 0) -> Usage:
        """Of requests like those of the sample, whose answers are as long as real rows."""
        requests = (count_requests(study, slots) + others) * folds
        letters = _mean(len(r.prompt or "") + sum(len(content) for _, content in r.messages) for r in sample)
        pairs = zip(study.train.texts, study.train.targets, strict=True)
        answer = _mean(len(text) + (0 if wanted.kind == "label" else len(target)) for text, target in pairs)
        drafts = sum(slot.draft is not None and slot.parent is None for slot in slots)
        rows = len(slots) / max(1, count_requests(study, slots) - drafts)
        written = min(sample[0].sampling.max_tokens, (answer / LETTERS_A_TOKEN + 1) * rows)
        return Usage(
            requests=requests,
            prompt_tokens=round(letters / LETTERS_A_TOKEN * requests),
            completion_tokens=round(written * requests),
        )

    plan = DialPlan(
        dial=dial.name,
        levels=tuple(names),
        draws=draws,
        usage=estimate(slots, lists),
        list_requests=lists,
        confirm=estimate(confirm),
    )
    return plan, sample


def _count_lists(settings: DialConfig, strata: int) -> int:
    """Requests that ask for a dial's topics or attributes, at least."""
    if isinstance(settings, TopicsConfig) and settings.topics == "llm":
        return strata * math.ceil(max(settings.levels) / ITEMS_A_REQUEST)
    if isinstance(settings, AttributesConfig) and settings.dimensions == "llm":
        count, each = settings.count, math.ceil(settings.values / ITEMS_A_REQUEST)
        return math.ceil(count / ITEMS_A_REQUEST) + count * each
    return 0


def _write_requests(study: Study, slots: Sequence[Slot]) -> list[Request]:
    """Finished requests of some slots."""
    generator, wanted = language_model(study), study.writing
    writer = PromptWriter(
        study.train, describe=study.config.describe,
        api="completions" if isinstance(generator, EmbeddedGenerator) else generator.api,
        sampling=find_sampling(generator), seed=study.config.seed, kind=wanted.kind,
        strata=wanted.strata, prompts=wanted.prompts, rows=generator.rows_per_request,
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


def _compare_budget(config: StudyConfig, usage: Usage, cost: float | None) -> list[str]:
    """Which budgets the plan would pass, with the numbers; a run stops there."""
    if not isinstance(config.generator, EndpointGenerator):
        return []
    tokens = usage.prompt_tokens + usage.completion_tokens
    wanted = {"requests": usage.requests, "tokens": tokens, "cost": cost or 0.0}
    return [
        f"generator.budget.{name} is {most:,.10g}, and the plan takes about {wanted[name]:,.6g}: the run would stop "
        "there; raise it, or ask for fewer levels, draws or rows"
        for name, most in config.generator.budget
        if most is not None and wanted[name] > most
    ]


# --- trials ---
def _plan_trials(study: Study, grids: Sequence[PlannedGrid]) -> list[TrialPlan]:
    """The trials of grids, check, other ways to train and confirmation.

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
        rivals = find_rivals(item.cell for item in main.planned if item.cell.kind == "blend")
        cells = 1 + min(1 + check.keep, len(rivals))
        trials = cells * (check.draws if study.ready_made else min(check.draws, study.draws.generation))
        stages.append(TrialPlan(stage="check", recipe=check_recipe(check), cells=cells, trials=trials))
    stages += [_plan_variant(study, main, recipes[0], variant) for variant in list_variants(study, main)]
    if trials := study.draws.confirm * count_confirmation(study, main):
        stages.append(TrialPlan(stage="confirm", recipe=recipes[0], cells=3, trials=trials))
    return stages


def _plan_variant(study: Study, main: PlannedGrid, recipe: Recipe, variant: Variant) -> TrialPlan:
    """The levels at the share of the shape test, and the best cell, where it has another share: at most."""
    tested, blends = study.config.mix.shape_share, [i.cell for i in main.planned if i.cell.kind == "blend"]
    best = max(blends, key=lambda cell: (cell.share != tested, cell.share))
    wanted = slice_grid(study, main, best)
    longer = [variant.epochs.get((item.cell.kind, item.cell.share), 1.0) for item in wanted]
    cells = len({item.cell for item in wanted})
    return TrialPlan(stage=variant.name, recipe=recipe, cells=cells, trials=len(longer), longer=_mean(longer))


# --- time ---
def _attempt(what: str, notes: list[str], timed: Callable[[], float]) -> float | None:
    """Seconds of something; None where they cannot be had, which is noted."""
    try:
        with without_hub():
            return timed()
    except CuveeError as exc:
        notes.append(f"the time of {what} is not known ({exc}); plan downloads nothing")
        return None


def _time_trials(study: Study, grid: PlannedGrid, notes: list[str]) -> dict[str, float]:
    """Seconds of one trial of each recipe, where that can be had; cells are taken from ``grid``."""
    check, each = study.config.train.check, dict[str, float]()
    recipes = [*grid_recipes(study), *([] if check is None else [check_recipe(check)])]
    for recipe in {recipe.name: recipe for recipe in recipes}.values():
        what = f"trials of {recipe.trainer} with loss {recipe.loss}"
        took = _attempt(what, notes, partial(_time_trial, study, grid, recipe))
        each |= {} if took is None else {recipe.name: took}
    return each


def _choose_draws(study: Study, grids: Sequence[PlannedGrid], each: Mapping[str, float]) -> list[str]:
    """Settle the numbers of draws by the trials that were timed here; what is to be said of that."""
    if not is_open(study.config):
        return []
    main, names = grids[0], {(recipe.trainer, recipe.loss): recipe.name for recipe in grid_recipes(study)}
    took = {key: each.get(name, 0.0) for key, name in names.items()}
    firsts = [item.cell for draws in split_draws(grids)[1:2] for item in draws]
    chosen = choose_draws(
        study.config,
        draw=math.fsum(took[cell.trainer, cell.loss] for cell in firsts) if each else None,
        confirmation=took[main.trainer, main.loss] * count_confirmation(study, main),
    )
    save_draws(study.folder, chosen)
    fewest, most = (write_draws(study.config, numbers) for numbers in bound_draws(study.config))
    here = write_draws(study.config, study.draws, study.real_draws)
    return [
        f"draws: {here}, by the trials timed here; the run times its own, and chooses at least "
        f"{fewest}, and at most {most}"
    ]


def _time_study(
    study: Study,
    stages: Sequence[TrialPlan],
    each: Mapping[str, float],
    *,
    usage: Usage,
    sample: Sequence[Request],
    workers: int | None,
    read: int,
    notes: list[str],
) -> TimePlan:
    """The time of all parts: one batch of requests and some texts are timed; what is not known is noted.

    Args:
        study: prepared, in a folder that nobody keeps.
        stages: of all folds.
        each: recipe -> seconds of one trial.
        usage: of the whole study.
        sample: requests to send; none is sent where it is empty.
        workers: trials at once.
        read: rows of files.
        notes: to be added to.
    """
    notes.append(
        "loading, reading files, measuring, statistics and the report are in no estimate; one trial and one batch of "
        "requests were timed here, alone"
    )
    rounds = workers or 1
    timed = [stage for stage in stages if stage.recipe.name in each]
    known = [math.ceil(s.trials / rounds) * s.longer * each[s.recipe.name] for s in timed]
    generating: float | None = 0.0
    if not isinstance(study.config.generator, FileGenerator):
        one = _attempt("generating", notes, partial(_time_request, study, sample)) if sample else None
        generating = None if one is None else usage.requests * one
        if not sample:
            notes.append("the time of generating is not known: --ask sends one batch of requests to the endpoint")
    folds = study.config.split.crossfit or 1
    rows = len(study.train) + len(study.split.validation) + len(study.split.test)
    rows += len(read_passages(study.config.evaluate))
    texts = folds * (rows + read) + usage.requests
    text = _attempt("embedding", notes, partial(_time_text, study))
    return TimePlan(
        trials=math.fsum(known) if known else None,
        each=each,
        generating=generating,
        embedding=None if text is None else texts * text,
    )


def _time_request(study: Study, sample: Sequence[Request]) -> float:
    """Seconds of a request, as many of them under way at once as in the study."""
    warming = sample[::_WARMING]
    timed = [request for request in sample if request not in warming] or warming
    with open_llm(study) as llm, Ledger() as ledger, llm.open_client(llm.endpoint, ledger) as client:
        client.answer_requests(list(warming))
        begun = time.perf_counter()
        answers = client.answer_requests(list(timed))
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


def _time_trial(study: Study, grid: PlannedGrid, recipe: Recipe) -> float:
    """Seconds of a trial, the least of a few runs, with the threads that the study's trials get.

    Its blend is the one of the grid whose rows are nearest to the mean of all, since time grows with rows evenly; real
    rows stand in for its pool, and vectors that cost nothing for theirs: embedding is timed apart.

    Raises:
        CuveeError: the trial failed.
    """
    execute, longer = study.config.execute, count_epochs(study, grid)
    here = ExecuteConfig(cpus=execute.cpus if execute.kind == "local" else execute.cpus or 1)
    config = study.config.model_copy(update={"execute": here, "encoder": "hashing"})
    study = replace(study, config=config, encoder=HashingEncoder())
    if recipe.trainer == PROBE:  # its penalty is chosen once a study: that is not timed
        recipe = replace(recipe, settings={"l2": DEFAULT_L2, **recipe.settings})
    blends = [item for item in grid.planned if item.cell.kind == "blend"]
    mean = _mean(longer["blend", item.cell.share] for item in blends)
    item = min(blends, key=lambda item: abs(longer["blend", item.cell.share] - mean))
    cell = replace(item.cell, trainer=recipe.trainer, loss=recipe.loss)
    wanted = cell.amount * len(study.real_rows(cell.rows_per_label)) / sum(study.block_rows().values())
    needed = max(math.ceil(wanted), item.draw.generation + 1)
    pools = {f"{cell.dial}={cell.level}": _stand_in_pool(study, needed)}
    took: list[float] = []
    with open_trials(study, pools, [recipe], stage="timing") as runner:
        while not took or (len(took) < _TRIALS and sum(took) < _LONGEST_S):
            # a draw of its own: what the folder holds is not run again
            draw = replace(item.draw, training=FRESH + len(took))
            begun = time.perf_counter()
            (outcome,) = runner.run([PlannedTrial(cell=cell, draw=draw)])
            took.append(time.perf_counter() - begun)
            if isinstance(outcome, TrialFailure):
                raise CuveeError(outcome.reason)
    return min(took)


def _stand_in_pool(study: Study, blocks: int) -> Corpus:
    """A pool of full blocks before there is one: real training rows, as often as it takes, as if an LLM wrote them."""
    mine: dict[str, list[int]] = {}
    for row, name in enumerate(label_strata(study.train)):
        mine.setdefault(name, []).append(row)
    block = [mine[name][i % len(mine[name])] for name, count in study.block_rows().items() for i in range(count)]
    pool = study.train.take(block * blocks)
    return pool.with_columns(
        id=[f"timing-{i}" for i in range(len(pool))],
        origin=["synthetic"] * len(pool),
        block=np.repeat(np.arange(blocks, dtype=np.int32), len(block)),
    )


# --- power and notes ---
def find_spreads(spread: float | None, pilot: str | Path | None) -> tuple[float, ...]:
    """SDs of a gain between draws, in points: the given one, the pilot's, or the quartiles of recorded studies.

    Raises:
        ValueError: both are given, or the spread is below 0.
        InputError: the pilot has no advice, or no blend of it was drawn twice.
    """
    if spread is not None:
        if pilot is not None or not (spread >= 0.0 and math.isfinite(spread)):
            raise ValueError(f"spread is {spread!r} and pilot {pilot!r}; give one of them, and a spread of at least 0")
        return (spread,)
    if pilot is None:
        return RECORDED_SPREADS
    path = Path(pilot) / "advice.json"
    try:
        cells = json.loads(path.read_bytes())["cells"]
        gains = [c["gains"][0] for c in cells if c["cell"]["kind"] == "blend" and c["gains"]]
        found = [100.0 * g["se_draws"] * math.sqrt(g["draws"]) for g in gains if g["draws"] > 1]
    except (OSError, ValueError, LookupError, TypeError) as exc:
        raise InputError(f"{path}: no advice can be read; finish the pilot with `cuvee run`") from exc
    if not found:
        raise InputError(f"{path}: no blend was drawn twice, so nothing is known of the spread; give --spread")
    return (float(np.median(found)),)


def _plan_power(
    study: Study,
    levels: Mapping[Level, LevelRows],
    grid: PlannedGrid,
    power: Callable[..., float],
    *,
    spread: float,
    items: int,
    held_out: int,
) -> PowerPlan:
    """What a study can see: ``items`` are scored by validation, ``held_out`` by the locked test."""
    confirm, smallest = study.draws.confirm, partial(power, sd_between=spread / math.sqrt(2.0))
    last = find_level(plan_looks(confirm), confirm, study.config.advice.alpha)
    ((dial, largest),) = Counter(level.dial for level in levels).most_common(1)
    blocks = min(len(has.blocks) for level, has in levels.items() if level.dial == dial)
    seen = study.draws.subsamples if study.ready_made else blocks
    cells = len({item.cell for item in grid.planned if item.cell.kind == "blend"})
    return PowerPlan(
        spread=spread,
        draws=seen,
        gain=smallest(draws=seen, tests=cells, items=items),
        hump=smallest(draws=blocks, levels=largest, items=items) if largest >= 3 and blocks else None,
        confirm_draws=confirm,
        confirmed=smallest(draws=confirm, items=held_out, alpha=last) if confirm and held_out > 1 else None,
    )


def _notes(study: Study, levels: Mapping[Level, LevelRows], folds: int, held_out: int) -> list[str]:
    generator = study.config.generator
    notes = [short for level, has in levels.items() if (short := tell_short_labels(study, level, has))]
    if folds > 1:
        notes.append(
            f"cross-fitted: requests, tokens, cost, trials and time are those of {folds} folds; each has "
            f"{len(study.train)} training and {len(study.split.validation)} validation rows, and together they hold "
            f"out all {held_out} real rows once, in place of a locked test"
        )
    if isinstance(generator, FileGenerator):
        notes.append("pools are files: for how many blocks a file has rows is known when the run reads it")
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
