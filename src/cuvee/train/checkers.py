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
from cuvee.probe import ProbeModel, encode_targets, fit_probe, stratified_folds
from cuvee.records import Vectors
from cuvee.train.weighting import Floats, RowChecker, RowScores, TrainingRows, WeightedRows, scale_weights

_FOLDS = 5
TUNED_CANDIDATES = (0.0, 0.25, 1.0)
"""Weights of synthetic rows that are tried: fewer than probes try, because each is a training."""
PASSES = 3
_HELD_OUT = 4  # one real row in so many is held out to choose the weight by
_LAW_FOLDS = 2
CANDIDATES = (0.0, 0.1, 0.25, 0.5, 1.0)
_SLACK = 0.25  # standard errors


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceVectors:
    """Vectors, labels and the corpus's weights of the real and of the synthetic rows, each in the corpus's order."""

    labels: tuple[str, ...]
    real: Vectors
    real_targets: Sequence[str]
    real_weights: Floats
    synthetic: Vectors
    synthetic_targets: Sequence[str]
    synthetic_weights: Floats


def encode_sources(rows: TrainingRows, loss: str) -> SourceVectors:
    """What a checker is fitted on and what it checks.

    Raises:
        TrainingError: the real rows are of fewer than two labels.
    """
    texts, targets = rows.corpus.texts, rows.corpus.targets
    real, synthetic = np.flatnonzero(~rows.synthetic), np.flatnonzero(rows.synthetic)
    known = {targets[i] for i in real}
    if len(known) < 2:
        raise TrainingError(
            f"loss {loss!r} fits a checker on the real rows, which need at least two labels; they have "
            f"{', '.join(map(repr, sorted(known))) or 'none'}"
        )
    vectors, weights = rows.encode(texts), rows.corpus.weights
    return SourceVectors(
        labels=tuple(rows.corpus.labels),
        real=vectors[real],
        real_targets=[targets[i] for i in real],
        real_weights=weights[real],
        synthetic=vectors[synthetic],
        synthetic_targets=[targets[i] for i in synthetic],
        synthetic_weights=weights[synthetic],
    )


def fit_checker(sources: SourceVectors, l2: float) -> ProbeModel:
    """A probe of the real rows, with a column for every label."""
    weights = scale_weights(np.ones(len(sources.real)), sources.real_weights)
    return fit_probe(sources.real, sources.real_targets, labels=sources.labels, row_weights=weights, l2=l2)


def own_log_p(log_proba: Floats, targets: Sequence[str], labels: Sequence[str]) -> Floats:
    """Log probability of each row's own label, shape (n,)."""
    column = {label: i for i, label in enumerate(labels)}
    codes = np.array([column[t] for t in targets], dtype=np.int64)
    out: Floats = log_proba[np.arange(len(codes)), codes]
    return out


def checker_log_p(rows: TrainingRows, sources: SourceVectors) -> Floats:
    """Log P'(y|x) of each synthetic row."""
    said = fit_checker(sources, rows.l2).log_proba(sources.synthetic)
    own = own_log_p(said, sources.synthetic_targets, sources.labels)
    rows.progress(1, 1, float(-own.mean()))
    return own


def synthetic_log_p(rows: TrainingRows, sources: SourceVectors) -> Floats:
    """Log P_syn(y|x) of each synthetic row, from a probe of the other synthetic rows (5 folds, by group).

    Held out, because a probe that saw the row would call any label of it likely.

    Raises:
        TrainingError: a fold leaves rows of one label only to fit on.
    """
    vectors, targets = sources.synthetic, sources.synthetic_targets
    groups = [g for g, mark in zip(rows.corpus.groups, rows.synthetic, strict=True) if mark]
    _, codes = encode_targets(targets, sources.labels)
    fold_of = stratified_folds(codes, groups, _FOLDS, seed=0)
    folds = np.unique(fold_of)
    proba = np.zeros(len(codes))
    for done, fold in enumerate(folds, start=1):
        held = fold_of == fold
        model = fit_probe(
            vectors,
            targets,
            labels=sources.labels,
            row_weights=scale_weights(np.where(held, 0.0, 1.0), sources.synthetic_weights),
            l2=rows.l2,
        )
        own = [target for target, mark in zip(targets, held, strict=True) if mark]
        said = own_log_p(model.log_proba(vectors[held]), own, sources.labels)
        proba[held] = np.exp(said)
        rows.progress(done, len(folds), float(-said.mean()))
    out: Floats = np.log(np.maximum(proba, np.finfo(np.float64).tiny))
    return out


def require_checker(rows: TrainingRows, loss: str) -> RowChecker:
    """The checker of rows without labels.

    Raises:
        ConfigError: the trainer has none.
    """
    if rows.checker is None:
        raise ConfigError(
            f"loss {loss!r} needs a checker of its own for task {rows.corpus.task!r}, which trainers causal and "
            "retriever have; valid for others: ce, gce, sce, curriculum, and source_weight with a number"
        )
    return rows.checker


def require_completions(rows: TrainingRows, loss: str) -> None:
    """See that the rows have laws that can be divided.

    Raises:
        ConfigError: the task is retrieval, whose probabilities are over whatever passages share a batch: they are no
            law of the passage given the query, and their ratio is no importance weight. No published work has one.
    """
    if rows.corpus.task == "retrieval":
        raise ConfigError(
            f"loss {loss!r} divides two laws of a target, and a retriever has none: its probabilities are over the "
            "passages of one batch; set loss: agreement_filter, source_weight or curriculum"
        )


def check_synthetic(rows: TrainingRows, loss: str) -> RowScores:
    """What a model of the real rows says of the synthetic ones, which it never saw: no folds are needed.

    Raises:
        ConfigError: the trainer has no checker.
        TrainingError: there are no real rows.
    """
    checker = require_checker(rows, loss)
    real = rows.corpus.keep(~rows.synthetic)
    if len(real) == 0:
        raise TrainingError(f"loss {loss!r} tunes a checker on the real rows, and there are none; give some")
    seed = derive_seed(rows.seed, "checker")
    weights = scale_weights(np.ones(len(real)), real.weights)
    return checker(real, rows.corpus.keep(rows.synthetic), weights=weights, passes=PASSES, seed=seed)


def synthetic_law(rows: TrainingRows, loss: str) -> Floats:
    """Log P_syn of each synthetic row, from a model of the other half of the synthetic rows, by group.

    Raises:
        ConfigError: the trainer has no checker.
        TrainingError: the synthetic rows are of one group.
    """
    checker = require_checker(rows, loss)
    made = rows.corpus.keep(rows.synthetic)
    folds = _split(made, _LAW_FOLDS, derive_seed(rows.seed, "synthetic-law"))
    if len(np.unique(folds)) < _LAW_FOLDS:
        raise TrainingError(f"loss {loss!r} halves the synthetic rows by group, and there is one group; give more")
    out = np.zeros(len(made))
    for fold in range(_LAW_FOLDS):
        held = folds == fold
        rest = made.keep(~held)
        seed = derive_seed(rows.seed, "synthetic-law", fold)
        weights = scale_weights(np.ones(len(rest)), rest.weights)
        out[held] = checker(rest, made.keep(held), weights=weights, passes=PASSES, seed=seed).log_p
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedLosses:
    """Loss of held-out real rows under each of ``TUNED_CANDIDATES``, shape (candidates, rows); the rows' weights."""

    losses: Floats
    weights: Floats


def tuned_losses(rows: TrainingRows) -> TunedLosses:
    """Loss of held-out real rows under each of ``TUNED_CANDIDATES``.

    One real row in four is held out, by group; a model is tuned on all other rows at each candidate weight, for half
    the steps of the training. Folds in turn, as probes have them, would cost four times as much.

    Raises:
        ConfigError: the trainer has no checker.
        TrainingError: too few real rows to hold some out.
    """
    checker = require_checker(rows, "source_weight")
    real = np.flatnonzero(~rows.synthetic)
    folds = _split(rows.corpus.take(real), _HELD_OUT, derive_seed(rows.seed, "source-weight")) if len(real) else real
    held = np.zeros(len(rows.corpus), dtype=np.bool_)
    held[real[folds == 0]] = True
    rest, scored = rows.corpus.keep(~held), rows.corpus.keep(held)
    if len(scored) < 2 or len(scored) == len(real):
        raise TrainingError(
            f"the {len(real)} real rows are too few to choose source_weight by holding a quarter out; "
            "give at least 8 of several groups, or a number"
        )
    marks, seed = rows.synthetic[~held], derive_seed(rows.seed, "source-weight", 0)
    given = [scale_weights(np.where(marks, weight, 1.0), rest.weights) for weight in TUNED_CANDIDATES]
    tried = [checker(rest, scored, weights=weights, passes=None, seed=seed) for weights in given]
    losses = -np.stack([found.log_p for found in tried])
    fits = np.isfinite(losses).all(axis=0)
    if fits.sum() < 2:
        raise TrainingError("fewer than two held-out real rows fit max_length to choose source_weight by; raise it")
    return TunedLosses(losses=losses[:, fits], weights=scored.weights[fits])


def _split(corpus: Corpus, folds: int, seed: int) -> NDArray[np.int64]:
    return stratified_folds(np.zeros(len(corpus), dtype=np.int64), corpus.groups, folds, seed)


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
        if rows.corpus.task != "classification":
            if rows.synthetic.any():
                weights[rows.synthetic] = check_synthetic(rows, "agreement_filter").agrees
            return WeightedRows(weights)
        sources = encode_sources(rows, "agreement_filter")
        said = fit_checker(sources, rows.l2).predict(sources.synthetic)
        weights[rows.synthetic] = [float(a == b) for a, b in zip(said, sources.synthetic_targets, strict=True)]
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
    out: Floats = np.exp(exponent)
    return out


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
        if not rows.synthetic.any():
            return WeightedRows(weights)
        if rows.corpus.task == "classification":
            sources = encode_sources(rows, "imp")
            real, made = checker_log_p(rows, sources), synthetic_log_p(rows, sources)
        else:
            require_completions(rows, "imp")
            real, made = check_synthetic(rows, "imp").log_p, synthetic_law(rows, "imp")
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
        out: Floats = weights / mean if mean > 0 else weights
        return out


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
        if rows.synthetic.any() and rows.corpus.task == "classification":
            log_p[rows.synthetic] = checker_log_p(rows, encode_sources(rows, "dimp"))
        elif rows.synthetic.any():
            require_completions(rows, "dimp")
            log_p[rows.synthetic] = check_synthetic(rows, "dimp").log_p
        return DynamicRows(log_p, rows.synthetic, gamma=self.gamma, clip=self.clip)


def choose_weight(rows: TrainingRows) -> float:
    """The smallest candidate whose log loss on held-out real rows is about the least.

    Each of 5 folds of the real rows (by group, stratified by label) is held out once; probes are trained on the
    other real rows and on the synthetic ones at each candidate weight. Log loss and not accuracy, because few-shot
    folds are too small to tell accuracies apart. "About" is a quarter of a standard error of the paired difference
    to the least: wrong trust in a damaged source costs more than a little less of a good one. A whole standard
    error (Breiman et al. 1984) gave away up to 2 points on clean rows (docs/studies/losses.md). Rows weigh what the
    corpus says, in fitting and in judging.

    Rows without labels: three candidates, each tried by a short training of the model itself on one held-out
    quarter of the real rows (``tuned_losses``), about one and a half trainings more.

    Raises:
        ConfigError: the trainer has no checker for the task.
        TrainingError: too few real rows to hold some out.
    """
    if not rows.synthetic.any():
        return 1.0
    if rows.corpus.task != "classification":
        tuned = tuned_losses(rows)
        return pick_weight(tuned.losses, TUNED_CANDIDATES, tuned.weights)
    sources = encode_sources(rows, "source_weight")
    return pick_weight(held_out_losses(rows, sources), weights=sources.real_weights)


def pick_weight(
    losses: Floats,
    candidates: Sequence[float] = CANDIDATES,
    weights: Floats | None = None,
) -> float:
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


def held_out_losses(rows: TrainingRows, sources: SourceVectors) -> Floats:
    """Log loss of each real row under each candidate, shape (candidates, real rows).

    Raises:
        TrainingError: too few real rows to hold some out.
    """
    _, codes = encode_targets(sources.real_targets, sources.labels)
    groups = [g for g, mark in zip(rows.corpus.groups, rows.synthetic, strict=True) if not mark]
    fold_of = stratified_folds(codes, groups, _FOLDS, seed=0)
    vectors = np.vstack([sources.real, sources.synthetic])
    targets = [*sources.real_targets, *sources.synthetic_targets]
    made, given = len(sources.synthetic_targets), np.concatenate([sources.real_weights, sources.synthetic_weights])
    out = np.zeros((len(CANDIDATES), len(codes)))
    folds = np.unique(fold_of)
    done, fits = 0, len(folds) * len(CANDIDATES)
    for fold in folds:
        held = fold_of == fold
        for i, weight in enumerate(CANDIDATES):
            counts = scale_weights(np.concatenate([np.where(held, 0.0, 1.0), np.full(made, weight)]), given)
            try:
                model = fit_probe(vectors, targets, labels=sources.labels, row_weights=counts, l2=rows.l2)
            except TrainingError as exc:
                raise TrainingError(
                    f"the {len(codes)} real rows are too few to choose source_weight by cross-validation; "
                    "give at least two rows of two labels, or a number"
                ) from exc
            own = [t for t, mark in zip(sources.real_targets, held, strict=True) if mark]
            out[i, held] = -own_log_p(model.log_proba(sources.real[held]), own, sources.labels)
            done += 1
            rows.progress(done, fits, float(out[i, held].mean()))
    return out


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
