"""Corpora measured side by side so that their numbers compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cuvee.corpus import Corpus
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import InputError
from cuvee.measure.compare.draws import (
    DrawnNumbers,
    Protocol,
    count_words,
    measure_draws,
    needs_real_rows,
    reads_cut_texts,
)
from cuvee.measure.compare.matching import (
    Counts,
    note_cut_lengths,
    note_labels,
    note_lengths,
    plan_rows,
    standardised_difference,
)
from cuvee.measure.compare.rarefaction import subtract_first
from cuvee.measure.compare.wanted import pick_metrics
from cuvee.measure.known_vectors import KnownVectors
from cuvee.measure.metrics import are_named
from cuvee.measure.subject import Metric, Subject
from cuvee.records import Comparison, Estimate
from cuvee.similarity import Progress


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
    wanted = pick_metrics(metrics, corpora, against)
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
