"""What a study would take, before anything is spent: cells, trials, requests, tokens, money, time, power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from cuvee.config import FileGenerator, StudyConfig, make_config, read_config
from cuvee.errors import ConfigError
from cuvee.execute import Stages
from cuvee.execute.machine import usable_cores
from cuvee.records import Usage
from cuvee.store import RunFolder
from cuvee.study.crossfit import open_folds
from cuvee.study.dials import StandIns, make_dials
from cuvee.study.generation import ATTEMPTS
from cuvee.study.joining import name_items
from cuvee.study.planned_costs import compare_budgets, plan_spending
from cuvee.study.planned_effects import Assumed, PowerPlan, plan_effects
from cuvee.study.planned_embedding import EmbeddingTime, time_embedding
from cuvee.study.planned_generation import GenerationTime, time_generation
from cuvee.study.planned_machine import machine_load, tell_load
from cuvee.study.planned_requests import LETTERS_A_TOKEN, DialPlan, plan_dial
from cuvee.study.planned_timing import RecipeTime
from cuvee.study.planned_trials import TrialPlan, TrialsPlan, count_workers, plan_trials, planned_levels
from cuvee.study.setup import Study
from cuvee.study.validation import validate_study
from cuvee.study.writing import commission


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePlan:
    """Seconds of the parts of a study, one after the other; None where one is not known.

    Attributes:
        trials: of all stages that were timed, over the workers.
        generating: of pools and confirmation.
        generating_at_least: what the limits of endpoints alone take.
        embedding: of all texts, if none is in the cache yet.
        measuring: of all pools.
        total: of those that are known.
    """

    trials: float | None
    generating: float | None
    generating_at_least: float
    embedding: float | None
    measuring: float | None
    total: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """What a study would take.

    Attributes:
        name: of the study.
        labels, train_rows, validation_rows, test_rows: of the real data; with folds train and validation of one of
            them, and all rows that are held out.
        dials: what the LLM is asked for; none where pools are files.
        trials: of each stage.
        timings: of a trial with each trainer and loss.
        workers: trials at once, where that is known.
        requests: in all, if every answer is usable; ``most_requests`` if every row needs all its attempts.
        prompt_tokens, completion_tokens: of ``requests``.
        drafts: those of ``requests`` that ``generator.draft`` answers.
        cost: of these tokens in ``currency``, each at the prices of who answers; None without prices, 0 where all is
            written on this machine.
        drafts_cost: that of ``drafts``.
        texts: to be embedded.
        time: of each part, and together.
        power: what can be seen.
        notes: what the numbers rest on and leave out.
        folds: requests, tokens, cost, trials and seconds are those of so many; 1 without ``split.crossfit``.
    """

    name: str
    labels: int
    train_rows: int
    validation_rows: int
    test_rows: int
    dials: tuple[DialPlan, ...]
    trials: tuple[TrialPlan, ...]
    timings: tuple[RecipeTime, ...]
    workers: int | None
    requests: int
    most_requests: int
    prompt_tokens: int
    completion_tokens: int
    drafts: Usage
    cost: float | None
    drafts_cost: float | None
    currency: str
    texts: int
    time: TimePlan
    power: PowerPlan
    notes: tuple[str, ...]
    folds: int = 1


def plan_study(
    config: StudyConfig | dict[str, object] | str | Path,
    *,
    sd_between: float = 1.0,
    sd_within: float = 1.0,
    disagreement: float = 0.1,
    latency: float | None = None,
) -> StudyPlan:
    """Plan a study: nothing is sent or downloaded, nothing is kept.

    Every trainer is timed with every loss on rows of the study, the encoder on its texts, and an embedded LLM on its
    first dial: about 20 s each at most.

    Args:
        config: a study.yaml, or its content.
        sd_between: assumed SD of a cell's accuracy over generation draws, points.
        sd_within: assumed SD over sampling and training draws, points.
        disagreement: assumed fraction of held-out items that two cells answer differently.
        latency: seconds that a request is assumed to take, with as many under way as the config says; None leaves the
            time of generating open where no embedded LLM generates.

    Raises:
        CuveeError: whatever would stop the study before it spends anything; ConfigError: a latency that nothing is
            reckoned with.
        ValueError: ``latency`` is not above 0, or another argument is out of range.
    """
    if latency is not None and not (math.isfinite(latency) and latency > 0):
        raise ValueError(f"latency is {latency!r}; give seconds above 0, or None")
    settings = read_config(config) if isinstance(config, str | Path) else make_config(config)
    _check_latency(settings, latency)
    with (
        TemporaryDirectory(prefix="cuvee-plan-") as folder,
        RunFolder(folder) as empty,
        open_folds(settings, empty, Stages()) as studies,
    ):
        for study in studies:
            validate_study(study)
        # an item that several folds validate on counts once, as where their trials are joined
        items = len({name for study in studies for name in name_items(study.split.validation)})
        assumed = Assumed(sd_between=sd_between, sd_within=sd_within, disagreement=disagreement, latency=latency)
        return _plan(settings, studies, assumed, items)


def _check_latency(config: StudyConfig, latency: float | None) -> None:
    generator = config.generator
    asked = [] if isinstance(generator, FileGenerator) else [generator, generator.draft]
    if latency is not None and all(part is None or part.kind == "embedded" for part in asked):
        how = "pools are files" if not asked else "the embedded LLM is timed here"
        raise ConfigError(f"--latency {latency:g} has no effect: {how}; leave it out")


def _plan(settings: StudyConfig, studies: Sequence[Study], assumed: Assumed, items: int) -> StudyPlan:
    """The first fold is counted and timed; each of the others asks for as much and trains as often."""
    study, folds, load = studies[0], len(studies), machine_load()
    config = study.config
    from_files = isinstance(config.generator, FileGenerator)
    wanted = None if from_files else commission(study)
    made = [] if wanted is None else make_dials(study, StandIns())
    dials = [] if wanted is None else [plan_dial(study, wanted, section, dial) for section, dial in made]
    levels = planned_levels(study, [(section, dial.levels) for section, dial in made])
    spending = plan_spending(config, dials)
    written = time_generation(study, made, spending, latency=assumed.latency)
    # as in a study, the encoder comes before the trainers: libraries that both need are loaded with it
    embedded = time_embedding(study, list(levels), dials, workers=count_workers(study))
    trials = plan_trials(study, levels)
    spending = spending.times(folds)
    requests, held_out = spending.usage.requests, sum(len(each.split.test) for each in studies)
    return StudyPlan(
        name=config.name,
        labels=len(study.train.labels),
        train_rows=len(study.train),
        validation_rows=len(study.split.validation),
        test_rows=held_out,
        dials=tuple(dial.times(folds) for dial in dials),
        trials=tuple(replace(stage, trials=stage.trials * folds) for stage in trials.stages),
        timings=trials.timings,
        workers=trials.workers,
        requests=requests,
        most_requests=requests * ATTEMPTS,
        prompt_tokens=spending.usage.prompt_tokens,
        completion_tokens=spending.usage.completion_tokens,
        drafts=spending.drafts,
        cost=spending.cost,
        drafts_cost=spending.drafts_cost,
        currency=spending.currency,
        texts=embedded.texts * folds,
        time=_plan_time(trials, written, embedded, folds),
        power=plan_effects(study, levels, assumed, items=items, held_out=held_out),
        notes=(
            *([] if folds == 1 else [_tell_folds(study, folds, held_out)]),
            *compare_budgets(settings, spending),
            *tell_load(load, usable_cores(), config.execute.kind),
            *trials.notes,
            *written.notes,
            *embedded.notes,
            *_notes(study, priced=spending.cost is not None),
        ),
        folds=folds,
    )


def _plan_time(trials: TrialsPlan, written: GenerationTime, embedded: EmbeddingTime, folds: int) -> TimePlan:
    def each(seconds: float | None) -> float | None:
        return None if seconds is None else seconds * folds

    parts = [each(s) for s in (trials.seconds, written.seconds, embedded.embedding, embedded.measuring)]
    known = [seconds for seconds in parts if seconds is not None]
    return TimePlan(
        trials=parts[0],
        generating=parts[1],
        generating_at_least=written.at_least * folds,
        embedding=parts[2],
        measuring=parts[3],
        total=math.fsum(known) if known else None,
    )


def _tell_folds(study: Study, folds: int, held_out: int) -> str:
    return (
        f"cross-fitted: requests, tokens, cost, trials and time are those of {folds} folds; each has "
        f"{len(study.train)} training and {len(study.split.validation)} validation rows, and together they hold out "
        f"all {held_out} real rows once, in place of a locked test"
    )


def _notes(study: Study, *, priced: bool) -> list[str]:
    generator = study.config.generator
    notes = []
    if isinstance(generator, FileGenerator):
        notes.append("pools are files: generation draws are at most those asked for, until the files are read")
    else:
        notes.append(f"tokens: {LETTERS_A_TOKEN:g} letters each, as in English; answers as long as the real rows")
        notes.append("answers that cannot be used are asked for again, and are not among requests, tokens and cost")
    notes.append("starting, reading files, filtering, statistics and the report are in no estimate: some seconds")
    if study.config.search.kind == "adaptive":
        notes.append("the search chooses which blends are drawn how often; all draws go to baselines and shape test")
    if not priced:
        notes.append("no cost: give generator.prices, and generator.draft.prices where an endpoint drafts")
    if any(settings.target is not None for settings in study.config.dials):
        notes.append("a dial with a target is searched: it may ask for fewer of its levels, and trains on one")
    return notes
