"""One count of steps for a training and the tunings of its checkers, which come first."""

from __future__ import annotations

from cuvee.train.settings import Progress


class WholeProgress:
    """Passes on what checkers and the training tell, as one count: ``done`` never falls; it is ``all`` at the end only.

    How many tunings there will be is not known beforehand, so ``all`` grows with each.

    Args:
        progress: hears it.
        steps: of the training, as far as is known before it begins.
    """

    def __init__(self, progress: Progress, steps: int) -> None:
        self._progress, self._steps, self._before = progress, steps, 0

    def tune(self, done: int, total: int, loss: float) -> None:
        """``done`` of ``total`` steps of one tuning."""
        self._progress(self._before + done, self._before + total + self._steps, loss)
        if done == total:
            self._before += total

    def train(self, done: int, total: int, loss: float) -> None:
        """``done`` of ``total`` steps of the training itself."""
        self._progress(self._before + done, self._before + total, loss)
