"""One BLAS thread for a while, and work on threads of our own.

Many small products and eigenproblems gain nothing from a second thread, and lose a factor of ten and more where
other work has the cores: the waiting thread spins. One thread also gives the same bits whatever the number
of cores.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from importlib import import_module
from typing import Protocol, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")


class _Controller(Protocol):
    def limit(self, *, limits: int, user_api: str) -> AbstractContextManager[object]: ...


_lock = threading.Lock()
_limit = ExitStack()
_users = 0


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Inside, BLAS runs one thread, in the whole process; the last of overlapping users restores the setting.

    OpenBLAS may ignore the restoring where the last user is another Python thread than the first: then it stays
    at one thread, which costs speed on large products and nothing else.
    """
    global _users
    with _lock:
        if _users == 0:
            _limit.enter_context(_controller().limit(limits=1, user_api="blas"))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _limit.close()


@cache
def _controller() -> _Controller:
    """The libraries loaded by now, numpy's BLAS among them; looking for them takes milliseconds, so once."""
    return cast("_Controller", import_module("threadpoolctl").ThreadpoolController())


def in_order(
    work: Callable[[T], R], items: Iterable[T], *, workers: int, prepare: Callable[[], None] | None = None
) -> Iterator[R]:
    """``map(work, items)`` on threads, results in the order of the items and few of them waiting.

    ``prepare`` is called first in each of the threads.
    """
    with ThreadPoolExecutor(workers, initializer=prepare) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 3 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
