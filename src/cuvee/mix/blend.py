"""Blends of real and synthetic rows with exact, realised counts: how many rows of each label a share means, and which.

Counts are nested: with a larger share no label gets fewer synthetic rows, so that a smaller blend's synthetic
rows can be a prefix of a larger one's. Plain largest-remainder rounding breaks this (the Alabama paradox:
one more row in all can take one away from a label), so rows are apportioned by the quota method, which
keeps every label within one row of its exact part *and* never takes a row back.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cuvee.characters import to_html
from cuvee.corpus import Corpus, Origin, label_strata, normalise_text, split_tokens
from cuvee.errors import InputError
from cuvee.fingerprint import derive_rng, scatter
from cuvee.records import Composition, MixKind, PartCounts, Regime

_SLACK = 1e-9  # 4 * 0.9 / (1 - 0.9) is 36.00000000000001 in floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
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
    labels = _stratum_sizes(real)
    counts = share_counts(labels, share, regime=regime)
    own = {label: r for label, (r, _) in counts.items()}
    made = {label: s for label, (_, s) in counts.items()}
    has = _stratum_sizes(synthetic) if synthetic is not None else {}
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
                f"{f'label {short!r}: ' if short else ''}{made[short]} synthetic rows were asked, the pool has "
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
    have, wanted = _stratum_sizes(pool), _stratum_sizes(real)
    for label in wanted:
        if label not in have and not allow_fewer:
            raise InputError(f"the pool has no rows of label {label!r}; generate some, or drop it from the real data")
    for label in have:
        if label not in wanted:
            raise InputError(f"the pool has label {label!r}, which the real data lacks; rename it or drop its rows")
    return pool


def _stratum_sizes(corpus: Corpus) -> dict[str, int]:
    """Rows of each label, sorted by label; all rows under ``""`` where there are no labels."""
    return dict(sorted(Counter(label_strata(corpus)).items()))


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
