"""The statistics and the search against simulated truths: error rates, power, coverage, bias, regret.

    python benchmarks/error_rates.py [--repeats 1000] [--jobs 2]
        [--only shapes power coverage choices confirmations studies lean selection search]

Every number has its 95% interval (Wilson's for rates). Repeats are seeded, so the table is the same each time,
whatever the number of jobs. With 1,000 repeats about two CPU minutes, and about one CPU minute for every 100 repeats of
``search``, which fits thousands of Gaussian processes; with ``--check`` the exit code
is 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from operator import le
from typing import Literal

import numpy as np
from scipy import special
from threadpoolctl import threadpool_limits

from cuvee.recommend import AdaptiveSearch, confirm_cell, plan_grid, plan_power, recommend_mixture
from cuvee.recommend.advice import choose_best, decide
from cuvee.recommend.cells import CellTable, gains_of, merge_groups, pool_gains
from cuvee.recommend.confirming import LookResult, judge_confirmation, plan_looks
from cuvee.recommend.search import list_draws
from cuvee.recommend.shapes import test_shape
from cuvee.recommend.statistics import adjust_choice, paired_gain
from cuvee.recommend.wording import Verdict
from cuvee.records import Cell, Composition, Confirmation, Draw, Estimate, Gain, Level, Scores, Trial

POINT = 0.01
REST = 0.3
"""SD of what an answer owes to nothing else, where the ease of items has SD 1."""
LEVELS = tuple("12345")
DIVERSITY = np.array([12.0, 19.0, 27.0, 33.0, 40.0])
STEPS = np.arange(5.0)
HUMP = 2.0 * (1.0 - ((STEPS - 2.0) / 2.0) ** 2)

TRUTHS: dict[str, np.ndarray] = {
    "flat": 0.0 * STEPS,
    "rising": 0.7 * STEPS,
    "saturating": 4.0 * (1.0 - np.exp(-1.5 * STEPS)),
    "step to a plateau": np.array([0.0, 3.0, 3.0, 3.0, 3.0]),
    "falling from a high plateau": np.array([10.0, 10.0, 10.0, 10.0, 0.0]),
    "U-shaped": -1.5 * HUMP,
}


@dataclass(frozen=True)
class Row:
    """One line of the table. ``met`` is None where there is no target."""

    part: str
    what: str
    value: float
    low: float
    high: float
    unit: str
    target: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        digits = 3 if self.unit == "" else 2
        interval = f"[{self.low:.{digits}f}, {self.high:.{digits}f}]"
        mark = "" if self.met is None else ("yes" if self.met else "NO")
        return f"| {self.part} | {self.what} | {self.value:.{digits}f} {interval}{self.unit} | {self.target} | {mark} |"


Repeat = Callable[[int], "Sequence[float]"]


def run_repeats(repeat: Repeat, repeats: int, pool: ProcessPoolExecutor) -> np.ndarray:
    """Results of all repeats, shape (repeats, numbers)."""
    return np.array(list(pool.map(repeat, range(repeats), chunksize=max(1, repeats // 40))), dtype=np.float64)


def rate(part: str, what: str, hits: np.ndarray, target: str = "", check: Callable[[float], bool] | None = None) -> Row:
    """A rate with Wilson's interval."""
    n, p, z = hits.size, float(hits.mean()), 1.96
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    met = None if check is None else check(p)
    return Row(part, what, p, float((centre - half) / scale), float((centre + half) / scale), "", target, met)


def mean(
    part: str,
    what: str,
    values: np.ndarray,
    target: str = "",
    check: Callable[[float], bool] | None = None,
    unit: str = " points",
) -> Row:
    """A mean, in points unless ``unit`` is another."""
    points = values / POINT if unit == " points" else values
    value, half = float(points.mean()), 1.96 * float(points.std(ddof=1)) / np.sqrt(points.size)
    met = None if check is None else check(value)
    return Row(part, what, value, value - half, value + half, unit, target, met)


# --- worlds: right-or-wrong answers of cells, whose items and draws are random ----------------------------
@dataclass(frozen=True)
class World:
    """How answers differ. Spreads of draws are in points.

    Attributes:
        items, draws: of each cell.
        spread: SD over draws of the difference of two cells.
        own: SD of what an item has with one cell, where the ease of items has SD 1.
        tails: degrees of freedom of the t distribution of draws, scaled to ``spread``; None is the normal one.
        unequal: how many times larger the spread of the last cell is than that of the first; between them it grows.
        group: items that share half of their ease and of what they have with a cell; 1 is none.
        pool: cells one after another that share half of the luck of a draw, as those of one pool do; 1 is none.
    """

    items: int
    draws: int
    spread: float = 1.0
    own: float = 0.3
    tails: float | None = None
    unequal: float = 1.0
    group: int = 1
    pool: int = 1

    def find_spreads(self, cells: int) -> np.ndarray:
        """SD of each of so many cells over draws, points."""
        return self.spread / np.sqrt(2) * np.linspace(1.0, self.unequal, cells)

    def answer(
        self, truth: np.ndarray, rng: np.random.Generator, *, base: float = 0.7, spreads: np.ndarray | None = None
    ) -> np.ndarray:
        """Answers of shape (draws, cells, items), 0 or 1; ``truth`` in points above ``base``.

        ``spreads`` are those of the cells where they are some of more cells.
        """
        cells, total = truth.size, np.sqrt(1.0 + self.own**2 + REST**2)
        mean = special.ndtri(base + POINT * truth) * total
        a_point = POINT * total / np.exp(-(special.ndtri(base) ** 2) / 2) * np.sqrt(2 * np.pi)
        luck = rng.normal(size=(self.draws, cells))
        if self.tails is not None:
            luck *= np.sqrt((self.tails - 2) / rng.chisquare(self.tails, luck.shape))
        if self.pool > 1:
            joint = rng.normal(size=(self.draws, -(-cells // self.pool))).repeat(self.pool, axis=1)[:, :cells]
            luck = np.sqrt(0.5) * (luck + joint)
        each = self.find_spreads(cells) if spreads is None else spreads
        ease = self._share(rng, ()) + self.own * self._share(rng, (cells,))
        answers = ease + mean[:, None] + (luck * each * a_point)[:, :, None]
        return np.asarray(answers + rng.normal(0, REST, answers.shape) > 0, dtype=np.float64)

    def _share(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        alone = rng.normal(size=(*shape, self.items))
        if self.group == 1:
            return alone
        shared = rng.normal(size=(*shape, -(-self.items // self.group))).repeat(self.group, axis=-1)
        return np.sqrt(0.5) * (alone + shared[..., : self.items])

    def __str__(self) -> str:
        kind = f", draws of t({self.tails:g})" if self.tails is not None else ""
        kind += f", spreads up to {self.unequal:g} times" if self.unequal != 1.0 else ""
        kind += f", own {self.own:g}" if self.own != 0.3 else ""
        kind += f", groups of {self.group}" if self.group > 1 else ""
        return f"{self.items} items, {self.draws} draws, SD {self.spread:g}{kind}"


# --- shapes: false verdicts and power ---------------------------------------------------------------------
def judge_shape(truth: np.ndarray, world: World, seed: int) -> Sequence[float]:
    """Whether the verdict, and the two lines, are an inverted U; and whether any shape is claimed."""
    correct = world.answer(truth, np.random.default_rng([1, seed]))
    shape = test_shape(correct, levels=LEVELS, delta=POINT, diversity=DIVERSITY)
    lines = shape.two_lines
    assert lines is not None
    claimed = shape.verdict not in ("underpowered", "flat")
    return [shape.verdict == "inverted-U", lines.shape == "inverted-U", claimed, lines.shape != "underpowered"]


SHAPE_WORLDS = (
    World(300, 10), World(900, 2), World(900, 3), World(900, 5), World(900, 5, spread=2.0),
    World(900, 3, tails=3.0), World(900, 3, unequal=3.0), World(900, 5, unequal=3.0), World(5000, 5),
)  # fmt: skip


def check_shapes(repeats: int, pool: ProcessPoolExecutor) -> Iterable[Row]:
    """False claims about shape."""
    for world in SHAPE_WORLDS:
        for name, truth in TRUTHS.items():
            hits = run_repeats(partial(judge_shape, truth, world), repeats, pool)
            for k, test in ((0, "inverted U"), (1, "two lines")):
                yield rate(f"false {test}", f"{name}; {world}", hits[:, k], "at most 0.06", lambda p: p <= 0.06)
            if name == "flat":
                yield rate("any shape", f"{name}; {world}", hits[:, 2], "at most 0.06", lambda p: p <= 0.06)


def find_means(truth: np.ndarray, world: World, seed: int) -> Sequence[float]:
    """The mean of each cell, of the same answers as in ``judge_shape``."""
    return world.answer(truth, np.random.default_rng([1, seed])).mean(axis=(0, 2))


def judge_knowing(means: np.ndarray, interiors: Sequence[int]) -> np.ndarray:
    """Whether each study's test of these levels would find an inverted U if it knew the variance of each difference."""
    each = []
    for k in interiors:
        over = [means[:, k] - means[:, end] for end in (0, means.shape[1] - 1)]
        each.append(np.max([special.ndtr(-difference / difference.std()) for difference in over], axis=0))
    return np.array([adjust_choice(p, len(interiors)) <= 0.05 for p in np.min(each, axis=0)])


def check_power(repeats: int, pool: ProcessPoolExecutor) -> Iterable[Row]:
    """Power for a hump of three points, beside that of a test that knows all variances; and what the plan promises."""
    for own, draws, least in ((0.3, 3, 0.61), (0.3, 5, 0.96), (0.05, 3, 0.61), (0.05, 5, 0.96)):
        world, truth = World(900, draws, own=own), 1.5 * HUMP
        hits = run_repeats(partial(judge_shape, truth, world), repeats, pool)
        what = f"quadratic hump of 3 points, 5 levels; {world}"
        yield rate("power", what, hits[:, 0], f"at least {least:g}", lambda p, least=least: p >= least)
        means = run_repeats(partial(find_means, truth, world), repeats, pool)
        yield rate("power, variances known", what, judge_knowing(means, (1, 2, 3)))
        yield rate("power, the peak known too", what, judge_knowing(means, (2,)))
        yield rate("power, two lines", what, hits[:, 1])
    world = World(900, 5)
    # single answers add 0.125 / 900 to the variance of a difference over draws, which a recorded spread has in it
    seen = np.sqrt((world.spread**2 + 0.125 / (POINT**2 * world.items)) / 2.0)
    peak = plan_power(draws=5, sd_between=seen, levels=5, items=900, disagreement=0.05)
    hits = run_repeats(partial(judge_shape, peak * (STEPS == 2), world), repeats, pool)
    what = f"single peak of {peak:.2f} points, planned for 0.8; {world}"
    yield rate("planned power", what, hits[:, 0], "0.77 to 0.93", lambda p: 0.77 <= p <= 0.93)


# --- intervals --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Components:
    """SDs of a table of differences, as fractions of accuracy."""

    draw: float
    item: float
    rest: float = 0.3
    draws: int = 5
    items: int = 500


def cover(parts: Components, seed: int) -> Sequence[float]:
    """Whether the interval holds the true gain of two points."""
    rng = np.random.default_rng([3, seed])
    table = 2 * POINT + rng.normal(0, parts.draw, (parts.draws, 1)) + rng.normal(0, parts.item, parts.items)
    table = table + rng.normal(0, parts.rest, (parts.draws, parts.items))
    gain = paired_gain(table, np.zeros(parts.items), over="baseline")
    return [gain.low <= 2 * POINT <= gain.high]


def check_coverage(repeats: int, pool: ProcessPoolExecutor) -> Iterable[Row]:
    """Coverage of the 95% interval of a gain."""
    for draws in (3, 5, 10):
        for item in (0.3, 0.1, 0.0):
            for draw in (0.0, 0.005, 0.02):
                hits = run_repeats(partial(cover, Components(draw, item, draws=draws)), repeats, pool)
                what = f"{draws} draws; SD of draws {draw / POINT:g} points, of items {item:g}, of the rest 0.3"
                yield rate("coverage", what, hits[:, 0], "0.93 to 0.97", lambda p: 0.93 <= p <= 0.97)


def cover_choices(rows: int, spread: float, draws: int, seed: int) -> Sequence[float]:
    """Whether the interval holds the mean gain over all choices of 10 of so many real rows, one choice a subsample.

    Beside it, whether it does where all subsamples have the first choice.

    Args:
        rows: at hand; each has a value of its own, and a choice gains the mean of its rows'.
        spread: SD of the gain over choices, points; that over subsamples is 1 point.
        draws: subsamples.
        seed: of the repeat.
    """
    rng = np.random.default_rng([7, seed])
    values = rng.normal(size=rows)
    values -= values.mean()
    values *= spread * POINT / np.sqrt(values.var() / 10.0 * (rows - 10.0) / (rows - 1.0))
    choices = np.array([values[rng.permutation(rows)[:10]].mean() for _ in range(draws)])
    own = 2 * POINT + rng.normal(0, POINT, draws)[:, None] + rng.normal(0, 0.1, 500) + rng.normal(0, 0.3, (draws, 500))
    gains = [paired_gain(own + luck, np.zeros(500), over="") for luck in (choices[:, None], choices[0])]
    return [gain.low <= 2 * POINT <= gain.high for gain in gains]


def check_choices(repeats: int, pool: ProcessPoolExecutor) -> Iterable[Row]:
    """Coverage where real rows are drawn with the subsamples, and where they are not."""
    for rows in (60, 400):
        for spread in (1.0, 3.0):
            for draws in (4, 8, 24):
                hits = run_repeats(partial(cover_choices, rows, spread, draws), repeats, pool)
                what = f"10 of {rows} real rows, SD over choices {spread:g} points, {draws} draws"
                yield rate("choices of real rows", what, hits[:, 0], "0.93 to 0.97", lambda p: 0.93 <= p <= 0.97)
                yield rate("one choice, as if of all", what, hits[:, 1])


# --- whole studies: what is decided, and which way they lean ----------------------------------------------
STUDY_SHARES = (0.25, 0.5, 0.75)
REAL_ONLY = Cell(kind="real-only", rows_per_label=4)
REPEATED = [Cell(kind="real-duplicated", share=share, rows_per_label=4) for share in STUDY_SHARES]
GRID = [
    Cell(kind="blend", dial="topics", level=level, share=share, rows_per_label=4)
    for level in LEVELS[:4]
    for share in STUDY_SHARES
]
GRIDS: dict[str, np.ndarray] = {
    "null": np.zeros(12),
    "one good": np.where(np.arange(12) == 4, 3.0, 0.0),
    "all good": np.full(12, 3.0),
    "all bad": np.full(12, -3.0),
    "rising": np.repeat([-2.0, -1.0, 0.0, 1.0], 3),
    "plateau": np.repeat([-3.0, 2.0, 2.0, 2.0], 3),
}


@dataclass(frozen=True)
class Budget:
    """Held-out items and draws of a study: validation, then confirmation on the locked test, at most."""

    name: str
    items: int
    draws: int
    test_items: int
    confirm: int


BUDGETS = (Budget("small", 100, 3, 200, 12), Budget("demo", 900, 5, 1100, 12), Budget("large", 3000, 8, 5000, 12))


def gather(cells: Sequence[Cell], answers: np.ndarray, world: World) -> dict[Cell, CellTable]:
    """The tables of cells whose answers have shape (draws, cells, items)."""
    draws, items = answers.shape[0], answers.shape[2]
    codes = np.arange(items) // world.group
    found = {}
    for k, cell in enumerate(cells):
        correct = answers[:, k] if world.group == 1 else merge_groups(answers[:, k], codes)
        found[cell] = CellTable(
            cell=cell, draws=tuple(range(draws)), trials=draws, share=cell.share, items=items, correct=correct
        )
    return found


@dataclass(frozen=True)
class Found:
    """What a study says, and true gains: of its best blend, of the one that it leans to, of the best that there is."""

    verdict: Verdict
    best: float
    lean: float
    highest: float
    apparent: float
    """gain of the best blend on validation"""


@dataclass(frozen=True)
class Study:
    """A study of a grid of 12 blends, whose winner is confirmed. Gains are on validation; ``true`` are fractions."""

    tables: dict[Cell, CellTable]
    gains: dict[Cell, tuple[Gain, ...]]
    confirmation: Confirmation
    judged: LookResult
    true: dict[Cell, float]


def hold_study(truth: np.ndarray, budget: Budget, world: World, rng: np.random.Generator) -> Study:
    """Make answers, choose the best blend and look at fresh draws of it until it is settled."""
    cells, whole = [REAL_ONLY, *REPEATED, *GRID], np.concatenate([np.zeros(4), truth])
    places = {cell: k for k, cell in enumerate(cells)}
    world = replace(world, items=budget.items, draws=budget.draws)
    tables = gather(cells, world.answer(whole, rng), world)
    gains = pool_gains({cell: gains_of(tables, cell) for cell in GRID})
    best = choose_best(tables, GRID)
    needed = [REAL_ONLY, next(c for c in REPEATED if c.share == best.share), best]
    fresh = replace(world, items=budget.test_items, draws=budget.confirm, pool=1)
    own, looks = [places[cell] for cell in needed], plan_looks(budget.confirm)
    answers = fresh.answer(whole[own], rng, spreads=world.find_spreads(len(cells))[own])
    for k, draws in enumerate(looks, start=1):
        test = gather(needed, answers[:draws], fresh)
        confirmation = Confirmation(
            cell=best, accuracy=test[best].accuracy, gains=gains_of(test, best), test_items=budget.test_items,
            fresh_draws=True, looks=looks[:k], planned=budget.confirm,
        )  # fmt: skip
        judged = judge_confirmation(confirmation, gains[best], delta=POINT, alpha=0.05)
        if judged.is_settled:
            break
    return Study(tables, gains, confirmation, judged, dict(zip(cells, POINT * whole, strict=True)))


def run_study(truth: np.ndarray, budget: Budget, world: World, rng: np.random.Generator) -> Found:
    """What is decided of a study."""
    study = hold_study(truth, budget, world, rng)
    best, true = study.confirmation.cell, study.true
    verdict = decide(study.tables, study.gains, study.confirmation, winner=None, delta=POINT, alpha=0.05)
    assert verdict.lean is not None
    return Found(
        verdict=verdict,
        best=true[best],
        lean=true[verdict.lean.cell],
        highest=max(*true.values(), 0.0),
        apparent=study.gains[best][0].value,
    )


def judge_confirmed(truth: np.ndarray, budget: Budget, world: World, seed: int) -> Sequence[float]:
    """Whether the confirmation's interval holds the true gain; whether it is shown, and falsely; draws."""
    study = hold_study(truth, budget, world, np.random.default_rng([8, seed]))
    gain, true = study.judged.gains[0], study.true[study.confirmation.cell]
    return [gain.low <= true <= gain.high, study.judged.shown, study.judged.shown and true <= 0, gain.draws]


def check_confirmations(repeats: int, pool: ProcessPoolExecutor) -> Iterable[Row]:
    """Coverage and power of confirmations alone, of which more repeats can be made than of studies."""
    for budget, world, grid in product(BUDGETS, STUDY_WORLDS, ("null", "all good")):
        if budget.name == "large" and world != STUDY_WORLDS[0]:
            continue
        hits = run_repeats(partial(judge_confirmed, GRIDS[grid], budget, world), repeats, pool)
        what = f"{budget.name}; {grid}; {str(world).partition('draws, ')[2]}"
        yield rate("confirmation covers", what, hits[:, 0], "0.93 to 0.97", lambda p: 0.93 <= p <= 0.97)
        if grid == "null":
            yield rate("false use", what, hits[:, 2], "at most 0.025", lambda p: p <= 0.025)
        else:
            asked = budget.name == "demo" and world in STUDY_WORLDS[:2]
            yield rate("use", what, hits[:, 1], "at least 0.7" if asked else "", partial(le, 0.7) if asked else None)
            yield mean("confirmation", what, hits[:, 3], unit=" draws")


def judge_study(truth: np.ndarray, budget: Budget, world: World, seed: int) -> Sequence[float]:
    """Use, do not use, the winner is ruled out, each with whether that is false; coverage, false harm, harm found;
    draws of the confirmation.
    """
    found = run_study(truth, budget, world, np.random.default_rng([6, seed]))
    verdict, best, gain = found.verdict, found.best, found.verdict.gains[0]
    wrong = any(truth[GRID.index(cell)] >= 0 for cell in verdict.harmful)
    nothing = verdict.decision == "do-not-use"
    return [
        verdict.decision == "use", verdict.decision == "use" and best <= 0, nothing,
        nothing and found.highest > POINT, verdict.ruled_out, verdict.ruled_out and best > POINT,
        gain.low <= best <= gain.high, wrong, len(verdict.harmful) / 12, gain.draws,
    ]  # fmt: skip


def judge_lean(budget: Budget, seed: int) -> Sequence[float]:
    """Probability of the lean, whether its blend helps, its expected and true gain; regret of it, and of the mean."""
    rng = np.random.default_rng([7, seed])
    levels, cells = rng.uniform(0, 3, 2)
    truth = rng.normal(0, 2) + rng.normal(0, levels, 4).repeat(3) + rng.normal(0, cells / 2, 12)
    found = run_study(truth, budget, World(0, 0, rng.uniform(0.7, 3), pool=3), rng)
    lean = found.verdict.lean
    assert lean is not None
    regrets = [
        found.highest - (found.lean if lean.gain > 0 else 0.0),
        found.highest - (found.best if found.apparent > 0 else 0.0),
        found.highest - (found.best if found.verdict.decision == "use" else 0.0),
    ]
    return [lean.probability, found.lean > 0, lean.gain, found.lean, *regrets]


STUDY_WORLDS = (
    World(0, 0, 1.0, pool=3), World(0, 0, 2.0, pool=3), World(0, 0, 1.4, tails=3.0, pool=3),
    World(0, 0, 1.4, unequal=3.0, pool=3), World(0, 0, 1.4, group=10, pool=3),
)  # fmt: skip


def check_studies(repeats: int, pool: ProcessPoolExecutor) -> Iterable[Row]:
    """What studies of three budgets decide."""
    for budget in BUDGETS:
        for world in STUDY_WORLDS if budget.name == "demo" else STUDY_WORLDS[:1]:
            name = str(world).partition("draws, ")[2]
            for grid, truth in GRIDS.items():
                times = repeats if budget.items < 1000 else max(20, repeats // 3)
                hits = run_repeats(partial(judge_study, truth, budget, world), times, pool)
                what = f"{budget.name}; {grid}; {name}"
                aim = 0.7 if (budget.name, grid) == ("demo", "all good") and world in STUDY_WORLDS[:2] else None
                bar = partial(le, aim) if aim is not None else None
                yield rate("use", what, hits[:, 0], f"at least {aim}" if aim is not None else "", bar)
                yield rate("false use", what, hits[:, 1], "at most 0.025", lambda p: p <= 0.025)
                yield rate("do not use", what, hits[:, 2])
                yield rate("false do not use", what, hits[:, 3], "at most 0.05", lambda p: p <= 0.05)
                yield rate("chosen blend not worth it", what, hits[:, 4])
                yield rate("falsely not worth it", what, hits[:, 5], "at most 0.05", lambda p: p <= 0.05)
                covers = "0.93 to 0.97"
                yield rate("confirmation covers", what, hits[:, 6], covers, lambda p: 0.93 <= p <= 0.97)
                yield rate("false harm", what, hits[:, 7], "at most 0.05", lambda p: p <= 0.05)
                yield mean("confirmation", what, hits[:, 9], unit=" draws")


def check_lean(repeats: int, pool: ProcessPoolExecutor) -> Iterable[Row]:
    """Whether leans are right as often as they say, over truths of many kinds."""
    for budget in BUDGETS:
        times = repeats if budget.items < 1000 else max(20, repeats // 3)
        found = run_repeats(partial(judge_lean, budget), times, pool)
        chance, helps = found[:, 0], found[:, 1] > 0
        sure, right = np.maximum(chance, 1 - chance), np.where(chance >= 0.5, helps, ~helps)
        for low, high in ((0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 0.97), (0.97, 1.01)):
            inside = (sure >= low) & (sure < high)
            if inside.any():
                what = f"{budget.name}; leans of {low:.0%} to {min(high, 1):.0%}, {inside.sum()} of {times} studies"
                bar = (low, high) == (0.8, 0.9)
                target = "0.75 to 0.95" if bar else ""
                yield rate("lean is right", what, right[inside], target, (lambda p: 0.75 <= p <= 0.95) if bar else None)
        bias = found[:, 2] - found[:, 3]
        yield mean("lean", f"{budget.name}; expected less true gain", bias, "within 0.5", lambda v: abs(v) <= 0.5)
        for k, policy in ((4, "the lean"), (5, "highest mean on validation"), (6, "a blend only where shown")):
            yield mean("regret", f"{budget.name}; {policy}", found[:, k])


# --- the winner of many equal cells -----------------------------------------------------------------------
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
ITEMS = 1000


def answer(cell: Cell, part: str, rng: np.random.Generator, ease: np.ndarray) -> list[Trial]:
    """Five generation draws of a cell: items differ in ease, to every cell in its own way, and draws differ."""
    ease = ease + rng.normal(0, 0.3, ease.size)
    where: Literal["validation", "test"] = "test" if part == "test" else "validation"
    composition = Composition(
        share=cell.share if cell.kind == "blend" else 0.0, real_rows=20, synthetic_rows=20, unique_rows=40,
        most_repeats=1, label_counts={},
    )  # fmt: skip
    trials = []
    for g in range(5):
        correct = ease + rng.normal(0, 0.3, ease.size) + rng.normal(0, 0.02) > -0.6
        scores = Scores(
            n=ease.size, values={"accuracy": Estimate(value=float(correct.mean()), n=ease.size)}, correct=correct
        )
        draw = Draw(generation=g, sampling=0, training=0)
        trials.append(Trial(cell=cell, draw=draw, composition=composition, steps=1, part=where, scores=scores))
    return trials


def choose_and_confirm(seed: int) -> Sequence[float]:
    """Gains over real-only of the best of 25 equal cells: apparent, confirmed."""
    rng = np.random.default_rng([4, seed])
    blends = [
        Cell(kind="blend", dial="topics", level=level, share=share, rows_per_label=4)
        for level in LEVELS
        for share in SHARES
    ]
    real = Cell(kind="real-only", rows_per_label=4)
    ease = rng.normal(0, 1, ITEMS)
    trials = [t for cell in (*blends, real) for t in answer(cell, "validation", rng, ease)]
    advice = recommend_mixture(trials, level_ranks={"topics": LEVELS})
    assert advice.best is not None
    ease = rng.normal(0, 1, ITEMS)
    fresh = [t for cell in (advice.best.cell, real) for t in answer(cell, "test", rng, ease)]
    confirmed = confirm_cell(fresh, advice.best.cell, fresh_draws=True).gains[0].value
    return [advice.best.gains[0].value, confirmed]


def check_selection(repeats: int, pool: ProcessPoolExecutor) -> Iterable[Row]:
    """Bias of the winner's gain; the truth is 0."""
    gains = run_repeats(choose_and_confirm, repeats, pool)
    yield mean("selection", "apparent gain of the best of 25 equal cells", gains[:, 0])
    what = "the same, confirmed on fresh draws and items"
    yield mean("selection", what, gains[:, 1], "within 0.1", lambda v: abs(v) <= 0.1)


# --- search -----------------------------------------------------------------------------------------------
SURFACES = ("hump", "ridge", "saturating", "rough", "no structure")
"""Surfaces on which cells tell of their neighbours; the others are there to show what it costs where they do not."""


def draw_surface(kind: str, rng: np.random.Generator) -> np.ndarray:
    """True gains in points, shape (5 levels, 5 shares)."""
    x, s = np.meshgrid((DIVERSITY - DIVERSITY[0]) / np.ptp(DIVERSITY), np.linspace(0, 1, 5), indexing="ij")
    if kind == "hump":
        a, b = rng.uniform(0.2, 0.8, 2)
        return np.asarray(3 - 6 * (x - a) ** 2 - 4 * (s - b) ** 2)
    if kind == "ridge":
        return np.asarray(3 - 8 * (x - rng.uniform(0.2, 0.8) - 0.3 * (s - 0.5)) ** 2)
    if kind == "saturating":
        return np.asarray(3 * (1 - np.exp(-3 * x)) - rng.uniform(0.5, 2.5) * s)
    if kind == "rough":
        apart = (x.ravel()[:, None] - x.ravel()) ** 2 + (s.ravel()[:, None] - s.ravel()) ** 2
        covariance = np.exp(-apart / (2 * 0.3**2)) + 1e-9 * np.eye(25)
        return rng.multivariate_normal(np.zeros(25), covariance).reshape(5, 5)
    return rng.normal(0, 1, (5, 5))  # "no structure": every cell by itself


def search_blend(search: AdaptiveSearch, truth: np.ndarray, noise: np.ndarray) -> tuple[int, int]:
    """Level and share that a search chooses; ``noise`` has shape (levels, shares, draws)."""
    while batch := search.ask():
        for trial in batch:
            value = 0.7
            if trial.cell.kind == "blend":
                i, j = LEVELS.index(trial.cell.level or ""), SHARES.index(trial.cell.share)
                value += POINT * float(truth[i, j] + noise[i, j, trial.draw.generation])
            search.tell(trial, value)
    best = search.best()
    assert best is not None
    return LEVELS.index(best.level or ""), SHARES.index(best.share)


def race(kind: str, seed: int) -> Sequence[float]:
    """Points that the choice of the full grid, and that of the adaptive search, lie below the best cell."""
    rng = np.random.default_rng([5, seed])
    truth = draw_surface(kind, rng)
    noise = rng.normal(0, np.sqrt(0.5), (5, 5, 5)) + rng.normal(0, 0.5, 5)
    levels = [Level(dial="topics", name=name, rank=k) for k, name in enumerate(LEVELS)]
    amounts, draws = [(share, False) for share in SHARES], list_draws(range(5), [0], 1)
    like = Cell(kind="real-only", rows_per_label=4)
    planned = plan_grid(dict.fromkeys(levels, amounts), dict.fromkeys(levels, draws), like=like, base_share=0.5)
    measured: Mapping[str, float] = {f"topics={n}": float(v) for n, v in zip(LEVELS, DIVERSITY, strict=True)}
    search = AdaptiveSearch(planned, diversity=measured, shape_share=0.5, budget=0.4, batch=5)
    highest = np.unravel_index(int((truth + noise.mean(axis=2)).argmax()), truth.shape)
    return [POINT * float(truth.max() - truth[chosen]) for chosen in (highest, search_blend(search, truth, noise))]


def check_search(repeats: int, pool: ProcessPoolExecutor) -> Iterable[Row]:
    """Regret of the adaptive search with 50 blend trials against the grid's with all 125."""
    for kind in SURFACES:
        regrets = run_repeats(partial(race, kind), repeats, pool)
        yield mean("regret", f"{kind}: grid, 125 blend trials", regrets[:, 0])
        yield mean("regret", f"{kind}: adaptive search, 50 blend trials", regrets[:, 1])
        more = regrets[:, 1] - regrets[:, 0]
        yield mean("regret", f"{kind}: adaptive search less grid", more, "at most 0", lambda v: v <= 0)


PARTS: dict[str, Callable[[int, ProcessPoolExecutor], Iterable[Row]]] = {
    "shapes": check_shapes,
    "power": check_power,
    "coverage": check_coverage,
    "choices": check_choices,
    "confirmations": check_confirmations,
    "studies": check_studies,
    "lean": check_lean,
    "selection": check_selection,
    "search": check_search,
}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="exit with 1 where a target is missed")
    options = parser.parse_args()
    print("| part | truth | result [95%] | target | met |\n|---|---|---|---|---|")
    missed = 0
    with ProcessPoolExecutor(options.jobs, initializer=threadpool_limits, initargs=(1,)) as pool:
        for name in options.only:
            for row in PARTS[name](options.repeats, pool):
                missed += row.met is False
                print(row, flush=True)
    print(f"\n{options.repeats} repeats; targets missed: {missed}")
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
