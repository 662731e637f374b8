"""One BLAS thread for a while.

Many small products and eigenproblems gain nothing from a second thread, and lose a factor of ten and more where
other work has the cores: the waiting thread spins. One thread also gives the same bits whatever the number
of cores.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_limit = ExitStack()
_users = 0


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Inside, BLAS runs one thread, in the whole process; the last of overlapping users restores the setting."""
    global _users
    with _lock:
        if _users == 0:
            _limit.enter_context(ThreadpoolController().limit(limits=1, user_api="blas"))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _limit.close()
