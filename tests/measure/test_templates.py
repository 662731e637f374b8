"""Templates: openings, endings, skeletons, shared sequences."""

import math

import pytest

from cuvee.corpus import Corpus
from cuvee.measure import Subject, measure_corpus
from cuvee.measure.lexical import (
    list_skeletons,
    measure_endings,
    measure_openings,
    measure_shared_sequences,
    measure_skeletons,
)
from cuvee.study.demo import read_headlines

METRICS = (measure_openings, measure_endings, measure_skeletons, measure_shared_sequences)

NAMES = ("opening_rate", "ending_rate", "skeleton_entropy", "shared_sequence_rate")


def subject_of(texts):
    return Subject(corpus=Corpus.from_rows({"text": text, "target": "x"} for text in texts))


def test_a_skeleton_keeps_the_frequent_words_and_one_gap_for_what_lies_between():
    rows = [text.split() for text in ("how do i mend my old bike", "how do i sell my boat", "bread", "", "my my")]
    assert list_skeletons(rows) == ["how do i * my *", "how do i * my *", "", "", "my my"]
    long = [["a", "b"] * 9, ["a", "b", "c"]]
    assert list_skeletons(long)[0] == " ".join(["a", "b"] * 4)


def test_what_each_number_is():
    one, two, three, four = (measure(subject_of(["the cat sat", "the cat ran", "a dog"])) for measure in METRICS)
    assert (one.value, one.settings["opening"]) == (pytest.approx(2 / 3), "the cat")
    assert (two.value, two.settings["ending"]) == (pytest.approx(1 / 3), "cat sat")
    assert three.value == pytest.approx(math.log2(3) - 2 / 3)  # "a dog" has a skeleton of its own
    assert (three.settings["skeleton"], three.settings["skeleton_rows"]) == ("the cat *", 2)
    assert four is None
    assert all(measure(subject_of(["word"])) is None for measure in METRICS[:2])
    assert measure_skeletons(subject_of(["..."])) is None
    shared = ["we are glad to say so"] * 6 + [f"row {n} has nothing {n} in common" for n in range(6)]
    found = measure_shared_sequences(subject_of(shared))
    assert (found.value, found.settings["sequence"], found.settings["sequence_rows"]) == (0.5, "are glad to say", 6)
    assert found.settings["sequences"] == 3
    assert measure_shared_sequences(subject_of(shared[1:])).value == 0  # five rows are not more than five


def test_a_template_shows_in_every_number_of_real_rows():
    texts = [text for text, _ in read_headlines()[:400]]
    topics = [" ".join(text.split()[2:4]) for text in texts]
    planted = [
        f"I would like to know about {topic} and how it works" if row % 2 else text
        for row, (text, topic) in enumerate(zip(texts, topics, strict=True))
    ]
    corpora = [Corpus.from_rows({"text": text, "target": "x"} for text in rows) for rows in (texts, planted)]
    first, second = (measure_corpus(corpus, metrics=NAMES) for corpus in corpora)
    plain, made = ([found.values[name] for name in NAMES] for found in (first, second))
    for before, after, skew in zip(plain, made, (1, 1, -1, 1), strict=True):
        assert skew * (after.value - before.value) > 0
        assert after.low > before.high or after.high < before.low
    assert plain[0].value < 0.1 and made[0].value >= 0.5 and made[0].settings["opening"] == "i would"
    assert made[2].settings["skeleton_rows"] > 100 and plain[2].value == pytest.approx(math.log2(400), abs=0.3)
