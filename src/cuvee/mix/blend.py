"""Blends of real and synthetic rows with exact, realised counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from cuvee.characters import to_html
from cuvee.corpus import Corpus, Origin, label_strata, normalise_text, split_tokens
from cuvee.errors import InputError
from cuvee.fingerprint import derive_rng
from cuvee.mix.shares import apportion_rows, largest_share, share_counts
from cuvee.records import Composition, Kind, PartCounts, Regime

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
        if made.real is not None and made.synthetic is not None:
            lines.append(f"  words: {made.real.words} real, {made.synthetic.words} synthetic")
        if self.is_weighted:
            lines.append(f"  {self.weighing}")
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
    one seed the synthetic rows of a smaller share are among those of a larger one. Rows of generation and
    retrieval have no labels: there all rows are one stratum.

    Args:
        real: real training rows; their task and labels are the blend's.
        synthetic: the pool, with the same labels; needed when the blend has synthetic rows.
        share: synthetic rows over all rows asked for; what came of it is in ``composition``.
        regime: ``augment`` (all real rows, synthetic rows added) or ``replace`` (total rows fixed).
        seed: of the sampling draw.
        kind: ``blend``; ``real-only`` (the real rows, share 0); ``real-duplicated`` (real rows repeated to the
            rows that ``share`` would give, each as often as the next, give or take one); ``synthetic-only``
            (the synthetic rows of the blend at ``share`` without its real rows, or a number given below).
        allow_repeats: draw rows again, evenly, where there are too few.
        total_rows: rows of the blend: in ``replace``, and for ``synthetic-only``.
        synthetic_rows_per_label: for ``synthetic-only``, or ``augment`` at share 1: rows of each label (rows, where
            there are no labels).

    Raises:
        InputError: the pool is missing or empty, has another task or other labels than the real data, or too few
            rows (with the largest share or number possible); a row has the wrong origin.
        ValueError: arguments that do not fit together.
    """
    wish = _Wish(share=share, regime=regime, kind=kind, total_rows=total_rows, per_label=synthetic_rows_per_label)
    if len(real) == 0:
        raise InputError("the real data has no rows; a blend takes its labels from them")
    labels = _stratum_sizes(real)
    counts = wish.counts(labels)
    _check_origin(real, "real")
    asked = {"real": {k: r for k, (r, _) in counts.items()}, "synthetic": {k: s for k, (_, s) in counts.items()}}
    pool = _check_pool(real, synthetic) if any(asked["synthetic"].values()) else None
    if not allow_repeats and kind not in ("real-only", "real-duplicated"):
        _Supply(wish, labels, {} if pool is None else _stratum_sizes(pool)).refuse_shortage(counts)
    parts = [_draw_rows(real, asked["real"], seed)]
    if pool is not None:
        parts.append(_draw_rows(pool, asked["synthetic"], seed))
    corpus = parts[0].joined(*parts[1:])
    return Blend(corpus=corpus, composition=count_composition(corpus))


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
@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What :func:`mix_corpora` was asked for."""

    share: float
    regime: Regime
    kind: Kind
    total_rows: int | None
    per_label: int | None

    @property
    def only_synthetic(self) -> bool:
        """Whether no real rows are asked for."""
        return self.kind == "synthetic-only" or (self.kind == "blend" and self.share == 1)

    def counts(self, labels: Mapping[str, int]) -> Counts:
        """Label -> (real rows, synthetic rows), before looking at the pool; ``labels`` are the real rows of each."""
        share, total_rows, per_label = self.share, self.total_rows, self.per_label
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind is {self.kind!r}; valid: {', '.join(get_args(Kind))}")
        if total_rows is not None and total_rows < 1:
            raise ValueError(f"total_rows is {total_rows!r}; it must be at least 1")
        if per_label is not None and (not self.only_synthetic or per_label < 1 or total_rows is not None):
            raise ValueError(
                f"synthetic_rows_per_label is {per_label!r}; it is for kind 'synthetic-only', at least 1, "
                "and instead of total_rows"
            )
        if self.kind == "real-only":
            if share != 0 or total_rows is not None:
                raise ValueError(
                    f"share is {share!r} and total_rows {total_rows!r}; real-only takes share 0 and all rows"
                )
            return {label: (rows, 0) for label, rows in labels.items()}
        if self.only_synthetic and (per_label is not None or total_rows is not None):
            wanted = dict.fromkeys(labels, per_label) if per_label else apportion_rows(labels, total_rows or 0)
            return {label: (0, rows or 0) for label, rows in wanted.items()}
        if share == 1 and self.regime == "augment":
            raise ValueError("share is 1 and augment knows no total; give total_rows or synthetic_rows_per_label")
        counts = share_counts(labels, share, regime=self.regime, total_rows=total_rows)
        if self.kind == "real-duplicated":
            return {label: (r + s, 0) for label, (r, s) in counts.items()}
        return {label: (0, s) for label, (_, s) in counts.items()} if self.kind == "synthetic-only" else counts


@dataclass(frozen=True, slots=True)
class _Supply:
    """Whether there are rows enough for a blend, and how much is possible where there are not.

    ``real`` and ``pool`` are the rows that there are of each stratum.
    """

    wish: _Wish
    real: Mapping[str, int]
    pool: Mapping[str, int]

    def refuse_shortage(self, counts: Counts) -> None:
        """Say which rows are too few, and the largest that is possible without repeats.

        Raises:
            InputError: there are too few.
        """
        total = sum(r + s for r, s in counts.values())
        for label, (real, synthetic) in counts.items():
            where = f"label {label!r}: " if label else ""
            have = self.pool.get(label, 0)
            if synthetic > have:
                raise InputError(
                    f"{where}{synthetic} synthetic rows were asked, the pool has {have}; "
                    f"{self._possible(total)}; lower it, generate more, or allow repeats"
                )
            if real > self.real[label]:
                raise InputError(
                    f"{where}{real} real rows were asked, there are {self.real[label]}; "
                    f"{self._possible_total(total)}; lower total_rows, raise the share, or allow repeats"
                )

    def _fits(self, counts: Counts) -> bool:
        return all(r <= self.real[k] and s <= self.pool.get(k, 0) for k, (r, s) in counts.items())

    def _possible(self, asked: int) -> str:
        """The largest that the pool allows of what was asked: rows of each label, share or total."""
        wish = self.wish
        if wish.per_label is not None:
            most = min(self.pool.get(label, 0) for label in self.real)
            return f"the most is {most}" if "" in self.real else f"the most that every label has is {most} a label"
        if wish.total_rows is not None and wish.only_synthetic:
            return self._possible_total(asked)
        share = largest_share(self.real, self.pool, regime=wish.regime, total_rows=wish.total_rows)
        counts = share_counts(self.real, share, regime=wish.regime, total_rows=wish.total_rows)
        if wish.kind == "synthetic-only":
            counts = {label: (0, s) for label, (_, s) in counts.items()}
        # with few synthetic rows the rest must be real, and there may be too few of those
        return f"the largest share this pool allows is {share:g}" if self._fits(counts) else self._possible_total(asked)

    def _possible_total(self, asked: int) -> str:
        """The largest number of rows under ``asked`` for which there are rows enough at the share asked for."""

        def fits(total: int) -> bool:
            if self.wish.only_synthetic:
                return self._fits({label: (0, rows) for label, rows in apportion_rows(self.real, total).items()})
            return self._fits(share_counts(self.real, self.wish.share, regime="replace", total_rows=total))

        low, high = 0, asked - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        # rounding may give one row of a label back when the total rises: look a little further
        further = range(min(asked - 1, low + 2 * len(self.real) + 2), low, -1)
        return f"the largest total_rows at this share is {next((n for n in further if fits(n)), low)}"


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
    have, wanted = _stratum_sizes(pool), _stratum_sizes(real)
    for label in wanted:
        if label not in have:
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
    chosen: list[NDArray[np.int64]] = []
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


@lru_cache(maxsize=2**15)  # a study counts the same few rows in every trial
def _read_text(text: str) -> tuple[str, int]:
    """A text as it is compared, and its words."""
    return normalise_text(text), len(split_tokens(text))
