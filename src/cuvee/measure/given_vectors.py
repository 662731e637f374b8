"""Measure vectors that one already has: of texts, images, code, anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cuvee.corpus import Corpus
from cuvee.measure.corpus_measurement import measure_corpus
from cuvee.measure.subject import Metric
from cuvee.records import Measurement, Vectors
from cuvee.similarity import Compute


@dataclass(frozen=True, slots=True)
class GivenVectors:
    """The name that numbers from given vectors carry; it cannot embed anything.

    Args:
        name: what made the vectors.
        dim: length of a vector.
    """

    name: str
    dim: int

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


def measure_vectors(
    vectors: Vectors,
    *,
    against: Vectors | None = None,
    labels: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    made_by: str = "given vectors",
    metrics: Sequence[str | Metric] | None = None,
    name: str = "vectors",
    seed: int = 0,
    permutations: int = 200,
    rows: int | None = None,
    compute: Compute | None = None,
    time_budget: float | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Measurement:
    """Diversity of vectors of anything, and their shift from other vectors of the same kind.

    Args:
        vectors: shape (n, d); rows need not have length 1.
        against: vectors of the real rows, shape (m, d).
        labels: of the n rows.
        groups: of the n rows: rows of one group (augmentations of one source) are not independent.
        made_by: name of the model that made the vectors; only numbers with the same name compare.
        metrics, name, seed, permutations, rows, compute, time_budget, progress: as for ``measure_corpus``.

    Raises:
        ValueError: shapes that do not agree, a row without direction, a metric that needs texts.
    """
    if against is not None and against.shape[1:] != vectors.shape[1:]:
        raise ValueError(f"against has shape {against.shape!r} and vectors {vectors.shape!r}; they need one length")
    return measure_corpus(
        Corpus.without_texts(len(vectors), targets=labels, groups=groups),
        against=None if against is None else Corpus.without_texts(len(against)),
        encoder=GivenVectors(made_by, int(vectors.shape[1])),
        vectors=vectors,
        against_vectors=against,
        metrics=metrics,
        name=name,
        seed=seed,
        permutations=permutations,
        rows=rows,
        compute=compute,
        time_budget=time_budget,
        progress=progress,
    )
