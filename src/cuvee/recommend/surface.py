"""A Gaussian process over the cells of a grid, and what one more draw of a cell is worth.

The mean accuracy of a cell is a smooth function of its place (measured diversity, share, ...): a Gaussian
process with a Matern kernel of order 5/2, one length scale a coordinate, fitted by marginal likelihood
(Rasmussen & Williams 2006, ch. 5), plus a deviation of each cell's own, since a grid need not be smooth. Each
cell's mean is seen with a noise variance of its own, from its repeats. The cells are few, so the posterior is
held whole: a mean vector and a covariance matrix over them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cuvee.recommend.statistics import Floats
from cuvee.records import Cell
from cuvee.similarity import single_blas_thread

_HEIGHTS = (0.05, 20.0)
_LENGTHS = (0.4, 10.0)
_DEVIATIONS = (0.01, 1.0)
"""Bounds of the kernel, in standard deviations of the values and coordinates: variance of the smooth part, its
length scales, variance of the cells' own deviations."""
_ITERATIONS = 8
POOLED_WEIGHT = 8.0
"""Degrees of freedom that the pooled variance weighs in each cell's own."""
_UNKNOWN_SPREAD = 0.01
"""Assumed SD over draws where no cell was drawn twice: one point of accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """What is known of every cell: posterior mean (n,) and covariance (n, n) of its true value."""

    mean: Floats = field(repr=False)
    covariance: Floats = field(repr=False)

    @property
    def spread(self) -> Floats:
        """Posterior standard deviation of each cell."""
        return np.asarray(np.sqrt(np.maximum(np.diag(self.covariance), 0.0)))


@single_blas_thread()
def fit_surface(places: Floats, *, seen: NDArray[np.intp], means: Floats, noise: Floats) -> Surface:
    """The posterior over all cells, given the means of some.

    Args:
        places: standardised coordinates of all cells, shape (n, d).
        seen: the cells that were tried, shape (m,).
        means: their mean values, shape (m,).
        noise: variance of each mean, shape (m,), above 0.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    centre = float(np.average(means, weights=1.0 / noise))
    scale = max(float(means.std()), float(np.sqrt(noise.mean())), 1e-12)
    smooth = ConstantKernel(1.0, _HEIGHTS) * Matern(np.ones(places.shape[1]), _LENGTHS, nu=2.5)
    process = GaussianProcessRegressor(smooth + WhiteKernel(0.1, _DEVIATIONS), alpha=noise / scale**2, optimizer=_climb)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length scale at its bound: that coordinate is idle
        process.fit(places[seen], (means - centre) / scale)
    # scikit-learn would predict the smooth part alone; a cell's own deviation is part of its true value
    prior = np.asarray(process.kernel_.k1(places)) + process.kernel_.k2.noise_level * np.eye(len(places))
    known = prior[:, seen]
    gain = np.linalg.solve(known[seen] + np.diag(noise / scale**2), known.T).T
    return Surface(
        mean=centre + scale * (gain @ ((means - centre) / scale)),
        covariance=scale**2 * (prior - gain @ known.T),
    )


def _climb(objective: Callable[[Floats], tuple[float, Floats]], start: Floats, bounds: Floats) -> tuple[Floats, float]:
    """The kernel's parameters, near enough: what is asked next does not hang on their last digits."""
    from scipy import optimize

    limits = [(float(low), float(high)) for low, high in bounds]
    found = optimize.minimize(
        objective, start, method="L-BFGS-B", jac=True, bounds=limits, options={"maxiter": _ITERATIONS}
    )
    return np.asarray(found.x), float(found.fun)


def imagine_draw(surface: Surface, cell: int, *, noise: float, value: float | None = None) -> Surface:
    """The posterior after one more draw of a cell that gave ``value``.

    None is the cell's own posterior mean (the kriging believer: Ginsbourger, Le Riche & Carraro 2010), which
    moves no mean and takes away the spread; another value is the constant liar's.
    """
    column = surface.covariance[:, cell]
    weights = column / (column[cell] + noise)
    mean = surface.mean if value is None else surface.mean + weights * (value - surface.mean[cell])
    return Surface(mean=mean, covariance=surface.covariance - np.outer(weights, column))


def bound_above(surface: Surface, *, width: float) -> Floats:
    """Upper confidence bounds, ``mean + width * spread`` (Srinivas et al. 2010, ICML)."""
    return np.asarray(surface.mean + width * surface.spread)


def value_knowledge(surface: Surface, *, noise: Floats) -> Floats:
    """The knowledge gradient of one more draw of each cell, shape (n,).

    The expected rise of the highest posterior mean, with correlated beliefs (Frazier, Powell & Dayanik 2009,
    INFORMS J. Computing 21(4)).

    Args:
        surface: the posterior.
        noise: variance of one draw of each cell, shape (n,).
    """
    reach = np.sqrt(np.maximum(np.diag(surface.covariance), 0.0) + noise)
    return np.array(
        [
            _expect_rise(surface.mean, surface.covariance[:, j] / reach[j] if reach[j] > 0 else np.zeros(noise.size))
            for j in range(noise.size)
        ]
    )


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


def estimate_draw_effects(tables: Collection[Mapping[int, float]]) -> dict[int, float]:
    """What all cells of the balanced slice share in a generation draw, shrunk by the variance components.

    Args:
        tables: draw -> value of each slice cell; draws that a cell lacks are left out.

    Returns:
        Draw -> effect; empty with fewer than two cells or two draws in common.
    """
    draws = sorted(set.intersection(*(set(t) for t in tables))) if tables else []
    if len(tables) < 2 or len(draws) < 2:
        return {}
    values = np.array([[t[g] for g in draws] for t in tables])
    cells, count = values.shape
    effects = values.mean(axis=0) - values.mean()
    between = cells * float(effects @ effects) / (count - 1)
    rest = values - values.mean(axis=1, keepdims=True) - effects
    within = float((rest**2).sum()) / ((cells - 1) * (count - 1))
    kept = max(1.0 - within / between, 0.0) if between > 0 else 0.0
    return {g: kept * float(e) for g, e in zip(draws, effects, strict=True)}


def pool_noise(values: Sequence[Floats]) -> Floats:
    """The variance of one draw of each cell: its own, shrunk towards the pooled one; the pooled one without repeats.

    Args:
        values: of each cell, shape (draws,), which may be empty.
    """
    squares = np.array([float(((v - v.mean()) ** 2).sum()) if v.size else 0.0 for v in values])
    freedom = np.array([max(v.size - 1.0, 0.0) for v in values])
    total = float(freedom.sum())
    pooled = float(squares.sum()) / total if total > 0 else _UNKNOWN_SPREAD**2
    pooled = max(pooled, 1e-10)
    return np.asarray((POOLED_WEIGHT * pooled + squares) / (POOLED_WEIGHT + freedom))
