"""Work in this process, one item after another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from types import TracebackType
from typing import Protocol, Self, cast

from cuvee.execute.machine import THREAD_VARIABLES
from cuvee.execute.protocol import R, T


class _Limits(Protocol):
    def threadpool_limits(self, *, limits: int) -> AbstractContextManager[object]: ...


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
        limits = cast("_Limits", import_module("threadpoolctl"))
        before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(self._cpus)))
        try:
            with limits.threadpool_limits(limits=self._cpus):
                yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
