"""Blends of real and synthetic rows with exact, realised counts: how many rows of each label a share means, and which.

Counts are nested: with a larger share no label gets fewer synthetic rows, so that a smaller blend's synthetic
rows can be a prefix of a larger one's. Plain largest-remainder rounding breaks this (the Alabama paradox:
one more row in all can take one away from a label), so rows are apportioned by the quota method, which
keeps every label within one row of its exact part *and* never takes a row back. A ready-made pool is cut into
generation draws: disjoint blocks that no source row straddles.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cuvee.characters import to_html
from cuvee.corpus import (
    Corpus,
    Origin,
    count_strata,
    label_strata,
    link_rows,
    normalise_text,
    row_sources,
    split_tokens,
)
from cuvee.errors import InputError
from cuvee.fingerprint import derive_rng, derive_seed, hash_each, scatter
from cuvee.records import Codes, Composition, MixKind, PartCounts, Regime, Shown

_SLACK = 1e-9  # 4 * 0.9 / (1 - 0.9) is 36.00000000000001 in floats


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Blend(Shown):
    """A corpus mixed from real and synthetic rows, and what it holds."""

    corpus: Corpus
    composition: Composition

    def __str__(self) -> str:
        made = self.composition
        lines = [f"Blend of {made}", *([f"  {self.weighing}"] if self.is_weighted else [])]
        width = max((len(label) for label in made.label_counts), default=0)
        lines += [f"  {label:<{width}}  {r:>6} real  {s:>6} synthetic" for label, (r, s) in made.label_counts.items()]
        return "\n".join(lines)

    @property
    def is_weighted(self) -> bool:
        """Whether some row counts for more or less than one."""
        return bool((self.corpus.weights != 1.0).any())

    @property
    def effective_rows(self) -> float:
        """How many rows of equal weight its rows count as (Kish)."""
        weights = self.corpus.weights
        return float(weights.sum() ** 2 / max(float(weights @ weights), 1e-300))

    @property
    def weighing(self) -> str:
        """What the weights of its rows come to, in words."""
        zero = int((self.corpus.weights == 0).sum())
        return f"rows have weights: {zero} weigh 0, all count as {self.effective_rows:.0f} of equal weight"

    def _repr_html_(self) -> str:
        return f"<pre>{to_html(str(self))}</pre>{self.corpus._repr_html_()}"


def mix_corpora(
    real: Corpus,
    synthetic: Corpus | None = None,
    *,
    share: float | None = None,
    amount: float | Literal["all"] | None = None,
    regime: Regime = "augment",
    seed: int,
    kind: MixKind = "blend",
    allow_repeats: bool = False,
    allow_fewer: bool = False,
) -> Blend:
    """Mix ``real`` and ``synthetic`` at a share or an amount, stratified by label, with exact counts.

    Rows are drawn without repetition from one seeded permutation of each label, always from its front: with
    one seed the synthetic rows of a smaller share are among those of a larger one. Rows of generation and
    retrieval have no labels: there all rows are one stratum.

    Args:
        real: real training rows; their task and labels are the blend's.
        synthetic: the pool, with the same labels; needed when the blend has synthetic rows.
        share: synthetic rows over all rows asked for; what came of it is in ``composition``.
        amount: in place of ``share``, synthetic rows for each real one, or ``all`` rows of the pool.
        regime: ``augment`` (all real rows, synthetic rows added) or ``replace`` (as many rows as there are real ones).
        seed: of the sampling draw.
        kind: ``blend``; ``real-only`` (the real rows, share 0); ``real-duplicated`` (real rows repeated to the
            rows that ``share`` would give, each as often as the next, give or take one); ``synthetic-only``
            (the synthetic rows of the blend at ``share`` without its real rows).
        allow_repeats: draw rows again, evenly, where there are too few.
        allow_fewer: take what there is of a label where there are too few, or none.

    Raises:
        InputError: the pool is missing or empty, has another task or other labels than the real data, or too few
            rows (with the largest share possible); a row has the wrong origin.
        ValueError: arguments that do not fit together.
    """
    if kind not in get_args(MixKind):
        raise ValueError(f"kind is {kind!r}; valid: {', '.join(get_args(MixKind))}")
    share, whole = _find_share(share, amount, regime)
    if kind == "real-only" and (share != 0 or whole):
        raise ValueError(f"share is {share!r}; real-only takes share 0 and all rows")
    if len(real) == 0:
        raise InputError("the real data has no rows; a blend takes its labels from them")
    labels = count_strata(real)
    counts = share_counts(labels, share, regime=regime)
    own = {label: r for label, (r, _) in counts.items()}
    made = {label: s for label, (_, s) in counts.items()}
    has = count_strata(synthetic) if synthetic is not None else {}
    if whole:
        made = {label: has.get(label, 0) for label in labels}
    elif allow_fewer and kind != "real-duplicated":  # which takes no rows of a pool
        made = {label: min(rows, has.get(label, 0)) for label, rows in made.items()}
    if kind == "real-duplicated":
        own, made = {label: r + made[label] for label, r in own.items()}, {}
    elif kind == "synthetic-only":
        own = {}
    _check_origin(real, "real")
    parts = [_draw_rows(real, own, seed)]
    if whole or any(made.values()):
        pool = _check_pool(real, synthetic, allow_fewer=allow_fewer)
        short = next((label for label, rows in made.items() if rows > has.get(label, 0)), None)
        if short is not None and not allow_repeats:
            raise InputError(
                f"{f'label {short!r}: ' if short else ''}{made[short]} synthetic rows were asked for, the pool has "
                f"{has.get(short, 0)}; the largest share this pool allows is "
                f"{largest_share(labels, has, regime=regime):g}; lower it, generate more, or allow repeats"
            )
        parts.append(_draw_rows(pool, made, seed))
    corpus = parts[0].joined(*parts[1:])
    return Blend(corpus=corpus, composition=count_composition(corpus))


def first_rows(pool: Corpus, wanted: Mapping[str, int], seed: int) -> NDArray[np.int64]:
    """The places, ascending, of a pool's first ``wanted[label]`` rows of each label, or of all that there are.

    Their order depends on each row's id and the seed alone: leaving rows out, as filters do, moves no other row in it.
    """
    number = {label: code for code, label in enumerate(wanted)}
    codes = np.array([number.get(label, -1) for label in label_strata(pool)], dtype=np.int64)
    order = np.argsort(scatter(pool.id_hashes, seed), kind="stable")
    found = [order[codes[order] == number[label]][:rows] for label, rows in wanted.items()]
    return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *found]))


def _find_share(share: float | None, amount: float | Literal["all"] | None, regime: Regime) -> tuple[float, bool]:
    """The share of what is asked for, and whether that is every row of the pool."""
    if (share is None) == (amount is None):
        raise ValueError(f"share is {share!r} and amount {amount!r}; give exactly one of them")
    if share is not None:
        return share, False
    if amount is None or regime == "replace" or (amount != "all" and not 0 <= float(amount) < math.inf):
        raise ValueError(f"amount is {amount!r}; give all or a number from 0, and the regime augment")
    return (0.0, True) if amount == "all" else (float(amount) / (1.0 + float(amount)), False)


def count_composition(corpus: Corpus) -> Composition:
    """What a corpus holds, counted from its ``origin``, ``id``, ``text`` and ``target`` columns.

    ``label_counts`` is empty for generation and retrieval: every row has a target of its own there.
    """
    repeats = Counter(corpus.ids)
    pairs = Counter(zip(corpus.targets, corpus.origins, strict=True))
    synthetic = corpus.origins.count("synthetic")
    labels = corpus.labels if corpus.task == "classification" else []
    return Composition(
        share=synthetic / len(corpus) if len(corpus) else 0.0,
        real_rows=len(corpus) - synthetic,
        synthetic_rows=synthetic,
        unique_rows=len(repeats),
        most_repeats=max(repeats.values(), default=0),
        label_counts={label: (pairs[label, "real"], pairs[label, "synthetic"]) for label in labels},
        unique_texts=_count_texts(corpus, range(len(corpus))),
        real=_count_part(corpus, "real"),
        synthetic=_count_part(corpus, "synthetic"),
    )


# --- parts ----------------------------------------------------------------------------------------
def _check_origin(corpus: Corpus, origin: Origin) -> None:
    wrong = len(corpus) - corpus.origins.count(origin)
    if wrong:
        raise InputError(
            f"{wrong} of {len(corpus)} rows of the {origin} data are not marked {origin}; "
            f"load them with origin={origin!r}"
        )


def _check_pool(real: Corpus, pool: Corpus | None, *, allow_fewer: bool) -> Corpus:
    if pool is None or len(pool) == 0:
        raise InputError("synthetic rows are asked for, but there is no pool; generate one, or ask for share 0")
    if pool.task != real.task:
        raise InputError(f"the pool is for {pool.task}, the real data for {real.task}; both must be of one task")
    _check_origin(pool, "synthetic")
    have, wanted = count_strata(pool), count_strata(real)
    for label in wanted:
        if label not in have and not allow_fewer:
            raise InputError(f"the pool has no rows of label {label!r}; generate some, or drop it from the real data")
    for label in have:
        if label not in wanted:
            raise InputError(f"the pool has label {label!r}, which the real data lacks; rename it or drop its rows")
    return pool


def _draw_rows(corpus: Corpus, wanted: Mapping[str, int], seed: int) -> Corpus:
    """The first rows of each label's permutation, in the corpus's own order (repeats next to each other)."""
    members: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(label_strata(corpus)):
        members[label].append(row)
    chosen = [np.empty(0, dtype=np.int64)]
    for label, rows in wanted.items():
        own = np.array(members[label], dtype=np.int64)
        order = derive_rng(seed, "mix", corpus.origins[0], label).permutation(own)
        chosen.append(np.resize(order, rows))
    return corpus.take(np.sort(np.concatenate(chosen)))


def _count_part(corpus: Corpus, origin: Origin) -> PartCounts:
    rows = [row for row, found in enumerate(corpus.origins) if found == origin]
    words = sum(_read_text(corpus.texts[row])[1] for row in rows)
    if corpus.task != "classification":  # a target is text to learn from, not a name
        words += sum(_read_text(corpus.targets[row])[1] for row in rows)
    repeats = Counter(corpus.ids[row] for row in rows)
    return PartCounts(
        rows=len(rows),
        words=words,
        unique_rows=len(repeats),
        unique_texts=_count_texts(corpus, rows),
        most_repeats=max(repeats.values(), default=0),
    )


def _count_texts(corpus: Corpus, rows: Sequence[int]) -> int:
    return len({(_read_text(corpus.texts[row])[0], corpus.contexts[row]) for row in rows})


@lru_cache(maxsize=2**17)  # a study counts the same few rows in every trial
def _read_text(text: str) -> tuple[str, int]:
    """A text as it is compared, and its words."""
    return normalise_text(text), len(split_tokens(text))


# --- how many rows of each label ------------------------------------------------------------------
def apportion_rows(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """``total`` rows shared out in proportion to ``sizes``: exact in sum, each within one row of its part.

    The quota method of Balinski and Young (The American Mathematical Monthly 82, 1975, 701-730): row ``h``
    goes to the label with the largest ``size / (has + 1)`` among those still below their part of ``h`` rows.
    Raising ``total`` never lowers a label's count. Equal claims go to the first label in the given order.
    """
    weights = np.array(list(sizes.values()), dtype=np.int64)
    # the method repeats itself after each full turn of the sizes in lowest terms
    turn = weights // (np.gcd.reduce(weights) or 1)
    full, rest = divmod(total, int(turn.sum()) or 1)
    counts = np.zeros_like(turn)
    for row in range(1, rest + 1):
        open_claims = counts * turn.sum() < row * turn
        claims = np.where(open_claims, turn / (counts + 1), -1.0)
        counts[int(claims.argmax())] += 1
    return dict(zip(sizes, (counts + full * turn).tolist(), strict=True))


def share_counts(real: Mapping[str, int], share: float, *, regime: Regime = "augment") -> dict[str, tuple[int, int]]:
    """Rows of each label at ``share``: label -> (real rows, synthetic rows).

    ``augment`` keeps all real rows and adds ``real * share / (1 - share)`` synthetic rows to each label,
    rounded half up. ``replace`` keeps the number of rows of each label and makes ``share`` of all rows
    synthetic.

    Args:
        real: real rows of each label.
        share: synthetic rows over all rows, from 0 to 1; below 1 in ``augment``.
        regime: ``augment`` or ``replace``.

    Raises:
        ValueError: share out of range, or an unknown regime.
    """
    if regime not in get_args(Regime):
        raise ValueError(f"regime is {regime!r}; valid: {', '.join(get_args(Regime))}")
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share!r}; it must be from 0 to 1")
    if regime == "augment":
        if share == 1:
            raise ValueError("share is 1, which augment cannot reach: it keeps all real rows; use replace")
        odds = share / (1 - share)
        return {label: (rows, math.floor(rows * odds + 0.5 + _SLACK)) for label, rows in real.items()}
    synthetic = apportion_rows(real, math.floor(share * sum(real.values()) + 0.5 + _SLACK))
    return {label: (rows - synthetic[label], synthetic[label]) for label, rows in real.items()}


def largest_share(real: Mapping[str, int], pool: Mapping[str, int], *, regime: Regime = "augment") -> float:
    """The largest share, rounded down to 3 decimals, for which ``pool`` has rows enough of every label."""
    low, high = 0, 999 if regime == "augment" else 1000
    while low < high:  # counts never fall as the share rises, so bisection finds it
        middle = (low + high + 1) // 2
        counts = share_counts(real, middle / 1000, regime=regime)
        enough = all(synthetic <= pool.get(label, 0) for label, (_, synthetic) in counts.items())
        low, high = (middle, high) if enough else (low, middle - 1)
    return low / 1000


def assign_blocks(pool: Corpus, *, blocks: Sequence[int], rows: Mapping[str, int], seed: int) -> Corpus:
    """Give each row of ``pool`` the number of a block, or none where the blocks are full.

    Groups (see :func:`whole_groups`; single rows where there is no group) are dealt whole, whatever their labels: for
    each label in turn those that hold it, in an order of their names and the seed alone, until the block has at least
    ``rows[label]`` rows of it. Blocks are filled one after the other, so that asking for more blocks leaves the earlier
    ones as they are.

    Args:
        pool: synthetic rows.
        blocks: their numbers, in the order in which they are filled.
        rows: label -> rows needed in each block.
        seed: of the order.

    Raises:
        InputError: a label has too few rows, with how many blocks it could fill.
    """
    groups = _Groups(pool, [label for label, wanted in rows.items() if wanted])
    orders = {label: iter(groups.scattered(label, derive_seed(seed, "blocks", label))) for label in groups.labels}
    for place, block in enumerate(blocks):
        filled: Counter[str] = Counter()
        for label, order in orders.items():
            while filled[label] < rows[label]:
                key = next((key for key in order if groups.block[key] < 0), None)
                if key is None:
                    holding, total = groups.count(label)
                    raise InputError(
                        f"label {label!r} has {total} rows in {holding} groups: enough for {place} draws of "
                        f"{rows[label]} rows, {len(blocks)} were asked for; lower draws, mix.shape_share or "
                        "split.rows_per_label"
                    )
                groups.block[key] = block
                filled.update(groups.counts(key))
    return groups.mark(pool)


def deal_blocks(pool: Corpus, *, blocks: Sequence[int], rows: Mapping[str, int], seed: int) -> Corpus:
    """Deal *all* rows of ``pool`` out to the blocks, as evenly as whole groups allow.

    Where rows are selected within each block, a block should hold all that it can. Groups of several labels go first,
    each to the block that has least of its labels so far; then, within each label, the others, each to the block with
    the fewest rows of the label. The largest go first, equal ones in a seeded order.

    Args:
        pool, blocks, rows, seed: as :func:`assign_blocks`.

    Raises:
        InputError: a block gets fewer rows of a label than it needs.
    """
    groups = _Groups(pool, rows)
    filled = {label: [0] * len(blocks) for label in groups.labels}
    totals = {label: groups.count(label)[1] for label in groups.labels}
    every = groups.in_order(None, derive_rng(seed, "deal"))
    turns = [every[groups.kinds[every] > 1]]
    turns += [groups.in_order(label, derive_rng(seed, "deal", label)) for label in groups.labels]
    for turn in turns:
        for key in groups.largest_first(turn[groups.block[turn] < 0]):
            counts = groups.counts(key)
            least = min(
                range(len(blocks)),
                key=lambda k: (sum(n * filled[label][k] / totals[label] for label, n in counts.items()), k),
            )
            groups.block[key] = blocks[least]
            for label, n in counts.items():
                filled[label][least] += n
    for label in groups.labels:
        if min(filled[label]) < rows[label]:
            raise InputError(
                f"label {label!r} has {sum(filled[label])} rows in {groups.count(label)[0]} groups: dealt out to "
                f"{len(blocks)} draws, one has {min(filled[label])} of the {rows[label]} that it needs; lower draws, "
                "mix.shape_share or split.rows_per_label, or give a larger pool"
            )
    return groups.mark(pool)


def whole_groups(pool: Corpus) -> list[str]:
    """What may not straddle draws, a name a row, shape (n,).

    Rows of one group belong together, and so do those about one context (generation) or with one passage (retrieval,
    where it is the target), by ``normalise_text``; what is linked through another row belongs together too.
    """
    about = row_sources(pool)
    if all(source is None for source in about):
        return pool.groups
    groups = [f"group {group}" for group in pool.groups]
    sources = [None if source is None else f"about {normalise_text(source)}" for source in about]
    names = list(groups)
    for rows in link_rows(groups, sources):
        least = min(name for row in rows for name in (groups[row], sources[row]) if name is not None)
        for row in rows:
            names[row] = least
    return names


def take_blocks(pool: Corpus, blocks: frozenset[int] | set[int]) -> Corpus:
    """The rows of ``pool`` in these blocks."""
    return pool.keep(np.isin(pool.blocks, sorted(blocks)))


def full_blocks(pool: Corpus, rows: Mapping[str, int]) -> set[int]:
    """The blocks that hold at least ``rows[label]`` rows of every label."""
    counts = Counter(zip(pool.blocks.tolist(), label_strata(pool), strict=True))
    present = {b for b, _ in counts if b >= 0}
    return {b for b in present if all(counts[b, label] >= n for label, n in rows.items())}


class _Groups:
    """The rows of each group and label, and the block that each group was put into; rows of other labels get none.

    Groups are numbered in the order of their names; of a group, labels come in the order of its rows.

    Attributes:
        labels: those that are wanted, sorted.
        kinds: labels of each group, shape (groups,).
        block: of each group, shape (groups,); -1 where it is in none.
    """

    def __init__(self, pool: Corpus, labels: Iterable[str]) -> None:
        self.labels = sorted(set(labels))
        number = {label: code for code, label in enumerate(self.labels)}
        label = np.array([number.get(found, -1) for found in label_strata(pool)], dtype=np.int64)
        self._rows = np.flatnonzero(label >= 0)
        names = _group_names(pool).take(pa.array(self._rows)).dictionary_encode()
        rank = np.empty(len(names.dictionary), dtype=np.int64)
        order = pc.sort_indices(names.dictionary)
        rank[order.to_numpy()] = np.arange(len(rank))
        self._hashes = hash_each(names.dictionary.take(order).to_pylist())
        self._group, label = rank[names.indices.to_numpy()], label[self._rows]
        pairs = self._group * max(1, len(self.labels)) + label
        _, first, counts = np.unique(pairs, return_index=True, return_counts=True)
        order = np.lexsort((first, self._group[first]))
        self._owner, self._label, self._count = self._group[first][order], label[first][order], counts[order]
        self._sizes = np.bincount(self._group, minlength=len(rank))
        self.kinds = np.bincount(self._owner, minlength=len(rank))
        self._start = np.cumsum(self.kinds) - self.kinds
        self.block = np.full(len(rank), -1, dtype=np.int64)

    def in_order(self, label: str | None, rng: np.random.Generator) -> Codes:
        """The groups that hold a label (None: all groups), in a drawn order."""
        every = np.arange(len(self.block)) if label is None else self._owner[self._label == self.labels.index(label)]
        return every[rng.permutation(len(every))]

    def scattered(self, label: str, seed: int) -> list[int]:
        """The groups that hold a label, in an order of each one's name and the seed alone."""
        every = self._owner[self._label == self.labels.index(label)]
        found: list[int] = every[np.argsort(scatter(self._hashes[every], seed), kind="stable")].tolist()
        return found

    def largest_first(self, keys: Codes) -> list[int]:
        """The groups by their size; equal ones stay in their order."""
        found: list[int] = keys[np.argsort(-self._sizes[keys], kind="stable")].tolist()
        return found

    def counts(self, key: int) -> dict[str, int]:
        """Label -> rows of a group."""
        start = int(self._start[key])
        pairs = range(start, start + int(self.kinds[key]))
        return {self.labels[self._label[pair]]: int(self._count[pair]) for pair in pairs}

    def count(self, label: str) -> tuple[int, int]:
        """Groups that hold a label, and its rows."""
        held = self._label == self.labels.index(label)
        return int(held.sum()), int(self._count[held].sum())

    def mark(self, pool: Corpus) -> Corpus:
        """The pool with the block of each row."""
        found = np.full(len(pool), -1, dtype=np.int64)
        found[self._rows] = self.block[self._group]
        return pool.with_columns(block=pa.array(found.astype(np.int32), mask=found < 0))


def _group_names(pool: Corpus) -> pa.Array:
    """What :func:`whole_groups` gives, as a column."""
    if any(source is not None for source in row_sources(pool)):
        return pa.array(whole_groups(pool), pa.string())
    alone = pc.binary_join_element_wise("row:", pool.table["id"], "")
    return pc.coalesce(pool.table["group"], alone).combine_chunks()
