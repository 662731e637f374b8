"""The two samples of a shift metric: the rows used on each side, and an interval for the chance in both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.fingerprint import derive_rng
from cuvee.measure.subject import MIN_BINS, Subject
from cuvee.records import Estimate, Vectors
from cuvee.similarity import jackknife_interval, two_sample_interval

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
MERGED_BINS = 16  # where each left-out bin costs a recomputation


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Some rows of a corpus, in the order of their ids, so that the order of the file changes nothing.

    ``rows`` are their positions in the corpus, ``bins`` their jackknife bins, counted from 0 without gaps,
    ``groups`` codes that are the same on both sides for groups of the same name; all of shape (rows,).
    """

    rows: Codes
    bins: Codes
    groups: Codes

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The rows of the corpus and of the real data that a metric compares."""

    ours: Side
    theirs: Side

    @property
    def independent(self) -> bool:
        """Whether no group has several rows on one side."""
        return all(len(np.unique(side.groups)) == len(side) for side in (self.ours, self.theirs))

    @property
    def smallest(self) -> int:
        """Rows of the smaller side."""
        return min(len(self.ours), len(self.theirs))

    def settings(self) -> dict[str, str | float]:
        """How many rows were used."""
        return {"rows": len(self.ours), "against_rows": len(self.theirs)}


def choose_sides(
    subject: Subject, *, most: int | None = None, one_a_group: bool = False, max_bins: int | None = None
) -> Sides:
    """The rows to compare.

    Args:
        subject: gives the rows, their groups and bins.
        most: rows of both sides together; above, a seeded sample of each, of the smaller side least.
        one_a_group: one row (by seed) of each group only, for what needs independent rows.
        max_bins: jackknife bins are merged down to this many.
    """
    codes = {name: i for i, name in enumerate(sorted({*subject.corpus.groups, *subject.real.groups}))}

    def side(corpus: Corpus, bins: Codes, stream: str, cap: int | None) -> Side:
        order = np.array(sorted(range(len(corpus)), key=corpus.ids.__getitem__), dtype=np.int64)
        groups = np.array([codes[name] for name in corpus.groups], dtype=np.int64)
        rng = derive_rng(subject.seed, "shift-rows", stream)
        if one_a_group:
            drawn = rng.permutation(order)
            order = order[np.isin(order, drawn[np.unique(groups[drawn], return_index=True)[1]])]
        if cap is not None and len(order) > cap:
            order = order[np.sort(rng.choice(len(order), cap, replace=False))]
        merged = bins[order] if max_bins is None else bins[order] % max_bins
        numbered = np.unique(merged, return_inverse=True)[1].astype(np.int64)
        return Side(rows=order, bins=numbered, groups=groups[order])

    n, m = (len(set(c.groups)) if one_a_group else len(c) for c in (subject.corpus, subject.real))
    cap = None if most is None else max(most // 2, most - m)
    other_cap = None if most is None or cap is None else most - min(n, cap)
    return Sides(
        ours=side(subject.corpus, subject.bins, "ours", cap),
        theirs=side(subject.real, subject.against_bins, "theirs", other_cap),
    )


def vectors_of(subject: Subject, sides: Sides) -> tuple[Vectors, Vectors]:
    """The unit vectors of the chosen rows of both sides, shapes (n, d) and (m, d)."""
    return subject.unit[sides.ours.rows], subject.against_unit[sides.theirs.rows]


def estimate_from_sides(
    subject: Subject,
    sides: Sides,
    value: float,
    without: Callable[[], tuple[Floats, Floats]],
    settings: Mapping[str, str | float],
    *,
    p_value: float | None = None,
    widen: float = 1.0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """``value``, a number of the rows of both sides, with an interval for the chance in both.

    The variances of the two grouped jackknives add; t quantile with Satterthwaite's degrees of freedom. Like
    ``estimate_two_samples``, but over the rows that were used, which may be a sample in merged bins.

    Args:
        subject: says whether the corpus is the real data: then there is no interval.
        sides: the rows used, with their bins; fewer than four on a side give no interval.
        value: the number on these rows.
        without: makes the numbers with each bin left out, shapes (bins of ours,) and (bins of theirs,).
        settings: what the number was computed with.
        p_value: of a test that goes with it.
        widen: factor on the standard error, where the left-out values do not show all of it.
        bounds: of what the number can be; the interval is cut to them.
    """
    both = (sides.ours, sides.theirs)
    counts = [int(side.bins.max(initial=-1)) + 1 for side in both]
    low = high = None
    if min(counts) >= MIN_BINS and not subject.is_real:
        ours, theirs = (jackknife_interval(value, left, s.bins) for left, s in zip(without(), both, strict=True))
        if ours is not None and theirs is not None:
            found = two_sample_interval(value, ours, counts[0], theirs, counts[1], widen=widen)
            low, high = max(bounds[0], found.low), min(bounds[1], found.high)
    return Estimate(
        value=value,
        low=low,
        high=high,
        n=subject.n,
        p_value=p_value,
        interval="" if low is None else f"grouped jackknife of both sides, {counts[0]} and {counts[1]} bins",
        settings={**sides.settings(), **settings},
    )
