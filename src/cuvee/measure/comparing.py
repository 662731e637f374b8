"""Corpora measured side by side so that their numbers compare: equal rows, matched lengths, one encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cuvee.corpus import Corpus, split_tokens
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import InputError
from cuvee.fingerprint import derive_seed
from cuvee.measure.intervals import mean_of_draws, subtract_first
from cuvee.measure.matching import (
    Counts,
    RowPlan,
    note_cut_lengths,
    note_labels,
    note_lengths,
    plan_rows,
    standardised_difference,
    truncate_words,
)
from cuvee.measure.metrics import are_named, pick_defined
from cuvee.measure.subject import LESS, MORE, KnownVectors, Metric, Subject
from cuvee.records import Comparison, Estimate
from cuvee.similarity import Progress

_OF_REAL_ROWS = {"against", "labels"}


def compare_corpora(
    corpora: Mapping[str, Corpus],
    *,
    against: Corpus | None = None,
    encoder: Encoder | None = None,
    metrics: Sequence[str | Metric] | None = None,
    rows: int | None = None,
    words: int | None = None,
    match_lengths: bool = True,
    draws: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Diversity, shift and quality of corpora at equal numbers of rows and matched lengths, and the differences.

    Nearly every diversity number changes with the number of rows and with the length of texts. So every corpus
    is rarefied to the same number of rows, whole groups first; rows are drawn alike from each stratum of word
    count where the corpora's lengths overlap enough; and the lexical numbers of diversity are those of the first
    ``words`` words of each text. Numbers of meaning, shift and quality, and lexical numbers that are not of
    diversity (mean words), are those of full texts. A number is the mean over ``draws`` draws, with an interval
    for the expectation of n rows of whatever the corpus is a sample of (see ``mean_of_draws``). A corpus that has
    exactly n rows is measured once, and the numbers that need the real rows are measured on the first draw
    only: they cost most, and p-values have no mean. Every text is embedded once.

    Args:
        corpora: name -> corpus, at least two; differences are to the first one.
        against: the real training rows: adds shift and label agreement. A corpus that *is* these rows has none.
        encoder: of the texts; None loads the default one where a metric needs vectors.
        metrics: as in ``measure_corpus``; held-out texts are not taken, so there is no leakage.
        rows: of each corpus; None takes as many as possible.
        words: of each text for lexical numbers of diversity; None takes the smallest median of the corpora.
        match_lengths: draw equal numbers of rows from each stratum of word count; where that is not possible,
            the notes say why.
        draws: of a corpus that has more than n rows.
        seed: of draws, jackknife bins, permutations and probes.
        progress: called with the draws done and all draws.

    Raises:
        ConfigError: no metric of that name.
        InputError: a text that the encoder has no vector for.
        ValueError: fewer than two corpora, an empty one, ``rows``, ``words`` or ``draws`` out of range, or a
            metric asked for that is not defined or whose needs are not met.
    """
    _check_arguments(corpora, words, draws)
    wanted = pick_defined(metrics, list(corpora.values()), against)
    counts = {name: count_words(corpus) for name, corpus in corpora.items()}
    plan = plan_rows(counts, rows=rows, match_lengths=match_lengths)
    known = _embed_all(corpora, against, encoder, wanted)
    protocol = Protocol(
        metrics=wanted, against=against, encoder=known, words=_choose_words(words, counts, wanted), draws=draws,
        seed=seed,
    )  # fmt: skip
    total = sum(protocol.draws_of(corpus, plan) for corpus in corpora.values())
    tick = _count_ticks(progress, total)
    drawn = {name: measure_draws(name, c, counts[name], plan, protocol, tick) for name, c in corpora.items()}
    values = _gather(wanted, drawn, asked=are_named(metrics))
    samples = {name: numbers.word_counts for name, numbers in drawn.items()}
    return Comparison(
        names=tuple(corpora),
        rows=plan.rows,
        draws=draws if total > len(corpora) else 1,
        words=protocol.words,
        values=values,
        differences={name: subtract_first(estimates) for name, estimates in values.items()},
        length_difference=standardised_difference(list(samples.values())),
        notes=(
            *plan.notes,
            *note_lengths(samples),
            *note_cut_lengths(samples, protocol.words),
            *note_labels(corpora),
            *_note_real(corpora, protocol),
        ),
        encoder="none" if known is None else known.name,
        encoder_hash="" if known is None else known.hash,
        fingerprints=tuple(corpus.fingerprint for corpus in corpora.values()),
        against=None if against is None else against.fingerprint,
        seed=seed,
    )


def _check_arguments(corpora: Mapping[str, Corpus], words: int | None, draws: int) -> None:
    if len(corpora) < 2:
        raise ValueError(f"corpora has the names {list(corpora)!r}; a comparison needs at least two")
    for name, corpus in corpora.items():
        if len(corpus) == 0:
            raise ValueError(f"corpus {name!r} has no rows; there is nothing to compare")
    if words is not None and words < 1:
        raise ValueError(f"words is {words!r}; give a whole number of at least 1")
    if draws < 1:
        raise ValueError(f"draws is {draws!r}; give a whole number of at least 1")


def _embed_all(
    corpora: Mapping[str, Corpus], against: Corpus | None, encoder: Encoder | None, metrics: Sequence[Metric]
) -> Encoder | None:
    """Vectors of all texts, if a metric needs them; every row is checked to have one, drawn or not."""
    if not any("vectors" in metric.needs for metric in metrics):
        return encoder
    needed = [*corpora.values()]
    if against is not None and any(needs_real_rows(metric) for metric in metrics):
        needed.append(against)
    known = KnownVectors(encoder or load_encoder(), (text for corpus in needed for text in corpus.texts))
    for name, corpus in corpora.items():
        try:
            _ = Subject(corpus=corpus, encoder=known).unit
        except InputError as exc:
            raise InputError(f"corpus {name!r}: {exc}") from exc
    return known


def _choose_words(words: int | None, counts: Mapping[str, Counts], metrics: Sequence[Metric]) -> int | None:
    """What texts are cut to; None where that cuts nothing, or nothing is measured on cut texts."""
    if not any(reads_cut_texts(metric) for metric in metrics):
        return None
    chosen = words or max(1, int(min(np.median(sample) for sample in counts.values())))
    return chosen if any(int(sample.max()) > chosen for sample in counts.values()) else None


def _gather(
    metrics: Sequence[Metric], drawn: Mapping[str, DrawnNumbers], *, asked: bool
) -> dict[str, tuple[Estimate | None, ...]]:
    out: dict[str, tuple[Estimate | None, ...]] = {}
    for metric in metrics:
        estimates = tuple(numbers.values.get(metric.name) for numbers in drawn.values())
        if any(estimates):
            out[metric.name] = estimates
        elif asked:
            raise ValueError(f"metric {metric.name!r} is not defined on these rows; leave it out")
    return out


def _note_real(corpora: Mapping[str, Corpus], protocol: Protocol) -> tuple[str, ...]:
    real = protocol.against
    if real is None or not any(needs_real_rows(metric) for metric in protocol.metrics):
        return ()
    return tuple(
        f"{name} is the real data itself: it has no shift and no label agreement here"
        for name, corpus in corpora.items()
        if corpus.fingerprint == real.fingerprint
    )


def _count_ticks(progress: Progress | None, total: int) -> Callable[[], None]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return tick


# --- one corpus, draw by draw ---
class PointSubject(Subject):
    """A subject measured without intervals: with a single jackknife bin there is nothing to leave out.

    The jackknife is nearly all of the time that a draw takes, and its variance is much the same in every draw.
    """

    @cached_property
    def bins(self) -> NDArray[np.int64]:
        """One bin for all rows, shape (n,)."""
        return np.zeros(self.n, dtype=np.int64)

    @cached_property
    def against_bins(self) -> NDArray[np.int64]:
        """One bin for all real rows, shape (m,)."""
        return np.zeros(len(self.real), dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What is measured of each draw: the same for every corpus of a comparison.

    Attributes:
        metrics: to measure.
        against: the real training rows.
        encoder: of the texts.
        words: that lexical numbers of diversity are cut to; None cuts nothing.
        draws: of a corpus that has more rows than are compared.
        seed: of draws, bins, permutations and probes.
    """

    metrics: tuple[Metric, ...]
    against: Corpus | None
    encoder: Encoder | None
    words: int | None
    draws: int
    seed: int

    def draws_of(self, corpus: Corpus, plan: RowPlan) -> int:
        """Draws of this corpus: one where all of its rows are compared."""
        return 1 if len(corpus) == plan.rows else self.draws


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnNumbers:
    """The numbers of one corpus, and the word counts of all rows they are of."""

    values: Mapping[str, Estimate]
    word_counts: Counts


def measure_draws(
    name: str, corpus: Corpus, word_counts: Counts, plan: RowPlan, protocol: Protocol, tick: Callable[[], None]
) -> DrawnNumbers:
    """Every number as the mean over draws; those that need the real rows from the first draw.

    Args:
        name: of the corpus in ``plan``.
        corpus: to draw from.
        word_counts: words of each of its rows.
        plan: how many rows, of which lengths.
        protocol: what is measured.
        tick: called after each draw.
    """
    is_real = protocol.against is not None and protocol.against.fingerprint == corpus.fingerprint
    cut = corpus if protocol.words is None else _cut_texts(corpus, protocol.words)
    found: dict[str, list[Estimate | None]] = {}
    drawn: list[Counts] = []
    for number in range(protocol.draws_of(corpus, plan)):
        rows = plan.pick(name, corpus, derive_seed(protocol.seed, "rarefaction", number))
        kind = Subject if number == 0 else PointSubject
        full, short = (
            kind(corpus=whole.take(rows), against=protocol.against, encoder=protocol.encoder, seed=protocol.seed)
            for whole in (corpus, cut)
        )
        for metric in protocol.metrics:
            if needs_real_rows(metric) and (is_real or number > 0):
                continue
            found.setdefault(metric.name, []).append(metric.compute(short if reads_cut_texts(metric) else full))
        drawn.append(word_counts[rows])
        tick()
    fraction = plan.fraction(name, corpus)
    values = {}
    for metric in protocol.metrics:
        estimates = [e for e in found.get(metric.name, []) if e is not None]
        if estimates and len(estimates) == len(found[metric.name]):
            mean = mean_of_draws(estimates, fraction=fraction, size=len(corpus))
            values[metric.name] = _state_words(mean, metric, protocol.words)
    return DrawnNumbers(values=values, word_counts=np.concatenate(drawn))


def needs_real_rows(metric: Metric) -> bool:
    """Whether the metric holds the corpus against the real training rows."""
    return bool(_OF_REAL_ROWS & set(metric.needs))


def reads_cut_texts(metric: Metric) -> bool:
    """Whether the number is one of lexical diversity, so that texts are cut to equal length for it."""
    return metric.family == "lexical" and metric.better.startswith((MORE, LESS))


def count_words(corpus: Corpus) -> Counts:
    """Words of each row, shape (n,)."""
    return np.array([len(split_tokens(text)) for text in corpus.texts], dtype=np.int64)


def _cut_texts(corpus: Corpus, words: int) -> Corpus:
    place = corpus.table.schema.get_field_index("text")
    cut = pa.array([truncate_words(text, words) for text in corpus.texts], type=pa.string())
    return Corpus(corpus.table.set_column(place, corpus.table.schema.field(place), cut), corpus.task)


def _state_words(estimate: Estimate, metric: Metric, words: int | None) -> Estimate:
    if words is None or not reads_cut_texts(metric):
        return estimate
    return replace(estimate, settings={**estimate.settings, "words": words})
