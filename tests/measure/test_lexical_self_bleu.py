"""Self-BLEU against nltk, row by row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.measure.lexical.self_bleu import measure_self_bleu, self_bleu_scores
from cuvee.measure.subject import Subject

ROW = st.lists(st.sampled_from(["a", "b", "c", "the", "cat"]), max_size=9)


def nltk_scores(rows):
    bleu = pytest.importorskip("nltk.translate.bleu_score")
    smooth = bleu.SmoothingFunction().method1
    return [bleu.sentence_bleu(rows[:i] + rows[i + 1 :], row, smoothing_function=smooth) for i, row in enumerate(rows)]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(ROW, min_size=2, max_size=9))
def test_every_row_scores_what_nltk_gives_it(rows):
    np.testing.assert_allclose(self_bleu_scores(rows), nltk_scores(rows), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_real_length_rows_score_what_nltk_gives_them():
    rng = np.random.default_rng(0)
    rows = [[f"w{w}" for w in rng.zipf(1.4, size=rng.integers(1, 30)) if w < 1000] for _ in range(150)]
    np.testing.assert_allclose(self_bleu_scores(rows), nltk_scores(rows), rtol=0, atol=1e-12)


def test_two_rows_by_hand():
    # precisions 4/5, 3/4, 2/3, 1/2, equal lengths
    assert self_bleu_scores([list("abcde"), list("abcdf")]) == pytest.approx([0.2**0.25] * 2)
    # "ab" and "cd" match, longer ones do not: 0.1 of two and of one; the longer reference costs exp(1 - 5/4)
    short = self_bleu_scores([list("abcd"), list("abecd")])[0]
    assert short == pytest.approx((1 * 2 / 3 * 0.1 / 2 * 0.1) ** 0.25 * np.exp(-0.25))


def test_the_shorter_of_two_closest_references_counts():
    assert self_bleu_scores([list("abcd"), list("abc"), list("abcde")])[0] == pytest.approx(1.0)


def test_a_word_matches_as_often_as_the_row_that_has_it_most_often():
    # three a of the first row against two of the third: 2/3
    rows = [list("aaa"), list("a"), list("aab")]
    assert self_bleu_scores(rows)[0] == pytest.approx((2 / 3 * 1 / 2 * 0.1 * 0.1) ** 0.25)


@pytest.mark.slow
def test_the_metric_is_the_mean_over_rows():
    texts = ["the cat sat on the mat", "The cat sat on a mat!", "dogs ran", "the cat sat on the mat today"]
    subject = Subject(corpus=Corpus.from_rows({"text": t, "target": "x"} for t in texts))
    found = measure_self_bleu(subject)
    assert found.value == pytest.approx(np.mean(nltk_scores(subject.tokens)), abs=1e-12)
    assert found.settings["ngram"] == 4
    assert found.settings["smoothing"] == "method 1, 0.1"


def test_copies_score_one_and_strangers_zero():
    assert self_bleu_scores([["a", "b", "c", "d", "e"]] * 3) == pytest.approx([1.0] * 3)
    assert self_bleu_scores([["a", "b"], ["c", "d"], []]).tolist() == [0.0, 0.0, 0.0]


def test_one_row_has_no_self_bleu():
    assert measure_self_bleu(Subject(corpus=Corpus.from_rows([{"text": "a b", "target": "x"}]))) is None
    with pytest.raises(ValueError, match="tokens has 1 rows"):
        self_bleu_scores([["a"]])
