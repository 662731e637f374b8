"""Diversity of meaning: DCScore, Vendi, mean cosine and near-duplicates of the embedded rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.intervals import estimate_by_jackknife, estimate_rate
from cuvee.measure.subject import NEAR_DUPLICATE, Subject
from cuvee.records import Estimate
from cuvee.similarity import (
    AtLeast,
    Exponential,
    kernel_diversity,
    kernel_diversity_without,
    mean_cosine,
    mean_cosine_without,
    vendi_score,
)


def measure_dcscore(subject: Subject, tau: float) -> Estimate:
    """DCScore (arXiv 2502.08512): ``trace(softmax(K / tau))`` with the cosine kernel, between 1 and n.

    At tau = 1 n orthogonal rows score only n e / (n - 1 + e), below 2.72 for any n; at 0.05 it nearly counts
    rows. Read it over a range of tau.
    """
    sums = subject.sums(Exponential(tau))
    return estimate_by_jackknife(
        subject,
        kernel_diversity(sums.total),
        lambda: kernel_diversity_without(sums, subject.bins),
        {"tau": tau, "kernel": "cosine"},
    )


def measure_vendi(subject: Subject, q: float) -> Estimate:
    """Vendi score of order q (arXiv 2210.02410, 2310.12952) with the cosine kernel, between 1 and min(n, d)."""
    return estimate_by_jackknife(
        subject,
        vendi_score(subject.eigenvalues, q),
        lambda: np.array([vendi_score(values, q) for values in subject.eigenvalues_without]),
        {"q": "inf" if np.isinf(q) else q, "kernel": "cosine"},
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
    """Fraction of rows that have another row at a cosine of at least 0.95."""
    neighbours = subject.sums(AtLeast(NEAR_DUPLICATE)).total
    hits: NDArray[np.bool_] = neighbours > 1.5  # each row counts itself
    return estimate_rate(subject, hits, {"threshold": NEAR_DUPLICATE, "kernel": "cosine"})
