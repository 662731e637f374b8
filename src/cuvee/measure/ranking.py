"""Ranking pools before anything is trained: from agreement, diversity, duplication and shift together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from cuvee.corpus import Corpus
from cuvee.encoders import Encoder, KnownVectors, load_encoder
from cuvee.errors import TrainingError
from cuvee.fingerprint import derive_rng
from cuvee.measure import shift, surface
from cuvee.measure.subject import PointSubject, Subject
from cuvee.probe import fit_probe
from cuvee.records import Comparison, Estimate, PoolRank, Ranking
from cuvee.similarity import nearest_margins, nearest_neighbours, spectrum, vendi_score

ROWS = 2_000
WEIGHTS = {"covers": 1.0, "agrees": 0.1, "diversity": 0.1, "unique": 0.1, "labels_off": -0.4}
UNLABELLED = {"diversity": 1.0, "unique": 1.0, "unlike": -1.0, "reach": 1.0}
# Pools within this score of the best are advised, of at least two and at most three.
CLOSE, FEWEST, MOST = 0.05, 2, 3
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
    rows = min(ROWS, *(len(pool) for pool in pools.values()))
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
    advised = [pool.name for pool in found[:MOST] if pool.score >= found[0].score - CLOSE]
    advised = advised if len(advised) >= FEWEST else [pool.name for pool in found[:FEWEST]]
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
