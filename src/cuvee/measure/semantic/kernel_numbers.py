"""Diversity of meaning from kernels of the embedded rows: DCScore, Leinster-Cobbold, Vendi, near-duplicates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.intervals import estimate_by_jackknife, estimate_rate
from cuvee.measure.subject import NEAR_DUPLICATE, Subject
from cuvee.records import Estimate
from cuvee.similarity import (
    Exponential,
    Kernel,
    Laplacian,
    Polynomial,
    Rbf,
    canonical_order,
    kernel_diversity,
    kernel_diversity_without,
    log_det,
    mean_cosine,
    mean_cosine_without,
    median_distance,
    vendi_score,
)

_KERNEL_TAU = 0.1
_DEGREE, _OFFSET = 3, 1.0


def measure_dcscore(subject: Subject, tau: float) -> Estimate:
    """DCScore (arXiv 2502.08512): ``trace(softmax(K / tau))`` with the cosine kernel, between 1 and n.

    At tau = 1 n orthogonal rows score only n e / (n - 1 + e), below 2.72 for any n; at 0.05 it nearly counts
    rows. Read it over a range of tau.
    """
    return _measure_kernel(subject, Exponential(tau), 0.0, {"tau": tau, "kernel": "cosine"})


def measure_leinster_cobbold(subject: Subject, q: float, tau: float) -> Estimate:
    """Leinster-Cobbold diversity of order q (Ecology 93, 2012) with the similarity ``exp((cos - 1) / tau)``.

    Order 0 is DCScore. The higher the order, the less rare meanings count: order 1 is the exponential of a
    similarity-sensitive Shannon entropy, 2 one over the mean similarity of two rows, inf one over the mean
    similarity of the most typical row to all. Between 1 and n. Order inf has no interval: a maximum is not smooth,
    and jackknife intervals on it cover 83% where rows come in groups.
    """
    return _measure_kernel(subject, Exponential(tau), q, {"q": _order(q), "tau": tau, "kernel": "cosine"})


def measure_dcscore_rbf(subject: Subject) -> Estimate:
    """DCScore with the RBF kernel: ``softmax(K / tau)`` of ``K = exp(-|x - y|^2 / (2 sigma^2))``, tau = 0.1.

    sigma is the median distance between different rows, and counts as fixed in the interval. The paper's own
    settings (softmax of K with no further temperature) saturate at e, as tau = 1 does.
    """
    sigma = subject.once(_median_distance)
    settings: dict[str, str | float] = {"tau": _KERNEL_TAU, "kernel": "rbf", "sigma": sigma}
    return _measure_kernel(subject, Rbf(sigma, _KERNEL_TAU), 0.0, settings)


def measure_dcscore_laplacian(subject: Subject) -> Estimate:
    """DCScore with the Laplacian kernel ``exp(-|x - y| / sigma)``, tau = 0.1, sigma the median distance.

    The distance is Euclidean, so that turning the embedding space changes nothing; the authors' code takes the
    Manhattan distance. float32 resolves no distance below 0.0005, so copies count up to 0.5% too much.
    """
    sigma = subject.once(_median_distance)
    settings: dict[str, str | float] = {"tau": _KERNEL_TAU, "kernel": "laplacian", "sigma": sigma}
    return _measure_kernel(subject, Laplacian(sigma, _KERNEL_TAU), 0.0, settings)


def measure_dcscore_polynomial(subject: Subject) -> Estimate:
    """DCScore with the polynomial kernel ``((cos + 1) / 2)^3``, tau = 0.1; scaled so that equal rows have 1."""
    settings: dict[str, str | float] = {"tau": _KERNEL_TAU, "kernel": "polynomial"}
    settings |= {"degree": _DEGREE, "offset": _OFFSET}
    return _measure_kernel(subject, Polynomial(_DEGREE, _OFFSET, _KERNEL_TAU), 0.0, settings)


def measure_vendi(subject: Subject, q: float) -> Estimate:
    """Vendi score of order q (arXiv 2210.02410, 2310.12952) with the cosine kernel, between 1 and min(n, d).

    Order 0 counts the independent directions, min(n, d) on nearly any texts; a count that a left-out group hardly
    ever changes, so it has no interval.
    """
    value, settings = vendi_score(subject.eigenvalues, q), {"q": _order(q), "kernel": "cosine"}
    if q == 0:
        return Estimate(value=value, n=subject.n, settings=settings)
    return estimate_by_jackknife(
        subject,
        value,
        lambda: np.array([vendi_score(values, q) for values in subject.eigenvalues_without]),
        settings,
    )


def measure_log_det(subject: Subject) -> Estimate:
    """``log det(I + K)`` over n with the cosine kernel K, in nats: from log(1 + n) / n to log 2.

    The log-volume of the rows that determinantal point processes and subset selection work with
    (arXiv 2402.02318), per row. Exact through the spectrum.
    """
    rows = subject.n - np.bincount(subject.bins)
    return estimate_by_jackknife(
        subject,
        log_det(subject.eigenvalues, subject.n),
        lambda: np.array(
            [log_det(values, int(n)) for values, n in zip(subject.eigenvalues_without, rows, strict=True)]
        ),
        {"kernel": "cosine", "scale": 1.0},
    )


def measure_mean_cosine(subject: Subject) -> Estimate | None:
    """Mean cosine over all pairs of different rows; None for one row."""
    if subject.n < 2:
        return None
    return estimate_by_jackknife(
        subject,
        mean_cosine(subject.unit),
        lambda: mean_cosine_without(subject.unit, subject.bins),
        {"kernel": "cosine"},
    )


def measure_near_duplicates(subject: Subject) -> Estimate:
    """Fraction of rows that have another row at a cosine of at least 0.95.

    Of all rows, or of a sample of them against all where there are too many: the interval counts that in.
    """
    every = subject.near_duplicates
    if every is not None:
        return estimate_rate(subject, every, {"threshold": NEAR_DUPLICATE, "kernel": "cosine"})
    hits: NDArray[np.bool_] = subject.nearest.cosine >= NEAR_DUPLICATE
    settings: dict[str, str | float] = {"threshold": NEAR_DUPLICATE, "kernel": "cosine", **sampling(subject)}
    if subject.sample is None:
        return estimate_rate(subject, hits, settings)
    sampled = Subject(corpus=subject.corpus.take(subject.sample), seed=subject.seed)
    return replace(estimate_rate(sampled, hits, settings), n=subject.n)


def _measure_kernel(subject: Subject, kernel: Kernel, q: float, settings: dict[str, str | float]) -> Estimate:
    sums, rows = subject.sums(kernel), subject.sample
    value = kernel_diversity(sums.total, q, population=subject.n)
    settings = {**settings, **sampling(subject)}
    if rows is not None and q == 0:
        settings["sampling_error"] = _sampling_error(sums.total, subject.n)
    if np.isinf(q):
        return Estimate(value=value, n=subject.n, settings=settings)
    return estimate_by_jackknife(
        subject, value, lambda: kernel_diversity_without(sums, subject.bins, q, rows=rows), settings
    )


def _sampling_error(total: NDArray[np.float64], n: int) -> float:
    """95% bound on what the sample of rows adds to the error: D is n times the mean of 1 / total over all rows.

    Simple random sampling without replacement (Cochran 1977, Sampling Techniques, section 2.6). The interval of
    the number holds this error and that of the rows themselves.
    """
    m = len(total)
    return float(1.96 * n * np.std(1.0 / total, ddof=1) * np.sqrt((1.0 - m / n) / m))


def sampling(subject: Subject) -> dict[str, int]:
    """The setting ``sampled_rows`` of a number whose all-pairs sums are of a sample of rows; else nothing."""
    return {} if subject.sample is None else {"sampled_rows": len(subject.sample)}


def _median_distance(subject: Subject) -> float:
    return median_distance(subject.unit[canonical_order(subject.unit)], seed=subject.seed)


def _order(q: float) -> str | float:
    return "inf" if np.isinf(q) else q
