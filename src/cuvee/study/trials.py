"""Trials: the grids and their search, checked before anything is spent; check, other ways to train, confirmation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from cuvee.config.generators import list_levels
from cuvee.config.sections import PROBE
from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, CuveeError, naming
from cuvee.evaluate.generation import load_score
from cuvee.fingerprint import hash_value
from cuvee.recommend import DIVERSITY, PlannedTrial, confirm_cell
from cuvee.recommend.cells import find_rivals
from cuvee.recommend.confirming import find_training_part, plan_looks
from cuvee.recommend.search import list_draws, pair_draws
from cuvee.records import Advice, Cell, CellSummary, Confirmation, Kind, Level, Outcome, Trial
from cuvee.study.draws import choose_draws, has_other_time, is_open, read_draws, save_draws, write_draws
from cuvee.study.generation import identify_generator, make_dials
from cuvee.study.grids import LevelRows, PlannedGrid, choose_real, plan_grids, plan_levels, split_draws, value_of
from cuvee.study.judge import open_judge, read_rubric
from cuvee.study.pools import PooledStudy, check_files, fresh_pool
from cuvee.study.prepare import FRESH, Study, note_held_out_sources
from cuvee.study.running import Recipe, TrialRunner, Variant, check_recipe, grid_recipes, open_trials, read_passages
from cuvee.train import check_fit, is_deterministic, train_model, without_loss
from cuvee.train.command import find_files
from cuvee.train.own import Answers

_LITTLE = 0.1  # of the variance between draws, what more trainings of each must take off to be worth it


def _check_training(study: Study) -> None:
    """Check each trainer with each loss, and its settings."""
    train = study.config.train
    recipes = [("train", recipe) for recipe in grid_recipes(study)]
    if (check := train.check) is not None:
        recipes.append(("train.check", check_recipe(train, check)))
    for where, recipe in recipes:
        with naming(where):
            check_fit(recipe.make_settings(recipe.steps, seed=0), study.config.task)
        if recipe.program is not None and recipe.program.run is not None and study.config.execute.kind != "ray":
            find_files(recipe.program)
    if study.config.train_winner and ":" in recipes[0][1].trainer:
        _check_keeping(study, recipes[0][1])


def _check_keeping(study: Study, recipe: Recipe) -> None:
    """See that what a trainer of the user's own makes can be kept: it trains for one step on the real rows.

    Raises:
        ConfigError: it cannot.
    """
    settings = without_loss(recipe.make_settings(1, seed=0))
    try:
        made = train_model(study.train, settings=settings, encoder=study.encoder, validation=study.split.validation)
    except CuveeError:
        return  # the trials tell why
    if not hasattr(made, "save") or (isinstance(made, Answers) and made.keep is None):
        raise ConfigError(f"train_winner needs a model with save(folder); that of trainer {recipe.trainer!r} has none")


def validate_study(study: Study) -> dict[Level, LevelRows]:
    """Check trainers, loss and dials against the data, and the files of ready-made pools; what levels have at most.

    Raises:
        ConfigError: with the key and the remedy.
        InputError: a file cannot be read, or lacks a column, a label or rows.
    """
    study.config.execute.cluster()
    _check_training(study)
    if ":" in (score := study.config.evaluate.score or ""):
        load_score(score)
    if (study.config.draws.real or 1) > 1 and study.real_draws == 1:
        raise ConfigError(
            f"draws.real is {study.config.draws.real}, and fewer real rows than twice split.rows_per_label are at hand "
            "for training; leave it out, or lower split.rows_per_label"
        )
    read_passages(study.config.evaluate)
    read_rubric(study.config.evaluate.rubric)
    if study.ready_made:
        levels = check_files(study)
    else:
        note_held_out_sources(study)
        made = make_dials(study)
        for number, (_, dial) in enumerate(made):
            with naming(f"dials.{number}"):
                dial.check(list(study.writing.strata), study.writing.spec.rows_per_label)
        levels = plan_levels(study, made)
    for grid in plan_grids(study, levels):
        grid.count_allowed()
    return levels


def run_grid(made: PooledStudy) -> list[Outcome]:
    """The planned trials on validation that the search asks for; those in the run folder are not repeated.

    A round is asked, run and told as a whole, failures too, so what is asked does not depend on where or in which
    order trials run, nor on how often the study was stopped.
    """
    study, measurements, outcomes = made.study, made.measurements, list[Outcome]()
    opened = partial(open_trials, study, made.corpora, grid_recipes(study), stage="train")
    command, is_unknown = study.config.train.command, is_open(study.config) and read_draws(study.folder.path) is None
    if is_unknown and command is not None and command.run is None:  # nothing to time here
        save_draws(study.folder, choose_draws(study.config, draw=None, confirmation=0.0))
    elif is_unknown:
        with opened() as trials:
            _choose_draws(study, plan_grids(study, made.levels), trials)
    elif has_other_time(study.config, study.folder.path):
        _note_draws(study, "allow by what the first trials took")
    with opened() as trials:
        grids = plan_grids(study, made.levels)
        total = sum(grid.count_allowed() for grid in grids)
        searches = [grid.make_search(measurements) for grid in grids]
        batches = [g.planned if search is None else search.ask() for g, search in zip(grids, searches, strict=True)]
        while any(batches):
            found = iter(trials.run([item for batch in batches for item in batch], total=total))
            for search, batch in zip(searches, batches, strict=True):
                for item in batch:
                    outcome = next(found)
                    outcomes.append(outcome)
                    if search is not None:
                        search.tell(item, value_of(outcome))
            batches = [() if search is None else search.ask() for search in searches]
    return outcomes


def _choose_draws(study: Study, grids: Sequence[PlannedGrid], trials: TrialRunner) -> None:
    """Run the first draw of every cell, timing the cells that are drawn again, and write down how many draws to run.

    Where the run folder holds the first draw already, the next one that it lacks is timed; where it lacks none, the
    numbers are the usual ones.
    """
    once, *draws = split_draws(grids)
    trials.run(once, ahead=True)
    each = None
    for items in draws:
        known, began = trials.begun, time.perf_counter()
        trials.run(items, ahead=True)
        if trials.begun > known:
            each = (time.perf_counter() - began) / (trials.begun - known)
            break
    draw, last = each and each * len(draws[0]), (each or 0.0) * grids[0].count_confirmation()
    save_draws(study.folder, choose_draws(study.config, draw=draw, confirmation=last))
    _note_draws(study, "of trials allow")


def _note_draws(study: Study, why: str) -> None:
    told = write_draws(study.config, study.draws, study.real_draws)
    study.note(f"draws: {told}, as many as {study.config.draws.time} {why}")


def check_trainer(made: PooledStudy, draft: Advice) -> list[Outcome]:
    """The dearer trainer on real-only, on the best cells, and on the most diverse cell at the best one's share.

    The best cell by the cheap trainer goes on, and with it those of the next highest means, as many as
    ``train.check.keep`` says: one rung of successive halving.
    """
    study, levels, check = made.study, made.levels, made.study.config.train.check
    if check is None or draft.best is None:
        return []
    best = draft.best.cell
    diverse = max(levels, key=lambda level: made.measurements[level.key].values[DIVERSITY].value)
    main = plan_grids(study, levels)[0]
    alike = [c for c in main.blends if (c.dial, c.level) == (diverse.dial, diverse.name) and c.scope == best.scope]
    cells = [
        Cell(kind="real-only", rows_per_label=study.rows_per_label, scope=best.scope),
        *_keep_best(draft.best, [each for each in draft.cells if main.holds(each.cell)], check.keep),
        min(alike, key=lambda c: (c.whole != best.whole, abs(c.share - best.share)), default=best),
    ]
    planned = []
    for cell in dict.fromkeys(replace(c, trainer=check.trainer, loss="ce") for c in cells):
        own = [levels[made.find_level(cell)]] if cell.dial else levels.values()
        if cell.scope == "this pool":
            draws = list_draws([0], range(check.draws), 1)
        else:
            draws = list_draws(sorted({b for has in own for b in has.blocks})[: check.draws], [0], 1)
        planned += [PlannedTrial(cell=cell, draw=choose_real(study, draw)) for draw in draws]
    recipe = check_recipe(study.config.train, check)
    with open_trials(study, made.corpora, [recipe], stage=f"check with {check.trainer}") as trials:
        return trials.run(planned)


def _keep_best(best: CellSummary, cells: Sequence[CellSummary], keep: int) -> list[Cell]:
    """The best cell, then the others that could have been it, by their mean; the smaller share first of equals."""
    rivals = set(find_rivals(summary.cell for summary in cells)) - {best.cell}
    others = [s for s in cells if s.cell in rivals and (s.cell.whole or s.draws >= min(2, best.draws))]
    others.sort(key=lambda s: (-s.accuracy, s.cell.share, s.cell.key))
    return [best.cell, *(summary.cell for summary in others[: keep - 1])]


def run_variants(made: PooledStudy, draft: Advice) -> dict[str, list[Outcome]]:
    """The levels at the share of the shape test, the best cell, and their baselines, trained in other ways."""
    if draft.best is None:
        return {}
    study, best, found = made.study, draft.best.cell, {}
    main = plan_grids(study, made.levels)[0]
    recipes = [each for each in grid_recipes(study) if (each.trainer, each.loss) == (best.trainer, best.loss)]
    for variant in list_variants(main):
        with open_trials(study, made.corpora, recipes, stage=variant.name, variant=variant) as trials:
            found[variant.name] = trials.run(main.slice_planned(best))
    return found


def list_variants(main: PlannedGrid) -> list[Variant]:
    """The other ways that ``train.sensitivity`` asks for; a probe is held against other penalties unless it is said.

    With equal epochs every cell sees each of its rows as often as real-only does in the grid, in place of equal
    optimiser steps: larger blends are trained for longer.
    """
    study, train = main.study, main.study.config.train
    default = ("penalty",) if train.trainers[0] == PROBE and study.fold is None else ()
    asked = default if train.sensitivity is None else train.sensitivity
    made = [Variant(name="equal epochs", epochs=main.count_epochs())] if "equal-epochs" in asked else []
    if "penalty" in asked:
        made += [Variant(name="a tenth of the penalty", penalty=0.1), Variant(name="10 times the penalty", penalty=10)]
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmationTrials:
    """The trials of a confirmation: the winner and its baselines on the locked test.

    Attributes:
        cell: the winner.
        outcomes: of all planned trials.
        test: the rows of the locked test.
        fresh_draws: whether the draws took no part in the choice.
        looks: draws at each reading of the locked test so far; none where there can be only one.
        planned: draws at the last planned look.
    """

    cell: Cell
    outcomes: tuple[Outcome, ...]
    test: Corpus
    fresh_draws: bool
    looks: tuple[int, ...] = ()
    planned: int = 0


def list_looks(study: Study) -> tuple[int, ...]:
    """After how many draws the locked test is read: again at the last look that was taken, then at those to come."""
    planned, (taken, _) = plan_looks(study.draws.confirm), study.folder.looks()
    if not planned:
        return ()
    return (*taken[-1:], *(draws for draws in planned if draws > max(taken, default=0)))


def run_confirmation(
    made: PooledStudy, grid: Sequence[Outcome], draft: Advice, *, draws: int
) -> ConfirmationTrials | None:
    """One look at the locked test: the best cell, real-only and real-duplicated on so many fresh draws.

    Fresh draws are further generations, or in the scope *this pool* further subsamples; None where none are wanted. A
    study extended after its confirmation keeps the first one only if the best cell is still the same: the locked test
    is not opened for another.
    """
    if draft.best is None:
        return None
    study, best = made.study, draft.best.cell
    mark, earlier = name_confirmation(made, best), study.folder.confirmed()
    if earlier is not None and earlier != mark:
        study.note(f"the locked test was used to confirm {earlier!r}: {mark!r} stays unconfirmed")
        return None
    level, of_pool = made.find_level(best), best.scope == "this pool"
    fresh, corpus, blocks = None, made.pools[level].corpus, [0]
    if not of_pool:
        fresh = fresh_pool(study, level, draws)
        corpus, found = fresh or (corpus, made.levels[level].blocks)
        blocks = list(found)
    test = study.locked_test(mark).open_for_confirmation()
    main, training = grid_recipes(study)[0], _count_trainings(study, grid, draft.best)
    samplings = range(FRESH, FRESH + draws) if of_pool else range(study.draws.sampling)
    how = f": {len(blocks)} of generation, {len(samplings)} of sampling, {training} of training"
    every = [choose_real(study, draw) for draw in list_draws(blocks, samplings, training)]
    every = [replace(draw, training=FRESH + draw.training) for draw in every]
    once = of_pool and study.fold is None and is_deterministic(best.trainer, best.loss)
    planned = pair_draws(confirmed_cells(best).values(), every, is_deterministic=once)
    is_only = len({item.draw for item in planned if item.cell == best}) == 1 and best.whole
    study.folder.log_look(draws, study.draws.confirm, how + "".join(f", own code {each[:12]}" for each in main.code))
    looks, most = study.folder.looks()
    with open_trials(study, {level.key: corpus}, grid_recipes(study)[:1], stage="confirm", test=test) as runner:
        outcomes = runner.run(planned)
    done, looks, is_fresh = tuple(outcomes), () if is_only else looks, fresh is not None or of_pool
    return ConfirmationTrials(cell=best, outcomes=done, test=test, fresh_draws=is_fresh, looks=looks, planned=most)


def _count_trainings(study: Study, grid: Sequence[Outcome], best: CellSummary) -> int:
    """Trainings of each draw of the confirmation: one where validation shows that more tell little."""
    usual = study.draws.trainings(best.cell.trainer, best.cell.loss)
    if usual == 1 or study.config.draws.training is not None or not best.gains:
        return usual
    part = find_training_part((o for o in grid if isinstance(o, Trial)), best.gains[0], best.cell)
    if part > _LITTLE:
        return usual
    study.note(f"one training a draw confirms: {usual} would lower the variance between draws by {part:.0%} only")
    return 1


def conclude_confirmation(study: Study, found: ConfirmationTrials | None) -> Confirmation | None:
    """What the trials of :func:`run_confirmation` say; None where the winner has no trial that did not fail."""
    if found is None:
        return None
    trials = [outcome for outcome in found.outcomes if isinstance(outcome, Trial)]
    if all(trial.cell != found.cell for trial in trials):
        study.note(f"every trial of {found.cell.key!r} on the locked test failed: it is unconfirmed")
        return None
    made = confirm_cell(trials, found.cell, fresh_draws=found.fresh_draws)
    made = replace(made, looks=found.looks, planned=found.planned)
    with open_judge(study, found.test, read_rubric(study.config.evaluate.rubric)) as judge:
        if judge is None:
            return made
        preferred, agreement = judge.compare(trials, found.cell), judge.tell_agreement(trials)
    paired = "In pairs, the judge's verdicts on its answers against those of real-only, one draw of each:"
    told = agreement if preferred is None else f"{paired} {preferred}. {agreement}"
    study.note(told)
    return replace(made, note=" ".join(filter(None, (made.note, told))))


def confirmed_cells(best: Cell) -> dict[Kind, Cell]:
    """The cells of a confirmation: the winner and its baselines."""
    return {
        "blend": best,
        "real-only": replace(best, kind="real-only", dial=None, level=None, share=0.0, whole=False),
        "real-duplicated": replace(best, kind="real-duplicated", dial=None, level=None, whole=False),
    }


def name_confirmation(made: PooledStudy, best: Cell) -> str:
    """What the locked test is opened for: the cell, and a hash of how its rows are made and trained on.

    The same cell with other steps, prompts, filters or rows of its file is another thing to confirm; with more pools,
    trainers, losses or numbers of real rows beside it, it is not.
    """
    study, config, recipe = made.study, made.study.config, grid_recipes(made.study)[0]
    pool = made.pools[made.find_level(best)]
    files = list_levels(config.pools).get((best.dial or "", best.level or ""), ())
    how = [
        [recipe.trainer, recipe.loss, config.train.source_weight, recipe.steps, dict(sorted(recipe.settings.items()))],
        "files" if study.ready_made else identify_generator(study),
        config.writing.model_dump(),
        [each.model_dump() for each in config.filters],
        [each.model_dump() for each in files],
        sorted([*pool.corpus.texts, *pool.corpus.ids, *(each.text for each in pool.rejected)]) if files else "",
        config.describe,
        study.encoder.hash,
        study.real_draws > 1,
        *config.draft_models,
    ]
    return f"{best.key} ({hash_value(how)[:8]})"
