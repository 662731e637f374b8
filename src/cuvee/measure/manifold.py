"""How far two sets of vectors lie apart, in the field's other ways: Frechet, precision and recall, MAUVE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.measure.intervals import count_by_bin, estimate_two_samples, means_without
from cuvee.measure.shift import Codes, Floats, Sides, choose_sides, vectors_of
from cuvee.measure.subject import MERGED_BINS, MIN_BINS, Subject
from cuvee.records import Estimate, Vectors
from cuvee.similarity import single_blas_thread

Part = Literal["precision", "recall"]
MOST_ROWS = 10_000  # of both sides together; above, samples
NULLS = 10  # random splits behind the correction of the Frechet distance
NEIGHBOURS = 5
SCALING, POINTS, EXPLAINED, CLUSTERINGS = 5.0, 25, 0.9, 5  # of MAUVE
MAUVE_ROWS, ROWS_A_BUCKET, MIN_ROWS = 6000, 10, 20
_CELLS = 4_000_000  # cosines held at a time
_SAME = 1e-12  # cosines no further apart are ties, and a tie is outside, as the definitions say


# --- Gaussians ---
def measure_frechet(subject: Subject) -> Estimate | None:
    """Frechet distance (Heusel et al., arXiv 1706.08500) between Gaussians fitted to both sets of unit vectors.

    ``|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)``. As it is, it is biased upward (Chong and Forsyth, arXiv
    1911.07023), by far more than the distances of interest where rows are not many times the dimensions: the
    corrected value is 0 on average where there is no shift, and can be negative. ``plain`` among the settings is
    the uncorrected one. Rows of one group are not independent: one row a group is used. Above 10,000 rows of
    both sides together a seeded sample is used. The interval leaves out 16 bins of each side in turn. None with
    fewer than 4 rows or groups on a side; 0 where the corpus is the real data.
    """
    sides = choose_sides(subject, most=MOST_ROWS, one_a_group=True, max_bins=MERGED_BINS)
    if sides.smallest < MIN_BINS:
        return None
    ours, theirs = (vectors.astype(np.float64) for vectors in vectors_of(subject, sides))
    shrinkage = covariance_shrinkage(ours, theirs, nulls=NULLS, seed=subject.seed)
    value = 0.0 if subject.is_real else frechet_distance(ours, theirs, shrinkage=shrinkage)
    settings: dict[str, str | float] = {
        **sides.settings, "plain": frechet_distance(ours, theirs), "shrinkage": shrinkage, "nulls": NULLS,
        "sample": "all rows" if len(sides.ours) == subject.n else "one row a group, or a seeded sample",
    }  # fmt: skip

    def without() -> tuple[Floats, Floats]:
        """At the shrinkage of all rows: it hardly moves."""
        left, right = sides.bins
        return (
            np.array([frechet_distance(ours[left != b], theirs, shrinkage=shrinkage) for b in np.unique(left)]),
            np.array([frechet_distance(ours, theirs[right != b], shrinkage=shrinkage) for b in np.unique(right)]),
        )

    return estimate_two_samples(subject, value, without, settings, bins=sides.bins)


@single_blas_thread()
def frechet_distance(x: Floats, y: Floats, *, shrinkage: float | None = None) -> float:
    """The squared Frechet distance between Gaussians fitted to two samples.

    With ``shrinkage`` (see ``covariance_shrinkage``) it is corrected for the sizes of the samples: the means' part
    is unbiased once ``tr S1 / n + tr S2 / m`` is taken off, and ``tr (S1 S2)^(1/2)`` once divided by the shrinkage.

    Args:
        x, y: independent rows, shapes (n, d) and (m, d), at least two each.
        shrinkage: of the covariance term; None gives the plain, biased distance.

    Raises:
        ValueError: fewer than two rows on a side.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"the Frechet distance needs two rows on each side, got {len(x)} and {len(y)}")
    gap = float(np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2))
    left, right = _root(x - x.mean(axis=0)), _root(y - y.mean(axis=0))
    traces = float(np.sum(left**2)), float(np.sum(right**2))
    shared = _root_trace(left, right)
    if shrinkage is None:
        return gap + sum(traces) - 2.0 * shared
    return gap - traces[0] / len(x) - traces[1] / len(y) + sum(traces) - 2.0 * shared / shrinkage


@single_blas_thread()
def covariance_shrinkage(x: Floats, y: Floats, *, nulls: int = NULLS, seed: int = 0) -> float:
    """How far too small ``tr (S1 S2)^(1/2)`` comes out for samples of these sizes, as a factor up to 1.

    Random splits, in the sizes of the samples, of all rows (each centred on its own sample) are samples of one
    distribution: there the term should be ``tr S``. The factor is what it is, over that. It depends on the shape of
    the covariance and on the sizes, not on its scale. 1 where the rows are all the same.

    Args:
        x, y: independent rows, shapes (n, d) and (m, d), at least two each.
        nulls: random splits.
        seed: of the splits.
    """
    n, m = len(x), len(y)
    pooled = np.vstack([x - x.mean(axis=0), y - y.mean(axis=0)])
    rng = derive_rng(seed, "frechet-nulls")
    found = expected = 0.0
    for _ in range(nulls):
        order = rng.permutation(n + m)
        first, second = pooled[order[:n]], pooled[order[n:]]
        left, right = _root(first - first.mean(axis=0)), _root(second - second.mean(axis=0))
        found += _root_trace(left, right)
        expected += 0.5 * float(np.sum(left**2) + np.sum(right**2))
    return found / expected if expected > 0 and found > 0 else 1.0


def _root_trace(left: Floats, right: Floats) -> float:
    """``tr (S1 S2)^(1/2)`` from roots of S1 and S2: the sum of the singular values of their product."""
    product = left @ right.T
    smaller = product @ product.T if len(left) <= len(right) else product.T @ product
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(smaller), 0.0)).sum())


def _root(centred: Floats) -> Floats:
    """A matrix R with ``R^T R`` = the covariance, with as few rows as there are rows or dimensions."""
    n, d = centred.shape
    scaled: Floats = centred / np.sqrt(n - 1)
    if n <= d:
        return scaled
    covariance = scaled.T @ scaled
    covariance[np.diag_indices(d)] += max(1e-12 * float(np.trace(covariance)) / d, 1e-300)  # of any rank
    out: Floats = np.asarray(np.linalg.cholesky(covariance).T, dtype=np.float64)
    return out


# --- balls of nearest neighbours ---
def measure_manifold(subject: Subject, part: Part) -> Estimate | None:
    """Precision and recall of the manifold (Kynkaanniemi et al., arXiv 1904.06991; of text: arXiv 2402.10693).

    The ball of a row reaches to its 5th nearest other row of the same side (on unit vectors nearness by cosine
    and by distance agree). Precision: share of corpus rows inside the ball of some real row. Recall: share of real
    rows inside the ball of some corpus row. A row on the edge is outside. Balls shrink as rows are added: compare at
    equal rows. Above 10,000 rows of both sides together a seeded sample is used. The interval leaves out 16 bins of
    each side in turn, balls and all. None where a side has not more than 5 rows.
    """
    found = subject.once(_manifold)
    if found is None:
        return None
    inside, bins = (found.precision, found.bins) if part == "precision" else (found.recall, found.bins[::-1])
    # a bin of the points left out: fewer points; a bin of the other side: fewer balls, and others
    without = means_without(inside[:, 0], bins[0]), inside[:, 1:].mean(axis=0)
    return estimate_two_samples(
        subject,
        float(inside[:, 0].mean()),
        lambda: without if part == "precision" else (without[1], without[0]),
        {**found.sides.settings, "k": NEIGHBOURS, "distance": "euclidean of unit vectors"},
        bins=found.sides.bins,
        bounds=(0.0, 1.0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manifold:
    """Whether each row is inside a ball of the other side, as the balls are with all rows, and without each bin.

    ``precision`` is of the corpus rows, shape (n, 1 + bins of the real rows), ``recall`` of the real ones.
    """

    sides: Sides
    bins: tuple[Codes, Codes]
    precision: NDArray[np.bool_]
    recall: NDArray[np.bool_]


def _manifold(subject: Subject) -> _Manifold | None:
    sides = choose_sides(subject, most=MOST_ROWS, max_bins=MERGED_BINS)
    if sides.smallest <= NEIGHBOURS:
        return None
    ours, theirs = (_unit(vectors.astype(np.float64)) for vectors in vectors_of(subject, sides))
    bins = sides.bins
    if min(int(b.max()) + 1 for b in bins) < MIN_BINS or subject.is_real:
        bins = (np.zeros(len(ours), dtype=np.int64), np.zeros(len(theirs), dtype=np.int64))
    inside, turned = _find_inside(theirs, ours, bins[1]), _find_inside(ours, theirs, bins[0])
    return _Manifold(sides=sides, bins=bins, precision=inside, recall=turned)


@single_blas_thread()
def _find_inside(centres: Floats, points: Floats, bins: Codes) -> NDArray[np.bool_]:
    """Whether each point is in the ball of a centre, shape (points, 1 + bins): of all centres, and without each bin."""
    reach = _reaches(centres, bins)
    out = np.zeros((len(points), reach.shape[1]), dtype=bool)
    tile = max(1, _CELLS // len(points))
    for start in range(0, len(centres), tile):
        here = slice(start, start + tile)
        cosines = centres[here] @ points.T
        for column in range(reach.shape[1]):
            hit = cosines > reach[here, column, None]
            hit[bins[here] == column - 1] = False
            out[:, column] |= hit.any(axis=0)
    return out


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


def _unit(vectors: Floats) -> Floats:
    out: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return out


# --- MAUVE ---
def measure_mauve(subject: Subject) -> Estimate | None:
    """MAUVE (Pillutla et al., arXiv 2102.01454) of the corpus and the real rows, on the encoder's vectors.

    Principal components with 90% of the variance, k-means with a tenth of the smaller side's rows as buckets, 25
    points of the divergence curve, scaling 5. One clustering moves the number by 0.03 and more, so it is the mean
    over five (the authors' code takes the tightest of five). Two samples of *one* distribution do not score 1: the
    setting ``same_distribution`` is what they score on average at these very sizes and buckets (rows of both sides
    dealt anew), and the p-value is the share of such deals that score as low. The interval holds the buckets
    fixed. Rows of one group are not independent: one row a group is used. Above 6,000 rows of both sides together
    a seeded sample is used. None with fewer than 20 rows on a side; where the corpus is the real data it is 1.
    """
    sides = choose_sides(subject, most=MAUVE_ROWS, one_a_group=True)
    if sides.smallest < MIN_ROWS:
        return None
    buckets = max(2, round(sides.smallest / ROWS_A_BUCKET))
    codes, components = quantise(
        np.vstack(vectors_of(subject, sides)), buckets, seed=derive_seed(subject.seed, "mauve")
    )
    n, size = len(sides.ours), 1 + max(int(bucket_of.max()) for bucket_of in codes)
    counts = [(count_by_bin(c[:n], sides.ours.bins, size), count_by_bin(c[n:], sides.theirs.bins, size)) for c in codes]
    value = float(np.mean([mauve_of(here.sum(axis=0), there.sum(axis=0)) for here, there in counts]))
    deals = _redealt(codes, n, subject)
    p_value = (1 + int(np.sum(deals <= value + 1e-12))) / (len(deals) + 1) if len(deals) else None
    settings: dict[str, str | float] = {
        **sides.settings, "buckets": buckets,
        "components": components, "clusterings": len(codes), "scaling": SCALING, "points": POINTS,
        "permutations": len(deals),
    }  # fmt: skip
    if len(deals):
        settings["same_distribution"] = float(deals.mean())
    return estimate_two_samples(
        subject,
        value,
        lambda: (
            np.mean([mauve_of(here.sum(axis=0) - here, there.sum(axis=0)) for here, there in counts], axis=0),
            np.mean([mauve_of(here.sum(axis=0), there.sum(axis=0) - there) for here, there in counts], axis=0),
        ),
        settings,
        bins=sides.bins,
        p_value=None if subject.is_real else p_value,
        bounds=(0.0, 1.0),
    )


def mauve_of(ours: Floats, theirs: Floats) -> Floats:
    """MAUVE of histograms: counts over the buckets on the last axis, the other axes are broadcast.

    The area under the curve of ``exp(-5 KL(Q | R))`` against ``exp(-5 KL(P | R))`` for mixtures
    ``R = w P + (1 - w) Q``, the mean of both ways to lay the trapezia.
    """
    p, q = np.broadcast_arrays(ours, theirs)
    with np.errstate(invalid="ignore", divide="ignore"):
        p, q = p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True)
    shape = (*p.shape[:-1], 1)
    xs, ys = [np.ones(shape)[..., 0]], [np.zeros(shape)[..., 0]]
    for weight in np.linspace(1e-6, 1.0 - 1e-6, POINTS):
        mixture = weight * p + (1.0 - weight) * q
        xs.append(np.exp(-SCALING * _divergence(q, mixture)))
        ys.append(np.exp(-SCALING * _divergence(p, mixture)))
    xs.append(np.zeros_like(xs[0]))
    ys.append(np.ones_like(ys[0]))
    x, y = np.stack(xs, axis=-1), np.stack(ys, axis=-1)
    out: Floats = 0.5 * (_area(x, y) + _area(y, x))
    return out


def quantise(vectors: Vectors, buckets: int, *, seed: int = 0) -> tuple[list[Codes], int]:
    """The bucket of each row, shape (n,), in each of 5 clusterings, and how many principal components were used.

    Args:
        vectors: unit rows of both samples, shape (n, d).
        buckets: of k-means; fewer where fewer rows are distinct.
        seed: of the starts.
    """
    from sklearn.cluster import KMeans

    data = vectors.astype(np.float64)
    data -= data.mean(axis=0)
    values, axes = np.linalg.eigh(data.T @ data)
    share = np.cumsum(np.maximum(values[::-1], 0.0))
    if share[-1] <= 0:
        return [np.zeros(len(data), dtype=np.int64)], 0
    components = int(np.argmax(share >= EXPLAINED * share[-1])) + 1
    reduced = np.round(data @ axes[:, ::-1][:, :components], 9)
    count = min(buckets, len(np.unique(reduced, axis=0)))
    codes = [
        KMeans(count, n_init=1, max_iter=500, random_state=derive_seed(seed, start) % 2**32).fit_predict(reduced)
        for start in range(CLUSTERINGS)
    ]
    return [found.astype(np.int64) for found in codes], components


def _divergence(p: Floats, q: Floats) -> Floats:
    """KL(p | q) along the last axis; q is positive where p is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        out: Floats = np.maximum(np.where(p > 0, p * np.log(p / q), 0.0).sum(axis=-1), 0.0)
    return out


def _area(x: Floats, y: Floats) -> Floats:
    order = np.lexsort((-y, x), axis=-1)  # from the top down where x is the same: equal histograms have area 1
    x, y = np.take_along_axis(x, order, axis=-1), np.take_along_axis(y, order, axis=-1)
    out: Floats = (0.5 * np.diff(x, axis=-1) * (y[..., 1:] + y[..., :-1])).sum(axis=-1)
    return out


def _redealt(codes: list[Codes], n: int, subject: Subject) -> Floats:
    """MAUVE of ``permutations`` random deals of all rows into two sides of the true sizes."""
    rows = len(codes[0])
    if min(n, rows - n) < MIN_BINS:
        return np.zeros(0)
    rng = derive_rng(subject.seed, "mauve-deals")
    member = np.zeros((subject.permutations, rows), dtype=np.float32)
    for deal in member:
        deal[rng.permutation(rows)[:n]] = 1.0
    out = np.zeros(subject.permutations)
    for bucket_of in codes:
        indicator = np.zeros((rows, int(bucket_of.max()) + 1), dtype=np.float32)
        indicator[np.arange(rows), bucket_of] = 1.0
        ours = (member @ indicator).astype(np.float64)  # whole numbers: exact
        out += mauve_of(ours, indicator.sum(axis=0, dtype=np.float64) - ours) / len(codes)
    return out
