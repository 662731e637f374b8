"""What examples and parts add to diversity: each example, and what lies within and between parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cuvee import similarity
from cuvee.corpus import Corpus, normalise_text
from cuvee.encoders import Encoder, load_encoder
from cuvee.measure.intervals import Settings, estimate_by_jackknife
from cuvee.measure.subject import NEAR_DUPLICATE, Subject
from cuvee.records import Decomposition, Estimate, ExampleScores, SampleRow, Vectors

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def score_examples(corpus: Corpus | Subject, *, encoder: Encoder | None = None, tau: float = 0.1) -> ExampleScores:
    """Uniqueness, marginal DCScore, surprisal and nearest other example of every example. O(n^2).

    Args:
        corpus: the examples, or a subject whose vectors are used.
        encoder: of the texts; None loads the default one. Not used with a subject.
        tau: of the kernel.

    Raises:
        ValueError: no rows, or a tau that is not positive.
    """
    subject = corpus if isinstance(corpus, Subject) else Subject(corpus=corpus, encoder=encoder or load_encoder())
    if subject.n == 0:
        raise ValueError("corpus has no rows; there is nothing to score")
    return similarity.score_rows(subject.unit, tau, threshold=NEAR_DUPLICATE, ids=subject.corpus.ids)


def tabulate_examples(corpus: Corpus, scores: ExampleScores) -> pa.Table:
    """One row an example: id, text, target, its scores, and the id, text and cosine of its nearest other example."""
    near = pa.array(scores.nearest, mask=scores.nearest < 0)
    return pa.table(
        {
            "id": corpus.table["id"],
            "text": corpus.table["text"],
            "target": corpus.table["target"],
            "uniqueness": scores.uniqueness,
            "added": scores.added,
            "surprisal": scores.surprisal,
            "nearest_id": corpus.table["id"].take(near),
            "nearest_text": corpus.table["text"].take(near),
            "nearest_cosine": scores.nearest_cosine,
            "cluster": corpus.table["id"].take(pa.array(scores.cluster)),
        }
    )


def pick_extremes(
    corpus: Corpus, scores: ExampleScores, *, count: int = 8
) -> tuple[tuple[SampleRow, ...], tuple[SampleRow, ...]]:
    """The most redundant examples, lowest uniqueness first, and the most novel, highest marginal DCScore first.

    One example of each cluster of near-duplicates and of each text (up to case and punctuation), so that the list
    is not one text many times. No cluster stands in both lists, and each list has at most half of the clusters.

    Args:
        corpus: the examples that ``scores`` are of.
        scores: from ``score_examples``.
        count: most examples a list.
    """
    ids = np.asarray(scores.ids)
    each = min(count, max(1, len(np.unique(scores.cluster)) // 2))
    redundant = _first_of_each(corpus, scores, np.lexsort((ids, scores.added, scores.uniqueness)), each, set())
    taken = {int(scores.cluster[row]) for row in redundant}
    novel = _first_of_each(corpus, scores, np.lexsort((ids, -scores.uniqueness, -scores.added)), each, taken)
    return _sample(corpus, scores, redundant), _sample(corpus, scores, novel)


def _first_of_each(
    corpus: Corpus, scores: ExampleScores, order: Iterable[np.int64], count: int, taken: set[int]
) -> list[int]:
    """The first ``count`` rows of ``order``, one of each cluster that is not ``taken`` and one of each text."""
    clusters, texts, out = set(taken), set[str](), list[int]()
    for row in (int(i) for i in order):
        cluster, text = int(scores.cluster[row]), normalise_text(corpus.texts[row])
        if cluster in clusters or text in texts:
            continue
        clusters.add(cluster)
        texts.add(text)
        out.append(row)
        if len(out) == count:
            break
    return out


def _sample(corpus: Corpus, scores: ExampleScores, rows: Iterable[int]) -> tuple[SampleRow, ...]:
    return tuple(
        SampleRow(
            id=corpus.ids[row],
            text=corpus.texts[row],
            target=corpus.targets[row],
            uniqueness=float(scores.uniqueness[row]),
            added=float(scores.added[row]),
            nearest_text=corpus.texts[int(scores.nearest[row])] if scores.nearest[row] >= 0 else "",
            nearest_cosine=float(scores.nearest_cosine[row]),
        )
        for row in rows
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """A diversity, and the same with each of all bins left out; nan where no row is left."""

    value: float
    without: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class _Diversity:
    """A diversity of rows. ``measure`` gives it of all rows, and with each of their bins left out."""

    name: str
    settings: Settings
    measure: Callable[[Vectors, Ints], tuple[float, Sequence[float] | Floats]]

    def of(self, unit: Vectors, bins: Ints, count: int) -> _Found:
        """Of rows that may lack some of ``count`` bins: leaving out a bin that they lack changes nothing."""
        present, local = np.unique(bins, return_inverse=True)
        value, left = self.measure(unit, local)
        without = np.full(count, value)
        without[present] = left if len(present) > 1 else np.nan
        return _Found(value, without)


def _vendi() -> _Diversity:
    """The Vendi score of order 1, through the spectrum."""

    def measure(unit: Vectors, bins: Ints) -> tuple[float, list[float]]:
        left = similarity.spectra_without(unit, bins) if bins.any() else []
        return similarity.vendi_score(similarity.spectrum(unit), 1.0), [
            similarity.vendi_score(values, 1.0) for values in left
        ]

    return _Diversity(name="vendi_q1", settings={"q": 1.0, "kernel": "cosine"}, measure=measure)


def _kernel(tau: float, q: float) -> _Diversity:
    """The Leinster-Cobbold diversity of order 0 (DCScore) or 1, through row sums."""

    def measure(unit: Vectors, bins: Ints) -> tuple[float, Floats]:
        sums = similarity.row_sums(unit, [similarity.Exponential(tau)], bins=bins)[0]
        return similarity.kernel_diversity(sums.total, q), similarity.kernel_diversity_without(sums, bins, q)

    name, order = (f"lc_q1_tau{tau:g}", {"q": q}) if q else (f"dcscore_tau{tau:g}", {})
    return _Diversity(name=name, settings={**order, "tau": tau, "kernel": "cosine"}, measure=measure)


# --- within and between -------------------------------------------------------------------------------
def decompose_diversity(subject: Subject, parts: Sequence[str], *, tau: float = 0.1) -> tuple[Decomposition, ...]:
    """Diversity of order 1 within and between parts, such as ``corpus.targets`` or ``corpus.origins``.

    For the Vendi score the logarithm of ``within`` is the mean von Neumann entropy of the parts, weighted by
    their rows, and that of ``between`` the Holevo information. For the Leinster-Cobbold diversity with the
    similarity ``exp((cos - 1) / tau)`` they are the normalised alpha and beta of Reeve et al. 2016
    (arXiv 1404.6520). Order 1 is the one order at which total = within * between holds for parts of any size.
    Intervals are jackknifed over groups, the shares of the parts among what varies.

    Args:
        subject: the rows.
        parts: name of each row's part.
        tau: of the Leinster-Cobbold similarity.

    Returns:
        the decompositions ``vendi_q1`` and ``lc_q1_tau...``.
    """
    labels = np.asarray(parts)
    members = {str(name): np.flatnonzero(labels == name) for name in sorted(set(parts))}
    return tuple(_decompose(diversity, subject, members) for diversity in (_vendi(), _kernel(tau, 1.0)))


def _decompose(diversity: _Diversity, subject: Subject, members: Mapping[str, Ints]) -> Decomposition:
    bins, count = subject.bins, int(subject.bins.max()) + 1
    total = diversity.of(subject.unit, bins, count)
    parts = {part: diversity.of(subject.unit[rows], bins[rows], count) for part, rows in members.items()}
    rows_left = np.array([len(rows) - np.bincount(bins[rows], minlength=count) for rows in members.values()])
    logs_left = np.array([np.log(found.without) for found in parts.values()])
    rows = np.array([len(r) for r in members.values()])
    within = float(np.exp(rows @ np.log([found.value for found in parts.values()]) / rows.sum()))
    mean_left = np.where(rows_left > 0, rows_left * logs_left, 0.0).sum(axis=0) / np.maximum(rows_left.sum(axis=0), 1)
    within_left = np.exp(mean_left)

    def estimate(value: float, without: Floats, rows: Ints | None = None) -> Estimate:
        bins_of = bins if rows is None else np.unique(bins[rows], return_inverse=True)[1]
        return replace(
            estimate_by_jackknife(subject, value, lambda: without, diversity.settings, bins=bins_of), n=len(bins_of)
        )

    return Decomposition(
        name=diversity.name,
        total=estimate(total.value, total.without),
        within=estimate(within, within_left),
        between=estimate(total.value / within, total.without / within_left),
        parts={p: estimate(f.value, f.without[np.unique(bins[members[p]])], members[p]) for p, f in parts.items()},
        rows={part: len(r) for part, r in members.items()},
    )
