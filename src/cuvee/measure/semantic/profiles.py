"""Diversity over a range of one parameter: the order q, or the temperature tau."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cuvee.measure.intervals import estimate_by_jackknife
from cuvee.measure.semantic.kernel_numbers import measure_leinster_cobbold, measure_vendi, sampling
from cuvee.measure.subject import Subject
from cuvee.records import Estimate
from cuvee.records.parts import Profile
from cuvee.similarity import Exponential, RowSums, kernel_diversity, kernel_diversity_without, row_sums

PROFILE_ORDERS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
PROFILE_TAUS = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)


def order_profile(
    subject: Subject,
    kind: Literal["vendi", "dcscore"] = "vendi",
    *,
    tau: float = 0.1,
    orders: Sequence[float] = PROFILE_ORDERS,
) -> Profile:
    """Diversity over orders q, with jackknife intervals: it never rises, and falls where a few meanings dominate.

    Args:
        subject: the corpus and its encoder.
        kind: ``vendi``, or ``dcscore``: the Leinster-Cobbold diversity whose order 0 is DCScore.
        tau: of the kernel of ``dcscore``.
        orders: 0 or more, or inf.

    Raises:
        ValueError: another kind, or an order below 0.
    """
    if kind not in ("vendi", "dcscore"):
        raise ValueError(f"kind is {kind!r}; valid: 'vendi', 'dcscore'")
    if kind == "vendi":
        points = tuple((float(q), measure_vendi(subject, q)) for q in orders)
        return Profile(name="vendi", parameter="q", points=points)
    points = tuple((float(q), measure_leinster_cobbold(subject, q, tau)) for q in orders)
    return Profile(name=f"dcscore_tau{tau:g}", parameter="q", points=points)


def tau_profile(subject: Subject, *, taus: Sequence[float] = PROFILE_TAUS) -> Profile:
    """DCScore over temperatures, with jackknife intervals: from counting rows (small tau) to 1 (large tau).

    Raises:
        ValueError: a tau that is not positive.
    """
    kernels = [Exponential(tau) for tau in taus]
    if subject.sample is None:
        found = row_sums(subject.unit, kernels, bins=subject.bins, compute=subject.compute)
    else:
        found = [subject.sums(kernel) for kernel in kernels]
    points = tuple((float(tau), _estimate(subject, sums, tau)) for tau, sums in zip(taus, found, strict=True))
    return Profile(name="dcscore", parameter="tau", points=points)


def _estimate(subject: Subject, sums: RowSums, tau: float) -> Estimate:
    return estimate_by_jackknife(
        subject,
        kernel_diversity(sums.total, population=subject.n),
        lambda: kernel_diversity_without(sums, subject.bins, rows=subject.sample),
        {"tau": tau, "kernel": "cosine", **sampling(subject)},
    )
