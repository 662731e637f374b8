"""Near-duplicate texts: candidates by MinHash and banding, verified by their Jaccard similarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import normalise_text
from cuvee.fingerprint import derive_seed
from cuvee.measure.lexical.minhash import Bands, Pairs, band_keys, choose_bands, pairs_of_band
from cuvee.measure.lexical.resampling import estimate_pair_rate
from cuvee.measure.lexical.shingles import WIDTH, Shingles, jaccard, make_shingles, sort_unique
from cuvee.measure.subject import Subject
from cuvee.records import Estimate

THRESHOLD = 0.8
_LOWEST = 0.5
ENOUGH = 8  # partners of a text after which a crowd no longer looks for more
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicates:
    """Which rows are near-duplicates.

    Rows that agree after ``normalise_text`` are one *unit*; pairs are pairs of units.

    Attributes:
        unit: unit of each row, shape (n,).
        pairs: units whose Jaccard similarity reaches the threshold, shape (p, 2), the smaller first.
    """

    unit: Ints
    pairs: Pairs

    @property
    def units(self) -> int:
        """Number of units."""
        return int(self.unit.max(initial=-1)) + 1


def measure_near_duplicates(subject: Subject) -> Estimate | None:
    """Fraction of rows that have another row at a Jaccard similarity of at least 0.8.

    See ``find_near_duplicates`` for what is compared. It rises with the number of rows. None below two rows.
    """
    if subject.n < 2:
        return None
    found = find_near_duplicates(subject.corpus.texts, threshold=THRESHOLD, seed=subject.seed)
    rows_of = np.bincount(found.unit, minlength=found.units)
    partners = rows_of - 1 + _sum_of_neighbours(found, rows_of[:, None])[:, 0]
    value = float(rows_of[partners > 0].sum()) / subject.n

    def without() -> NDArray[np.float64]:
        bins = int(subject.bins.max()) + 1
        inside = np.bincount(found.unit * bins + subject.bins, minlength=found.units * bins).reshape(-1, bins)
        # a row outside the bin keeps a partner unless all its partners are inside
        keeps = partners[:, None] > inside + _sum_of_neighbours(found, inside)
        hits = np.where(keeps, rows_of[:, None] - inside, 0).sum(axis=0)
        out: NDArray[np.float64] = hits / (subject.n - inside.sum(axis=0))
        return out

    bands = choose_bands(THRESHOLD)
    settings: dict[str, str | float] = {
        "threshold": THRESHOLD, "shingles": f"{WIDTH} characters of the normalised text",
        "candidates": f"MinHash, {bands.bands} bands of {bands.rows}", "verified": "exact Jaccard",
    }  # fmt: skip
    return estimate_pair_rate(subject, value, without, settings)


def minhash_clusters(texts: Sequence[str], *, threshold: float = THRESHOLD, seed: int) -> Ints:
    """Cluster of each text, shape (n,): near-duplicates, and near-duplicates of these, share one.

    Clusters are the connected components over verified pairs, numbered from 0 by their first row.

    Args:
        texts: n texts.
        threshold: Jaccard similarity from which two texts are near-duplicates, 0.5 to 1.
        seed: of the MinHash; it decides which pairs are missed, with a probability below 1 in 10,000 each.

    Raises:
        ValueError: ``threshold`` out of range.
    """
    if not len(texts):
        return np.zeros(0, dtype=np.int64)
    found = find_near_duplicates(texts, threshold=threshold, seed=seed)
    component = _components(found.pairs, found.units)[found.unit]
    _, first, cluster = np.unique(component, return_index=True, return_inverse=True)
    by_first_row = np.argsort(np.argsort(first))
    return by_first_row[cluster].astype(np.int64)


def find_near_duplicates(texts: Sequence[str], *, threshold: float = THRESHOLD, seed: int) -> NearDuplicates:
    """Pairs of texts whose sets of shingles have a Jaccard similarity of at least ``threshold``.

    A shingle is a run of five characters of the text after ``normalise_text`` (lower case, no punctuation, single
    spaces); a shorter text is one shingle. Characters and not words, because rows are short: among the ten word
    3-grams of twelve words, one changed word in the middle leaves a Jaccard similarity of 0.54, and only a change
    of the last word passes 0.8. Five-character shingles pass where about 6% of the text changed, at any length: a
    typing error or an inflection in twelve words, one word in sixteen.

    Candidates come from MinHash (Broder 1997) with banding (Leskovec, Rajaraman and Ullman, Mining of Massive
    Datasets, chapter 3) and are verified by their exact similarity: a pair found is never wrong; one at the
    threshold is missed with a probability below 1 in 10,000. Texts that agree after normalisation are compared
    once, and where over 17 different texts share a band, each is compared with 16 neighbours in sorted order and 8
    others spread over them, until it has partners enough: the work grows with the number of texts, not of pairs.

    Args:
        texts: n texts.
        threshold: 0.5 to 1.
        seed: of the MinHash.

    Raises:
        ValueError: ``threshold`` out of range.
    """
    if not _LOWEST <= threshold <= 1.0:
        raise ValueError(f"threshold is {threshold!r}; give a Jaccard similarity from {_LOWEST} to 1")
    normal = [normalise_text(text) for text in texts]
    units = sorted(set(normal))
    number = {text: i for i, text in enumerate(units)}
    unit = np.array([number[text] for text in normal], dtype=np.int64)
    shingles = make_shingles(units)
    pairs = _search(shingles, choose_bands(threshold), derive_seed(seed, "minhash"), threshold)
    return NearDuplicates(unit=unit, pairs=pairs)


def _search(shingles: Shingles, bands: Bands, seed: int, threshold: float) -> Pairs:
    """Verified pairs, band by band; in a crowd only for texts that do not have partners enough."""
    n = len(shingles.starts) - 1
    sizes = shingles.sizes
    keys = band_keys(shingles, bands, seed=seed)
    compared = np.zeros(0, dtype=np.int64)
    found = np.zeros((0, 2), dtype=np.int64)
    for band in range(bands.bands):
        candidates = pairs_of_band(keys[:, band])
        pairs = candidates.pairs
        # sizes alone bound the similarity from above
        possible = sizes[pairs].min(axis=1) >= threshold * sizes[pairs].max(axis=1)
        if candidates.crowded.any():
            possible &= ~(candidates.crowded & _settled(found, pairs, n))
        fresh = sort_unique(pairs[possible] @ np.array([n, 1]))
        fresh = fresh[~_contains(compared, fresh)]
        pairs = np.stack(np.divmod(fresh, n), axis=1)
        found = np.concatenate([found, pairs[jaccard(shingles, pairs) >= threshold]])
        compared = np.sort(np.concatenate([compared, fresh]))
    return found


def _settled(found: Pairs, pairs: Pairs, n: int) -> NDArray[np.bool_]:
    """Pairs already in one cluster, both with partners enough: comparing them would change next to nothing."""
    degree = np.bincount(found.ravel(), minlength=n)
    cluster = _components(found, n)
    out: NDArray[np.bool_] = (degree[pairs].min(axis=1) >= ENOUGH) & (cluster[pairs[:, 0]] == cluster[pairs[:, 1]])
    return out


def _contains(keys: Ints, wanted: Ints) -> NDArray[np.bool_]:
    """Whether each wanted key is among the sorted keys."""
    if not len(keys):
        return np.zeros(len(wanted), dtype=bool)
    out: NDArray[np.bool_] = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
    return out


def _components(pairs: Pairs, n: int) -> Ints:
    """Connected component of each of n texts, shape (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _sum_of_neighbours(found: NearDuplicates, values: Ints) -> Ints:
    """For each unit the sum of the values of the units it is paired with, shape (units, columns)."""
    from scipy import sparse

    one, other = found.pairs[:, 0], found.pairs[:, 1]
    ends = (np.concatenate([one, other]), np.concatenate([other, one]))
    graph = sparse.coo_array((np.ones(len(ends[0]), dtype=np.int64), ends), shape=(found.units, found.units))
    out: Ints = graph.tocsr() @ values
    return out
