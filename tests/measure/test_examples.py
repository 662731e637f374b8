"""Scores of examples, and the lists of redundant and novel ones."""

import math

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder
from cuvee.measure import METRICS
from cuvee.measure.page import pick_extremes, score_examples
from cuvee.measure.subject import Subject

TEXTS = [
    *["The match was won by the home team", "the match was won by the HOME team", "The Match was won by the home team"]
    * 3,
    "shares fell as oil rose", "a quiet film about the sea", "the minister resigned on monday",
    "new vaccine trial begins", "storm closes the northern ports",
]  # fmt: skip


@pytest.fixture(scope="module")
def corpus():
    return Corpus.from_rows({"text": t, "target": "news"} for t in TEXTS)


@pytest.fixture(scope="module")
def scores(corpus):
    return score_examples(corpus, encoder=HashingEncoder())


def test_scores_sum_to_the_diversities_of_the_corpus(corpus, scores):
    subject = Subject(corpus=corpus, encoder=HashingEncoder())
    assert scores.ids == tuple(corpus.ids)
    assert scores.tau == 0.1
    assert scores.uniqueness.sum() == pytest.approx(METRICS["dcscore_tau0.1"].compute(subject).value, rel=1e-6)
    other = score_examples(corpus, encoder=HashingEncoder(), tau=0.5)
    assert other.uniqueness.sum() < scores.uniqueness.sum()


def test_extremes_are_one_of_each_cluster(corpus, scores):
    redundant, novel = pick_extremes(corpus, scores, count=2)
    assert "home team" in redundant[0].text.lower()
    assert sum("home team" in row.text.lower() for row in redundant) == 1
    assert not any("home team" in row.text.lower() for row in novel)
    assert {row.id for row in redundant}.isdisjoint(row.id for row in novel)
    assert redundant[0].nearest_text.lower() == redundant[0].text.lower()
    assert redundant[0].nearest_cosine == pytest.approx(1.0, abs=1e-6)
    assert redundant[0].uniqueness == pytest.approx(scores.uniqueness.min(), rel=1e-5)
    assert novel[0].uniqueness == pytest.approx(scores.uniqueness.max())
    assert novel[0].target == "news"
    wide, rest = pick_extremes(corpus, scores)
    assert len(wide) == len(rest) == len(np.unique(scores.cluster)) // 2


def test_the_order_of_rows_does_not_change_the_lists(corpus, scores):
    order = np.random.default_rng(0).permutation(len(corpus))
    shuffled = corpus.take(order)
    again = score_examples(shuffled, encoder=HashingEncoder())
    np.testing.assert_allclose(again.uniqueness, scores.uniqueness[order], atol=1e-6)
    expected, found = pick_extremes(corpus, scores), pick_extremes(shuffled, again)
    assert [r.text for r in found[1]] == [r.text for r in expected[1]]


def test_one_example_and_equal_examples():
    single = Corpus.from_rows([{"text": "alone", "target": "x"}])
    scores = score_examples(single, encoder=HashingEncoder())
    redundant, novel = pick_extremes(single, scores)
    assert len(redundant) + len(novel) == 1
    assert redundant[0].nearest_text == ""
    assert math.isnan(redundant[0].nearest_cosine)
    equal = Corpus.from_rows({"text": "the same again", "target": "x"} for _ in range(6))
    scores = score_examples(equal, encoder=HashingEncoder())
    np.testing.assert_allclose(scores.uniqueness, 1 / 6, rtol=1e-5)
    assert [len(rows) for rows in pick_extremes(equal, scores)] == [1, 0]


def test_bad_arguments_are_named(corpus):
    with pytest.raises(ValueError, match="no rows"):
        score_examples(corpus.take([]), encoder=HashingEncoder())
    with pytest.raises(ValueError, match="tau is 0"):
        score_examples(corpus, encoder=HashingEncoder(), tau=0.0)
