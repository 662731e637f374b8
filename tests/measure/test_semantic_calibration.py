"""Intervals cover: 200 replicates of 200 rows, independent or as 5 to 10 paraphrases of each source."""

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.measure import METRICS
from cuvee.measure.parts import added_diversity
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


@pytest.mark.slow
def test_intervals_on_what_synthetic_rows_add_cover():
    """120 real rows, and 100 synthetic ones that are five paraphrases each of sources from fewer themes."""
    found = {}
    for seed in range(120):
        rng = np.random.default_rng(seed)
        real = CENTRES[rng.integers(0, 6, size=120)] + rng.normal(size=(120, 12))
        sources = CENTRES[rng.choice(4, size=20, p=[0.5, 0.3, 0.1, 0.1])] + rng.normal(size=(20, 12))
        synthetic = np.repeat(sources, 5, axis=0) + 0.2 * rng.normal(size=(100, 12))
        subject = Subject(
            corpus=corpus_of(range(120, 220), [f"g{i // 5}" for i in range(100)]),
            against=corpus_of(range(120), [f"r{i}" for i in range(120)], "r"),
            encoder=FixedEncoder(np.vstack([real, synthetic]).astype(np.float32)),
        )
        for each in added_diversity(subject, draws=3):
            for name in ("union", "gain", "gain_equal_rows"):
                estimate = getattr(each, name)
                found.setdefault((each.name, name), []).append((estimate.low, estimate.value, estimate.high))
    for key, rows in found.items():
        low, value, high = np.array(rows).T
        assert 0.90 <= np.mean((low <= value.mean()) & (value.mean() <= high)) <= 0.995, key
