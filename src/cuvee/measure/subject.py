"""What is measured: one corpus, with the intermediate results that several metrics share, computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from cuvee.corpus import Corpus
from cuvee.defects import Leaks, find_leaks, split_tokens
from cuvee.encoders import Encoder
from cuvee.errors import InputError
from cuvee.records import Estimate, Vectors
from cuvee.similarity import (
    AtLeast,
    Exponential,
    Kernel,
    RowSums,
    jackknife_bins,
    row_sums,
    spectra_without,
    spectrum,
    unit_rows,
)

Family = Literal["semantic", "lexical", "shift", "quality"]
Need = Literal["texts", "vectors", "against", "held_out", "labels"]
T = TypeVar("T")

MORE = "higher is more diverse"
LESS = "higher is less diverse"
TAUS = (1.0, 0.5, 0.2, 0.1, 0.05)
NEAR_DUPLICATE = 0.95
MIN_BINS = 4
_KERNELS: tuple[Kernel, ...] = (*(Exponential(tau) for tau in TAUS), AtLeast(NEAR_DUPLICATE))


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A corpus to measure and what to measure it against.

    Args:
        corpus: n rows; its ``groups`` are the source rows that paraphrases share.
        against: the real training rows, for shift, label agreement and the leak baseline.
        held_out: validation and test texts, for leakage.
        encoder: makes the vectors; None where no metric that was asked for needs them.
        seed: of bins, subsamples, permutations and probes.
        permutations: of the MMD test.
    """

    corpus: Corpus
    against: Corpus | None = None
    held_out: Sequence[str] | None = None
    encoder: Encoder | None = None
    seed: int = 0
    permutations: int = 200
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
        return jackknife_bins(self.corpus.groups, seed=self.seed)

    @cached_property
    def against_bins(self) -> NDArray[np.int64]:
        """Jackknife bin of each real training row, shape (m,)."""
        return jackknife_bins(self.real.groups, seed=self.seed)

    @property
    def has_intervals(self) -> bool:
        """Whether there are bins enough for a jackknife interval."""
        return int(self.bins.max(initial=0)) + 1 >= MIN_BINS

    @cached_property
    def tokens(self) -> list[list[str]]:
        """The words of each row."""
        return [split_tokens(text) for text in self.corpus.texts]

    @cached_property
    def unit(self) -> Vectors:
        """Unit vectors of the corpus, shape (n, d)."""
        return self._encode(self.corpus.texts, self.corpus.ids, "the measured corpus")

    @cached_property
    def against_unit(self) -> Vectors:
        """Unit vectors of the real training rows, shape (m, d)."""
        against = self.real
        return self._encode(against.texts, against.ids, "the real corpus")

    @property
    def real(self) -> Corpus:
        """The corpus to measure against."""
        if self.against is None:
            raise ValueError("against is None; this metric needs the real training rows")
        return self.against

    @property
    def is_real(self) -> bool:
        """Whether the corpus is the very data it is measured against."""
        return self.against is not None and self.against.fingerprint == self.corpus.fingerprint

    def sums(self, kernel: Kernel) -> RowSums:
        """Row sums of one kernel; the first call computes all kernels of the METRICS table in one pass."""
        if kernel in self._all_sums:
            return self._all_sums[kernel]
        return row_sums(self.unit, [kernel], bins=self.bins)[0]

    @cached_property
    def _all_sums(self) -> dict[Kernel, RowSums]:
        return dict(zip(_KERNELS, row_sums(self.unit, _KERNELS, bins=self.bins), strict=True))

    @cached_property
    def eigenvalues(self) -> NDArray[np.float64]:
        """Spectrum of the cosine kernel over n."""
        return spectrum(self.unit)

    @cached_property
    def eigenvalues_without(self) -> list[NDArray[np.float64]]:
        """The spectrum with each bin left out."""
        return spectra_without(self.unit, self.bins)

    @cached_property
    def leaks(self) -> Leaks:
        """Rows that repeat a held-out text, against the baseline of the real training rows."""
        held_out = list(self.held_out or ())
        reference = self.against.texts if self.against is not None else []
        ids = [f"held-out text {i}" for i in range(len(held_out))]
        return find_leaks(
            self.corpus.texts,
            held_out,
            reference=reference,
            vectors=self.unit,
            held_out_vectors=self._encode(held_out, ids, "the held-out texts") if held_out else self.unit[:0],
            reference_vectors=self.against_unit if self.against is not None else None,
        )

    def _encode(self, texts: Sequence[str], ids: Sequence[str], what: str) -> Vectors:
        if self.encoder is None:
            raise ValueError("encoder is None; this metric needs vectors")
        vectors = self.encoder.encode(texts)
        usable = np.isfinite(vectors).all(axis=1) & (np.abs(vectors).max(axis=1, initial=0.0) > 0)
        if not usable.all():
            row = int(np.flatnonzero(~usable)[0])
            raise InputError(
                f"{what}, row {ids[row]!r}: encoder {self.encoder.name!r} has no vector for {texts[row]!r}; "
                "drop the row"
            )
        return unit_rows(vectors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number about a corpus.

    ``compute`` returns None where the number is not defined, such as a mean over pairs of one row. ``better``
    says how to read it; ``needs`` what must be given for it. ``standard`` metrics are measured unless others are
    asked for; the rest take longer, or say much the same, and are asked for by name or by "all".
    """

    name: str
    family: Family
    description: str
    better: str
    needs: tuple[Need, ...]
    compute: Callable[[Subject], Estimate | None]
    standard: bool = True
