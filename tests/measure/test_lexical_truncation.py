"""Cutting texts to a number of words."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import end_of_tokens, split_tokens

# letters that change under normalisation: composed, ligatures, sharp s, dotted I, unspaced scripts, a Hangul letter
LETTERS = "aB 1.,_-'\n\u0301é漢字ﬁßİ\u1100\u00a8"


def truncate_words(text, words):
    return text[: end_of_tokens(text, words)]


def test_characters_and_punctuation_between_kept_words_stay():
    assert truncate_words('He said: "Don\'t go -- (ever)!"', 4) == "He said: \"Don't go"
    assert truncate_words("One,  two;\tthree\nfour", 3) == "One,  two;\tthree"


def test_a_text_of_few_words_comes_back_whole():
    assert truncate_words("Really?! ", 1) == "Really?! "
    assert truncate_words("a b.", 5) == "a b."
    assert truncate_words("", 2) == ""
    assert truncate_words("...", 2) == "..."


def test_other_scripts_count_as_split_tokens_counts_them():
    assert truncate_words("Größe zählt, immer!", 2) == "Größe zählt"
    assert truncate_words("漢字です。", 3) == "漢字で"
    assert truncate_words("cafe\u0301 olé bien", 1) == "cafe\u0301"  # the accent belongs to the word


@settings(max_examples=50, deadline=None)
@given(st.text(LETTERS, max_size=30), st.integers(1, 6))
def test_the_kept_words_are_the_first_words(text, words):
    cut = truncate_words(text, words)
    assert text.startswith(cut)
    assert split_tokens(cut) == split_tokens(text)[:words]
    if len(split_tokens(text)) > words:
        assert split_tokens(cut[:-1]) != split_tokens(cut)  # nothing after the last word
