"""MAUVE: the area under the divergence curve of two quantised samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.measure.shift.sides import Codes, Floats, Sides, choose_sides, estimate_from_sides, vectors_of
from cuvee.measure.subject import MIN_BINS, Subject
from cuvee.records import Estimate, Vectors

SCALING = 5.0
POINTS = 25
EXPLAINED = 0.9
RESTARTS = 5
ROWS_A_BUCKET = 10
MOST_ROWS = 6000
MIN_ROWS = 20


def measure_mauve(subject: Subject) -> Estimate | None:
    """MAUVE (Pillutla et al., arXiv 2102.01454) of the corpus and the real rows, on the encoder's vectors.

    Principal components with 90% of the variance, k-means with a tenth of the smaller side's rows as buckets, 25
    points of the divergence curve, scaling 5. Two samples of *one* distribution do not score 1: the setting
    ``same_distribution`` is what they score on average at these very sizes and buckets (rows of both sides dealt
    anew), and the p-value is the share of such deals that score as low. It moves by about 0.01 with the seed, and with
    the encoder. The interval holds the buckets fixed. Rows of one group are not independent: one row a group is used.
    Above 6,000 rows of both sides together a seeded sample is used. None with fewer than 20 rows on a side; where
    the corpus is the real data it is 1.
    """
    sides = choose_sides(subject, most=MOST_ROWS, one_a_group=True)
    if sides.smallest < MIN_ROWS:
        return None
    buckets = max(2, round(sides.smallest / ROWS_A_BUCKET))
    ours, theirs = vectors_of(subject, sides)
    bucket_of, components = quantise(np.vstack([ours, theirs]), buckets, seed=derive_seed(subject.seed, "mauve"))
    buckets = int(bucket_of.max()) + 1
    here, there = _counts_by_bin(bucket_of, sides, buckets)
    value = float(mauve_of(here.sum(axis=0), there.sum(axis=0)))
    deals = _redealt(bucket_of, len(ours), buckets, subject)
    p_value = (1 + int(np.sum(deals <= value))) / (len(deals) + 1) if len(deals) else None
    settings: dict[str, str | float] = {
        "buckets": buckets,
        "components": components,
        "scaling": SCALING,
        "points": POINTS,
        "permutations": len(deals),
    }
    if len(deals):
        settings["same_distribution"] = float(deals.mean())
    return estimate_from_sides(
        subject,
        sides,
        value,
        lambda: (
            mauve_of(here.sum(axis=0) - here, there.sum(axis=0)),
            mauve_of(here.sum(axis=0), there.sum(axis=0) - there),
        ),
        settings,
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


def quantise(vectors: Vectors, buckets: int, *, seed: int = 0) -> tuple[Codes, int]:
    """The bucket of each row, shape (n,), and how many principal components were used.

    Args:
        vectors: unit rows of both samples, shape (n, d).
        buckets: of k-means, best of 5 starts.
        seed: of the starts.
    """
    from sklearn.cluster import KMeans

    data = vectors.astype(np.float64)
    data -= data.mean(axis=0)
    values, axes = np.linalg.eigh(data.T @ data)
    share = np.cumsum(np.maximum(values[::-1], 0.0))
    if share[-1] <= 0:
        return np.zeros(len(data), dtype=np.int64), 0
    components = int(np.argmax(share >= EXPLAINED * share[-1])) + 1
    reduced = np.round(data @ axes[:, ::-1][:, :components], 9)
    distinct = len(np.unique(reduced, axis=0))
    start = KMeans(min(buckets, distinct), n_init=RESTARTS, max_iter=500, random_state=seed % 2**32)
    return start.fit_predict(reduced).astype(np.int64), components


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


def _counts_by_bin(bucket_of: Codes, sides: Sides, buckets: int) -> tuple[Floats, Floats]:
    """Rows by jackknife bin and bucket, of both sides."""
    n = len(sides.ours)
    out = []
    for side, own in ((sides.ours, bucket_of[:n]), (sides.theirs, bucket_of[n:])):
        counts = np.zeros((int(side.bins.max()) + 1, buckets))
        np.add.at(counts, (side.bins, own), 1.0)
        out.append(counts)
    return out[0], out[1]


def _redealt(bucket_of: Codes, n: int, buckets: int, subject: Subject) -> NDArray[np.float64]:
    """MAUVE of ``permutations`` random deals of all rows into two sides of the true sizes."""
    if min(n, len(bucket_of) - n) < MIN_BINS or not subject.permutations:
        return np.zeros(0)
    whole = np.bincount(bucket_of, minlength=buckets)
    rng = derive_rng(subject.seed, "mauve-deals")
    ours = rng.multivariate_hypergeometric(whole, n, size=subject.permutations).astype(np.float64)
    return mauve_of(ours, whole - ours)
