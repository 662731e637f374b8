"""Rows made ready for a trainer: the loss prepared, the rows that count, and real rows held out where it needs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.errors import TrainingError
from cuvee.fingerprint import derive_seed
from cuvee.probe import encode_targets, stratified_folds
from cuvee.records import Vectors
from cuvee.train.losses import Judge, PreparedLoss, TrainingRows, build_loss, fill_loss_settings
from cuvee.train.losses.rows import weigh_rows
from cuvee.train.settings import Progress, TrainSettings

_HELD_OUT = 4  # one real row in so many is held out where a loss needs validation rows and none are given


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyRows:
    """What a trainer takes.

    Args:
        corpus: the rows that count, in the order of ``loss.weights``.
        loss: prepared for them.
        settings: with the loss's own settings filled in.
        validation: real rows that are not trained on.
    """

    corpus: Corpus
    loss: PreparedLoss
    settings: TrainSettings
    validation: Corpus | None


def make_ready(
    corpus: Corpus,
    settings: TrainSettings,
    *,
    validation: Corpus | None,
    encode: Callable[[Sequence[str]], Vectors],
    judge: Judge | None = None,
    progress: Progress | None = None,
) -> ReadyRows:
    """Prepare the loss, and drop the rows that do not count.

    A loss that compares gradients with those of real validation rows takes a quarter of the real rows for it, by
    group and stratified by label, where ``validation`` is None; these are then not trained on. The corpus's own
    weights of rows count on top of those of the loss; rows of weight 0 are dropped first. ``progress`` hears how
    checkers of labels are fitted, as often as there is one more.

    Raises:
        TrainingError: no rows that count, one label only, or no real rows to hold out.
        ConfigError: the loss does not fit its settings or the task.
    """
    loss = build_loss(settings)
    corpus = corpus if (corpus.weights > 0).all() else corpus.keep(corpus.weights > 0)

    def prepare(corpus: Corpus, validation: Corpus | None) -> PreparedLoss:
        rows = TrainingRows(
            corpus=corpus, synthetic=mark_synthetic(corpus), validation=validation, encode=encode,
            seed=settings.seed, judge=judge,
        )  # fmt: skip
        return loss.prepare(rows if progress is None else dataclasses.replace(rows, heard=progress))

    prepared = prepare(corpus, validation)
    if prepared.needs_gradients and validation is None:
        held = _hold_out(corpus, settings)
        validation, corpus = corpus.keep(held), corpus.keep(~held)
        prepared = prepare(corpus, validation)
    kept = corpus if prepared.kept.all() else corpus.keep(prepared.kept)
    if len(kept) == 0:
        raise TrainingError("there are no rows to train on; give rows of at least two labels, with weights above 0")
    if corpus.task == "classification" and len(kept.labels) < 2:
        raise TrainingError(f"training rows of one label only ({kept.labels[0]!r}); give rows of at least two")
    filled = fill_loss_settings(settings, prepared)
    weighed = weigh_rows(prepared, corpus.weights)
    return ReadyRows(corpus=kept, loss=weighed, settings=filled, validation=validation)


def mark_synthetic(corpus: Corpus) -> NDArray[np.bool_]:
    """Which rows are synthetic, shape (n,)."""
    return np.array([origin == "synthetic" for origin in corpus.origins], dtype=np.bool_)


def _hold_out(corpus: Corpus, settings: TrainSettings) -> NDArray[np.bool_]:
    real = np.flatnonzero(~mark_synthetic(corpus))
    targets, groups = corpus.targets, corpus.groups
    labelled = corpus.task == "classification"
    _, codes = encode_targets([targets[i] if labelled else "" for i in real], None)
    own = [groups[i] for i in real]
    if len(set(own)) < 2:
        raise TrainingError(
            f"loss {settings.loss!r} holds out a quarter of the real rows, and there are {len(real)} of "
            f"{len(set(own))} groups; give more, or validation rows"
        )
    folds = stratified_folds(codes, own, _HELD_OUT, derive_seed(settings.seed, "held-out"))
    held = np.zeros(len(corpus), dtype=np.bool_)
    held[real[folds == 0]] = True
    return held
