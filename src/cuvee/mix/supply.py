"""Whether there are rows enough for a blend, and how much is possible where there are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cuvee.errors import InputError
from cuvee.mix.shares import apportion_rows, largest_share, share_counts
from cuvee.records import Kind, Regime


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a blend asks for and what there is.

    Attributes:
        counts: stratum -> (real rows, synthetic rows) asked for.
        real, pool: stratum -> rows there are.
        share, regime, kind, total_rows, per_label: as ``mix_corpora`` was told.
    """

    counts: Mapping[str, tuple[int, int]]
    real: Mapping[str, int]
    pool: Mapping[str, int]
    share: float
    regime: Regime
    kind: Kind
    total_rows: int | None
    per_label: int | None

    def fits(self, counts: Mapping[str, tuple[int, int]]) -> bool:
        """Whether there are rows enough for ``counts``."""
        return all(r <= self.real[k] and s <= self.pool.get(k, 0) for k, (r, s) in counts.items())


def refuse_shortage(demand: Demand) -> None:
    """Say which rows are too few, and the largest that is possible without repeats.

    Raises:
        InputError: there are too few.
    """
    if demand.kind in ("real-only", "real-duplicated"):
        return
    for label, (real, synthetic) in demand.counts.items():
        where = f"label {label!r}: " if label else ""
        have = demand.pool.get(label, 0)
        if synthetic > have:
            raise InputError(
                f"{where}{synthetic} synthetic rows were asked, the pool has {have}; "
                f"{_possible(demand)}; lower it, generate more, or allow repeats"
            )
        if real > demand.real[label]:
            raise InputError(
                f"{where}{real} real rows were asked, there are {demand.real[label]}; "
                f"{_possible_total(demand)}; lower total_rows, raise the share, or allow repeats"
            )


def _possible(demand: Demand) -> str:
    """The largest that the pool allows of what was asked: rows of each label, share or total."""
    if demand.per_label is not None:
        most = min(demand.pool.get(label, 0) for label in demand.real)
        return f"the most is {most}" if "" in demand.real else f"the most that every label has is {most} a label"
    if demand.total_rows is not None and (demand.kind == "synthetic-only" or demand.share == 1):
        return _possible_total(demand)
    share = largest_share(demand.real, demand.pool, regime=demand.regime, total_rows=demand.total_rows)
    counts = share_counts(demand.real, share, regime=demand.regime, total_rows=demand.total_rows)
    fewer_real = {label: (0, s) for label, (_, s) in counts.items()} if demand.kind == "synthetic-only" else counts
    # with few synthetic rows the rest must be real, and there may be too few of those
    return f"the largest share this pool allows is {share:g}" if demand.fits(fewer_real) else _possible_total(demand)


def _possible_total(demand: Demand) -> str:
    asked = sum(r + s for r, s in demand.counts.values())
    return f"the largest total_rows at this share is {largest_total(demand, asked)}"


def largest_total(demand: Demand, below: int) -> int:
    """The largest number of rows under ``below`` for which there are rows enough at the share asked for."""

    def counts(total: int) -> Mapping[str, tuple[int, int]]:
        if demand.kind == "synthetic-only" or demand.share == 1:
            return {label: (0, rows) for label, rows in apportion_rows(demand.real, total).items()}
        return share_counts(demand.real, demand.share, regime="replace", total_rows=total)

    return _last(lambda total: demand.fits(counts(total)), below, blur=2 * len(demand.real) + 2)


def _last(fits: Callable[[int], bool], below: int, *, blur: int) -> int:
    """The last number under ``below`` that fits, where all fit up to some number but for ``blur`` around it."""
    low, high = 0, below - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    # rounding may give one row of a label back when the total rises: look a little further
    return next((n for n in range(min(below - 1, low + blur), low, -1) if fits(n)), low)
