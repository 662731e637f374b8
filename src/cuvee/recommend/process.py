"""A Gaussian process over the trials of a grid: what cells are worth, and what they share in a generation draw.

The value of cell ``c`` in generation draw ``g`` is read as

    value = smooth(place of c) + own(c) + draw(g) + pool(level of c, g; share) + rest

``smooth`` is a Gaussian process with a Matern kernel of order 5/2, one length scale a coordinate (Rasmussen & Williams
2006, *Gaussian Processes for Machine Learning*, ch. 4); ``own`` lets a grid be rough. The other parts are noise, and
most of it is shared: all cells of a draw meet the same luck, and cells of one level in one draw are mixed from the same
pool, the more alike the nearer their shares. So a draw of one share says something of the luck of the others, which
differences between cells are then freed of; taken for independent, that luck passes for merit.

The parameters have log-normal priors, in standard deviations of the values and of the coordinates, and are those of
the highest posterior density: a search starts from too few trials for maximum likelihood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize, special

from cuvee.recommend.statistics import Floats
from cuvee.records import Cell
from cuvee.similarity import single_blas_thread

Places = NDArray[np.intp]

_SHARED = ("smooth", "own", "draw", "pool", "rest")
_TYPICAL = {"smooth": 0.5, "own": 0.1, "draw": 0.3, "pool": 0.3, "rest": 0.3, "length": 1.5}
_SPREAD = {"smooth": 1.2, "own": 1.0, "draw": 1.0, "pool": 1.0, "rest": 1.0, "length": 0.7}
"""Medians of the priors, and standard deviations of their logarithms; variances and length scales."""
_LIMITS = {
    "smooth": (0.02, 20.0),
    "own": (0.005, 5.0),
    "draw": (0.005, 5.0),
    "pool": (0.005, 5.0),
    "rest": (0.01, 3.0),
    "length": (0.4, 10.0),
}
_LEVEL = 4.0
"""Prior variance of the level of all values, which is their mean before it is known."""
_ITERATIONS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where cells lie.

    Attributes:
        places: standardised coordinates, shape (n, d); the first is the measured diversity.
        pools: number of the level that each cell is mixed from, shape (n,).
    """

    places: Floats = field(repr=False)
    pools: Places = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """Draws of cells and what they gave, shape (m,) each."""

    cells: Places = field(repr=False)
    draws: Places = field(repr=False)
    values: Floats = field(repr=False)

    def add(self, cell: int, draw: int, value: float) -> Tried:
        """With one more."""
        return Tried(
            cells=np.append(self.cells, cell), draws=np.append(self.draws, draw), values=np.append(self.values, value)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """What is known of every cell: posterior mean (n,) and covariance (n, n) of its true value."""

    mean: Floats = field(repr=False)
    covariance: Floats = field(repr=False)

    @property
    def spread(self) -> Floats:
        """Posterior standard deviation of each cell."""
        return np.asarray(np.sqrt(np.maximum(np.diag(self.covariance), 0.0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What draws not yet tried would show, of k of them.

    Attributes:
        mean: expected values, shape (k,).
        slopes: how far the mean of each cell moves for one standard deviation of the value, shape (k, n).
    """

    mean: Floats = field(repr=False)
    slopes: Floats = field(repr=False)


class TrialProcess:
    """The process with parameters fitted once; it can then be asked about more draws than it was fitted to."""

    def __init__(self, grid: Grid, tried: Tried) -> None:
        """Fit the parameters.

        Args:
            grid: of n cells.
            tried: at least one draw.
        """
        self._grid = grid
        self._centre = float(tried.values.mean())
        self._scale = max(float(tried.values.std()), 1e-12)
        self._theta = self._fit(tried)

    @property
    def parameters(self) -> dict[str, float]:
        """Variances of the parts, in units of the values squared, and length scales in standardised coordinates."""
        sizes = np.exp(self._theta)
        found = {name: float(sizes[k]) * self._scale**2 for k, name in enumerate(_SHARED)}
        found["pool_length"] = float(sizes[len(_SHARED)])
        return found | {f"length_{k}": float(v) for k, v in enumerate(sizes[len(_SHARED) + 1 :])}

    @single_blas_thread()
    def look(self, tried: Tried) -> Surface:
        """The posterior of all cells after these draws."""
        prior, gain, known = self._know(tried)
        values = (tried.values - self._centre) / self._scale
        return Surface(
            mean=self._centre + self._scale * (gain @ values), covariance=self._scale**2 * (prior - gain @ known)
        )

    @single_blas_thread()
    def look_ahead(self, tried: Tried, cells: Places, draws: Places) -> Outlook:
        """What these further draws would show after those that were tried.

        Args:
            tried: draws so far.
            cells, draws: of the further ones, shape (k,); none of them was tried.
        """
        prior, gain, _ = self._know(tried)
        joint = self._covary(tried, cells, draws)
        factor = linalg.cho_factor(self._covary_all(tried), lower=True)
        weights = linalg.cho_solve(factor, joint)  # (m, k)
        sizes = np.exp(self._theta)
        whole = _LEVEL + float(sizes[: len(_SHARED)].sum())
        variance = np.maximum(whole - np.einsum("mk,mk->k", joint, weights), 1e-12)
        moved = prior[:, cells] - gain @ joint  # (n, k): covariance of each cell's truth with the value
        return Outlook(
            mean=self._centre + self._scale * (weights.T @ ((tried.values - self._centre) / self._scale)),
            slopes=self._scale * (moved / np.sqrt(variance)).T,
        )

    def _know(self, tried: Tried) -> tuple[Floats, Floats, Floats]:
        """Prior of the cells (n, n), gain (n, m) and their covariance with the values tried (m, n)."""
        every = np.arange(len(self._grid.places))
        prior = _Kernel(self._grid, every, every).of_truth(self._theta)
        known = prior[tried.cells]
        factor = linalg.cho_factor(self._covary_all(tried), lower=True)
        return prior, np.asarray(linalg.cho_solve(factor, known).T), known

    def _covary_all(self, tried: Tried) -> Floats:
        kernel = _Kernel(self._grid, tried.cells, tried.cells)
        rest = float(np.exp(self._theta[_SHARED.index("rest")]))
        noise = kernel.of_luck(self._theta, tried.draws, tried.draws)
        return np.asarray(kernel.of_truth(self._theta) + noise + rest * np.eye(tried.cells.size))

    def _covary(self, tried: Tried, cells: Places, draws: Places) -> Floats:
        kernel = _Kernel(self._grid, tried.cells, cells)
        return np.asarray(kernel.of_truth(self._theta) + kernel.of_luck(self._theta, tried.draws, draws))

    @single_blas_thread()
    def _fit(self, tried: Tried) -> Floats:
        names = [*_SHARED, "length", *["length"] * self._grid.places.shape[1]]
        middle = np.log([_TYPICAL[name] for name in names])
        width = np.array([_SPREAD[name] for name in names])
        values = (tried.values - self._centre) / self._scale
        kernel = _Kernel(self._grid, tried.cells, tried.cells)

        def weigh(theta: Floats) -> tuple[float, Floats]:
            """Minus the log posterior density and its gradient (Rasmussen & Williams, eq. 5.8 and 5.9)."""
            parts = kernel.differentiate(theta, tried.draws)
            whole = _LEVEL + parts[0] + parts[1] + parts[2] + parts[3] + parts[4]
            factor = linalg.cho_factor(whole, lower=True)
            solved = linalg.cho_solve(factor, values)
            slack = np.outer(solved, solved) - linalg.cho_solve(factor, np.eye(values.size))
            apart = (theta - middle) / width
            loss = 0.5 * values @ solved + np.log(np.diag(factor[0])).sum() + 0.5 * apart @ apart
            slope = np.array([-0.5 * np.einsum("ij,ij->", slack, part) for part in parts])
            return float(loss), slope + apart / width

        limits = [tuple(np.log(_LIMITS[name])) for name in names]
        found = optimize.minimize(
            weigh, middle, method="L-BFGS-B", jac=True, bounds=limits, options={"maxiter": _ITERATIONS}
        )
        return np.asarray(found.x)


class _Kernel:
    """Covariances between two lists of cells; parameters are logarithms, in the order of ``_SHARED``, then lengths."""

    def __init__(self, grid: Grid, first: Places, second: Places) -> None:
        places = grid.places
        self._apart = [(places[first, None, k] - places[None, second, k]) ** 2 for k in range(places.shape[1])]
        self._same_cell = first[:, None] == second
        self._same_pool = grid.pools[first][:, None] == grid.pools[second]

    def of_truth(self, theta: Floats) -> Floats:
        """Of the true values of cells, with the level that all share."""
        sizes = np.exp(theta)
        scaled = [part / length**2 for part, length in zip(self._apart, sizes[len(_SHARED) + 1 :], strict=True)]
        return np.asarray(_LEVEL + sizes[0] * _matern(sum(scaled)) + sizes[1] * self._same_cell)

    def of_luck(self, theta: Floats, first: Places, second: Places) -> Floats:
        """Of what draws share, without the part that no two trials share."""
        sizes = np.exp(theta)
        same_draw = first[:, None] == second
        near = _matern(sum(self._apart[1:]) / sizes[len(_SHARED)] ** 2)
        return np.asarray(sizes[2] * same_draw + sizes[3] * (same_draw & self._same_pool) * near)

    def differentiate(self, theta: Floats, draws: Places) -> list[Floats]:
        """Derivatives by each parameter, for one list of cells; the first five are also the parts themselves."""
        sizes = np.exp(theta)
        lengths = sizes[len(_SHARED) + 1 :]
        scaled = [part / length**2 for part, length in zip(self._apart, lengths, strict=True)]
        together = np.asarray(sum(scaled))
        same_draw = draws[:, None] == draws
        shared = same_draw & self._same_pool
        near = np.asarray(sum(self._apart[1:]) / sizes[len(_SHARED)] ** 2)
        falls = sizes[0] * _matern_slope(together)
        return [
            sizes[0] * _matern(together),
            sizes[1] * self._same_cell,
            sizes[2] * same_draw,
            sizes[3] * shared * _matern(near),
            sizes[4] * np.eye(draws.size),
            sizes[3] * shared * _matern_slope(near) * near,
            *(falls * part for part in scaled),
        ]


def _matern(squares: Floats) -> Floats:
    """Matern 5/2 of squared distances in length scales."""
    root = np.sqrt(5.0 * squares)
    return np.asarray((1.0 + root + root**2 / 3.0) * np.exp(-root))


def _matern_slope(squares: Floats) -> Floats:
    """Derivative by the logarithm of a length scale, for each unit of that coordinate's part of ``squares``."""
    root = np.sqrt(5.0 * squares)
    return np.asarray(5.0 / 3.0 * (1.0 + root) * np.exp(-root))


# --- what one more draw is worth, and where cells lie ---
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
