"""Leaks: rows that repeat a validation or test row more closely than real training rows do by themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus, normalise_text, row_sources, split_tokens, written_from
from cuvee.errors import LeakError
from cuvee.records import Vectors
from cuvee.similarity import Neighbours, nearest_margins, nearest_neighbours

if TYPE_CHECKING:
    from scipy import sparse

LeakReason = Literal["exact", "reordered", "overlap", "nearest"]

NGRAM = 5
CONTAINMENT = 0.8
NEAREST_FLOOR = 0.95
NEAREST_QUANTILE = 0.995
_LONG = 8  # words from which on shared 5-grams mean something
_TILE = 512
SET_ALPHA = 0.01
SET_QUANTILE = 0.95
_BASE_ROWS = 4000  # real rows whose margins are the yardstick
_FEWEST_REAL = 20
_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Row ``row`` repeats held-out row ``held_out``.

    ``score`` is 1 for ``exact`` and ``reordered``, the contained fraction of 5-grams for ``overlap``, and the
    cosine for ``nearest``.
    """

    row: int
    held_out: int
    reason: LeakReason
    score: float


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """The leaking rows of ``n``, at most one leak each (the plainest reason), by row.

    ``threshold`` is the cosine above which a nearest neighbour counts, None where no vectors were given.
    ``baseline`` is the fraction of the reference rows that leak by the same rules, None without reference.
    """

    n: int
    found: tuple[Leak, ...]
    threshold: float | None
    baseline: float | None

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """True where a row leaks, shape (n,)."""
        out = np.zeros(self.n, dtype=bool)
        out[[leak.row for leak in self.found]] = True
        return out

    @property
    def rate(self) -> float:
        """Fraction of rows that leak; 0 where there are no rows."""
        return len(self.found) / self.n if self.n else 0.0


_AROUND = "?\"'()[]"


class LeakFinder:
    """Finds rows that repeat a held-out row; what it compares with is read once.

    Four rules, the first that applies names the reason: ``exact`` (equal after ``normalise_text``);
    ``reordered`` (the same words in another order); ``overlap`` (at least 0.8 of the word 5-grams of the
    shorter text are in the other, both of at least 8 words); ``nearest`` (cosine to the nearest held-out row
    above a threshold, where vectors are given). That threshold is what real training rows reach by
    themselves: the 99.5% quantile of the reference rows that do not leak by the first three rules, never
    below 0.95.

    Args:
        held_out: m validation or test rows.
        reference: r real training rows, which did not come from an LLM.
        held_out_vectors, reference_vectors: their unit vectors, shapes (m, d), (r, d).
    """

    def __init__(
        self,
        held_out: Sequence[str],
        *,
        reference: Sequence[str] = (),
        held_out_vectors: Vectors | None = None,
        reference_vectors: Vectors | None = None,
    ) -> None:
        self._held_out, self._reference = held_out, reference
        self._held_out_vectors, self._reference_vectors = held_out_vectors, reference_vectors

    @cached_property
    def _index(self) -> _HeldOutIndex:
        return _HeldOutIndex(self._held_out)

    @cached_property
    def limits(self) -> tuple[float | None, float | None]:
        """The cosine above which a neighbour counts, and the fraction of the reference rows that leak."""
        found = self._index.lexical_leaks(self._reference)
        threshold: float | None = None
        if self._held_out_vectors is not None:
            threshold = NEAREST_FLOOR
            if self._reference_vectors is not None and len(self._reference_vectors):
                near = nearest_neighbours(self._reference_vectors, self._held_out_vectors)
                clean = np.array([row not in found for row in range(len(self._reference))])
                if clean.any():
                    threshold = max(threshold, float(np.quantile(near.cosine[clean], NEAREST_QUANTILE)))
                found |= _nearest_leaks(near, threshold, found)
        return threshold, len(found) / len(self._reference) if len(self._reference) else None

    def find(self, texts: Sequence[str], vectors: Vectors | None = None) -> Leaks:
        """The leaks among n texts.

        Args:
            texts: to check.
            vectors: their unit vectors, shape (n, d), where held-out vectors were given.
        """
        if not len(texts) or not len(self._held_out):
            return Leaks(n=len(texts), found=(), threshold=None, baseline=None)
        found = self._index.lexical_leaks(texts)
        threshold, baseline = self.limits
        threshold = None if vectors is None else threshold
        if vectors is not None and self._held_out_vectors is not None and threshold is not None:
            found |= _nearest_leaks(nearest_neighbours(vectors, self._held_out_vectors), threshold, found)
        return Leaks(
            n=len(texts), found=tuple(found[row] for row in sorted(found)), threshold=threshold, baseline=baseline
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLeak:
    """Whether a set of rows, row-wise leaks left out, was written from held-out rows (see :class:`SetLeakFinder`).

    Attributes:
        near: rows whose nearest real row is a held-out one.
        rate: fraction of these that stand out towards that row.
        baseline: the same fraction of the real rows, each compared with all others.
        p_value: of ``rate`` being above ``baseline``, one-sided.
        examples: up to five pairs (row, held-out row), those that stand out most first.
    """

    near: int
    rate: float
    baseline: float
    p_value: float
    examples: tuple[tuple[int, int], ...]

    @property
    def alarm(self) -> bool:
        """Whether ``p_value`` is below 0.01."""
        return self.p_value < SET_ALPHA


class SetLeakFinder:
    """Tests whether a set of rows was written from held-out rows, though no single row gives it away.

    A row that an LLM wrote from a real row lies near that row and less near the next one; a real row has no such
    source. So of each row the *margin* is taken: its cosine to the nearest real row less that to the second nearest,
    held-out and training rows together. A row stands out where its margin is above the 95% quantile of the margins of
    the real rows, each compared with all other real rows. Rows whose nearest real row is held out should stand out
    no more often than real rows do; rows written from training rows have their margins there, and are not looked at.
    The p-value is that of a studentised permutation test (Janssen 1997) whose units are the nearest rows, because
    all versions of one row stand or fall together.

    Args:
        held_out: unit vectors of validation and test rows, shape (m, d).
        reference: unit vectors of the real training rows, shape (r, d).
        seed: of the permutations, and of the 4,000 real rows that stand for all where there are more.
        permutations: how many.
    """

    def __init__(self, held_out: Vectors, reference: Vectors, *, seed: int = 0, permutations: int = 1999) -> None:
        self._real, self._held_out = np.concatenate([held_out, reference]), len(held_out)
        self._seed, self._permutations = seed, permutations
        self._added: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []

    def add(self, vectors: Vectors) -> None:
        """Add rows to the set, unit vectors of shape (b, d)."""
        if len(self._real) >= _FEWEST_REAL:
            self._added.append(nearest_margins(vectors, self._real))

    def find(self) -> SetLeak | None:
        """What the test says of all rows added; None under 20 real rows, or under two held-out ones near any row."""
        if not self._added:
            return None
        rng = np.random.default_rng(self._seed)
        sample = np.sort(rng.permutation(len(self._real))[:_BASE_ROWS])
        base_row, base_margin = nearest_margins(self._real[sample], self._real, itself=sample)
        row, margin = (np.concatenate(parts) for parts in zip(*self._added, strict=True))
        limit = float(np.quantile(base_margin, SET_QUANTILE))
        ours = row < self._held_out
        units = _units(row[ours], margin[ours] > limit), _units(base_row, base_margin > limit)
        if min(len(hits) for hits, _ in units) < 2:
            return None
        p_value = _permuted_p(*units, rng=rng, permutations=self._permutations)
        striking = np.flatnonzero(ours)[np.argsort(-margin[ours], kind="stable")[:5]]
        (hits, sizes), (base_hits, base_sizes) = units
        return SetLeak(
            near=int(ours.sum()),
            rate=float(hits.sum() / sizes.sum()),
            baseline=float(base_hits.sum() / base_sizes.sum()),
            p_value=p_value,
            examples=tuple((int(r), int(row[r])) for r in striking),
        )


def _units(row: NDArray[np.int64], hit: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each real row that is nearest to some row: rows that stand out towards it, and rows it is nearest to."""
    _, unit = np.unique(row, return_inverse=True)
    return np.bincount(unit, weights=hit).astype(np.float64), np.bincount(unit).astype(np.float64)


def _permuted_p(
    ours: tuple[NDArray[np.float64], NDArray[np.float64]],
    theirs: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    rng: np.random.Generator,
    permutations: int,
) -> float:
    hits, sizes = (np.concatenate(pair) for pair in zip(ours, theirs, strict=True))
    mine = np.zeros(len(hits), dtype=bool)
    mine[: len(ours[0])] = True

    def studentised() -> float:
        rates, variance = [], 0.0
        for part in (mine, ~mine):
            rate = hits[part].sum() / sizes[part].sum()
            rates.append(rate)
            variance += float(((hits[part] - rate * sizes[part]) ** 2).sum() / sizes[part].sum() ** 2)
        return float((rates[0] - rates[1]) / np.sqrt(max(variance, _TINY)))

    value = studentised()
    beaten = 0
    for _ in range(permutations):
        rng.shuffle(mine)
        beaten += studentised() >= value
    return (beaten + 1) / (permutations + 1)


class NoLeaks:
    """Checks that no row is a held-out text, about a held-out source, or written from a held-out row.

    Args:
        held_out: validation and test texts.
        sources: contexts or passages of held-out rows alone.
        names: what held-out rows alone are called (see ``cuvee.corpus.row_names``).
    """

    def __init__(
        self, held_out: Sequence[str], sources: Sequence[str] = (), names: Collection[str] = frozenset()
    ) -> None:
        self._names = names
        self._held_out = {normalise_text(text) for text in held_out}
        self._sources = {normalise_text(source) for source in sources}

    def check(self, corpus: Corpus, *, when: str = "") -> None:
        """Check the rows of a corpus.

        Args:
            corpus: the rows to check.
            when: for the message, for example ``after filter 'top'``.

        Raises:
            LeakError: a row is a held-out text; the message names the first and how many there are.
        """
        about = row_sources(corpus) if self._sources else [None] * len(corpus)
        seeded = written_from(corpus, self._names)
        found = [
            row
            for row, (text, source) in enumerate(zip(corpus.texts, about, strict=True))
            if seeded[row] or normalise_text(text) in self._held_out or normalise_text(source or "") in self._sources
        ]
        if found:
            first = found[0]
            where = f" {when}" if when else ""
            is_text = normalise_text(corpus.texts[first]) in self._held_out
            other = "written from a held-out row" if seeded[first] else "about a held-out source"
            what = "a held-out text" if is_text else other
            raise LeakError(
                f"row {corpus.ids[first]!r} ({corpus.texts[first]!r}) is {what}{where} "
                f"({len(found)} of {len(corpus)} rows are); remove leaks before training on them"
            )


def _nearest_leaks(near: Neighbours, threshold: float, known: Mapping[int, Leak]) -> dict[int, Leak]:
    rows = (int(r) for r in np.flatnonzero(near.cosine > threshold))
    return {
        r: Leak(row=r, held_out=int(near.index[r]), reason="nearest", score=float(near.cosine[r]))
        for r in rows
        if r not in known
    }


class _HeldOutIndex:
    """Held-out texts by content, by words and by word 5-grams."""

    def __init__(self, held_out: Sequence[str]) -> None:
        tokens = [split_tokens(t) for t in held_out]
        self._exact: dict[str, int] = {}
        self._sorted: dict[tuple[str, ...], int] = {}
        for i, text in enumerate(held_out):
            normal = normalise_text(text)
            self._exact.setdefault(normal, i)
            if len(ordered := _sorted_words(normal)) > 1:
                self._sorted.setdefault(ordered, i)
        grams = dict.fromkeys(gram for words in tokens for gram in _grams(words))
        self._columns = {gram: column for column, gram in enumerate(grams)}
        self._grams = self._gram_matrix(tokens)
        self._sizes = np.array([_gram_count(words) for words in tokens])

    def lexical_leaks(self, texts: Sequence[str]) -> dict[int, Leak]:
        """Leaks by the exact, reordered and overlap rules, by row."""
        found: dict[int, Leak] = {}
        for start in range(0, len(texts), _TILE):
            found |= self._leaks_of_tile(texts[start : start + _TILE], start)
        return found

    def _leaks_of_tile(self, texts: Sequence[str], start: int) -> dict[int, Leak]:
        """The same for some texts, whose rows are counted from ``start``."""
        found: dict[int, Leak] = {}
        said = [normalise_text(text) for text in texts]
        tokens = [split_tokens(text) for text in texts]
        for row, text in enumerate(said, start=start):
            exact = self._exact.get(text)
            if exact is not None:
                found[row] = Leak(row=row, held_out=exact, reason="exact", score=1.0)
                continue
            reordered = self._sorted.get(_sorted_words(text))
            if reordered is not None:
                found[row] = Leak(row=row, held_out=reordered, reason="reordered", score=1.0)
        for leak in self._overlaps(tokens, start):
            found.setdefault(leak.row, leak)
        return found

    def _overlaps(self, tokens: Sequence[Sequence[str]], start: int) -> list[Leak]:
        sizes = np.array([_gram_count(words) for words in tokens], dtype=np.int64)
        shared = (self._gram_matrix(tokens) @ self._grams.T).tocoo()
        rows, columns = shared.row, shared.col
        smaller = np.minimum(sizes[rows], self._sizes[columns])
        score = np.where(smaller > 0, shared.data / np.maximum(smaller, 1), 0.0)
        found = [
            Leak(row=start + int(rows[at]), held_out=int(columns[at]), reason="overlap", score=float(score[at]))
            for at in np.flatnonzero(score >= CONTAINMENT)
        ]
        return sorted(found, key=lambda leak: (leak.row, -leak.score, leak.held_out))

    def _gram_matrix(self, tokens: Sequence[Sequence[str]]) -> sparse.csr_array:
        """Texts by held-out 5-grams, 1 where a text of at least eight words has the 5-gram."""
        from scipy import sparse

        known = self._columns
        found = [(row, known[gram]) for row, words in enumerate(tokens) for gram in _grams(words) if gram in known]
        rows, columns = np.array(found, dtype=np.int64).reshape(-1, 2).T
        ones, shape = np.ones(len(found), dtype=np.int32), (len(tokens), len(known))
        return sparse.csr_array((ones, (rows, columns)), shape=shape)


def _sorted_words(normal: str) -> tuple[str, ...]:
    """What stands between spaces, without quotes, brackets and question marks around it, sorted.

    Signs of arithmetic count, and scripts without spaces are not taken apart: 8 - 2 is not 8 * 2.
    """
    return tuple(sorted(filter(None, (word.strip(_AROUND) for word in normal.split()))))


def _grams(words: Sequence[str]) -> set[tuple[str, ...]]:
    if len(words) < _LONG:
        return set()
    return {tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)}


def _gram_count(words: Sequence[str]) -> int:
    return len(_grams(words))
