"""Where tiles of cosines are computed: numpy in float32 or float64, torch in bfloat16 or on an accelerator; on threads.

Many small products and eigenproblems gain nothing from a second BLAS thread, and lose a factor of ten and more where
other work has the cores: the waiting thread spins. One thread also gives the same bits whatever the number
of cores. So BLAS is held to one, and tiles are worked on by threads of our own.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
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
from cuvee.similarity.kernels import Matrix, Operations

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]
Device = Literal["cpu", "cuda", "mps", "auto"]
T = TypeVar("T")
R = TypeVar("R")
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Where and how cosines are computed.

    Attributes:
        device: ``cpu``, ``cuda``, ``mps``, or ``auto``: an accelerator where torch finds one.
        precision: of the products: ``float32``, or ``bfloat16`` (needs torch; half to a fifth of the time where
            the hardware has it, DCScore off by less than 5e-4). Sums are float32 and float64 either way. float64
            vectors are always computed in float64.
        threads: of the CPU; None takes the cores that this process may use.
        time_budget: seconds that all-pairs numbers of one corpus may take; beyond it they come from a sample of rows,
            and say so. None: all pairs up to 100,000 rows, a sample of 4,000 rows against all above.
    """

    device: Device = "cpu"
    precision: Precision = "float32"
    threads: int | None = None
    time_budget: float | None = None

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda", "mps", "auto"):
            raise ValueError(f"device is {self.device!r}; valid: 'cpu', 'cuda', 'mps', 'auto'")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision is {self.precision!r}; valid: 'float32', 'bfloat16'")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads is {self.threads!r}; give 1 or more")

    def check(self) -> None:
        """Find out now, not after an hour of embedding, whether this can be had here.

        Raises:
            MissingDependency: torch or the accelerator is missing.
        """
        if self.precision == "bfloat16":
            _require_torch()
        if self.device in ("cuda", "mps") and find_accelerator() != self.device:
            raise MissingDependency(
                f"device {self.device!r}: torch finds no such accelerator here; use device cpu or auto"
            )

    @property
    def workers(self) -> int:
        """CPU threads that work on tiles."""
        return self.threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


class Backend:
    """Products of blocks of rows and sums of what kernels make of them, by numpy: float32 or float64, as the rows are.

    ``order`` gives the rows' places, None where they are as they come.
    """

    ops = Operations()

    def __init__(self, unit: Vectors, order: NDArray[np.int64] | None, compute: Compute) -> None:
        self._unit, self._order = unit, order
        self.workers = compute.workers
        self.tile = 512  # a tile for each of several kernels stays in the cache: a third less time than 1024

    def prepare(self) -> None:
        """Nothing to prepare: the BLAS of numpy is held to one thread for the whole process."""

    def _block(self, rows: slice) -> Vectors:
        return self._unit[rows] if self._order is None else self._unit[self._order[rows]]

    def cosines(self, first: slice, second: slice) -> Matrix:
        """The products of two blocks of rows."""
        return cast("Matrix", self._block(first) @ self._block(second).T)

    def set_cells(self, cosines: Matrix, rows: Indices, columns: Indices, value: float) -> None:
        """Overwrite some cells."""
        cosines[rows, columns] = value

    def sums(self, values: Matrix, indicator: Matrix, *, transposed: bool) -> Matrix:
        """``values @ indicator``, or ``values.T @ indicator``."""
        return (values.T if transposed else values) @ indicator.astype(values.dtype, copy=False)

    def largest(self, values: Matrix, *, transposed: bool) -> tuple[NDArray[np.int64], Matrix]:
        """Column and value of each row's largest cell, or row and value of each column's."""
        axis = 0 if transposed else 1
        at = values.argmax(axis=axis)
        return at, np.take_along_axis(values, np.expand_dims(at, axis), axis).squeeze(axis)


class Bfloat16Backend(Backend):
    """Products in bfloat16 by torch on the CPU; everything after them in float32 by numpy."""

    def __init__(self, unit: Vectors, order: NDArray[np.int64] | None, compute: Compute) -> None:
        super().__init__(unit, order, compute)
        _require_torch()
        import torch

        rows = unit if order is None else unit[order]
        self._rows: torch.Tensor = torch.from_numpy(np.ascontiguousarray(rows)).bfloat16()

    def prepare(self) -> None:
        """One torch thread a worker: more of them wait for each other, spinning. Other threads keep theirs."""
        import torch

        torch.set_num_threads(1)

    def cosines(self, first: slice, second: slice) -> Matrix:
        """The products of two blocks of rows."""
        found: Matrix = (self._rows[first] @ self._rows[second].T).float().numpy()
        return found


class TorchOperations:
    """The same functions on tensors."""

    def exp(self, values: torch.Tensor) -> torch.Tensor:
        """The exponential of each value."""
        return values.exp_()

    def scaled_exp(self, values: torch.Tensor, rate: float) -> torch.Tensor:
        """``exp(rate * (values - 1))``, as a new matrix."""
        return (values - 1.0).mul_(rate).exp_()

    def sqrt(self, values: torch.Tensor) -> torch.Tensor:
        """The square root of each value."""
        return values.sqrt_()

    def above(self, values: torch.Tensor, floor: float) -> torch.Tensor:
        """Each value, at least ``floor``."""
        return values.clamp_(min=floor)


class TorchBackend:
    """The same on a torch device: its tiles are tensors, and only sums and maxima come back."""

    ops = TorchOperations()
    tile = 8192

    def __init__(self, unit: Vectors, order: NDArray[np.int64] | None, compute: Compute, device: str) -> None:
        import torch

        self.workers = 1
        self._device = device
        kind = torch.bfloat16 if compute.precision == "bfloat16" else torch.float32
        rows = unit if order is None else unit[order]
        self._rows: torch.Tensor = torch.from_numpy(np.ascontiguousarray(rows)).to(device=device, dtype=kind)

    def prepare(self) -> None:
        """Nothing to prepare: one thread feeds the device."""

    def cosines(self, first: slice, second: slice) -> torch.Tensor:
        """The products of two blocks of rows, float32."""
        return (self._rows[first] @ self._rows[second].T).float()

    def set_cells(self, cosines: torch.Tensor, rows: Indices, columns: Indices, value: float) -> None:
        """Overwrite some cells."""
        import torch

        at = (torch.from_numpy(rows).to(self._device), torch.from_numpy(columns).to(self._device))
        cosines[at] = value

    def sums(self, values: torch.Tensor, indicator: Matrix, *, transposed: bool) -> Matrix:
        """``values @ indicator``, or ``values.T @ indicator``."""
        import torch

        right = torch.from_numpy(np.ascontiguousarray(indicator, dtype=np.float32)).to(self._device)
        found: Matrix = ((values.T if transposed else values) @ right).cpu().numpy()
        return found

    def largest(self, values: torch.Tensor, *, transposed: bool) -> tuple[NDArray[np.int64], Matrix]:
        """Column and value of each row's largest cell, or row and value of each column's."""
        found = values.max(dim=0 if transposed else 1)
        return found.indices.cpu().numpy(), found.values.cpu().numpy()


def find_accelerator() -> str | None:
    """``cuda`` or ``mps``, None where torch or an accelerator is missing."""
    try:
        import torch
    except ImportError:
        return None
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


def choose_backend(unit: Vectors, order: NDArray[np.int64] | None, compute: Compute) -> Backend:
    """The backend that ``compute`` asks for; its tiles mean nothing outside it, whatever they are.

    Raises:
        MissingDependency: it needs torch, or an accelerator that is not there.
    """
    device = compute.device
    if device != "cpu" and unit.dtype != np.float64:
        compute.check()
        found = find_accelerator()
        if found is not None:
            return cast("Backend", TorchBackend(unit, order, compute, found))
    if compute.precision == "bfloat16" and unit.dtype != np.float64:
        return Bfloat16Backend(unit, order, compute)
    return Backend(unit, order, compute)


def _require_torch() -> None:
    if find_spec("torch") is None:
        raise MissingDependency("bfloat16 needs torch: pip install 'cuvee[train]', or use float32")


# --- threads ---
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
