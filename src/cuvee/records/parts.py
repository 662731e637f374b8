"""What a corpus is made of: its examples one by one, its labels, its real and synthetic part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cuvee.records.measurement import Estimate, Measurement

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleScores:
    """How much each of n examples adds, in the order of the corpus.

    Attributes:
        ids: of the examples.
        uniqueness: shape (n,), ``1 / sum_j k(i, j)`` with k = exp((cos - 1) / tau): the example's own term of
            DCScore, which is their sum. 1: nothing is like it; 1/n: all rows are the same.
        added: shape (n,), DCScore of the corpus less DCScore without the example.
        surprisal: shape (n,), ``-x^T log(C) x`` with ``C = X^T X / n``: its mean is the logarithm of the Vendi
            score of order 1.
        nearest: shape (n,), row of the most similar other example; -1 where there is only one row.
        nearest_cosine: shape (n,), its cosine; nan where there is only one row.
        tau: of the kernel.
    """

    ids: tuple[str, ...]
    uniqueness: Floats
    added: Floats
    surprisal: Floats
    nearest: NDArray[np.int64]
    nearest_cosine: Floats
    tau: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decomposition:
    """Diversity of order 1 within and between the parts of a corpus (labels, or real and synthetic).

    ``total = within * between``: ``within`` is the effective number of meanings in a typical part, ``between``
    the effective number of distinct parts, from 1 (all parts alike) to the number of parts (nothing shared).

    Attributes:
        name: of the diversity: ``vendi_q1`` or ``dcscore_tau0.1`` and the like.
        parts: part -> diversity of that part alone.
        rows: part -> its rows.
    """

    name: str
    total: Estimate
    within: Estimate
    between: Estimate
    parts: Mapping[str, Estimate]
    rows: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What a synthetic corpus adds to the real one: one diversity of real, synthetic and their union.

    ``gain`` is union less real, from *all* rows; a larger corpus has more room, so ``gain_equal_rows`` compares
    a union of half real and half synthetic rows with as many real rows (None where there are too few).
    """

    name: str
    real: Estimate
    synthetic: Estimate
    union: Estimate
    gain: Estimate
    gain_equal_rows: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Diversity over a range of one parameter: tau (DCScore) or q (order), with intervals."""

    name: str
    parameter: str
    points: tuple[tuple[float, Estimate], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetMap:
    """Points of a 2-D map of examples; ``origin`` is ``real`` or ``synthetic``, ``group`` a level or label."""

    method: str
    x: Floats
    y: Floats
    origin: tuple[str, ...]
    group: tuple[str, ...]
    text: tuple[str, ...]
    explained: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """One example shown to a reader, with its scores and its nearest other example."""

    id: str
    text: str
    target: str
    uniqueness: float
    added: float
    nearest_text: str
    nearest_cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Corpora measured so that their numbers compare: equal rows, matched lengths, one encoder.

    Attributes:
        names: of the corpora, in the order given.
        rows: rows of each in the comparison.
        draws: rarefaction draws that each number is the mean of.
        words: lexical numbers are of the first ``words`` words of each text; None where nothing was cut.
        values: metric -> one estimate a corpus.
        differences: metric -> one estimate a corpus, that corpus less the first one (the first is None).
        length_difference: largest standardised difference of mean word counts between two corpora, as compared.
        notes: what could not be matched, and what was forced.
        encoder, encoder_hash: of the vectors.
    """

    names: tuple[str, ...]
    rows: int
    draws: int
    words: int | None
    values: Mapping[str, tuple[Estimate, ...]]
    differences: Mapping[str, tuple[Estimate | None, ...]]
    length_difference: float
    notes: tuple[str, ...] = ()
    encoder: str = ""
    encoder_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementPage:
    """Everything that the page of one measured corpus shows."""

    measurement: Measurement
    taus: Profile | None
    orders: tuple[Profile, ...]
    by_label: Mapping[str, Measurement] = field(default_factory=dict)
    decomposition: tuple[Decomposition, ...] = ()
    added: tuple[Added, ...] = ()
    map: DatasetMap | None = None
    redundant: tuple[SampleRow, ...] = ()
    novel: tuple[SampleRow, ...] = ()
    giveaways: tuple[tuple[str, float], ...] = ()
    """Texts that give the synthetic data away, with the probability of being synthetic."""
