"""Distinct-n, the entropy of n-grams, words a row, and the compression ratio."""

import bz2
import math
import random

import pytest

from cuvee.corpus import Corpus
from cuvee.measure import measure_corpus


def corpus_of(texts, groups=None):
    groups = groups or [None] * len(texts)
    return Corpus.from_rows({"text": t, "target": "x", "group": g} for t, g in zip(texts, groups, strict=True))


def values_of(texts, *names, **options):
    return measure_corpus(corpus_of(texts), metrics=names, **options).values


def test_distinct_counts_ngrams_within_rows():
    found = values_of(["the cat sat", "The cat ran!"], "distinct_1", "distinct_2", "distinct_3")
    assert found["distinct_1"].value == pytest.approx(4 / 6)
    assert found["distinct_2"].value == pytest.approx(3 / 4)
    assert found["distinct_3"].value == pytest.approx(2 / 2)
    assert found["distinct_2"].settings["ngram"] == 2
    assert found["distinct_2"].low is None


def test_distinct_of_one_text_repeated_is_one_over_n():
    assert values_of(["a b c"] * 50, "distinct_3")["distinct_3"].value == pytest.approx(1 / 50)


def test_distinct_without_a_single_ngram_is_left_out():
    assert "distinct_2" not in measure_corpus(corpus_of(["one", "two"]), encoder=None, metrics=["distinct_1"]).values
    with pytest.raises(ValueError, match="'distinct_2' is not defined"):
        values_of(["one", "two"], "distinct_2")


def test_the_distinct_interval_leaves_whole_groups_out():
    # five copies of each of 30 texts: as groups every text can vanish, as single rows none ever does
    texts = [f"w{i} w{i + 1} and" for i in range(30) for _ in range(5)]
    groups = [f"g{i}" for i in range(30) for _ in range(5)]
    rows = measure_corpus(corpus_of(texts), metrics=["distinct_1"]).values["distinct_1"]
    grouped = measure_corpus(corpus_of(texts, groups), metrics=["distinct_1"]).values["distinct_1"]
    assert rows.value == grouped.value
    assert grouped.interval == "grouped jackknife, 30 bins"
    assert grouped.low < grouped.value < grouped.high


def test_the_compression_ratio_does_not_depend_on_order():
    rng = random.Random(0)
    texts = [f"{rng.choice('abcdef') * 3} {rng.random()}" for _ in range(300)]
    shuffled = rng.sample(texts, len(texts))
    one = values_of(texts, "compression_ratio")["compression_ratio"]
    other = values_of(shuffled, "compression_ratio")["compression_ratio"]
    assert one.value == other.value
    data = "\n".join(sorted(texts)).encode()
    assert one.value == pytest.approx(len(data) / len(bz2.compress(data, 9)))
    assert one.low < one.value < one.high


def test_repetition_compresses_better():
    varied = [f"{i * 7919 % 100003} {i * 104729 % 99991}" for i in range(200)]
    name = "compression_ratio"
    assert values_of(["the same text again"] * 200, name)[name].value > 5 * values_of(varied, name)[name].value


def test_a_large_corpus_has_no_compression_interval():
    texts = [f"{i} " + "w" * 4000 for i in range(1001)]
    found = values_of(texts, "compression_ratio")["compression_ratio"]
    assert found.low is None
    assert found.interval == ""


def test_entropy_is_the_bits_of_an_ngram():
    found = values_of(["a b", "c d", "a b", "a b"], "ngram_entropy_2")
    assert found["ngram_entropy_2"].value == pytest.approx(-0.75 * math.log2(0.75) - 0.25 * math.log2(0.25))
    assert values_of(["same same"] * 9, "ngram_entropy_2")["ngram_entropy_2"].value == 0.0
    uniform = values_of([f"w{i} w" for i in range(64)], "ngram_entropy_2")["ngram_entropy_2"]
    assert uniform.value == pytest.approx(6.0)
    with pytest.raises(ValueError, match="'ngram_entropy_2' is not defined"):
        values_of(["one"], "ngram_entropy_2")


def test_mean_words_counts_words():
    found = values_of(["one, two!", "three", "...", "a b c d e"], "mean_words")["mean_words"]
    assert found.value == 2.0
    assert found.low < 2.0 < found.high


def test_lexical_metrics_load_no_encoder():
    found = measure_corpus(corpus_of(["a b", "c d"]), metrics=["distinct_1", "compression_ratio"])
    assert (found.encoder, found.encoder_hash) == ("none", "")
