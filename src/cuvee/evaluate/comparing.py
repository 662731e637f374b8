"""Two predictors on the same items: the difference of every score, its interval and its p-value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from cuvee.errors import IncomparableError
from cuvee.evaluate.judged import (
    Codes,
    Floats,
    Judged,
    WeightedScore,
    block_sizes,
    collect_scores,
    percentiles,
    resample_groups,
)
from cuvee.fingerprint import derive_rng
from cuvee.records import Estimate
from cuvee.records.measurement import value_lines, value_table

PAIRED_RESAMPLES = 2000
PERMUTATIONS = 4000
_EXACT_GROUPS = 12  # up to which all swaps are tried: 4096
_CLOSE = 1e-12  # two differences that are equal but for rounding
J = TypeVar("J", bound=Judged)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedScores:
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


def compare_predictors(first: J, second: J, *, seed: int = 0) -> PairedScores:
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
    if type(first) is not type(second) or first.keys != second.keys:
        raise IncomparableError("the two predictors were not judged on the same rows; give both the same data")
    joint = first.joined(second)
    scores = joint.weighted()
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
