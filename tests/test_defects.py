"""Duplicates, degenerate texts and leaks on crafted rows, and on real paraphrases where they are at hand."""

import gzip
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cuvee.defects import Leak, degenerate_reasons, duplicate_mask, find_leaks, split_tokens
from cuvee.encoders import load_encoder
from cuvee.similarity import unit_rows

BANKING = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "gptaug_banking"


def read_texts(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line)["text"] for line in stream]


@pytest.fixture(scope="module")
def banking():
    if not BANKING.exists():
        pytest.skip("shared data gptaug_banking is not beside the checkout")
    names = ("synthetic.jsonl.gz", "test.jsonl", "train.jsonl")
    return tuple(read_texts(BANKING / name) for name in names)


def test_duplicates_are_the_repeats_after_the_first():
    texts = ["A cat.", "a  CAT", "a dog", "a cat!", "a-dog"]
    assert duplicate_mask(texts).tolist() == [False, True, False, True, True]
    assert duplicate_mask([]).shape == (0,)


def test_unspaced_scripts_have_a_token_a_character():
    assert split_tokens("Straße, 10% off") == ["strasse", "10", "off"]
    assert split_tokens("明天 rain") == ["明", "天", "rain"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("...!?", "empty"),
        ("a", "too short"),
        ("Budget row <|im_end|>", "chat template"),
        ("[INST] write a headline [/INST]", "chat template"),
        ("### Response: rates rise", "chat template"),
        ("Assistant: rates rise", "chat template"),
        ("I'm sorry, but I can't assist with that request.", "refusal"),
        ("As an AI language model, I do not have opinions", "refusal"),
        ("I cannot fulfill this request", "refusal"),
        ("Sure! Here are five headlines about sport:", "chatter"),
        ("Here's a paraphrase of your sentence", "chatter"),
        ("Bank raises \ufffd rates", "broken characters"),
        ("aaaaaaaaaaaaaaaaaaaa", "repetition"),
        ("rates " * 9, "repetition"),
        ("the rates rise " * 5, "repetition"),
        ("one two three four five six " * 12, "repetition"),
    ],
)
def test_degenerate_texts_are_named(text, reason):
    assert degenerate_reasons([text]) == [reason]


@pytest.mark.parametrize(
    "text",
    [
        "Rates rise as bank acts",
        "I'm sorry I can't help but laugh at this",
        "I can't create a new project in the editor",
        "Sorry, my card cannot be used abroad, why?",
        "Here is where I live",
        "Is the AI model any good?",
        "no no no, not again",
        "Why is 1.1 + 1.1 + 1.1 > 3.3?",
        "soooo good!!!!!!!!",
        "10% off",
        "明天",
    ],
)
def test_ordinary_texts_pass(text):
    assert degenerate_reasons([text]) == [None]


LONG = "my card was charged twice for the same hotel booking last week"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("My card was charged TWICE for the same hotel booking, last week!", "exact"),
        ("last week my card was charged twice for the same hotel booking", "reordered"),
        ("hello, " + LONG + " and nobody answers me", "overlap"),
        ("card was charged twice for the same hotel booking", "overlap"),
    ],
)
def test_each_lexical_rule_finds_its_leak(text, reason):
    leaks = find_leaks(["something else", text], ["nothing alike here", LONG])
    (leak,) = leaks.found
    assert (leak.row, leak.held_out, leak.reason) == (1, 1, reason)
    assert leak.score >= 0.8
    assert leaks.mask.tolist() == [False, True]
    assert leaks.rate == 0.5


@pytest.mark.parametrize(
    "text",
    ["my card was charged twice", "a hotel charged my card twice for one booking last week", "week last my", "card"],
)
def test_shared_words_alone_are_no_leak(text):
    assert find_leaks([text], [LONG, "my card"]).found == ()


def test_nearest_neighbours_leak_only_beyond_the_real_baseline():
    rng = np.random.default_rng(0)
    held_out = unit_rows(rng.normal(size=(30, 64)).astype(np.float32))

    def near(cosine, count):
        noise = rng.normal(size=(count, 64))
        noise -= (noise * held_out[:count]).sum(axis=1, keepdims=True) * held_out[:count]
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        return unit_rows((cosine * held_out[:count] + np.sqrt(1 - cosine**2) * noise).astype(np.float32))

    words = [f"held {i}" for i in range(30)]
    rows = np.vstack([near(0.999, 3), near(0.97, 3), near(0.5, 3)])
    texts = [f"row {i}" for i in range(9)]
    alone = find_leaks(texts, words, vectors=rows, held_out_vectors=held_out)
    assert alone.threshold == 0.95
    assert alone.baseline is None
    assert [leak.row for leak in alone.found] == [0, 1, 2, 3, 4, 5]
    assert {leak.reason for leak in alone.found} == {"nearest"}
    guarded = find_leaks(
        texts, words, reference=[f"real {i}" for i in range(20)],
        vectors=rows, held_out_vectors=held_out, reference_vectors=near(0.98, 20),
    )  # fmt: skip
    assert guarded.threshold == pytest.approx(0.98, abs=1e-4)
    assert [(leak.row, leak.held_out) for leak in guarded.found] == [(0, 0), (1, 1), (2, 2)]


def test_a_real_row_that_leaks_itself_does_not_blind_the_guard():
    vectors = unit_rows(np.eye(3, dtype=np.float32))
    reference = ["same text", "other"]
    leaks = find_leaks(
        ["row"], ["same text"], reference=reference, vectors=vectors[:1], held_out_vectors=vectors[:1],
        reference_vectors=vectors[[0, 1]],
    )  # fmt: skip
    assert leaks.threshold == 0.95
    assert leaks.baseline == 0.5
    assert leaks.found == (Leak(row=0, held_out=0, reason="nearest", score=1.0),)


def test_empty_sides_have_no_leaks():
    assert find_leaks([], ["a b"]).rate == 0.0
    assert find_leaks(["a b"], []).found == ()


def test_vectors_must_fit():
    vectors = unit_rows(np.eye(2, dtype=np.float32))
    with pytest.raises(ValueError, match="given together"):
        find_leaks(["a", "b"], ["c"], vectors=vectors)
    with pytest.raises(ValueError, match="held_out_vectors has 2 rows for 1"):
        find_leaks(["a", "b"], ["c"], vectors=vectors, held_out_vectors=vectors)


def test_the_paraphrases_of_banking_hold_fifteen_exact_test_rows(banking):
    synthetic, test, train = banking
    leaks = find_leaks(synthetic, test, reference=train)
    reasons = Counter(leak.reason for leak in leaks.found)
    assert reasons["exact"] == 15
    assert 10 <= reasons["overlap"] <= 40
    assert 0 < leaks.baseline < 0.05


def test_real_texts_are_hardly_ever_called_degenerate(banking):
    assert sum(r is not None for texts in banking for r in degenerate_reasons(texts)) == 0


def test_five_thousand_rows_against_five_thousand_take_seconds():
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(3000)])

    def corpus():
        return ["i would like to know if " + " ".join(words[rng.integers(0, 3000, size=10)]) for _ in range(5000)]

    texts, held_out = corpus(), corpus()
    texts[77] = held_out[88] + " please"
    start = time.process_time()
    leaks = find_leaks(texts, held_out)
    assert time.process_time() - start < 10
    assert [(leak.row, leak.held_out) for leak in leaks.found] == [(77, 88)]


def test_leaks_by_a_real_encoder():
    encoder = load_encoder("hashing")
    texts = ["Weather in Paris", "unblock my international creditcards please"]
    held_out = ["unblock my international creditcard please", "Where is my card"]
    leaks = find_leaks(texts, held_out, vectors=encoder.encode(texts), held_out_vectors=encoder.encode(held_out))
    assert [(leak.row, leak.held_out, leak.reason) for leak in leaks.found] == [(1, 0, "nearest")]
