"""Diversity of meaning: numbers of the embedded rows, from kernels, spectra and distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cuvee import similarity
from cuvee.measure.intervals import Settings, estimate_by_jackknife, estimate_hits
from cuvee.measure.subject import NEAR_DUPLICATE, Subject
from cuvee.records import Estimate, Profile
from cuvee.similarity import diversity

PROFILE_ORDERS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
PROFILE_TAUS = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)


# --- kernels ------------------------------------------------------------------------------------------
def measure_dcscore(subject: Subject, tau: float) -> Estimate:
    """DCScore (arXiv 2502.08512): ``trace(softmax(K / tau))`` with the cosine kernel, between 1 and n.

    At tau = 1 n orthogonal rows score only n e / (n - 1 + e), below 2.72 for any n; at 0.05 it nearly counts
    rows. Read it over a range of tau.
    """
    return _estimate_kernel(subject, subject.sums(tau), {"tau": tau, "kernel": "cosine"})


def _estimate_kernel(subject: Subject, sums: similarity.RowSums, settings: Settings) -> Estimate:
    rows = subject.sample
    value, said = similarity.kernel_diversity(sums.total, population=subject.n), {**settings, **_sampling(subject)}
    if rows is not None:
        said["sampling_error"] = _sampling_error(sums.total, subject.n)
    return estimate_by_jackknife(
        subject, value, lambda: similarity.kernel_diversity_without(sums, subject.bins, rows=rows), said
    )


def _sampling_error(total: NDArray[np.float64], n: int) -> float:
    """95% bound on what the sample of rows adds to the error: D is n times the mean of 1 / total over all rows.

    Simple random sampling without replacement (Cochran 1977, Sampling Techniques, section 2.6). The interval of
    the number holds this error and that of the rows themselves.
    """
    m = len(total)
    return float(1.96 * n * np.std(1.0 / total, ddof=1) * np.sqrt((1.0 - m / n) / m))


def _sampling(subject: Subject) -> dict[str, int]:
    """The setting ``sampled_rows`` of a number whose all-pairs sums are of a sample of rows; else nothing."""
    return {} if subject.sample is None else {"sampled_rows": len(subject.sample)}


def _order(q: float) -> str | float:
    return "inf" if np.isinf(q) else q


# --- the spectrum -------------------------------------------------------------------------------------
def measure_vendi(subject: Subject, q: float) -> Estimate:
    """Vendi score of order q (arXiv 2210.02410, 2310.12952) with the cosine kernel, between 1 and min(n, d).

    Order 0 counts the independent directions, min(n, d) on nearly any texts; a count that a left-out group hardly
    ever changes, so it has no interval.
    """
    value, settings = similarity.vendi_score(subject.eigenvalues, q), {"q": _order(q), "kernel": "cosine"}
    if q == 0:
        return Estimate(value=value, n=subject.n, settings=settings)

    def without() -> NDArray[np.float64]:
        return np.array([similarity.vendi_score(left, q) for left in subject.eigenvalues_without])

    return estimate_by_jackknife(subject, value, without, settings)


# --- profiles -----------------------------------------------------------------------------------------
def order_profile(subject: Subject, *, orders: Sequence[float] = PROFILE_ORDERS) -> Profile:
    """Vendi score over orders q, with jackknife intervals: it never rises, and falls where a few meanings dominate.

    Args:
        subject: the corpus and its encoder.
        orders: 0 or more, or inf.
    """
    points = tuple((float(q), measure_vendi(subject, q)) for q in orders)
    return Profile(name="vendi", parameter="q", points=points)


def tau_profile(subject: Subject, *, taus: Sequence[float] = PROFILE_TAUS) -> Profile:
    """DCScore over temperatures, with jackknife intervals: from counting rows (small tau) to 1 (large tau).

    Raises:
        ValueError: a tau that is not positive.
    """
    if subject.sample is None:
        found = similarity.row_sums(subject.unit, taus, bins=subject.bins)
    else:
        found = [subject.sums(tau) for tau in taus]
    points = [
        (float(tau), _estimate_kernel(subject, sums, {"tau": tau, "kernel": "cosine"}))
        for tau, sums in zip(taus, found, strict=True)
    ]
    return Profile(name="dcscore", parameter="tau", points=tuple(points))


# --- pairs of rows ------------------------------------------------------------------------------------
def measure_mean_cosine(subject: Subject) -> Estimate | None:
    """Mean cosine over all pairs of different rows; None for one row."""
    if subject.n < 2:
        return None
    return estimate_by_jackknife(
        subject, diversity.mean_cosine(subject.unit), lambda: diversity.mean_cosine_without(subject.unit, subject.bins),
        {"kernel": "cosine"},
    )  # fmt: skip


def measure_mean_nearest_cosine(subject: Subject) -> Estimate | None:
    """Mean cosine of a row to the nearest other row; None for one row.

    It rises with the number of rows. The field's Chamfer distance is 1 less it. It has no interval: the nearest row is
    no smooth function of the rows, and the jackknife's standard error is up to twice the true one.
    """
    if subject.n < 2:
        return None
    value = float(subject.nearest.cosine.mean(dtype=np.float64))
    return Estimate(value=value, n=subject.n, settings={"kernel": "cosine", **_sampling(subject)})


def measure_near_duplicates(subject: Subject) -> Estimate:
    """Fraction of rows that have another row at a cosine of at least 0.95.

    Of all rows, or of a sample of them against all where there are too many: the interval counts that in.
    """
    settings: Settings = {"threshold": NEAR_DUPLICATE, "kernel": "cosine"}
    hits = subject.nearest.cosine >= np.float32(NEAR_DUPLICATE)
    if subject.sample is None:
        return estimate_hits(subject, hits, settings)
    sampled = Subject(corpus=subject.corpus.take(subject.sample), seed=subject.seed)
    return replace(estimate_hits(sampled, hits, {**settings, **_sampling(subject)}), n=subject.n)
