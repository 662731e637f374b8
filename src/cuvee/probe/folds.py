"""Folds of rows, and probabilities of rows from probes that never saw them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cuvee.errors import TrainingError
from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.probe.fit import encode_targets, fit_probe
from cuvee.records import Vectors


def cross_validated_proba(
    vectors: Vectors,
    targets: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    folds: int = 5,
    seed: int = 0,
    steps: int = 300,
) -> NDArray[np.float64]:
    """Probabilities of each row from a probe that never saw it, shape (n, k).

    Folds are stratified by label; rows of one group stay in one fold. With fewer groups than ``folds`` there
    are as many folds as groups. Columns are in the order of ``labels``, by default sorted.

    Raises:
        TrainingError: no rows, or some fold leaves rows of one label only to train on.
        ValueError: ``folds`` below 2.
    """
    if folds < 2:
        raise ValueError(f"folds is {folds!r}; cross-validation needs at least 2")
    names, codes = encode_targets(targets, labels)
    if len(codes) == 0:
        raise TrainingError("cross-validation has no rows; give it rows of at least two labels")
    fold_of = stratified_folds(codes, groups, folds, seed)
    out = np.zeros((len(codes), len(names)), dtype=np.float64)
    listed = list(targets)
    for fold in np.unique(fold_of):
        held = fold_of == fold
        train = np.flatnonzero(~held)
        model = fit_probe(
            vectors[train],
            [listed[i] for i in train],
            labels=names,
            steps=steps,
            seed=derive_seed(seed, "fold", int(fold)),
        )
        out[held] = model.proba(vectors[held])
    return out


def stratified_folds(
    codes: NDArray[np.int64], groups: Sequence[str] | None, folds: int, seed: int
) -> NDArray[np.int64]:
    """Fold of each row, shape (n,): groups are dealt in turn, shuffled, label (of a group's first row) after label.

    With fewer groups than ``folds`` there are as many folds as groups.

    Raises:
        ValueError: ``groups`` of another length than ``codes``.
    """
    if groups is not None and len(groups) != len(codes):
        raise ValueError(f"groups has {len(groups)} entries for {len(codes)} rows; give one each")
    names = list(groups) if groups is not None else [str(i) for i in range(len(codes))]
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        first.setdefault(name, row)
    heads = np.array(list(first.values()))
    shuffled = heads[derive_rng(seed, "folds").permutation(len(heads))]
    dealt = shuffled[np.argsort(codes[shuffled], kind="stable")]
    count = min(folds, len(heads))
    fold_of_group = {names[row]: position % count for position, row in enumerate(dealt)}
    return np.array([fold_of_group[name] for name in names], dtype=np.int64)
