"""Generating at a requested score: the level of a dial whose measured score is nearest to what was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from cuvee.corpus import Corpus
from cuvee.errors import BudgetReached, GenerationError
from cuvee.generate.acceptance import Agrees, Nearest, Refuse
from cuvee.generate.calls import Endpoint, Sampling
from cuvee.generate.client import LLMClient
from cuvee.generate.composition import Pool
from cuvee.generate.dials.protocol import Dial, wanted_slots
from cuvee.generate.ledger import Ledger
from cuvee.generate.level_search import LevelSearch, Target
from cuvee.generate.opened import OpenClient
from cuvee.generate.pools import generate_pools
from cuvee.generate.rounds import Progress
from cuvee.generate.strata import Kind, choose_kind, find_strata
from cuvee.generate.templates import PromptSet
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
    *,
    dial: Dial,
    score: Score,
    target: Target,
    budget_rows: int,
    blocks: Sequence[int] = (0,),
    rows_per_label: int,
    endpoint: Endpoint,
    ledger: Ledger | None = None,
    sampling: Sampling | None = None,
    describe: str = "examples",
    seed: int = 0,
    nearest: Nearest | None = None,
    refuse: Refuse | None = None,
    near_duplicate: float | None = None,
    agrees: Agrees | None = None,
    kind: Kind | None = None,
    sources: Sequence[str] | None = None,
    prompts: PromptSet | None = None,
    keep_truncated: bool = False,
    attempts: int = 6,
    progress: Progress | None = None,
    open_client: OpenClient = LLMClient,
) -> TargetResult:
    """Generate levels of a dial, one after the other, until one scores what is asked for.

    Levels share rows, and every answer is in the ledger: a later level asks for its missing rows only, and the
    same call later, for the same or another target, asks for what is new. A level without a usable row is noted in the
    history and passed over. The endpoint's own budget, once a level is scored, ends the search as ``budget_rows`` does.

    Args:
        train: real training rows.
        dial: whose levels are searched.
        score: of a pool's corpus; the numbers of two levels compare because both have the same rows a label.
        target: the score wanted.
        budget_rows: distinct rows that may be asked for, over all levels tried.
        blocks, rows_per_label, endpoint, ledger, sampling, describe, seed, nearest, refuse, near_duplicate, agrees,
            kind, sources, prompts, keep_truncated, attempts, progress, open_client: as in
            :func:`generate_pools`; without a ledger nothing is kept. Progress starts anew for each level.

    Raises:
        ConfigError, EndpointError: as in :func:`generate_pools`.
        GenerationError: no level that was tried could be scored.
        ValueError: the budget does not reach the first level.
    """
    search, history, pools = LevelSearch(target, len(dial.levels)), list[Tried](), dict[int, Pool]()
    spent, labels = "", list(find_strata(train, choose_kind(train, kind, sources), sources))
    with ExitStack() as stack:
        kept = ledger if ledger is not None else stack.enter_context(Ledger())
        while (rank := search.next_rank()) is not None:
            level = dial.levels[rank]
            names = [tried.level.name for tried in history]
            rows = _count_rows(dial, labels, blocks, rows_per_label, [*names, level.name])
            if rows > budget_rows:
                if not history:
                    raise ValueError(f"budget_rows {budget_rows!r}; level {level.key} alone needs {rows}")
                spent = f"the budget of {budget_rows} rows does not reach {level.key} ({rows} rows in all)"
                break
            try:
                (pool,) = generate_pools(
                    train,
                    dial=dial,
                    levels=[level.name],
                    blocks=blocks,
                    rows_per_label=rows_per_label,
                    endpoint=endpoint,
                    ledger=kept,
                    sampling=sampling or Sampling(),
                    describe=describe,
                    seed=seed,
                    nearest=nearest,
                    refuse=refuse,
                    near_duplicate=near_duplicate,
                    agrees=agrees,
                    kind=kind,
                    sources=sources,
                    prompts=prompts,
                    keep_truncated=keep_truncated,
                    attempts=attempts,
                    progress=progress,
                    open_client=open_client,
                )
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


def _count_rows(
    dial: Dial, labels: Sequence[str], blocks: Sequence[int], rows_per_label: int, levels: Sequence[str]
) -> int:  # fmt: skip
    """Distinct rows that these levels ask for together."""
    in_order = [level.name for level in dial.levels if level.name in levels]
    batches = dial.batches(labels, blocks=blocks, rows_per_label=rows_per_label, levels=in_order)
    return len(wanted_slots(batches))


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
