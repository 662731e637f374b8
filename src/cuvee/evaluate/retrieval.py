"""Scores of a ranker: where the right passage stands among all passages, by cosine.

Ties: similarities that agree to six decimals are equal, and a score is its mean over all orders of equal passages
(McSherry & Najork, ECIR 2008). So an encoder whose vectors are all alike scores as chance does, and the order of the
passages never matters; trec_eval, which orders ties by document name, can give such an encoder the best score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.errors import TrainingError
from cuvee.evaluate.generation import Watch
from cuvee.evaluate.judged import ITEM_SCORES, Judged, code_groups, mean_of
from cuvee.records import Codes, Floats, Ranker, Vectors

CUT = 10  # ranks that nDCG and MRR look at
RECALLS = (1, 10, 100)
_DECIMALS = 6
_BLOCK = 16_000_000  # similarities held at once
_CHUNK = 256  # texts between two words of progress


def judge_ranker(
    ranker: Ranker, corpus: Corpus, *, passages: Sequence[str] | None = None, watch: Watch | None = None
) -> Judged:
    """Rank all passages for each distinct query of ``corpus``, and judge where its relevant ones stand.

    Queries of one named group, or of one passage, belong together. A query is answered right if nothing but relevant
    passages stands first.

    Args:
        ranker: gives the vectors.
        corpus: query and relevant passage a row; rows of the same query name several relevant passages.
        passages: more passages to find the relevant ones among; those of the corpus always take part.
        watch: called as encoding goes on.

    Raises:
        TrainingError: a vector is not finite.
    """
    pool = {text: i for i, text in enumerate(dict.fromkeys([*corpus.targets, *(passages or ())]))}
    rows: dict[str, list[int]] = {}
    for row, text in enumerate(corpus.texts):
        rows.setdefault(text, []).append(row)
    relevant = [sorted({pool[corpus.targets[row]] for row in at}) for at in rows.values()]
    queries = _encode(ranker.encode_queries, list(rows), "queries", watch)
    vectors = _encode(ranker.encode_passages, list(pool), "passages", watch)
    above, level = count_ranks(queries, vectors, relevant)
    numbers, first = score_ranks(above, level, relevant)
    named = corpus.table["group"].to_pylist()
    names = [
        f"passage:{corpus.targets[at[0]]}" if named[at[0]] is None else f"group:{named[at[0]]}" for at in rows.values()
    ]
    texts = list(pool)
    return Judged(
        keys=tuple(
            "\x00".join([query, str(len(pool)), *(texts[i] for i in found)])
            for query, found in zip(rows, relevant, strict=True)
        ),
        groups=code_groups(names, len(rows)),
        correct=first,
        columns=numbers,
        scores={name: mean_of(name) for name in numbers},
        graded=ITEM_SCORES["retrieval"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedPassages:
    """The passages most similar to each query, best first; both arrays have shape (n, top).

    ``places`` are places among the passages, ``similarities`` cosines.
    """

    places: Codes
    similarities: Floats


def rank_passages(
    ranker: Ranker, queries: Sequence[str], passages: Sequence[str], *, top: int, watch: Watch | None = None
) -> RankedPassages:
    """The ``top`` passages for each query (all of them, if there are fewer); equal ones in their own order.

    Raises:
        TrainingError: a vector is not finite.
    """
    asked = _encode(ranker.encode_queries, queries, "queries", watch)
    vectors = _encode(ranker.encode_passages, passages, "passages", watch)
    places, similarities = [], []
    rows = max(1, _BLOCK // len(passages))
    for start in range(0, len(asked), rows):
        similar = np.round((asked[start : start + rows] @ vectors.T).astype(np.float64), _DECIMALS)
        best = np.stack([_best_places(row, min(top, len(passages))) for row in similar])
        places.append(best)
        similarities.append(np.take_along_axis(similar, best, axis=1))
    return RankedPassages(places=np.concatenate(places), similarities=np.concatenate(similarities))


def _best_places(similar: Floats, top: int) -> Codes:
    """Places of the ``top`` largest numbers, the largest first, equal ones in their order."""
    least = np.partition(similar, len(similar) - top)[len(similar) - top]
    reached = np.flatnonzero(similar >= least)
    return np.asarray(reached[np.argsort(-similar[reached], kind="stable")][:top].astype(np.int64))


def count_ranks(queries: Vectors, passages: Vectors, relevant: Sequence[Sequence[int]]) -> tuple[Codes, Codes]:
    """For each query and relevant passage, in order: passages more similar, and passages as similar (itself too).

    Args:
        queries: shape (n, d).
        passages: shape (m, d).
        relevant: places of the relevant passages of each query.

    Returns:
        Two arrays, each of as many entries as there are relevant passages of all queries.
    """
    above, level = [], []
    rows = max(1, _BLOCK // max(1, len(passages)))
    for start in range(0, len(queries), rows):
        similar = np.round(queries[start : start + rows] @ passages.T, _DECIMALS)
        part = relevant[start : start + rows]
        for i, found in enumerate(part):
            own = similar[i, list(found)][:, None]
            above.append((similar[i] > own).sum(axis=1))
            level.append((similar[i] == own).sum(axis=1))
    return np.concatenate(above).astype(np.int64), np.concatenate(level).astype(np.int64)


def score_ranks(
    above: Codes, level: Codes, relevant: Sequence[Sequence[int]]
) -> tuple[dict[str, Floats], NDArray[np.bool_]]:
    """Scores of each query from ``count_ranks``, and whether only relevant passages stand first.

    nDCG@10 (Jarvelin & Kekalainen, TOIS 20, 2002) with gain 1 and discount 1 / log2(rank + 1), the best ordering of
    the query's own relevant passages being 1. MRR@10 is 1 over the rank of the first relevant passage, 0 past 10.
    recall@k is the fraction of the relevant passages among the first k.
    """
    spans = np.array([len(found) for found in relevant])
    starts = np.concatenate([[0], np.cumsum(spans)[:-1]])

    def total(values: Floats) -> Floats:
        return np.asarray(np.add.reduceat(values, starts))

    gains = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(CUT) + 2.0))])
    reached = gains[np.minimum(above + level, CUT)] - gains[np.minimum(above, CUT)]
    best = np.minimum.reduceat(above, starts)
    leading = above == np.repeat(best, spans)  # the relevant passages of the best tie
    tied = np.maximum.reduceat(np.where(leading, level, 0), starts)
    among = total(leading.astype(np.float64))
    numbers = {
        f"ndcg@{CUT}": total(reached / level) / gains[np.minimum(spans, CUT)],
        f"mrr@{CUT}": _reciprocal_rank(best, tied, among),
        **{f"recall@{k}": total(np.clip(k - above, 0, level) / level) / spans for k in RECALLS},
    }
    return numbers, (best == 0) & (tied == among)


def _reciprocal_rank(best: Codes, tied: Codes, among: Floats) -> Floats:
    """Mean of 1 / rank of the first of ``among`` relevant passages in a random order of ``tied`` equal ones."""
    out, unseen = np.zeros(len(best)), np.ones(len(best))
    for place in range(1, CUT + 1):
        here = np.minimum(1.0, among / np.maximum(tied - place + 1, 1.0))  # relevant, given that none came before
        rank = best + place
        out += np.where(rank <= CUT, unseen * here / rank, 0.0)
        unseen *= 1.0 - here
    return out


def _encode(
    encode: Callable[[Sequence[str]], Vectors], texts: Sequence[str], what: str, watch: Watch | None
) -> Vectors:
    parts = []
    for start in range(0, len(texts), _CHUNK):
        parts.append(np.asarray(encode(texts[start : start + _CHUNK]), dtype=np.float32))
        if watch is not None:
            watch(f"embed {what}", min(start + _CHUNK, len(texts)), len(texts))
    vectors: Vectors = np.concatenate(parts)
    if not np.isfinite(vectors).all():
        raise TrainingError(f"the model gives vectors that are not finite for some {what}; train it again")
    return vectors
