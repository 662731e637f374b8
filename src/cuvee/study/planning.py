"""What a study would take, before anything is spent: cells, trials, requests, tokens, money, time, power."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from cuvee.config import FileGenerator, StudyConfig, make_config, read_config
from cuvee.execute import Stages
from cuvee.recommend.power import plan_power
from cuvee.records import Level
from cuvee.store import RunFolder
from cuvee.study.crossfit import open_folds
from cuvee.study.dials import StandIns, make_dials
from cuvee.study.generation import ATTEMPTS
from cuvee.study.joining import name_items
from cuvee.study.planned_requests import LETTERS_A_TOKEN, DialPlan, plan_dial
from cuvee.study.planned_trials import TrialPlan, count_workers, plan_trials, planned_levels
from cuvee.study.setup import Study
from cuvee.study.spending import find_prices
from cuvee.study.validation import validate_study
from cuvee.study.writing import commission


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
        labels, train_rows, validation_rows, test_rows: of the real data; with folds train and validation of one of
            them, and all rows that are held out.
        dials: what the LLM is asked for; none where pools are files.
        trials: of each stage.
        workers: trials at once, where that is known.
        requests: in all, if every answer is usable; ``most_requests`` if every row needs all its attempts.
        prompt_tokens, completion_tokens: of ``requests``.
        cost: of these tokens in ``currency``; None without prices.
        seconds: of the timed trials, over the workers; None if none was timed.
        power: what can be seen.
        notes: what the numbers leave out.
        folds: requests, tokens, cost, trials and seconds are those of so many; 1 without ``split.crossfit``.
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
    folds: int = 1


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
    with (
        TemporaryDirectory(prefix="cuvee-plan-") as folder,
        RunFolder(folder) as empty,
        open_folds(settings, empty, Stages()) as studies,
    ):
        for study in studies:
            validate_study(study)
        # an item that several folds validate on counts once, as where their trials are joined
        items = len({name for study in studies for name in name_items(study.split.validation)})
        plan = _plan(studies[0], sd_between, sd_within, items)
        return plan if len(studies) == 1 else _plan_folds(plan, studies)


def _plan_folds(plan: StudyPlan, studies: Sequence[Study]) -> StudyPlan:
    """The plan of the first fold, for all of them: each asks for as much and trains as often."""
    folds, held_out = len(studies), sum(len(study.split.test) for study in studies)
    return replace(
        plan,
        test_rows=held_out,
        dials=tuple(
            replace(
                dial,
                requests=dial.requests * folds,
                confirm_requests=dial.confirm_requests * folds,
                list_requests=dial.list_requests * folds,
                prompt_tokens=dial.prompt_tokens * folds,
                completion_tokens=dial.completion_tokens * folds,
            )
            for dial in plan.dials
        ),
        trials=tuple(replace(stage, trials=stage.trials * folds) for stage in plan.trials),
        requests=plan.requests * folds,
        most_requests=plan.most_requests * folds,
        prompt_tokens=plan.prompt_tokens * folds,
        completion_tokens=plan.completion_tokens * folds,
        cost=None if plan.cost is None else plan.cost * folds,
        seconds=None if plan.seconds is None else plan.seconds * folds,
        notes=(
            f"cross-fitted: requests, tokens, cost, trials and time are those of {folds} folds; each has "
            f"{plan.train_rows} training and {plan.validation_rows} validation rows, and together they hold out all "
            f"{held_out} real rows once, in place of a locked test",
            *plan.notes,
        ),
        folds=folds,
    )


def _plan(study: Study, sd_between: float, sd_within: float, items: int) -> StudyPlan:
    config = study.config
    from_files = isinstance(config.generator, FileGenerator)
    wanted = None if from_files else commission(study)
    made = [] if wanted is None else make_dials(study, StandIns())
    dials = [] if wanted is None else [plan_dial(study, wanted, settings, dial) for settings, dial in made]
    levels = planned_levels(study, [(settings, dial.levels) for settings, dial in made])
    stages = plan_trials(study, levels)
    requests = sum(d.requests + d.list_requests for d in dials) + max((d.confirm_requests for d in dials), default=0)
    prompt, completion = sum(d.prompt_tokens for d in dials), sum(d.completion_tokens for d in dials)
    prices = find_prices(study)
    workers = count_workers(study)
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
        power=_plan_power(study, levels, sd_between, sd_within, items),
        notes=tuple(_notes(study, stages, priced=prices is not None)),
    )


def _plan_power(
    study: Study, levels: Mapping[Level, Sequence[int]], sd_between: float, sd_within: float, items: int
) -> PowerPlan:
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
        gain=smallest(1, tests=cells, items=items),
        hump=smallest(len(largest), tests=1, items=None) if len(largest) >= 3 else None,
    )


def _notes(study: Study, stages: Sequence[TrialPlan], *, priced: bool) -> list[str]:
    generator, folds = study.config.generator, study.config.split.crossfit or 1
    notes = [
        f"{stage.trials * folds} trials of {stage.steps} steps with trainer {stage.trainer} are not timed"
        for stage in stages
        if stage.seconds_each is None
    ]
    if isinstance(generator, FileGenerator):
        notes.append("pools are files: generation draws are at most those asked for, until the files are read")
    else:
        notes.append("time of generating, embedding and measuring is not estimated")
        notes.append(f"tokens: {LETTERS_A_TOKEN:g} letters each, as in English; answers as long as the real rows")
        notes.append("answers that cannot be used are asked for again, and are not in the estimate")
    if study.config.search.kind == "adaptive":
        notes.append("the search chooses which blends are drawn how often; all draws go to baselines and shape test")
    if not priced and generator.kind == "endpoint":
        notes.append("no cost: give generator.prices")
    if any(settings.target is not None for settings in study.config.dials):
        notes.append("a dial with a target is searched: it may ask for fewer of its levels, and trains on one")
    return notes
