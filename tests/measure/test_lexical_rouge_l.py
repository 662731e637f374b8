"""Homogenisation by ROUGE-L against the rouge-score package."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.measure import lexical
from cuvee.measure.lexical import MOST_ROWS, measure_rouge_l
from cuvee.measure.subject import Subject

WORDS = st.sampled_from(["the", "Cat", "sat-down", "can't", "x_y", "café", "3.5", "--"])
TEXTS = st.lists(st.lists(WORDS, max_size=10).map(" ".join), min_size=2, max_size=7)


def measure(texts, seed=0):
    return measure_rouge_l(Subject(corpus=Corpus.from_rows({"text": t, "target": "x"} for t in texts), seed=seed))


def rouge_score_mean(texts):
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    return np.mean([scorer.score(a, b)["rougeL"].fmeasure for a, b in combinations(texts, 2)])


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(TEXTS)
def test_it_is_the_mean_of_rouge_score_over_pairs(texts):
    texts = [f"{text} end" for text in texts]
    assert measure(texts).value == pytest.approx(rouge_score_mean(texts), abs=1e-6)


@pytest.mark.slow
def test_more_rows_than_a_tile_give_the_mean_of_rouge_score(monkeypatch):
    monkeypatch.setattr(lexical, "_TILE", 16)
    rng = np.random.default_rng(3)
    texts = [" ".join(f"w{w}" for w in rng.integers(0, 30, rng.integers(1, 20))) for _ in range(70)]
    assert measure(texts).value == pytest.approx(rouge_score_mean(texts), abs=1e-6)


def test_a_pair_by_hand():
    # the longest common subsequence "the sat mat" of 3 words among 4 and 5
    assert measure(["the cat sat mat", "The dog sat, a mat!"]).value == pytest.approx(2 * 3 / 9)
    assert measure(["police killed the gunman", "the gunman killed police"]).value == pytest.approx(0.5)


def test_three_disjoint_texts_are_not_homogeneous():
    found = measure(["alpha beta", "gamma delta epsilon", "zeta"])
    assert found.value == 0.0
    assert (found.settings["rows"], found.settings["pairs"]) == (3, 3)


def test_copies_score_one_and_a_text_without_letters_zero():
    assert measure(["same words here"] * 5).value == pytest.approx(1.0)
    assert measure(["same words", "same words", "?!"]).value == pytest.approx(1 / 3)


def test_other_alphabets_have_no_rouge_l():
    assert measure(["привет мир", "мир 1", "ещё"]) is None
    assert measure(["one row"]) is None
    assert measure(["?", "!"]) is None


def test_above_the_cap_a_sample_of_rows_is_compared(monkeypatch):
    assert MOST_ROWS == 2000
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{w}" for w in rng.integers(0, 40, 12)) for _ in range(400)]
    full = measure(texts)
    monkeypatch.setattr(lexical, "MOST_ROWS", 200)
    sampled, shuffled, other = measure(texts), measure(list(rng.permutation(texts))), measure(texts, seed=1)
    assert (sampled.settings["rows"], sampled.settings["pairs"]) == (200, 19_900)
    assert (sampled.n, full.settings["rows"]) == (400, 400)
    assert sampled.value == shuffled.value != other.value
    assert sampled.low < full.value < sampled.high
    assert sampled.high - sampled.low > full.high - full.low


def test_copies_are_sampled_one_by_one(monkeypatch):
    # 300 copies of one text: the chance of a pair of copies is that in the corpus, not that of one draw
    texts = ["the very same text"] * 300 + [f"a{i} b{i} c{i} d{i}" for i in range(300)]
    monkeypatch.setattr(lexical, "MOST_ROWS", 300)
    values = [measure(texts, seed=s).value for s in range(3)]
    assert values == pytest.approx([0.25] * 3, abs=0.06)


def test_words_past_the_limit_are_cut_and_said(monkeypatch):
    monkeypatch.setattr(lexical, "MOST_WORDS", 3)
    cut = measure(["a b c x y", "a b c z"])
    assert cut.value == 1.0
    assert cut.settings["cut to words"] == 3
    assert cut.settings["rows cut"] == 2
    assert "rows cut" not in measure(["a b c", "a b"]).settings
