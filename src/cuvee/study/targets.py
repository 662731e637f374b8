"""Pools at a requested, measured diversity."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from pydantic import TypeAdapter

from cuvee.config import DialConfig, TargetConfig
from cuvee.corpus import Corpus
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import ConfigError
from cuvee.generate import Dial, Target, TargetResult
from cuvee.generate.dials import Slot, chosen_slots, wanted_slots
from cuvee.generate.targets import Score
from cuvee.measure import Subject, choose_metrics, draw_rows
from cuvee.records import Level
from cuvee.study.setup import Study
from cuvee.study.writing import study_writing

FILE = "targets.json"
"""Of the run folder: for each dial with a target the level found, and what was tried."""
MATCHED = 0.9
"""Of a pool's rows, all levels are measured at so many: each may miss some, and diversity depends on the number."""


def make_score(
    metric: str, *, rows: int, encoder: Encoder | None = None, against: Corpus | None = None, seed: int = 0
) -> Score:
    """A function that measures one metric on ``rows`` rows of a corpus, the same number for every corpus.

    It gives nan for a corpus of fewer rows, and where the metric is not defined: neither compares with the others.

    Args:
        metric: a name in METRICS, or ``module:Name``.
        rows: whole groups first, in a seeded order.
        encoder: for metrics of vectors; None loads the default one.
        against: the real training rows, for metrics that need them.
        seed: of the rows.

    Raises:
        ConfigError: no such metric.
        ValueError: ``rows`` is below 1.
    """
    if rows < 1:
        raise ValueError(f"rows {rows!r}; must be 1 or more")
    (chosen,) = choose_metrics([metric])
    found = load_encoder() if encoder is None and "vectors" in chosen.needs else encoder

    def score(corpus: Corpus) -> float:
        if len(corpus) < rows:
            return math.nan
        subject = Subject(corpus=corpus, against=against, encoder=found, seed=seed)
        estimate = chosen.compute(draw_rows(subject, rows))
        return math.nan if estimate is None else estimate.value

    return score


def make_target(settings: TargetConfig) -> Target:
    """What is searched for."""
    return Target(
        metric_name=settings.metric,
        value=settings.value,
        quantile=settings.quantile,
        tolerance=settings.near_enough,
        budget_rows=settings.rows,
    )


def check_target(study: Study, settings: DialConfig, dial: Dial) -> None:
    """Check a dial's target, if it has one, before anything is asked.

    Raises:
        ConfigError: no such metric, or ``rows`` that do not reach the first level of the dial.
    """
    target = settings.target
    if target is None:
        return
    choose_metrics([target.metric])
    draws = min(settings.draws or study.config.draws.generation, study.config.draws.generation)
    needed = len(_first_slots(study, dial, range(draws)))
    if target.rows is not None and target.rows < needed:
        raise ConfigError(f"target.rows is {target.rows}; level {dial.levels[0].key} alone needs {needed} rows")


def known_level(study: Study, dial: Dial, key: str) -> Level | None:
    """The level that an earlier search with the same key ended with, or None."""
    entry = _read_kept(study).get(dial.name)
    if not isinstance(entry, Mapping) or entry.get("key") != key:
        return None
    return next((level for level in dial.levels if level.name == entry.get("level")), None)


class Search(Protocol):
    """Generates levels of one dial until one scores what is wanted: ``generate_to_target``, all else given."""

    def __call__(self, score: Score, target: Target) -> TargetResult:
        """What the search ended with."""


def reach_target(
    study: Study, target: TargetConfig, dial: Dial, *, blocks: Sequence[int], key: str, search: Search
) -> TargetResult:
    """Search the dial's levels for the target, tell what came of it, and keep the level in the run folder.

    Args:
        study: the prepared study.
        target: the diversity wanted.
        dial: whose levels are the candidates.
        blocks: numbers of the generation draws, which are measured together.
        key: of everything that determines the result, for :func:`known_level`.
        search: generates.

    Raises:
        ConfigError, EndpointError, GenerationError: as in :func:`~cuvee.generate.generate_to_target`.
    """
    full = len(chosen_slots(_first_slots(study, dial, blocks)))
    score = make_score(
        target.metric,
        rows=matched_rows(full),
        encoder=study.encoder,
        against=study.train,
        seed=study.config.seed,
    )
    result = search(score, make_target(target))
    _keep(study, dial, key, result)
    study.stages.listener.noted(f"{dial.name}: {result.note}")
    return result


def matched_rows(rows: int) -> int:
    """At how many rows pools of ``rows`` rows are measured, so that one that misses a few still compares."""
    return max(1, int(MATCHED * rows))


def _first_slots(study: Study, dial: Dial, blocks: Sequence[int]) -> Sequence[Slot]:
    """What the dial's first level asks for."""
    wanted, levels = study_writing(study), [dial.levels[0].name]
    slots = wanted_slots(dial, list(wanted.strata), blocks=blocks, rows_per_label=wanted.rows, levels=levels)
    return list(slots.values())


def _keep(study: Study, dial: Dial, key: str, result: TargetResult) -> None:
    entry = {
        "key": "" if result.cut_short else key,  # with a larger budget the search goes on
        "level": result.level.name,
        "reached": result.reached,
        "score": result.score,
        "wanted": result.wanted,
        "note": result.note,
        "tried": [{"level": t.level.name, "score": t.score, "rows": t.rows, "note": t.note} for t in result.history],
    }
    study.folder.save_text(FILE, json.dumps({**_read_kept(study), dial.name: entry}, indent=1, ensure_ascii=False))


def _read_kept(study: Study) -> Mapping[str, object]:
    remedy = "the search is made again from the answers in ledger.sqlite"
    return study.folder.read_json(FILE, TypeAdapter(dict[str, object]), remedy) or {}
