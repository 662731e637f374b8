"""Diversity of too many rows for all pairs: a sample of rows, each against all rows, with its error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cuvee.fingerprint import derive_rng
from cuvee.records import Vectors
from cuvee.similarity.backends import Backend, Compute, choose_backend
from cuvee.similarity.kernels import Kernel, Tile, evaluate_kernels
from cuvee.similarity.threads import in_order, single_blas_thread
from cuvee.similarity.tiles import Matrix, Neighbours, Progress, RowSums

A = TypeVar("A", bound=Tile)
Found = tuple[Sequence[NDArray[np.floating]], NDArray[np.int64], Matrix]
"""Sums by bin of each kernel, shape (m, bins); the best column of each sampled row, and its cosine."""
_ROWS = 1024


@dataclass(frozen=True, slots=True)
class SampledPass:
    """Sums over *all* rows for a sample of m rows: as ``PairwisePass``, with shapes (m,) and (m, bins).

    ``rows`` are the sampled rows, in order, of ``population`` rows.
    """

    rows: NDArray[np.int64]
    population: int
    sums: tuple[RowSums, ...]
    nearest: Neighbours


def sample_rows(n: int, m: int, *, seed: int = 0) -> NDArray[np.int64]:
    """M of n rows without replacement, in order."""
    if not 1 <= m <= n:
        raise ValueError(f"m is {m!r}; there are {n} rows, give 1 to {n}")
    return np.sort(derive_rng(seed, "sampled-rows").choice(n, m, replace=False))


def canonical_order(unit: Vectors) -> NDArray[np.int64]:
    """An order of the rows that their values decide: seeded choices made in it do not depend on the rows' order."""
    direction = derive_rng(0, "canonical-order").normal(size=unit.shape[1])
    return np.argsort(unit.astype(np.float64) @ direction, kind="stable")


@single_blas_thread()
def sampled_pass(
    unit: Vectors,
    kernels: Sequence[Kernel],
    rows: NDArray[np.int64],
    *,
    bins: NDArray[np.int64] | None = None,
    compute: Compute | None = None,
    progress: Progress | None = None,
) -> SampledPass:
    """Row sums and nearest other rows of some rows against all n, in time O(m n d).

    Args:
        unit: unit rows, shape (n, d).
        kernels: as for ``row_sums``.
        rows: the sampled rows, shape (m,).
        bins: bin of each of the n rows; None puts all into one.
        compute: device, precision and threads.
        progress: told of blocks done and all blocks.
    """
    n, m = len(unit), len(rows)
    bin_of = np.zeros(n, dtype=np.int64) if bins is None else bins
    count = int(bin_of.max(initial=0)) + 1
    # the sample stands before the rows: one list of rows, so that any backend multiplies slices of it
    backend = choose_backend(unit, np.concatenate([rows, np.arange(n)]), compute or Compute())

    def work(block: slice) -> Found:
        return _one_block(backend, kernels, rows, block, bin_of[block], count)

    blocks = [slice(s, min(s + _ROWS, n)) for s in range(0, n, _ROWS)]
    sums = [np.zeros((m, count)) for _ in kernels]
    index, cosine = np.full(m, -1, dtype=np.int64), np.full(m, -np.inf, dtype=np.float32)
    parts_of = in_order(work, blocks, workers=backend.workers, prepare=backend.prepare)
    for done, (parts, at, best) in enumerate(parts_of, start=1):
        for total, part in zip(sums, parts, strict=True):
            total += part
        better = best > cosine
        index, cosine = np.where(better, at, index), np.where(better, best, cosine)
        if progress is not None:
            progress(done, len(blocks))
    found = tuple(RowSums(by_bin.sum(axis=1), by_bin.astype(np.float32)) for by_bin in sums)
    return SampledPass(rows, n, found, Neighbours(index, cosine))


def _one_block(
    backend: Backend[A],
    kernels: Sequence[Kernel],
    rows: NDArray[np.int64],
    block: slice,
    bins: NDArray[np.int64],
    count: int,
) -> Found:
    """Sums by bin of the sampled rows over one block of all rows, and their best column of it."""
    m = len(rows)
    cosines = backend.cosines(slice(0, m), slice(m + block.start, m + block.stop))
    own = np.flatnonzero((rows >= block.start) & (rows < block.stop))
    backend.set_cells(cosines, own, rows[own] - block.start, 1.0)
    tiles = evaluate_kernels(kernels, cosines, backend.ops)
    indicator = np.eye(count, dtype=np.float32)[bins]
    sums = [backend.sums(t, indicator, transposed=False) for t in tiles]
    backend.set_cells(cosines, own, rows[own] - block.start, -np.inf)
    index, cosine = backend.largest(cosines, transposed=False)
    return sums, index + block.start, cosine
