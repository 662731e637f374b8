"""Real data cut into folds, each of which is held out once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus.splits import label_strata, linked_rows
from cuvee.corpus.table import Corpus
from cuvee.errors import InputError
from cuvee.fingerprint import derive_rng


def fold_corpus(
    corpus: Corpus,
    folds: int,
    *,
    seed: int,
    together: Sequence[int] | NDArray[np.integer] | None = None,
) -> list[tuple[Corpus, Corpus]]:
    """Cut real rows into folds: for each fold all other rows, and the rows held out, in their own order.

    Args:
        corpus: real rows.
        folds: how many, 2 or more.
        seed: of the cut alone.
        together: as for ``split_corpus``.

    Raises:
        InputError: a label, or all rows where there are no labels, cannot be spread over so many folds.
        ValueError: ``folds`` is below 2, or ``together`` has another length.
    """
    fold_of = number_folds(corpus, folds, seed=seed, together=together)
    return [
        (corpus.take(np.flatnonzero(fold_of != k)), corpus.take(np.flatnonzero(fold_of == k))) for k in range(folds)
    ]


def number_folds(
    corpus: Corpus,
    folds: int,
    *,
    seed: int,
    together: Sequence[int] | NDArray[np.integer] | None = None,
) -> NDArray[np.int64]:
    """The fold that each row is held out in, from 0, shape (n,): folds of like size and label counts.

    Rows that ``split_corpus`` keeps on one side lie in one fold. Arguments and errors are those of
    :func:`fold_corpus`.
    """
    if folds < 2:
        raise ValueError(f"folds is {folds!r}; it must be at least 2")
    if together is not None and len(together) != len(corpus):
        raise ValueError(f"together has {len(together)!r} entries for {len(corpus)} rows; give one each")
    strata = label_strata(corpus)
    clusters = linked_rows(corpus, together)
    by_label = Counter(strata[rows[0]] for rows in clusters)
    scarce = min(sorted(by_label), key=lambda label: by_label[label], default="")
    if by_label[scarce] < folds:
        name = f"label {scarce!r} has" if scarce else "there are"
        raise InputError(
            f"{name} {by_label[scarce]} rows (or groups of rows) that can be held out apart, for {folds} folds; "
            "lower split.crossfit or give more rows"
        )
    fold_of = np.zeros(len(corpus), dtype=np.int64)
    held: list[Counter[str]] = [Counter() for _ in range(folds)]
    order = derive_rng(seed, "folds").permutation(len(clusters)).tolist()
    # large clusters first, while all folds still have room for them
    for index in sorted(order, key=lambda i: -len(clusters[i])):
        rows = clusters[index]
        label = strata[rows[0]]
        fold = min(range(folds), key=lambda k: (held[k][label], held[k].total(), k))
        held[fold].update(strata[row] for row in rows)
        fold_of[rows] = fold
    return fold_of
