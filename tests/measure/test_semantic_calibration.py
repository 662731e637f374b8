"""Intervals cover: 200 replicates of 200 rows, independent or as 5 to 10 paraphrases of each source."""

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.measure import METRICS
from cuvee.measure.subject import Subject

CENTRES = np.random.default_rng(0).normal(size=(6, 12)) * 1.5
ROWS, REPLICATES = 200, 200


class FixedEncoder:
    """Vectors by number: the text is the row of a table."""

    name, hash, dim = "fixed", "fixed", 12

    def __init__(self, table):
        self.table = table

    def encode(self, texts):
        return self.table[[int(t) for t in texts]]


def draw(rng, grouped):
    """Vectors and groups; the sources are a mixture of six themes, the paraphrases lie close around them."""
    sizes = rng.integers(5, 11, size=ROWS // 5) if grouped else np.ones(ROWS, dtype=int)
    source = np.repeat(np.arange(len(sizes)), sizes)[:ROWS]
    sources = CENTRES[rng.integers(0, 6, size=len(sizes))] + rng.normal(size=(len(sizes), 12))
    vectors = sources[source] + (0.2 * rng.normal(size=(ROWS, 12)) if grouped else 0.0)
    return vectors.astype(np.float32), [f"g{i}" for i in source]


def corpus_of(numbers, groups, prefix="i"):
    return Corpus.from_rows(
        {"text": str(n), "target": "x", "id": f"{prefix}{i}", "group": g}
        for i, (n, g) in enumerate(zip(numbers, groups, strict=True))
    )


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_cover_what_is_expected_of_as_many_rows(grouped):
    names = ("dcscore_tau0.1", "vendi_q1")
    found = {name: [] for name in names}
    for seed in range(REPLICATES):
        vectors, groups = draw(np.random.default_rng(seed), grouped)
        subject = Subject(corpus=corpus_of(range(ROWS), groups), encoder=FixedEncoder(vectors))
        for name in names:
            estimate = METRICS[name].compute(subject)
            found[name].append((estimate.low, estimate.value, estimate.high))
    for name, rows in found.items():
        low, value, high = np.array(rows).T
        coverage = np.mean((low <= value.mean()) & (value.mean() <= high))
        assert 0.90 <= coverage <= 0.99, (name, coverage)
