"""Unit rows, kernels of their cosines, and their products: in float32 or float64 by numpy, in bfloat16 by torch.

Many small products and eigenproblems gain nothing from a second BLAS thread, and lose a factor of ten and more where
other work has the cores: the waiting thread spins. One thread also gives the same bits whatever the number
of cores. So BLAS is held to one, and tiles are worked on by threads of our own.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import MissingDependency
from cuvee.records import Vectors

if TYPE_CHECKING:
    import torch

Matrix = NDArray[np.float32]  # of numbers, float32 or float64
_CHUNK = 4096  # rows normalised at a time
_ROUNDING = 1e-6  # of a cosine of float32 rows
Precision = Literal["float32", "bfloat16"]
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


class Kernel(Protocol):
    """A similarity of two unit rows as a function of their cosine, 1 where they are equal."""

    def values(self, cosines: Matrix) -> Matrix:
        """The kernel of a tile of cosines, as a new tile."""


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} is {value!r}; it must be positive")


@dataclass(frozen=True, slots=True)
class Exponential:
    """``exp((cos - 1) / tau)``: the similarity whose diversity of order 0 is DCScore (arXiv 2502.08512)."""

    tau: float

    def __post_init__(self) -> None:
        _positive("tau", self.tau)

    def values(self, cosines: Matrix) -> Matrix:
        """The kernel of a tile of cosines."""
        return _scaled_exp(cosines, 1.0 / self.tau)


@dataclass(frozen=True, slots=True)
class Rbf:
    """``exp((exp(-|x - y|^2 / (2 sigma^2)) - 1) / tau)``, or without tau the RBF kernel itself.

    With ``tau`` it is the similarity that DCScore has with the RBF kernel: softmax of K / tau.
    """

    sigma: float
    tau: float | None = None

    def __post_init__(self) -> None:
        _positive("sigma", self.sigma)

    def values(self, cosines: Matrix) -> Matrix:
        """The kernel of a tile of cosines; |x - y|^2 = 2 - 2 cos."""
        return _sharpen(_scaled_exp(cosines, 1.0 / self.sigma**2), self.tau)


@dataclass(frozen=True, slots=True)
class Laplacian:
    """``exp(-|x - y| / sigma)`` with the Euclidean distance; with ``tau`` as in ``Rbf``."""

    sigma: float
    tau: float | None = None

    def __post_init__(self) -> None:
        _positive("sigma", self.sigma)

    def values(self, cosines: Matrix) -> Matrix:
        """The kernel of a tile of cosines."""
        # cosines of equal rows differ from 1 by rounding, which the root would magnify
        squares = (cosines - (1.0 - _ROUNDING)) * -2.0
        distance = np.sqrt(np.clip(squares, 0.0, None))
        return _sharpen(np.exp(distance * (-1.0 / self.sigma)), self.tau)


@dataclass(frozen=True, slots=True)
class Polynomial:
    """``((cos + offset) / (1 + offset)) ^ degree``, 0 for cosines below ``-offset``; ``tau`` as in ``Rbf``."""

    degree: int = 3
    offset: float = 1.0
    tau: float | None = None

    def __post_init__(self) -> None:
        if self.degree < 1 or self.offset < 0:
            raise ValueError(f"degree is {self.degree!r} and offset {self.offset!r}; they must be >= 1 and >= 0")

    def values(self, cosines: Matrix) -> Matrix:
        """The kernel of a tile of cosines."""
        base = np.clip((cosines + self.offset) * (1.0 / (1.0 + self.offset)), 0.0, None)
        return _sharpen(base**self.degree, self.tau)


def _scaled_exp(values: Matrix, rate: float) -> Matrix:
    """``exp(rate * (values - 1))``, as a new matrix."""
    out = values - 1.0
    if rate != 1.0:
        out *= rate
    return cast("Matrix", np.exp(out, out=out))


def _sharpen(kernel: Matrix, tau: float | None) -> Matrix:
    return kernel if tau is None else _scaled_exp(kernel, 1.0 / tau)


def evaluate_kernels(kernels: Sequence[Kernel], cosines: Matrix) -> list[Matrix]:
    """The tiles of several kernels; exponentials whose 1/tau is made of others' are products, not new powers.

    exp(5 x) is exp(2 x)^2 exp(x): a product costs a fifth of an exponential, and the relative error of a cell
    stays below 1e-5 in float32, mostly below 1e-6.
    """
    found: dict[float, Matrix] = {}
    out: dict[int, Matrix] = {}
    rates = {i: 1.0 / k.tau for i, k in enumerate(kernels) if isinstance(k, Exponential)}
    for i, rate in sorted(rates.items(), key=lambda item: item[1]):
        if rate not in found:
            made = _combine(rate, found)
            found[rate] = kernels[i].values(cosines) if made is None else made
        out[i] = found[rate]
    return [out[i] if i in out else kernel.values(cosines) for i, kernel in enumerate(kernels)]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Where and how cosines are computed.

    Attributes:
        precision: of the products: ``float32``, or ``bfloat16`` (needs torch; half to a fifth of the time where
            the hardware has it, DCScore off by less than 5e-4). Sums are float32 and float64 either way. float64
            vectors are always computed in float64.
        threads: of the CPU; None takes the cores that this process may use.
    """

    precision: Precision = "float32"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision is {self.precision!r}; valid: 'float32', 'bfloat16'")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads is {self.threads!r}; give 1 or more")

    def check(self) -> None:
        """Find out now, not after an hour of embedding, whether this can be had here.

        Raises:
            MissingDependency: torch is missing.
        """
        if self.precision == "bfloat16" and find_spec("torch") is None:
            raise MissingDependency("bfloat16 needs torch: pip install 'cuvee[train]', or use float32")

    @property
    def workers(self) -> int:
        """CPU threads that work on tiles."""
        return self.threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


class Products:
    """Products of blocks of rows: float32 or float64, as the rows are; of float32 rows also in bfloat16, by torch.

    ``order`` gives the rows' places, None where they are as they come. The rows are finite, so their products are:
    "invalid value" is not heard there, which builds of BLAS say of finite numbers now and then (numpy issue 24067).

    Raises:
        MissingDependency: bfloat16 is asked for, and torch is missing.
    """

    tile = 512  # a tile for each of several kernels stays in the cache: a third less time than 1024

    def __init__(self, unit: Vectors, order: NDArray[np.int64] | None, compute: Compute) -> None:
        self._unit, self._order, self.workers = unit, order, compute.workers
        self._rough: torch.Tensor | None = None
        if compute.precision == "bfloat16" and unit.dtype != np.float64:
            compute.check()
            import torch

            rows = unit if order is None else unit[order]
            self._rough = torch.from_numpy(np.ascontiguousarray(rows)).to(dtype=torch.bfloat16)

    def prepare(self) -> None:
        """One torch thread a worker: more of them wait for each other, spinning. Other threads keep theirs."""
        if self._rough is not None:
            import torch

            torch.set_num_threads(1)

    def _block(self, rows: slice) -> Vectors:
        return self._unit[rows] if self._order is None else self._unit[self._order[rows]]

    def cosines(self, first: slice, second: slice) -> Matrix:
        """The products of two blocks of rows, float32 but of float64 rows."""
        if self._rough is not None:
            found: Matrix = (self._rough[first] @ self._rough[second].T).float().numpy()
            return found
        with np.errstate(invalid="ignore"):
            return cast("Matrix", self._block(first) @ self._block(second).T)


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
