"""What every task comes down to: judged items, and scores that are functions of how often each item counts.

Because a score takes weights, one table of judged items gives its value, its bootstrap interval, and, with the items
of two predictors in one table, their paired difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import IncomparableError
from cuvee.fingerprint import derive_rng
from cuvee.records import Codes, Estimate, Floats, Scores
from cuvee.records.measurement import Shown, value_lines, value_table
from cuvee.similarity import wilson_interval

RESAMPLES = 1000  # bootstrap resamples behind an interval
PAIRED_RESAMPLES = 2000
PERMUTATIONS = 4000
_EXACT_GROUPS = 12  # up to which all swaps are tried: 4096
_CLOSE = 1e-12  # two differences that are equal but for rounding
_BLOCK = 4_000_000  # weights held at once
# Task -> the scores that single items have, so that trials can be compared by them; the first unless one is named.
ITEM_SCORES: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "generation": ("token_f1", "rouge_l", "exact_match", "token_probability"),
    "retrieval": ("ndcg@10", "mrr@10", "recall@1", "recall@10", "recall@100"),
}
_FRACTIONS = ("accuracy", "exact_match")  # the scores that are the fraction of items that are right
# What is known of each item, by name, shape (n,) each.
Columns = Mapping[str, NDArray[np.float64] | NDArray[np.object_]]
# One number for each row of weights (shape (b, n), how often an item counts), shape (b,).
Score = Callable[[Columns, Floats], Floats]
WeightedScore = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """``n`` items that one predictor was judged on.

    Attributes:
        keys: what identifies each item: two predictors pair only on the same keys.
        groups: which items belong together, codes from 0, shape (n,).
        correct: whether each item was answered right, shape (n,).
        columns: what the scores are made of, and what single items score, from 0 to 1, by the names in ``graded``.
        scores: every score by its name.
        graded: the columns that trials can be compared by.
        labels: those that a classifier knows.
        written: what a model wrote for each item.
    """

    keys: tuple[str, ...]
    groups: Codes
    correct: NDArray[np.bool_]
    columns: Columns
    scores: Mapping[str, Score]
    graded: tuple[str, ...]
    labels: tuple[str, ...] = ()
    written: tuple[str, ...] = ()

    def weighted(self) -> dict[str, WeightedScore]:
        """Every score as a function of weights alone."""
        return {name: partial(score, self.columns) for name, score in self.scores.items()}


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
    named = judged.graded[0] if score is None else score
    if named not in judged.graded:
        raise ValueError(f"score is {score!r}; valid: {', '.join(judged.graded)}")
    once = np.ones((1, n))
    found = {name: float(score(once)[0]) for name, score in scores.items()}
    wilson = {name for name in _FRACTIONS if groups == n}
    wilson |= {name for name in judged.graded if found.get(name) in (0.0, 1.0)}
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
    items = None if named == "accuracy" else judged.columns[named].astype(np.float64)
    together = None if groups == n else judged.groups
    return Scores(
        n=n, values=values, correct=judged.correct, graded=items, score=named, groups=together, written=judged.written
    )


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


def mean_of(name: str) -> Score:
    """The score that is the mean of a column."""

    def mean(columns: Columns, weights: Floats) -> Floats:
        return np.asarray((weights @ columns[name]) / weights.sum(axis=1))

    return mean


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


# --- two predictors on the same items: the difference of every score, its interval and its p-value ---
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PairedScores(Shown):
    """The first predictor's scores less the second's, on ``n`` items in ``groups`` groups.

    Each Estimate holds the difference, its 95% interval and its p-value; its settings hold the two scores under
    ``first`` and ``second``.
    """

    n: int
    groups: int
    values: Mapping[str, Estimate]

    def __str__(self) -> str:
        return "\n".join([f"First less second on {self.n} items", *value_lines(self.values)])

    def _repr_html_(self) -> str:
        return value_table(f"First less second on {self.n} items", self.values)


def compare_predictors(first: Judged, second: Judged, *, seed: int = 0) -> PairedScores:
    """Every score of ``first`` less that of ``second`` on the same items.

    The interval is the paired percentile bootstrap: whole groups are drawn, with both predictors' answers. The
    p-value is that of the sign-flip permutation test: under the null hypothesis it does not matter which predictor
    gave which answer, so the answers of whole groups are swapped (all ways to do so up to 12 groups, else 4,000
    random ones, the identity counted with them). For accuracy without groups this is McNemar's exact test. The
    p-values are of single scores, not adjusted for there being several.

    Args:
        first, second: from ``judge_model`` on the same rows, of one task.
        seed: of resamples and swaps.

    Raises:
        IncomparableError: not the same items.
    """
    if first.keys != second.keys:
        raise IncomparableError("the two predictors were not judged on the same rows; give both the same data")
    both = [name for name in first.columns if name in second.columns]
    columns = {name: np.concatenate([first.columns[name], second.columns[name]]) for name in both}
    scores = {name: partial(score, columns) for name, score in first.scores.items() if name in second.scores}
    if "tokens" in columns and not np.array_equal(first.columns["tokens"], second.columns["tokens"]):
        del scores["perplexity"]  # it compares models of one tokenizer
    n, groups = len(first.groups), int(first.groups.max()) + 1
    ones, none = np.ones((1, n)), np.zeros((1, n))
    sides = {name: (float(s(_pair(ones, none))[0]), float(s(_pair(none, ones))[0])) for name, s in scores.items()}
    resamples = resample_groups(first.groups, derive_rng(seed, "evaluate", "paired"), PAIRED_RESAMPLES, 2 * n)
    drawn = collect_scores({name: partial(_resampled_difference, s) for name, s in scores.items()}, resamples)
    total, exact = (2**groups, True) if groups <= _EXACT_GROUPS else (PERMUTATIONS, False)
    swaps = _swap_groups(first.groups, derive_rng(seed, "evaluate", "swaps"), total, exact=exact)
    swapped = collect_scores({name: partial(_swapped_difference, s) for name, s in scores.items()}, swaps)
    kind = f"all {total} swaps" if exact else f"{total} random swaps"
    values = {}
    for name, (one, other) in sides.items():
        low, high = percentiles(drawn[name])
        values[name] = Estimate(
            value=one - other,
            low=low,
            high=high,
            n=n,
            interval=f"paired bootstrap, {PAIRED_RESAMPLES} resamples",
            p_value=float((np.abs(swapped[name]) >= abs(one - other) - _CLOSE).mean()),
            settings={"first": one, "second": other, "groups": groups, "test": f"permutation, {kind}"},
        )
    return PairedScores(n=n, groups=groups, values=values)


def _swap_groups(groups: Codes, rng: np.random.Generator, total: int, *, exact: bool) -> Iterator[Floats]:
    """Blocks of swaps, 1 for the items whose answers are swapped, by group; the identity comes first."""
    count, done = int(groups.max()) + 1, 0
    for size in block_sizes(total, 2 * len(groups)):
        if exact:
            numbers = np.arange(done, done + size)
            swaps = ((numbers[:, None] >> np.arange(count)) & 1).astype(np.float64)
        else:
            swaps = rng.integers(0, 2, size=(size, count)).astype(np.float64)
            if done == 0:
                swaps[0] = 0.0
        done += size
        yield swaps[:, groups]


def _resampled_difference(score: WeightedScore, weights: Floats) -> Floats:
    none = np.zeros_like(weights)
    return score(_pair(weights, none)) - score(_pair(none, weights))


def _swapped_difference(score: WeightedScore, away: Floats) -> Floats:
    return score(_pair(1.0 - away, away)) - score(_pair(away, 1.0 - away))


def _pair(first: Floats, second: Floats) -> Floats:
    """Weights of the first predictor's items beside those of the second's."""
    return np.concatenate([first, second], axis=1)
