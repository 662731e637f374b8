"""What prepared losses are built on: rows with static weights, and a loss adjusted, weighted by row, or the user's own.

What breaks in a loss of the user's own is told in one line that names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import ConfigError, CuveeError
from cuvee.train.losses.protocol import Loss, Phase, PreparedLoss, TrainingRows

Floats = NDArray[np.float64]


class WeightedRows:
    """Cross-entropy of weighted rows, and the ground that the other losses stand on.

    A row of weight 2 is a row that stands twice: weights are divided by their mean over the phase's rows, so only
    their ratios matter, and they mean the same in every batch. Rows of zero weight are dropped.

    Args:
        weights: of all rows, shape (n,), finite and not negative.
        phases: of the kept rows; by default one phase of them all.
    """

    def __init__(self, weights: NDArray[np.float64], phases: Sequence[Phase] | None = None) -> None:
        self.kept: NDArray[np.bool_] = weights > 0
        self.weights: NDArray[np.float64] = weights[self.kept]
        whole = Phase(rows=np.arange(len(self.weights)), share=1.0)
        self.phases: tuple[Phase, ...] = (whole,) if phases is None else tuple(phases)
        self.relative: NDArray[np.float64] = np.ones(len(self.weights))
        for phase in self.phases:
            part = self.weights[phase.rows]
            if len(part):
                self.relative[phase.rows] = part / part.mean()

    @property
    def needs_gradients(self) -> bool:
        """Whether ``observe`` wants the cosine of gradients."""
        return False

    def slopes(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Relative weight times the loss's own slope, shape (b,)."""
        out: NDArray[np.float64] = self.relative[rows] * self._slope(log_p)
        return out

    def values(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Relative weight times the loss's own value, shape (b,)."""
        out: NDArray[np.float64] = self.relative[rows] * self._value(log_p)
        return out

    def observe(self, step: int, agreement: float) -> None:
        """Takes no notice."""

    def _slope(self, log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.full_like(log_p, -1.0)

    def _value(self, log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        return -log_p


class AdjustedLoss:
    """A prepared loss with phases or weights in place of its own; all else is as the loss has it.

    Args:
        loss: prepared.
        phases, weights: in place of those of the loss; None leaves them.
    """

    def __init__(
        self, loss: PreparedLoss, *, phases: tuple[Phase, ...] | None = None, weights: Floats | None = None
    ) -> None:
        self._loss, self._phases, self._weights = loss, phases, weights

    @property
    def kept(self) -> NDArray[np.bool_]:
        """As the loss has it."""
        return self._loss.kept

    @property
    def weights(self) -> Floats:
        """Those given, or as the loss has them."""
        return self._loss.weights if self._weights is None else self._weights

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Those given, or as the loss has them."""
        return self._loss.phases if self._phases is None else self._phases

    @property
    def needs_gradients(self) -> bool:
        """As the loss has it."""
        return self._loss.needs_gradients

    def slopes(self, rows: NDArray[np.int64], log_p: Floats) -> Floats:
        """As the loss has them."""
        return self._loss.slopes(rows, log_p)

    def values(self, rows: NDArray[np.int64], log_p: Floats) -> Floats:
        """As the loss has them."""
        return self._loss.values(rows, log_p)

    def observe(self, step: int, agreement: float) -> None:
        """Told to the loss."""
        self._loss.observe(step, agreement)


class RowWeightedLoss(AdjustedLoss):
    """A prepared loss whose rows also weigh what the corpus says; of any loss, and for every trainer.

    Only ratios matter: both weights together sum to what the loss's own do, and have mean 1 over the rows of a phase.
    Rows of weight 0 are left out before a loss is prepared. Checkers that a loss fits weigh rows alike
    (``scale_weights``).

    Args:
        loss: prepared for these rows.
        weights: of its kept rows, shape (kept,), above 0.
    """

    def __init__(self, loss: PreparedLoss, weights: NDArray[np.float64]) -> None:
        own = np.asarray(loss.weights, dtype=np.float64)
        super().__init__(loss, weights=scale_weights(own, weights))
        self._factor: NDArray[np.float64] = np.ones(len(weights))
        for phase in loss.phases:
            part = own[phase.rows]
            if len(part):
                self._factor[phase.rows] = weights[phase.rows] * part.sum() / (weights[phase.rows] @ part)

    def slopes(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """The loss's slopes times the rows' relative weights, shape (b,)."""
        found: NDArray[np.float64] = self._factor[rows] * self._loss.slopes(rows, log_p)
        return found

    def values(self, rows: NDArray[np.int64], log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """The loss's values times the rows' relative weights, shape (b,)."""
        found: NDArray[np.float64] = self._factor[rows] * self._loss.values(rows, log_p)
        return found


def scale_weights(own: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Both weights of each row multiplied, and scaled to the sum of ``own``, shape (n,): only ratios of rows matter.

    Args:
        own: given by a loss, shape (n,), not negative.
        weights: that the rows bring along, shape (n,), above 0. Where those that count are all the same, this is
            ``own``, bit for bit.
    """
    counted = weights[own > 0]
    if len(counted) == 0 or bool((counted == counted[0]).all()):
        return own
    found: NDArray[np.float64] = own * weights * (own.sum() / (own @ weights))
    return found


def weigh_rows(loss: PreparedLoss, weights: NDArray[np.float64]) -> PreparedLoss:
    """The loss with the weights of all its rows, shape (n,); the loss itself where all weigh the same."""
    kept = weights[loss.kept]
    return loss if len(kept) == 0 or bool((kept == kept[0]).all()) else RowWeightedLoss(loss, kept)


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
    except Exception as exc:
        said = " ".join(f"{type(exc).__name__}: {exc}".split())
        raise ConfigError(f"{what} {name!r} failed ({said}); correct it, or choose another") from exc


class OwnLoss:
    """A loss of the user's own, before it has seen rows.

    Args:
        name: ``module:Name``.
        loss: what it names made.
    """

    def __init__(self, name: str, loss: Loss) -> None:
        self._name, self._loss = name, loss

    def prepare(self, rows: TrainingRows) -> OwnRows:
        """Prepared by the user's loss.

        Raises:
            ConfigError: it failed, or does not give what a prepared loss has.
        """
        with name_failure("loss", self._name):
            return OwnRows(self._name, self._loss.prepare(rows), len(rows.synthetic))


class OwnRows:
    """A prepared loss of the user's own.

    Args:
        name: ``module:Name``.
        rows: prepared.
        count: of all rows.

    Raises:
        ConfigError: what it says of its rows does not fit them.
    """

    def __init__(self, name: str, rows: PreparedLoss, count: int) -> None:
        self._name, self._rows = name, rows
        kept, weights = np.asarray(self.kept), np.asarray(self.weights)
        if kept.shape != (count,) or kept.dtype != np.bool_:
            raise ConfigError(f"loss {name!r}: kept is {kept.dtype} of shape {kept.shape}; give bool of ({count},)")
        if weights.shape != (int(kept.sum()),) or not (np.isfinite(weights) & (weights > 0)).all():
            raise ConfigError(f"loss {name!r}: weights must be finite numbers above 0, one for each kept row")

    @property
    def kept(self) -> NDArray[np.bool_]:
        """As the loss has it."""
        with name_failure("loss", self._name):
            return self._rows.kept

    @property
    def weights(self) -> Floats:
        """As the loss has them."""
        with name_failure("loss", self._name):
            return self._rows.weights

    @property
    def phases(self) -> tuple[Phase, ...]:
        """As the loss has them."""
        with name_failure("loss", self._name):
            return self._rows.phases

    @property
    def needs_gradients(self) -> bool:
        """As the loss has it."""
        with name_failure("loss", self._name):
            return self._rows.needs_gradients

    def slopes(self, rows: NDArray[np.int64], log_p: Floats) -> Floats:
        """As the loss has them."""
        with name_failure("loss", self._name):
            return self._checked("slopes", self._rows.slopes(rows, log_p), log_p)

    def values(self, rows: NDArray[np.int64], log_p: Floats) -> Floats:
        """As the loss has them."""
        with name_failure("loss", self._name):
            return self._checked("values", self._rows.values(rows, log_p), log_p)

    def observe(self, step: int, agreement: float) -> None:
        """Told to the loss."""
        with name_failure("loss", self._name):
            self._rows.observe(step, agreement)

    def _checked(self, what: str, found: Floats, log_p: Floats) -> Floats:
        numbers = np.asarray(found, dtype=np.float64)
        if numbers.shape != log_p.shape:
            raise ConfigError(f"loss {self._name!r}: {what} has shape {numbers.shape}; give {log_p.shape}")
        return numbers
