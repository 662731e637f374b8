"""Selections from real LLM-generated pools: levels that rise by two measures, and rows nearer to the real data."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cuvee.corpus import Corpus, load_corpus
from cuvee.encoders import load_encoder
from cuvee.measure import measure_corpus
from cuvee.mix import Selector
from cuvee.similarity import mmd, unit_rows

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not on this machine"),
]


def sample(name: str, file: str, rows: int, origin: str) -> Corpus:
    corpus = load_corpus(DATA / name / file, text="text", label="label", origin=origin)
    return corpus.take(np.sort(np.random.default_rng(0).permutation(len(corpus))[:rows]))


@pytest.mark.parametrize("name", ["gptaug_banking", "gptaug_stackoverflow"])
def test_five_levels_of_a_thousand_rows_rise_by_vendi_and_by_dcscore(name):
    pool = sample(name, "synthetic.jsonl.gz", 5000, "synthetic")
    encoder = load_encoder("minilm")
    found = Selector(pool, encoder.encode(pool.texts), 1000).levels(5)
    measured = [
        measure_corpus(part.corpus, encoder=encoder, metrics=["vendi_q1", "dcscore_tau0.1"]).values for part in found
    ]
    for metric in ("vendi_q1", "dcscore_tau0.1"):
        for lower, higher in pairwise(measured):
            assert lower[metric].high < higher[metric].low, metric  # the intervals do not even touch
    counts = found[0].corpus.label_counts()
    assert all(part.corpus.label_counts() == counts for part in found)
    assert {len(set(part.corpus.ids)) for part in found} == {1000}
    assert max(part.length_difference for part in found) < 0.1


def test_lowest_shift_is_nearer_to_held_back_real_rows_than_random_rows_are():
    pool = sample("workergpt_sentiment", "synthetic.jsonl.gz", 2000, "synthetic")
    train = sample("workergpt_sentiment", "train.jsonl", 500, "real")
    held_back = sample("workergpt_sentiment", "test.jsonl.gz", 600, "real")
    encoder = load_encoder("minilm")
    vectors, real, other = (unit_rows(encoder.encode(c.texts)) for c in (pool, train, held_back))

    def shift(rows: np.ndarray, seed: int) -> float:
        # the held-back rows are drawn anew each time, so that their luck is part of the spread
        drawn = other[np.random.default_rng(seed).permutation(len(other))[:300]]
        return mmd(vectors[rows], drawn, bandwidth=1.0, permutations=0).value

    nearest = Selector(pool, vectors, 300).best("lowest_shift", real)
    differences = []
    for seed in range(10):
        random = Selector(pool, vectors, 300, seed=seed).best("random")
        assert random.corpus.label_counts() == nearest.corpus.label_counts()
        differences.append(shift(random.rows, seed) - shift(nearest.rows, seed))
    mean, error = np.mean(differences), np.std(differences, ddof=1) / np.sqrt(10)
    assert mean - 2.26 * error > 0  # the 95% t interval of ten draws lies above 0
    assert nearest.length_difference < 0.1
