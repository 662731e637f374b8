"""Unit rows, powers of their cosines, and threads of our own beside those of BLAS.

Many small products and eigenproblems gain nothing from a second BLAS thread, and lose a factor of ten and more where
other work has the cores: the waiting thread spins. One thread also gives the same bits whatever the number
of cores. So BLAS is held to one, and tiles are worked on by threads of our own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from importlib import import_module
from typing import Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from cuvee.inputs import usable_cores
from cuvee.records import Vectors

Matrix = NDArray[np.float32]  # of numbers, float32 or float64
_CHUNK = 4096  # rows normalised at a time
T = TypeVar("T")
R = TypeVar("R")
_lock = threading.Lock()
_limit = ExitStack()
_users = 0


def unit_rows(vectors: Vectors, *, dtype: type[np.float32] | type[np.float64] = np.float32) -> Vectors:
    """The rows scaled to length 1, shape (n, d), computed in float64 and stored as ``dtype``.

    Raises:
        ValueError: ``vectors`` is not a matrix, or a row is zero or not finite (its number is named).
    """
    data = np.asanyarray(vectors)
    if data.ndim != 2:
        raise ValueError(f"vectors has shape {data.shape!r}; it must be (rows, dimensions)")
    out = np.empty(data.shape, dtype=dtype)
    for start in range(0, len(data), _CHUNK):
        part = data[start : start + _CHUNK].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            largest = np.abs(part).max(axis=1, initial=0.0)
        bad = np.flatnonzero(~np.isfinite(largest) | (largest == 0))
        if len(bad):
            kind = "is zero" if largest[bad[0]] == 0 else "is not finite"
            raise ValueError(f"vectors row {start + bad[0]} {kind}; it has no direction, drop that row")
        part /= largest[:, None]  # first by the largest entry: squares of huge or tiny rows stay in range
        out[start : start + _CHUNK] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return cast("Vectors", out)


def _scaled_exp(values: Matrix, rate: float) -> Matrix:
    """``exp(rate * (values - 1))``, as a new matrix."""
    out = values - 1.0
    if rate != 1.0:
        out *= rate
    return cast("Matrix", np.exp(out, out=out))


def exponentials(taus: Sequence[float], cosines: Matrix) -> list[Matrix]:
    """The tile ``exp((cos - 1) / tau)`` of each tau: the similarity whose diversity of order 0 is DCScore.

    Where 1/tau is made of others' it is a product, not a new power: exp(5 x) is exp(2 x)^2 exp(x). A product costs a
    fifth of an exponential, and the relative error of a cell stays below 1e-5 in float32, mostly below 1e-6.

    Raises:
        ValueError: a tau that is not positive.
    """
    if wrong := [tau for tau in taus if not tau > 0]:
        raise ValueError(f"tau is {wrong[0]!r}; it must be positive")
    found: dict[float, Matrix] = {}
    rates = [1.0 / tau for tau in taus]
    for rate in sorted(set(rates)):
        made = _combine(rate, found)
        found[rate] = _scaled_exp(cosines, rate) if made is None else made
    return [found[rate] for rate in rates]


def _combine(rate: float, found: dict[float, Matrix]) -> Matrix | None:
    """exp(rate x) as exp(a x)^2 or exp(a x)^2 exp(b x) of rates that are there, None where it is not."""
    for a, values in found.items():
        rest = rate - 2.0 * a
        if abs(rest) < 1e-9 * rate:
            return values * values
        near = next((b for b in found if abs(rest - b) < 1e-9 * rate), None)
        if near is not None:
            return values * values * found[near]
    return None


def find_accelerator() -> str | None:
    """``cuda`` or ``mps``, None where torch or an accelerator is missing."""
    try:
        import torch
    except ImportError:
        return None
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


# --- threads ---
class _Controller(Protocol):
    def limit(self, *, limits: int, user_api: str) -> AbstractContextManager[object]: ...


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


def in_order(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """``map(work, items)`` on a thread for each core, results in the order of the items and few of them waiting."""
    workers = usable_cores()
    with ThreadPoolExecutor(workers) as pool:
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
