"""The tiles of one pass over all pairs, added up in stripes of block rows: here, or by the workers of a crew.

A stripe holds every tile of some consecutive block rows of the upper triangle. Its sums are made from nothing, and
stripes are added in their order, so that it does not matter where each of them was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cuvee.records import Vectors
from cuvee.similarity.backends import Backend, Compute, choose_backend
from cuvee.similarity.kernels import Kernel, Tile, evaluate_kernels
from cuvee.similarity.threads import in_order, single_blas_thread

A = TypeVar("A", bound=Tile)
Matrix = NDArray[np.float32]
Progress = Callable[[int, int], None]
_STRIPES = 64


@dataclass(frozen=True, slots=True)
class _Part:
    """What one block of rows gets from one tile: sums by bin of each kernel, and its best column."""

    rows: slice
    columns: slice
    sums: tuple[Matrix, ...]
    index: NDArray[np.int64] | None
    cosine: Matrix | None
    transposed: bool


class _Membership:
    """The bins that a block's rows fall into, as a slice and a 0/1 matrix (rows, bins of the slice)."""

    def __init__(self, bins: NDArray[np.int64]) -> None:
        low, high = int(bins[0]), int(bins[-1])
        self.columns = slice(low, high + 1)
        self.indicator = np.zeros((len(bins), high + 1 - low), dtype=np.float32)
        self.indicator[np.arange(len(bins)), bins - low] = 1.0


class TilePass(Generic[A]):
    """The tiles of the upper triangle, block row by block row, and the work on one of them."""

    def __init__(
        self,
        backend: Backend[A],
        kernels: Sequence[Kernel],
        bins: NDArray[np.int64],
        nearest: bool,
        tile: int,
        kind: type[np.float32],
    ) -> None:
        self.backend, self._kernels, self._nearest, self.kind = backend, kernels, nearest, kind
        self.bins = int(bins.max(initial=0)) + 1
        self.kernels = len(kernels)
        self.blocks = [slice(s, min(s + tile, len(bins))) for s in range(0, len(bins), tile)]
        self._members = [_Membership(bins[block]) for block in self.blocks]

    @property
    def stripes(self) -> list[range]:
        """Consecutive block rows, at most 64 stripes of them."""
        size = -(-len(self.blocks) // _STRIPES)
        return [range(s, min(s + size, len(self.blocks))) for s in range(0, len(self.blocks), size)]

    def tiles(self, stripe: range) -> Iterator[tuple[int, int]]:
        """The tiles of a stripe: every unordered pair of blocks is in one of them."""
        return ((a, b) for a in stripe for b in range(a, len(self.blocks)))

    def bins_of(self, stripe: range) -> slice:
        """The bins that the stripe's rows fall into."""
        first, last = self._members[stripe.start], self._members[stripe.stop - 1]
        return slice(first.columns.start, last.columns.stop)

    def work(self, pair: tuple[int, int]) -> list[_Part]:
        """The parts of one tile: of its rows and, off the diagonal, of its columns."""
        a, b = pair
        cosines = self.backend.cosines(self.blocks[a], self.blocks[b])
        own = np.arange(self.blocks[a].stop - self.blocks[a].start)
        if a == b:
            self.backend.set_cells(cosines, own, own, 1.0)
        tiles = evaluate_kernels(self._kernels, cosines, self.backend.ops)
        if a == b and self._nearest:
            self.backend.set_cells(cosines, own, own, -np.inf)
        parts = [self._part(a, b, tiles, cosines, transposed=False)]
        return parts if a == b else [*parts, self._part(b, a, tiles, cosines, transposed=True)]

    def _part(self, rows: int, columns: int, tiles: Sequence[A], cosines: A, *, transposed: bool) -> _Part:
        members = self._members[columns]
        sums = tuple(self.backend.sums(t, members.indicator, transposed=transposed) for t in tiles)
        index = cosine = None
        if self._nearest:
            index, cosine = self.backend.largest(cosines, transposed=transposed)
            index = index + self.blocks[columns].start
        return _Part(self.blocks[rows], members.columns, sums, index, cosine, transposed)


@dataclass(frozen=True, slots=True)
class StripeSums:
    """The sums of one stripe: all bins of its own rows, and its bins of all rows from its first one on."""

    rows: slice
    bins: slice
    own: tuple[Matrix, ...]
    others: tuple[Matrix, ...]
    index: NDArray[np.int64]
    cosine: Matrix

    def add(self, part: _Part) -> None:
        """Add one part, of a tile's rows or of its columns."""
        start = self.rows.start
        here = slice(part.rows.start - start, part.rows.stop - start)
        transposed = part.transposed
        columns = slice(part.columns.start - self.bins.start, part.columns.stop - self.bins.start)
        for total, values in zip(self.others if transposed else self.own, part.sums, strict=True):
            total[here, columns if transposed else part.columns] += values
        if part.index is not None and part.cosine is not None:
            better = part.cosine > self.cosine[here]
            self.index[here] = np.where(better, part.index, self.index[here])
            self.cosine[here] = np.where(better, part.cosine, self.cosine[here])


def sum_stripes(task: TilePass[A], stripes: Sequence[range], told: Callable[[], None]) -> Iterator[StripeSums]:
    """The sums of some stripes, in their order; ``told`` hears of each tile."""
    tiles = (pair for stripe in stripes for pair in task.tiles(stripe))
    found = in_order(task.work, tiles, workers=task.backend.workers, prepare=task.backend.prepare)
    n, kind = task.blocks[-1].stop, task.kind
    for stripe in stripes:
        rows = slice(task.blocks[stripe.start].start, task.blocks[stripe.stop - 1].stop)
        bins = task.bins_of(stripe)
        total = StripeSums(
            rows=rows,
            bins=bins,
            own=tuple(np.zeros((rows.stop - rows.start, task.bins), dtype=kind) for _ in range(task.kernels)),
            others=tuple(np.zeros((n - rows.start, bins.stop - bins.start), dtype=kind) for _ in range(task.kernels)),
            index=np.full(n - rows.start, -1, dtype=np.int64),
            cosine=np.full(n - rows.start, -np.inf, dtype=kind),
        )
        for _ in task.tiles(stripe):
            for part in next(found):
                total.add(part)
            told()
        yield total


class Sweep:
    """All stripes of one pass. Carried to a worker it is the vectors and what to do with them."""

    def __init__(
        self,
        unit: Vectors,
        order: NDArray[np.int64] | None,
        kernels: Sequence[Kernel],
        bins: NDArray[np.int64],
        *,
        nearest: bool,
        tile: int | None,
        compute: Compute,
    ) -> None:
        self._unit, self._order, self._kernels, self._bins = unit, order, tuple(kernels), bins
        self._nearest, self._tile, self._compute = nearest, tile, compute
        self._task: TilePass[Matrix] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_task": None, "_compute": self._compute.of_a_worker()}

    @property
    def task(self) -> TilePass[Matrix]:
        """The tiles, on the backend of this place."""
        if self._task is None:
            backend = choose_backend(self._unit, self._order, self._compute)
            kind = self._unit.dtype.type
            self._task = TilePass(backend, self._kernels, self._bins, self._nearest, self._tile or backend.tile, kind)
        return self._task

    @single_blas_thread()
    def __call__(self, stripe: range) -> StripeSums:
        """The sums of one stripe."""
        return next(sum_stripes(self.task, [stripe], lambda: None))

    def stripes(self, progress: Progress | None) -> Iterator[StripeSums]:
        """The sums of all stripes in their order, made here or by the crew."""
        task, crew = self.task, self._compute.crew
        tiles = [sum(1 for _ in task.tiles(stripe)) for stripe in task.stripes]
        if crew is None:
            counter = count(1)
            yield from sum_stripes(
                task, task.stripes, lambda: progress(next(counter), sum(tiles)) if progress is not None else None
            )
            return
        for number, found in enumerate(crew.map(self, task.stripes), start=1):
            if progress is not None:
                progress(sum(tiles[:number]), sum(tiles))
            yield found


def add_stripes(task: TilePass[A], stripes: Iterable[StripeSums]) -> tuple[list[Matrix], NDArray[np.int64], Matrix]:
    """Sums by bin of each kernel, shape (n, bins), and the nearest row of each row with its cosine, shape (n,)."""
    n = task.blocks[-1].stop if task.blocks else 0
    sums = [np.zeros((n, task.bins), dtype=task.kind) for _ in range(task.kernels)]
    index = np.full(n, -1, dtype=np.int64)
    cosine = np.full(n, -np.inf, dtype=task.kind)
    for found in stripes:
        below = slice(found.rows.start, n)
        for total, own, others in zip(sums, found.own, found.others, strict=True):
            total[below, found.bins] += others
            total[found.rows] += own
        better = found.cosine > cosine[below]
        index[below] = np.where(better, found.index, index[below])
        cosine[below] = np.where(better, found.cosine, cosine[below])
    return sums, index, cosine
