"""One corpus of a comparison, measured draw by draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from cuvee.corpus import Corpus
from cuvee.defects import split_tokens
from cuvee.encoders import Encoder
from cuvee.fingerprint import derive_seed
from cuvee.measure.compare.matching import Counts, RowPlan
from cuvee.measure.compare.rarefaction import PointSubject, mean_of_draws
from cuvee.measure.lexical.truncation import truncate_words
from cuvee.measure.subject import LESS, MORE, Metric, Subject
from cuvee.records import Estimate

_OF_REAL_ROWS = {"against", "labels"}


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
