"""What each example adds to diversity, and which ones are the most redundant and the most novel."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from cuvee import similarity
from cuvee.corpus import Corpus, normalise_text
from cuvee.encoders import Encoder, load_encoder
from cuvee.measure.subject import NEAR_DUPLICATE, Subject
from cuvee.records import ExampleScores, SampleRow


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
