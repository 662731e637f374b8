"""Blends of real and synthetic rows with exact, realised counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from cuvee.characters import to_html
from cuvee.corpus import Corpus, Origin, label_strata
from cuvee.errors import InputError
from cuvee.fingerprint import derive_rng
from cuvee.mix.composition import count_composition
from cuvee.mix.shares import apportion_rows, share_counts
from cuvee.mix.supply import Demand, refuse_shortage
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
    counts = _plan_counts(real, share, regime, kind, total_rows, synthetic_rows_per_label)
    _check_origin(real, "real")
    asked = {"real": {k: r for k, (r, _) in counts.items()}, "synthetic": {k: s for k, (_, s) in counts.items()}}
    pool = _check_pool(real, synthetic) if any(asked["synthetic"].values()) else None
    if not allow_repeats:
        refuse_shortage(
            Demand(
                counts=counts, real=_stratum_sizes(real), pool={} if pool is None else _stratum_sizes(pool),
                share=share, regime=regime, kind=kind, total_rows=total_rows, per_label=synthetic_rows_per_label,
            )
        )  # fmt: skip
    parts = [_draw_rows(real, asked["real"], seed)]
    if pool is not None:
        parts.append(_draw_rows(pool, asked["synthetic"], seed))
    corpus = parts[0].joined(*parts[1:])
    return Blend(corpus=corpus, composition=count_composition(corpus))


def _plan_counts(
    real: Corpus, share: float, regime: Regime, kind: Kind, total_rows: int | None, per_label: int | None
) -> Counts:
    """Label -> (real rows, synthetic rows), before looking at the pool."""
    if kind not in get_args(Kind):
        raise ValueError(f"kind is {kind!r}; valid: {', '.join(get_args(Kind))}")
    if len(real) == 0:
        raise InputError("the real data has no rows; a blend takes its labels from them")
    if total_rows is not None and total_rows < 1:
        raise ValueError(f"total_rows is {total_rows!r}; it must be at least 1")
    labels = _stratum_sizes(real)
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
