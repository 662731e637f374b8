"""A study in parts: what it made or, where it is cross-fitted, what each fold made, and the numbers of all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cuvee.generate.composition import count_rejected
from cuvee.records import Measurement
from cuvee.study.setup import Pools, Study


@dataclass(frozen=True, slots=True, kw_only=True)
class MadePart:
    """What a study made; of a cross-fitted one, what one fold made."""

    study: Study
    pools: Pools
    measurements: Mapping[str, Measurement]


def _name_parts(parts: Sequence[MadePart]) -> list[str]:
    """What stands before a line of each part; nothing where there is one."""
    return [""] if len(parts) == 1 else [f"fold {number}, " for number in range(1, len(parts) + 1)]


def write_by_fold(counts: Sequence[int]) -> str:
    """A number of each part in words: ``40 in each of 3 folds``."""
    if len(counts) == 1:
        return str(counts[0])
    if len(set(counts)) == 1:
        return f"{counts[0]} in each of {len(counts)} folds"
    return f"{', '.join(map(str, counts))} in folds 1 to {len(counts)}"


def count_held_out(parts: Sequence[MadePart]) -> dict[str, str]:
    """Name -> rows that only the confirmation reads."""
    folds = parts[0].study.config.split.crossfit
    rows = [len(part.study.split.test) for part in parts]
    if folds is None:
        return {"locked test rows": str(rows[0])}
    if len(parts) == 1:  # the folder of one fold, opened for itself
        return {"rows held out": f"all, in {folds} folds ({rows[0]} here)"}
    return {"rows held out": f"all {sum(rows)}: {write_by_fold(rows)}"}


def sum_rejected(parts: Sequence[MadePart]) -> dict[str, Counter[str]]:
    """Level -> how many of its answers were rejected for each reason, in all parts; levels share answers."""
    found: dict[str, Counter[str]] = {}
    for part in parts:
        for level, pool in part.pools.items():
            found.setdefault(level.key, Counter()).update(count_rejected(pool.rejected))
    return found


def list_notes(parts: Sequence[MadePart]) -> dict[str, str]:
    """Level -> remarks on its pool, each with its fold."""
    found: dict[str, list[str]] = {}
    for name, part in zip(_name_parts(parts), parts, strict=True):
        for level, pool in part.pools.items():
            if pool.note:
                found.setdefault(level.key, []).append(f"{name}{pool.note}")
    return {key: "; ".join(notes) for key, notes in found.items()}


def list_reads(parts: Sequence[MadePart]) -> tuple[str, ...]:
    """Every logged read of held-out rows, each with its fold."""
    return tuple(
        f"{name}{reason}: {detail}"
        for name, part in zip(_name_parts(parts), parts, strict=True)
        for reason, detail in part.study.folder.access_log()
    )
