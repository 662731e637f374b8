"""The 2-D map of examples."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder
from cuvee.measure import map_pools, sample_rows, sample_subject, score_examples
from cuvee.measure.page import map_examples, pick_extremes


def make_rows(n, seed=0, d=6):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) * np.arange(d, 0, -1)).astype(np.float32)


def draw(vectors, origins=None, groups=None, **options):
    n = len(vectors)
    texts = [f"text {i}" for i in range(n)]
    examples = list(zip(origins or ["synthetic"] * n, groups or ["a"] * n, texts, strict=False))
    return map_examples(vectors, examples, **options)


def test_it_is_what_scikit_learn_finds():
    vectors = make_rows(200)
    oracle = PCA(2).fit(vectors.astype(np.float64))
    expected = oracle.transform(vectors.astype(np.float64))
    found = draw(vectors)
    for ours, theirs in zip((found.x, found.y), expected.T, strict=True):
        np.testing.assert_allclose(ours * np.sign(ours @ theirs), theirs, atol=1e-4)
    assert found.explained == pytest.approx(oracle.explained_variance_ratio_.sum(), abs=1e-6)
    assert (found.rows, found.seed) == (200, 0)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 5))
def test_neither_row_order_nor_mirroring_moves_a_row(n, d, seed):
    vectors = make_rows(n, seed, d)
    order = np.random.default_rng(seed).permutation(n)
    found, shuffled, mirrored = draw(vectors), draw(vectors[order]), draw(-vectors)
    assert np.isfinite(found.x).all() and np.isfinite(found.y).all() and len(found.x) == n
    scale = 1e-5 * (1 + np.abs(vectors).max())
    np.testing.assert_allclose(shuffled.x, found.x[order], atol=scale)
    np.testing.assert_allclose(mirrored.x, -found.x, atol=scale)


@pytest.mark.parametrize("n", [1, 7])
def test_equal_rows_lie_at_one_point(n):
    found = draw(np.full((n, 3), 0.577, np.float32))
    assert not found.x.any() and not found.y.any() and found.explained is None


def test_one_dimension_is_a_line():
    found = draw(np.array([[1.0], [2.0], [4.0]], np.float32))
    assert found.explained == pytest.approx(1.0) and not found.y.any()
    assert np.diff(found.x).tolist() == pytest.approx([1.0, 2.0])


def test_a_sample_keeps_about_the_shares_and_the_axes_of_all_rows():
    vectors = make_rows(1000)
    origins = ["real"] * 100 + ["synthetic"] * 900
    groups = [("common", "rare")[i % 4 == 0] for i in range(1000)]
    whole = draw(vectors, origins, groups)
    some = draw(vectors, origins, groups, max_points=200)
    counts = Counter(zip(some.origin, some.group, strict=True))
    assert len(counts) == 4 and abs(counts["synthetic", "common"] - 135) < 30
    places = {text: (x, y) for text, x, y in zip(whole.text, whole.x, whole.y, strict=True)}
    assert [places[text] for text in some.text] == list(zip(some.x, some.y, strict=True))
    assert some.rows == 1000 and some.explained == whole.explained
    assert draw(vectors, origins, groups, max_points=200).text == some.text
    other = draw(vectors, origins, groups, max_points=200, seed=1)
    assert other.text != some.text and len(other.text) == 200 and other.seed == 1


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60), st.integers(1, 70))
@settings(max_examples=25, deadline=None)
def test_a_sample_has_the_points_asked_for(groups, most):
    found = draw(make_rows(len(groups)), groups=groups, max_points=most)
    assert len(found.x) == min(most, len(groups)) == len(set(found.text))
    assert not Counter(found.group) - Counter(groups)


def make_subject(texts, encoder=None, seed=0):
    corpus = Corpus.from_rows([{"text": text, "target": "a"} for text in texts])
    return sample_subject(corpus, encoder or HashingEncoder(), seed=seed)


def test_a_map_of_pools_has_each_text_once_and_at_most_its_points_a_third_of_them_real():
    real = make_subject([f"real {i}" for i in range(50)])
    pools = {f"topics={k}": make_subject([f"row {i % 40} of {k}" for i in range(90)]) for k in (1, 2)}
    found = map_pools(real, pools, rows=230, most=60)
    counts = Counter(found.group)
    assert counts == {"real": 20, "topics=1": 20, "topics=2": 20} and (found.rows, len(found.x)) == (230, 60)
    assert {o for o, g in zip(found.origin, found.group, strict=True) if g == "real"} == {"real"}
    assert len(set(found.text)) == 60 and 0 < found.explained < 1
    whole = map_pools(real, pools, rows=230)
    assert Counter(whole.group) == {"real": 50, "topics=1": 40, "topics=2": 40}


def test_samples_mark_the_most_redundant_and_the_most_novel_rows():
    copies = [f"the market closed higher on monday, {word}" for word in ("again", "again", "again", "today", "today")]
    others = ["zebras sleep", "a quartz vein", "six loud drums", "why the kite fell", "blue oxide"]
    found = sample_rows(make_subject([*copies, *others]), count=3)
    marks = Counter(mark for _, _, mark in found)
    assert marks == {"most redundant": 2, "most novel": 2, "": 3} and len({text for _, text, _ in found}) == 7
    assert {text for _, text, mark in found if mark == "most redundant"} == {copies[0], copies[3]}
    assert {text for _, text, mark in found if mark == "most novel"} <= set(others)


def test_of_pairs_a_reader_sees_context_and_answer_with_the_text():
    rows = [{"text": f"why {i}?", "target": f"so {i}", "context": "a tale " * 60 + str(i)} for i in range(4)]
    corpus = Corpus.from_rows(rows, task="generation")
    subject = sample_subject(corpus, HashingEncoder())
    label, text, _ = sample_rows(subject)[0]
    context, asked, answer = text.split("\n")
    assert label == "" and asked.startswith("why ") and answer == f"→ so {asked[4]}"
    assert context.startswith("[a tale a tale") and context.endswith("...]") and len(context) < 310
    (first, *_), _ = pick_extremes(corpus, score_examples(subject))
    assert first.target == "" and first.text.count("\n") == first.nearest_text.count("\n") == 2
    assert str(corpus).splitlines()[1].split() == ["context", "text", "target", "origin"]


def test_of_a_large_pool_only_a_sample_is_embedded():
    class Counting:
        name, hash, dimension, texts = "hashing", "h", 4, 0

        def encode(self, texts):
            self.texts += len(texts)
            return np.random.default_rng(0).normal(size=(len(texts), 4)).astype(np.float32)

    encoder = Counting()
    large = make_subject([f"row {i}" for i in range(5000)], encoder)
    assert sample_rows(large) and encoder.texts == large.n == 2000
