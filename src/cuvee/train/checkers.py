"""Checkers, models of the real rows that check synthetic labels, and the two baselines made of one.

A checker of labels is a probe on sentence vectors, fitted on the real training rows alone, each with the weight that
the corpus gives it. It never saw the synthetic rows that it checks, so it needs no cross-validation. Probes have no
draws, and folds are dealt alike whatever the training draw.

Where there are no labels, the checker is the trainer's own model, tuned on real rows for a few steps. It reads rows as
the trainer does. For completions the log probability of a row is the mean over its tokens, so a ratio of two
probabilities is the geometric mean of its tokens' ratios, and long completions are not punished. It is tuned with the
weights that the corpus gives its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, TrainingError
from cuvee.fingerprint import derive_seed
from cuvee.probe import WeightedRows, encode_targets, fit_probe, stratified_folds
from cuvee.records import Floats, Vectors
from cuvee.train.weighting import RowChecker, RowScores, TrainingRows, scale_weights

_FOLDS = 5
# Weights of synthetic rows that are tried: fewer than probes try, because each is a training.
TUNED_CANDIDATES = (0.0, 0.25, 1.0)
PASSES = 3
_HELD_OUT = 4  # one real row in so many is held out to choose the weight by
_LAW_FOLDS = 2
CANDIDATES = (0.0, 0.1, 0.25, 0.5, 1.0)
_SLACK = 0.25  # standard errors


class LabelChecker:
    """A ``RowChecker`` of labels: a probe on sentence vectors in the place of the trainer's own model.

    Args:
        rows: all rows; their texts are embedded here, once.
    """

    def __init__(self, rows: TrainingRows) -> None:
        self._rows, self._labels = rows, rows.corpus.labels
        self._vectors = rows.encode(rows.corpus.texts)
        self._place = {text: place for place, text in enumerate(rows.corpus.texts)}

    def __call__(self, corpus: Corpus, scored: Corpus, *, weights: Floats, passes: int | None, seed: int) -> RowScores:
        """See ``RowChecker``: a probe is fitted to its optimum, so neither ``passes`` nor ``seed`` changes anything."""
        del passes, seed
        fitted = fit_probe(
            self._embed(corpus), corpus.targets, labels=self._labels, row_weights=weights, l2=self._rows.l2
        )
        log_proba = fitted.log_proba(self._embed(scored))
        _, own = encode_targets(scored.targets, self._labels)
        log_p = log_proba[np.arange(len(own)), own]
        self._rows.progress(1, 1, float(-log_p.mean()))
        return RowScores(log_p=log_p, agrees=log_proba.argmax(axis=1) == own)

    def _embed(self, corpus: Corpus) -> Vectors:
        return np.asarray(self._vectors[[self._place[text] for text in corpus.texts]])


def find_checker(rows: TrainingRows, loss: str) -> RowChecker:
    """The checker for these rows: a probe where they have labels, else the trainer's own.

    Raises:
        ConfigError: the trainer has none.
        TrainingError: there are no real rows, or real rows of one label only.
    """
    real = rows.corpus.keep(~rows.synthetic)
    if rows.corpus.task == "classification":
        if len(real.labels) < 2:
            raise TrainingError(
                f"loss {loss!r} fits a checker on the real rows, which need at least two labels; they have "
                f"{', '.join(map(repr, real.labels)) or 'none'}"
            )
        return LabelChecker(rows)
    if rows.checker is None:
        raise ConfigError(
            f"loss {loss!r} needs a checker of its own for task {rows.corpus.task!r}, which trainers causal and "
            "retriever have; valid for others: ce, gce, sce, tce, curriculum, and source_weight with a number"
        )
    if len(real) == 0:
        raise TrainingError(f"loss {loss!r} tunes a checker on the real rows, and there are none; give some")
    return rows.checker


def check_synthetic(rows: TrainingRows, checker: RowChecker) -> RowScores:
    """What a model of the real rows says of the synthetic ones, which it never saw: no folds are needed."""
    real, seed = rows.corpus.keep(~rows.synthetic), derive_seed(rows.seed, "checker")
    weights = scale_weights(np.ones(len(real)), real.weights)
    return checker(real, rows.corpus.keep(rows.synthetic), weights=weights, passes=PASSES, seed=seed)


def synthetic_law(rows: TrainingRows, checker: RowChecker) -> Floats:
    """Log P_syn(y|x) of each synthetic row, from a model of other synthetic rows: five folds by group, else halves.

    Held out, because a model that saw the row would call any target of it likely.

    Raises:
        TrainingError: the synthetic rows are of one group, or a fold leaves rows of one label only to fit on.
    """
    made = rows.corpus.keep(rows.synthetic)
    fold_of = _deal(made, labelled=_FOLDS, others=_LAW_FOLDS, seed=derive_seed(rows.seed, "synthetic-law"))
    folds = np.unique(fold_of)
    if len(folds) < 2:
        raise TrainingError(
            "the loss checks each synthetic row by synthetic rows of other groups, and there is one group; give more"
        )
    out = np.zeros(len(made))
    for fold in folds.tolist():
        rest, seed = made.keep(fold_of != fold), derive_seed(rows.seed, "synthetic-law", fold)
        weights = scale_weights(np.ones(len(rest)), rest.weights)
        out[fold_of == fold] = checker(
            rest, made.keep(fold_of == fold), weights=weights, passes=PASSES, seed=seed
        ).log_p
    return out


def _deal(corpus: Corpus, *, labelled: int, others: int, seed: int) -> NDArray[np.int64]:
    """Fold of each row, by group: so many where rows have labels, dealt alike for all seeds, and so many elsewhere."""
    if corpus.task != "classification":
        return stratified_folds(np.zeros(len(corpus), dtype=np.int64), corpus.groups, others, seed)
    return stratified_folds(encode_targets(corpus.targets, None)[1], corpus.groups, labelled, 0)


def choose_weight(rows: TrainingRows) -> float:
    """The smallest candidate whose log loss on held-out real rows is about the least.

    Each of 5 folds of the real rows (by group, stratified by label) is held out once; probes are trained on the
    other real rows and on the synthetic ones at each candidate weight. Log loss and not accuracy, because few-shot
    folds are too small to tell accuracies apart. "About" is a quarter of a standard error of the paired difference
    to the least: wrong trust in a damaged source costs more than a little less of a good one. A whole standard
    error (Breiman et al. 1984) gave away up to 2 points on clean rows (docs/studies/losses.md). Rows weigh what the
    corpus says, in fitting and in judging.

    Rows without labels: three candidates, each tried by a training of the model itself, of half the steps, on one
    held-out quarter of the real rows, because folds in turn would cost four times as much.

    Raises:
        ConfigError: the trainer has no checker for the task.
        TrainingError: too few real rows to hold some out.
    """
    if not rows.synthetic.any():
        return 1.0
    checker, labelled = find_checker(rows, "source_weight"), rows.corpus.task == "classification"
    candidates, real = CANDIDATES if labelled else TUNED_CANDIDATES, np.flatnonzero(~rows.synthetic)
    seed = derive_seed(rows.seed, "source-weight")
    fold_of = _deal(rows.corpus.take(real), labelled=_FOLDS, others=_HELD_OUT, seed=seed)
    folds, losses, counts = np.unique(fold_of), list[Floats](), list[Floats]()
    for fold in folds if labelled else folds[:1]:
        kept = rows.corpus.take(real[fold_of != fold])
        if len(kept) == 0 or (labelled and len(kept.labels) < 2):
            raise TrainingError(
                f"the {len(real)} real rows are too few to choose source_weight by holding some out; give rows of "
                "several groups (of each of two labels at least two), or a number"
            )
        held = np.zeros(len(rows.corpus), dtype=np.bool_)
        held[real[fold_of == fold]] = True
        rest, scored, made = rows.corpus.keep(~held), rows.corpus.keep(held), rows.synthetic[~held]
        weights = [scale_weights(np.where(made, weight, 1.0), rest.weights) for weight in candidates]
        own = derive_seed(rows.seed, "source-weight", 0)
        tried = [checker(rest, scored, weights=each, passes=None, seed=own).log_p for each in weights]
        losses.append(-np.stack(tried))
        counts.append(scored.weights)
    found, weighing = np.concatenate(losses, axis=1), np.concatenate(counts)
    fits = np.isfinite(found).all(axis=0)
    if fits.sum() < 2:
        raise TrainingError(
            "fewer than two held-out real rows fit the model to choose source_weight by; give more, raise max_length, "
            "or give a number"
        )
    return pick_weight(found[:, fits], candidates, weighing[fits])


def pick_weight(losses: Floats, candidates: Sequence[float] = CANDIDATES, weights: Floats | None = None) -> float:
    """The smallest candidate within a quarter of a standard error of the best.

    Args:
        losses: shape (candidates, real rows).
        candidates: from the smallest.
        weights: of the rows, shape (real rows,), above 0; only their ratios matter. None weighs all the same.
    """
    rows = losses.shape[1]
    scaled = np.ones(rows) if weights is None else scale_weights(np.ones(rows), weights)
    above = losses - losses[(scaled * losses).mean(axis=1).argmin()]
    mean = (scaled * above).mean(axis=1)
    error = np.sqrt((scaled * (above - mean[:, None]) ** 2).sum(axis=1) / (rows - 1) / rows)
    return candidates[int(np.flatnonzero(mean <= _SLACK * error)[0])]


@dataclass(frozen=True, slots=True)
class AgreementFilter:
    """Keeps the synthetic rows that the checker agrees with; the rest are dropped, and real rows all stay.

    The hard form of weighing by a checker. Classification: the row's label is the checker's most probable one, as
    filtering by a classifier is usually done. Retrieval: the checker ranks the row's passage first among those of all
    synthetic rows (round-trip consistency, Dai et al. 2022, arXiv 2209.11755). Generation: the row is among the half
    of greatest mean log probability of tokens (Bonifacio et al. 2022, arXiv 2202.05144, keep a tenth); there is no
    wrong completion to find by it, and what is usual is kept, so look at the diversity of what is written.
    """

    def prepare(self, rows: TrainingRows) -> WeightedRows:
        """Weights 1 and 0."""
        weights = np.ones(len(rows.synthetic))
        if rows.synthetic.any():
            weights[rows.synthetic] = check_synthetic(rows, find_checker(rows, "agreement_filter")).agrees
        return WeightedRows(weights)


@dataclass(frozen=True, slots=True)
class CheckerAlone:
    """Real rows alone: all that a checker knows, without a single synthetic row.

    What ``imp`` and ``dimp`` must beat to have learnt anything from synthetic rows. With trainer ``probe`` this *is*
    the checker of those losses, bit for bit where rows weigh the same; with another trainer it is that trainer's
    real-only baseline, the same as ``source_weight`` 0.
    """

    def prepare(self, rows: TrainingRows) -> WeightedRows:
        """1 for real and 0 for synthetic rows."""
        return WeightedRows(np.where(rows.synthetic, 0.0, 1.0))


def importance(log_numerator: Floats, log_denominator: Floats, *, clip: float, gamma: float = 1.0) -> Floats:
    """``min((numerator / denominator) ** gamma, clip)``, from logarithms; 1 where one of them is not known (NaN)."""
    ratio = np.nan_to_num(log_numerator - log_denominator, nan=0.0, posinf=np.inf, neginf=-np.inf)
    exponent = np.minimum(gamma * ratio, np.log(clip))
    return np.asarray(np.exp(exponent))


@dataclass(frozen=True, slots=True)
class ImportanceLoss:
    """IMP: a synthetic row weighs ``min(P'(y|x) / P_syn(y|x), clip)``.

    P' is a checker of the real rows, P_syn a cross-validated one of the synthetic rows. The weighted synthetic
    rows then follow P' on their own texts: with enough of them the model converges to P'. The clip is ours: where
    P_syn calls a label unlikely, one row could outweigh all others.

    Completions: P' is the model tuned on the real rows, P_syn the same tuned on the other half of the synthetic rows,
    and log probabilities are means over tokens. That is three short trainings before the training.
    """

    clip: float = 10.0

    def prepare(self, rows: TrainingRows) -> WeightedRows:
        """Static weights; the batch mean is relative to the mean of all weights."""
        weights = np.ones(len(rows.synthetic))
        if rows.synthetic.any():
            checker = find_checker(rows, "imp")
            real, made = check_synthetic(rows, checker).log_p, synthetic_law(rows, checker)
            weights[rows.synthetic] = importance(real, made, clip=self.clip)
        return WeightedRows(weights)


class DynamicRows(WeightedRows):
    """DIMP, prepared: weights follow the model as it learns.

    Args:
        checker_log_p: log P'(y|x) of each row, shape (n,).
        synthetic: marks the rows that are weighed; the others count 1.
        gamma: exponent of the ratio.
        clip: largest weight.
    """

    def __init__(self, checker_log_p: Floats, synthetic: NDArray[np.bool_], *, gamma: float, clip: float) -> None:
        super().__init__(np.ones(len(synthetic)))
        self._checker, self._synthetic = checker_log_p, synthetic
        self._gamma, self._clip = gamma, clip

    def relative(self, rows: NDArray[np.int64], log_p: Floats) -> Floats:
        """Each row's weight over the mean weight of the batch, shape (b,)."""
        found = importance(self._checker[rows], log_p, clip=self._clip, gamma=self._gamma)
        weights = np.where(self._synthetic[rows], found, 1.0)
        mean = float(weights.mean())
        # all of a batch can underflow to weight 0: then it moves nothing
        return np.asarray(weights / mean if mean > 0 else weights)


@dataclass(frozen=True, slots=True)
class DynamicImportanceLoss:
    """DIMP: a synthetic row weighs ``min((P'(y|x) / p(y|x)) ** gamma, clip)``, p the model's own, not differentiated.

    Weights are divided by their sum over the batch, as in the paper. On synthetic rows of the label law Q the
    model converges to ``(Q P'^gamma)^(1/(1 + gamma))``, normalised: half way, geometrically, to the checker at
    gamma 1, and not to it. ``gamma`` and the clip are ours; the paper's gamma is 1.

    Completions: P' is the model tuned on the real rows, one short training; log probabilities are means over tokens.
    """

    gamma: float = 1.0
    clip: float = 10.0

    def prepare(self, rows: TrainingRows) -> DynamicRows:
        """Fits the checker."""
        log_p = np.zeros(len(rows.synthetic))
        if rows.synthetic.any():
            log_p[rows.synthetic] = check_synthetic(rows, find_checker(rows, "dimp")).log_p
        return DynamicRows(log_p, rows.synthetic, gamma=self.gamma, clip=self.clip)


@dataclass(frozen=True, slots=True)
class SourceWeight:
    """Synthetic rows count ``source_weight``, real rows 1: 0 is real-only, 1 is pooled, bit for bit.

    None chooses the weight by cross-validation (``choose_weight``).
    """

    source_weight: float | None = None

    def __post_init__(self) -> None:
        weight = self.source_weight
        if weight is not None and not (np.isfinite(weight) and weight >= 0):
            raise ConfigError(
                "loss 'source_weight' needs source_weight, a number of at least 0, or none to choose it from the real "
                f"rows; it is {weight!r}"
            )

    def prepare(self, rows: TrainingRows) -> WeightedRows:
        """1 for real and the weight for synthetic rows."""
        weight = choose_weight(rows) if self.source_weight is None else self.source_weight
        return WeightedRows(np.where(rows.synthetic, np.float64(weight), 1.0), source_weight=weight)
