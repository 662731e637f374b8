"""Rows that are nearly the same: found exactly, fast, and whatever the order in which answers come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.generate.acceptance import AcceptanceFilter, AcceptanceRules, NearCopies, shingles_of
from cuvee.generate.calls import Answer, Sampling
from cuvee.generate.dials import SamplingDial
from cuvee.generate.filling import Filling
from cuvee.generate.prompts import PromptWriter

WORDS = st.sampled_from("amber birch cedar delta ember frost grove".split())
TEXTS = st.lists(st.lists(WORDS, min_size=1, max_size=6).map(" ".join), max_size=25)


def jaccard(one, other):
    a, b = shingles_of(one), shingles_of(other)
    return len(a & b) / len(a | b)


@given(texts=TEXTS, threshold=st.sampled_from([0.5, 0.6, 0.7, 0.8, 0.9, 1.0]))
def test_the_index_finds_what_comparing_all_pairs_finds(texts, threshold):
    index = NearCopies(threshold)
    for i, text in enumerate(texts):
        alike = any(jaccard(text, other) >= threshold - 1e-9 for other in texts[:i])
        assert index.holds(text) == alike
        index.add(text)


def test_short_and_empty_texts_have_one_shingle_and_only_equal_ones_match():
    assert shingles_of("Hi!") == {"hi"} and shingles_of("...") == {""}
    index = NearCopies(0.5)
    index.add("hi")
    assert index.holds("HI") and not index.holds("ho")


@pytest.mark.parametrize("threshold", [0.49, 1.01, -1.0, float("nan")])
def test_thresholds_out_of_range_are_refused(threshold):
    with pytest.raises(ValueError, match=r"near_duplicate .*; give a Jaccard similarity from 0.5 to 1"):
        AcceptanceRules(near_duplicate=threshold)


def make_judge(train, slots, threshold=0.7, attempts=3):
    writer = PromptWriter(train, describe="texts", api="completions", sampling=Sampling(), seed=1)
    rules = AcceptanceRules(attempts=attempts, near_duplicate=threshold)
    return Filling(slots, AcceptanceFilter(train=train, writer=writer, least_words=1, rules=rules))


def slots_of(train, rows):
    return SamplingDial(levels=[1.0]).slots("1", train.labels, 0, rows)


REAL = Corpus.from_rows([{"text": "harbor lantern quartz", "target": "alpha"}, {"text": "ripple", "target": "beta"}])
ANSWERS = st.lists(st.lists(WORDS, min_size=2, max_size=4).map(" ".join), min_size=36, max_size=36)


def settle(judge, given, size):
    """Answer ``size`` open questions at a time, from the last slot on."""
    while questions := judge.open_questions():
        chosen = list(reversed(questions.items()))[:size]
        answers = {}
        for key, question in chosen:
            text = given[int(key.rsplit("/", 1)[1]) * 6 + (key.startswith("beta")) * 3 + question.request.replicate]
            answers[key] = (question, Answer(text=text, finish_reason="stop"))
        judge.give(answers)
    return judge


@settings(max_examples=15, deadline=None)
@given(given_=ANSWERS, size=st.integers(1, 5))
def test_the_outcome_depends_on_the_order_of_slots_alone(given_, size):
    slots = slots_of(REAL, 6)
    whole = settle(make_judge(REAL, slots), given_, 12)
    parts = settle(make_judge(REAL, slots), given_, size)
    assert parts.rows == whole.rows
    assert all(parts.objections(slot.key) == whole.objections(slot.key) for slot in slots)
    taken = [whole.rows[slot.key].text for slot in slots if slot.key in whole.rows]
    assert all(jaccard(a, b) < 0.7 for i, a in enumerate(taken) for b in taken[:i])
    fewer = settle(make_judge(REAL, slots[:6]), given_, 12)  # slots after it change no slot
    assert fewer.rows == {key: row for key, row in whole.rows.items() if key in {s.key for s in slots[:6]}}


def test_reasons_tell_copies_from_near_copies():
    texts = iter(
        ["harbor lantern quartz!", "harbor lantern quart", "amber birch cedar delta", "Amber birch cedar, delta",
         "amber birch cedar deltas", "ember frost grove"]
    )  # fmt: skip
    judge = make_judge(REAL, slots_of(REAL, 1), attempts=5)
    while questions := judge.open_questions():
        key = next(iter(questions))
        judge.give({key: (questions[key], Answer(text=next(texts), finish_reason="stop"))})
    assert [made.reason for tries in judge.attempts.values() for made in tries if made.reason] == [
        "copy of the prompt", "near copy of a training row", "duplicate", "near-duplicate",
    ]  # fmt: skip
    assert [row.text for row in judge.rows.values()] == ["amber birch cedar delta", "ember frost grove"]


@pytest.mark.slow
def test_among_ten_thousand_rows_few_pairs_are_compared():
    compared = []

    class Counting(NearCopies):
        def _alike(self, one, other):
            compared.append(1)
            return super()._alike(one, other)

    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnoprstu"), size=6)) for _ in range(2000)]
    texts = ["please tell me how to " + " ".join(rng.choice(words, size=6)) for _ in range(10_000)]
    texts[5_000:5_100] = [f"{text}s" for text in texts[:100]]
    index = Counting(0.8)
    found = []
    for text in texts:
        found.append(index.holds(text))
        index.add(text)
    assert np.flatnonzero(found).tolist() == list(range(5_000, 5_100))
    assert len(compared) < len(texts)  # of 50 million pairs
