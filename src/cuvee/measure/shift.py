"""Shift of vectors from the real training rows: MMD, the classifier two-sample test, precision and recall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.measure.intervals import estimate_two_samples, means_without
from cuvee.measure.subject import MIN_BINS, Subject
from cuvee.probe import stratified_folds
from cuvee.records import Codes, Estimate, Floats, Vectors
from cuvee.similarity import Membership, mmd, single_blas_thread

MMD_ROWS, C2ST_ROWS = 4000, 8000  # of both sides together; above, samples
FOLDS = 5
RIDGE = 0.3  # of the mean variance of a direction
MIN_ROWS = 10  # of a side: below, an AUC says nothing
Part = Literal["precision", "recall"]
MOST_ROWS = 10_000  # of both sides together; above, samples
NEIGHBOURS = 5
_CELLS = 4_000_000  # cosines held at a time
_SAME = 1e-12  # cosines no further apart are ties, and a tie is outside, as the definitions say


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

    @property
    def bins(self) -> tuple[Codes, Codes]:
        """Jackknife bin of each row of both sides."""
        return self.ours.bins, self.theirs.bins

    @property
    def groups(self) -> int:
        """Groups of the side that has fewer."""
        return min(len(np.unique(side.groups)) for side in (self.ours, self.theirs))

    @property
    def settings(self) -> dict[str, str | float]:
        """How many rows were used."""
        return {"rows": len(self.ours), "against_rows": len(self.theirs)}


def choose_sides(subject: Subject, *, most: int | None = None, one_a_group: bool = False) -> Sides:
    """The rows to compare.

    Args:
        subject: gives the rows, their groups and bins.
        most: rows of both sides together; above, a seeded sample of each, of the smaller side least.
        one_a_group: one row (by seed) of each group only, for what needs independent rows.
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
        numbered = np.unique(bins[order], return_inverse=True)[1].astype(np.int64)
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


# --- maximum mean discrepancy ---
def measure_mmd(subject: Subject) -> Estimate | None:
    """Unbiased squared MMD to the real training rows (Gretton et al. 2012, JMLR 13), RBF kernel, median bandwidth.

    The mean is over pairs of rows of different groups, so that paraphrases of one source are no shift by
    themselves; it can be negative where there is no shift. The values without each jackknife bin are exact, from
    block sums of the kernel matrix. Where there is no shift the statistic is degenerate and the interval is too
    wide rather than too narrow: the test there is the p-value. Rows of one group are not exchangeable, so the
    permutation test runs on one row a group (drawn by seed) where there are groups; it has no p-value below four
    groups. Above 4,000 rows of both sides together a seeded sample is used. None where a side has a single group.
    """
    sides = choose_sides(subject, most=MMD_ROWS)
    if sides.groups < 2:
        return None
    tested = sides if sides.independent else choose_sides(subject, most=MMD_ROWS, one_a_group=True)
    permutations = subject.permutations if tested.smallest >= MIN_BINS else 0
    seed = derive_seed(subject.seed, "mmd")
    whole = sides.independent and not np.isin(sides.ours.groups, sides.theirs.groups).any()
    members = [Membership(groups=side.groups, bins=side.bins) for side in (sides.ours, sides.theirs)]
    found = mmd(
        *vectors_of(subject, sides), permutations=permutations if whole else 0, seed=seed,
        membership=(members[0], members[1]),
    )  # fmt: skip
    p_value = found.p_value
    if permutations and not whole:
        p_value = mmd(*vectors_of(subject, tested), permutations=permutations, seed=seed).p_value
    settings: dict[str, str | float] = {
        **sides.settings, "kernel": "rbf", "bandwidth": found.bandwidth, "permutations": permutations,
        "test_rows": _describe_test(sides, tested),
    }  # fmt: skip
    return estimate_two_samples(
        subject, found.value, lambda: (found.without_ours, found.without_theirs), settings, bins=sides.bins,
        p_value=p_value,
    )  # fmt: skip


def _describe_test(sides: Sides, tested: Sides) -> str:
    return "all" if sides.independent else f"one a group: {len(tested.ours)} and {len(tested.theirs)}"


# --- the classifier two-sample test ---
def measure_c2st(subject: Subject) -> Estimate | None:
    """AUC of a linear classifier that tells rows of the corpus from real rows: 0.5 where it cannot.

    Classifier two-sample test (Lopez-Paz and Oquab, arXiv 1610.06545): regularised linear discriminant on the
    unit vectors, 5 folds, groups kept together. The AUC compares rows of one fold only (scores of different
    classifiers do not compare) and is not moved by unequal sides. The permutation p-value refits the classifier
    for each permutation (all of them are right-hand sides of one linear system), because a test of pooled
    held-out scores is not valid: folds train on each other, which doubles the variance. It runs on one row a
    group where there are groups. For the same reason the jackknife interval, which leaves rows out of the scores
    but not out of the training, is widened by the factor of Nadeau and Bengio (2003, Machine Learning 52), 1.5.
    It rises with the number of rows to train on. None with under 10 rows or groups on a side, and where the
    corpus is the real data.
    """
    if subject.is_real:
        return None
    sides = choose_sides(subject, most=C2ST_ROWS)
    if sides.groups < MIN_ROWS:
        return None
    tested = sides if sides.independent else choose_sides(subject, most=C2ST_ROWS, one_a_group=True)
    found = _compare(subject, sides, subject.permutations if sides.independent else 0)
    if found is None:
        return None
    test = found if sides.independent else _compare(subject, tested, subject.permutations)
    settings: dict[str, str | float] = {
        **sides.settings, "classifier": "linear discriminant",
        "ridge": RIDGE, "folds": FOLDS, "permutations": subject.permutations,
        "test_rows": _describe_test(sides, tested),
    }  # fmt: skip
    return estimate_two_samples(
        subject,
        found.auc,
        lambda: (found.without(0, sides.ours.bins), found.without(1, sides.theirs.bins)),
        settings,
        bins=sides.bins,
        p_value=None if test is None else test.p_value,
        widen=float(np.sqrt(1.0 + FOLDS / (FOLDS - 1.0))),
        bounds=(0.0, 1.0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparison:
    """Each row against the rows of the other side in its fold: comparisons, and those it wins (a tie is a half).

    A row of ours wins where its score is higher, a row of theirs where it is lower: shapes (n,) and (m,).
    """

    wins: tuple[Floats, Floats]
    pairs: tuple[Floats, Floats]
    p_value: float | None

    @property
    def auc(self) -> float:
        return float(self.wins[0].sum() / self.pairs[0].sum())

    def without(self, side: int, bins: Codes) -> Floats:
        """The AUC with each bin of a side left out."""
        wins, pairs = (np.bincount(bins, weights=v[side]) for v in (self.wins, self.pairs))
        with np.errstate(invalid="ignore"):
            out: Floats = (wins.sum() - wins) / (pairs.sum() - pairs)
        return out


@single_blas_thread()
def _compare(subject: Subject, sides: Sides, permutations: int) -> _Comparison | None:
    """Cross-validated comparison of two sides; None where no fold has rows of both."""
    rows = np.vstack(vectors_of(subject, sides)).astype(np.float64)
    rows -= rows.mean(axis=0)
    n = len(sides.ours)
    of_theirs = np.repeat([0, 1], [n, len(sides.theirs)])
    groups = [str(group) for side in (sides.ours, sides.theirs) for group in side.groups]
    fold_of = stratified_folds(of_theirs, groups, FOLDS, subject.seed)
    labels = np.zeros((len(rows), permutations + 1))
    labels[:n] = 1.0
    rng = derive_rng(subject.seed, "c2st-permutations")
    for fold in np.unique(fold_of):
        # within a fold, so that each permutation has folds as balanced as the true ones
        held = np.flatnonzero(fold_of == fold)
        labels[held, 1:] = rng.permuted(labels[held, 1:], axis=0)
    scores = _held_out_scores(rows, labels, fold_of)
    wins, pairs = np.zeros(len(rows)), np.zeros(len(rows))
    won, of = np.zeros(permutations + 1), 0.0
    for fold in np.unique(fold_of):
        held = np.flatnonzero(fold_of == fold)
        true = labels[held, 0] > 0.5
        ours, theirs = scores[held[true], 0], scores[held[~true], 0]
        wins[held[true]], pairs[held[true]] = _wins(ours, theirs), len(theirs)
        wins[held[~true]], pairs[held[~true]] = len(ours) - _wins(theirs, ours), len(ours)
        won += _rank_sums(scores[held], labels[held]) - len(ours) * (len(ours) + 1) / 2.0
        of += len(ours) * len(theirs)
    if not of:
        return None
    p_value = (1 + int(np.sum(won[1:] >= won[0]))) / (permutations + 1) if permutations else None
    return _Comparison(wins=(wins[:n], wins[n:]), pairs=(pairs[:n], pairs[n:]), p_value=p_value)


def _held_out_scores(rows: Floats, labels: Floats, fold_of: Codes) -> Floats:
    """Score of each row under each labelling by a discriminant fitted on the other folds, shape of ``labels``.

    Ridge regression on 0/1 targets, which is the linear discriminant with the total scatter; the system is
    the same for all labellings.
    """
    from scipy.linalg import cho_factor, cho_solve

    folds = [np.flatnonzero(fold_of == fold) for fold in np.unique(fold_of)]
    scatters = [rows[held].T @ rows[held] for held in folds]
    products = [rows[held].T @ labels[held] for held in folds]
    scatter: Floats = np.sum(scatters, axis=0, dtype=np.float64)
    product: Floats = np.sum(products, axis=0, dtype=np.float64)
    total, targets = rows.sum(axis=0), labels.sum(axis=0)
    out = np.empty_like(labels)
    for held, own, part in zip(folds, scatters, products, strict=True):
        left = len(rows) - len(held)
        mean = (total - rows[held].sum(axis=0)) / left
        system = scatter - own - left * np.outer(mean, mean)
        system[np.diag_indices_from(system)] += max(RIDGE * float(np.trace(system)) / len(system), 1e-12)
        aim = product - part - np.outer(mean, targets - labels[held].sum(axis=0))
        out[held] = rows[held] @ cho_solve(cho_factor(system), aim)
    return out


def _rank_sums(scores: Floats, labels: Floats) -> Floats:
    """Sum of the ranks (mean rank for ties) of the rows labelled 1, a column."""
    from scipy.stats import rankdata

    ranks = np.asarray(rankdata(np.round(scores, 12), axis=0), dtype=np.float64)
    out: Floats = np.asarray((ranks * labels).sum(axis=0), dtype=np.float64)
    return out


def _wins(scores: Floats, others: Floats) -> Floats:
    """How many of the others each score beats; ties count half."""
    mine, ordered = np.round(scores, 12), np.sort(np.round(others, 12))
    below, up_to = np.searchsorted(ordered, mine, side="left"), np.searchsorted(ordered, mine, side="right")
    out: Floats = 0.5 * (below + up_to).astype(np.float64)
    return out


# --- balls of nearest neighbours ---
@single_blas_thread()
def measure_manifold(subject: Subject, part: Part) -> Estimate | None:
    """Precision and recall of the manifold (Kynkaanniemi et al., arXiv 1904.06991; of text: arXiv 2402.10693).

    The ball of a row reaches to its 5th nearest other row of the same side (on unit vectors nearness by cosine
    and by distance agree). Precision: share of corpus rows inside the ball of some real row. Recall: share of real
    rows inside the ball of some corpus row. A row on the edge is outside. Balls shrink as rows are added: compare at
    equal rows. Above 10,000 rows of both sides together a seeded sample is used. The interval holds the balls fixed.
    None where a side has not more than 5 rows.
    """
    sides = choose_sides(subject, most=MOST_ROWS)
    if sides.smallest <= NEIGHBOURS:
        return None
    rows = [vectors.astype(np.float64) for vectors in vectors_of(subject, sides)]
    ours, theirs = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in rows)
    hits = _find_inside(theirs, ours) if part == "precision" else _find_inside(ours, theirs)
    value, (here, there) = float(hits.mean()), sides.bins
    own = means_without(hits, here if part == "precision" else there)
    other = np.full(int((there if part == "precision" else here).max()) + 1, value)
    return estimate_two_samples(
        subject,
        value,
        lambda: (own, other) if part == "precision" else (other, own),
        {**sides.settings, "k": NEIGHBOURS, "distance": "euclidean of unit vectors"},
        bins=sides.bins,
        bounds=(0.0, 1.0),
    )


def _find_inside(centres: Floats, points: Floats) -> NDArray[np.bool_]:
    """Whether each point is in the ball of a centre, shape (points,)."""
    out = np.zeros(len(points), dtype=bool)
    tile = max(1, _CELLS // max(len(centres), len(points)))
    for start in range(0, len(centres), tile):
        here = np.arange(start, min(start + tile, len(centres)))
        cosines = centres[here] @ centres.T
        cosines[np.arange(len(here)), here] = -np.inf
        reach = np.partition(cosines, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS] + _SAME
        out |= (centres[here] @ points.T > reach[:, None]).any(axis=0)
    return out
