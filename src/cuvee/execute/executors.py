"""The executor of a kind, work in this process, and results in the order of the items."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Generic, Literal, Self, cast

from cuvee.errors import ConfigError
from cuvee.execute.processes import THREAD_VARIABLES, ProcessExecutor
from cuvee.execute.workers import Executor, Lost, R, T, Terms

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


class LocalExecutor:
    """Runs items one after another here.

    Args:
        cpus: threads of linear algebra; None leaves them as they are, as a rule all cores.
    """

    def __init__(self, cpus: int | None = None) -> None:
        self._cpus = cpus

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left running."""

    def run_all(
        self, work: Callable[[T], R], items: Iterable[T], *, on_start: Callable[[T], None] | None = None
    ) -> Iterator[tuple[T, R]]:
        """Each item with its result, in order."""
        for item in items:
            if on_start is not None:
                on_start(item)
            with self._threads():
                result = work(item)
            yield item, result

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """The variables are for libraries that are loaded inside, the limit is for those that are there already."""
        if self._cpus is None:
            yield
            return
        from threadpoolctl import threadpool_limits

        before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(self._cpus)))
        try:
            with threadpool_limits(limits=self._cpus):
                yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


class _Numbered(Generic[T, R]):
    """The work on an item that carries its number, so that results can be put in order."""

    def __init__(self, work: Callable[[T], R]) -> None:
        self.work = work

    def __call__(self, item: tuple[int, T]) -> R:
        return self.work(item[1])


class ExecutorPool:
    """Hands work to an executor, and gives results in the order of the items.

    Args:
        executor: open; it stays so.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._known: object = None

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """``work(item)`` of each item, in the order of the items; what comes early waits for its turn.

        Raises:
            ConfigError: a worker was ended on an item, too often or by its limits.
        """
        if not isinstance(self._known, _Numbered) or self._known.work is not work:
            self._known = _Numbered(work)
        numbered = cast("_Numbered[T, R]", self._known)
        early: dict[int, R] = {}
        turn = 0
        for (number, _), result in self._executor.run_all(numbered, enumerate(items)):
            if isinstance(result, Lost):
                raise ConfigError(f"a worker was lost: {result.reason}")
            early[number] = result
            while turn in early:
                yield early.pop(turn)
                turn += 1
