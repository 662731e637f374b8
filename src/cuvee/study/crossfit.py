"""Cross-fitting: where real rows are too few to lock a test, every row is held out in one of several folds.

Each fold is a study of its own: the rows of the other folds are its real rows, split again into train and validation,
and its own rows are its locked test. So its LLM sees no row that it holds out, and it chooses its blend without them.
Here folds are opened; :mod:`cuvee.study.joining` joins what their trials say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from cuvee.config import EndpointGenerator, FileGenerator, StudyConfig
from cuvee.config.generators import BudgetConfig
from cuvee.corpus import Corpus, LockedTest, Split, normalise_text, number_folds, split_corpus
from cuvee.errors import InputError, RunFolderMismatch
from cuvee.execute import Stages
from cuvee.store import RunFolder
from cuvee.study.setup import RealData, Study, largest_size, prepare_study, read_real, settle_study

FILE = "fold.json"
"""Of the run folder of a fold other than the first: which it is."""


class _Number(TypedDict):
    fold: int
    of: int


_NUMBER = TypeAdapter(_Number)


@contextmanager
def open_folds(
    config: StudyConfig, folder: RunFolder, stages: Stages, real: Corpus | None = None
) -> Iterator[list[Study]]:
    """The study, prepared; with ``split.crossfit`` one study for each fold, the first of them in ``folder`` itself.

    The folds after the first lie in ``folds/2`` and so on. Such a folder opened for itself is that one fold.

    Raises:
        InputError, ConfigError, RunFolderMismatch, RunFolderBusy, MissingDependency: before anything is spent.
    """
    count = config.split.crossfit
    if count is None:
        yield [prepare_study(config, folder, stages, real)]
        return
    with ExitStack() as held:
        with stages.stage("prepare", "rows") as progress:
            data = read_real(config, real)
            _check_validation(data)
            splits = split_folds(config, data, count)
            shared = share_budget(config, count)
            if shared != config:
                stages.listener.noted(f"each of {count} folds may spend one part in {count} of generator.budget")
            alone = _read_number(folder, count)
            numbers = range(1, count + 1) if alone is None else [alone]
            studies = []
            for number in numbers:
                own = folder
                if number != numbers[0]:
                    own = held.enter_context(RunFolder(folder.path / "folds" / str(number)))
                made = settle_study(
                    shared,
                    own,
                    stages,
                    data=data,
                    split=splits[number - 1],
                    whole=config,
                    fold=number,
                )
                if number > 1:
                    own.save_text(FILE, json.dumps({"fold": number, "of": count}))
                studies.append(made)
                progress(len(studies), len(numbers))
        yield studies


def split_folds(config: StudyConfig, data: RealData, count: int) -> list[Split]:
    """For each fold train and validation of the rows outside it, with its own rows as the locked test.

    Raises:
        InputError: too few rows, naming the fold.
    """
    fold_of = number_folds(data.rows, count, seed=config.seed, together=data.together)
    splits = []
    for fold in range(count):
        outside = np.flatnonzero(fold_of != fold)
        try:
            split = split_corpus(
                data.rows.take(outside),
                test=0,
                validation=0 if "validation" in data.parts else config.split.validation,
                rows_per_label=largest_size(config),
                seed=config.seed,
                together=None if data.together is None else data.together[outside],
            )
        except InputError as exc:
            raise InputError(f"fold {fold + 1} of split.crossfit {count}: {exc}") from exc
        splits.append(
            Split(
                train=split.train,
                validation=data.parts.get("validation", split.validation),
                test=LockedTest(data.rows.take(np.flatnonzero(fold_of == fold))),
                unused=split.unused,
            )
        )
    return splits


def share_budget(config: StudyConfig, folds: int) -> StudyConfig:
    """The config of one fold: its part of what may be spent on endpoints."""

    def part(budget: BudgetConfig) -> BudgetConfig:
        return BudgetConfig(
            requests=None if budget.requests is None else budget.requests // folds,
            tokens=None if budget.tokens is None else budget.tokens // folds,
            cost=None if budget.cost is None else budget.cost / folds,
        )

    generator = config.generator
    if not isinstance(generator, EndpointGenerator):
        return config
    generator = generator.model_copy(update={"budget": part(generator.budget)})
    return config.model_copy(update={"generator": generator})


def find_fold(study: Study) -> int | None:
    """Which fold a study is, from 1; None where it is not cross-fitted."""
    count = study.config.split.crossfit
    return None if count is None else _read_number(study.folder, count) or 1


def _read_number(folder: RunFolder, count: int) -> int | None:
    remedy = "a run of the whole study, not of this fold alone, writes it again"
    kept = folder.read_json(FILE, _NUMBER, remedy)
    if kept is None:
        return None
    if kept["of"] != count:
        raise RunFolderMismatch(
            f"{folder.path}: this is fold {kept['fold']} of {kept['of']}, and split.crossfit is {count}; "
            "choose a new name or --out"
        )
    return kept["fold"]


def _check_validation(data: RealData) -> None:
    """Refuse a validation file with rows that folds hold out: their choices would know these rows."""
    given = data.parts.get("validation")
    if given is None:
        return
    known = set(_inputs(given))
    shared = sum(each in known for each in _inputs(data.rows))
    if shared:
        raise InputError(
            f"data.validation has the texts of {shared} rows of data.real, which split.crossfit holds out; take them "
            "out of one of the two files, or leave data.validation out"
        )


def _inputs(corpus: Corpus) -> list[tuple[str, str | None]]:
    return [(normalise_text(text), context) for text, context in zip(corpus.texts, corpus.contexts, strict=True)]


def write_scope(study: Study, folds: int) -> str:
    """What a reader of cross-fitted advice must know."""
    scope = (
        f"Cross-fitted in {folds} folds, each of which generated and chose without the rows that it held out; trials "
        "on validation are joined over all folds. Measured diversity is the mean over folds, with their range; "
        "requests, tokens, cost and the log of held-out reads are those of all folds. The rows and the recommended "
        "blend shown are those of the first fold."
    )
    if isinstance(study.config.generator, FileGenerator):
        scope += " Whether the writer of ready-made pools was shown rows that are held out here is not known."
    return scope
