"""What every loss and every trainer agree on: one number a row in, one slope a row out.

Each loss here is, for one row, a function of one number: log p, the model's log probability of the row's target
(classification: log softmax at the label; sequences: the mean log probability of the completion's tokens;
retrieval: log softmax over the batch's passages at the right one). So a loss is written once, in numpy, and every
trainer uses it through its slope, d loss / d log p.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.records import Vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of training.

    Args:
        rows: places among the kept rows that batches are drawn from.
        share: of all steps; the shares of all phases sum to 1.
        pull: strength of the pull back to where the phase began: the term pull / 2 * |theta - theta_0|^2.
    """

    rows: NDArray[np.int64]
    share: float
    pull: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a tuned model says of rows that it was not tuned on.

    Attributes:
        log_p: log probability of each row's target, as the trainer counts it, shape (n,); NaN where a row does not
            fit the model.
        agrees: whether the model would have the row so, shape (n,): retrieval: it ranks the row's passage first of
            all; sequences: the row is among the more probable half. Rows that do not fit agree.
    """

    log_p: NDArray[np.float64]
    agrees: NDArray[np.bool_]


class Judge(Protocol):
    """Tunes the trainer's own model on some rows for a few steps, and lets it judge others."""

    def __call__(
        self, corpus: Corpus, judged: Corpus, *, weights: NDArray[np.float64], passes: int | None, seed: int
    ) -> Judgement:
        """What a model of ``corpus`` says of ``judged``.

        Args:
            corpus: rows to tune on.
            judged: rows to judge.
            weights: of the rows to tune on, shape (n,).
            passes: over those rows, at most; None takes half the steps of the training, the most there are.
            seed: of the tuning.

        Raises:
            TrainingError: the tuning failed.
        """


Heard = Callable[[int, int, float], None]
"""Called with (steps done, all steps, loss) of one tuning; ``done`` is ``all`` at its end."""


def _say_nothing(_done: int, _all: int, _loss: float) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRows:
    """What a loss may look at before training.

    Args:
        corpus: all rows, real and synthetic; its ``weights``, above 0, are multiplied with those of the loss
            afterwards, and are for the loss to heed in what it fits itself.
        synthetic: shape (n,), marks the synthetic rows.
        validation: real rows held out, never trained on; None where there are none.
        encode: texts to sentence vectors, for checkers of labels; called only by losses that need vectors.
        seed: of the training draw.
        judge: the checker where there are no labels; None where the trainer has none.
        heard: told how fitting checkers of labels goes on: steps done, all steps, loss; a judge tells it itself.
    """

    corpus: Corpus
    synthetic: NDArray[np.bool_]
    validation: Corpus | None
    encode: Callable[[Sequence[str]], Vectors]
    seed: int
    judge: Judge | None = None
    heard: Heard = _say_nothing


class PreparedLoss(Protocol):
    """A loss that has seen its rows."""

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Rows that take part, shape (n,); the others are dropped before batches are drawn."""

    @property
    def weights(self) -> NDArray[np.float64]:
        """Static weight of each kept row, above 0; their mean need not be 1."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """One by default: all kept rows, share 1."""

    @property
    def needs_gradients(self) -> bool:
        """Whether ``observe`` wants the cosine of gradients."""

    def slopes(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivative of each row's loss by its log p, shape (b,): -1 is plain cross-entropy.

        Static weights (relative to their mean over the phase's rows), detached weights and normalisation are
        inside: a batch's gradient is the *mean* over the batch of slope times grad log p.

        Args:
            rows: places among the kept rows, shape (b,).
            log_p: log probability of each row's target, shape (b,).
        """

    def values(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Loss of each row of a batch, shape (b,), for progress only."""

    def observe(self, step: int, agreement: float) -> None:
        """Take note of the cosine between the gradients of synthetic rows and of real validation rows.

        Both are centred gradients of plain cross-entropy at the same parameters; called before the batch of ``step``
        where ``needs_gradients``, as often as the trainer can afford. A fine-tuned model's cosine is scaled by the
        norm of the real rows' gradient over the largest norm so far: what is learnt has little to say.
        """


class Loss(Protocol):
    """A loss with its settings, before it has seen rows."""

    def prepare(self, rows: TrainingRows) -> PreparedLoss:
        """The loss for these rows.

        Raises:
            ConfigError: the task has no use for this loss.
            TrainingError: a checker cannot be fitted on these rows.
        """
