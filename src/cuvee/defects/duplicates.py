"""Rows that say the same as an earlier one: equal texts, and vectors that are nearly equal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import normalise_text
from cuvee.records import Vectors
from cuvee.similarity import find_near_duplicates, single_blas_thread

SLACK = 1e-6
"""The cosine of two equal float32 rows may be so much below 1."""


def first_rows(texts: Sequence[str]) -> NDArray[np.int64]:
    """For each text the first row that says the same (by ``normalise_text``): its own where it is new, shape (n,)."""
    first: dict[str, int] = {}
    rows = (first.setdefault(normalise_text(text), row) for row, text in enumerate(texts))
    return np.fromiter(rows, dtype=np.int64, count=len(texts))


def duplicate_mask(texts: Sequence[str]) -> NDArray[np.bool_]:
    """True for each text that repeats an earlier one (by ``normalise_text``), shape (n,)."""
    out: NDArray[np.bool_] = first_rows(texts) != np.arange(len(texts))
    return out


@single_blas_thread()
def near_repeats(unit: Vectors, near: float) -> NDArray[np.int64]:
    """Rows with a cosine of at least ``near`` to an earlier row that is not among them.

    A chain of neighbours does not pull in rows that are unlike the one that stays. Only rows of one cluster can be
    near.

    Args:
        unit: unit rows, shape (n, d).
        near: the cosine.
    """
    cluster = find_near_duplicates(unit, near).cluster
    order = np.argsort(cluster, kind="stable")
    starts = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    gone = np.zeros(len(unit), dtype=bool)
    for members in np.split(order, starts[1:]):
        if len(members) < 2:
            continue
        part, stays = unit[members], np.ones(len(members), dtype=bool)
        for i in range(len(members) - 1):
            if stays[i]:
                stays[i + 1 :] &= part[i + 1 :] @ part[i] < np.float32(near - SLACK)
        gone[members] = ~stays
    return np.flatnonzero(gone)
