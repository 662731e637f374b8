"""Texts that are nearly the same: exact Jaccard similarity, without comparing every pair. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import ceil

from cuvee.corpus import normalise_text

WIDTH = 5
LEAST, MOST = 0.5, 1.0
"""Thresholds that are taken: below, texts have little in common, and nearly all would have to be compared."""
_ROUNDING = 1e-9
_SHARED = 16  # first shingles that similar texts share: more than one word that two texts have in common


def check_threshold(threshold: float) -> None:
    """Refuse a threshold out of range.

    Raises:
        ValueError: it is.
    """
    if not LEAST <= threshold <= MOST:
        raise ValueError(f"near_duplicate {threshold!r}; give a Jaccard similarity from {LEAST} to 1, or None")


def shingles_of(text: str) -> frozenset[str]:
    """All runs of five characters of the normalised text; a shorter one is a run of its own.

    Characters and not words, because rows are short: one changed word in a row of twelve changes a quarter of its word
    triples.
    """
    normal = normalise_text(text)
    return frozenset(normal[i : i + WIDTH] for i in range(max(1, len(normal) - WIDTH + 1)))


def count_shingles(texts: Iterable[frozenset[str]]) -> Counter[str]:
    """How many of the texts have each shingle."""
    counted: Counter[str] = Counter()
    for shingles in texts:
        counted.update(shingles)
    return counted


class NearCopies:
    """Texts put in one by one, and whether another one is nearly the same as one of them.

    Two sets of shingles with a Jaccard similarity of at least t share at least k of their first n - ceil(t n) + k
    elements in any fixed order of all shingles (prefix filtering: Chaudhuri, Ganti and Kaushik 2006; with k above 1:
    Wang, Li and Feng 2012). With the rarest first few texts do, and only those are compared: the answer is exact, and
    the order matters for the speed alone.

    Args:
        threshold: Jaccard similarity from which texts are nearly the same, 0.5 to 1.
        frequency: how common each shingle is; those that it lacks count as the rarest.
    """

    def __init__(self, threshold: float, frequency: Mapping[str, int]) -> None:
        check_threshold(threshold)
        self._threshold = threshold
        self._frequency = frequency
        self._texts: list[frozenset[str]] = []
        self._places: dict[str, list[int]] = {}
        self._prefixes: dict[frozenset[str], list[str]] = {}

    def clear(self) -> None:
        """Take all texts out; what was worked out about them stays."""
        self._texts, self._places = [], {}

    def add(self, shingles: frozenset[str]) -> None:
        """Put a text in."""
        for shingle in self._prefix(shingles):
            self._places.setdefault(shingle, []).append(len(self._texts))
        self._texts.append(shingles)

    def holds(self, shingles: frozenset[str]) -> bool:
        """Whether one of the texts is nearly the same as this one."""
        shared: Counter[int] = Counter()
        for shingle in self._prefix(shingles):
            if places := self._places.get(shingle):
                shared.update(places)
        least = min(_SHARED, self._least_overlap(shingles))
        return any(self._alike(shingles, self._texts[place]) for place, n in shared.items() if n >= least)

    def _least_overlap(self, shingles: frozenset[str]) -> int:
        return ceil(self._threshold * len(shingles) - _ROUNDING)

    def _prefix(self, shingles: frozenset[str]) -> list[str]:
        if shingles not in self._prefixes:
            length = len(shingles) - self._least_overlap(shingles) + _SHARED
            ordered = sorted((self._frequency.get(shingle, 0), shingle) for shingle in shingles)
            self._prefixes[shingles] = [shingle for _, shingle in ordered[:length]]
        return self._prefixes[shingles]

    def _alike(self, one: frozenset[str], other: frozenset[str]) -> bool:
        if min(len(one), len(other)) < self._threshold * max(len(one), len(other)) - _ROUNDING:
            return False
        shared = len(one & other)
        return shared >= self._threshold * (len(one) + len(other) - shared) - _ROUNDING
