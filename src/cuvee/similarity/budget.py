"""What an all-pairs pass would cost: measured on one tile, so that a time budget can be kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from cuvee.records import Vectors
from cuvee.similarity.backends import Compute, choose_backend
from cuvee.similarity.kernels import Kernel
from cuvee.similarity.neighbours import find_near_duplicates
from cuvee.similarity.tiles import pairwise_pass

_PROBE = 2048


def seconds_for_pairs(unit: Vectors, kernels: Sequence[Kernel], compute: Compute) -> float:
    """Estimated seconds of ``pairwise_pass`` over all rows: a pass over some of them, scaled by the pairs."""
    some = unit[:: max(1, len(unit) // _PROBE)][:_PROBE]
    bins = np.arange(len(some)) * 64 // max(1, len(some))
    tile = min(choose_backend(some, None, compute).tile, 1024)
    return _time(lambda: pairwise_pass(some, kernels, bins=bins, tile=tile, compute=compute)) * (
        (len(unit) / len(some)) ** 2
    )


def seconds_for_duplicates(unit: Vectors, compute: Compute) -> float:
    """Estimated seconds of ``find_near_duplicates`` over all rows."""
    some = unit[:: max(1, len(unit) // (4 * _PROBE))][: 4 * _PROBE]
    return _time(lambda: find_near_duplicates(some, compute=compute)) * (len(unit) / len(some)) ** 2


def _time(work: Callable[[], object]) -> float:
    """Seconds of the second of two runs: the first one loads libraries."""
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
