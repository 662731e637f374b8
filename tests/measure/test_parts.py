"""Diversity within and between parts."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.measure.parts import decompose_diversity
from cuvee.measure.subject import Subject
from cuvee.similarity import Compute, Exponential, kernel_diversity, row_sums, spectrum, unit_rows, vendi_score


class FixedEncoder:
    """Vectors by number: the text is the row of a table."""

    name = hash = "fixed"

    def __init__(self, table):
        self.table, self.dim = np.asarray(table, dtype=np.float32), len(table[0])

    def encode(self, texts):
        return self.table[[int(t) for t in texts]]


def corpus_of(numbers, groups=None, prefix="i"):
    return Corpus.from_rows(
        {"text": str(n), "target": "x", "id": f"{prefix}{i}", "group": None if groups is None else groups[i]}
        for i, n in enumerate(numbers)
    )


def blobs(sizes, seed=0, d=6, spread=0.5):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(sizes), d)) * 2
    vectors = np.vstack([c + spread * rng.normal(size=(n, d)) for c, n in zip(centres, sizes, strict=True)])
    return vectors, [f"p{i}" for i, n in enumerate(sizes) for _ in range(n)]


def decompose(vectors, parts, **options):
    return decompose_diversity(subject_of(vectors, range(len(vectors))), parts, **options)


def subject_of(vectors, numbers, groups=None, real=None, **options):
    against = None if real is None else corpus_of(real, prefix="r")
    encoder = FixedEncoder(vectors)
    return Subject(corpus=corpus_of(numbers, groups), against=against, encoder=encoder, **options)


# --- within and between -----------------------------------------------------------------------------
def test_total_is_within_times_between_by_the_textbook_formulas():
    vectors, parts = blobs([20, 30, 50])
    unit = unit_rows(vectors, dtype=np.float64)
    vendi, kernel = decompose(vectors, parts, tau=0.2)
    assert (vendi.name, kernel.name) == ("vendi_q1", "lc_q1_tau0.2")
    labels, shares = np.array(parts), {"p0": 0.2, "p1": 0.3, "p2": 0.5}

    # Holevo information: the entropy of the mean density matrix less the mean entropy
    entropy = {p: math.log(vendi_score(spectrum(unit[labels == p]), 1.0)) for p in shares}
    holevo = math.log(vendi_score(spectrum(unit), 1.0)) - sum(w * entropy[p] for p, w in shares.items())
    assert vendi.between.value == pytest.approx(math.exp(holevo), rel=1e-6)

    # normalised alpha and beta of Reeve et al. at order 1
    similarity = np.exp((unit @ unit.T - 1) / 0.2)
    whole = similarity.mean(axis=1)
    log_alpha = log_beta = 0.0
    for p, w in shares.items():
        own = similarity[labels == p][:, labels == p].mean(axis=1)
        log_alpha -= w * np.log(own).mean()
        log_beta += w * np.log(own / whole[labels == p]).mean()
    assert kernel.within.value == pytest.approx(math.exp(log_alpha), rel=1e-5)
    assert kernel.between.value == pytest.approx(math.exp(log_beta), rel=1e-5)
    for found in (vendi, kernel):
        assert found.total.value == pytest.approx(found.within.value * found.between.value, rel=1e-12)
        assert found.rows == {"p0": 20, "p1": 30, "p2": 50}
    alone = kernel_diversity(row_sums(unit[labels == "p1"], [Exponential(0.2)])[0].total, 1.0)
    assert kernel.parts["p1"].value == pytest.approx(alone, rel=1e-5)
    assert kernel.parts["p1"].n == 30


@pytest.mark.slow
def test_beta_of_order_one_is_that_of_sentropy():
    import pandas as pd

    lcr = pytest.importorskip("sentropy.sentropy").LCR
    vectors, parts = blobs([10, 20])
    unit = unit_rows(vectors, dtype=np.float64)
    counts = pd.DataFrame({p: [float(x == p) for x in parts] for p in ("p0", "p1")})
    theirs = lcr(
        counts, similarity=np.exp((unit @ unit.T - 1) / 0.1), qs=1, ms=["normalized_alpha", "normalized_beta"],
        level="overall", parallelize=False,
    )  # fmt: skip
    kernel = decompose(vectors, parts)[1]
    assert kernel.within.value == pytest.approx(float(theirs(q=1, measure="normalized_alpha")), rel=1e-5)
    assert kernel.between.value == pytest.approx(float(theirs(q=1, measure="normalized_beta")), rel=1e-5)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 10**6), st.sampled_from([0.05, 2.0]))
def test_between_lies_from_one_to_the_effective_number_of_parts(sizes, seed, spread):
    vectors, parts = blobs(sizes, seed, spread=spread)
    shares = np.array(sizes) / sum(sizes)
    most = math.exp(-np.sum(shares * np.log(shares)))
    for found in decompose(vectors, parts):
        assert 1 - 1e-4 <= found.between.value <= most * (1 + 1e-5)


def test_parts_that_are_alike_and_parts_that_share_nothing():
    vectors = np.tile(np.eye(8), (2, 1))
    for found in decompose(vectors, ["a"] * 8 + ["b"] * 8):
        assert found.between.value == pytest.approx(1.0, abs=1e-6)
    for found in decompose(np.eye(16), ["a"] * 8 + ["b"] * 8, tau=0.02):
        assert found.between.value == pytest.approx(2.0, rel=1e-6)
        assert found.within.value == pytest.approx(8.0, rel=1e-6)


def test_the_intervals_are_those_of_corpora_with_a_group_left_out():
    vectors, parts = blobs([20, 28], seed=3)
    groups = [f"g{i % 12}" for i in range(48)]
    whole = decompose_diversity(subject_of(vectors, range(48), groups), parts)
    left = []
    for g in range(12):
        kept = [i for i in range(48) if i % 12 != g]
        left.append(decompose_diversity(subject_of(vectors, kept), [parts[i] for i in kept]))
    for index, found in enumerate(whole):
        for name in ("total", "within", "between"):
            values = np.array([getattr(d[index], name).value for d in left])
            se = math.sqrt(11 / 12 * np.sum((values - values.mean()) ** 2))
            estimate = getattr(found, name)
            assert estimate.high - estimate.value == pytest.approx(2.200985 * se, rel=1e-2)
            assert estimate.interval == "grouped jackknife, 12 bins"


def test_a_part_that_vanishes_with_its_group_is_no_obstacle():
    vectors, parts = blobs([1, 30, 9])
    for found in decompose(vectors, parts):
        assert found.parts["p0"].value == pytest.approx(1.0, abs=1e-6)
        assert found.parts["p0"].low is None
        assert found.between.low <= found.between.value <= found.between.high
    for found in decompose(vectors[:1], ["only"]):
        assert (found.total.value, found.between.value) == (pytest.approx(1.0), pytest.approx(1.0))


def test_every_row_counts_even_where_time_is_short():
    vectors, parts = blobs([10, 12])
    subject = subject_of(vectors, range(22))
    hurried = replace(subject, compute=Compute(time_budget=1e-9))
    expected, found = decompose(vectors, parts), decompose_diversity(hurried, parts)
    assert [d.between.value for d in found] == pytest.approx([d.between.value for d in expected], rel=1e-6)
