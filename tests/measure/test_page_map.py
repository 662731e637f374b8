"""The 2-D map of examples."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from cuvee.measure import map_examples


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
