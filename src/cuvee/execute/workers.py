"""Work on many items by workers: on what terms, by whom, and what to do when one dies. Where workers live is theirs."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Literal, Protocol, Self, TypeVar, cast

from cuvee.errors import ConfigError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On what terms items are worked on. None leaves a value to the executor.

    Args:
        workers: at once, at most; None is as many as cores, memory and GPUs allow.
        timeout_s: seconds an item may take before its worker is ended.
        memory_gb: resident memory (10^9 bytes) of a worker before it is ended.
        retries: how often an item is given to a fresh worker after its worker died.
        cpus: cores, and threads of linear algebra, of a worker.
        gpus: of a worker; below 1 several share one, above 1 a whole number.

    Raises:
        ValueError: a number out of its range.
    """

    workers: int | None = None
    timeout_s: float | None = None
    memory_gb: float | None = None
    retries: int = 2
    cpus: int | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        for name in ("workers", "timeout_s", "memory_gb", "cpus"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value!r}; it must be above 0, or None")
        for name in ("retries", "gpus"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value!r}; it must be 0 or more")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus is {self.gpus!r}; above 1 it must be a whole number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What stands in for the result of an item whose work was ended: ``reason`` says why, and what to do."""

    cause: Literal["timeout", "memory", "died"]
    reason: str


class Executor(Protocol):
    """Runs one function over many items. What the work itself refuses is a value that it returns, no exception.

    A context manager: leaving it ends what still runs.
    """

    def run_all(
        self, work: Callable[[T], R], items: Iterable[T], *, on_start: Callable[[T], None] | None = None
    ) -> Iterator[tuple[T, R | Lost]]:
        """Each item with its result, as they finish.

        Args:
            work: what to do; where it runs in other processes it is pickled once, each item once.
            items: taken as they are needed, not all at once.
            on_start: told of each item as it is begun (again after its worker died).

        Raises:
            Exception: whatever ``work`` raises, which no work should.
        """

    def __enter__(self) -> Self:
        """Itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is reported of a worker: it is ready, has a result, raised an error, died, or took too much memory."""

    worker: int
    kind: Literal["ready", "result", "error", "died", "memory"]
    value: object = None
    reason: str = ""


class Workers(Protocol):
    """Workers, by number, that all do the same work."""

    def room(self) -> int:
        """How many may be at once, now. 0: none could ever be."""

    def start(self) -> int:
        """Start one; it reports when it is ready."""

    def give(self, worker: int, item: object) -> None:
        """Have a ready worker begin an item."""

    def end(self, worker: int) -> None:
        """End a worker at once, whatever it does; nothing more is reported of it."""

    def wait(self, seconds: float | None) -> Sequence[Report]:
        """What is reported, at least once unless the seconds pass."""

    def close(self) -> None:
        """End all."""


@dataclass(slots=True)
class _Job(Generic[T]):
    item: T
    deaths: int = 0
    deadline: float | None = None


class Dispatcher:
    """Keeps workers busy. May run several lots of items, one after another; ready workers stay for the next.

    Args:
        workers: that do the work.
        terms: deadline and retries.
    """

    def __init__(self, workers: Workers, terms: Terms) -> None:
        self._workers = workers
        self._terms = terms
        self._idle: list[int] = []
        self._starting: set[int] = set()
        self._early_deaths = 0

    def run(self, items: Iterable[T], on_start: Callable[[T], None] | None) -> Iterator[tuple[T, object]]:
        """Each item with its result or a :class:`Lost`, as they finish.

        Raises:
            ConfigError: no worker can be had.
            Exception: what the work raised.
        """
        jobs: dict[int, _Job[T]] = {}
        source, waiting = iter(items), deque[_Job[T]]()
        try:
            while True:
                self._give(waiting, jobs, on_start)
                self._refill(source, waiting)
                self._start(len(waiting), len(jobs))
                self._give(waiting, jobs, on_start)
                if not waiting and not jobs:
                    return
                finished: list[tuple[T, object]] = []
                for report in self._workers.wait(self._seconds_left(jobs)):
                    finished += self._take(report, jobs, waiting)
                finished += self._end_overdue(jobs)
                self._give(waiting, jobs, on_start)  # first, so that nobody waits for who reads the results
                yield from finished
        finally:
            for worker in [*jobs, *self._starting]:
                self._workers.end(worker)
            self._starting.clear()

    def _refill(self, source: Iterator[T], waiting: deque[_Job[T]]) -> None:
        """Take items ahead, as many as there can be workers."""
        for _ in range(max(1, self._workers.room()) - len(waiting)):
            try:
                waiting.append(_Job(next(source)))
            except StopIteration:
                return

    def _start(self, wanted: int, busy: int) -> None:
        if not wanted:
            return
        room = self._workers.room()
        there = len(self._idle) + busy + len(self._starting)
        if not room and not there:
            raise ConfigError(
                f"execute: no worker of {self._terms.cpus or 1} cpus and {self._terms.gpus:g} gpus fits anywhere; "
                "lower execute.cpus, execute.gpus or execute.memory_gb"
            )
        for _ in range(min(room - there, wanted - len(self._starting) - len(self._idle))):
            self._starting.add(self._workers.start())

    def _give(self, waiting: deque[_Job[T]], jobs: dict[int, _Job[T]], on_start: Callable[[T], None] | None) -> None:
        while waiting and self._idle:
            worker, job = self._idle.pop(), waiting.popleft()
            if on_start is not None:
                on_start(job.item)
            job.deadline = None if self._terms.timeout_s is None else time.monotonic() + self._terms.timeout_s
            jobs[worker] = job
            self._workers.give(worker, job.item)

    def _take(self, report: Report, jobs: dict[int, _Job[T]], waiting: deque[_Job[T]]) -> Iterator[tuple[T, object]]:
        if report.kind == "ready":
            self._starting.discard(report.worker)
            self._idle.append(report.worker)
            self._early_deaths = 0
            return
        if report.worker not in jobs:
            self._note_death(report)
            return
        job = jobs.pop(report.worker)
        if report.kind == "result":
            self._idle.append(report.worker)
            yield job.item, report.value
        elif report.kind == "error":
            self._idle.append(report.worker)
            assert isinstance(report.value, BaseException)
            raise report.value
        elif report.kind == "memory":
            yield job.item, Lost(cause="memory", reason=report.reason)
        elif job.deaths < self._terms.retries:
            job.deaths += 1
            waiting.appendleft(job)
        else:
            times = "once" if job.deaths == 0 else f"{job.deaths + 1} times, each time on a fresh worker"
            reason = f"its worker died {times} (the last: {report.reason}); if memory ran out, lower execute.workers"
            yield job.item, Lost(cause="died", reason=reason)

    def _note_death(self, report: Report) -> None:
        """A worker died that had nothing to do."""
        if report.kind == "error":  # it could not read the work
            assert isinstance(report.value, BaseException)
            raise report.value
        if report.worker in self._idle:
            self._idle.remove(report.worker)
            return
        self._starting.discard(report.worker)
        self._early_deaths += 1
        if self._early_deaths > self._terms.retries:
            raise ConfigError(
                f"execute: workers die before they begin ({report.reason}); lower execute.workers, or set "
                "execute.kind: local to see what is wrong"
            )

    def _seconds_left(self, jobs: dict[int, _Job[T]]) -> float | None:
        deadlines = [job.deadline for job in jobs.values() if job.deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _end_overdue(self, jobs: dict[int, _Job[T]]) -> Iterator[tuple[T, object]]:
        now = time.monotonic()
        for worker in [w for w, job in jobs.items() if job.deadline is not None and job.deadline <= now]:
            self._workers.end(worker)
            reason = (
                f"took longer than execute.timeout_s ({self._terms.timeout_s:g} s) and was ended; raise it, or make "
                "the trial smaller (fewer steps, fewer validation rows)"
            )
            yield jobs.pop(worker).item, Lost(cause="timeout", reason=reason)


class WorkersExecutor(ABC):
    """An executor over workers, which start when the first item comes and stay until the end or until other work."""

    def __init__(self, terms: Terms | None = None) -> None:
        self._terms = terms or Terms()
        self._dispatcher: Dispatcher | None = None
        self._workers: Workers | None = None
        self._work: object = None

    @abstractmethod
    def _find_workers(self, work: object) -> Workers:
        """Workers that do this work; none is started yet."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers."""
        if self._workers is not None:
            self._workers.close()

    def run_all(
        self, work: Callable[[T], R], items: Iterable[T], *, on_start: Callable[[T], None] | None = None
    ) -> Iterator[tuple[T, R | Lost]]:
        """Each item with its result, as they finish. The same ``work`` again finds its workers ready."""
        if self._dispatcher is None or self._work is not work:
            if self._workers is not None:
                self._workers.close()
            self._workers = self._find_workers(work)
            self._dispatcher, self._work = Dispatcher(self._workers, self._terms), work
        for item, result in self._dispatcher.run(items, on_start):
            yield item, cast("R | Lost", result)
