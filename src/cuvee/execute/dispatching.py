"""Giving items to workers: hiring, deadlines, and what to do when a worker dies. Where workers live is the crew's."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol

from cuvee.errors import ConfigError
from cuvee.execute.protocol import Lost, T, Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a crew hears of a worker: it is ready, has a result, raised an error, died, or took too much memory."""

    worker: int
    kind: Literal["ready", "result", "error", "died", "memory"]
    value: object = None
    reason: str = ""


class Crew(Protocol):
    """Workers, by number, that all do the same work."""

    def room(self) -> int:
        """How many may be at once, now. 0: none could ever be."""

    def hire(self) -> int:
        """Start one; it reports when it is ready."""

    def give(self, worker: int, item: object) -> None:
        """Have a ready worker begin an item."""

    def dismiss(self, worker: int) -> None:
        """End a worker at once, whatever it does; nothing more is heard of it."""

    def wait(self, seconds: float | None) -> Sequence[Report]:
        """What was heard, at least one report unless the seconds pass."""


@dataclass(slots=True)
class _Job(Generic[T]):
    item: T
    deaths: int = 0
    deadline: float | None = None


class Dispatcher:
    """Keeps a crew busy. May run several lots of items, one after another; ready workers stay for the next.

    Args:
        crew: the workers.
        terms: deadline and retries.
    """

    def __init__(self, crew: Crew, terms: Terms) -> None:
        self._crew = crew
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
                self._hire(len(waiting), len(jobs))
                self._give(waiting, jobs, on_start)
                if not waiting and not jobs:
                    return
                finished: list[tuple[T, object]] = []
                for report in self._crew.wait(self._patience(jobs)):
                    finished += self._hear(report, jobs, waiting)
                finished += self._end_overdue(jobs)
                self._give(waiting, jobs, on_start)  # first, so that nobody waits for who reads the results
                yield from finished
        finally:
            for worker in [*jobs, *self._starting]:
                self._crew.dismiss(worker)
            self._starting.clear()

    def _refill(self, source: Iterator[T], waiting: deque[_Job[T]]) -> None:
        """Take items ahead, as many as there can be workers."""
        for _ in range(max(1, self._crew.room()) - len(waiting)):
            try:
                waiting.append(_Job(next(source)))
            except StopIteration:
                return

    def _hire(self, wanted: int, busy: int) -> None:
        if not wanted:
            return
        room = self._crew.room()
        there = len(self._idle) + busy + len(self._starting)
        if not room and not there:
            raise ConfigError(
                f"execute: no worker of {self._terms.cpus or 1} cpus and {self._terms.gpus:g} gpus fits anywhere; "
                "lower execute.cpus, execute.gpus or execute.memory_gb"
            )
        for _ in range(min(room - there, wanted - len(self._starting) - len(self._idle))):
            self._starting.add(self._crew.hire())

    def _give(self, waiting: deque[_Job[T]], jobs: dict[int, _Job[T]], on_start: Callable[[T], None] | None) -> None:
        while waiting and self._idle:
            worker, job = self._idle.pop(), waiting.popleft()
            if on_start is not None:
                on_start(job.item)
            job.deadline = None if self._terms.timeout_s is None else time.monotonic() + self._terms.timeout_s
            jobs[worker] = job
            self._crew.give(worker, job.item)

    def _hear(self, report: Report, jobs: dict[int, _Job[T]], waiting: deque[_Job[T]]) -> Iterator[tuple[T, object]]:
        if report.kind == "ready":
            self._starting.discard(report.worker)
            self._idle.append(report.worker)
            self._early_deaths = 0
            return
        if report.worker not in jobs:
            self._mourn(report)
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

    def _mourn(self, report: Report) -> None:
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

    def _patience(self, jobs: dict[int, _Job[T]]) -> float | None:
        deadlines = [job.deadline for job in jobs.values() if job.deadline is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _end_overdue(self, jobs: dict[int, _Job[T]]) -> Iterator[tuple[T, object]]:
        now = time.monotonic()
        for worker in [w for w, job in jobs.items() if job.deadline is not None and job.deadline <= now]:
            self._crew.dismiss(worker)
            reason = (
                f"took longer than execute.timeout_s ({self._terms.timeout_s:g} s) and was ended; raise it, or make "
                "the trial smaller (fewer steps, fewer validation rows)"
            )
            yield jobs.pop(worker).item, Lost(cause="timeout", reason=reason)
