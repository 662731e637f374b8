"""Checkers, models of the real rows that judge synthetic labels, and the two baselines made of one.

A checker of labels is a probe on sentence vectors, fitted with its default steps on the real training rows alone, each
with the weight that the corpus gives it. It never saw the synthetic rows that it judges, so it needs no
cross-validation. Rows without labels have checkers of their own (``tuning``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import TrainingError
from cuvee.fingerprint import derive_seed
from cuvee.probe import ProbeModel, encode_targets, fit_probe, stratified_folds
from cuvee.records import Vectors
from cuvee.train.losses.protocol import TrainingRows
from cuvee.train.losses.row_weights import scale_weights
from cuvee.train.losses.rows import WeightedRows
from cuvee.train.losses.tuning import judge_synthetic

PROBE_STEPS = 300
"""Of every probe that is fitted here."""
_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceVectors:
    """Vectors, labels and the corpus's weights of the real and of the synthetic rows, each in the corpus's order."""

    labels: tuple[str, ...]
    real: Vectors
    real_targets: Sequence[str]
    real_weights: NDArray[np.float64]
    synthetic: Vectors
    synthetic_targets: Sequence[str]
    synthetic_weights: NDArray[np.float64]


def encode_sources(rows: TrainingRows, loss: str) -> SourceVectors:
    """What a checker is fitted on and what it judges.

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


def fit_checker(sources: SourceVectors, seed: int) -> ProbeModel:
    """A probe of the real rows, with a column for every label."""
    weights = scale_weights(np.ones(len(sources.real)), sources.real_weights)
    return fit_probe(
        sources.real, sources.real_targets, labels=sources.labels, row_weights=weights, steps=PROBE_STEPS, seed=seed
    )


def own_log_p(log_proba: NDArray[np.float64], targets: Sequence[str], labels: Sequence[str]) -> NDArray[np.float64]:
    """Log probability of each row's own label, shape (n,)."""
    column = {label: i for i, label in enumerate(labels)}
    codes = np.array([column[t] for t in targets], dtype=np.int64)
    out: NDArray[np.float64] = log_proba[np.arange(len(codes)), codes]
    return out


def checker_log_p(rows: TrainingRows, sources: SourceVectors) -> NDArray[np.float64]:
    """Log P'(y|x) of each synthetic row."""
    said = fit_checker(sources, rows.seed).log_proba(sources.synthetic)
    own = own_log_p(said, sources.synthetic_targets, sources.labels)
    rows.heard(PROBE_STEPS, PROBE_STEPS, float(-own.mean()))
    return own


def synthetic_log_p(rows: TrainingRows, sources: SourceVectors) -> NDArray[np.float64]:
    """Log P_syn(y|x) of each synthetic row, from a probe of the other synthetic rows (5 folds, by group).

    Held out, because a probe that saw the row would call any label of it likely.

    Raises:
        TrainingError: a fold leaves rows of one label only to fit on.
    """
    vectors, targets = sources.synthetic, sources.synthetic_targets
    groups = [g for g, mark in zip(rows.corpus.groups, rows.synthetic, strict=True) if mark]
    _, codes = encode_targets(targets, sources.labels)
    fold_of = stratified_folds(codes, groups, _FOLDS, rows.seed)
    folds = np.unique(fold_of)
    proba = np.zeros(len(codes))
    for done, fold in enumerate(folds, start=1):
        held = fold_of == fold
        model = fit_probe(
            vectors,
            targets,
            labels=sources.labels,
            row_weights=scale_weights(np.where(held, 0.0, 1.0), sources.synthetic_weights),
            steps=PROBE_STEPS,
            seed=derive_seed(rows.seed, "fold", int(fold)),
        )
        own = [target for target, mark in zip(targets, held, strict=True) if mark]
        said = own_log_p(model.log_proba(vectors[held]), own, sources.labels)
        proba[held] = np.exp(said)
        rows.heard(done * PROBE_STEPS, len(folds) * PROBE_STEPS, float(-said.mean()))
    out: NDArray[np.float64] = np.log(np.maximum(proba, np.finfo(np.float64).tiny))
    return out


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
                weights[rows.synthetic] = judge_synthetic(rows, "agreement_filter").agrees
            return WeightedRows(weights)
        sources = encode_sources(rows, "agreement_filter")
        said = fit_checker(sources, rows.seed).predict(sources.synthetic)
        weights[rows.synthetic] = [float(a == b) for a, b in zip(said, sources.synthetic_targets, strict=True)]
        return WeightedRows(weights)


@dataclass(frozen=True, slots=True)
class CheckerAlone:
    """Real rows alone: all that a checker knows, without a single synthetic row.

    What ``imp`` and ``dimp`` must beat to have learnt anything from synthetic rows. With trainer ``probe`` at its
    default steps, batch and rate this *is* the checker of those losses at the same seed, bit for bit where rows weigh
    the same; with another trainer it is that trainer's real-only baseline, the same as ``source_weight`` 0.
    """

    def prepare(self, rows: TrainingRows) -> WeightedRows:
        """1 for real and 0 for synthetic rows."""
        return WeightedRows(np.where(rows.synthetic, 0.0, 1.0))
