"""Distribution shift: how far a corpus lies from the real training data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.measure.subject import MIN_BINS, Subject
from cuvee.records import Estimate
from cuvee.similarity import mmd


def measure_mmd(subject: Subject) -> Estimate | None:
    """Unbiased squared MMD to the real training rows, RBF kernel, with a permutation p-value.

    It can be negative where there is no shift. Rows of one group are not exchangeable, so the test runs on
    one row a group (drawn by seed) where there are groups; it has no p-value below four groups. None where a
    side has a single row.
    """
    if min(subject.n, len(subject.real)) < 2:
        return None
    ours = _one_row_a_group(subject.corpus.groups, subject.seed)
    theirs = _one_row_a_group(subject.real.groups, subject.seed)
    independent = len(ours) == subject.n and len(theirs) == len(subject.real)
    testable = min(len(ours), len(theirs)) >= MIN_BINS
    seed = derive_seed(subject.seed, "mmd")
    permutations = subject.permutations if testable else 0
    found = mmd(subject.unit, subject.against_unit, permutations=permutations if independent else 0, seed=seed)
    p_value = found.p_value
    if not independent and permutations:
        test = mmd(subject.unit[ours], subject.against_unit[theirs], permutations=permutations, seed=seed)
        p_value = test.p_value
    settings: dict[str, str | float] = {
        "kernel": "rbf",
        "bandwidth": found.bandwidth,
        "rows": found.rows,
        "against_rows": found.other_rows,
        "permutations": permutations,
        "test_rows": "all" if independent else f"one a group: {len(ours)} and {len(theirs)}",
    }
    return Estimate(value=found.value, n=subject.n, p_value=p_value, settings=settings)


def _one_row_a_group(groups: Sequence[str], seed: int) -> NDArray[np.int64]:
    order = derive_rng(seed, "one-row-a-group").permutation(len(groups))
    chosen: dict[str, int] = {}
    for row in order.tolist():
        chosen.setdefault(groups[row], row)
    return np.sort(np.array(list(chosen.values()), dtype=np.int64))
