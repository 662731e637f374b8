"""Choosing rows of a pool: at levels of diversity, at a value, nearest to the real data, or plainly.

Size, labels and length are held fixed: diversity without asking an LLM.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

from cuvee.corpus import Corpus, count_strata
from cuvee.errors import InputError
from cuvee.fingerprint import derive_rng
from cuvee.mix import search
from cuvee.mix.blend import apportion_rows
from cuvee.mix.search import OBJECTIVES, Objective, Strata
from cuvee.records import Codes, Shown, Vectors
from cuvee.registry import nearest_name
from cuvee.similarity import unit_rows

# Of mean length, standardised, that counts as matched (Austin 2009, Statistics in Medicine 28).
LARGEST_DIFFERENCE = 0.1
_BINS = (4, 8, 16, 32)
Metric = Literal["vendi", "log_det"]  # the names of ``OBJECTIVES``
Method = Literal["vendi", "log_det", "k_center", "random", "lowest_shift"]
METHODS = get_args(Method)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Selection(Shown):
    """Rows chosen from a pool.

    Attributes:
        name: of the level, or of the method.
        rows: their places in the pool, rising, shape (k,).
        corpus: the rows.
        values: what they score by each objective: Vendi of order 1, log det per row.
        length_difference: standardised mean difference in words to the pool at the same label counts.
        note: what a reader should know; empty if nothing.
    """

    name: str
    rows: Codes
    corpus: Corpus
    values: Mapping[str, float]
    length_difference: float
    note: str = ""

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.values.items())
        line = f"{self.name}: {len(self.rows)} rows; {numbers}; length differs by {self.length_difference:.3f} SD"
        return f"{line}\n{self.note}" if self.note else line


class Selector:
    """Chooses subsets of a pool with exact label counts and matched lengths; no row occurs twice in a subset.

    Args:
        pool: rows to choose from; what is wrong with them (duplicates, leaks) is best filtered out first.
        vectors: of its rows, shape (n, d).
        rows: of each subset: label -> rows, or a number that is shared out like the pool's labels.
        match_lengths: keep the pool's distribution of words within each label.
        seed: of the searches and of the rows between the extremes.

    Raises:
        InputError: more rows than the pool has.
        ValueError: not one vector a row, or no row asked for.
    """

    def __init__(
        self, pool: Corpus, vectors: Vectors, rows: int | Mapping[str, int], *, match_lengths: bool = True,
        seed: int = 0,
    ) -> None:  # fmt: skip
        if len(vectors) != len(pool):
            raise ValueError(f"vectors has {len(vectors)} rows for a pool of {len(pool)}; give one a row")
        self._pool, self._unit, self._match_lengths, self._seed = pool, unit_rows(vectors), match_lengths, seed
        if isinstance(rows, int):
            if rows < 1:
                raise ValueError(f"rows is {rows!r}; it must be at least 1")
            if rows > len(pool):
                raise InputError(
                    f"{rows} rows were asked for, the pool has {len(pool)}; ask for fewer, or give a larger pool"
                )
            rows = apportion_rows(count_strata(pool), rows)
        self._wanted = rows

    def levels(self, count: int, metric: str = "vendi") -> tuple[Selection, ...]:
        """Subsets from low to high diversity.

        The first is about the least diverse one that can be made, the last about the most diverse; the values of
        those between lie at equal distances. Rows are shared between subsets.

        Args:
            count: how many, at least 2.
            metric: ``vendi`` (order 1) or ``log_det`` (of I + K).

        Raises:
            InputError: more rows of a label than the pool has, or a pool in which nothing varies.
            ValueError: ``count`` out of range.
        """
        if count < 2:
            raise ValueError(f"levels is {count!r}; give 2 or more, or choose one subset")
        objective = _find_objective(metric)

        def choose(strata: Strata) -> list[Codes]:
            path = make_path(self._unit, strata, objective, derive_rng(self._seed, "select", metric))
            low, high = path.ends
            steps = [0, *(path.nearest_step(v) for v in np.linspace(low, high, count)[1:-1]), path.last]
            if len(set(steps)) < count:
                raise InputError(
                    f"{count} levels of {strata.rows} rows were asked for, but the pool of {len(self._pool)} gives "
                    f"only {len(set(steps))} different ones ({metric} from {low:.4g} to {high:.4g}); "
                    "ask for fewer levels or rows"
                )
            return [path.rows(step) for step in steps]

        return self._run([f"{number}" for number in range(1, count + 1)], choose)

    def target(self, value: float, metric: str = "vendi") -> Selection:
        """The subset whose measured diversity is nearest to ``value``.

        Raises:
            InputError: the value lies outside what subsets of this pool reach, which is named.
        """
        objective = _find_objective(metric)

        def choose(strata: Strata) -> list[Codes]:
            path = make_path(self._unit, strata, objective, derive_rng(self._seed, "select", metric))
            low, high = path.ends
            if not low <= value <= high:
                raise InputError(
                    f"{metric} {value:g} is out of reach: {strata.rows} rows of this pool have {low:.4g} to "
                    f"{high:.4g}; ask for a value between, for another number of rows, or give a larger pool"
                )
            return [path.rows(path.nearest_step(value))]

        return self._run([f"{metric} {value:g}"], choose)[0]

    def best(self, method: str = "vendi", real: Vectors | None = None) -> Selection:
        """One subset.

        Args:
            method: ``vendi``, ``log_det`` (about the most diverse by that), ``k_center`` (far from each other),
                ``random``, ``lowest_shift`` (nearest to the real data by MMD).
            real: vectors of the real training rows, for ``lowest_shift``.

        Raises:
            InputError: more rows of a label than the pool has, or an unknown method.
            ValueError: ``real`` is missing, or given for another method.
        """
        if (method == "lowest_shift") != (real is not None):
            raise ValueError("real vectors go with method 'lowest_shift', and with it alone")
        unit, rng = self._unit, derive_rng(self._seed, "select", method)

        def choose(strata: Strata) -> list[Codes]:
            if method in OBJECTIVES:
                return [most_diverse(unit, strata, OBJECTIVES[method], rng)[0]]
            if method == "random":
                return [search.random_rows(strata, rng)]
            if method == "k_center":
                return [np.sort(search.k_center(unit, strata, rng=rng))]
            if real is not None:
                return [search.lowest_shift(unit, strata, search.Shift(unit_rows(real), seed=self._seed))]
            raise InputError(f"method {method!r} is unknown; {nearest_name(method, METHODS)}")

        return self._run([method], choose)[0]

    def _run(self, names: Sequence[str], choose: Callable[[Strata], list[Codes]]) -> tuple[Selection, ...]:
        """Choose with ever finer bins of length until all selections match the pool's."""
        found: list[Codes] = []
        differences: list[float] = []
        for bins in _BINS if self._match_lengths else (1,):
            strata = search.make_strata(self._pool, self._wanted, bins=bins)
            try:
                made = choose(strata)
            except InputError:
                if found:  # finer bins leave too little choice
                    break
                raise
            off = [strata.length_difference(chosen) for chosen in made]
            if not found or max(off) < max(differences):
                found, differences = made, off
            if max(differences) < LARGEST_DIFFERENCE:
                break
        worst = max(differences)
        why = f"could not be matched better than to {worst:.2f} SD" if self._match_lengths else "are not matched"
        note = "" if worst < LARGEST_DIFFERENCE else f"lengths {why}"
        return tuple(
            Selection(
                name=name, rows=chosen, corpus=self._pool.take(chosen), length_difference=difference, note=note,
                values={metric: objective.value(self._unit[chosen]) for metric, objective in OBJECTIVES.items()},
            )
            for name, chosen, difference in zip(names, found, differences, strict=True)
        )  # fmt: skip


def fill_rows(pool: Corpus, kept: Codes, rows: int, choose: Callable[[Corpus], Selection]) -> Codes:
    """The places of exactly ``rows`` rows of a pool of which filters kept some.

    What ``choose`` takes of those where they are enough; else all of them, and the first of the others.
    """
    if (short := rows - len(kept)) >= 0:
        return np.sort(np.concatenate([kept, np.setdiff1d(np.arange(len(pool)), kept)[:short]]))
    return np.asarray(kept[choose(pool.take(kept)).rows])


def _find_objective(metric: str) -> Objective:
    if metric not in OBJECTIVES:
        raise InputError(f"metric {metric!r} cannot be selected by; {nearest_name(metric, OBJECTIVES)}")
    return OBJECTIVES[metric]


# --- levels ---------------------------------------------------------------------------------------
def most_diverse(unit: Vectors, strata: Strata, objective: Objective, rng: np.random.Generator) -> tuple[Codes, float]:
    """Rows that make the objective large: greedy, then swaps."""
    rows = search.greedy_log_det(unit, strata)
    return search.improve_rows(unit, strata, rows, objective, sign=1, rng=rng)


def least_diverse(unit: Vectors, strata: Strata, objective: Objective, rng: np.random.Generator) -> tuple[Codes, float]:
    """Rows that make the objective small: compact, then swaps."""
    return search.improve_rows(
        unit, strata, search.compact_rows(unit, strata, objective, rng=rng), objective, sign=-1, rng=rng
    )


class Path:
    """Selections between the least and the most diverse one, through a random one, swap by swap.

    Step 0 is the least diverse selection, the last step the most diverse; in between, rows of one stratum are
    exchanged in a seeded order, first for those of a random selection, then for those of the most diverse. So
    low levels hold some of the densest rows, middle ones are close to a plain sample of the pool, high ones hold
    rows that are far from all others.
    """

    def __init__(
        self, unit: Vectors, strata: Strata, objective: Objective, stations: Sequence[Codes], rng: np.random.Generator
    ) -> None:
        self._unit, self._objective, self._stations = unit, objective, [np.sort(rows) for rows in stations]
        self._exchanges = [_exchange(strata, first, second, rng) for first, second in pairwise(self._stations)]
        self._values: dict[int, float] = {}
        self.last = sum(len(leave) for leave, _ in self._exchanges)
        """The number of the last step."""
        self.ends = self._value(0), self._value(self.last)
        """The objective at the first and the last step."""

    def rows(self, step: int) -> Codes:
        """The selection at a step, sorted."""
        for station, (leave, enter) in zip(self._stations, self._exchanges, strict=False):
            if step <= len(leave):
                kept = np.setdiff1d(station, leave[:step], assume_unique=True)
                return np.sort(np.concatenate([kept, enter[:step]]))
            step -= len(leave)
        return self._stations[-1]

    def _value(self, step: int) -> float:
        if step not in self._values:
            self._values[step] = self._objective.value(self._unit[self.rows(step)])
        return self._values[step]

    def nearest_step(self, target: float) -> int:
        """The step whose value is nearest to ``target``, by bisection: values rise along the path, or all but do."""
        low, high = 0, self.last
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._value(middle) < target else (low, middle)
        return min((low, high), key=lambda step: abs(self._value(step) - target))


def make_path(unit: Vectors, strata: Strata, objective: Objective, rng: np.random.Generator) -> Path:
    """The path of a pool: its least diverse, a random, and its most diverse selection."""
    low, low_value = least_diverse(unit, strata, objective, rng)
    high, high_value = most_diverse(unit, strata, objective, rng)
    middle = search.random_rows(strata, rng)
    between = low_value < objective.value(unit[middle]) < high_value
    return Path(unit, strata, objective, [low, middle, high] if between else [low, high], rng)


def _exchange(strata: Strata, first: Codes, second: Codes, rng: np.random.Generator) -> tuple[Codes, Codes]:
    """Rows to take out of the first selection and rows to put in, pair by pair of one stratum, in a random order."""
    leave = _shuffled_by_stratum(strata, np.setdiff1d(first, second, assume_unique=True), rng)
    enter = _shuffled_by_stratum(strata, np.setdiff1d(second, first, assume_unique=True), rng)
    order = rng.permutation(len(leave))
    return leave[order], enter[order]


def _shuffled_by_stratum(strata: Strata, rows: Codes, rng: np.random.Generator) -> Codes:
    order = np.lexsort((rng.random(len(rows)), strata.codes[rows]))
    return rows[order]
