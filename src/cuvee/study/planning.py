"""What a study would take, before anything is spent; its time is that of one trial and one batch, multiplied."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np

from cuvee.config.dials import AttributesConfig, DialConfig, TopicsConfig
from cuvee.config.generators import EmbeddedGenerator, EndpointGenerator, Generator, find_prices
from cuvee.config.reading import make_config
from cuvee.config.schema import StudyConfig
from cuvee.config.sections import PROBE, ExecuteConfig
from cuvee.corpus import Corpus, label_strata
from cuvee.encoders import HashingEncoder, build_encoder
from cuvee.errors import CuveeError
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
from cuvee.records import UNORDERED, TrialFailure, Usage
from cuvee.store import RunFolder
from cuvee.study.crossfit import name_items, open_folds
from cuvee.study.draws import bound_draws, choose_draws, find_spreads, is_open, save_draws, write_draws
from cuvee.study.generation import ATTEMPTS, count_requests, language_model, make_dials, make_spec, open_llm
from cuvee.study.grids import PlannedGrid, plan_grids, split_draws, tell_short_labels
from cuvee.study.judge import read_rubric
from cuvee.study.prepare import FRESH, Study
from cuvee.study.running import Recipe, check_recipe, grid_recipes, open_trials, read_passages
from cuvee.study.trials import list_variants, validate_study

LETTERS_A_TOKEN = 4.0  # of English, by the tokenisers in use; other scripts have fewer, so they take more tokens
_RUNS, _RUN = 4, 10  # requests: runs of neighbours, which a server answers faster than strangers, spread over all
_WARMING = 5  # each so many is sent before the others are timed: a server answers its first requests more slowly
_TRIALS, _LONGEST_S = 3, 10.0  # a quick trial is run again, since the first one loads what all others share
_TEXTS = 64
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DialPlan:
    """What one dial asks for, where every answer is usable.

    Attributes:
        dial: its name.
        levels: their names.
        draws: generation draws of each.
        usage: requests for rows, of the union of its levels, and for the dial's lists; drafts are requests too.
        confirm: requests for the level that asks for most, in fresh draws.
    """

    dial: str
    levels: tuple[str, ...]
    draws: int
    usage: Usage
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
    spreads, settings = find_spreads(spread, pilot), make_config(config)
    with TemporaryDirectory(prefix="cuvee-plan-") as folder, RunFolder(folder) as empty:
        with open_folds(settings, empty, Stages(), None) as studies:
            return _Planner(studies).plan(settings, ask=ask, spreads=spreads, disagreement=disagreement)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


class _Planner:
    """Counts and times the first fold of a study, in a folder that nobody keeps; each other one takes as much."""

    def __init__(self, studies: Sequence[Study]) -> None:
        self.studies, self.folds, self.config = studies, len(studies), studies[0].config
        quiet = {"judge": None, "score": None if self.config.evaluate.judge else self.config.evaluate.score}
        unjudged = self.config.model_copy(update={"evaluate": self.config.evaluate.model_copy(update=quiet)})
        self.study = replace(studies[0], config=unjudged)  # which is timed, and asks no judge
        self.levels, *_ = [validate_study(each) for each in studies]
        self.made = [] if self.study.ready_made else make_dials(self.study)
        self.each: dict[str, float] = {}  # recipe -> seconds of one trial, where that can be had
        self.notes: list[str] = []

    def plan(self, given: StudyConfig, *, ask: bool, spreads: Sequence[float], disagreement: float) -> StudyPlan:
        """The plan of the study as it was ``given``, of which each fold has its part of the budget."""
        study, folds = self.study, self.folds
        planned = [self._plan_dial(section, dial) for section, dial in self.made]
        dials = tuple(dial for dial, _ in planned)
        confirm = max((dial.confirm for dial in dials), key=lambda usage: usage.requests, default=Usage())
        usage = sum((dial.usage for dial in dials), confirm)
        self._time_trials(plan_grids(study, self.levels)[0])
        self._choose_draws(plan_grids(study, self.levels))
        grids = plan_grids(study, self.levels)
        stages = [replace(stage, trials=stage.trials * folds) for stage in self._plan_trials(grids)]
        workers = 1 if given.execute.kind == "local" else given.execute.terms().workers
        if given.execute.kind == "processes" and workers is None:
            workers = max(1, usable_cores() // (given.execute.cpus or 1))
        sample = planned[0][1] if planned and (ask or isinstance(given.generator, EmbeddedGenerator)) else []
        time = self._time_study(stages, usage, sample, workers or 1)
        held_out = sum(len(each.split.test) for each in self.studies)
        power = partial(plan_power, disagreement=disagreement, alpha=given.advice.alpha)
        cost, currency = _price(given.generator, usage)
        most, train, validation = usage.requests * ATTEMPTS, len(study.train), len(study.split.validation)
        llm = LLMPlan(dials=dials, usage=usage, most_requests=most, cost=cost, currency=currency)
        return StudyPlan(
            name=given.name,
            rows=RowPlan(train=train, validation=validation, held_out=held_out, folds=folds),
            llm=llm,
            trials=tuple(stages),
            workers=workers,
            time=time,
            power=tuple(self._plan_power(grids[0], power, each, held_out) for each in spreads),
            notes=(
                *self._tell_limits(held_out),
                *self._tell_judge(stages),
                *_compare_budget(given.generator, "generator", usage),
                *self.notes,
            ),
        )

    def _tell_judge(self, stages: Sequence[TrialPlan]) -> list[str]:
        """What the judge is asked, if every reply can be read, and the budgets that this would pass."""
        evaluate, split = self.config.evaluate, self.study.split
        if evaluate.judge is None:
            return []
        asked = round(sum(s.trials * len(split.test if s.stage == "confirm" else split.validation) for s in stages))
        asked += 2 * len(split.test) * any(stage.stage == "confirm" for stage in stages)  # pairs, in both orders
        rows = zip(split.validation.prompts, split.validation.targets, strict=True)
        each = len(read_rubric(evaluate.rubric)) + _mean(len(prompt) + 2 * len(target) for prompt, target in rows)
        usage = Usage(requests=asked, prompt_tokens=round(asked * each / LETTERS_A_TOKEN), completion_tokens=4 * asked)
        cost, currency = _price(evaluate.judge, usage)
        told = "no cost: give evaluate.judge.prices" if cost is None else f"{cost:.2f} {currency}"
        tokens = usage.tokens
        note = f"the judge is asked {asked:,} times, about {tokens:,} tokens ({told}), and its time is not counted"
        return [note, *_compare_budget(evaluate.judge, "evaluate.judge", usage)]

    # --- requests ---
    def _plan_dial(self, settings: DialConfig, dial: Dial) -> tuple[DialPlan, list[Request]]:
        """What one dial asks for, in all its draws and for the confirmation; some of its requests."""
        study, wanted = self.study, self.study.writing
        draws, names = study.draws_of(settings), [level.name for level in dial.levels]
        slots = wanted.slots(dial, range(draws), names)
        fresh = range(FRESH, FRESH + study.draws.confirm)
        confirm = max((wanted.slots(dial, fresh, [name]) for name in names), key=len) if fresh else []
        sample = self._write_requests(slots)

        def estimate(slots: Sequence[Slot], others: int = 0) -> Usage:
            """Of requests like those of the sample, whose answers are as long as real rows."""
            requests = (count_requests(study, slots) + others) * self.folds
            letters = _mean(len(r.prompt or "") + sum(len(content) for _, content in r.messages) for r in sample)
            pairs = zip(study.train.texts, study.train.targets, strict=True)
            answer = _mean(len(text) + (0 if wanted.kind == "label" else len(target)) for text, target in pairs)
            drafts = sum(slot.draft is not None and slot.parent is None for slot in slots)
            rows = len(slots) / max(1, count_requests(study, slots) - drafts)
            written = min(sample[0].sampling.max_tokens, (answer / LETTERS_A_TOKEN + 1) * rows)
            asked, answered = round(letters / LETTERS_A_TOKEN * requests), round(written * requests)
            return Usage(requests=requests, prompt_tokens=asked, completion_tokens=answered)

        usage, fresh_usage = estimate(slots, _count_lists(settings, len(wanted.strata))), estimate(confirm)
        return DialPlan(dial=dial.name, levels=tuple(names), draws=draws, usage=usage, confirm=fresh_usage), sample

    def _write_requests(self, slots: Sequence[Slot]) -> list[Request]:
        """Finished requests of some slots."""
        study, generator = self.study, language_model(self.study)
        api = "completions" if isinstance(generator, EmbeddedGenerator) else generator.api
        writer, requests = PromptWriter(study.train, make_spec(study, []), api), list[Request]()
        starts = np.linspace(0, max(0, len(slots) - _RUN), _RUNS, dtype=int).tolist()
        for slot in [slots[i] for i in range(len(slots)) if any(start <= i < start + _RUN for start in starts)]:
            source = study.train.texts[writer.strata[slot.label].rows[0]]
            if slot.parent is not None:
                requests.append(writer.ask(slot, 0, step="paraphrase", source=source).request)
            elif slot.draft is not None:
                question = writer.ask(slot, 0, step="draft")
                refined = writer.ask(slot, 0, step="refinement", source=source, seed_ids=question.seed_ids)
                requests += [question.request, refined.request]
            else:
                requests.append(writer.ask(slot, 0).request)
        return requests

    # --- trials ---
    def _plan_trials(self, grids: Sequence[PlannedGrid]) -> list[TrialPlan]:
        """The trials of grids, check, other ways to train and confirmation, those of check and other ways at most.

        Raises:
            ConfigError: the search's budget does not pay for the shape test.
        """
        study, main, check, stages = self.study, grids[0], self.config.train.check, list[TrialPlan]()
        recipes, blends = grid_recipes(study), main.blends
        for recipe in recipes:
            own = [grid for grid in grids if (grid.trainer, grid.loss) == (recipe.trainer, recipe.loss)]
            trials = sum(grid.count_allowed() for grid in own)
            cells = sum(len({item.cell for item in grid.planned}) for grid in own)
            stages.append(TrialPlan(stage="grid", recipe=recipe, cells=cells, trials=trials))
        if check is not None:  # real-only, the best cells, the most diverse one, which may be the same
            cells = 1 + min(1 + check.keep, len(find_rivals(item.cell for item in main.planned)))
            trials = cells * (check.draws if study.ready_made else min(check.draws, study.draws.generation))
            recipe = check_recipe(self.config.train, check)
            stages.append(TrialPlan(stage="check", recipe=recipe, cells=cells, trials=trials))
        tested = self.config.mix.shape_share
        for variant in list_variants(main):  # the best cell where it has another share than the shape test
            wanted = main.slice_planned(max(blends, key=lambda cell: (cell.share != tested, cell.share)))
            longer = [variant.epochs.get((item.cell.kind, item.cell.share), 1.0) for item in wanted]
            cells, name, mean = len({item.cell for item in wanted}), variant.name, _mean(longer)
            stages.append(TrialPlan(stage=name, recipe=recipes[0], cells=cells, trials=len(longer), longer=mean))
        if trials := study.draws.confirm * main.count_confirmation():
            stages.append(TrialPlan(stage="confirm", recipe=recipes[0], cells=3, trials=trials))
        return stages

    def _choose_draws(self, grids: Sequence[PlannedGrid]) -> None:
        """Settle the numbers of draws by the trials that were timed here, and say so."""
        study, config = self.study, self.config
        if not is_open(config):
            return
        main, took = grids[0], {(r.trainer, r.loss): self.each.get(r.name, 0.0) for r in grid_recipes(study)}
        firsts = [item.cell for draws in split_draws(grids)[1:2] for item in draws]
        draw = math.fsum(took[cell.trainer, cell.loss] for cell in firsts) if self.each else None
        last = took[main.trainer, main.loss] * main.count_confirmation()
        save_draws(study.folder, choose_draws(config, draw=draw, confirmation=last))
        fewest, most = (write_draws(config, numbers) for numbers in bound_draws(config))
        self.notes.append(
            f"draws: {write_draws(config, study.draws, study.real_draws)}, by the trials timed here; the run times its "
            f"own, and chooses at least {fewest}, and at most {most}"
        )

    # --- time ---
    def _attempt(self, what: str, timed: Callable[[], float]) -> float | None:
        """Seconds of something; None where they cannot be had, which is noted."""
        try:
            with without_hub():
                return timed()
        except CuveeError as exc:
            self.notes.append(f"the time of {what} is not known ({exc}); plan downloads nothing")
            return None

    def _time_trials(self, grid: PlannedGrid) -> None:
        """Time one trial of each recipe; cells are taken from ``grid``."""
        check, recipes = self.config.train.check, [*grid_recipes(self.study)]
        recipes += [] if check is None else [check_recipe(self.config.train, check)]
        for recipe in {recipe.name: recipe for recipe in recipes}.values():
            what = f"trials of {recipe.trainer} with loss {recipe.loss}"
            took = self._attempt(what, partial(_time_trial, self.study, grid, recipe))
            self.each |= {} if took is None else {recipe.name: took}

    def _time_study(self, stages: list[TrialPlan], usage: Usage, sample: list[Request], rounds: int) -> TimePlan:
        """The time of all parts, ``rounds`` trials at once; the sample of requests and some texts are timed."""
        self.notes.append(
            "loading, reading files, measuring, statistics and the report are in no estimate; one trial and one batch "
            "of requests were timed here, alone"
        )
        timed, study, split = [s for s in stages if s.recipe.name in self.each], self.study, self.study.split
        known = [math.ceil(s.trials / rounds) * s.longer * self.each[s.recipe.name] for s in timed]
        generating: float | None = 0.0
        if not study.ready_made:
            one = self._attempt("generating", partial(_time_request, study, sample)) if sample else None
            generating = None if one is None else usage.requests * one
            if not sample:
                self.notes.append("the time of generating is not known: --ask sends a few requests to the endpoint")
        rows = len(study.train) + len(split.validation) + len(split.test) + len(read_passages(self.config.evaluate))
        texts = self.folds * (rows + sum(has.rows for has in self.levels.values() if study.ready_made)) + usage.requests
        text = self._attempt("embedding", partial(_time_text, study))
        trials, embedding = math.fsum(known) if known else None, None if text is None else texts * text
        return TimePlan(trials=trials, each=self.each, generating=generating, embedding=embedding)

    # --- power and notes ---
    def _plan_power(self, grid: PlannedGrid, power: Callable[..., float], spread: float, held_out: int) -> PowerPlan:
        """What the study can see: items of validation first, those ``held_out`` for the confirmation."""
        study, confirm = self.study, self.study.draws.confirm
        smallest = partial(power, sd_between=spread / math.sqrt(2.0))
        # an item that several folds validate on counts once, as where their trials are joined
        items = len({name for each in self.studies for name in name_items(each.split.validation)})
        last = find_level(plan_looks(confirm), confirm, self.config.advice.alpha)
        ((dial, largest),) = Counter(level.dial for level in self.levels).most_common(1)
        blocks = min(len(has.blocks) for level, has in self.levels.items() if level.dial == dial)
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

    def _tell_limits(self, held_out: int) -> list[str]:
        """What the numbers rest on and leave out."""
        study, config, generator = self.study, self.config, self.config.generator
        shape = config.mix.shape_share
        few = [level.key for level, has in self.levels.items() if not has.blocks and level.dial != UNORDERED]
        told = {
            f"cross-fitted: requests, tokens, cost, trials and time are those of {self.folds} folds; each has "
            f"{len(study.train)} training and {len(study.split.validation)} validation rows, and together they "
            f"hold out all {held_out} real rows once, in place of a locked test": self.folds > 1,
            "pools are files: filters may leave fewer rows than they hold, and fewer blocks": study.ready_made,
            f"no shape is tested over levels without two blocks of {sum(study.block_rows().values())} rows "
            f"({', '.join(few)}): lower mix.shape_share {shape:g} or split.rows_per_label, or give larger files": few,
            f"tokens: {LETTERS_A_TOKEN:g} letters each, as in English; answers as long as the real rows": self.made,
            "answers that cannot be used are asked for again, and are not among requests, tokens and cost": self.made,
            "the search chooses how often blends are drawn; all draws go to baselines and shape test": (
                config.search.kind == "adaptive"
            ),
            "no cost: give generator.prices": isinstance(generator, EndpointGenerator) and generator.prices is None,
            "a dial with a target is searched: it may ask for fewer of its levels, and trains on one": any(
                settings.target for settings in config.dials
            ),
        }
        short = (tell_short_labels(study, level, has) for level, has in self.levels.items())
        return [*filter(None, short), *(note for note, holds in told.items() if holds)]


def _count_lists(settings: DialConfig, strata: int) -> int:
    """Requests that ask for a dial's topics or attributes, at least."""
    if isinstance(settings, TopicsConfig) and settings.topics == "llm":
        return strata * math.ceil(max(settings.levels) / ITEMS_A_REQUEST)
    if isinstance(settings, AttributesConfig) and settings.dimensions == "llm":
        count, each = settings.count, math.ceil(settings.values / ITEMS_A_REQUEST)
        return math.ceil(count / ITEMS_A_REQUEST) + count * each
    return 0


def _price(part: Generator, usage: Usage) -> tuple[float | None, str]:
    """What so many tokens cost, and the currency; None without prices, 0 where all is written on this machine."""
    if not isinstance(part, EndpointGenerator):
        return 0.0, ""
    prices = find_prices(part)
    if prices is None:
        return None, ""
    return prices.cost(usage.prompt_tokens, usage.completion_tokens), prices.currency


def _compare_budget(part: Generator, where: str, usage: Usage) -> list[str]:
    """Which budgets the plan would pass, with the numbers; a run stops there."""
    if not isinstance(part, EndpointGenerator):
        return []
    tokens, cost = usage.tokens, _price(part, usage)[0] or 0.0
    return [
        f"{where}.budget.{name} is {most:,.10g}, and the plan takes about {wanted:,.6g}: the run would stop there; "
        "raise it, or ask for fewer levels, draws or rows"
        for (name, most), wanted in zip(part.budget, (usage.requests, tokens, cost), strict=True)
        if most is not None and wanted > most
    ]


def _time(work: Callable[[], T]) -> tuple[T, float]:
    """What comes of some work, and its seconds."""
    begun = time.perf_counter()
    return work(), time.perf_counter() - begun


def _time_request(study: Study, sample: Sequence[Request]) -> float:
    """Seconds of a request, as many of them under way at once as in the study."""
    warming = sample[::_WARMING]
    timed = [request for request in sample if request not in warming] or warming
    with open_llm(study) as llm, Ledger() as ledger, llm.open_client(llm.endpoint, ledger) as client:
        client.answer_requests(list(warming))
        answers, took = _time(lambda: client.answer_requests(list(timed)))
    failed = [answer for answer in answers if isinstance(answer, Failure)]
    if failed:
        raise CuveeError(f"{len(failed)} of {len(answers)} requests failed: {failed[0].message}")
    return took / len(answers)


def _time_text(study: Study) -> float:
    """Seconds of embedding a text; the cache is neither read nor filled."""
    encoder, texts = build_encoder(study.config.encoder), study.train.texts
    encoder.encode(texts[:1])
    part = [texts[i % len(texts)] for i in range(_TEXTS)]
    return _time(lambda: encoder.encode(part))[1] / len(part)


def _time_trial(study: Study, grid: PlannedGrid, recipe: Recipe) -> float:
    """Seconds of a trial, the least of a few runs, with the threads that the study's trials get.

    Its blend is the one of the grid whose rows are nearest to the mean of all, since time grows with rows evenly; real
    rows stand in for its pool, and vectors that cost nothing for theirs: embedding is timed apart.

    Raises:
        CuveeError: the trial failed.
    """
    execute, train, longer = study.config.execute, study.config.train, grid.count_epochs()
    here = ExecuteConfig(cpus=execute.cpus if execute.kind == "local" else execute.cpus or 1)
    if train.command is not None:  # its folders go into this study's own
        train = train.model_copy(update={"command": train.command.model_copy(update={"folder": None})})
    config = study.config.model_copy(update={"execute": here, "encoder": "hashing", "train": train})
    study = replace(study, config=config, encoder=HashingEncoder())
    if recipe.program is not None and recipe.program.run is None:
        raise CuveeError("they run elsewhere")
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
            trial = PlannedTrial(cell=cell, draw=replace(item.draw, training=FRESH + len(took)))
            (outcome,), spent = _time(partial(runner.run, [trial]))
            took.append(spent)
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
    ids, numbers = [f"timing-{i}" for i in range(len(pool))], np.repeat(np.arange(blocks, dtype=np.int32), len(block))
    return pool.with_columns(id=ids, origin=["synthetic"] * len(pool), block=numbers)
