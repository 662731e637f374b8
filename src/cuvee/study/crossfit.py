"""Cross-fitting: where real rows are too few to lock a test, every row is held out in one of several folds.

Each fold is a study of its own: the rows of the other folds are its real rows, split again into train and validation,
and its own rows are its locked test. So its LLM sees no row that it holds out, and it chooses its blend without them.
Folds are opened here, and what their trials say is joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from cuvee.config.generators import BudgetConfig, EndpointGenerator
from cuvee.config.reading import config_to_yaml
from cuvee.config.schema import StudyConfig
from cuvee.corpus import Corpus, Split, normalise_text, number_folds
from cuvee.encoders import load_encoder
from cuvee.errors import InputError, naming
from cuvee.execute import Stages
from cuvee.fingerprint import hash_value
from cuvee.recommend import confirm_cell
from cuvee.records import Cell, Confirmation, Draw, Estimate, Measurement, Outcome, Scores, Trial, TrialFailure
from cuvee.store import RunFolder
from cuvee.study.prepare import RealData, Study, cut_split, read_real, settle_study
from cuvee.study.trials import ConfirmationTrials, confirmed_cells


@contextmanager
def open_folds(config: StudyConfig, folder: RunFolder, stages: Stages, real: Corpus | None) -> Iterator[list[Study]]:
    """The study, prepared; with ``split.crossfit`` one study for each fold, the first of them in ``folder`` itself.

    The folds after the first lie in ``folds/2`` and so on.

    Raises:
        InputError, ConfigError, RunFolderMismatch, RunFolderBusy, MissingDependency: before anything is spent.
    """
    count, shared = config.split.crossfit, config
    with ExitStack() as held:
        with stages.stage("prepare", "rows") as progress:
            data = read_real(config, real)
            if count is None:
                splits = [cut_split(config, data)]
            else:
                _check_validation(data)
                splits, shared = split_folds(config, data, count), share_budget(config, count)
            if shared != config:
                stages.listener.noted(f"each of {count} folds may spend one part in {count} of generator.budget")
            studies, encoder = [], load_encoder(config.encoder)
            for number, split in enumerate(splits, start=1):
                path = folder.path / "folds" / str(number)
                own = folder if number == 1 else held.enter_context(RunFolder(path))
                fold = None if count is None else number
                study = Study(config=shared, folder=own, stages=stages, split=split, encoder=encoder, fold=fold)
                studies.append(settle_study(study, data))
                own.save_text("study.yaml", config_to_yaml(config))
                progress(number, len(splits))
        yield studies


def split_folds(config: StudyConfig, data: RealData, count: int) -> list[Split]:
    """For each fold train and validation of the rows outside it, with its own rows as the locked test.

    Raises:
        InputError: too few rows, naming the fold.
    """
    fold_of = number_folds(data.rows, count, seed=config.seed, together=data.together)
    splits = []
    for fold in range(count):
        held_out, outside = (np.flatnonzero(rows) for rows in (fold_of == fold, fold_of != fold))
        with naming(f"fold {fold + 1} of split.crossfit {count}"):
            splits.append(cut_split(config, data, outside=outside, test=data.rows.take(held_out)))
    return splits


def share_budget(config: StudyConfig, folds: int) -> StudyConfig:
    """The config of one fold: its part of what may be spent on endpoints."""
    generator = config.generator
    if not isinstance(generator, EndpointGenerator):
        return config
    parts = {name: most and (most / folds if name == "cost" else most // folds) for name, most in generator.budget}
    shared = generator.model_copy(update={"budget": BudgetConfig(**parts)})
    return config.model_copy(update={"generator": shared})


def _check_validation(data: RealData) -> None:
    """Refuse a validation file with rows that folds hold out: their choices would know these rows."""
    if "validation" not in data.parts:
        return
    given, real = (
        [(normalise_text(text), context) for text, context in zip(part.texts, part.contexts, strict=True)]
        for part in (data.parts["validation"], data.rows)
    )
    if shared := sum(map(set(given).__contains__, real)):
        raise InputError(f"data.validation repeats {shared} rows of data.real, which folds hold out; take them out")


def write_scope(study: Study, folds: int) -> str:
    """What a reader of cross-fitted advice must know."""
    scope = (
        f"Cross-fitted in {folds} folds, each of which generated and chose without the rows that it held out. Trials, "
        "requests, tokens, cost and held-out reads are those of all folds, and measured diversity is their mean, with "
        "the range; the rows and the recommended blend are those of the first."
    )
    if study.ready_made:
        scope += " Whether the writer of ready-made pools was shown rows that are held out here is not known."
    return scope


def name_items(held_out: Corpus) -> list[str]:
    """What trials score on these rows, in the order of ``Scores``: rows, distinct prompts or distinct queries."""
    if held_out.task == "classification":
        return held_out.ids
    return list(dict.fromkeys(held_out.prompts if held_out.task == "generation" else held_out.texts))


def join_trials(folds: Sequence[Sequence[Outcome]], items: Sequence[Sequence[str]]) -> list[Outcome]:
    """Each cell at each draw over all folds, in the order of the first fold that has it.

    Its items are those of all folds; one that several folds scored (validation rows of one fold may be those of
    another) counts once, with its mean. A trial that a fold lacks, or that failed there, is a failure.

    Args:
        folds: the outcomes of each fold.
        items: what each fold scored, in the order of its scores.
    """
    number = {name: place for place, name in enumerate(dict.fromkeys(chain(*items)))}
    places = [np.array([number[name] for name in names], dtype=np.int64) for names in items]
    found = [{(outcome.cell, outcome.draw): outcome for outcome in each} for each in _align(folds)]
    return [_join(key, [fold.get(key) for fold in found], places) for key in dict.fromkeys(chain(*found))]


def _align(folds: Sequence[Sequence[Outcome]]) -> list[list[Outcome]]:
    """The outcomes of each fold, all rows of a pool having the share that they have in the first."""
    first = {_pool_of(o.cell): o.cell.share for o in folds[0] if o.cell.whole}
    aligned = []
    for fold in folds:
        shares: dict[float, set[float]] = {}  # those of all rows here, and what each of these pools has in the first
        for cell in (o.cell for o in fold if o.cell.whole):
            shares.setdefault(cell.share, set()).add(first.get(_pool_of(cell), cell.share))
        found = []
        for o in fold:
            own, wanted = o.cell.share, {o.cell.share}
            if o.cell.whole:
                wanted = {first.get(_pool_of(o.cell), own)}
            elif o.cell.kind == "real-duplicated":
                wanted = shares.get(own, wanted)
            found += [replace(o, cell=replace(o.cell, share=share)) for share in sorted(wanted)]
        aligned.append(found)
    return aligned


def _pool_of(cell: Cell) -> tuple[str | None, str | None, int]:
    return cell.dial, cell.level, cell.rows_per_label


def _join(key: tuple[Cell, Draw], outcomes: Sequence[Outcome | None], places: Sequence[NDArray[np.int64]]) -> Outcome:
    """One trial of all folds; ``places`` say where the items of each stand among all of them."""
    cell, draw = key
    trials = [outcome for outcome in outcomes if isinstance(outcome, Trial)]
    if len(trials) == len(outcomes):
        return replace(trials[0], scores=_join_scores([trial.scores for trial in trials], places))
    number, outcome = next((k, o) for k, o in enumerate(outcomes, start=1) if not isinstance(o, Trial))
    if outcome is None:
        return TrialFailure(cell=cell, draw=draw, stage="mix", reason=f"fold {number} has no rows for this draw")
    return TrialFailure(cell=cell, draw=draw, stage=outcome.stage, reason=f"fold {number}: {outcome.reason}")


def _join_scores(scores: Sequence[Scores], places: Sequence[NDArray[np.int64]]) -> Scores:
    folds = np.bincount(np.concatenate(places))  # that have each item
    total, right = np.zeros(len(folds)), np.ones(len(folds), dtype=np.bool_)
    groups = np.full(len(folds), -1, dtype=np.int64)
    for each, place in zip(scores, places, strict=True):
        total[place] += each.per_item
        right[place] &= each.correct
        for own in np.unique(codes := np.arange(each.n) if each.groups is None else each.groups):
            members = place[codes == own]  # a fold holds all of a group or none of it
            groups[members] = groups.max() + 1 if groups[members].max() < 0 else groups[members].max()
    plain = all(each.graded is None for each in scores) and int(folds.max()) == 1
    graded, values = None if plain else total / folds, _average([each.values for each in scores])
    known = groups if any(each.groups is not None for each in scores) else None
    return Scores(n=len(total), values=values, correct=right, graded=graded, score=scores[0].score, groups=known)


def _average(values: Sequence[Mapping[str, Estimate]]) -> dict[str, Estimate]:
    """The numbers that all folds have, weighed by their items."""
    joined = {}
    for name in set.intersection(*map(set, values)):
        found = [each[name] for each in values]
        count = sum(estimate.n for estimate in found)
        joined[name] = Estimate(value=sum(estimate.value * estimate.n for estimate in found) / count, n=count)
    return {name: joined[name] for name in values[0] if name in joined}


def join_confirmations(folds: Sequence[ConfirmationTrials], best: Cell) -> Confirmation | None:
    """The choice of each fold on the rows that it held out, joined under the name of ``best``.

    Draws are paired by their order. Each fold's choice is set against real rows repeated to the choice's own total.
    None where no draw of the blend was finished in all folds.
    """
    joined = join_trials([_rename(fold, best) for fold in folds], [name_items(fold.test) for fold in folds])
    trials = [outcome for outcome in joined if isinstance(outcome, Trial)]
    if all(trial.cell != best for trial in trials):
        return None
    failed = len(joined) - len(trials)
    lost = f" {failed} of {len(joined)} trials are left out, because a fold lacks them." if failed else ""
    note = f"{write_choices([fold.cell for fold in folds])} So this is the worth of choosing this way.{lost}"
    fresh, planned = all(fold.fresh_draws for fold in folds), max(fold.planned for fold in folds)
    looks = max((fold.looks for fold in folds), key=len)
    found = confirm_cell(trials, best, fresh_draws=fresh)
    return replace(found, note=note, folds=len(folds), looks=looks, planned=planned)


def _rename(fold: ConfirmationTrials, best: Cell) -> list[Outcome]:
    """The trials of a fold's choice and its baselines as those of ``best``, their generation draws counted from 0."""
    names = confirmed_cells(best)
    order = {g: k for k, g in enumerate(sorted({outcome.draw.generation for outcome in fold.outcomes}))}
    return [
        replace(o, cell=names[o.cell.kind], draw=replace(o.draw, generation=order[o.draw.generation]))
        for o in fold.outcomes
    ]


def write_choices(cells: Sequence[Cell]) -> str:
    """What each fold chose: ``Fold 1 chose topics=16 at share 0.75; fold 2 chose topics=4 at share 0.5``."""
    names = [cell.name for cell in cells]
    if len(set(names)) == 1 and len(cells) > 1:
        return f"Every fold chose {names[0]}."
    return f"Fold {'; fold '.join(f'{number} chose {name}' for number, name in enumerate(names, start=1))}."


def join_measurements(folds: Sequence[Mapping[str, Measurement]]) -> dict[str, Measurement]:
    """Each corpus's numbers as means over the folds that have them, in the order of the first fold that has it."""
    joined = {}
    for name in dict.fromkeys(chain(*folds)):
        found = [fold[name] for fold in folds if name in fold]
        metrics = dict.fromkeys(chain(*(each.values for each in found)))
        values = {m: [each.values[m] for each in found if m in each.values] for m in metrics}
        against = [each.against for each in found]
        joined[name] = (
            found[0]
            if len(found) == 1
            else replace(
                found[0],
                fingerprint=hash_value([each.fingerprint for each in found]),
                against=None if None in against else hash_value(against),
                n=min(each.n for each in found),
                values={metric: join_estimates(estimates) for metric, estimates in values.items()},
            )
        )
    return joined


def join_estimates(folds: Sequence[Estimate]) -> Estimate:
    """The mean of one number over folds; ``settings`` say of how many, and their ends.

    The interval goes from the mean of the lower ends to the mean of the upper ones. Folds share real rows, so their
    errors may move together; at worst the error of the mean is then the mean of the errors, which this covers. The
    p-value is twice the mean of theirs, valid however they depend on each other (Vovk and Wang 2020, Biometrika 107,
    doi 10.1093/biomet/asaa027). ``n`` is the least of theirs. ``settings`` that all share stay; ``over_folds``,
    ``lowest`` and ``highest`` are added.
    """
    first, values = folds[0], [each.value for each in folds]
    lows = [each.low for each in folds if each.low is not None]
    highs = [each.high for each in folds if each.high is not None]
    p_values = [each.p_value for each in folds if each.p_value is not None]
    bounded, count = len(lows) == len(highs) == len(folds), len(folds)
    same = {name: given for name, given in first.settings.items() if all(e.settings.get(name) == given for e in folds)}
    return Estimate(
        value=sum(values) / count,
        low=sum(lows) / count if bounded else None,
        high=sum(highs) / count if bounded else None,
        n=min(each.n for each in folds),
        interval=f"{first.interval}, mean of {count} folds" if bounded and first.interval else first.interval,
        p_value=min(1.0, 2 * sum(p_values) / count) if len(p_values) == count else None,
        settings={**same, "over_folds": count, "lowest": min(values), "highest": max(values)},
    )
