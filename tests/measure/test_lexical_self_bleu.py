"""Self-BLEU against nltk, row by row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.measure.lexical import measure_self_bleu
from cuvee.measure.subject import Subject


def self_bleu(rows):
    """The mean over rows of BLEU against all others."""
    return measure_self_bleu(Subject(corpus=Corpus.from_rows({"text": " ".join(r), "target": "x"} for r in rows))).value


ROW = st.lists(st.sampled_from(["a", "b", "c", "the", "cat"]), max_size=9)


def nltk_scores(rows):
    bleu = pytest.importorskip("nltk.translate.bleu_score")
    smooth = bleu.SmoothingFunction().method1
    return [bleu.sentence_bleu(rows[:i] + rows[i + 1 :], row, smoothing_function=smooth) for i, row in enumerate(rows)]


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(ROW, min_size=2, max_size=9))
def test_it_is_what_nltk_gives(rows):
    assert self_bleu(rows) == pytest.approx(np.mean(nltk_scores(rows)), rel=0, abs=1e-12)


@pytest.mark.slow
def test_rows_of_real_length_score_what_nltk_gives_them():
    rng = np.random.default_rng(0)
    rows = [[f"w{w}" for w in rng.zipf(1.4, size=rng.integers(1, 30)) if w < 1000] for _ in range(150)]
    assert self_bleu(rows) == pytest.approx(np.mean(nltk_scores(rows)), rel=0, abs=1e-12)


def test_two_rows_by_hand():
    # precisions 4/5, 3/4, 2/3, 1/2, equal lengths
    assert self_bleu([list("abcde"), list("abcdf")]) == pytest.approx(0.2**0.25)
    # "ab" and "cd" match, longer ones do not: 0.1 of two and of one; the longer reference costs exp(1 - 5/4)
    # and of the longer row four of five, two of four words, 0.1 of three and of two
    short, long = (1 * 2 / 3 * 0.1 / 2 * 0.1) ** 0.25 * np.exp(-0.25), (4 / 5 * 2 / 4 * 0.1 / 3 * 0.1 / 2) ** 0.25
    assert self_bleu([list("abcd"), list("abecd")]) == pytest.approx((short + long) / 2)


def test_the_shorter_of_two_closest_references_counts():
    rows = [list("abcd"), list("abc"), list("abcde")]
    # the first row matches the third in full, and the second is no longer than it: no penalty
    rest = (1 * 1 * 1 * 0.1) ** 0.25 * np.exp(1 - 4 / 3), (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert self_bleu(rows) == pytest.approx((1.0 + sum(rest)) / 3)


@pytest.mark.slow
def test_the_metric_is_the_mean_over_rows():
    texts = ["the cat sat on the mat", "The cat sat on a mat!", "dogs ran", "the cat sat on the mat today"]
    subject = Subject(corpus=Corpus.from_rows({"text": t, "target": "x"} for t in texts))
    found = measure_self_bleu(subject)
    assert found.value == pytest.approx(np.mean(nltk_scores(subject.tokens)), abs=1e-12)
    assert found.settings["ngram"] == 4
    assert found.settings["smoothing"] == "method 1, 0.1"


def test_copies_score_one_and_strangers_zero():
    assert self_bleu([["a", "b", "c", "d", "e"]] * 3) == pytest.approx(1.0)
    assert self_bleu([["a", "b"], ["c", "d"], ["?"]]) == 0.0


def test_one_row_has_no_self_bleu():
    assert measure_self_bleu(Subject(corpus=Corpus.from_rows([{"text": "a b", "target": "x"}]))) is None
