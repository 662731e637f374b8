"""What the evidence favours where it does not settle: the lean of a study, and what blends share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from scipy import special

from cuvee.recommend.cells import BASELINES, CellTable, difference_of, find_baseline
from cuvee.recommend.search import log_amount
from cuvee.recommend.statistics import split_variance
from cuvee.records import Cell, Floats, Gain
from cuvee.records.advice import Lean

_AMOUNT = 10.0  # synthetic rows for each real one at which prior standard deviations are told, as fractions
_COMMON = 0.03, 0.1  # those of the curve that all pools have in common that are weighed
# Those of what each pool has of its own that are weighed.
_SPREADS = 0.01 * np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.5, 8.0, 10.0])
_USUAL = 0.03  # scale of their half-normal prior
_ONE_DRAW = 0.024  # SD of a gain over draws where one draw does not tell
_MOST_SHARED = 0.95
_BASELINES = 0.03  # prior standard deviation of what repeating real rows gains over the real rows alone


def find_lean(
    grid: Mapping[Cell, CellTable], validated: Mapping[Cell, Sequence[Gain]], confirmed: Mapping[Cell, Sequence[Gain]]
) -> Lean | None:
    """The blend with the highest expected score, and its gain over both baselines; None where no blend has both.

    A verdict errs rarely and therefore often says nothing. Who must decide today wants the better bet. The gains
    ``g`` of the blends over one baseline are read as

        g[c] = common(a) + own[pool](a) + shared error + error[c]        a = log(1 + amount)

    and the gain of a confirmation as a second look at its blend. Without synthetic rows there is no gain, and near
    amounts of one pool gain alike: so the curve that all pools have in common, and what each pool has of its own,
    are Brownian motions in ``a`` from 0 (a spline through the gains, as of Wahba 1990, *Spline Models for
    Observational Data*). At 10 rows for each real one, the common curve has a standard deviation of 3 or of 10
    points, each as probable before, and the own curves one of ``spread``. The rest is normal with known variances,
    so the posterior is exact for each pair of these; pairs are weighed by their likelihood, spreads by a half-
    normal prior of 3 points too (a hierarchical model: Gelman et al. 2013, *Bayesian Data Analysis*, ch. 5). The
    values of ``spread`` that are tried lie closer together near 0, and each counts once, which makes small spreads
    more probable before than the half-normal alone does. This shrinks the best of many blends by what it owes to
    having been chosen: a posterior does not depend on the choice (Efron 2011, JASA 106, "Tweedie's formula and
    selection bias"). Errors are those of the gains, widened to their t intervals. What blends share (the baseline's
    luck, easy items) cannot be averaged away: it is the variance of the mean over blends beyond that of their own
    errors.

    A blend must help over both baselines. The lower of two noisy numbers is too low where the truth is the same, so
    of the difference between the two baselines only the part counts that is beyond its own error (with a prior of 3
    points); what is left out counts half for either baseline. The blend is the one with the highest expected score,
    that is gain over the real rows alone: the one that gains most over both may score lower, where repeating real
    rows hurts at some amounts. With one generation draw the spread over draws is unknown; 2.4 points are taken, the
    median of recorded studies.

    Args:
        grid: all cells of one trainer, loss and number of real rows.
        validated: the blends that may win, with their gains on validation.
        confirmed: gains of some of them on the locked test.
    """
    cells = [c for c, gains in validated.items() if {g.over for g in gains} >= set(BASELINES)]
    if not cells:
        return None
    found = []
    for over in BASELINES:
        gains = [next(g for g in validated[c] if g.over == over) for c in cells]
        again = {cells.index(c): g for c in confirmed if c in cells for g in confirmed[c] if g.over == over}
        found.append(_weigh_gains(cells, gains, again, find_shared_part(grid, cells, gains)))
    (first, first_chances), (second, second_chances) = found
    kept = np.array([_keep_difference(grid, cell, validated[cell][0]) for cell in cells])
    repeated = kept * (first - second)
    best = int(np.argmax(first + second + repeated))
    z, other = special.ndtri(np.clip([first_chances[best], second_chances[best]], 1e-12, 1.0 - 1e-12))
    return Lean(
        cell=cells[best],
        probability=float(special.ndtr((z + other - kept[best] * abs(z - other)) / 2.0)),
        gain=float(first[best] + second[best] - abs(repeated[best])) / 2.0,
        repeated=float(repeated[best]),
    )


def _keep_difference(grid: Mapping[Cell, CellTable], cell: Cell, gain: Gain) -> float:
    """The part of the difference between the baselines of a cell that is to be believed; ``gain`` is over one."""
    real, repeated = (find_baseline(grid, cell, kind) for kind in BASELINES)
    difference = None if real is None or repeated is None else difference_of(repeated, real)
    if difference is None:
        return 1.0
    variance = split_variance(difference).measure().variance + (0.0 if gain.speaks_of_draws else _ONE_DRAW**2)
    return _BASELINES**2 / (_BASELINES**2 + variance)


def _find_variance(gain: Gain) -> float:
    """Of a gain's error, widened so that the normal interval is as wide as that of t."""
    if not gain.speaks_of_draws:
        return gain.se_items**2 + _ONE_DRAW**2
    return float(((gain.high - gain.low) / 2.0 / special.ndtri(0.975)) ** 2)


def find_shared_part(grid: Mapping[Cell, CellTable], cells: Sequence[Cell], gains: Sequence[Gain]) -> float:
    """The part of the variance of gains that all blends share, from the spread of their mean."""
    tables = []
    for cell, gain in zip(cells, gains, strict=True):
        baseline = find_baseline(grid, cell, "real-only" if gain.over == "real-only" else "real-duplicated")
        difference = None if baseline is None else difference_of(grid[cell], baseline)
        if difference is not None:
            tables.append(difference)
    most = max((len(table) for table in tables), default=0)
    whole = [table for table in tables if len(table) == most]
    if len(whole) < 2:
        return 0.0
    each = float(np.mean([split_variance(table).measure().variance for table in whole]))
    joint = split_variance(np.mean(whole, axis=0)).measure().variance
    shared = (len(whole) * joint - each) / (len(whole) - 1)
    return min(max(shared / each, 0.0), _MOST_SHARED)


def _weigh_gains(
    cells: Sequence[Cell], gains: Sequence[Gain], again: Mapping[int, Gain], shared: float
) -> tuple[Floats, Floats]:
    """Expected gain of each blend, and the probability that it is above 0, shape (blends,) each."""
    count = len(gains)
    steps = np.logaddexp(0.0, [log_amount(cell) for cell in cells]) / math.log1p(_AMOUNT)
    common = np.minimum(steps[:, None], steps)
    own = common * [[(c.dial, c.level) == (other.dial, other.level) for other in cells] for c in cells]
    variances = np.array([_find_variance(gain) for gain in gains])
    seen = np.concatenate([np.eye(count), np.eye(count)[list(again)]])
    values = np.array([gain.value for gain in (*gains, *again.values())])
    error = np.diag([*variances, *map(_find_variance, again.values())])
    root = np.sqrt(shared * variances)
    error[:count, :count] = (1.0 - shared) * np.diag(variances) + np.outer(root, root)
    means, chances, weights = [], [], []
    for spread, scale in product(_SPREADS, _COMMON):
        prior = scale**2 * common + spread**2 * own
        total = seen @ prior @ seen.T + error
        weight = np.linalg.solve(total, seen @ prior).T
        mean = weight @ values
        variance = np.diag(prior - weight @ seen @ prior)
        likelihood = -0.5 * (values @ np.linalg.solve(total, values) + np.linalg.slogdet(total)[1])
        means.append(mean)
        chances.append(special.ndtr(mean / np.sqrt(np.maximum(variance, 1e-18))))
        weights.append(likelihood - 0.5 * (spread / _USUAL) ** 2)
    share = np.exp(np.array(weights) - max(weights))
    share /= math.fsum(share)
    return share @ np.array(means), share @ np.array(chances)
