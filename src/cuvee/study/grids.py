"""What is trained: how much of each pool cells take, as far as it goes, and the grids of cells that are planned."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, product

import numpy as np
from numpy.typing import NDArray

from cuvee.config.dials import DialConfig
from cuvee.config.generators import list_levels
from cuvee.config.sections import COMMAND, amount_of
from cuvee.corpus import Corpus, count_strata
from cuvee.errors import ConfigError, InputError
from cuvee.fingerprint import derive_seed
from cuvee.generate.dials import Dial
from cuvee.mix import Needed, first_rows, share_counts
from cuvee.recommend import DIVERSITY, AdaptiveSearch, PlannedTrial, plan_grid
from cuvee.recommend.cells import row_of
from cuvee.recommend.search import find_slice, list_draws
from cuvee.records import UNORDERED, Cell, Draw, Kind, Level, Measurement, Outcome, Trial
from cuvee.study.prepare import FRESH, Study
from cuvee.train import TASKS, is_deterministic

_NEARLY = 0.9  # an amount above this part of what a pool holds is not told apart from all of it


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelRows:
    """What a level has: the draws of the recipe that it fills, and the rows of its pool in all, by label."""

    blocks: Sequence[int]
    labels: Mapping[str, int]

    @property
    def rows(self) -> int:
        """Of all labels."""
        return sum(self.labels.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelAmounts:
    """What cells of a level take.

    Attributes:
        recipe: shares whose rows one generation draw holds.
        pool: shares of the whole pool, and whether each is every row of it.
        left_out: amounts beyond the pool.
    """

    recipe: tuple[float, ...]
    pool: tuple[tuple[float, bool], ...]
    left_out: tuple[str, ...] = ()


def rows_at_hand(pool: Corpus) -> Corpus:
    """All rows of a pool but those that are kept for the confirmation."""
    fresh = pool.blocks >= FRESH
    return pool.keep(~fresh) if fresh.any() else pool


def count_pool(pool: Corpus, blocks: Sequence[int] = ()) -> LevelRows:
    """What the level of a pool has, which fills these draws."""
    return LevelRows(blocks=blocks, labels=count_strata(rows_at_hand(pool)))


def list_shares(study: Study, rows_per_label: int) -> list[float | None]:
    """The shares that are asked for, above 0 and ascending; None, at the end, is every row of a pool."""
    return study.config.mix.list_shares(rows_per_label, ready_made=study.ready_made)


def find_amounts(study: Study, level: Level, has: LevelRows, rows_per_label: int) -> LevelAmounts:
    """What cells of a level take, with so many real rows a label.

    The scope of the decision is *this pool* for files, and for pools that an LLM writes wherever one generation is too
    small. An amount beyond the pool is left out, and all of it stands for it.

    Raises:
        InputError: the pool holds none of what is asked.
    """
    real, asked = len(study.real_rows(rows_per_label)), list_shares(study, rows_per_label)
    fits = [s for s in asked if s is not None and not study.ready_made and study.fits_a_draw(s, rows_per_label)]
    beyond = [share for share in asked if share is not None and share not in fits]
    augments = study.config.mix.regime == "augment"
    held = has.rows / real
    kept = [s for s in beyond if (amount_of(s) <= _NEARLY * held if augments else s <= held)]
    pool = [(share, False) for share in kept]
    if augments and (None in asked or len(kept) < len(beyond)) and has.rows:
        pool.append((has.rows / (has.rows + real), True))
    if not pool and not fits:
        files = list_levels(study.config.pools).get((level.dial, level.name), ())
        where = " and ".join(str(file.path) for file in files) or f"pool {level.key}"
        raise InputError(f"{where}: {has.rows} rows are too few for {real} real ones; lower mix.shares, or give more")
    beyond_it = [s for s in beyond if amount_of(s) > held * (1.0 + 1e-9)]
    left_out = tuple(f"{amount_of(share):.3g}x" for share in beyond_it)
    return LevelAmounts(recipe=tuple(fits), pool=tuple(pool), left_out=left_out)


def find_needed(study: Study, key: str, samplings: Iterable[int]) -> Needed | None:
    """Which rows of a file's pool these subsamples and the blocks for shapes take; None where it may be all of them.

    Args:
        study: prepared.
        key: of the level.
        samplings: the numbers of the subsamples.
    """
    dial, _, name = key.partition("=")
    level = Level(dial=dial, name=name, rank=0)
    if not study.ready_made or any(None in list_shares(study, rows) for rows in study.row_counts):
        return None
    has_blocks = sum(known == dial for known, _ in list_levels(study.config.pools)) > 1

    def tell(corpus: Corpus) -> NDArray[np.bool_]:
        has = LevelRows(blocks=(), labels=count_strata(corpus))
        needed: NDArray[np.bool_] = (corpus.blocks >= 0) & has_blocks
        most = Counter[str]()
        for rows in study.row_counts if has.rows else ():
            shares = find_amounts(study, level, has, rows).pool
            if any(whole for _, whole in shares):
                return np.ones_like(needed)
            most |= Counter(study.synthetic_rows(shares[-1][0], rows))
        for number in samplings:
            needed[first_rows(corpus, most, derive_seed(study.config.seed, "sampling", 0, number))] = True
        return needed

    return tell


def tell_short_labels(study: Study, level: Level, has: LevelRows) -> str:
    """Which labels of a file have no rows, or fewer than its largest amount in numbers asks; empty where none has."""
    if not study.ready_made or study.config.task != "classification":
        return ""
    shares = [share for share, whole in find_amounts(study, level, has, study.rows_per_label).pool if not whole]
    counts = study.synthetic_rows(max(shares, default=0.0))
    wanted = {label: rows for label, rows in counts.items() if has.labels.get(label, 0) < max(1, rows)}
    if not wanted:
        return ""
    least = min(wanted, key=lambda label: has.labels.get(label, 0))
    asked = f", {amount_of(max(shares)):.3g}x asks {wanted[least]}" if shares else ""
    return (
        f"{level.key} has {'too few' if shares else 'no'} rows of {len(wanted)} of {len(counts)} labels ({least!r}: "
        f"{has.labels.get(least, 0)}{asked}); blends take what there is of them"
    )


def note_amounts(study: Study, levels: Mapping[Level, LevelRows]) -> None:
    """Say which of the amounts that were asked for lie beyond a pool, and which labels it is short of."""
    for short in filter(None, (tell_short_labels(study, level, has) for level, has in levels.items())):
        study.note(short)
    if study.config.mix.amounts is None and study.config.mix.shares is None:
        return
    for level, has in levels.items():
        found = find_amounts(study, level, has, study.rows_per_label)
        if found.left_out:
            share, whole = found.pool[-1] if found.pool else (0.0, False)
            stands = f"; all of it, {amount_of(share):.3g}x, stands for them" if whole else ""
            study.note(f"{level.key} holds {has.rows} rows, so {', '.join(found.left_out)} are left out{stands}")


# --- grids: every level at every share, with the baselines ---
@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGrid:
    """Every level at every share, with the baselines, for one number of real rows, one trainer and one loss.

    ``grids`` share the budget of the search.
    """

    study: Study
    rows_per_label: int
    trainer: str
    loss: str
    grids: int
    planned: tuple[PlannedTrial, ...]

    @property
    def blends(self) -> list[Cell]:
        """The cell of each planned trial of a blend: the baselines are on top."""
        return [item.cell for item in self.planned if item.cell.kind == "blend"]

    def holds(self, cell: Cell) -> bool:
        """Whether a cell is of this grid."""
        return (cell.rows_per_label, cell.trainer, cell.loss) == (self.rows_per_label, self.trainer, self.loss)

    @property
    def budget(self) -> float:
        """The part of its blends that the search may run; a budget in trials is shared out evenly."""
        budget = self.study.config.search.budget
        return budget if budget <= 1 else min(1.0, (budget // self.grids) / len(self.blends))

    def count_allowed(self) -> int:
        """Trials that the search may run, the baselines among them.

        Raises:
            ConfigError: the budget does not pay for the slice of the shape test.
        """
        config, blends = self.study.config, self.blends
        if config.search.kind == "grid":
            return len(self.planned)
        allowed = math.ceil(self.budget * len(blends) - 1e-9)
        of_slice = find_slice(blends, config.mix.shape_share)
        sliced = sum(cell in of_slice for cell in blends)
        if allowed < sliced:
            raise ConfigError(
                f"search.budget {config.search.budget:g} gives {allowed} trials of blends to each of {self.grids} grids"
                f", but the shape test takes {sliced}; raise it to {sliced * self.grids} or more, or lower draws"
            )
        return min(allowed, len(blends)) + len(self.planned) - len(blends)

    def make_search(self, measurements: Mapping[str, Measurement], metric: str = DIVERSITY) -> AdaptiveSearch | None:
        """The adaptive search, nothing asked yet, by one measured diversity; None where all that is planned is run."""
        search, share = self.study.config.search, self.study.config.mix.shape_share
        if search.kind == "grid" or not self.planned:
            return None
        keys = {f"{cell.dial}={cell.level}" for cell in self.blends}
        known = {key: measurements[key].values[metric].value for key in keys}
        return AdaptiveSearch(self.planned, diversity=known, shape_share=share, budget=self.budget, batch=search.batch)

    def find_winner(
        self, measurements: Mapping[str, Measurement], outcomes: Sequence[Outcome], metric: str = DIVERSITY
    ) -> Cell | None:
        """The blend that an adaptive search favours after all these outcomes; None where the highest mean decides."""
        search = self.make_search(measurements, metric)
        if search is None:
            return None
        for outcome in outcomes:
            if self.holds(outcome.cell):
                search.tell(PlannedTrial(cell=outcome.cell, draw=outcome.draw), value_of(outcome))
        return search.best()

    def slice_planned(self, best: Cell) -> list[PlannedTrial]:
        """Trials of the levels at the share of the shape test and of the best cell, with their baselines."""
        share = self.study.config.mix.shape_share

        def is_wanted(cell: Cell) -> bool:
            if cell.kind == "blend":
                return cell.share == share or cell == best
            return cell.kind == "real-only" or (cell.kind == "real-duplicated" and cell.share in (share, best.share))

        return [item for item in self.planned if is_wanted(item.cell)]

    def count_confirmation(self) -> int:
        """Trials of one draw of the winner and its baselines."""
        draws = self.study.draws
        return 3 * (1 if self.study.ready_made else draws.sampling) * draws.trainings(self.trainer, self.loss)

    def count_epochs(self) -> dict[tuple[Kind, float], float]:
        """(kind, share) -> rows of such a cell over its real rows, at the largest number of real rows."""
        study = self.study
        found: dict[tuple[Kind, float], float] = {("real-only", 0.0): 1.0}
        for share in {item.cell.share for item in self.planned}:
            counts = share_counts(study.strata_counts(), share, regime=study.config.mix.regime)
            longer = sum(r + s for r, s in counts.values()) / len(study.train)
            found |= {("blend", share): longer, ("real-duplicated", share): longer}
        return found


def value_of(outcome: Outcome) -> float | None:
    """What a search is told of a trial: its mean score, None where it failed."""
    return float(outcome.scores.per_item.mean()) if isinstance(outcome, Trial) else None


def plan_levels(study: Study, made: Sequence[tuple[DialConfig, Dial]]) -> dict[Level, LevelRows]:
    """What the levels of these dials will have, as far as it is known before there are pools."""
    rows, found = study.block_rows(), dict[Level, LevelRows]()
    for settings, dial in made:
        draws = study.draws_of(settings)
        has = LevelRows(blocks=range(draws), labels={label: count * draws for label, count in rows.items()})
        found |= dict.fromkeys(dial.levels if settings.target is None else dial.levels[:1], has)
    return found


def plan_grids(study: Study, levels: Mapping[Level, LevelRows]) -> tuple[PlannedGrid, ...]:
    """All grids of the study; the first is the main one: the largest number of real rows, the first of trainers and
    losses.

    Args:
        study: prepared.
        levels: those that take part.
    """
    train = study.config.train
    wanted = list(product(train.trainers, train.losses, study.row_counts))
    return tuple(
        PlannedGrid(
            study=study,
            rows_per_label=rows,
            trainer=trainer,
            loss=loss,
            grids=len(wanted),
            planned=_plan_cells(study, levels, Cell(kind="real-only", rows_per_label=rows, trainer=trainer, loss=loss)),
        )
        for trainer, loss, rows in wanted
    )


def _plan_cells(study: Study, levels: Mapping[Level, LevelRows], real: Cell) -> tuple[PlannedTrial, ...]:
    """The cells of the decision beside ``real``, in the scope that each has; of files the slice of the shape test,
    where it can be had.

    A cell whose rows are the same in all draws is trained once, unless folds are to be joined draw by draw.
    """
    trainer, loss, rows = real.trainer, real.loss, real.rows_per_label
    found = {level: find_amounts(study, level, has, rows) for level, has in levels.items()}
    draws, tested, task = study.draws, study.config.mix.shape_share, study.config.task
    training, once = draws.trainings(trainer, loss), study.fold is None and is_deterministic(trainer, loss)
    plan = partial(plan_grid, base_share=tested, is_deterministic=once)

    def pair(blocks: Sequence[int], samplings: int) -> list[Draw]:
        return [choose_real(study, draw) for draw in list_draws(blocks, range(samplings), training)]

    own = {level: pair(has.blocks[: draws.generation], draws.sampling) for level, has in levels.items()}
    every = pair([0], draws.subsamples)
    of_pool = {level: each.pool for level, each in found.items() if each.pool}
    in_pool = replace(real, scope="this pool")
    planned = [*plan(of_pool, dict.fromkeys(of_pool, every), like=in_pool)] if of_pool else []
    if not study.ready_made:
        shares = [(share, False) for share in sorted({share for each in found.values() for share in each.recipe})]
        planned = [*plan(dict.fromkeys(levels, shares), own, like=real), *planned]
    elif ordered := [level for level, has in levels.items() if has.blocks and level.dial != UNORDERED]:
        shares = [(tested, False)]
        slices = plan({level: shares for level in ordered}, {level: own[level] for level in ordered}, like=real)
        planned += [item for item in slices if item.cell.kind == "blend"]
    is_tuned = task != "classification" and trainer in TASKS[task] and trainer != COMMAND
    if is_tuned and (loss, rows) == (study.config.train.losses[0], study.rows_per_label):
        like = replace(in_pool if study.ready_made else real, kind="untuned")
        planned.append(PlannedTrial(cell=like, draw=every[0]))
    return tuple(planned)


def choose_real(study: Study, draw: Draw) -> Draw:
    """The draw with the choice of real rows that goes with it; in the confirmation each draw has one of its own."""
    draws, number = study.real_draws, max(draw.generation, draw.sampling)
    return draw if draws == 1 else replace(draw, real=number if number >= FRESH else number % draws)


def split_draws(grids: Sequence[PlannedGrid]) -> list[list[PlannedTrial]]:
    """The trials of cells that are drawn once, then those of each draw of the others."""
    split = defaultdict[int, list[PlannedTrial]](list, {0: []})
    for cell, own in groupby((item for grid in grids for item in grid.planned), key=lambda item: item.cell):
        rows = defaultdict[int, list[PlannedTrial]](list)
        for item in own:
            rows[row_of(cell, item.draw)].append(item)
        for number, items in enumerate(rows.values(), start=1):
            split[number if len(rows) > 1 else 0].extend(items)
    return [items for _, items in sorted(split.items())]
