"""compare_measurements: numbers measured before, if they were measured in the same way."""

from dataclasses import replace

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder
from cuvee.errors import IncomparableError
from cuvee.measure import METRICS, compare_corpora, compare_measurements, measure_corpus
from cuvee.measure.saved import RESULTS
from cuvee.records import Estimate, Measurement


def number(value=2.0, **settings):
    return Estimate(value=value, low=value - 1, high=value + 1, n=100, interval="grouped jackknife", settings=settings)


def measured(name="a", *, n=100, encoder="minilm", encoder_hash="h1", against=None, **values):
    return Measurement(
        name=name, fingerprint=f"print of {name}", against=against, n=n, encoder=encoder, encoder_hash=encoder_hash,
        seed=0, values=values or {"vendi_q1": number(q=1)},
    )  # fmt: skip


class LengthEncoder:
    """A toy that sees nothing but the number of characters."""

    name, hash, dim = "length", "length-1", 2

    def encode(self, texts):
        angles = np.array([len(text) / 20 for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


# --- what compares ----------------------------------------------------------------------------------
def test_numbers_of_the_same_settings_are_compared():
    other = measured("b", vendi_q1=number(5.0, q=1), distinct_1=number(ngram=1))
    found = compare_measurements([measured(), other])
    assert (found.names, found.rows, found.draws, found.words) == (("a", "b"), 100, 1, None)
    assert [e.value for e in found.values["vendi_q1"]] == [2.0, 5.0]
    difference = found.differences["vendi_q1"][1]
    assert (difference.value, difference.low, difference.high) == (3.0, 3 - 2**0.5, 3 + 2**0.5)
    assert found.length_difference is None
    assert found.notes == (
        "measured separately: text lengths are not matched, which matters most for lexical numbers",
        "not in all measurements: distinct_1",
    )
    assert (found.encoder, found.encoder_hash) == ("minilm", "h1")
    assert "b - a" in str(found)


def test_measurements_of_one_name_are_told_apart():
    assert compare_measurements([measured(), measured(), measured()]).names == ("a", "a (2)", "a (3)")


def test_the_numbers_of_two_whole_corpora_are_those_of_a_comparison():
    corpora = {
        name: Corpus.from_rows({"text": f"{name} {i * i} {i % 7} {i}", "target": "x"} for i in range(40))
        for name in ("a", "b")
    }
    names = ["vendi_q1", "distinct_1"]
    before = compare_measurements(
        [measure_corpus(c, encoder=HashingEncoder(), metrics=names, name=k) for k, c in corpora.items()]
    )
    assert before.values == compare_corpora(corpora, encoder=HashingEncoder(), metrics=names).values


# --- what does not ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("other", "what"),
    [
        (measured("b", n=50), "rows: a 100, b 50"),
        (measured("b", encoder="hashing", encoder_hash="h2"), "encoder: a minilm, b hashing"),
        (measured("b", encoder_hash="h2"), r"encoder_hash \(weights\): a h1, b h2"),
        (measured("b", vendi_q1=number(q=2)), "vendi_q1 q: a 1, b 2"),
        (measured("b", vendi_q1=number(q=1, kernel="rbf")), "vendi_q1 kernel: a none, b rbf"),
    ],
)
def test_what_differs_is_named_with_the_remedy_unless_forced(other, what):
    with pytest.raises(IncomparableError, match=rf"{what}.*measure again with --rows {min(100, other.n)} .*force"):
        compare_measurements([measured(), other])
    found = compare_measurements([measured(), other], force=True)
    assert found.notes[0].startswith("forced: ")
    assert found.rows == min(100, other.n)


def test_all_that_differs_is_named_at_once():
    with pytest.raises(IncomparableError, match=r"rows: .*; encoder: .*; vendi_q1 q: "):
        compare_measurements([measured(), measured("b", n=9, encoder="hashing", vendi_q1=number(q=2))])


def test_only_numbers_of_vectors_need_the_same_encoder():
    words = {"distinct_1": number(ngram=1)}
    found = compare_measurements([measured(**words), measured("b", encoder="none", encoder_hash="", **words)])
    assert (found.encoder, found.encoder_hash) == ("minilm or none", "")
    unknown = {"my_own": number()}
    with pytest.raises(IncomparableError, match="encoder"):
        compare_measurements([measured(**unknown), measured("b", encoder="none", **unknown)])


def test_shift_needs_the_same_real_rows():
    shift = {"mmd": number(kernel="rbf")}
    with pytest.raises(IncomparableError, match=r"against \(real rows\): a one, b none"):
        compare_measurements([measured(against="one", **shift), measured("b", **shift)])
    assert compare_measurements([measured(against="one"), measured("b")]).against is None


@pytest.mark.parametrize("key", sorted({*RESULTS, "rows", "against_rows", "test_rows"}))
def test_settings_that_the_data_gave_may_differ(key):
    one, other = (measured(n, vendi_q1=number(q=1, **{key: v})) for n, v in (("a", 1), ("b", 2)))
    assert compare_measurements([one, other]).notes[0].startswith("measured separately")


def test_the_threshold_of_leakage_is_found_and_that_of_near_duplicates_is_set():
    def pair(metric):
        return [measured(n, **{metric: number(threshold=t)}) for n, t in (("a", 0.95), ("b", 0.97))]

    assert compare_measurements(pair("leakage")).values
    with pytest.raises(IncomparableError, match=r"near_duplicate_rate threshold: a 0\.95, b 0\.97"):
        compare_measurements(pair("near_duplicate_rate"))


def test_one_measurement_or_no_shared_metric_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        compare_measurements([measured()])
    with pytest.raises(IncomparableError, match="no metric is in all of them"):
        compare_measurements([measured(), measured("b", distinct_1=number())])


@pytest.mark.slow
def test_two_pools_of_one_kind_compare_in_every_metric():
    """No setting that the data gave keeps two pools from being compared."""
    rng = np.random.default_rng(0)
    real, *pools = (
        Corpus.from_rows(
            {"text": " ".join(f"w{i}" for i in rng.integers(0, words, size=size)), "target": labels[k % len(labels)]}
            for k, size in enumerate(rng.integers(5, 9 + words // 40, size=40))
        )
        for words, labels in ((30, "xy"), (70, "xy"), (110, "xyz"))
    )
    found = [
        measure_corpus(
            pool, against=real, held_out=["w1 w2 w3 w4"], encoder=HashingEncoder(), permutations=9, name=f"pool {i}",
            metrics="all",
        )
        for i, pool in enumerate(pools)
    ]  # fmt: skip
    assert len(found[0].values) > len(METRICS) - 4
    assert set(compare_measurements(found).values) == set(found[0].values) & set(found[1].values)


def test_another_encoder_can_flip_the_ranking_so_the_numbers_do_not_compare():
    rng = np.random.default_rng(3)
    one_length = Corpus.from_rows({"text": f"{rng.integers(10**9):09d}", "target": "x"} for _ in range(40))
    one_word = Corpus.from_rows({"text": "word " * (i + 1), "target": "x"} for i in range(40))
    found = {
        (encoder.name, name): measure_corpus(corpus, encoder=encoder, metrics=["vendi_q1"], name=name)
        for encoder in (HashingEncoder(), LengthEncoder())
        for name, corpus in {"digits": one_length, "lengths": one_word}.items()
    }
    by_words, by_length = (
        compare_measurements([found[encoder, "digits"], found[encoder, "lengths"]]).differences["vendi_q1"][1]
        for encoder in ("hashing", "length")
    )
    assert by_words.high < 0
    assert by_length.value > 0.5
    with pytest.raises(IncomparableError, match="encoder: digits hashing, lengths length"):
        compare_measurements([found["hashing", "digits"], found["length", "lengths"]])
    again = replace(found["hashing", "lengths"], encoder_hash="other weights")
    with pytest.raises(IncomparableError, match="weights"):
        compare_measurements([found["hashing", "digits"], again])


def test_other_normalisation_of_vectors_is_named():
    corpus = Corpus.from_rows({"text": f"some row {i} of words", "target": "x"} for i in range(12))
    first = measure_corpus(corpus, encoder=HashingEncoder(), metrics=["vendi_q1"], name="a")
    with pytest.raises(IncomparableError, match="normalisation"):
        compare_measurements([first, replace(first, name="b", normalisation="none")])
