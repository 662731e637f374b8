"""Generating at a requested score: the level of a dial whose measured score is nearest to what was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cuvee.corpus import Corpus
from cuvee.errors import BudgetReached, GenerationError
from cuvee.generate.client import OpenedLLM
from cuvee.generate.dials.slots import Dial
from cuvee.generate.filling import Progress
from cuvee.generate.ledger import Ledger
from cuvee.generate.pools import GenerationSpec, Pool, generate_pools
from cuvee.records import Level

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
        rows = len(spec.slots(dial, strata, in_order))
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


# --- which level to try next on the way to a wanted score. Pure ---
@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a pool should score: a ``value``, or a ``quantile`` of what the dial reaches.

    ``quantile`` 0 is the lower one of the scores of the dial's first and last level, 1 the higher one, 0.5 their mean.
    ``tolerance`` is how far off, in the score's unit, is near enough. ``metric_name`` is for messages. ``budget_rows``
    are the distinct rows that may be asked for, over all levels tried; None sets no bound.

    Raises:
        ValueError: neither or both of value and quantile, or one out of range.
    """

    metric_name: str
    value: float | None = None
    quantile: float | None = None
    tolerance: float
    budget_rows: int | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.quantile is None):
            raise ValueError(f"value {self.value!r} and quantile {self.quantile!r}; give exactly one of them")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"value {self.value!r}; must be a finite number")
        if self.quantile is not None and not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile {self.quantile!r}; must be from 0 to 1")
        if not 0 <= self.tolerance < math.inf:
            raise ValueError(f"tolerance {self.tolerance!r}; must be 0 or more")

    def between(self, first: float, last: float) -> float:
        """The score that is asked for, given those of the dial's end levels."""
        if self.value is not None:
            return self.value
        low, high = min(first, last), max(first, last)
        return low + (self.quantile or 0.0) * (high - low)


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

    @property
    def wanted(self) -> float | None:
        """The score asked for; None while it is not known, since a quantile needs both ends tried."""
        if self._target.value is not None:
            return self._target.value
        if not self.scores or not {0, self._last} <= self._tried:
            return None
        return self._target.between(self.scores[min(self.scores)], self.scores[max(self.scores)])

    @property
    def best(self) -> int | None:
        """The rank of the level nearest to the target, the lower one of two; None while nothing is scored."""
        wanted = self.wanted
        if wanted is None:
            return min(self.scores, default=None)
        return min(self.scores, key=lambda rank: (abs(self.scores[rank] - wanted), rank), default=None)

    @property
    def reached(self) -> bool:
        """Whether the best level is near enough."""
        best, wanted = self.best, self.wanted
        return best is not None and wanted is not None and abs(self.scores[best] - wanted) <= self._target.tolerance

    def next_rank(self) -> int | None:
        """The level to try next; None when the target is reached or nothing near it is left to try."""
        if self.reached:
            return None
        for end in (0, self._last):
            if end not in self._tried:
                return end
        middle = self._middle()
        return middle if middle is not None else self._neighbour()

    def _middle(self) -> int | None:
        """The middle of two tried levels next to each other in rank, with the target between their scores."""
        wanted, ranks = self.wanted, sorted(self.scores)
        for low, high in pairwise(ranks):
            between = [rank for rank in range(low + 1, high) if rank not in self._tried]
            if between and wanted is not None and (self.scores[low] - wanted) * (self.scores[high] - wanted) <= 0:
                return min(between, key=lambda rank: abs(2 * rank - low - high))
        return None

    def _neighbour(self) -> int | None:
        """The untried level closest in rank to the best one, on either side, that no tried one separates from it."""
        best = self.best
        if best is None:
            return next((rank for rank in range(self._last + 1) if rank not in self._tried), None)
        return next((r for r in (best - 1, best + 1) if 0 <= r <= self._last and r not in self._tried), None)
