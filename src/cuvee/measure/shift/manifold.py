"""Precision, recall, density and coverage: do corpus and real rows lie where the other's rows lie?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.shift.sides import MERGED_BINS, Codes, Floats, Sides, choose_sides, estimate_from_sides, vectors_of
from cuvee.measure.subject import MIN_BINS, Subject
from cuvee.records import Estimate
from cuvee.similarity import single_blas_thread

Part = Literal["precision", "recall", "density", "coverage"]
NEIGHBOURS = 5
MOST_ROWS = 10_000
_CELLS = 4_000_000  # cosines held at a time
_SAME = 1e-12  # cosines no further apart are ties, and a tie is outside, as the definitions say


def measure_manifold(subject: Subject, part: Part) -> Estimate | None:
    """Precision and recall (Kynkaanniemi et al., arXiv 1904.06991), density and coverage (Naeem et al., 2002.09797).

    The ball of a row reaches to its 5th nearest other row of the same side (on unit vectors nearness by cosine
    and by distance agree). Precision: share of corpus rows inside the ball of some real row. Recall: share of real
    rows inside the ball of some corpus row. Density: how many balls of real rows a corpus row lies in, over 5;
    it can exceed 1. Coverage: share of real rows whose ball holds a corpus row. A row on the edge is outside.
    Balls shrink as rows are added: compare at equal rows. Above 10,000 rows of both sides together a seeded
    sample is used. The interval leaves out 16 bins of each side in turn, balls and all. None where a side has not
    more than 5 rows.
    """
    found = subject.once(_manifold)
    if found is None:
        return None
    settings: dict[str, str | float] = {"k": NEIGHBOURS, "distance": "euclidean of unit vectors"}
    return estimate_from_sides(
        subject,
        found.sides,
        found.values[part],
        lambda: (found.without_ours[part], found.without_theirs[part]),
        settings,
        bounds=(0.0, np.inf if part == "density" else 1.0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manifold:
    sides: Sides
    values: dict[Part, float]
    without_ours: dict[Part, Floats]
    without_theirs: dict[Part, Floats]


def _manifold(subject: Subject) -> _Manifold | None:
    sides = choose_sides(subject, most=MOST_ROWS, max_bins=MERGED_BINS)
    if sides.smallest <= NEIGHBOURS:
        return None
    ours, theirs = (_unit(vectors.astype(np.float64)) for vectors in vectors_of(subject, sides))
    bins = (sides.ours.bins, sides.theirs.bins)
    if min(int(b.max()) + 1 for b in bins) < MIN_BINS or subject.is_real:
        bins = (np.zeros(len(ours), dtype=np.int64), np.zeros(len(theirs), dtype=np.int64))
    reach = _reaches(ours, bins[0])
    other_reach = _reaches(theirs, bins[1])
    inside = _compare(theirs, ours, other_reach, bins[1], bins[0])  # corpus rows in the balls of real rows
    turned = _compare(ours, theirs, reach, bins[0], bins[1])  # real rows in the balls of corpus rows
    ours_left, theirs_left = _kept(bins[0]), _kept(bins[1])
    values: dict[Part, float] = {
        "precision": float((inside.balls[:, 0] > 0).mean()),
        "density": float(inside.balls[:, 0].mean()) / NEIGHBOURS,
        "coverage": float((inside.rows[:, 0] > 0).mean()),
        "recall": float((turned.balls[:, 0] > 0).mean()),
    }
    # a bin of ours left out: fewer points for the real balls, smaller sides for our own, and the other way round
    without_ours: dict[Part, Floats] = {
        "precision": _means(inside.balls[:, :1] > 0, ours_left),
        "density": _means(inside.balls[:, :1], ours_left) / NEIGHBOURS,
        "coverage": (inside.rows[:, :1] - inside.rows_by_bin > 0).mean(axis=0),
        "recall": (turned.balls[:, 1:] > 0).mean(axis=0),
    }
    without_theirs: dict[Part, Floats] = {
        "precision": (inside.balls[:, 1:] > 0).mean(axis=0),
        "density": inside.balls[:, 1:].mean(axis=0) / NEIGHBOURS,
        "coverage": _means(inside.rows[:, 1:] > 0, theirs_left),
        "recall": _means(turned.balls[:, :1] > 0, theirs_left),
    }
    return _Manifold(sides=sides, values=values, without_ours=without_ours, without_theirs=without_theirs)


@dataclass(frozen=True, slots=True)
class _Counts:
    """Points in balls. Column 0 uses all balls; column b + 1 the balls as they are without bin b of their centres.

    ``balls``: balls around each point, shape (points, 1 + bins of the centres), those of the left-out bin not
    counted. ``rows``: points in each ball, shape (centres, 1 + bins of the centres). ``rows_by_bin``: points of each
    bin in each whole ball, shape (centres, bins of the points).
    """

    balls: Floats
    rows: Floats
    rows_by_bin: Floats


@single_blas_thread()
def _compare(centres: Floats, points: Floats, reach: Floats, bins: Codes, point_bins: Codes) -> _Counts:
    count = reach.shape[1]
    balls = np.zeros((len(points), count))
    rows = np.zeros((len(centres), count))
    by_bin = np.zeros((len(centres), int(point_bins.max()) + 1))
    tile = max(1, _CELLS // len(points))
    for start in range(0, len(centres), tile):
        here = slice(start, start + tile)
        cosines = centres[here] @ points.T
        for column in range(count):
            hit = cosines > reach[here, column, None]
            if column:
                hit[bins[here] == column - 1] = False
            balls[:, column] += hit.sum(axis=0)
            rows[here, column] = hit.sum(axis=1)
            if not column:
                for b in range(by_bin.shape[1]):
                    by_bin[here, b] = hit[:, point_bins == b].sum(axis=1)
    return _Counts(balls, rows, by_bin)


@single_blas_thread()
def _reaches(unit: Floats, bins: Codes) -> Floats:
    """Cosine (plus a hair) of the 5th nearest other row, with all rows and without each bin: (n, 1 + bins)."""
    count = int(bins.max()) + 1
    out = np.empty((len(unit), count + 1))
    tile = max(1, _CELLS // len(unit))
    for start in range(0, len(unit), tile):
        here = np.arange(start, min(start + tile, len(unit)))
        cosines = unit[here] @ unit.T
        cosines[np.arange(len(here)), here] = -np.inf
        out[here, 0] = _fifth(cosines)
        # the nearest few settle nearly every bin; each row and bin they do not settle is looked up in full
        few = min(len(unit), 4 * NEIGHBOURS)
        nearest = np.argpartition(-cosines, few - 1, axis=1)[:, :few]
        values = np.take_along_axis(cosines, nearest, axis=1)
        for b in range(count):
            left = np.where(bins[nearest] == b, -np.inf, values)
            found = _fifth(left)
            for row in np.flatnonzero(np.isneginf(found)):
                found[row] = _fifth(np.where(bins == b, -np.inf, cosines[row])[None])[0]
            out[here, b + 1] = found
    return out + _SAME


def _fifth(cosines: Floats) -> Floats:
    """The 5th largest of each row."""
    if cosines.shape[1] < NEIGHBOURS:
        return np.full(len(cosines), -np.inf)
    out: Floats = np.partition(cosines, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS]
    return out


def _kept(bins: Codes) -> Floats:
    """Which rows are left without each bin, 0 or 1, shape (n, bins)."""
    out: Floats = (bins[:, None] != np.arange(int(bins.max()) + 1)).astype(np.float64)
    return out


def _means(values: NDArray[np.float64] | NDArray[np.bool_], kept: Floats) -> Floats:
    """Mean over the rows that are left without each bin; ``values`` has one column, or one a bin."""
    rows = kept.sum(axis=0)
    out: Floats = (values * kept).sum(axis=0) / np.where(rows > 0, rows, np.nan)
    return out


def _unit(vectors: Floats) -> Floats:
    out: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return out
