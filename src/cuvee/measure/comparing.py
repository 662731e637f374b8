"""Corpora measured side by side so that their numbers compare: equal rows, matched lengths, one encoder; a ranking."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cuvee.corpus import Corpus, end_of_tokens, split_tokens
from cuvee.encoders import Encoder, KnownVectors, load_encoder
from cuvee.errors import InputError, TrainingError
from cuvee.fingerprint import derive_rng, derive_seed
from cuvee.measure import shift, surface
from cuvee.measure.findings import MOST, find_findings
from cuvee.measure.intervals import mean_of_draws, subtract_first
from cuvee.measure.measuring import are_named, pick_defined, pick_groups
from cuvee.measure.subject import LESS, MORE, Metric, PointSubject, Subject
from cuvee.probe import fit_probe
from cuvee.records import Comparison, Estimate, Finding, PoolRank, Progress, Ranking
from cuvee.similarity import nearest_margins, nearest_neighbours, spectrum, vendi_score

_OF_REAL_ROWS = {"against", "labels"}
Counts = NDArray[np.int64]
MAX_STRATA = 8
ROWS_A_STRATUM = 10
NOTABLE_LENGTHS = 0.1  # a standardised mean difference below it counts as balanced (Austin 2009, Stat Med 28)
NOTABLE_LABELS = 0.1
_QUANTILES = 1000


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
    total, done = sum(protocol.draws_of(corpus, plan) for corpus in corpora.values()), itertools.count(1)

    def tick() -> None:
        if progress is not None:
            progress(next(done), total)

    drawn = {name: measure_draws(name, c, counts[name], plan, protocol, tick) for name, c in corpora.items()}
    values = _gather(wanted, drawn, asked=are_named(metrics))
    samples = {name: numbers.word_counts for name, numbers in drawn.items()}
    found = Comparison(
        names=tuple(corpora),
        rows=plan.rows,
        draws=draws if total > len(corpora) else 1,
        words=protocol.words,
        values=values,
        differences={name: subtract_first(estimates) for name, estimates in values.items()},
        length_difference=standardised_difference(list(samples.values())),
        notes=(
            *plan.notes,
            *note_lengths(samples, protocol.words),
            *note_labels(corpora),
            *_note_real(corpora, protocol),
        ),
        encoder="none" if known is None else known.name,
        encoder_hash="" if known is None else known.hash,
        fingerprints=tuple(corpus.fingerprint for corpus in corpora.values()),
        against=None if against is None else against.fingerprint,
        seed=seed,
    )
    pools = {name: corpus for name, corpus in corpora.items() if against is None or not _is_same(corpus, against)}
    ranking = None
    if against is not None and known is not None and metrics is None and len(pools) > 1:
        ranking = rank_pools(pools, against=against, encoder=known, comparison=found, seed=seed)
    told = [replace(f, sentence=f"{n}: {f.sentence}") for n, numbers in drawn.items() for f in numbers.findings]
    told.sort(key=lambda finding: -finding.severity)
    first = [] if ranking is None else [ranking.finding]
    return replace(found, ranking=ranking, findings=(*first, *told[: MOST - len(first)]))


def _is_same(corpus: Corpus, other: Corpus) -> bool:
    return corpus.fingerprint == other.fingerprint


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
        if _is_same(corpus, real)
    )


# --- one corpus, draw by draw ---
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
    """The numbers of one corpus, the word counts of all rows they are of, and what is wrong with the first draw."""

    values: Mapping[str, Estimate]
    word_counts: Counts
    findings: tuple[Finding, ...] = ()


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
    is_real = protocol.against is not None and _is_same(corpus, protocol.against)
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
        if number == 0:
            values = {name: first for name, (first, *_) in found.items() if first is not None}
            findings = tuple(finding for finding in find_findings(full, values) if finding.severity > 0)
        drawn.append(word_counts[rows])
        tick()
    fraction = plan.fraction(name, corpus)
    means = {}
    for metric in protocol.metrics:
        estimates = [e for e in found.get(metric.name, []) if e is not None]
        if estimates and len(estimates) == len(found[metric.name]):
            mean = mean_of_draws(estimates, fraction=fraction, size=len(corpus))
            if protocol.words is not None and reads_cut_texts(metric):
                mean = replace(mean, settings={**mean.settings, "words": protocol.words})
            means[metric.name] = mean
    return DrawnNumbers(values=means, word_counts=np.concatenate(drawn), findings=findings)


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
    """Each text up to the end of its first words; one that has no more comes back whole, closing punctuation too."""
    place = corpus.table.schema.get_field_index("text")
    cut = pa.array([text[: end_of_tokens(text, words)] for text in corpus.texts], type=pa.string())
    return Corpus(corpus.table.set_column(place, corpus.table.schema.field(place), cut), corpus.task)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlan:
    """How rows are drawn from each corpus.

    Attributes:
        rows: of each corpus in the comparison.
        strata: corpus -> stratum of word count of each row, shape (rows of the corpus,); empty where lengths
            are not matched.
        quota: rows to draw from each stratum, shape (strata,), the same for every corpus; empty likewise.
        notes: why lengths could not be matched.
    """

    rows: int
    strata: Mapping[str, Counts]
    quota: Counts
    notes: tuple[str, ...] = ()

    def pick(self, name: str, corpus: Corpus, seed: int) -> Counts:
        """A draw: ``rows`` rows of the corpus in order, whole groups first; all where it has no more."""
        if name not in self.strata or len(corpus) == self.rows:
            return pick_groups(corpus, self.rows, seed=seed)
        return _pick_matched(corpus, self.strata[name], self.quota, seed)

    def fraction(self, name: str, corpus: Corpus) -> float:
        """Fraction of the corpus that a draw uses, weighted by where its rows come from.

        A stratum that is used up gives every draw the same rows, so its share of the draw counts in full:
        ``sum_s (n_s / n) (n_s / N_s)``, which is n / N where nothing is matched.
        """
        if name not in self.strata:
            return self.rows / len(corpus)
        held = np.bincount(self.strata[name], minlength=len(self.quota))
        return float(np.sum(self.quota * (self.quota / held)) / self.rows)


def plan_rows(word_counts: Mapping[str, Counts], *, rows: int | None, match_lengths: bool) -> RowPlan:
    """Equal rows for every corpus and, where the corpora's lengths overlap enough, equal rows of each length.

    Lengths are matched in strata of word count: at most 8 quantile bins of all corpora pooled (each corpus
    with equal weight), of at least ten rows on average in the smallest. Every corpus then gives as many rows
    of a stratum as the corpus that has fewest of it. They are not matched, and a note says so, where a corpus
    has no rows in a stratum, where it would cost more than half of the smallest corpus, or where more ``rows``
    are asked for than can be matched.

    Args:
        word_counts: corpus -> words of each row.
        rows: of each corpus; None takes as many as possible.
        match_lengths: whether to match at all.

    Raises:
        ValueError: ``rows`` below 1 or above the smallest corpus.
    """
    smallest = min(len(counts) for counts in word_counts.values())
    if rows is not None and not 1 <= rows <= smallest:
        raise ValueError(f"rows is {rows!r}; the smallest corpus has {smallest}, give 1 to {smallest}")
    free = rows or smallest
    strata = _stratify(word_counts, min(MAX_STRATA, smallest // ROWS_A_STRATUM)) if match_lengths else {}
    count = 1 + max((int(s.max()) for s in strata.values()), default=0)
    if count < 2:
        return RowPlan(rows=free, strata={}, quota=np.zeros(0, dtype=np.int64))
    held = {name: np.bincount(s, minlength=count) for name, s in strata.items()}
    quota = np.min(list(held.values()), axis=0).astype(np.int64)
    if obstacle := _find_obstacle(word_counts, strata, held, rows):
        note = f"lengths not matched: {obstacle}"
        return RowPlan(rows=free, strata={}, quota=np.zeros(0, dtype=np.int64), notes=(note,))
    shared = quota if rows is None else _share_out(quota, rows)
    return RowPlan(rows=int(shared.sum()), strata=strata, quota=shared)


def standardised_difference(samples: Sequence[Counts]) -> float:
    """Largest standardised difference of mean word counts between two samples: means over the pooled deviation.

    ``|m1 - m2| / sqrt((s1^2 + s2^2) / 2)`` (Austin 2009, Statistics in Medicine 28); infinite for different means
    without any spread.
    """
    largest = 0.0
    for one, other in itertools.combinations(samples, 2):
        apart = abs(float(one.mean()) - float(other.mean()))
        spread = float(np.sqrt((one.var() + other.var()) / 2))
        if apart > 0:
            largest = max(largest, apart / spread if spread > 0 else float("inf"))
    return largest


def note_lengths(samples: Mapping[str, Counts], words: int | None = None) -> tuple[str, ...]:
    """Notes where the word counts of the rows compared differ notably, whole or cut to ``words`` (None: not cut).

    Args:
        samples: corpus -> words of each row drawn.
        words: that lexical numbers of diversity are of; many texts may be shorter.
    """
    notes = []
    if (difference := standardised_difference(list(samples.values()))) > NOTABLE_LENGTHS:
        by = f"by {difference:.2g} standard deviations" if np.isfinite(difference) else "in every row"
        notes.append(
            f"lengths differ {by} (mean words: {_list_means(samples)}): numbers of "
            "full texts, such as those of meaning, may differ for that alone"
        )
    cut = {} if words is None else {name: np.minimum(counts, words) for name, counts in samples.items()}
    if standardised_difference(list(cut.values())) > NOTABLE_LENGTHS:
        notes.append(
            f"cut to {words} words, texts still differ in length (mean words: {_list_means(cut)}); give fewer words"
        )
    return tuple(notes)


def note_labels(corpora: Mapping[str, Corpus]) -> tuple[str, ...]:
    """A note where classification corpora have different labels, or shares of labels.

    Labels are not balanced silently: a pool that covers fewer labels *is* less diverse, and whoever wants
    diversity within labels compares label by label.
    """
    if not all(corpus.has_labels for corpus in corpora.values()):
        return ()
    shares = {name: {k: v / len(c) for k, v in c.label_counts().items()} for name, c in corpora.items()}
    largest, note = NOTABLE_LABELS, ""
    for one, other in itertools.combinations(shares, 2):
        labels = sorted({*shares[one], *shares[other]})
        gaps = [shares[one].get(label, 0.0) - shares[other].get(label, 0.0) for label in labels]
        apart = sum(abs(gap) for gap in gaps) / 2
        if apart > largest:
            at = int(np.argmax(np.abs(gaps)))
            ours, theirs = (f"{100 * shares[name].get(labels[at], 0.0):.0f}% of {name}" for name in (one, other))
            largest = apart
            note = (
                f"labels are not balanced: {labels[at]!r} is {ours} and {theirs}; "
                "give corpora of equal label counts to compare diversity within labels"
            )
    return (note,) if note else ()


def _list_means(samples: Mapping[str, Counts]) -> str:
    return ", ".join(f"{name} {counts.mean():.1f}" for name, counts in samples.items())


def _stratify(word_counts: Mapping[str, Counts], bins: int) -> dict[str, Counts]:
    """Stratum of each row by quantiles of word count over all corpora of equal weight; none below two bins."""
    if bins < 2:
        return {}
    levels = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    pooled = np.concatenate([np.quantile(c, levels, method="inverted_cdf") for c in word_counts.values()])
    edges = np.unique(np.quantile(pooled, np.arange(1, bins) / bins, method="inverted_cdf"))
    raw = {name: np.searchsorted(edges, counts, side="left") for name, counts in word_counts.items()}
    used = np.unique(np.concatenate(list(raw.values())))  # a stratum that no corpus has is none
    return {name: np.searchsorted(used, strata).astype(np.int64) for name, strata in raw.items()}


def _find_obstacle(
    word_counts: Mapping[str, Counts], strata: Mapping[str, Counts], held: Mapping[str, Counts], rows: int | None
) -> str:
    """Why lengths cannot be matched; empty where they can."""
    possible, smallest = int(np.min(list(held.values()), axis=0).sum()), min(map(len, word_counts.values()))
    for name, counts in held.items():
        for empty in np.flatnonzero(counts == 0).tolist():
            there = np.concatenate([word_counts[k][strata[k] == empty] for k in held])
            least, most = there.min(), there.max()
            return f"{name} has no text of {least if least == most else f'{least} to {most}'} words"
    if 2 * possible < smallest:
        return f"only {possible} of {smallest} rows would be left"
    if rows is not None and rows > possible:
        return f"that is possible for at most {possible} rows, and {rows} were asked for"
    return ""


def _share_out(quota: Counts, rows: int) -> Counts:
    """``rows`` over the strata in proportion to ``quota``, by largest remainders."""
    exact = quota * (rows / quota.sum())
    out = np.floor(exact).astype(np.int64)
    left = rows - int(out.sum())
    out[np.argsort(out - exact, kind="stable")[:left]] += 1
    shared: Counts = np.minimum(out, quota)
    return shared


def _pick_matched(corpus: Corpus, strata: Counts, quota: Counts, seed: int) -> Counts:
    """``quota`` rows of each stratum, in order: groups in one seeded order for all strata."""
    rng = derive_rng(seed, "matched-rows")
    names = list(dict.fromkeys(corpus.groups))
    place = dict(zip(names, rng.permutation(len(names)).tolist(), strict=True))
    of_group = np.array([place[group] for group in corpus.groups])
    order = np.lexsort((rng.permutation(len(corpus)), of_group))
    taken = [order[strata[order] == s][:wanted] for s, wanted in enumerate(quota.tolist())]
    return np.sort(np.concatenate(taken))


# --- ranking pools before anything is trained ---
RANKED_ROWS = 2_000
WEIGHTS = {"covers": 1.0, "agrees": 0.1, "diversity": 0.1, "unique": 0.1, "labels_off": -0.4}
UNLABELLED = {"diversity": 1.0, "unique": 1.0, "unlike": -1.0, "reach": 1.0}
# Pools within this score of the best are advised, of at least two and at most three.
CLOSE, FEWEST_ADVISED, MOST_ADVISED = 0.05, 2, 3
LACK, SHOWN = 0.15, 5
_NUMBERS: Mapping[str, tuple[str, Callable[[Subject], Estimate | None]]] = {
    "repeats": ("exact_duplicate_rate", surface.measure_exact_duplicates),
    "auc": ("c2st", shift.measure_c2st),
    "agrees": ("label_agreement", surface.measure_label_agreement),
    "labels_off": ("label_distance", surface.measure_label_distance),
    "reach": ("recall", partial(shift.measure_manifold, part="recall")),
}


def rank_pools(
    pools: Mapping[str, Corpus],
    *,
    against: Corpus,
    encoder: Encoder | None = None,
    comparison: Comparison | None = None,
    seed: int = 0,
) -> Ranking:
    """Pools from the one that should gain most to the one that should gain least, at equal rows.

    With labels the score is ``covers + 0.1 agrees + 0.1 min(1, diversity) + 0.1 unique - 0.4 labels_off``: the
    accuracy on the real rows of a probe that is trained on the pool, that on the pool of a probe of the real rows, the
    Vendi score over that of as many real rows, the share of rows that repeat no other, and the distance of the
    shares of labels. The weights were chosen on real pools with known gains (benchmarks/ranking.py), where shift of the
    texts got none. Without labels it is ``min(1, diversity) + unique - unlike + reach``, all with one weight, and not
    tested: how well a classifier tells the rows from real ones, 0 to 1, and the share of real rows within
    5-nearest-neighbour reach.

    Args:
        pools: name -> pool, at least one.
        against: the real training rows. No held-out row is needed, and none is looked at.
        encoder: of the texts; None loads the default one.
        comparison: of the same pools, whose numbers are used and not computed again.
        seed: of the rows that are drawn.
    """
    if encoder is None:
        encoder = KnownVectors(load_encoder(), [t for corpus in (*pools.values(), against) for t in corpus.texts])
    rows = min(RANKED_ROWS, *(len(pool) for pool in pools.values()))
    found, labelled = list[PoolRank](), len(against.labels) > 1 and any(pool.has_labels for pool in pools.values())
    nearest = np.full(len(against), -1.0)
    for name, pool in pools.items():
        drawn = pool.take(np.sort(derive_rng(seed, "ranking").permutation(len(pool))[:rows]))
        subject = PointSubject(corpus=drawn, against=against, encoder=encoder, seed=seed, permutations=0)
        numbers = _measure(subject, {} if comparison is None else _values_of(comparison, name), labelled=labelled)
        weights = WEIGHTS if "covers" in numbers else UNLABELLED
        cut = {**numbers, "diversity": min(1.0, numbers["diversity"])}
        score = sum(weight * cut.get(key, 0.0) for key, weight in weights.items())
        found.append(PoolRank(name=name, score=score, numbers=numbers, reason=_write_reason(numbers, pool)))
        whole = PointSubject(corpus=pool, encoder=encoder).unit
        nearest = np.maximum(nearest, nearest_neighbours(subject.against_unit, whole).cosine)
    found.sort(key=lambda pool: -pool.score)
    advised = [pool.name for pool in found[:MOST_ADVISED] if pool.score >= found[0].score - CLOSE]
    advised = advised if len(advised) >= FEWEST_ADVISED else [pool.name for pool in found[:FEWEST_ADVISED]]
    real = subject.against_unit
    other, _ = nearest_margins(real, real, itself=np.arange(len(real)))
    own = np.einsum("ij,ij->i", real, real[other])
    lacking = [int(i) for i in np.argsort(nearest - own) if nearest[i] < own[i] - LACK]
    return Ranking(
        pools=tuple(found),
        advised=tuple(advised),
        rows=rows,
        lacking=tuple(against.texts[i] for i in lacking[:SHOWN]),
        lacking_share=len(lacking) / len(against),
    )


def _values_of(comparison: Comparison, name: str) -> dict[str, float]:
    at = comparison.names.index(name)
    return {metric: e.value for metric, values in comparison.values.items() if (e := values[at]) is not None}


def _measure(subject: Subject, known: Mapping[str, float], *, labelled: bool) -> dict[str, float]:
    """The numbers that the score is made of; those of labels only where the real rows and a pool have some."""
    rng, real, corpus = derive_rng(subject.seed, "ranking-real"), subject.real, subject.corpus
    rows = min(subject.n, len(real))
    ours, theirs = (unit[rng.permutation(len(unit))[:rows]] for unit in (subject.unit, subject.against_unit))
    found = {"diversity": vendi_score(spectrum(ours)) / vendi_score(spectrum(theirs))}
    for key, (metric, measure) in _NUMBERS.items():
        if key in ("agrees", "labels_off") if not labelled else key == "reach":
            continue
        estimate = None if metric in known else measure(subject)
        if metric in known or estimate is not None:
            found[key] = known[metric] if estimate is None else estimate.value
    found["unique"] = 1.0 - found.get("repeats", 0.0)
    found["unlike"] = 2.0 * abs(found.get("auc", 0.5) - 0.5)
    if labelled:
        try:
            said = fit_probe(subject.unit, corpus.targets).predict(subject.against_unit)
            found["covers"] = float(np.mean(np.array(said) == np.array(real.targets)))
        except TrainingError:  # rows of one label
            found["covers"] = float(np.mean(np.array(real.targets) == corpus.targets[0]))
    return found


def _write_reason(numbers: Mapping[str, float], pool: Corpus) -> str:
    said = f"{100 * numbers['covers']:.0f}% of the real labels follow from it" if "covers" in numbers else ""
    parts = ["has no labels"] if said and not pool.has_labels else [said] if said else []
    parts += [f"{100 * numbers['agrees']:.0f}% of its labels agree"] if "agrees" in numbers else []
    parts += [f"{numbers['diversity']:.2g} times as diverse as real rows"]
    parts += [f"{100 * numbers['repeats']:.2g}% repeat others"] if numbers.get("repeats", 0.0) >= 0.005 else []
    parts += [f"told from real rows {100 * numbers['auc']:.0f}% of the time"] if "auc" in numbers else []
    parts += [f"shares of labels {numbers['labels_off']:.2g} off"] if numbers.get("labels_off", 0.0) > 0.1 else []
    return ", ".join(parts)
