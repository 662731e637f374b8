"""Candidate pairs of similar sets by MinHash (Broder 1997) and banding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.measure.lexical.shingles import Shingles

PERMUTATIONS = 192
MISS = 1e-4  # most a pair at the threshold may be missed with
NEIGHBOURS = 16
HUBS = 8
_BATCH = 10_000  # signatures that cross from Rust to Python at a time
Ints = NDArray[np.int64]
Pairs = NDArray[np.int64]
Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bands:
    """``bands`` bands of ``rows`` rows of a signature; texts that agree in all rows of a band are candidates."""

    bands: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BandPairs:
    """Candidates of one band.

    Attributes:
        pairs: texts, shape (p, 2), the smaller first; a pair may come twice.
        crowded: whether a pair comes of a crowd, shape (p,).
    """

    pairs: Pairs
    crowded: NDArray[np.bool_]


def choose_bands(threshold: float) -> Bands:
    """The longest bands of 192 rows that miss a pair at the threshold with a probability of at most 1 in 10,000.

    A pair of similarity s is missed by all b bands of r rows with probability (1 - s**r)**b.
    """
    fitting = (r for r in range(PERMUTATIONS, 0, -1) if (1.0 - threshold**r) ** (PERMUTATIONS // r) <= MISS)
    rows = next(fitting, 1)
    return Bands(bands=PERMUTATIONS // rows, rows=rows)


def pairs_of_band(keys: Words) -> BandPairs:
    """Pairs of texts with equal keys in one band.

    All pairs where at most 17 texts share a key; in a crowd of more, each text with its 16 next neighbours and
    with 8 hubs spread over the crowd, so that the number of pairs grows with the number of texts. Sorted texts
    make neighbours alike.

    Args:
        keys: key of each text in the band, shape (n,).
    """
    order = np.argsort(keys, kind="stable")  # texts of one key stay in their order
    edges = np.concatenate([[0], np.flatnonzero(np.diff(keys[order])) + 1])
    sizes = np.diff(np.append(edges, len(keys)))
    start, size = np.repeat(edges, sizes), np.repeat(sizes, sizes)
    ones, others = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    shared = np.flatnonzero(size > 1)
    for offset in range(1, NEIGHBOURS + 1):
        near = shared[shared + offset < (start + size)[shared]]
        ones.append(near)
        others.append(near + offset)
    crowd = shared[size[shared] > NEIGHBOURS + 1]
    for hub in range(HUBS):
        ones.append(crowd)
        others.append(start[crowd] + hub * size[crowd] // HUBS)
    one, other = np.concatenate(ones), np.concatenate(others)
    crowded = size[one] > NEIGHBOURS + 1
    one, other = order[one], order[other]
    pairs = np.stack([np.minimum(one, other), np.maximum(one, other)], axis=1)
    proper = one != other
    return BandPairs(pairs=pairs[proper], crowded=crowded[proper])


def band_keys(shingles: Shingles, bands: Bands, *, seed: int) -> Words:
    """One 64-bit key for each band of the MinHash signature of each text, shape (n, bands)."""
    from rensa import RMinHash

    hashes = _mix(shingles.flat.astype(np.uint64))
    out = [np.zeros((0, bands.bands), dtype=np.uint64)]
    for start in range(0, len(shingles.starts) - 1, _BATCH):
        ends = shingles.starts[start : start + _BATCH + 1]
        part, offsets = hashes[ends[0] : ends[-1]], (ends - ends[0]).astype(np.uint64)
        digests = RMinHash.digest_matrix_from_flat_token_hashes(part, offsets, PERMUTATIONS, seed)
        rows = np.array(digests.to_rows(), dtype=np.uint64)[:, : bands.bands * bands.rows]
        rows = rows.reshape(len(rows), bands.bands, bands.rows)
        key = np.zeros(rows.shape[:2], dtype=np.uint64)
        for at in range(bands.rows):
            key = _mix(key ^ rows[:, :, at])
        out.append(key)
    return np.concatenate(out)


def _mix(values: Words) -> Words:
    """A bijection of 64-bit numbers that spreads near ones far apart (the finaliser of splitmix64)."""
    out = values + np.uint64(0x9E3779B97F4A7C15)
    out = (out ^ (out >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return out ^ (out >> np.uint64(31))
