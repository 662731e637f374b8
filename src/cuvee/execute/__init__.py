"""When and where work runs: the executor of a kind, and the clock of a run's stages."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, Protocol

from cuvee.execute.workers import THREAD_VARIABLES, Executor, Lost, ProcessExecutor, R, T, Terms

ExecutorKind = Literal["local", "processes", "ray"]


def open_executor(kind: ExecutorKind = "local", terms: Terms | None = None, *, address: str | None = None) -> Executor:
    """An executor; use it as a context manager.

    Args:
        kind: ``local`` (in this process), ``processes`` (of this machine), ``ray``.
        terms: ``local`` heeds ``cpus`` alone.
        address: of a Ray cluster; None starts one here.

    Raises:
        MissingDependency: ray is not installed.
        ConfigError: no cluster answers.
        ValueError: an unknown kind.
    """
    chosen = terms or Terms()
    if kind == "local":
        return LocalExecutor(chosen.cpus)
    if kind == "processes":
        return ProcessExecutor(chosen)
    if kind == "ray":
        from cuvee.execute.ray import RayExecutor

        return RayExecutor(address, chosen)
    raise ValueError(f"kind is {kind!r}; valid: local, processes, ray")


class LocalExecutor(Executor):
    """Runs items one after another here.

    Args:
        cpus: threads of linear algebra; None leaves them as they are, as a rule all cores.
    """

    def __init__(self, cpus: int | None = None) -> None:
        self._cpus = cpus

    def run_all(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
        """Each item with its result, in order."""
        for item in items:
            with _limited_threads(self._cpus):
                result = work(item)
            yield item, result


@contextmanager
def _limited_threads(cpus: int | None) -> Iterator[None]:
    """The variables are for libraries that are loaded inside, the limit is for those that are there already."""
    if cpus is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    before = {name: os.environ.pop(name, None) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(cpus)))
    try:
        with threadpool_limits(limits=cpus):
            yield
    finally:
        for name in THREAD_VARIABLES:
            os.environ.pop(name, None)
        os.environ.update({name: value for name, value in before.items() if value is not None})


# --- the stages of a run: their clock, and who listens ---
class Listener(Protocol):
    """Told how a run goes on."""

    def started(self, stage: str, unit: str) -> None:
        """A stage begins; its progress is counted in ``unit``."""

    def advanced(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` units are finished."""

    def detailed(self, stage: str, detail: Callable[[], str]) -> None:
        """``detail`` returns a text on the state of the stage, such as its cost; any thread may call it."""

    def finished(self, stage: str, seconds: float) -> None:
        """A stage got to its end."""

    def noted(self, message: str) -> None:
        """Something the user should know."""


class Silent:
    """A listener that says nothing."""

    def _ignore(self, *_: object, **__: object) -> None:
        """Say nothing."""

    started = advanced = detailed = finished = noted = _ignore


class StageCounter:
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
    def stage(self, name: str, unit: str = "rows") -> Iterator[StageCounter]:
        """Time the body under ``name`` if it gets to its end; seconds add up when a stage is entered again."""
        self.listener.started(name, unit)
        start = time.perf_counter()
        yield StageCounter(self.listener, name)
        spent = time.perf_counter() - start
        self.seconds[name] = self.seconds.get(name, 0.0) + spent
        self.listener.finished(name, spent)
