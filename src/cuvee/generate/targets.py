"""Generating at a requested score: the level of a dial whose measured score is nearest to what was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cuvee.corpus import Corpus
from cuvee.errors import BudgetReached, GenerationError
from cuvee.generate.composition import Pool
from cuvee.generate.dials.protocol import Dial, wanted_slots
from cuvee.generate.ledger import Ledger
from cuvee.generate.level_search import LevelSearch, Target
from cuvee.generate.opened import OpenedLLM
from cuvee.generate.pools import GenerationSpec, generate_pools
from cuvee.generate.rounds import Progress
from cuvee.records import Level

__all__ = ["LevelSearch", "Score", "Target", "TargetResult", "Tried", "generate_to_target"]

Score = Callable[[Corpus], float]
"""A number of a corpus, such as its diversity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A level that was generated and scored. ``score`` is None where it could not be, and ``note`` says why.

    ``rows`` counts the distinct rows asked for up to and with this level.
    """

    level: Level
    score: float | None
    rows: int
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetResult:
    """The pool nearest to the target, the levels that were tried, in order, and whether the target was reached.

    ``cut_short``: a budget ended the search.
    ``wanted`` is the score asked for: the target's value, or what its quantile came to (None where the
    budget ended before both ends of the dial were tried).
    """

    pool: Pool
    level: Level
    reached: bool
    score: float
    wanted: float | None
    history: tuple[Tried, ...]
    note: str
    cut_short: bool = False


def generate_to_target(
    train: Corpus,
    spec: GenerationSpec,
    dial: Dial,
    llm: OpenedLLM,
    ledger: Ledger,
    *,
    score: Score,
    target: Target,
    progress: Progress | None = None,
) -> TargetResult:
    """Generate levels of a dial, one after the other, until one scores what is asked for.

    Levels share rows, and every answer is in the ledger: a later level asks for its missing rows only, and the
    same call later, for the same or another target, asks for what is new. A level without a usable row is noted in the
    history and passed over. The endpoint's own budget, once a level is scored, ends the search as ``budget_rows`` does.

    Args:
        train: real training rows.
        spec: what is written.
        dial: whose levels are searched.
        llm: what writes.
        ledger: its answers so far; new ones are added.
        score: of a pool's corpus; the numbers of two levels compare because both have the same rows a label.
        target: the score wanted.
        progress: called with (rows so far, rows wanted); it starts anew for each level.

    Raises:
        ConfigError, EndpointError: as in :func:`generate_pools`.
        GenerationError: no level that was tried could be scored.
        ValueError: the budget does not reach the first level.
    """
    search, history, pools = LevelSearch(target, len(dial.levels)), list[Tried](), dict[int, Pool]()
    spent, strata, most = "", list(spec.strata(train)), target.budget_rows
    while (rank := search.next_rank()) is not None:
        level = dial.levels[rank]
        wanted = {level.name, *(tried.level.name for tried in history)}
        in_order = [each.name for each in dial.levels if each.name in wanted]
        rows = len(wanted_slots(spec.batches(dial, strata, in_order)))
        if most is not None and rows > most:
            if not history:
                raise ValueError(f"budget_rows {most!r}; level {level.key} alone needs {rows}")
            spent = f"the budget of {most} rows does not reach {level.key} ({rows} rows in all)"
            break
        try:
            (pool,) = generate_pools(train, spec, dial, llm, ledger, levels=[level.name], progress=progress)
        except BudgetReached as exc:
            if not pools:
                raise
            spent = str(exc)
            break
        except GenerationError as exc:
            history.append(Tried(level=level, score=None, rows=rows, note=str(exc)))
        else:
            pools[rank] = pool
            history.append(_scored(pool, score, rows))
        search.tell(rank, history[-1].score)
    return _result(search, target, dial, pools, history, spent)


def _scored(pool: Pool, score: Score, rows: int) -> Tried:
    found = float(score(pool.corpus))
    if math.isfinite(found):
        return Tried(level=pool.level, score=found, rows=rows, note=pool.note)
    return Tried(level=pool.level, score=None, rows=rows, note=f"its score is {found}")


def _result(
    search: LevelSearch, target: Target, dial: Dial, pools: Mapping[int, Pool], history: Sequence[Tried], spent: str
) -> TargetResult:
    best = search.best
    if best is None:
        why = "; ".join(f"{tried.level.key}: {tried.note}" for tried in history)
        raise GenerationError(f"no level of dial {dial.name!r} could be scored by {target.metric_name} ({why})")
    level, score, wanted = dial.levels[best], search.scores[best], search.wanted
    note = f"{target.metric_name} {target.quantile if wanted is None else wanted:.4g} was asked for; "
    seen = f"best seen {score:.4g} at level {level.name}"
    if search.reached:
        note += f"level {level.name} scores {score:.4g}"
    elif spent:
        note += f"{spent}; {seen}"
    else:
        low, high = min(search.scores.values()), max(search.scores.values())
        finer = "; levels between those tried may reach it" if wanted is not None and low <= wanted <= high else ""
        note += f"this level is out of reach: {seen}; levels tried scored {low:.4g} to {high:.4g}{finer}"
    return TargetResult(
        pool=pools[best],
        level=level,
        reached=search.reached,
        score=score,
        wanted=wanted,
        history=tuple(history),
        note=note,
        cut_short=bool(spent),
    )
