"""What every task comes down to: judged items, and scores that are functions of how often each item counts.

Because a score takes weights, one table of judged items gives its value, its bootstrap interval, and, with the items
of two predictors in one table, their paired difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from cuvee.fingerprint import derive_rng
from cuvee.records import Estimate, Scores

RESAMPLES = 1000
"""Bootstrap resamples behind an interval."""
_BLOCK = 4_000_000  # weights held at once
_Z = 1.959963984540054  # 97.5% point of the normal distribution
Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
ITEM_SCORES: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "generation": ("token_f1", "rouge_l", "exact_match", "token_probability"),
    "retrieval": ("ndcg@10", "mrr@10", "recall@1", "recall@10", "recall@100"),
}
"""Task -> the scores that single items have, so that trials can be compared by them; the first unless one is named."""
WeightedScore = Callable[[Floats], Floats]
"""One number for each row of weights (shape (b, n), how often an item counts), shape (b,)."""


class Judged(Protocol):
    """``n`` items that one predictor was judged on."""

    @property
    def keys(self) -> tuple[str, ...]:
        """What identifies each item: two predictors pair only on the same keys."""

    @property
    def groups(self) -> Codes:
        """Which items belong together, codes from 0, shape (n,)."""

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each item was answered right, shape (n,)."""

    @property
    def fractions(self) -> tuple[str, ...]:
        """The scores that are the fraction of items for which ``correct`` holds."""

    @property
    def unit_means(self) -> tuple[str, ...]:
        """The scores that are means of numbers from 0 to 1, fractions among them."""

    @property
    def per_item(self) -> Mapping[str, Floats]:
        """What single items score, from 0 to 1, shape (n,): by the names in ``ITEM_SCORES``."""

    def weighted(self) -> Mapping[str, WeightedScore]:
        """Every score by its name."""

    def joined(self, other: Self) -> Self:
        """These items, then the other's: the same items judged for another predictor."""


def score_items(judged: Judged, *, intervals: bool, seed: int, score: str | None = None) -> Scores:
    """Every score with its 95% interval.

    ``score`` names what trials are to be compared by, one of the task's ``ITEM_SCORES``; None takes the first.

    A fraction of items that do not belong together has the Wilson interval. Other scores have the percentile
    bootstrap, which draws whole groups. A mean that is exactly 0 or 1 would have a bootstrap of no width; it has the
    Wilson interval of as many items as there are groups. The intervals speak of the items alone, not of training or
    generation draws.

    Raises:
        ValueError: single items have no such score.
    """
    n, groups = len(judged.correct), int(judged.groups.max()) + 1
    scores = judged.weighted()
    graded = judged.per_item
    named = next(iter(graded)) if score is None else score
    if named not in graded:
        raise ValueError(f"score is {score!r}; valid: {', '.join(graded)}")
    once = np.ones((1, n))
    found = {name: float(score(once)[0]) for name, score in scores.items()}
    wilson = {name for name in judged.fractions if groups == n}
    wilson |= {name for name in judged.unit_means if found[name] in (0.0, 1.0)}
    drawn = {name: score for name, score in scores.items() if name not in wilson}
    resamples = resample_groups(judged.groups, derive_rng(seed, "evaluate", "bootstrap"), RESAMPLES, len(judged.groups))
    draws = collect_scores(drawn, resamples) if intervals else {}
    values = {}
    for name, value in found.items():
        if not intervals:
            values[name] = Estimate(value=value, n=n)
        elif name in wilson:
            low, high = wilson_interval(value, groups)
            values[name] = Estimate(value=value, low=low, high=high, n=n, interval="wilson")
        else:
            low, high = percentiles(draws[name])
            kind = "bootstrap" if groups == n else f"bootstrap of {groups} groups"
            values[name] = Estimate(value=value, low=low, high=high, n=n, interval=f"{kind}, {RESAMPLES} resamples")
    items = None if named == "accuracy" else graded[named]
    return Scores(n=n, values=values, correct=judged.correct, graded=items, score=named)


def collect_scores(scores: Mapping[str, WeightedScore], blocks: Iterable[Floats]) -> dict[str, Floats]:
    """Each score under every row of all blocks of weights, one after another."""
    found: dict[str, list[Floats]] = {name: [] for name in scores}
    for weights in blocks:
        for name, score in scores.items():
            found[name].append(score(weights))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def resample_groups(groups: Codes, rng: np.random.Generator, resamples: int, width: int) -> Iterator[Floats]:
    """Weights of bootstrap resamples of whole groups, in blocks that fit in memory at ``width`` weights a resample."""
    count = int(groups.max()) + 1
    for size in block_sizes(resamples, width):
        yield rng.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)[:, groups]


def block_sizes(rows: int, width: int) -> list[int]:
    """How to cut ``rows`` rows of ``width`` weights into blocks that fit in memory."""
    most = max(1, _BLOCK // max(1, width))
    return [min(most, rows - start) for start in range(0, rows, most)]


def percentiles(draws: Floats) -> tuple[float, float]:
    """The 2.5% and 97.5% points."""
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def wilson_interval(fraction: float, n: int) -> tuple[float, float]:
    """95% interval of a fraction of ``n`` items (Wilson, JASA 22, 1927)."""
    middle = (fraction + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * float(np.sqrt(fraction * (1 - fraction) / n + _Z**2 / (4 * n**2)))
    # rounding would leave 3e-17 where the end is 0
    return (max(0.0, middle - half) if fraction > 0 else 0.0), (min(1.0, middle + half) if fraction < 1 else 1.0)


def weighted_mean(values: Floats | NDArray[np.bool_], weights: Floats) -> Floats:
    """Mean of ``values`` (n,) under each row of ``weights`` (b, n), shape (b,)."""
    out: Floats = (weights @ values) / weights.sum(axis=1)
    return out


def code_groups(names: Sequence[str] | None, n: int) -> Codes:
    """Codes of group names, in the order of their first item; without names every item is its own group.

    Raises:
        ValueError: not one name an item.
    """
    if names is None:
        return np.arange(n, dtype=np.int64)
    if len(names) != n:
        raise ValueError(f"groups has {len(names)} entries for {n} items; give one each")
    codes: dict[str, int] = {}
    return np.array([codes.setdefault(name, len(codes)) for name in names], dtype=np.int64)
