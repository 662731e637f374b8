"""Generating at a requested score: the level of a dial whose measured score is nearest to what was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from cuvee.corpus import Corpus
from cuvee.errors import BudgetReached, GenerationError
from cuvee.generate.client import OpenedLLM
from cuvee.generate.dials.slots import Dial
from cuvee.generate.ledger import Ledger
from cuvee.generate.pools import GenerationSpec, Pool, generate_pools
from cuvee.records import Level, Progress

Score = Callable[[Corpus], float]  # A number of a corpus, such as its diversity


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
    """

    pool: Pool
    reached: bool
    score: float
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
        progress: called with (rows so far, rows wanted); it starts again for each level.

    Raises:
        ConfigError, EndpointError: as in ``generate_pools``.
        GenerationError: no level that was tried could be scored, or the budget reaches none.
    """
    search, history, pools = LevelSearch(target, len(dial.levels)), list[Tried](), dict[int, Pool]()
    spent, strata, most = "", list(spec.strata(train)), target.budget_rows
    while (rank := search.next_rank()) is not None:
        level = dial.levels[rank]
        wanted = {level.name, *(tried.level.name for tried in history)}
        rows = len(spec.slots(dial, strata, [each.name for each in dial.levels if each.name in wanted]))
        if most is not None and rows > most:
            spent = f"the budget of {most} rows does not reach {level.key} ({rows} rows in all)"
            break
        score_of, note = None, ""
        try:
            (pool,) = generate_pools(train, spec, dial, llm, ledger, levels=[level.name], progress=progress)
        except BudgetReached as exc:
            if not pools:
                raise
            spent = str(exc)
            break
        except GenerationError as exc:
            note = str(exc)
        else:
            pools[rank], note, score_of = pool, pool.note, float(score(pool.corpus))
            if not math.isfinite(score_of):
                score_of, note = None, f"its score is {score_of}"
        history.append(Tried(level=level, score=score_of, rows=rows, note=note))
        search.tell(rank, score_of)
    if search.best is None:
        why = "; ".join(f"{tried.level.key}: {tried.note}" for tried in history)
        raise GenerationError(f"no level of dial {dial.name!r} could be scored by {target.metric_name} ({why})")
    pool = pools[search.best]
    return TargetResult(
        pool=pool,
        reached=search.reached,
        score=search.scores[search.best],
        history=tuple(history),
        note=_note(search, target, pool.level.name, spent),
        cut_short=bool(spent),
    )


def _note(search: LevelSearch, target: Target, level: str, spent: str) -> str:
    asked = f"{target.metric_name} {target.value:.4g} was asked for; "
    found = "" if search.best is None else f"{search.scores[search.best]:.4g}"
    if search.reached:
        return f"{asked}level {level} scores {found}"
    seen = f"best seen {found} at level {level}"
    if spent:
        return f"{asked}{spent}; {seen}"
    low, high = min(search.scores.values()), max(search.scores.values())
    finer = "; levels between those tried may reach it" if low <= target.value <= high else ""
    return f"{asked}this level is out of reach: {seen}; levels tried scored {low:.4g} to {high:.4g}{finer}"


# --- which level to try next on the way to a wanted score. Pure ---
@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a pool should score.

    ``tolerance`` is how far off, in the score's unit, is near enough. ``metric_name`` is for messages. ``budget_rows``
    are the distinct rows that may be asked for, over all levels tried; None sets no bound.
    """

    metric_name: str
    value: float
    tolerance: float
    budget_rows: int | None = None


class LevelSearch:
    """Chooses the next level to try from the scores so far: both ends, bisection, then the best one's neighbours. Pure.

    Scores are expected to rise or to fall with the level, but nothing relies on it: bisection leads to a level whose
    neighbours are tried too, for as long as one of them is nearer. So on a monotone dial the nearest level is found,
    in about log2(levels) + 4 tries.

    Args:
        target: what is asked for.
        count: levels of the dial.
    """

    def __init__(self, target: Target, count: int) -> None:
        self._target = target
        self._last = count - 1
        self._tried: set[int] = set()
        self.scores: dict[int, float] = {}

    def tell(self, rank: int, score: float | None) -> None:
        """A level was tried; None says that it could not be scored."""
        self._tried.add(rank)
        if score is not None:
            self.scores[rank] = score

    def _distance(self, rank: int) -> float:
        return abs(self.scores[rank] - self._target.value)

    @property
    def best(self) -> int | None:
        """The rank of the level nearest to the target, the lower one of two; None while nothing is scored."""
        return min(self.scores, key=lambda rank: (self._distance(rank), rank), default=None)

    @property
    def reached(self) -> bool:
        """Whether the best level is near enough."""
        return self.best is not None and self._distance(self.best) <= self._target.tolerance

    def next_rank(self) -> int | None:
        """The level to try next; None when the target is reached or nothing near it is left to try."""
        if self.reached:
            return None
        for end in (0, self._last):
            if end not in self._tried:
                return end
        # the middle of two tried levels next to each other in rank, with the target between their scores
        wanted, best = self._target.value, self.best
        for low, high in pairwise(sorted(self.scores)):
            between = [rank for rank in range(low + 1, high) if rank not in self._tried]
            if between and (self.scores[low] - wanted) * (self.scores[high] - wanted) <= 0:
                return min(between, key=lambda rank: abs(2 * rank - low - high))
        # else the untried neighbours of the best one
        near = range(self._last + 1) if best is None else (best - 1, best + 1)
        return next((rank for rank in near if 0 <= rank <= self._last and rank not in self._tried), None)
