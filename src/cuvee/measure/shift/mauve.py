"""MAUVE: the area under the divergence curve of two quantised samples."""

from __future__ import annotations

import numpy as np

from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.measure.shift.sides import Codes, Floats, Sides, choose_sides, estimate_from_sides, vectors_of
from cuvee.measure.subject import MIN_BINS, Subject
from cuvee.records import Estimate, Vectors

SCALING = 5.0
POINTS = 25
EXPLAINED = 0.9
CLUSTERINGS = 5
ROWS_A_BUCKET = 10
MOST_ROWS = 6000
MIN_ROWS = 20


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
    sides = choose_sides(subject, most=MOST_ROWS, one_a_group=True)
    if sides.smallest < MIN_ROWS:
        return None
    buckets = max(2, round(sides.smallest / ROWS_A_BUCKET))
    codes, components = quantise(
        np.vstack(vectors_of(subject, sides)), buckets, seed=derive_seed(subject.seed, "mauve")
    )
    counts = [_counts_by_bin(bucket_of, sides) for bucket_of in codes]
    value = float(np.mean([mauve_of(here.sum(axis=0), there.sum(axis=0)) for here, there in counts]))
    deals = _redealt(codes, len(sides.ours), subject)
    p_value = (1 + int(np.sum(deals <= value + 1e-12))) / (len(deals) + 1) if len(deals) else None
    settings: dict[str, str | float] = {
        "buckets": buckets,
        "components": components,
        "clusterings": len(codes),
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
            np.mean([mauve_of(here.sum(axis=0) - here, there.sum(axis=0)) for here, there in counts], axis=0),
            np.mean([mauve_of(here.sum(axis=0), there.sum(axis=0) - there) for here, there in counts], axis=0),
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


def _counts_by_bin(bucket_of: Codes, sides: Sides) -> tuple[Floats, Floats]:
    """Rows by jackknife bin and bucket, of both sides."""
    n, buckets = len(sides.ours), int(bucket_of.max()) + 1
    out = []
    for side, own in ((sides.ours, bucket_of[:n]), (sides.theirs, bucket_of[n:])):
        counts = np.zeros((int(side.bins.max()) + 1, buckets))
        np.add.at(counts, (side.bins, own), 1.0)
        out.append(counts)
    return out[0], out[1]


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
