"""What one more draw of a cell is worth, given what is known of all cells, and where cells lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cuvee.recommend.process import Surface
from cuvee.recommend.statistics import Floats
from cuvee.records import Cell


def bound_above(surface: Surface, *, width: float) -> Floats:
    """Upper confidence bounds, ``mean + width * spread`` (Srinivas et al. 2010, ICML)."""
    return np.asarray(surface.mean + width * surface.spread)


def value_knowledge(surface: Surface, slopes: Floats) -> Floats:
    """The knowledge gradient of further draws, shape (k,).

    The expected rise of the highest posterior mean, with correlated beliefs (Frazier, Powell & Dayanik 2009,
    INFORMS J. Computing 21(4)).

    Args:
        surface: the posterior of n cells.
        slopes: how far each cell's mean moves for one standard deviation of a draw's value, shape (k, n).
    """
    return np.array([_expect_rise(surface.mean, row) for row in slopes])


def _expect_rise(starts: Floats, slopes: Floats) -> float:
    """``E max(starts + slopes Z) - max(starts)`` for standard normal Z: the area between the highest lines."""
    order = np.lexsort((starts, slopes))
    kept: list[int] = []
    crossings: list[float] = []
    for k in order:
        if kept and slopes[kept[-1]] == slopes[k]:  # of parallel lines the higher, which comes later
            kept.pop()
            if crossings:
                crossings.pop()
        while kept:
            crossing = float((starts[kept[-1]] - starts[k]) / (slopes[k] - slopes[kept[-1]]))
            if not crossings or crossing > crossings[-1]:
                crossings.append(crossing)
                break
            kept.pop()
            crossings.pop()
        kept.append(int(k))
    away = -np.abs(np.array(crossings))
    density = np.exp(-0.5 * away**2) / np.sqrt(2.0 * np.pi)
    return float(np.diff(slopes[kept]) @ (density + away * special.ndtr(away)))


def place_cells(cells: Sequence[Cell], diversity: Mapping[str, float]) -> Floats:
    """Standardised coordinates of blends, shape (cells, d): diversity, share, and what else varies among them.

    Raises:
        ValueError: a level has no measured diversity.
    """
    missing = sorted({f"{c.dial}={c.level}" for c in cells} - set(diversity))
    if missing:
        raise ValueError(f"diversity lacks {', '.join(missing)}")
    columns = [
        _standardise(np.array([diversity[f"{c.dial}={c.level}"] for c in cells])),
        _standardise(np.array([c.share for c in cells])),
    ]
    if len({c.rows_per_label for c in cells}) > 1:
        columns.append(_standardise(np.log([max(c.rows_per_label, 1) for c in cells])))
    for names in ([c.dial or "" for c in cells], [c.trainer for c in cells], [c.loss for c in cells]):
        columns += [np.array([float(n == name) for n in names]) for name in sorted(set(names))[1:]]
    return np.stack(columns, axis=1)


def _standardise(values: NDArray[np.float64]) -> Floats:
    different = np.unique(values)
    spread = float(different.std())
    return np.asarray((values - different.mean()) / spread if spread > 0 else np.zeros(values.size))
