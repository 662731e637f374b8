"""Self-repetition."""

import pytest

from cuvee.corpus import Corpus
from cuvee.measure.lexical import measure_self_repetition
from cuvee.measure.subject import Subject


def subject_of(texts):
    return Subject(corpus=Corpus.from_rows({"text": t, "target": "x"} for t in texts))


def test_the_fraction_counts_four_grams_that_stand_in_other_rows():
    subject = subject_of(["a b c d e", "x a b c d", "k l m n", "one two"])
    assert measure_self_repetition(subject).value == pytest.approx(2 / 5)
    assert measure_self_repetition(subject).settings["ngram"] == 4


def test_a_four_gram_that_repeats_within_its_row_alone_is_no_self_repetition():
    assert measure_self_repetition(subject_of(["a b c d a b c d", "k l m n"])).value == 0.0
    assert measure_self_repetition(subject_of(["a b c d a b c d", "a b c d"])).value == pytest.approx(3 / 6)


def test_rows_below_four_words_have_none():
    assert measure_self_repetition(subject_of(["a b c", "a b c"])) is None
