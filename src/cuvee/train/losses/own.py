"""A loss of the user's own: what breaks in it is told in one line that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import ConfigError, CuveeError
from cuvee.train.losses.protocol import Loss, Phase, PreparedLoss, TrainingRows

Floats = NDArray[np.float64]


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
