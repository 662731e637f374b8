"""Blends of real and synthetic rows with exact, realised counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus, Origin
from cuvee.errors import ConfigError, InputError
from cuvee.fingerprint import derive_rng
from cuvee.mix.shares import apportion_rows, largest_share, share_counts
from cuvee.records import Composition, Kind, Regime

Counts = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
    """A corpus mixed from real and synthetic rows, and what it holds."""

    corpus: Corpus
    composition: Composition

    def __str__(self) -> str:
        made = self.composition
        origins = f"{made.real_rows} real, {made.synthetic_rows} synthetic"
        repeats = f"{made.unique_rows} distinct, none more than {made.most_repeats} times"
        lines = [f"Blend: {made.rows} rows, share {made.share:.3f} ({origins}), {repeats}"]
        width = max((len(label) for label in made.label_counts), default=0)
        lines += [f"  {label:<{width}}  {r:>6} real  {s:>6} synthetic" for label, (r, s) in made.label_counts.items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{self}</pre>{self.corpus._repr_html_()}"


def mix_corpora(
    real: Corpus,
    synthetic: Corpus | None = None,
    *,
    share: float,
    regime: Regime = "augment",
    seed: int,
    kind: Kind = "blend",
    allow_repeats: bool = False,
    total_rows: int | None = None,
    synthetic_rows_per_label: int | None = None,
) -> Blend:
    """Mix ``real`` and ``synthetic`` at ``share``, stratified by label, with exact counts.

    Rows are drawn without repetition from one seeded permutation of each label, always from its front: with
    one seed the synthetic rows of a smaller share are among those of a larger one.

    Args:
        real: real training rows; their labels are the blend's.
        synthetic: the pool, with the same labels; needed when the blend has synthetic rows.
        share: synthetic rows over all rows asked for; what came of it is in ``composition``.
        regime: ``augment`` (all real rows, synthetic rows added) or ``replace`` (total rows fixed).
        seed: of the sampling draw.
        kind: ``blend``; ``real-only`` (the real rows, share 0); ``real-duplicated`` (real rows repeated to the
            rows that ``share`` would give, each as often as the next, give or take one); ``synthetic-only``
            (the synthetic rows of the blend at ``share`` without its real rows, or a number given below).
        allow_repeats: draw rows again, evenly, where there are too few.
        total_rows: rows of the blend: in ``replace``, and for ``synthetic-only``.
        synthetic_rows_per_label: for ``synthetic-only``, or ``augment`` at share 1: rows of each label.

    Raises:
        InputError: the pool is missing or empty, has other labels than the real data, or too few rows; a row
            has the wrong origin.
        ValueError: arguments that do not fit together.
    """
    counts = _plan_counts(real, share, regime, kind, total_rows, synthetic_rows_per_label)
    _check_origin(real, "real")
    parts = [_draw_rows(real, {k: r for k, (r, _) in counts.items()}, seed, allow_repeats or kind == "real-duplicated")]
    if any(s for _, s in counts.values()):
        pool = _check_pool(real, synthetic)
        if not allow_repeats:
            _check_supply(pool, counts, real, share, regime, total_rows, kind)
        parts.append(_draw_rows(pool, {k: s for k, (_, s) in counts.items()}, seed, allow_repeats))
    corpus = parts[0].joined(*parts[1:])
    return Blend(corpus=corpus, composition=count_composition(corpus))


def count_composition(corpus: Corpus) -> Composition:
    """What a corpus holds, counted from its ``origin`` and ``id`` columns."""
    repeats = Counter(corpus.ids)
    pairs = Counter(zip(corpus.targets, corpus.origins, strict=True))
    synthetic = corpus.origins.count("synthetic")
    return Composition(
        share=synthetic / len(corpus) if len(corpus) else 0.0,
        real_rows=len(corpus) - synthetic,
        synthetic_rows=synthetic,
        unique_rows=len(repeats),
        most_repeats=max(repeats.values(), default=0),
        label_counts={label: (pairs[label, "real"], pairs[label, "synthetic"]) for label in corpus.labels},
    )


def _plan_counts(
    real: Corpus, share: float, regime: Regime, kind: Kind, total_rows: int | None, per_label: int | None
) -> Counts:
    """Label -> (real rows, synthetic rows), before looking at the pool."""
    if real.task != "classification":
        raise ConfigError(f"task {real.task!r} cannot be mixed yet; only classification is built so far")
    if kind not in get_args(Kind):
        raise ValueError(f"kind is {kind!r}; valid: {', '.join(get_args(Kind))}")
    if len(real) == 0:
        raise InputError("the real data has no rows; a blend takes its labels from them")
    if total_rows is not None and total_rows < 1:
        raise ValueError(f"total_rows is {total_rows!r}; it must be at least 1")
    labels = real.label_counts()
    only_synthetic = kind == "synthetic-only" or (kind == "blend" and share == 1)
    if per_label is not None and (not only_synthetic or per_label < 1 or total_rows is not None):
        raise ValueError(
            f"synthetic_rows_per_label is {per_label!r}; it is for kind 'synthetic-only', at least 1, "
            "and instead of total_rows"
        )
    if kind == "real-only":
        if share != 0 or total_rows is not None:
            raise ValueError(f"share is {share!r} and total_rows {total_rows!r}; real-only takes share 0 and all rows")
        return {label: (rows, 0) for label, rows in labels.items()}
    if only_synthetic and (per_label is not None or total_rows is not None):
        wanted = dict.fromkeys(labels, per_label) if per_label else apportion_rows(labels, total_rows or 0)
        return {label: (0, rows or 0) for label, rows in wanted.items()}
    if share == 1 and regime == "augment":
        raise ValueError("share is 1 and augment knows no total; give total_rows or synthetic_rows_per_label")
    counts = share_counts(labels, share, regime=regime, total_rows=total_rows)
    if kind == "real-duplicated":
        return {label: (r + s, 0) for label, (r, s) in counts.items()}
    if kind == "synthetic-only":
        return {label: (0, s) for label, (_, s) in counts.items()}
    return counts


def _check_origin(corpus: Corpus, origin: Origin) -> None:
    wrong = len(corpus) - corpus.origins.count(origin)
    if wrong:
        raise InputError(
            f"{wrong} of {len(corpus)} rows of the {origin} data are not marked {origin}; "
            f"load them with origin={origin!r}"
        )


def _check_pool(real: Corpus, pool: Corpus | None) -> Corpus:
    if pool is None or len(pool) == 0:
        raise InputError("synthetic rows are asked for, but there is no pool; generate one, or ask for share 0")
    if pool.task != real.task:
        raise InputError(f"the pool is for {pool.task}, the real data for {real.task}; both must be of one task")
    _check_origin(pool, "synthetic")
    for label in real.labels:
        if label not in pool.label_counts():
            raise InputError(f"the pool has no rows of label {label!r}; generate some, or drop it from the real data")
    for label in pool.labels:
        if label not in real.label_counts():
            raise InputError(f"the pool has label {label!r}, which the real data lacks; rename it or drop its rows")
    return pool


def _check_supply(
    pool: Corpus, counts: Counts, real: Corpus, share: float, regime: Regime, total_rows: int | None, kind: Kind
) -> None:
    have = pool.label_counts()
    short = next((label for label, (_, rows) in counts.items() if rows > have[label]), None)
    if short is None:
        return
    if kind == "synthetic-only" or share == 1:
        limit = f"the most that every label has is {min(have.values())} a label"
    else:
        most = largest_share(real.label_counts(), have, regime=regime, total_rows=total_rows)
        limit = f"the largest share this pool allows is {most:g}"
    raise InputError(
        f"label {short!r}: {counts[short][1]} synthetic rows were asked, the pool has {have[short]}; "
        f"{limit}; lower it, generate more, or allow repeats"
    )


def _draw_rows(corpus: Corpus, wanted: Mapping[str, int], seed: int, repeat: bool) -> Corpus:
    """The first rows of each label's permutation, in the corpus's own order (repeats next to each other)."""
    members: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(corpus.targets):
        members[label].append(row)
    chosen: list[NDArray[np.int64]] = []
    for label, rows in wanted.items():
        own = np.array(members[label], dtype=np.int64)
        if rows > len(own) and not repeat:
            raise InputError(
                f"label {label!r}: {rows} real rows were asked, there are {len(own)}; "
                "lower total_rows, raise the share, or allow repeats"
            )
        order = derive_rng(seed, "mix", corpus.origins[0], label).permutation(own)
        chosen.append(np.resize(order, rows))
    return corpus.take(np.sort(np.concatenate(chosen)))
