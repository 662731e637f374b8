"""Real data sets with pools, and every trial that a study of them could run: what ``advice.py`` replays.

A *world* is a data set, a number of real rows a label, and one draw of them. In it every pool is tried at every amount,
up to all of it, with 30 random subsamples, and the answer to each held-out item is kept as a bit. The mean over
subsamples and held-out items is the truth, without error: a replayed study draws its subsamples and items from these
with replacement, so they are the whole population that it can know of.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from cuvee.corpus import normalise_text
from cuvee.probe import choose_l2, fit_probe
from cuvee.records import UNORDERED, Cell
from cuvee.similarity import spectrum, vendi_score
from recorded_grids import read_rows

AMOUNTS = 1.0, 3.0, 10.0, 30.0
"""Synthetic rows for each real one; all of a pool is one more."""
SUBSAMPLES = 30
NEARLY = 0.9
"""An amount above this part of a pool is not told apart from all of it, as in a study."""
TOGETHER = "together"
EQUAL = 400
"""Rows of each pool that its diversity is measured on."""

Encode = Callable[[Sequence[str]], np.ndarray]
Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Plan:
    """Where the rows of a data set come from, each file named as ``folder/file``.

    Attributes:
        real: real rows are drawn from these, at most ``real_rows`` of each label.
        held_out: the items, at most ``items`` of them.
        pool: all synthetic rows.
        rows_per_label: real rows that every label has.
        paraphrases: how many rows of each source text a pool keeps; by default pools are the generators and methods.
        of_real: pools are paraphrases of the real rows at hand, and of no others: the three nearest to each of them,
            the next three, and the three farthest.
        wrong: the part of each pool's labels that is made wrong: each becomes the next label.
        rows: of each pool at most.
        worlds: draws of real rows for each number of them.
    """

    real: str
    held_out: tuple[str, ...]
    pool: str
    rows_per_label: tuple[int, ...]
    paraphrases: tuple[int, ...] = ()
    of_real: bool = False
    wrong: tuple[float, ...] = ()
    rows: int = 1200
    items: int = 3000
    real_rows: int = 60
    worlds: int = 5


_STACKOVERFLOW = Plan(
    real="gptaug_stackoverflow/train",
    held_out=("gptaug_stackoverflow/dev", "gptaug_stackoverflow/test"),
    pool="gptaug_stackoverflow/synthetic",
    paraphrases=(10, 3, 1),
    rows_per_label=(1, 3, 10, 30),
    rows=2000,
    items=4500,
)
_SENTIMENT = Plan(
    real="workergpt_sentiment/train",
    held_out=("workergpt_sentiment/test",),
    pool="workergpt_sentiment/synthetic",
    rows_per_label=(1, 3, 10, 30),
    real_rows=78,
)
PLANS: dict[str, Plan] = {
    "gptaug_stackoverflow": _STACKOVERFLOW,
    "workergpt_sentiment": _SENTIMENT,
    "workergpt_tendim": Plan(
        real="workergpt_tendim/train",
        held_out=("workergpt_tendim/test",),
        pool="workergpt_tendim/synthetic",
        rows_per_label=(1, 3),
        worlds=4,
    ),
    "gptaug_banking": Plan(
        real="banking77/train",
        held_out=("gptaug_banking/test",),
        pool="gptaug_banking/synthetic",
        paraphrases=(10, 4, 2),
        rows_per_label=(1, 3, 10, 30),
        real_rows=35,
        worlds=2,
    ),
    "gptaug_stackoverflow, own paraphrases": replace(
        _STACKOVERFLOW, of_real=True, paraphrases=(), real_rows=35, worlds=3
    ),
    "gptaug_banking, own paraphrases": Plan(
        real="gptaug_banking/train",
        held_out=("gptaug_banking/test",),
        pool="gptaug_banking/synthetic",
        of_real=True,
        rows_per_label=(1, 3),
        real_rows=6,
        worlds=3,
    ),
    "gptaug_stackoverflow, wrong labels": replace(_STACKOVERFLOW, wrong=(0.3, 0.45, 0.6)),
    "workergpt_sentiment, wrong labels": replace(_SENTIMENT, wrong=(0.3, 0.4, 0.5, 0.6), worlds=2),
    **{
        f"{name}_embedded": Plan(
            real=f"{name}_embedded/train",
            held_out=(f"{name}_embedded/held_out",),
            pool=f"{name}_embedded/synthetic",
            rows_per_label=(1, 3, 10, 30),
            real_rows=40,
            worlds=2,
        )
        for name in ("bbc_headlines", "clinc_banking15", "snips")  # made by advice_pools.py
    },
}


@dataclass(frozen=True)
class Part:
    """Rows as vectors, shape (n, d), and label codes, shape (n,)."""

    vectors: np.ndarray
    labels: np.ndarray

    def take(self, rows: np.ndarray) -> Part:
        """These rows."""
        return Part(self.vectors[rows], self.labels[rows])


@dataclass(frozen=True)
class DataSet:
    """A data set, embedded.

    Attributes:
        pools: by level, all of them together not among them.
        families: where pools are paraphrases of the real rows at hand: level -> rows of the pool of each real row,
            shape (real rows, paraphrases).
    """

    name: str
    labels: tuple[str, ...]
    real: Part
    items: Part
    pools: dict[str, Part]
    families: dict[str, np.ndarray]

    def make_pools(self, real: np.ndarray) -> dict[str, Part]:
        """The pools of these real rows."""
        if not self.families:
            return self.pools
        return {level: self.pools[level].take(self.families[level][real].ravel()) for level in self.pools}


def measure_diversity(pools: dict[str, Part]) -> dict[str, float]:
    """Vendi score of as many rows of each pool."""
    rng = np.random.default_rng(0)
    most = min(EQUAL, *(len(pool.labels) for pool in pools.values()))
    return {
        level: vendi_score(spectrum(pool.vectors[rng.choice(len(pool.labels), most, replace=False)]))
        for level, pool in pools.items()
    }


def load_set(plan: Plan, name: str, data: Path, encode: Encode) -> DataSet:
    """Read and embed a data set."""
    rng = np.random.default_rng(0)
    synthetic = read_rows(*split_path(data, plan.pool))
    pools = {} if plan.of_real else cut_pools(plan, synthetic, rng)
    by_label: dict[str, Rows] = defaultdict(list)
    numbered = enumerate(read_rows(*split_path(data, plan.real)))
    for row in shuffle([{**row, "number": str(i)} for i, row in numbered], rng):
        by_label[row["label"]].append(row)
    real = [row for _, rows in sorted(by_label.items()) for row in rows[: plan.real_rows]]
    pools = group_by_source(synthetic, real) if plan.of_real else pools
    taken = {normalise_text(row["text"]) for rows in (real, *pools.values()) for row in rows}
    held_out = [row for file in plan.held_out for row in read_rows(*split_path(data, file))]
    items = [row for row in shuffle(held_out, rng) if normalise_text(row["text"]) not in taken][: plan.items]
    labels = tuple(sorted(by_label))

    def embed(rows: Rows) -> Part:
        return Part(encode([row["text"] for row in rows]), np.array([labels.index(row["label"]) for row in rows]))

    parts = {level: embed(rows) for level, rows in pools.items()}
    if plan.wrong:
        rates = dict(zip(parts, plan.wrong, strict=True))
        parts = {
            f"{level}, {100 * rates[level]:.0f}% wrong": Part(
                pool.vectors, (pool.labels + (rng.random(len(pool.labels)) < rates[level])) % len(labels)
            )
            for level, pool in parts.items()
        }
    seeds, families = embed(real), {}
    if plan.of_real:
        whole = parts["paraphrases"]
        rows = np.arange(len(whole.labels)).reshape(len(real), -1)
        near = np.einsum("nd,npd->np", seeds.vectors, whole.vectors[rows]).argsort(axis=1)[:, ::-1]
        ordered = np.take_along_axis(rows, near, axis=1)
        families = {"near": ordered[:, :3], "middle": ordered[:, 3:6], "far": ordered[:, -3:]}
        parts = dict.fromkeys(families, whole)
    return DataSet(name, labels, seeds, embed(items), parts, families)


def group_by_source(rows: Rows, real: Rows) -> dict[str, Rows]:
    """The paraphrases of each real row, one family after another, all families of one size.

    Families stand in the order of the real rows that they were made from.
    """
    families: dict[str, Rows] = {}
    for row in rows:
        families.setdefault(row["origin"], []).append(row)
    ordered = list(families.values())
    chosen = [ordered[int(row["number"])] for row in real]
    size = min(map(len, ordered))
    return {"paraphrases": [row for family in chosen for row in family[:size]]}


def split_path(data: Path, name: str) -> tuple[Path, str]:
    """Folder and file of ``folder/file``."""
    folder, _, file = name.partition("/")
    return data / folder, file


def shuffle(rows: Rows, rng: np.random.Generator) -> Rows:
    """The rows in random order."""
    return [rows[i] for i in rng.permutation(len(rows))]


def cut_pools(plan: Plan, rows: Rows, rng: np.random.Generator) -> dict[str, Rows]:
    """The pools of a data set, each text once in each.

    With ``paraphrases`` all pools have the same number of rows: few source texts with many paraphrases each, or more
    with fewer, in each label the same part of its source texts. Those of a pool are among those of the next.
    """
    pools: dict[str, Rows] = {}
    if not plan.paraphrases:
        for row in shuffle(rows, rng):
            pools.setdefault(f"{row['generator']} {row['method']}", []).append(row)
    else:
        families: dict[tuple[str, str], Rows] = defaultdict(list)
        for row in rows:
            families[row["label"], row["origin"]].append(row)
        sources: dict[str, list[Rows]] = defaultdict(list)
        for (label, _), family in families.items():
            sources[label].append(family)
        sources = {label: [own[i] for i in rng.permutation(len(own))] for label, own in sources.items()}
        for each in plan.paraphrases:
            part = plan.rows / each / len(families)
            chosen = [family for own in sources.values() for family in own[: max(1, round(part * len(own)))]]
            pools[f"{each} of a source"] = shuffle([row for family in chosen for row in family[:each]], rng)
    return {
        level: list({normalise_text(row["text"]): row for row in pools[level]}.values())[: plan.rows]
        for level in sorted(pools)
    }


@dataclass(frozen=True)
class World:
    """Every trial of one data set with one draw of real rows.

    Attributes:
        cells: that were tried; each has its rows in ``answers``.
        answers: of a cell, shape (subsamples, items), bool; one row where no subsample differs from another.
        diversity: of each pool.
    """

    name: str
    rows_per_label: int
    number: int
    answers: dict[Cell, np.ndarray]
    diversity: dict[str, float]

    @cached_property
    def truth(self) -> dict[Cell, float]:
        """The mean accuracy of each cell."""
        return {cell: float(answers.mean()) for cell, answers in self.answers.items()}

    @property
    def real(self) -> Cell:
        """The real rows alone."""
        return next(cell for cell in self.answers if cell.kind == "real-only")

    def only(self, level: str) -> World:
        """The world of a study that has this pool alone."""
        answers = {cell: own for cell, own in self.answers.items() if cell.level in (None, level)}
        return replace(self, answers=answers, diversity={level: self.diversity[level]})

    @property
    def blends(self) -> list[Cell]:
        """The cells that can be advised."""
        return [cell for cell in self.answers if cell.kind == "blend"]


def record_world(data: DataSet, rows_per_label: int, number: int, *, subsamples: int = SUBSAMPLES) -> World:
    """Train every cell of a world.

    The rows of a smaller amount are among those of a larger one in the same subsample. A label that the pool is short
    of has what there is.
    """
    rng = np.random.default_rng([11, rows_per_label, number])
    chosen = take_each(data.real.labels, rows_per_label, rng)
    real, pools = data.real.take(chosen), data.make_pools(chosen)
    every = list(pools.values())
    levels = pools | {
        TOGETHER: Part(np.concatenate([p.vectors for p in every]), np.concatenate([p.labels for p in every]))
    }
    names = [data.labels[i] for i in real.labels]
    l2 = choose_l2(real.vectors, names)
    size = len(names)

    def answer(part: Part | None, weight: float = 1.0) -> np.ndarray:
        rows = real if part is None else Part(
            np.concatenate([real.vectors, part.vectors]), np.concatenate([real.labels, part.labels])
        )  # fmt: skip
        targets = [data.labels[i] for i in rows.labels]
        weights = np.full(len(targets), weight)
        model = fit_probe(rows.vectors, targets, labels=data.labels, row_weights=weights, l2=l2)
        found = (data.items.vectors @ model.weights + model.bias).argmax(axis=1)
        return np.asarray(found == data.items.labels)

    base = Cell(kind="real-only", rows_per_label=rows_per_label, scope="this pool")
    answers = {base: answer(None)[None]}
    for level, pool in levels.items():
        orders = [rng.permutation(len(pool.labels)) for _ in range(subsamples)]
        held = len(pool.labels) / size
        for amount in (*(a for a in AMOUNTS if a <= NEARLY * held), held):
            whole = amount == held
            share = amount / (1.0 + amount)
            blend = replace(base, kind="blend", dial=UNORDERED, level=level, share=share, whole=whole)
            subsets = [np.arange(len(pool.labels))]
            if not whole:
                subsets = [take_each(pool.labels, round(amount * rows_per_label), order) for order in orders]
            answers[blend] = np.stack([answer(pool.take(rows)) for rows in subsets])
            repeated = replace(base, kind="real-duplicated", share=share)
            if repeated not in answers:
                answers[repeated] = answer(None, 1.0 + amount)[None]
    return World(data.name, rows_per_label, number, answers, measure_diversity(pools))


def take_each(labels: np.ndarray, count: int, order: np.random.Generator | np.ndarray) -> np.ndarray:
    """The first ``count`` rows of each label, in a random or a given order."""
    rows = order.permutation(len(labels)) if isinstance(order, np.random.Generator) else order
    return np.concatenate([rows[labels[rows] == label][:count] for label in np.unique(labels)])


# --- files --------------------------------------------------------------------------------------------
def save_world(world: World, path: Path) -> None:
    """Write a world, its answers as bits."""
    cells = [
        [c.kind, c.level, c.share, c.whole, len(answers)] for c, answers in world.answers.items()
    ]  # fmt: skip
    about = {
        "name": world.name, "rows_per_label": world.rows_per_label, "number": world.number, "cells": cells,
        "diversity": world.diversity, "items": next(iter(world.answers.values())).shape[1],
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    bits = np.packbits(np.concatenate(list(world.answers.values())), axis=1)
    temporary = path.with_suffix(".new.npz")
    np.savez_compressed(temporary, about=np.array(json.dumps(about)), bits=bits)
    temporary.rename(path)


def load_world(path: Path) -> World:
    """Read a world."""
    with np.load(path) as file:
        about, bits = json.loads(str(file["about"])), file["bits"]
    answers, start = {}, 0
    for kind, level, share, whole, count in about["cells"]:
        dial = UNORDERED if kind == "blend" else None
        cell = Cell(
            kind=kind, dial=dial, level=level, share=share, whole=whole,
            rows_per_label=about["rows_per_label"], scope="this pool",
        )  # fmt: skip
        answers[cell] = np.unpackbits(bits[start : start + count], axis=1, count=about["items"]).astype(bool)
        start += count
    return World(about["name"], about["rows_per_label"], about["number"], answers, about["diversity"])
