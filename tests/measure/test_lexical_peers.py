"""What is known to go wrong with lexical measures elsewhere: length, order, and real duplicates."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus, end_of_tokens, first_same
from cuvee.measure import METRICS
from cuvee.measure.subject import Subject
from cuvee.measure.surface import measure_exact_duplicates
from cuvee.similarity import jackknife_interval

SNIPS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "snips" / "train.jsonl.gz"
BY_NAME = {name: metric for name, metric in METRICS.items() if metric.family == "lexical"}
LEXICAL = tuple(BY_NAME.values())
MERGED = ("compression_ratio",)
HELD = ("shared_sequence_rate", "opening_rate", "ending_rate", "skeleton_entropy")  # what is commonest is held fixed


def subject_of(texts, groups=None):
    groups = groups or [None] * len(texts)
    return Subject(
        corpus=Corpus.from_rows({"text": t, "target": "x", "group": g} for t, g in zip(texts, groups, strict=True))
    )


def natural_texts(n, seed=0, length=9):
    """Zipfian words in rows of about ``length``, with copies, near-copies and empty phrases among them."""
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, 201)
    texts = []
    for i in range(n):
        words = [f"w{w}" for w in rng.choice(200, size=rng.integers(1, 2 * length), p=share / share.sum())]
        repeat = rng.random()
        texts.append(texts[rng.integers(i)] + " too" * (repeat < 0.1) if i and repeat < 0.2 else " ".join(words))
    return texts


# --- intervals: leaving a bin out is measuring the rows that stay ----------------------------------------
@pytest.mark.parametrize("name", [n for n in BY_NAME if n not in HELD])
def test_leaving_a_bin_out_is_measuring_the_other_rows(name):
    metric = BY_NAME[name]
    groups = [f"g{i // 2}" for i in range(40)]
    subject = subject_of(natural_texts(40, length=7), groups)
    bins = subject.bins % 16 if name in MERGED else subject.bins
    found = metric.compute(subject)
    parts = [subject.corpus.take(np.flatnonzero(bins != b)) for b in range(bins.max() + 1)]
    without = np.array([metric.compute(Subject(corpus=part)).value for part in parts])
    expected = jackknife_interval(found.value, without, bins)
    assert without.std() > 0
    if found.interval.startswith("Wilson"):
        effective = min(40.0, found.value * (1 - found.value) / expected.se**2)
        assert found.interval == f"Wilson, {effective:.0f} effective rows"
        assert 0 <= found.low < found.value < found.high <= 1
    else:
        low, high = np.clip((expected.low, expected.high), 0, 1 if without.max() <= 1 else None)
        assert found.low == pytest.approx(low, rel=1e-9, abs=1e-12)
        assert found.high == pytest.approx(high, rel=1e-9, abs=1e-12)
        assert found.interval == f"grouped jackknife, {bins.max() + 1} bins"


# --- order -----------------------------------------------------------------------------------------------
@settings(max_examples=8, deadline=None)
@given(st.randoms(use_true_random=False), st.lists(st.text("ab cé", max_size=14), min_size=1, max_size=12))
def test_no_value_depends_on_the_order_of_rows(random, texts):
    texts = [f"{text} x" for text in texts]
    shuffled = random.sample(texts, len(texts))
    one, other = subject_of(texts, ["g"] * len(texts)), subject_of(shuffled, ["g"] * len(texts))
    for metric in LEXICAL:
        ours, theirs = metric.compute(one), metric.compute(other)
        assert (ours is None) == (theirs is None), metric.name
        assert ours is None or ours.value == theirs.value, metric.name


# --- sizes at the edge -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "texts",
    [["one"], ["?!"], ["?!", "..."], ["same"] * 6, ["a b c d e f"] * 8, ["a", "b", "c", "d"], ["漢字", "かな", "x"]],
)
def test_odd_corpora_give_a_finite_number_or_none(texts):
    subject = subject_of(texts)
    for metric in LEXICAL:
        found = metric.compute(subject)
        assert found is None or np.isfinite(found.value), metric.name
        assert found is None or found.low is None or found.low <= found.value <= found.high, metric.name


# --- length ----------------------------------------------------------------------------------------------
def zipf_rows(words_a_row, rows):
    rng = np.random.default_rng(5)
    share = 1.0 / np.arange(1, 61)
    words = [f"w{w}" for w in rng.choice(60, size=80 * 1500, p=share / share.sum())]
    return [" ".join(words[i : i + words_a_row]) for i in range(0, words_a_row * rows, words_a_row)]


@pytest.mark.slow
def test_the_same_words_in_longer_rows_measure_alike_once_texts_are_cut():
    rows = 1500
    short = [text[: end_of_tokens(text, 10)] for text in zipf_rows(10, rows)]
    long = [text[: end_of_tokens(text, 10)] for text in zipf_rows(80, rows)]
    one, other = subject_of(short, ["g"] * rows), subject_of(long, ["g"] * rows)
    for metric in LEXICAL:
        few = 0.02 if metric.name in HELD else 0.0  # three standard errors of a rate of 5%
        assert metric.compute(one).value == pytest.approx(metric.compute(other).value, rel=0.05, abs=few), metric.name


@pytest.mark.slow
def test_length_changes_self_repetition_little():
    # the very same words, cut into rows of 10 and of 80
    words = [word for text in zipf_rows(80, 1000) for word in text.split()]
    one, other = (
        subject_of([" ".join(words[i : i + size]) for i in range(0, len(words), size)], ["g"] * (len(words) // size))
        for size in (10, 80)
    )
    found = [BY_NAME["self_repetition"].compute(s).value for s in (one, other)]
    assert found[1] == pytest.approx(found[0], rel=0.2)


# --- duplicates ------------------------------------------------------------------------------------------
def test_exact_duplicates_are_the_repeats_after_the_first():
    found = measure_exact_duplicates(subject_of(["A cat.", "a  CAT", "a dog", "a cat!", "A dog:", "a-dog"]))
    assert found.value == 3 / 6


@pytest.mark.slow
def test_duplicates_of_real_queries_are_counted():
    if not SNIPS.exists():
        pytest.skip("shared data snips is not beside the checkout")
    with gzip.open(SNIPS, "rt", encoding="utf-8") as stream:
        texts = [json.loads(line)["text"] for line in stream]
    said = first_same([re.sub(r"\W+", " ", text.lower()) for text in texts])
    assert (said != np.arange(len(texts))).sum() == 251
    found = measure_exact_duplicates(subject_of(texts))
    assert found.value == 238 / len(texts)  # 13 differ by a sign or a question mark
    assert found.low < found.value < found.high
