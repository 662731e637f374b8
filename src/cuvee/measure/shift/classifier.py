"""The classifier two-sample test: can a classifier tell the corpus from the real data, and by which rows?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cuvee.errors import TrainingError
from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.measure.shift.sides import Codes, Floats, Sides, choose_sides, estimate_from_sides, vectors_of
from cuvee.measure.subject import Subject
from cuvee.probe import fit_probe
from cuvee.records import Estimate
from cuvee.similarity import single_blas_thread

FOLDS = 5
MOST_ROWS = 8000
RIDGE = 0.3  # of the mean variance of a direction
MIN_ROWS = 10  # of a side: below, an AUC says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Giveaway:
    """A row of the corpus and the probability that it is synthetic, by a probe that never saw its group."""

    row: int
    id: str
    text: str
    probability: float


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
    sides = choose_sides(subject, most=MOST_ROWS)
    if min(len(np.unique(side.groups)) for side in (sides.ours, sides.theirs)) < MIN_ROWS:
        return None
    tested = sides if sides.independent else choose_sides(subject, most=MOST_ROWS, one_a_group=True)
    found = _compare(subject, sides, subject.permutations if sides.independent else 0)
    if found is None:
        return None
    test = found if sides.independent else _compare(subject, tested, subject.permutations)
    settings: dict[str, str | float] = {
        "classifier": "linear discriminant",
        "ridge": RIDGE,
        "folds": FOLDS,
        "permutations": subject.permutations,
        "test_rows": "all" if sides.independent else f"one a group: {len(tested.ours)} and {len(tested.theirs)}",
    }
    return estimate_from_sides(
        subject,
        sides,
        found.auc,
        lambda: (found.without(0, sides.ours.bins), found.without(1, sides.theirs.bins)),
        settings,
        p_value=None if test is None else test.p_value,
        widen=float(np.sqrt(1.0 + FOLDS / (FOLDS - 1.0))),
        bounds=(0.0, 1.0),
    )


def giveaways(subject: Subject, *, count: int = 10) -> tuple[Giveaway, ...]:
    """The rows of the corpus that are most surely synthetic, the surest first.

    Probabilities are those of a probe (balanced: 0.5 says nothing) trained without the row's group. Empty where
    the corpus is the real data, or where a side has under 10 groups.

    Args:
        subject: needs vectors and real rows.
        count: of rows.

    Raises:
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"count is {count!r}; give at least 1")
    sides = choose_sides(subject)
    if subject.is_real or min(len(np.unique(side.groups)) for side in (sides.ours, sides.theirs)) < MIN_ROWS:
        return ()
    try:
        probability = _held_out_probability(subject, sides)
    except TrainingError:  # nearly all groups have rows on one side only by chance of the folds
        return ()
    corpus = subject.corpus
    order = sorted(range(len(sides.ours)), key=lambda i: (-probability[i], corpus.ids[sides.ours.rows[i]]))
    chosen = [(int(sides.ours.rows[i]), float(probability[i])) for i in order[:count]]
    return tuple(Giveaway(row=row, id=corpus.ids[row], text=corpus.texts[row], probability=p) for row, p in chosen)


def _held_out_probability(subject: Subject, sides: Sides) -> Floats:
    rows = np.vstack(vectors_of(subject, sides))
    n = len(sides.ours)
    origin = np.arange(len(rows)) < n
    names = np.where(origin, "synthetic", "real")
    # equal total weight, mean 1
    weights = np.where(origin, 0.5 * len(rows) / n, 0.5 * len(rows) / (len(rows) - n))
    fold_of = _deal_folds(subject, sides)
    out = np.zeros(len(rows))
    for fold in range(FOLDS):
        held = fold_of == fold
        probe = fit_probe(
            rows[~held],
            names[~held].tolist(),
            labels=("real", "synthetic"),
            row_weights=weights[~held],
            seed=derive_seed(subject.seed, "giveaways", fold),
        )
        out[held] = probe.proba(rows[held])[:, 1]
    return out[:n]


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
    fold_of = _deal_folds(subject, sides)
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


def _deal_folds(subject: Subject, sides: Sides) -> Codes:
    """Fold of each row of both sides: whole groups, dealt in turn in a seeded order, balanced on each side."""
    first: dict[int, int] = {}
    groups = np.concatenate([sides.ours.groups, sides.theirs.groups])
    for row, group in enumerate(groups.tolist()):
        first.setdefault(group, row)
    heads = np.array(list(first.values()), dtype=np.int64)
    shuffled = derive_rng(subject.seed, "c2st-folds").permutation(heads)
    dealt = shuffled[np.argsort(shuffled >= len(sides.ours), kind="stable")]
    fold = {int(groups[row]): position % FOLDS for position, row in enumerate(dealt)}
    return np.array([fold[group] for group in groups.tolist()], dtype=np.int64)
