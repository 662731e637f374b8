"""What is measured: one corpus, its vectors, and the intermediate results that several metrics share, computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from cuvee import similarity
from cuvee.corpus import Corpus, split_tokens
from cuvee.defects import LeakFinder, Leaks
from cuvee.encoders import Encoder, empty_rows
from cuvee.errors import InputError
from cuvee.records import Estimate, Floats, MetricNote, Vectors
from cuvee.similarity import Neighbours, RowSums

Need = Literal["texts", "vectors", "against", "held_out", "labels", "pairs", "reader"]
T = TypeVar("T")

MORE = "higher is more diverse"
LESS = "higher is less diverse"
TAUS = (1.0, 0.5, 0.2, 0.1, 0.05)
NEAR_DUPLICATE = 0.95
MIN_BINS = 4
MERGED_BINS = 16  # jackknife bins where leaving each of them out takes a computation of its own
EXACT_ROWS = 100_000  # 50 to 100 seconds of one core; above, all pairs are sampled
SAMPLED_ROWS = 4_000
_ENCODED = 2_048  # texts embedded at a time, where the encoder has no number of its own


@dataclass(frozen=True, slots=True)
class GivenVectors:
    """Vectors that one already has, in place of an encoder: of texts, images, code, anything.

    Args:
        name: of what made the vectors; the numbers carry it.
        vectors: of the n rows of the corpus, shape (n, d).
        against: of the m real rows, shape (m, d).
    """

    name: str
    vectors: Vectors
    against: Vectors | None = None

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.vectors.shape[1])

    @property
    def hash(self) -> str:
        """The name and the length of a vector: all that is known of the encoder."""
        return f"given:{self.name}:{self.dim}"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Refuse.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"vectors were given by {self.name!r}; {len(texts)} texts came without any, give theirs too")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A corpus to measure and what to measure it against.

    Args:
        corpus: n rows; its ``groups`` are the source rows that paraphrases share.
        against: the real training rows, for shift, label agreement and the leak baseline.
        held_out: validation and test texts, for leakage.
        prompts: the instructions that the LLM was given, for echoes of them.
        encoder: makes the vectors, or holds them (``GivenVectors``); None where no metric that was asked for needs any.
        reader: how well the answers of rows agree with those of a reader, 0 to 1, shape (n,); nan where it has none.
        seed: of bins, subsamples, permutations and probes.
        permutations: of the tests of shift.
        listen: told of what is going on, units done and all units.
    """

    corpus: Corpus
    against: Corpus | None = None
    held_out: Sequence[str] | None = None
    prompts: Sequence[str] | None = None
    encoder: Encoder | None = None
    reader: Callable[[Corpus], Floats] | None = None
    seed: int = 0
    permutations: int = 200
    listen: Callable[[str, int, int], None] | None = None
    _made: dict[object, object] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, make: Callable[[Subject], T]) -> T:
        """What ``make`` makes of this subject, computed at the first call: for results that metrics share.

        ``make`` is its own key, so it must be a module-level function.
        """
        if make not in self._made:
            self._made[make] = make(self)
        return cast("T", self._made[make])

    @property
    def n(self) -> int:
        """Rows of the corpus."""
        return len(self.corpus)

    @cached_property
    def bins(self) -> NDArray[np.int64]:
        """Jackknife bin of each row, shape (n,): whole groups, at most 64 bins."""
        return similarity.jackknife_bins(self.corpus.groups, seed=self.seed)

    @cached_property
    def against_bins(self) -> NDArray[np.int64]:
        """Jackknife bin of each real training row, shape (m,)."""
        return similarity.jackknife_bins(self.real.groups, seed=self.seed)

    @property
    def merged_bins(self) -> NDArray[np.int64]:
        """The jackknife bins merged to at most 16, shape (n,)."""
        return self.bins % MERGED_BINS

    @property
    def given(self) -> GivenVectors | None:
        """The vectors, where they were given."""
        return self.encoder if isinstance(self.encoder, GivenVectors) else None

    @property
    def has_intervals(self) -> bool:
        """Whether there are bins enough for a jackknife interval."""
        return int(self.bins.max(initial=0)) + 1 >= MIN_BINS

    @cached_property
    def tokens(self) -> list[list[str]]:
        """The words of each row."""
        return [split_tokens(text) for text in self.corpus.texts]

    @cached_property
    def real_tokens(self) -> list[list[str]]:
        """The words of each real training row."""
        return [split_tokens(text) for text in self.real.texts]

    @cached_property
    def unit(self) -> Vectors:
        """Unit vectors of the corpus, shape (n, d)."""
        return self._unit_of(None if self.given is None else self.given.vectors, self.corpus, "the measured corpus")

    @cached_property
    def against_unit(self) -> Vectors:
        """Unit vectors of the real training rows, shape (m, d)."""
        return self._unit_of(None if self.given is None else self.given.against, self.real, "the real corpus")

    @cached_property
    def fingerprint(self) -> str:
        """Of what is measured: the corpus, and the vectors where they were given."""
        return _fingerprint(self.corpus, None if self.given is None else self.given.vectors)

    @cached_property
    def against_fingerprint(self) -> str:
        """The same of the real training rows."""
        return _fingerprint(self.real, None if self.given is None else self.given.against)

    @cached_property
    def answers(self) -> Subject:
        """The answers of pairs in place of their texts, on both sides, without vectors."""
        real = None if self.against is None else self.against.with_columns(text=self.against.targets)
        return replace(self, corpus=self.corpus.with_columns(text=self.corpus.targets), against=real, encoder=None)

    def take(self, rows: NDArray[np.int64], against_rows: NDArray[np.int64] | None = None) -> Subject:
        """The same with some rows of the corpus only, and some of the real rows."""
        encoder, against = self.encoder, self.against
        if against is not None and against_rows is not None:
            against = against.take(against_rows)
        if isinstance(encoder, GivenVectors):
            real = encoder.against if encoder.against is None or against_rows is None else encoder.against[against_rows]
            encoder = GivenVectors(encoder.name, encoder.vectors[rows], real)
        return replace(self, corpus=self.corpus.take(rows), against=against, encoder=encoder)

    @property
    def real(self) -> Corpus:
        """The corpus to measure against."""
        if self.against is None:
            raise ValueError("against is None; this metric needs the real training rows")
        return self.against

    @property
    def is_real(self) -> bool:
        """Whether the corpus is the very data it is measured against."""
        return self.against is not None and self.against_fingerprint == self.fingerprint

    @cached_property
    def sample(self) -> NDArray[np.int64] | None:
        """The rows that stand for all in all-pairs numbers, in order; None where every row takes part."""
        return None if self.n <= EXACT_ROWS else similarity.sample_rows(self.n, SAMPLED_ROWS, seed=self.seed)

    def sums(self, tau: float) -> RowSums:
        """Row sums of ``exp((cos - 1) / tau)``, of the rows in ``sample``; those of TAUS come from one pass."""
        if tau in TAUS:
            return self._pairs[0][TAUS.index(tau)]
        if tau not in self._made:
            self._made[tau] = self._all_pairs([tau])[0][0]
        return cast("RowSums", self._made[tau])

    @property
    def nearest(self) -> Neighbours:
        """The nearest other row of the rows in ``sample``."""
        return self._pairs[1]

    @cached_property
    def _pairs(self) -> tuple[Sequence[RowSums], Neighbours]:
        return self._all_pairs(TAUS)

    def _all_pairs(self, taus: Sequence[float]) -> tuple[Sequence[RowSums], Neighbours]:
        told = None if self.listen is None else partial(self.listen, "compare rows")
        if self.sample is None:
            found = similarity.pairwise_pass(self.unit, taus, bins=self.bins, progress=told)
            return found.sums, found.nearest
        some = similarity.sampled_pass(self.unit, taus, self.sample, bins=self.bins, progress=told)
        return some.sums, some.nearest

    @cached_property
    def eigenvalues(self) -> NDArray[np.float64]:
        """Spectrum of the cosine kernel over n."""
        return similarity.spectrum(self.unit)

    @cached_property
    def eigenvalues_without(self) -> list[NDArray[np.float64]]:
        """The spectrum with each bin left out."""
        return similarity.spectra_without(self.unit, self.bins)

    @cached_property
    def held_out_unit(self) -> Vectors:
        """Unit vectors of the held-out texts, shape (h, d)."""
        held_out = list(self.held_out or ())
        return self._encode(held_out, [f"held-out text {i}" for i in range(len(held_out))], "the held-out texts")

    @cached_property
    def leaks(self) -> Leaks:
        """Rows that repeat a held-out text, against the baseline of the real training rows."""
        held_out = list(self.held_out or ())
        reference = self.against.texts if self.against is not None else []
        if self.given is not None or not held_out:  # nothing can embed the held-out texts: words alone
            return LeakFinder(held_out, reference=reference).find(self.corpus.texts)
        real = self.against_unit if self.against is not None else None
        finder = LeakFinder(held_out, reference=reference, held_out_vectors=self.held_out_unit, reference_vectors=real)
        return finder.find(self.corpus.texts, self.unit)

    def _unit_of(self, given: Vectors | None, corpus: Corpus, what: str) -> Vectors:
        if given is None:
            return self._encode(corpus.texts, corpus.ids, what)
        if len(given) != len(corpus):
            raise ValueError(f"{what} has {len(corpus)} rows and {len(given)} vectors; give one vector a row")
        return similarity.unit_rows(given)

    def _encode(self, texts: Sequence[str], ids: Sequence[str], what: str) -> Vectors:
        if self.encoder is None:
            raise ValueError("encoder is None; this metric needs vectors")
        out: Vectors | None = None
        step = getattr(self.encoder, "at_once", _ENCODED)
        for start in range(0, len(texts), step):
            part = self.encoder.encode(texts[start : start + step])
            usable = np.isfinite(part).all(axis=1) & (np.abs(part).max(axis=1, initial=0.0) > 0)
            if not usable.all():
                row = start + int(np.flatnonzero(~usable)[0])
                raise InputError(
                    f"{what}, row {ids[row]!r}: encoder {self.encoder.name!r} has no vector for {texts[row]!r}; "
                    "drop the row"
                )
            out = empty_rows(len(texts), part.shape[1]) if out is None else out
            out[start : start + step] = similarity.unit_rows(part)
            if self.listen is not None:
                self.listen("embed", min(start + step, len(texts)), len(texts))
        return np.zeros((0, self.encoder.dim), dtype=np.float32) if out is None else out


class PointSubject(Subject):
    """A subject measured without intervals: with a single jackknife bin there is nothing to leave out.

    The jackknife is nearly all of the time that a draw takes, and its variance is much the same in every draw.
    """

    @cached_property
    def bins(self) -> NDArray[np.int64]:
        """One bin for all rows, shape (n,)."""
        return np.zeros(self.n, dtype=np.int64)

    @cached_property
    def against_bins(self) -> NDArray[np.int64]:
        """One bin for all real rows, shape (m,)."""
        return np.zeros(len(self.real), dtype=np.int64)


def _fingerprint(corpus: Corpus, vectors: Vectors | None) -> str:
    if vectors is None:
        return corpus.fingerprint
    digest = hashlib.sha256(corpus.fingerprint.encode())
    for start in range(0, len(vectors), 65_536):
        digest.update(np.ascontiguousarray(vectors[start : start + 65_536]).data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(MetricNote):
    """One number about a corpus.

    ``compute`` returns None where the number is not defined, such as a mean over pairs of one row. ``needs`` says what
    must be given for it. ``standard`` metrics are measured unless others are
    asked for; the rest take longer, or say much the same, and are asked for by name or by "all".
    """

    name: str
    needs: tuple[Need, ...]
    compute: Callable[[Subject], Estimate | None]
    standard: bool = True
