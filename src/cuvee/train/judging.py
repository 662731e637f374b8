"""Checkers where there are no labels: the trainer's own model, tuned for a few steps, judges rows it never saw.

The work is done by the trainers (which import torch when they are called); losses are given one of these.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.train import causal, retriever
from cuvee.train.losses import Judge, Judgement, WeightedRows
from cuvee.train.settings import Progress, TrainSettings

_PART = 2  # a tuning takes one in so many of the training's steps, at most


def make_judge(settings: TrainSettings, progress: Progress | None = None) -> Judge | None:
    """The checker of the trainer that ``settings`` name; None where it has none.

    Args:
        settings: of the training.
        progress: called as each tuning goes on, with its steps.
    """
    judges: dict[str, type[CausalJudge | RetrieverJudge]] = {"causal": CausalJudge, "retriever": RetrieverJudge}
    return judges[settings.trainer](settings, progress) if settings.trainer in judges else None


@dataclass(frozen=True, slots=True)
class _TuningJudge:
    """Tunes the trainer's model; what it says of rows is the task's own."""

    settings: TrainSettings
    progress: Progress | None = None

    def _plan(
        self, corpus: Corpus, weights: NDArray[np.float64], passes: int | None, seed: int, steps: int, batch_size: int
    ) -> tuple[Corpus, WeightedRows, TrainSettings]:
        """The rows that count, their loss, and how to tune on them; the last two where the settings have none."""
        loss, settings = WeightedRows(weights), self.settings
        rows = corpus.keep(loss.kept)
        size = settings.batch_size or batch_size
        return rows, loss, tuned_settings(settings, settings.steps or steps, size, len(rows), passes, seed)


class CausalJudge(_TuningJudge):
    """Judges completions. The more probable half agrees, by mean log probability of tokens."""

    def __call__(
        self, corpus: Corpus, judged: Corpus, *, weights: NDArray[np.float64], passes: int | None, seed: int
    ) -> Judgement:
        """See ``Judge``."""
        plan = self._plan(corpus, weights, passes, seed, causal.STEPS, causal.BATCH_SIZE)
        writer = causal.train_causal(*plan, encoder=None, validation=None, progress=self.progress, folder=None)
        log_p = writer.language_model.mean_log_p(judged.prompts, judged.targets)
        known = log_p[np.isfinite(log_p)]
        agrees = ~(log_p < np.median(known)) if len(known) else np.ones(len(log_p), dtype=np.bool_)
        return Judgement(log_p=log_p, agrees=agrees)


class RetrieverJudge(_TuningJudge):
    """Judges pairs of query and passage, among the passages of all that it judges."""

    def __call__(
        self, corpus: Corpus, judged: Corpus, *, weights: NDArray[np.float64], passes: int | None, seed: int
    ) -> Judgement:
        """See ``Judge``."""
        plan = self._plan(corpus, weights, passes, seed, retriever.STEPS, retriever.BATCH_SIZE)
        ranker = retriever.train_retriever(*plan, encoder=None, validation=None, progress=self.progress, folder=None)
        ranked = ranker.rank_own(judged)
        return Judgement(log_p=ranked.log_p, agrees=ranked.first)


def tuned_settings(
    settings: TrainSettings, steps: int, batch_size: int, rows: int, passes: int | None, seed: int
) -> TrainSettings:
    """The settings of a tuning: plain cross-entropy, half the steps or as many as the passes take, no checkpoints."""
    most = max(1, steps // _PART)
    taken = most if passes is None else min(most, max(1, math.ceil(passes * rows / batch_size)))
    return dataclasses.replace(
        settings, loss="ce", steps=taken, seed=seed, checkpoint_every=None, patience=None, evaluate_every=None
    )
