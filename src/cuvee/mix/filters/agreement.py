"""The filter of rows whose label a probe of the real rows does not believe."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, TrainingError
from cuvee.fingerprint import derive_seed
from cuvee.mix.filters.steps import Candidates, Judgement
from cuvee.mix.shares import apportion_rows
from cuvee.probe import cross_validated_proba, fit_probe
from cuvee.records import Vectors

_UNKNOWN = "has a label the real rows lack"


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreement:
    """Keeps the rows whose own label is likely by a probe fitted on the real training rows alone.

    The probe and its seed are those of the measured ``label_agreement``, so both judge a row alike. A label that
    the real rows lack always goes. ``top`` keeps its fraction of each label's rows, so that labels keep their
    proportions (the quota method: exact in all, each label within one row); a smaller ``top`` keeps some of the
    rows of a larger one. The note gives the probe's cross-validated accuracy on the real rows: how far to trust it.

    Args:
        train: the real training rows.
        threshold: keep rows whose label has at least this probability, 0 to 1.
        top: keep this fraction of the rows, the most probable first, ties by row order; above 0, at most 1.
        train_vectors: of ``train``, shape (m, d); encoded where left out.
        seed: of the probe and of the folds.

    Raises:
        ValueError: not exactly one of ``threshold`` and ``top``, or one out of range.
        ConfigError: the task has no labels.
    """

    train: Corpus
    threshold: float | None = None
    top: float | None = None
    train_vectors: Vectors | None = None
    seed: int = 0
    name: str = "agreement"

    def __post_init__(self) -> None:
        if (self.threshold is None) == (self.top is None):
            raise ValueError(f"threshold is {self.threshold!r} and top {self.top!r}; give exactly one of them")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold!r}; it must be from 0 to 1")
        if self.top is not None and not 0 < self.top <= 1:
            raise ValueError(f"top is {self.top!r}; it must be above 0, at most 1")
        if self.train.task != "classification":
            raise ConfigError(f"filter {self.name!r} needs labels; task {self.train.task!r} has none")

    def judge(self, rows: Candidates) -> Judgement:
        """``label less probable than P`` or ``not in the top P of its label``.

        Raises:
            TrainingError: the real rows are of one label only.
            ValueError: there are no vectors.
        """
        own = rows.needed_vectors(self.name)
        real = rows.embed(self.train.texts, self.train_vectors, "train_vectors")
        if real is None:
            raise ValueError(f"filter {self.name!r} needs vectors of the real rows; give encode or train_vectors")
        probability = self._probabilities(real, own, rows.corpus)
        known = ~np.isnan(probability)
        if self.threshold is not None:
            stays, reason = probability >= self.threshold, f"label less probable than {self.threshold:g}"
        else:
            stays = self._most_probable(probability, rows.corpus)
            reason = f"not in the top {self.top:.3g} of its label"
        reasons = tuple(
            None if kept else (reason if labelled else _UNKNOWN) for kept, labelled in zip(stays, known, strict=True)
        )
        return Judgement(reasons=reasons, note=self._trust(real))

    def _probabilities(self, real: Vectors, own: Vectors, corpus: Corpus) -> NDArray[np.float64]:
        """Of each row's own label, shape (n,); nan where the real rows lack it."""
        probe = fit_probe(real, self.train.targets, seed=derive_seed(self.seed, "label-agreement"))
        column = {label: i for i, label in enumerate(probe.labels)}
        codes = np.array([column.get(label, -1) for label in corpus.targets], dtype=np.int64)
        proba = probe.proba(own)
        out: NDArray[np.float64] = np.where(codes >= 0, proba[np.arange(len(codes)), codes], np.nan)
        return out

    def _most_probable(self, probability: NDArray[np.float64], corpus: Corpus) -> NDArray[np.bool_]:
        targets = np.array(corpus.targets)
        known = ~np.isnan(probability)
        sizes = dict(sorted(Counter(targets[known].tolist()).items()))
        wanted = apportion_rows(sizes, math.floor((self.top or 0.0) * int(known.sum()) + 0.5))
        stays = np.zeros(len(targets), dtype=bool)
        for label, count in wanted.items():
            members = np.flatnonzero(known & (targets == label))
            best = np.argsort(-probability[members], kind="stable")[:count]
            stays[members[best]] = True
        return stays

    def _trust(self, real: Vectors) -> str:
        train = self.train
        label, rows = max(train.label_counts().items(), key=lambda pair: pair[1])
        about = f"probe of {len(train)} real rows"
        try:
            proba = cross_validated_proba(
                real, train.targets, groups=train.groups, seed=derive_seed(self.seed, "label-agreement")
            )
        except TrainingError:  # too few real rows to hold some out
            return f"{about}, too few to cross-validate: nothing says how far to trust it"
        labels = np.array(train.labels)
        accuracy = float((labels[proba.argmax(axis=1)] == np.array(train.targets)).mean())
        worth = "" if accuracy * len(train) > rows else f": no better than always saying {label!r}, do not trust it"
        return f"{about}, cross-validated accuracy {accuracy:.3f} (largest label {rows / len(train):.3f}){worth}"
