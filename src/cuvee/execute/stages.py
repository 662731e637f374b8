"""The stages of a run: their clock, and who listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol


class Listener(Protocol):
    """Told how a run goes on."""

    def started(self, stage: str, unit: str) -> None:
        """A stage begins; its progress is counted in ``unit``."""

    def advanced(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` units are finished."""

    def detailed(self, stage: str, detail: Callable[[], str]) -> None:
        """``detail`` says how a stage is now, such as what is being spent; it may be asked from any thread."""

    def finished(self, stage: str, seconds: float) -> None:
        """A stage got to its end."""

    def noted(self, message: str) -> None:
        """Something the user should know."""


class Silent:
    """A listener that says nothing."""

    def started(self, stage: str, unit: str) -> None:
        """Say nothing."""

    def advanced(self, stage: str, done: int, total: int) -> None:
        """Say nothing."""

    def detailed(self, stage: str, detail: Callable[[], str]) -> None:
        """Say nothing."""

    def finished(self, stage: str, seconds: float) -> None:
        """Say nothing."""

    def noted(self, message: str) -> None:
        """Say nothing."""


class Progress:
    """The running stage's counter, handed to whoever does the work."""

    def __init__(self, listener: Listener, stage: str) -> None:
        self._listener, self._stage, self._base, self._last, self._total = listener, stage, 0, 0, 0

    def __call__(self, done: int, total: int) -> None:
        """``done`` of ``total`` units of the current part are finished."""
        self._last, self._total = done, total
        self._listener.advanced(self._stage, self._base + done, self._base + total)

    def show(self, detail: Callable[[], str]) -> None:
        """Have a detail shown beside the counter: ``detail`` is asked whenever it is drawn."""
        self._listener.detailed(self._stage, detail)

    def next_part(self) -> None:
        """The current part is done; the next one counts on from here."""
        self._base += self._last


class Stages:
    """Times the stages of one run.

    Args:
        listener: told of every start, advance and end.
        seconds: of each stage in earlier runs, on which those of this one are added.
    """

    def __init__(self, listener: Listener | None = None, seconds: Mapping[str, float] | None = None) -> None:
        self.listener: Listener = listener or Silent()
        self.seconds: dict[str, float] = dict(seconds or {})

    @contextmanager
    def stage(self, name: str, unit: str = "rows") -> Iterator[Progress]:
        """Time the body under ``name`` if it gets to its end; seconds add up when a stage is entered again."""
        self.listener.started(name, unit)
        start = time.perf_counter()
        yield Progress(self.listener, name)
        spent = time.perf_counter() - start
        self.seconds[name] = self.seconds.get(name, 0.0) + spent
        self.listener.finished(name, spent)
