"""Beginnings of a selection: greedy, compact, random, spread out. All take the strata's quotas exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cuvee.mix.select.objectives import DCScore, Objective
from cuvee.mix.select.strata import Strata
from cuvee.records import Vectors
from cuvee.similarity import single_blas_thread

Codes: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
CANDIDATES = 1024
"""Rows looked at for each pick of the greedy choice by DCScore: with k picks of n rows, one of the best n / k is
among them with probability 1 - exp(-CANDIDATES / k) (stochastic greedy, arXiv 1409.7938)."""
_CHUNK = 16_384
_STARTS = 128  # places where a dense region is looked for


class Quotas:
    """Which rows may still be taken, while a selection grows row by row."""

    def __init__(self, strata: Strata) -> None:
        self._codes = strata.codes
        self._left = strata.quotas.copy()
        self.rows = strata.rows
        self.open = self._left[strata.codes] > 0

    def take(self, row: int) -> Codes:
        """Take an open row; the rows that are open no longer."""
        stratum = int(self._codes[row])
        self._left[stratum] -= 1
        closed = np.array([row]) if self._left[stratum] else np.flatnonzero(self._codes == stratum)
        self.open[closed] = False
        return closed


def grow(strata: Strata, scores: Floats, update: Callable[[int], None]) -> Codes:
    """Take the open row of the largest score, ``update`` the scores, and again, until the quotas are full.

    Args:
        strata: whose quotas are taken.
        scores: of each row, shape (n,), changed in place by ``update`` (closed rows hold -inf, and stay there).
        update: called with the row that was taken.
    """
    quotas = Quotas(strata)
    scores[~quotas.open] = -np.inf
    taken = np.empty(quotas.rows, dtype=np.int64)
    for number in range(quotas.rows):
        row = int(scores.argmax())  # the first of equals
        taken[number] = row
        scores[quotas.take(row)] = -np.inf
        if number + 1 < quotas.rows:
            update(row)
    return taken


@single_blas_thread()
def greedy_log_det(unit: Vectors, strata: Strata, *, s: float = 1.0) -> Codes:
    """Rows that greedily make log det(I + K / s) of the cosine kernel largest; the choice of plain greedy, exactly.

    The gain of x is ``log(1 + x^T A^-1 x / s)`` with ``A = I + X^T X / s`` of the rows taken so far. All gains are
    kept up to date by the rank-one rule (Sherman and Morrison 1950; Chen et al. 2018, arXiv 1709.05135, for the same
    in the n x n form): O(n d) a row taken, and no n x n matrix.
    """
    inverse = np.eye(unit.shape[1])
    forms = np.einsum("ij,ij->i", unit, unit, dtype=np.float64)

    def update(row: int) -> None:
        nonlocal inverse
        direction = inverse @ unit[row].astype(np.float64)
        scale = s + float(unit[row].astype(np.float64) @ direction)
        inverse -= np.outer(direction, direction) / scale
        along = unit @ direction.astype(np.float32)
        np.subtract(forms, along.astype(np.float64) ** 2 / scale, out=forms)

    return grow(strata, forms, update)


@single_blas_thread()
def greedy_dcscore(unit: Vectors, strata: Strata, *, tau: float, rng: np.random.Generator | None = None) -> Codes:
    """Rows that greedily make DCScore largest.

    Args:
        unit: rows, shape (n, d).
        strata: whose quotas are taken.
        tau: of the score.
        rng: draws ``CANDIDATES`` of the open rows for each pick; None looks at all of them, which is plain greedy.
    """
    objective, quotas = DCScore(tau=tau), Quotas(strata)
    taken = np.empty(quotas.rows, dtype=np.int64)
    sums = np.empty(quotas.rows)
    # every first row gives the same score: the one least like the pool leaves most room
    mean = unit.mean(axis=0)
    first = np.where(quotas.open, unit @ mean, np.inf).argmin()
    for number in range(quotas.rows):
        if number:
            candidates = np.flatnonzero(quotas.open)
            if rng is not None and len(candidates) > CANDIDATES:
                candidates = np.sort(rng.choice(candidates, CANDIDATES, replace=False))
            gains = objective.gains(self_sums=sums[:number], chosen=unit[taken[:number]], others=unit[candidates])
            row = int(candidates[gains.argmax()])
        else:
            row = int(first)
        near = objective.similarities(unit[row : row + 1], unit[taken[:number]])[0]
        sums[:number] += near
        sums[number] = 1.0 + near.sum(dtype=np.float64)
        taken[number] = row
        quotas.take(row)
    return taken


@single_blas_thread()
def compact_rows(
    unit: Vectors, strata: Strata, objective: Objective, *, rng: np.random.Generator, rounds: int = 12
) -> Codes:
    """Rows close together: of each stratum those nearest to the centre of the chosen ones, over and over.

    One centre for all rows, and one for each label, are both tried; the less diverse outcome is taken. Each begins at
    the densest of some drawn places.
    """
    found: list[tuple[float, int, Codes]] = []
    for groups in (np.zeros(len(unit), dtype=np.int64), strata.labels):
        rows = take_best(strata, _closeness(unit, groups, _dense_centres(unit, strata, groups, rng)))
        for _ in range(rounds):
            moved = take_best(strata, _closeness(unit, groups, _centres(unit, groups, rows)))
            if np.array_equal(moved, rows):
                break
            rows = moved
        found.append((objective.value(unit[rows]), len(found), rows))
    return min(found)[2]


def random_rows(strata: Strata, rng: np.random.Generator) -> Codes:
    """A random sample of each stratum, sorted."""
    return take_best(strata, rng.random(len(strata.codes)))


@single_blas_thread()
def k_center(unit: Vectors, strata: Strata, *, rng: np.random.Generator) -> Codes:
    """Rows far from each other: each next one has the smallest greatest cosine to those before (Gonzalez 1985).

    Without strata the largest distance of a row to its nearest chosen one is at most twice the least possible.
    """
    nearest = np.full(len(unit), -1.0)  # greatest cosine to a chosen row
    scores = rng.random(len(unit))  # the first row is drawn

    def update(row: int) -> None:
        np.maximum(nearest, unit @ unit[row], out=nearest)
        scores[np.isfinite(scores)] = -nearest[np.isfinite(scores)]

    return grow(strata, scores, update)


def take_best(strata: Strata, scores: Floats) -> Codes:
    """Of each stratum its quota of rows with the largest scores, the first of equals, sorted by row."""
    order = np.lexsort((np.arange(len(scores)), -scores, strata.codes))
    codes = strata.codes[order]
    place = rank_in_groups(codes)
    return np.sort(order[place < strata.quotas[codes]])


def rank_in_groups(codes: Codes) -> Codes:
    """Place of each entry among those of its code, from 0; equal codes stand together."""
    starts = np.flatnonzero(np.diff(codes, prepend=codes[:1] - 1))
    sizes = np.diff(np.append(starts, len(codes)))
    ranks: Codes = np.arange(len(codes)) - np.repeat(starts, sizes)
    return ranks


def _dense_centres(unit: Vectors, strata: Strata, groups: Codes, rng: np.random.Generator) -> Vectors:
    """For each group the mean of as many rows as it gives, around the drawn row to which such rows are nearest."""
    quotas = np.bincount(groups, weights=strata.quotas[strata.codes] / np.bincount(strata.codes)[strata.codes])
    centres = np.zeros((len(quotas), unit.shape[1]), dtype=np.float32)
    for group, quota in enumerate(np.rint(quotas).astype(int).tolist()):
        members = np.flatnonzero(groups == group)
        if not quota or not len(members):
            continue
        starts = rng.choice(members, min(len(members), _STARTS), replace=False)
        cosines = unit[members] @ unit[starts].T
        nearest = np.partition(cosines, len(members) - quota, axis=0)[len(members) - quota :]
        best = int(nearest.sum(axis=0).argmax())
        centres[group] = unit[members[np.argsort(-cosines[:, best], kind="stable")[:quota]]].mean(axis=0)
    return centres


def _centres(unit: Vectors, groups: Codes, rows: Codes) -> Vectors:
    centres = np.zeros((int(groups.max(initial=0)) + 1, unit.shape[1]), dtype=np.float64)
    np.add.at(centres, groups[rows], unit[rows])
    return centres.astype(np.float32)


def _closeness(unit: Vectors, groups: Codes, centres: Vectors) -> Floats:
    """The product of each row with its group's centre."""
    out = np.empty(len(unit))
    for start in range(0, len(unit), _CHUNK):
        part = slice(start, start + _CHUNK)
        out[part] = np.einsum("ij,ij->i", unit[part], centres[groups[part]])
    return out
