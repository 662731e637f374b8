"""Choosing rows of a pool: at levels of diversity, at a value, nearest to the real data, or plainly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus, label_strata
from cuvee.errors import InputError
from cuvee.fingerprint import derive_rng
from cuvee.mix.select.greedy import k_center, random_rows, rank_in_groups, take_best
from cuvee.mix.select.levels import make_path, most_diverse
from cuvee.mix.select.objectives import OBJECTIVES, Objective
from cuvee.mix.select.shift import lowest_shift
from cuvee.mix.select.strata import Strata, make_strata
from cuvee.mix.shares import apportion_rows
from cuvee.records import Vectors
from cuvee.registry import nearest_name
from cuvee.similarity import find_near_duplicates, unit_rows

Codes: TypeAlias = NDArray[np.int64]
LARGEST_DIFFERENCE = 0.1
"""Of mean length, standardised, that counts as matched (Austin 2009, Statistics in Medicine 28)."""
_BINS = (4, 8, 16, 32)
CLUSTER_COSINE = 0.9
"""Rows at least this alike are of one cluster, for ``cluster_limited``."""
METHODS = ("vendi", "dcscore", "log_det", "k_center", "cluster_limited", "random", "lowest_shift")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Rows chosen from a pool.

    Attributes:
        name: of the level, or of the method.
        rows: their places in the pool, rising, shape (k,).
        corpus: the rows.
        values: what they score by each objective (Vendi of order 1, DCScore at tau 0.1, log det per row at s = 1, and
            the one selected by).
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


def select_levels(
    pool: Corpus,
    vectors: Vectors,
    *,
    rows: int | Mapping[str, int],
    levels: int,
    metric: str | Objective = "vendi",
    match_lengths: bool = True,
    seed: int = 0,
) -> tuple[Selection, ...]:
    """Subsets of a pool with equal rows, equal label counts and matched lengths, from low to high diversity.

    The first is about the least diverse one that can be made, the last about the most diverse; the values of
    those between lie at equal distances. No LLM is called and no row occurs twice in a subset; rows are shared
    between subsets.

    Args:
        pool: rows to choose from; what is wrong with them (duplicates, leaks) is best filtered out first.
        vectors: of its rows, shape (n, d).
        rows: of each subset: label -> rows, or a number that is shared out like the pool's labels.
        levels: how many, at least 2.
        metric: ``vendi`` (order 1), ``dcscore`` (tau 0.1), ``log_det`` (s = 1), or an objective with other settings.
        match_lengths: keep the pool's distribution of words within each label.
        seed: of the searches and of the rows between the extremes.

    Raises:
        InputError: more rows of a label than the pool has, or a pool in which nothing varies.
        ValueError: arguments out of range.
    """
    if levels < 2:
        raise ValueError(f"levels is {levels!r}; give 2 or more, or use select_rows for one subset")
    objective, name = _find_objective(metric)
    unit = _unit(pool, vectors)

    def choose(strata: Strata) -> list[Codes]:
        path = make_path(unit, strata, objective, derive_rng(seed, "select", name))
        low, high = path.value(0), path.value(path.last)
        steps = [0, *(path.nearest_step(v) for v in np.linspace(low, high, levels)[1:-1]), path.last]
        if len(set(steps)) < levels:
            raise InputError(
                f"{levels} levels of {strata.rows} rows were asked, but the pool of {len(pool)} gives only "
                f"{len(set(steps))} different ones ({name} from {low:.4g} to {high:.4g}); ask for fewer levels or rows"
            )
        return [path.rows(step) for step in steps]

    chosen, note = _match(pool, _wanted(pool, rows), match_lengths, choose)
    found = [
        _describe(pool, unit, f"{number}", part, objective, name, difference, note)
        for number, (part, difference) in enumerate(chosen, start=1)
    ]
    return tuple(found)


def select_target(
    pool: Corpus,
    vectors: Vectors,
    *,
    rows: int | Mapping[str, int],
    target: float,
    metric: str | Objective = "vendi",
    match_lengths: bool = True,
    seed: int = 0,
) -> Selection:
    """The subset whose measured diversity is nearest to ``target``; arguments as :func:`select_levels`.

    Raises:
        InputError: the value lies outside what subsets of this pool reach, which is named.
    """
    objective, name = _find_objective(metric)
    unit = _unit(pool, vectors)

    def choose(strata: Strata) -> list[Codes]:
        path = make_path(unit, strata, objective, derive_rng(seed, "select", name))
        low, high = path.value(0), path.value(path.last)
        if not low <= target <= high:
            raise InputError(
                f"{name} {target:g} is out of reach: {strata.rows} rows of this pool have {low:.4g} to {high:.4g}; "
                "ask for a value between, for another number of rows, or give a larger pool"
            )
        return [path.rows(path.nearest_step(target))]

    chosen, note = _match(pool, _wanted(pool, rows), match_lengths, choose)
    return _describe(pool, unit, f"{name} {target:g}", *chosen[0][:1], objective, name, chosen[0][1], note)


def select_rows(
    pool: Corpus,
    vectors: Vectors,
    *,
    rows: int | Mapping[str, int],
    method: str | Objective = "vendi",
    real: Vectors | None = None,
    match_lengths: bool = True,
    seed: int = 0,
) -> Selection:
    """One subset of a pool, with exact label counts and matched lengths.

    Args:
        pool, vectors, rows, match_lengths, seed: as :func:`select_levels`.
        method: ``vendi``, ``dcscore``, ``log_det`` (about the most diverse by that), ``k_center`` (far from each
            other), ``cluster_limited`` (as few rows as possible of each cluster of near-duplicates), ``random``,
            ``lowest_shift`` (nearest to the real data by MMD); or an objective.
        real: vectors of the real training rows, for ``lowest_shift``.

    Raises:
        InputError: more rows of a label than the pool has.
        ConfigError: an unknown method.
        ValueError: ``real`` is missing, or given for another method.
    """
    plain = method if isinstance(method, str) and method not in OBJECTIVES else None
    if (plain == "lowest_shift") != (real is not None):
        raise ValueError("real vectors go with method 'lowest_shift', and with it alone")
    objective, name = _find_objective("vendi" if plain else method)
    unit, rng = _unit(pool, vectors), derive_rng(seed, "select", plain or name)

    def choose(strata: Strata) -> list[Codes]:
        if plain is None:
            return [most_diverse(unit, strata, objective, rng)[0]]
        if plain == "random":
            return [random_rows(strata, rng)]
        if plain == "k_center":
            return [np.sort(k_center(unit, strata, rng=rng))]
        if plain == "cluster_limited":
            return [_cluster_limited(unit, strata, rng)]
        if plain == "lowest_shift" and real is not None:
            return [lowest_shift(unit, unit_rows(real), strata, seed=seed)]
        raise InputError(f"method {plain!r} is unknown; {nearest_name(plain, METHODS)}")

    chosen, note = _match(pool, _wanted(pool, rows), match_lengths, choose)
    return _describe(pool, unit, plain or name, *chosen[0][:1], objective, name, chosen[0][1], note)


def largest_difference(selections: Sequence[Selection], words: Codes) -> float:
    """The largest standardised mean difference in words between any two selections (pooled standard deviation)."""
    worst = 0.0
    for first, second in combinations(selections, 2):
        a, b = words[first.rows], words[second.rows]
        spread = float(np.sqrt((a.var() + b.var()) / 2))
        worst = max(worst, abs(float(a.mean() - b.mean())) / spread if spread else 0.0)
    return worst


# --- parts ----------------------------------------------------------------------------------------
def _unit(pool: Corpus, vectors: Vectors) -> Vectors:
    if len(vectors) != len(pool):
        raise ValueError(f"vectors has {len(vectors)} rows for a pool of {len(pool)}; give one a row")
    return unit_rows(vectors)


def _find_objective(metric: str | Objective) -> tuple[Objective, str]:
    if not isinstance(metric, str):
        name = next((n for n, kind in OBJECTIVES.items() if isinstance(metric, kind)), type(metric).__name__)
        return metric, name
    if metric not in OBJECTIVES:
        raise InputError(f"metric {metric!r} cannot be selected by; {nearest_name(metric, OBJECTIVES)}")
    return OBJECTIVES[metric](), metric


def _wanted(pool: Corpus, rows: int | Mapping[str, int]) -> Mapping[str, int]:
    if not isinstance(rows, int):
        return rows
    if rows < 1:
        raise ValueError(f"rows is {rows!r}; it must be at least 1")
    if rows > len(pool):
        raise InputError(f"{rows} rows were asked, the pool has {len(pool)}; ask for fewer, or give a larger pool")
    return apportion_rows(dict(sorted(Counter(label_strata(pool)).items())), rows)


def _match(
    pool: Corpus, wanted: Mapping[str, int], match_lengths: bool, choose: Callable[[Strata], list[Codes]]
) -> tuple[list[tuple[Codes, float]], str]:
    """Choose with ever finer bins of length until all selections match; the selections with their differences."""
    found: list[tuple[Codes, float]] = []
    for bins in _BINS if match_lengths else (1,):
        strata = make_strata(pool, wanted, bins=bins)
        try:
            made = [(rows, strata.length_difference(rows)) for rows in choose(strata)]
        except InputError:
            if found:  # finer bins leave too little choice
                break
            raise
        if not found or _worst(made) < _worst(found):
            found = made
        if _worst(found) < LARGEST_DIFFERENCE:
            return found, ""
    why = (
        f"lengths could not be matched better than to {_worst(found):.2f} SD"
        if match_lengths
        else "lengths are not matched"
    )
    return found, why


def _worst(found: Sequence[tuple[Codes, float]]) -> float:
    return max(difference for _, difference in found)


def _cluster_limited(unit: Vectors, strata: Strata, rng: np.random.Generator) -> Codes:
    """Random rows, of each cluster no second one before every cluster of the stratum has given its first."""
    clusters = find_near_duplicates(unit, CLUSTER_COSINE).cluster
    order = np.lexsort((rng.random(len(unit)), clusters))
    turn = np.empty(len(unit))
    turn[order] = rank_in_groups(clusters[order])
    return take_best(strata, -turn - rng.random(len(unit)))


def _describe(
    pool: Corpus, unit: Vectors, name: str, rows: Codes, objective: Objective, metric: str, difference: float, note: str
) -> Selection:
    chosen = unit[rows]
    values = {known: make().value(chosen) for known, make in OBJECTIVES.items()}
    values[metric] = objective.value(chosen)
    return Selection(
        name=name, rows=rows, corpus=pool.take(rows), values=values, length_difference=difference, note=note
    )
