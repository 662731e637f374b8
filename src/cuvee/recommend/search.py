"""Which cells and draws to run: the full grid, or a search that spends most of the budget on the cells that tell most.

**The adaptive search always asks first, and in full,** for the baselines (real-only, real-duplicated, synthetic-only)
and the balanced slice, which is all levels at the shape share with all planned draws. Adaptive sampling biases the
means of cells, since one that looked bad by chance is not tried again (Nie et al. 2018, AISTATS); the shape test is
made of the slice alone, so it stays valid.

**Then, round by round,** it asks for one more generation draw of the cells with the highest upper confidence bound
(Srinivas et al. 2010, ICML) of a Gaussian process over measured diversity, share and dial. A draw is asked whole: all
its sampling and training draws. Within a round the cells already chosen are taken to give what is expected of them
(kriging believer), so that parallel workers do not all get the same cell.

**The Gaussian process** reads the value of cell ``c`` in generation draw ``g`` as

    value = smooth(place of c) + own(c) + draw(g) + pool(level of c, g; share) + rest

``smooth`` has a Matern kernel of order 5/2, one length scale a coordinate (Rasmussen & Williams 2006, *Gaussian
Processes for Machine Learning*, ch. 4); ``own`` lets a grid be rough. The other parts are noise, and most of it is
shared: all cells of a draw meet the same luck, and cells of one level in one draw are mixed from the same pool, the
more alike the nearer their shares. So a draw of one share says something of the luck of the others, which differences
between cells are then freed of; taken for independent, that luck passes for merit.

The parameters have log-normal priors, in standard deviations of the values and of the coordinates, and are those of
the highest posterior density: a search starts from too few trials for maximum likelihood. They are fitted again once a
tenth more draws were told.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

from cuvee.recommend.cells import find_rivals, row_of
from cuvee.records import Cell, Draw, Floats, Level
from cuvee.similarity import single_blas_thread

Places = NDArray[np.intp]

_REFIT = 1.1
_WIDTH = 2.0  # of the upper confidence bound, in standard deviations
# Generation draws that a cell needs before it can be the best, where others have more than one.
LEAST_DRAWS = 2
PARTS = ("smooth", "own", "draw", "pool", "rest")
# Of variances and length scales: median, standard deviation of the logarithm, least and greatest value.
_PRIORS = {
    "smooth": (0.5, 1.2, 0.02, 20.0),
    "own": (0.1, 1.0, 0.005, 5.0),
    "draw": (0.3, 1.0, 0.005, 5.0),
    "pool": (0.3, 1.0, 0.005, 5.0),
    "rest": (0.3, 1.0, 0.01, 3.0),
    "length": (1.5, 0.7, 0.4, 10.0),
}
_APART = 10**6  # draws of subsamples are numbered from here beside those of generations
_LEVEL = 4.0  # prior variance of the level of all values, which is their mean before it is known
_ITERATIONS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTrial:
    """A cell at a draw, to be run on validation (or the locked test when confirming)."""

    cell: Cell
    draw: Draw


def list_draws(generations: Iterable[int], samplings: Iterable[int], trainings: int) -> list[Draw]:
    """Each combination of the random streams, training draws counted from 0."""
    return [Draw(generation=g, sampling=s, training=t) for g, s, t in product(generations, samplings, range(trainings))]


def plan_grid(
    amounts: Mapping[Level, Sequence[tuple[float, bool]]],
    draws: Mapping[Level, Sequence[Draw]],
    *,
    like: Cell,
    base_share: float,
    is_deterministic: bool = False,
) -> tuple[PlannedTrial, ...]:
    """Every level at every amount, synthetic-only at every level, and the real baselines, at paired draws.

    Args:
        amounts: level -> shares of synthetic rows, and whether each is every row of its pool.
        draws: level -> its own; baselines have those of all levels.
        like: the baseline real-only, which all cells are like in all else.
        base_share: synthetic-only cells hold the synthetic rows of the share nearest to this one.
        is_deterministic: training again on the same rows changes nothing.
    """
    shares = sorted({share for own in amounts.values() for share, _ in own})
    every = sorted({d for own in draws.values() for d in own}, key=astuple)
    real = [like, *(replace(like, kind="real-duplicated", share=share) for share in shares)]
    planned = pair_draws(real, every, is_deterministic=is_deterministic)
    for level, own in amounts.items():
        of_level = replace(like, kind="blend", dial=level.dial, level=level.name)
        cells = [replace(of_level, share=share, whole=whole) for share, whole in own]
        base = min(cells, key=lambda cell: abs(cell.share - base_share))
        cells.append(replace(base, kind="synthetic-only"))
        planned += pair_draws(cells, draws[level], is_deterministic=is_deterministic)
    return planned


def pair_draws(cells: Iterable[Cell], draws: Sequence[Draw], *, is_deterministic: bool) -> tuple[PlannedTrial, ...]:
    """Each cell at each draw; where training has no draws, cells of no subsample once for each choice of real rows."""

    def is_same(cell: Cell) -> bool:
        return is_deterministic and (cell.whole or cell.dial is None)

    once = list({draw.real: draw for draw in reversed(draws)}.values())[::-1]
    return tuple(PlannedTrial(cell=c, draw=draw) for c in cells for draw in (once if is_same(c) else draws))


def find_slice(blends: Iterable[Cell], shape_share: float) -> set[Cell]:
    """The blends at the share of the shape test; where no pool reaches it, those of each pool nearest to it."""
    every = set(blends)
    found = {cell for cell in every if math.isclose(cell.share, shape_share, abs_tol=1e-9)}
    if found or all(cell.scope == "the recipe" for cell in every):
        return found
    pools = {(cell.dial, cell.level) for cell in every}
    return {
        min((c for c in every if (c.dial, c.level) == p), key=lambda c: (abs(c.share - shape_share), c.key))
        for p in pools
    }


def log_amount(cell: Cell) -> float:
    """Logarithm of synthetic rows for each real one."""
    return math.log(min(max(cell.amount, 1e-6), 1e6))


class AdaptiveSearch:
    """Asks for planned trials in rounds and is told what they gave; see the module.

    A round is asked, run in any order and told as a whole; then the next is asked. What is asked depends on the plan,
    the settings and the values told, and on nothing else, so a study that is run again and told the same asks the same.
    """

    def __init__(
        self,
        planned: Sequence[PlannedTrial],
        *,
        diversity: Mapping[str, float],
        shape_share: float,
        budget: float,
        batch: int = 4,
    ) -> None:
        """Plan the search.

        Args:
            planned: the full grid (``plan_grid``): the search asks a part of it.
            diversity: ``dial=level`` -> measured diversity of the pool, for every level of a blend.
            shape_share: the share of the balanced slice.
            budget: fraction of the planned *blend* trials to run, above 0 to 1, the slice included, for which it must
                suffice; the baselines come on top. Failed trials count.
            batch: (cell, generation draw) pairs asked in a round.
        """
        self._planned, self._batch = tuple(dict.fromkeys(planned)), batch
        blends = [trial for trial in self._planned if trial.cell.kind == "blend"]
        self._budget = math.ceil(budget * len(blends) - 1e-9)
        self._slice = find_slice((trial.cell for trial in blends), shape_share)
        pairs: dict[Cell, dict[int, list[PlannedTrial]]] = {}
        for trial in blends:
            # the luck of a subsample is not that of a generation of the same number
            row = row_of(trial.cell, trial.draw) + (0 if trial.cell.scope == "the recipe" else _APART)
            pairs.setdefault(trial.cell, {}).setdefault(row, []).append(trial)
        self._cells, self._pairs = tuple(pairs), tuple(dict(sorted(by_draw.items())) for by_draw in pairs.values())
        self._grid = Grid.of(self._cells, diversity)
        self._fitted: tuple[int, TrialProcess] | None = None
        rivals = set(find_rivals(trial.cell for trial in self._planned))
        self._may_win = tuple(cell in rivals for cell in self._cells)
        self._asked: set[PlannedTrial] = set()
        self._told: dict[PlannedTrial, float | None] = {}

    def ask(self) -> tuple[PlannedTrial, ...]:
        """The next round; nothing where no further draw fits the budget, and while a round is not told in full.

        The first round is baselines and slice, whole.
        """
        first = (t for t in self._planned if t.cell.kind != "blend" or t.cell in self._slice)
        batch = [trial for trial in first if trial not in self._asked]
        if not batch and self._told.keys() >= self._asked:
            tried = self._gather()
            process = self._fit(tried)
            for _ in range(self._batch):
                open_pairs = self._open_pairs([*self._asked, *batch])
                if not open_pairs:
                    break
                chosen = next(iter(open_pairs))
                if process is not None:
                    mean, spread = process.look(tried)
                    bounds = mean + _WIDTH * spread
                    chosen = max(open_pairs, key=lambda cell: float(bounds[cell]))
                draw, pair = open_pairs[chosen]
                batch += pair
                if process is not None and not np.any((tried.cells == chosen) & (tried.draws == draw)):
                    tried = tried.add(chosen, draw, process.expect(tried, chosen, draw))
        self._asked.update(batch)
        return tuple(batch)

    def tell(self, trial: PlannedTrial, value: float | None) -> None:
        """What a planned trial gave: its accuracy, or None where it failed."""
        self._told[trial] = value
        self._asked.add(trial)

    def best(self) -> Cell | None:
        """The blend with the highest posterior mean; None before any value was told.

        It must have two generation draws at least, where any has. The Gaussian process steadies cells that
        were drawn rarely by their neighbours.
        """
        tried = self._gather()
        counts = np.bincount(tried.cells, minlength=len(self._cells)) * self._may_win
        least = min(LEAST_DRAWS, int(counts.max(initial=0)))
        if least == 0:
            return None
        mean, cells = TrialProcess(self._grid, tried).look(tried)[0], self._cells
        whole = np.array([cell.whole for cell in cells])
        allowed = np.flatnonzero(counts >= np.where(whole, 1, least)).tolist()
        return cells[min(allowed, key=lambda k: (-mean[k], cells[k].share, cells[k].key))]

    def _open_pairs(self, asked: Sequence[PlannedTrial]) -> dict[int, tuple[int, list[PlannedTrial]]]:
        """Cell -> its next draw and the trials of it, where that fits the budget and the cell does not keep failing."""
        known = set(asked)
        used = sum(trial.cell.kind == "blend" for trial in known)
        found: dict[int, tuple[int, list[PlannedTrial]]] = {}
        for cell, by_draw in enumerate(self._pairs):
            results = [self._told[k] for pair in by_draw.values() for k in pair if k in self._told]
            failures = sum(value is None for value in results)
            if failures > 1 and 2 * failures > len(results):
                continue
            waiting = ((draw, [k for k in pair if k not in known]) for draw, pair in by_draw.items())
            draw, left = next(((draw, left) for draw, left in waiting if left), (0, list[PlannedTrial]()))
            if left and used + len(left) <= self._budget:
                found[cell] = (draw, left)
        return found

    def _gather(self) -> Tried:
        """Mean value of each generation draw of each cell, over its other draws, without trials that failed."""
        known = [
            (cell, g, math.fsum(values) / len(values))
            for cell, by_draw in enumerate(self._pairs)
            for g, pair in by_draw.items()
            if (values := [v for k in pair if (v := self._told.get(k)) is not None])
        ]
        return Tried(
            cells=np.array([cell for cell, _, _ in known], dtype=np.intp),
            draws=np.array([g for _, g, _ in known], dtype=np.intp),
            values=np.array([v for _, _, v in known], dtype=np.float64),
        )

    def _fit(self, tried: Tried) -> TrialProcess | None:
        """The process, fitted again if a tenth more is known; None while every trial failed."""
        size = tried.values.size
        if size and (self._fitted is None or size >= _REFIT * self._fitted[0]):
            self._fitted = (size, TrialProcess(self._grid, tried))
        return self._fitted[1] if size and self._fitted else None


# --- the Gaussian process -------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where cells lie.

    Attributes:
        places: standardised coordinates, shape (n, d): measured diversity, logarithm of the amount, then one for each
            further dial.
        pools: number of the level that each cell is mixed from, shape (n,).
    """

    places: Floats = field(repr=False)
    pools: Places = field(repr=False)

    @classmethod
    def of(cls, cells: Sequence[Cell], diversity: Mapping[str, float]) -> Grid:
        """Of blends; ``diversity`` is measured, by ``dial=level``."""
        names, dials = [f"{c.dial}={c.level}" for c in cells], [c.dial or "" for c in cells]
        columns = [_standardise([diversity[name] for name in names]), _standardise([log_amount(c) for c in cells])]
        columns += [np.array([float(own == dial) for own in dials]) for dial in sorted(set(dials))[1:]]
        numbers = {name: k for k, name in enumerate(dict.fromkeys(names))}
        pools = np.array([numbers[name] for name in names], dtype=np.intp)
        return cls(places=np.stack(columns, axis=1), pools=pools)


def _standardise(column: Sequence[float]) -> Floats:
    values = np.array(column, dtype=np.float64)
    different = np.unique(values)
    spread = float(different.std())
    return np.asarray((values - different.mean()) / spread if spread > 0 else np.zeros(values.size))


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


class TrialProcess:
    """The process with parameters fitted once; it can then be asked about more draws than it was fitted to.

    ``theta`` holds the logarithms of the variances of ``PARTS``, in units of the values' variance, of the length scale
    of a pool over coordinates other than diversity, and of the length scale of each coordinate.
    """

    def __init__(self, grid: Grid, tried: Tried) -> None:
        """Fit the parameters to at least one draw of the grid's cells."""
        self._grid = grid
        self._centre = float(tried.values.mean())
        self._scale = max(float(tried.values.std()), 1e-12)
        self.theta = self._fit(tried)

    @single_blas_thread()
    def look(self, tried: Tried) -> tuple[Floats, Floats]:
        """Posterior mean and standard deviation of the true value of each cell after these draws, shape (n,) each."""
        every = np.arange(len(self._grid.places))
        prior = _Kernel(self._grid, every, every).of_truth(self.theta)
        known = prior[tried.cells]
        gain = linalg.cho_solve(self._factor(tried), known).T
        variance = np.diag(prior) - np.einsum("nm,mn->n", gain, known)
        values = (tried.values - self._centre) / self._scale
        return self._centre + self._scale * (gain @ values), self._scale * np.sqrt(np.maximum(variance, 0.0))

    @single_blas_thread()
    def expect(self, tried: Tried, cell: int, draw: int) -> float:
        """The value that a further draw of a cell is expected to give after those that were tried."""
        kernel = _Kernel(self._grid, tried.cells, np.array([cell]))
        joint = kernel.of_truth(self.theta) + kernel.of_luck(self.theta, tried.draws, np.array([draw]))
        weights = linalg.cho_solve(self._factor(tried), joint)[:, 0]
        return float(self._centre + self._scale * (weights @ ((tried.values - self._centre) / self._scale)))

    def _factor(self, tried: Tried) -> tuple[Floats, bool]:
        kernel = _Kernel(self._grid, tried.cells, tried.cells)
        rest = float(np.exp(self.theta[PARTS.index("rest")]))
        noise = kernel.of_luck(self.theta, tried.draws, tried.draws)
        whole = kernel.of_truth(self.theta) + noise + rest * np.eye(tried.cells.size)
        factor, lower = linalg.cho_factor(whole, lower=True)
        return np.asarray(factor), bool(lower)

    @single_blas_thread()
    def _fit(self, tried: Tried) -> Floats:
        priors = np.array([_PRIORS[name] for name in (*PARTS, "length", *["length"] * self._grid.places.shape[1])])
        middle, width, limits = np.log(priors[:, 0]), priors[:, 1], np.log(priors[:, 2:])
        values = (tried.values - self._centre) / self._scale
        kernel = _Kernel(self._grid, tried.cells, tried.cells)

        def weigh(theta: Floats) -> tuple[float, Floats]:
            """Minus the log posterior density and its gradient (Rasmussen & Williams, eq. 5.8 and 5.9)."""
            parts = kernel.differentiate(theta, tried.draws)
            factor = linalg.cho_factor(_LEVEL + np.asarray(sum(parts[: len(PARTS)])), lower=True)
            solved = linalg.cho_solve(factor, values)
            slack = np.outer(solved, solved) - linalg.cho_solve(factor, np.eye(values.size))
            apart = (theta - middle) / width
            loss = 0.5 * values @ solved + np.log(np.diag(factor[0])).sum() + 0.5 * apart @ apart
            slope = np.array([-0.5 * np.einsum("ij,ij->", slack, part) for part in parts])
            return float(loss), slope + apart / width

        found = optimize.minimize(
            weigh, middle, method="L-BFGS-B", jac=True, bounds=limits, options={"maxiter": _ITERATIONS}
        )
        return np.asarray(found.x)


class _Kernel:
    """Covariances between two lists of cells; parameters are those of :class:`TrialProcess`."""

    def __init__(self, grid: Grid, first: Places, second: Places) -> None:
        places = grid.places
        self._apart = [(places[first, None, k] - places[None, second, k]) ** 2 for k in range(places.shape[1])]
        self._same_cell = first[:, None] == second
        self._same_pool = grid.pools[first][:, None] == grid.pools[second]

    def _measure(self, theta: Floats) -> tuple[Floats, list[Floats], Floats]:
        """The parameters; squared distances in length scales, one a coordinate; those between places of one pool."""
        sizes = np.exp(theta)
        lengths = zip(self._apart, sizes[len(PARTS) + 1 :], strict=True)
        near = np.asarray(sum(self._apart[1:]) / sizes[len(PARTS)] ** 2)
        return sizes, [np.asarray(part / length**2) for part, length in lengths], near

    def of_truth(self, theta: Floats) -> Floats:
        """Of the true values of cells, with the level that all share."""
        sizes, scaled, _ = self._measure(theta)
        return np.asarray(_LEVEL + sizes[0] * _matern(np.asarray(sum(scaled))) + sizes[1] * self._same_cell)

    def of_luck(self, theta: Floats, first: Places, second: Places) -> Floats:
        """Of what draws share, without the part that no two trials share."""
        (sizes, _, near), same_draw = self._measure(theta), first[:, None] == second
        return np.asarray(sizes[2] * same_draw + sizes[3] * (same_draw & self._same_pool) * _matern(near))

    def differentiate(self, theta: Floats, draws: Places) -> list[Floats]:
        """Derivatives by each parameter, for one list of cells; the first five are also the parts themselves."""
        (sizes, scaled, near), same_draw = self._measure(theta), draws[:, None] == draws
        together, shared = np.asarray(sum(scaled)), sizes[3] * (same_draw & self._same_pool)
        falls = sizes[0] * _matern_slope(together)
        return [
            sizes[0] * _matern(together), sizes[1] * self._same_cell, sizes[2] * same_draw, shared * _matern(near),
            sizes[4] * np.eye(draws.size), shared * _matern_slope(near) * near, *(falls * part for part in scaled),
        ]  # fmt: skip


def _matern(squares: Floats) -> Floats:
    """Matern 5/2 of squared distances in length scales."""
    root = np.sqrt(5.0 * squares)
    return np.asarray((1.0 + root + root**2 / 3.0) * np.exp(-root))


def _matern_slope(squares: Floats) -> Floats:
    """Derivative by the logarithm of a length scale, for each unit of that coordinate's part of ``squares``."""
    root = np.sqrt(5.0 * squares)
    return np.asarray(5.0 / 3.0 * (1.0 + root) * np.exp(-root))
