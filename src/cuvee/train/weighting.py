"""What every loss and every trainer agree on: one number a row in, one slope a row out.

Each loss here is, for one row, a function of one number: log p, the model's log probability of the row's target
(classification: log softmax at the label; sequences: the mean log probability of the completion's tokens;
retrieval: log softmax over the batch's passages at the right one). So a loss is written once, in numpy, and every
trainer uses it through its slope, d loss / d log p.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, CuveeError
from cuvee.probe import CHECKING_L2, Objective, Phase
from cuvee.records import Floats, Vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class RowScores:
    """What a tuned model says of rows that it was not tuned on.

    Attributes:
        log_p: log probability of each row's target, as the trainer counts it, shape (n,); NaN where a row does not
            fit the model.
        agrees: whether the model would have the row so, shape (n,): retrieval: it ranks the row's passage first of
            all; sequences: the row is among the more probable half. Rows that do not fit agree.
    """

    log_p: Floats
    agrees: NDArray[np.bool_]


class RowChecker(Protocol):
    """Tunes the trainer's own model on some rows for a few steps, and lets it check others."""

    def __call__(self, corpus: Corpus, scored: Corpus, *, weights: Floats, passes: int | None, seed: int) -> RowScores:
        """What a model of ``corpus`` says of ``scored``.

        Args:
            corpus: rows to tune on.
            scored: rows to check.
            weights: of the rows to tune on, shape (n,).
            passes: over those rows, at most; None takes half the steps of the training, the most there are.
            seed: of the tuning.

        Raises:
            TrainingError: the tuning failed.
        """


# Called with (steps done, all steps, loss so far) of a training; ``done`` is ``all`` at its end.
OnStep = Callable[[int, int, float], None]


def _say_nothing(_done: int, _all: int, _loss: float) -> None:
    """What is called where no progress is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRows:
    """What a loss may look at before training.

    Args:
        corpus: all rows, real and synthetic; its ``weights``, above 0, are multiplied with those of the loss
            afterwards, and are for the loss to heed in what it fits itself.
        synthetic: shape (n,), marks the synthetic rows.
        encode: texts to sentence vectors, for checkers of labels; called only by losses that need vectors.
        seed: of the training draw.
        l2: penalty of checkers that are probes.
        checker: the checker where there are no labels; None where the trainer has none.
        progress: called while checkers of labels are fitted; a ``checker`` has a progress of its own.
    """

    corpus: Corpus
    synthetic: NDArray[np.bool_]
    encode: Callable[[Sequence[str]], Vectors]
    seed: int
    l2: float = CHECKING_L2
    checker: RowChecker | None = None
    progress: OnStep = _say_nothing


class PreparedLoss(Objective, Protocol):
    """A loss that has seen its rows: ``weights``, ``phases`` and ``slopes`` are those of the kept ones."""

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Rows that take part, shape (n,); the others are dropped before batches are drawn."""

    def values(self, rows: NDArray[np.int64], log_p: Floats) -> Floats:
        """Loss of each row of a batch, shape (b,), for progress only."""


class Loss(Protocol):
    """A loss with its settings, before it has seen rows."""

    def prepare(self, rows: TrainingRows) -> PreparedLoss:
        """The loss for these rows.

        Raises:
            ConfigError: the task has no use for this loss.
            TrainingError: a checker cannot be fitted on these rows.
        """


class AdjustedLoss:
    """A prepared loss with phases or weights in place of its own; all else is as the loss has it.

    Args:
        loss: prepared.
        phases, weights: in place of those of the loss; None leaves them.
        factor: of the slopes and values of each kept row; None is 1.
    """

    def __init__(
        self, loss: PreparedLoss, *, phases: Sequence[Phase] | None = None, weights: Floats | None = None,
        factor: Floats | None = None,
    ) -> None:  # fmt: skip
        self._loss = loss
        self.kept = loss.kept
        self.phases = loss.phases if phases is None else phases
        self.weights: Floats = loss.weights if weights is None else weights
        self._factor: Floats = np.ones(len(self.weights)) if factor is None else factor

    def slopes(self, rows: NDArray[np.int64], log_p: Floats) -> Floats:
        """The loss's slopes times the rows' factors, shape (b,)."""
        return np.asarray(self._factor[rows] * self._loss.slopes(rows, log_p))

    def values(self, rows: NDArray[np.int64], log_p: Floats) -> Floats:
        """The loss's values times the rows' factors, shape (b,)."""
        return np.asarray(self._factor[rows] * self._loss.values(rows, log_p))


def scale_weights(own: Floats, weights: Floats) -> Floats:
    """Both weights of each row multiplied, and scaled to the sum of ``own``, shape (n,): only ratios of rows matter.

    Args:
        own: given by a loss, shape (n,), not negative.
        weights: that the rows bring along, shape (n,), above 0. Where those that count are all the same, this is
            ``own``, bit for bit.
    """
    counted = weights[own > 0]
    if len(counted) == 0 or bool((counted == counted[0]).all()):
        return own
    return np.asarray(own * weights * (own.sum() / (own @ weights)))


def weigh_rows(loss: PreparedLoss, weights: Floats) -> PreparedLoss:
    """The loss whose rows also weigh what the corpus says, shape (n,); the loss itself where all weigh the same.

    Only ratios matter: both weights together sum to what the loss's own do, and have mean 1 over the rows of a phase.
    Rows of weight 0 are left out before a loss is prepared. Checkers that a loss fits weigh rows alike
    (``scale_weights``).
    """
    weights = weights[loss.kept]
    if len(weights) == 0 or bool((weights == weights[0]).all()):
        return loss
    own, factor = np.asarray(loss.weights, dtype=np.float64), np.ones(len(weights))
    for phase in loss.phases:
        part = own[phase.rows]
        if len(part):
            factor[phase.rows] = weights[phase.rows] * part.sum() / (weights[phase.rows] @ part)
    return AdjustedLoss(loss, weights=scale_weights(own, weights), factor=factor)


@contextmanager
def name_failure(what: str, name: str) -> Iterator[None]:
    """Name the user's object in whatever it raises.

    Args:
        what: trainer or loss.
        name: ``module:Name``.

    Raises:
        ConfigError: the block raised something that is no error of ours.
    """
    try:
        yield
    except (CuveeError, MemoryError):
        raise
    except (Exception, SystemExit) as exc:
        said = " ".join(f"{type(exc).__name__}: {exc}".split())
        raise ConfigError(f"{what} {name!r} failed ({said}); correct it, or choose another") from exc


class OwnRows:
    """A prepared loss of the user's own, called inside ``name_failure``.

    Args:
        name: ``module:Name``.
        loss: prepared.
        count: of all rows.

    Raises:
        ConfigError: what it says of its rows does not fit them.
    """

    def __init__(self, name: str, loss: PreparedLoss, count: int) -> None:
        self._name, self._loss = name, loss
        self.kept, self.phases, self.weights = loss.kept, loss.phases, loss.weights
        kept, weights = np.asarray(self.kept), np.asarray(self.weights)
        if kept.shape != (count,) or kept.dtype != np.bool_:
            raise ConfigError(f"loss {name!r}: kept is {kept.dtype} of shape {kept.shape}; give bool of ({count},)")
        if weights.shape != (int(kept.sum()),) or not (np.isfinite(weights) & (weights > 0)).all():
            raise ConfigError(f"loss {name!r}: weights must be finite numbers above 0, one for each kept row")

    def slopes(self, rows: NDArray[np.int64], log_p: Floats) -> Floats:
        """As the loss has them, once their shape is checked."""
        return self._ask("slopes", rows, log_p)

    def values(self, rows: NDArray[np.int64], log_p: Floats) -> Floats:
        """As the loss has them, once their shape is checked."""
        return self._ask("values", rows, log_p)

    def _ask(self, what: Literal["slopes", "values"], rows: NDArray[np.int64], log_p: Floats) -> Floats:
        with name_failure("loss", self._name):
            numbers = np.asarray(getattr(self._loss, what)(rows, log_p), dtype=np.float64)
        if numbers.shape != log_p.shape:
            raise ConfigError(f"loss {self._name!r}: {what} has shape {numbers.shape}; give {log_p.shape}")
        return numbers


def prepare_loss(loss: Loss, name: str, rows: TrainingRows) -> PreparedLoss:
    """The loss for these rows; one of the user's own is checked.

    Args:
        loss: that ``build_loss`` gave.
        name: of the loss; ``module:Name`` is the user's own.
        rows: what it may look at.

    Raises:
        ConfigError: the user's own failed, or does not give what a prepared loss has; or as ``Loss.prepare``.
    """
    if ":" not in name:
        return loss.prepare(rows)
    with name_failure("loss", name):
        return OwnRows(name, loss.prepare(rows), len(rows.synthetic))


def mark_synthetic(corpus: Corpus) -> NDArray[np.bool_]:
    """Which rows are synthetic, shape (n,)."""
    return np.array([origin == "synthetic" for origin in corpus.origins], dtype=np.bool_)
