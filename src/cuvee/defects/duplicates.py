"""Rows that say the same: equal texts, vectors that are nearly equal, and texts that are nearly the same.

Near-duplicate texts: candidates by MinHash (Broder 1997) and banding, verified by their exact Jaccard similarity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import normalise_text
from cuvee.fingerprint import derive_seed
from cuvee.records import Ints, Vectors
from cuvee.similarity import find_near_duplicates, single_blas_thread

SLACK = 1e-6  # the cosine of two equal float32 rows may be so much below 1
SHINGLE = 5
NEAR_TEXTS = 0.8
_BANDS, _ROWS = 32, 6  # a pair of similarity s is missed by all bands with probability (1 - s**6)**32: 6e-5 at 0.8
_NEIGHBOURS, _HUBS = 16, 8  # that a text of a crowd is compared with
_ENOUGH = 8  # partners of a text after which a crowd no longer looks for more
_BATCH = 10_000  # signatures that cross from Rust to Python at a time
_CHUNK = 50_000  # pairs compared at a time
Words = NDArray[np.uint64]


def first_rows(texts: Sequence[str]) -> NDArray[np.int64]:
    """For each text the first row that says the same (by ``normalise_text``): its own where it is new, shape (n,)."""
    first: dict[str, int] = {}
    rows = (first.setdefault(normalise_text(text), row) for row, text in enumerate(texts))
    return np.fromiter(rows, dtype=np.int64, count=len(texts))


@single_blas_thread()
def near_repeats(unit: Vectors, near: float) -> NDArray[np.int64]:
    """Rows with a cosine of at least ``near`` to an earlier row that is not among them.

    A chain of neighbours does not pull in rows that are unlike the one that stays. Only rows of one cluster can be
    near.

    Args:
        unit: unit rows, shape (n, d).
        near: the cosine.
    """
    cluster = find_near_duplicates(unit, near)
    order = np.argsort(cluster, kind="stable")
    starts = np.flatnonzero(np.diff(cluster[order], prepend=-1))
    gone = np.zeros(len(unit), dtype=bool)
    for members in np.split(order, starts[1:]):
        if len(members) < 2:
            continue
        part, stays = unit[members], np.ones(len(members), dtype=bool)
        for i in range(len(members) - 1):
            if stays[i]:
                stays[i + 1 :] &= part[i + 1 :] @ part[i] < np.float32(near - SLACK)
        gone[members] = ~stays
    return np.flatnonzero(gone)


# --- near-duplicate texts --------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class NearTexts:
    """Which texts are near-duplicates.

    Texts that agree after ``normalise_text`` are one *unit*; pairs are pairs of units.

    Attributes:
        unit: unit of each text, shape (n,).
        pairs: units whose Jaccard similarity reaches the threshold, shape (p, 2), the smaller first.
        candidates: how pairs were looked for, in words.
    """

    unit: Ints
    pairs: Ints
    candidates: str

    @property
    def units(self) -> int:
        """Number of units."""
        return int(self.unit.max(initial=-1)) + 1

    def sum_of_partners(self, values: Ints) -> Ints:
        """For each unit the sum of the values of the units it is paired with, shape (units, columns)."""
        from scipy import sparse

        ends = (self.pairs.T.ravel(), self.pairs[:, ::-1].T.ravel())
        graph = sparse.coo_array((np.ones(len(ends[0]), dtype=np.int64), ends), shape=(self.units, self.units))
        return np.asarray(graph.tocsr() @ values)


def find_near_texts(texts: Sequence[str], *, seed: int = 0) -> NearTexts:
    """Pairs of texts whose sets of shingles have a Jaccard similarity of at least 0.8.

    A shingle is a run of five characters of the text after ``normalise_text`` (lower case, single spaces, no
    full stops); a shorter text is one shingle. Characters and not words, because rows are short: among the ten word
    3-grams of twelve words, one changed word in the middle leaves a Jaccard similarity of 0.54, and only a change
    of the last word passes 0.8. Five-character shingles pass where about 6% of the text changed, at any length: a
    typing error or an inflection in twelve words, one word in sixteen.

    Candidates come from MinHash with banding (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3)
    and are verified by their exact similarity: a pair found is never wrong; one at the threshold is missed with a
    probability below 1 in 10,000. Texts that agree after normalisation are compared once, and where over 17 different
    texts share a band, each is compared with 16 neighbours in sorted order and 8 others spread over them, until it has
    partners enough: the work grows with the number of texts, not of pairs.

    Args:
        texts: n texts.
        seed: of the MinHash.
    """
    normal = [normalise_text(text) for text in texts]
    units = sorted(set(normal))
    number = {text: i for i, text in enumerate(units)}
    unit = np.array([number[text] for text in normal], dtype=np.int64)
    pairs = _search(_Shingles(units), derive_seed(seed, "minhash"))
    return NearTexts(unit=unit, pairs=pairs, candidates=f"MinHash, {_BANDS} bands of {_ROWS}")


def _search(shingles: _Shingles, seed: int) -> Ints:
    """Verified pairs, band by band; in a crowd only for texts that do not have partners enough."""
    n, sizes = len(shingles.starts) - 1, shingles.sizes
    compared = np.zeros(0, dtype=np.int64)
    found = np.zeros((0, 2), dtype=np.int64)
    for keys in _band_keys(shingles, seed).T:
        pairs, crowded = _pairs_of_band(keys)
        # sizes alone bound the similarity from above
        possible = sizes[pairs].min(axis=1) >= NEAR_TEXTS * sizes[pairs].max(axis=1)
        if crowded.any():
            possible &= ~(crowded & _settled(found, pairs, n))
        fresh = _sort_unique(pairs[possible] @ np.array([n, 1]))
        fresh = fresh[~np.isin(fresh, compared, assume_unique=True, kind="sort")]
        pairs = np.stack(np.divmod(fresh, max(1, n)), axis=1)
        found = np.concatenate([found, pairs[shingles.jaccard(pairs) >= NEAR_TEXTS]])
        compared = np.concatenate([compared, fresh])
    return found


def _band_keys(shingles: _Shingles, seed: int) -> Words:
    """One 64-bit key for each band of the MinHash signature of each text, shape (n, bands)."""
    from rensa import RMinHash

    hashes = _mix(shingles.flat.astype(np.uint64))
    out = [np.zeros((0, _BANDS), dtype=np.uint64)]
    for start in range(0, len(shingles.starts) - 1, _BATCH):
        ends = shingles.starts[start : start + _BATCH + 1]
        part, offsets = hashes[ends[0] : ends[-1]], (ends - ends[0]).astype(np.uint64)
        digests = RMinHash.digest_matrix_from_flat_token_hashes(part, offsets, _BANDS * _ROWS, seed)
        signatures = np.array(digests.to_rows(), dtype=np.uint64).reshape(-1, _BANDS, _ROWS)
        key = np.zeros(signatures.shape[:2], dtype=np.uint64)
        for at in range(_ROWS):
            key = _mix(key ^ signatures[:, :, at])
        out.append(key)
    return np.concatenate(out)


def _pairs_of_band(keys: Words) -> tuple[Ints, NDArray[np.bool_]]:
    """Pairs of texts with equal keys in one band, shape (p, 2), the smaller first; and whether each is of a crowd.

    All pairs where at most 17 texts share a key; in a crowd of more, each text with its 16 next neighbours and
    with 8 hubs spread over the crowd, so that the number of pairs grows with the number of texts. Sorted texts
    make neighbours alike. A pair may come twice. (rensa's own LSH index gives whole buckets: quadratic in a crowd.)
    """
    order = np.argsort(keys, kind="stable")  # texts of one key stay in their order
    edges = np.concatenate([[0], np.flatnonzero(np.diff(keys[order])) + 1])
    sizes = np.diff(np.append(edges, len(keys)))
    start, size = np.repeat(edges, sizes), np.repeat(sizes, sizes)
    ones, others = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    shared = np.flatnonzero(size > 1)
    for offset in range(1, _NEIGHBOURS + 1):
        near = shared[shared + offset < (start + size)[shared]]
        ones.append(near)
        others.append(near + offset)
    crowd = shared[size[shared] > _NEIGHBOURS + 1]
    for hub in range(_HUBS):
        ones.append(crowd)
        others.append(start[crowd] + hub * size[crowd] // _HUBS)
    one, other = np.concatenate(ones), np.concatenate(others)
    proper = one != other
    pairs = np.sort(np.stack([order[one], order[other]], axis=1)[proper], axis=1)
    return pairs, (size[one] > _NEIGHBOURS + 1)[proper]


def _settled(found: Ints, pairs: Ints, n: int) -> NDArray[np.bool_]:
    """Pairs already in one cluster, both with partners enough: comparing them would change next to nothing."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    degree = np.bincount(found.ravel(), minlength=n)
    graph = coo_array((np.ones(len(found), dtype=np.int8), (found[:, 0], found[:, 1])), shape=(n, n))
    cluster = connected_components(graph, directed=False)[1][pairs]
    return np.asarray((degree[pairs].min(axis=1) >= _ENOUGH) & (cluster[:, 0] == cluster[:, 1]))


class _Shingles:
    """All runs of five characters of each text, numbered exactly (no hashing): equal numbers are equal shingles.

    A shorter text is one shingle, filled up with nothing.

    Attributes:
        flat: the shingles of all texts, those of one text sorted.
        starts: shape (n + 1,); those of text i are ``flat[starts[i] : starts[i + 1]]``.
        sizes: different shingles of each text, shape (n,).
        kinds: number of different shingles.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        padded = [text.ljust(SHINGLE, "\0") for text in texts]
        data = "".join(padded).encode("utf-32-le", "surrogatepass")
        letters, character = np.unique(np.frombuffer(data, dtype=np.uint32), return_inverse=True)
        lengths = np.array([len(text) for text in padded], dtype=np.int64)
        text_of = np.repeat(np.arange(len(padded)), lengths)
        left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(character))
        starts = np.flatnonzero(left >= SHINGLE)
        shingle = character[starts].astype(np.int64)
        for offset in range(1, SHINGLE):
            if int(shingle.max(initial=0) + 1) * len(letters) >= 2**62:
                shingle = np.unique(shingle, return_inverse=True)[1]  # many letters: number anew, so that it fits
            shingle = shingle * len(letters) + character[starts + offset]
        kinds, shingle = np.unique(shingle, return_inverse=True)
        text, self.flat = np.divmod(_sort_unique(text_of[starts] * max(1, len(kinds)) + shingle), max(1, len(kinds)))
        self.starts: Ints = np.searchsorted(text, np.arange(len(padded) + 1)).astype(np.int64)
        self.sizes, self.kinds = np.diff(self.starts), len(kinds)

    def jaccard(self, pairs: Ints) -> NDArray[np.float64]:
        """Exact Jaccard similarity of pairs of texts, shape (p,): shared shingles over all shingles of both."""
        from scipy import sparse

        data, shape = np.ones(len(self.flat), dtype=np.int32), (len(self.starts) - 1, self.kinds)
        matrix = sparse.csr_array((data, self.flat, self.starts), shape=shape)
        out = np.zeros(len(pairs))
        for start in range(0, len(pairs), _CHUNK):
            part = pairs[start : start + _CHUNK]
            shared: Ints = np.asarray(matrix[part[:, 0]].multiply(matrix[part[:, 1]]).sum(axis=1))
            out[start : start + _CHUNK] = shared / (self.sizes[part].sum(axis=1) - shared)
        return out


def _sort_unique(keys: Ints) -> Ints:
    """The different keys, sorted. ``np.unique`` hashes bare integers: seconds for a million at regular distances."""
    keys = np.sort(keys)
    return keys[np.append(True, np.diff(keys) > 0)] if len(keys) else keys


def _mix(values: Words) -> Words:
    """A bijection of 64-bit numbers that spreads near ones far apart (the finaliser of splitmix64)."""
    out = values + np.uint64(0x9E3779B97F4A7C15)
    out = (out ^ (out >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return out ^ (out >> np.uint64(31))
