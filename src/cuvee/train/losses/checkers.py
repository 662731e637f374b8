"""Checkers, models of the real rows that judge synthetic labels, and the two baselines made of one.

A checker of labels is a probe on sentence vectors, fitted with its default steps on the real training rows alone. It
never saw the synthetic rows that it judges, so it needs no cross-validation. Rows without labels have checkers of
their own (``tuning``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import TrainingError
from cuvee.probe import ProbeModel, cross_validated_proba, fit_probe
from cuvee.records import Vectors
from cuvee.train.losses.protocol import TrainingRows
from cuvee.train.losses.rows import WeightedRows
from cuvee.train.losses.tuning import judge_synthetic


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceVectors:
    """Vectors and labels of the real and of the synthetic rows, each in the corpus's order."""

    labels: tuple[str, ...]
    real: Vectors
    real_targets: Sequence[str]
    synthetic: Vectors
    synthetic_targets: Sequence[str]


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
    vectors = rows.encode(texts)
    return SourceVectors(
        labels=tuple(rows.corpus.labels),
        real=vectors[real],
        real_targets=[targets[i] for i in real],
        synthetic=vectors[synthetic],
        synthetic_targets=[targets[i] for i in synthetic],
    )


def fit_checker(sources: SourceVectors, seed: int) -> ProbeModel:
    """A probe of the real rows, with a column for every label."""
    return fit_probe(sources.real, sources.real_targets, labels=sources.labels, seed=seed)


def own_log_p(log_proba: NDArray[np.float64], targets: Sequence[str], labels: Sequence[str]) -> NDArray[np.float64]:
    """Log probability of each row's own label, shape (n,)."""
    column = {label: i for i, label in enumerate(labels)}
    codes = np.array([column[t] for t in targets], dtype=np.int64)
    out: NDArray[np.float64] = log_proba[np.arange(len(codes)), codes]
    return out


def checker_log_p(rows: TrainingRows, sources: SourceVectors) -> NDArray[np.float64]:
    """Log P'(y|x) of each synthetic row."""
    said = fit_checker(sources, rows.seed).log_proba(sources.synthetic)
    return own_log_p(said, sources.synthetic_targets, sources.labels)


def synthetic_log_p(rows: TrainingRows, sources: SourceVectors) -> NDArray[np.float64]:
    """Log P_syn(y|x) of each synthetic row, from a probe of the other synthetic rows (5 folds, by group).

    Held out, because a probe that saw the row would call any label of it likely.
    """
    groups = [g for g, mark in zip(rows.corpus.groups, rows.synthetic, strict=True) if mark]
    proba = cross_validated_proba(
        sources.synthetic, sources.synthetic_targets, labels=sources.labels, groups=groups, seed=rows.seed
    )
    return own_log_p(np.log(np.maximum(proba, np.finfo(np.float64).tiny)), sources.synthetic_targets, sources.labels)


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
    default steps, batch and rate this *is* the checker of those losses at the same seed, bit for bit; with another
    trainer it is that trainer's real-only baseline, the same as ``source_weight`` 0.
    """

    def prepare(self, rows: TrainingRows) -> WeightedRows:
        """1 for real and 0 for synthetic rows."""
        return WeightedRows(np.where(rows.synthetic, 0.0, 1.0))
