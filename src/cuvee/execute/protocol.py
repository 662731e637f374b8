"""What an executor is, on what terms it works, and what becomes of work that was ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self, TypeVar

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
