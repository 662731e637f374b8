"""How much better the best of many cells looks than it is: selection bias, estimated by splits.

The best of many cells owes part of its lead to luck in the draws and in the held-out items it was chosen on
(the winner's curse; Cawley & Talbot 2010, JMLR 11). A part of the table of gains that took no part in the
choice does not share that luck, so: leave out one generation draw *and* one fold of the items, choose the best
cell on what remains, and read its gain on the part left out; average over all such splits. The apparent gain
less that average is the optimism. Both must be left out: items answered by luck in one draw tend to be answered
by the same luck in the next, because the same model sees the same item.

For equal cells the corrected gain is unbiased. Where cells differ it errs to the safe side: each split chooses
with one draw and one fold less than the study did, so it finds the truly best cell a little less often.
(The bootstrap would err to the other side: it adds noise to means that already hold noise, and for equal
cells it finds about 0.7 of the optimism.) It is an estimate for the reader; a verdict rests on fresh draws and
the locked test. Cells that an adaptive search sampled unevenly were not chosen by the rule replayed here,
so for those it is a rough guide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cuvee.recommend.statistics import Floats
from cuvee.records.advice import Optimism

FOLDS = 5


def estimate_optimism(gains: ArrayLike, *, over: str, best: int | None = None, folds: int = FOLDS) -> Optimism | None:
    """The optimism of the best of many cells, as the module says.

    Args:
        gains: gain over the baseline, shape (cells, generation draws, items), as fractions, other draws averaged
            first; a draw that a cell lacks is NaN in all items.
        over: the name of the baseline.
        best: the cell that was chosen; by default the one with the highest mean.
        folds: parts into which the items are dealt in turn (item i to part i modulo ``folds``).

    Returns:
        None where there is nothing to split: fewer than two items a fold, or no split that can be read.

    Raises:
        ValueError: the shape is wrong, a cell has no draw at all, or ``folds`` or ``best`` is out of range.
    """
    table = np.asarray(gains, dtype=np.float64)
    if table.ndim != 3 or 0 in table.shape:
        raise ValueError(f"gains must have shape (cells, draws, items), none of them 0, not {table.shape}")
    if folds < 2:
        raise ValueError(f"folds must be at least 2, not {folds!r}")
    if best is not None and not 0 <= best < table.shape[0]:
        raise ValueError(f"best is {best!r}; it must be one of the {table.shape[0]} cells")
    present = ~np.isnan(table[:, :, 0])
    if not (present.any(axis=1).all() and (np.isfinite(table).all(axis=2) == present).all()):
        raise ValueError("gains must be finite, save draws that a cell lacks, and each cell needs a draw")
    if table.shape[2] < 2 * folds:
        return None
    sizes = np.bincount(np.arange(table.shape[2]) % folds, minlength=folds).astype(np.float64)
    sums = np.stack([table[:, :, f::folds].sum(axis=2) for f in range(folds)], axis=2)
    sums = np.where(present[:, :, None], sums, 0.0)
    means = sums.sum(axis=(1, 2)) / (present.sum(axis=1) * sizes.sum())
    chosen = int(np.argmax(means)) if best is None else best
    corrected, splits, same = _read_splits(sums, present, sizes, chosen)
    if not splits:
        return None
    apparent = float(means[chosen])
    return Optimism(
        over=over,
        cells=table.shape[0],
        apparent=apparent,
        corrected=corrected,
        value=apparent - corrected,
        splits=splits,
        same_choice=same / splits,
    )


def _read_splits(sums: Floats, present: np.ndarray, sizes: Floats, chosen: int) -> tuple[float, int, int]:
    """Mean gain on the left-out parts, the splits that could be read, and those that chose the same cell."""
    draws, folds = sums.shape[1:]
    total = weight = 0.0
    splits = same = 0
    for g in range(draws):
        kept = np.arange(draws) != g if draws > 1 else np.ones(1, dtype=bool)  # one draw: items alone are split
        counts = present[:, kept].sum(axis=1)
        for f in range(folds):
            rest = np.arange(folds) != f
            scores = sums[:, kept][:, :, rest].sum(axis=(1, 2)) / np.maximum(counts, 1) / sizes[rest].sum()
            winner = int(np.argmax(np.where(counts > 0, scores, -np.inf)))
            if counts[winner] == 0 or not present[winner, g]:
                continue
            total += float(sums[winner, g, f])
            weight += float(sizes[f])
            splits += 1
            same += winner == chosen
    return (total / weight if weight else 0.0), splits, same
