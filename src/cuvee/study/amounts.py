"""How much of each pool cells take: the amounts that are asked for, as far as the pool goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.config.generators import list_levels
from cuvee.config.sections import amount_of, read_amount, share_of
from cuvee.corpus import Corpus, count_strata
from cuvee.errors import InputError
from cuvee.fingerprint import derive_seed
from cuvee.mix import Needed, first_rows, share_counts
from cuvee.records import Level
from cuvee.study.prepare import FRESH, Pools, Study

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


def count_rows(pools: Pools, usable: Mapping[Level, Sequence[int]]) -> dict[Level, LevelRows]:
    """What the levels that take part have."""
    return {
        level: LevelRows(blocks=b, labels=count_strata(rows_at_hand(pools[level].corpus)))
        for level, b in usable.items()
    }


def list_shares(study: Study, rows_per_label: int) -> list[float | None]:
    """The shares that are asked for, above 0 and ascending; None, at the end, is every row of a pool."""
    asked = study.config.mix.list_amounts(ready_made=study.ready_made)
    amounts = [read_amount(amount, rows_per_label) for amount in asked]
    shares = sorted({share_of(amount) for amount in amounts if amount})
    return [*shares, *([None] if None in amounts else [])]


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
        raise InputError(
            f"{where}: {has.rows} rows are left after the filters, too few for mix.shares with {real} real rows; lower "
            "them, or give more rows"
        )
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
            counts = share_counts(study.strata_counts(rows), shares[-1][0], regime=study.config.mix.regime)
            most |= Counter({label: synthetic for label, (_, synthetic) in counts.items()})
        for number in samplings:
            needed[first_rows(corpus, most, derive_seed(study.config.seed, "sampling", 0, number))] = True
        return needed

    return tell


def tell_short_labels(study: Study, level: Level, has: LevelRows) -> str:
    """Which labels of a file have no rows, or fewer than its largest amount in numbers asks; empty where none has."""
    if not study.ready_made or study.config.task != "classification":
        return ""
    shares = [share for share, whole in find_amounts(study, level, has, study.rows_per_label).pool if not whole]
    counts = share_counts(study.strata_counts(), max(shares, default=0.0), regime=study.config.mix.regime)
    wanted = {label: rows for label, (_, rows) in counts.items() if has.labels.get(label, 0) < max(1, rows)}
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
        study.stages.listener.noted(short)
    if study.config.mix.amounts is None and study.config.mix.shares is None:
        return
    for level, has in levels.items():
        found = find_amounts(study, level, has, study.rows_per_label)
        if found.left_out:
            share, whole = found.pool[-1] if found.pool else (0.0, False)
            stands = f"; all of it, {amount_of(share):.3g}x, stands for them" if whole else ""
            study.stages.listener.noted(
                f"{level.key} holds {has.rows} rows, so {', '.join(found.left_out)} are left out{stands}"
            )
