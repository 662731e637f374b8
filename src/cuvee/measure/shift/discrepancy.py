"""Maximum mean discrepancy: how far a corpus lies from the real training data."""

from __future__ import annotations

import numpy as np

from cuvee.fingerprint import derive_seed
from cuvee.measure.shift.sides import Floats, Side, Sides, choose_sides, estimate_from_sides, vectors_of
from cuvee.measure.subject import MIN_BINS, Subject
from cuvee.records import Estimate
from cuvee.similarity import mmd
from cuvee.similarity.discrepancy import Discrepancy, Membership

MOST_ROWS = 4000


def measure_mmd(subject: Subject) -> Estimate | None:
    """Unbiased squared MMD to the real training rows (Gretton et al. 2012, JMLR 13), RBF kernel, median bandwidth.

    The mean is over pairs of rows of different groups, so that paraphrases of one source are no shift by
    themselves; it can be negative where there is no shift. The values without each jackknife bin are exact, from
    block sums of the kernel matrix. Where there is no shift the statistic is degenerate and the interval is too
    wide rather than too narrow: the test there is the p-value. Rows of one group are not exchangeable, so the
    permutation test runs on one row a group (drawn by seed) where there are groups; it has no p-value below four
    groups. Above 4,000 rows of both sides together a seeded sample is used. None where a side has a single group.
    """
    sides = choose_sides(subject, most=MOST_ROWS)
    if min(len(np.unique(side.groups)) for side in (sides.ours, sides.theirs)) < 2:
        return None
    tested = sides if sides.independent else choose_sides(subject, most=MOST_ROWS, one_a_group=True)
    permutations = subject.permutations if tested.smallest >= MIN_BINS else 0
    seed = derive_seed(subject.seed, "mmd")
    whole = sides.independent and not np.isin(sides.ours.groups, sides.theirs.groups).any()
    ours, theirs = vectors_of(subject, sides)
    found = mmd(
        ours,
        theirs,
        permutations=permutations if whole else 0,
        seed=seed,
        membership=(_membership(sides.ours), _membership(sides.theirs)),
    )
    p_value = found.p_value
    if permutations and not whole:
        p_value = mmd(*vectors_of(subject, tested), permutations=permutations, seed=seed).p_value
    settings: dict[str, str | float] = {
        "kernel": "rbf",
        "bandwidth": found.bandwidth,
        "permutations": permutations,
        "test_rows": _describe(sides, tested),
    }
    return estimate_from_sides(subject, sides, found.value, lambda: _left_out(found), settings, p_value=p_value)


def _membership(side: Side) -> Membership:
    return Membership(groups=side.groups, bins=side.bins)


def _left_out(found: Discrepancy) -> tuple[Floats, Floats]:
    if found.left_out is None:
        raise ValueError("left_out is None; mmd gives it where it is given membership")
    return found.left_out.ours, found.left_out.theirs


def _describe(sides: Sides, tested: Sides) -> str:
    return "all" if sides.independent else f"one a group: {len(tested.ours)} and {len(tested.theirs)}"
