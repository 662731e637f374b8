"""Which level to try next on the way to a wanted score. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise


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
