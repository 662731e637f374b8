"""Selections at rising levels of diversity, or at a value that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cuvee.mix.select.greedy import (
    compact_rows,
    greedy_dcscore,
    greedy_log_det,
    random_rows,
)
from cuvee.mix.select.objectives import DCScore, LogDet, Objective
from cuvee.mix.select.strata import Strata
from cuvee.mix.select.swaps import improve_rows
from cuvee.records import Vectors

Codes: TypeAlias = NDArray[np.int64]


def most_diverse(unit: Vectors, strata: Strata, objective: Objective, rng: np.random.Generator) -> tuple[Codes, float]:
    """Rows that make the objective large: greedy, then swaps."""
    if isinstance(objective, DCScore):
        rows = greedy_dcscore(unit, strata, tau=objective.tau, rng=rng)
    else:
        rows = greedy_log_det(unit, strata, s=objective.s if isinstance(objective, LogDet) else 1.0)
    return improve_rows(unit, strata, rows, objective, sign=1, rng=rng)


def least_diverse(unit: Vectors, strata: Strata, objective: Objective, rng: np.random.Generator) -> tuple[Codes, float]:
    """Rows that make the objective small: compact, then swaps."""
    return improve_rows(unit, strata, compact_rows(unit, strata, objective, rng=rng), objective, sign=-1, rng=rng)


class Path:
    """Selections between the least and the most diverse one, through a random one, swap by swap.

    Step 0 is the least diverse selection, the last step the most diverse; in between, rows of one stratum are
    exchanged in a seeded order, first for those of a random selection, then for those of the most diverse. So
    low levels hold some of the densest rows, middle ones are close to a plain sample of the pool, high ones hold
    rows that are far from all others.
    """

    def __init__(
        self, unit: Vectors, strata: Strata, objective: Objective, *, seed_rows: Sequence[Codes],
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self._unit = unit
        self._objective = objective
        self._stations = [np.sort(rows) for rows in seed_rows]
        self._exchanges = [
            _exchange(strata, first, second, rng)
            for first, second in zip(self._stations[:-1], self._stations[1:], strict=True)
        ]
        self._values: dict[int, float] = {}

    @property
    def last(self) -> int:
        """The number of the last step."""
        return sum(len(leave) for leave, _ in self._exchanges)

    def rows(self, step: int) -> Codes:
        """The selection at a step, sorted."""
        for station, (leave, enter) in zip(self._stations, self._exchanges, strict=False):
            if step <= len(leave):
                kept = np.setdiff1d(station, leave[:step], assume_unique=True)
                return np.sort(np.concatenate([kept, enter[:step]]))
            step -= len(leave)
        return self._stations[-1]

    def value(self, step: int) -> float:
        """The objective at a step."""
        if step not in self._values:
            self._values[step] = self._objective.value(self._unit[self.rows(step)])
        return self._values[step]

    def nearest_step(self, target: float) -> int:
        """The step whose value is nearest to ``target``, by bisection: values rise along the path, or all but do."""
        low, high = 0, self.last
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.value(middle) < target else (low, middle)
        return min((low, high), key=lambda step: abs(self.value(step) - target))


def make_path(unit: Vectors, strata: Strata, objective: Objective, rng: np.random.Generator) -> Path:
    """The path of a pool: its least diverse, a random, and its most diverse selection."""
    low, low_value = least_diverse(unit, strata, objective, rng)
    high, high_value = most_diverse(unit, strata, objective, rng)
    middle = random_rows(strata, rng)
    between = low_value < objective.value(unit[middle]) < high_value
    stations = [low, middle, high] if between else [low, high]
    return Path(unit, strata, objective, seed_rows=stations, rng=rng)


def _exchange(strata: Strata, first: Codes, second: Codes, rng: np.random.Generator) -> tuple[Codes, Codes]:
    """Rows to take out of the first selection and rows to put in, pair by pair of one stratum, in a random order."""
    leave = _shuffled_by_stratum(strata, np.setdiff1d(first, second, assume_unique=True), rng)
    enter = _shuffled_by_stratum(strata, np.setdiff1d(second, first, assume_unique=True), rng)
    order = rng.permutation(len(leave))
    return leave[order], enter[order]


def _shuffled_by_stratum(strata: Strata, rows: Codes, rng: np.random.Generator) -> Codes:
    order = np.lexsort((rng.random(len(rows)), strata.codes[rows]))
    return rows[order]
