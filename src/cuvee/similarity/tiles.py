"""One pass over all pairs of rows, in symmetric tiles: row sums of kernels and nearest rows.

Each tile of cosines is computed once and used for its rows and for its columns. Nothing holds an n x n matrix. Tiles
are added up in stripes of block rows, and stripes in their order: so the result does not depend on the number of
threads, nor on whether stripes are summed here or by the workers of a crew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.records import Vectors
from cuvee.similarity.backends import Compute
from cuvee.similarity.kernels import Kernel
from cuvee.similarity.stripes import Progress, Sweep, add_stripes
from cuvee.similarity.threads import single_blas_thread


@dataclass(frozen=True, slots=True)
class RowSums:
    """Row sums of one kernel matrix with unit diagonal: ``total`` (n,), and ``by_bin`` (n, bins) of its columns."""

    total: NDArray[np.float64]
    by_bin: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The nearest other vector of each row: its index and cosine, shape (n,)."""

    index: NDArray[np.int64]
    cosine: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PairwisePass:
    """What one pass over all pairs gave: sums of each kernel, and the nearest other row of each row.

    Where there is one row only, its nearest is row -1 at cosine ``-inf``.
    """

    sums: tuple[RowSums, ...]
    nearest: Neighbours


def row_sums(
    unit: Vectors,
    kernels: Sequence[Kernel],
    *,
    bins: NDArray[np.int64] | None = None,
    tile: int | None = None,
    compute: Compute | None = None,
    progress: Progress | None = None,
) -> list[RowSums]:
    """Row sums of several kernels of the cosine, in one pass of symmetric tiles.

    Memory beyond the result is a few tiles, and a second copy of the rows where they come unsorted by bin.
    float32 tiles: relative error about 1e-6.

    Args:
        unit: unit rows, shape (n, d), as ``unit_rows`` makes them.
        kernels: elementwise functions of the cosine.
        bins: bin of each row, shape (n,), counted from 0; None puts every row into bin 0.
        tile: rows of a tile; None chooses.
        compute: device, precision and threads.
        progress: told of tiles done and all tiles.
    """
    return list(_run_pass(unit, kernels, bins, False, tile, compute, progress).sums)


def pairwise_pass(
    unit: Vectors,
    kernels: Sequence[Kernel],
    *,
    bins: NDArray[np.int64] | None = None,
    tile: int | None = None,
    compute: Compute | None = None,
    progress: Progress | None = None,
) -> PairwisePass:
    """Row sums of several kernels and, in the same pass, the nearest other row of each row. See ``row_sums``."""
    return _run_pass(unit, kernels, bins, True, tile, compute, progress)


@single_blas_thread()
def _run_pass(
    unit: Vectors,
    kernels: Sequence[Kernel],
    bins: NDArray[np.int64] | None,
    nearest: bool,
    tile: int | None,
    compute: Compute | None,
    progress: Progress | None,
) -> PairwisePass:
    n = len(unit)
    bin_of = np.zeros(n, dtype=np.int64) if bins is None else np.asarray(bins, dtype=np.int64)
    if bin_of.shape != (n,):
        raise ValueError(f"bins has shape {bin_of.shape!r}; it must be {(n,)!r}")
    order = np.argsort(bin_of, kind="stable")  # with bins side by side a tile touches few of them
    in_order = bool((np.diff(bin_of) >= 0).all())
    sweep = Sweep(
        unit,
        None if in_order else order,
        kernels,
        bin_of[order],
        nearest=nearest,
        tile=tile,
        compute=compute or Compute(),
    )
    sums, index, cosine = add_stripes(sweep.task, sweep.stripes(progress))
    back = np.empty(n, dtype=np.int64)
    back[order] = np.arange(n)
    found = tuple(
        RowSums(by_bin.sum(axis=1, dtype=np.float64)[back], by_bin if in_order else by_bin[back]) for by_bin in sums
    )
    index = np.where(index >= 0, order[index], -1)
    return PairwisePass(found, Neighbours(index[back], cosine[back]))
