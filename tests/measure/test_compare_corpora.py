"""compare_corpora: equal rows, matched lengths, honest differences."""

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder
from cuvee.errors import ConfigError, InputError
from cuvee.measure import METRICS, measure_corpus
from cuvee.measure.comparing import compare_corpora, reads_cut_texts

FEW = ["vendi_q1", "dcscore_tau0.1", "distinct_1", "distinct_2", "mean_words"]
ENCODER = HashingEncoder()


class CountingEncoder(HashingEncoder):
    def __init__(self):
        self.seen = []

    def encode(self, texts):
        self.seen.extend(texts)
        return super().encode(texts)


class TopicEncoder:
    """A mixture of Gaussian topics: the vector of a text is a function of its topic and number."""

    name, hash, dim = "topics", "topics-1", 96

    def encode(self, texts):
        centres = np.random.default_rng(0).normal(size=(40, self.dim))
        out = np.empty((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            topic, number = (int(word[1:]) for word in text.split()[:2])
            out[row] = centres[topic] + 1.5 * np.random.default_rng(number).normal(size=self.dim)
        return out / np.linalg.norm(out, axis=1, keepdims=True)


def pool(n, seed, *, words=8, vocabulary=400, labels="ab", origin="real"):
    """Rows of Zipf words; ``words`` is one length, or several to draw from."""
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, vocabulary + 1)
    lengths = rng.choice(np.atleast_1d(words), size=n)
    return Corpus.from_rows(
        {
            "text": " ".join(f"w{i}" for i in rng.choice(vocabulary, size=size, p=share / share.sum())),
            "target": labels[i % len(labels)], "id": f"{seed}-{i}", "origin": origin,
        }
        for i, size in enumerate(lengths)
    )  # fmt: skip


@pytest.fixture(scope="module")
def compared():
    corpora = {"small": pool(60, 1), "large": pool(200, 2), "narrow": pool(90, 3, vocabulary=60)}
    return corpora, compare_corpora(corpora, encoder=ENCODER, metrics=FEW, draws=4)


def test_all_corpora_are_compared_at_the_rows_of_the_smallest(compared):
    corpora, found = compared
    assert (found.names, found.rows, found.draws) == (("small", "large", "narrow"), 60, 4)
    assert {e.n for estimates in found.values.values() for e in estimates} == {60}
    assert (found.encoder, found.encoder_hash) == ("hashing", ENCODER.hash)
    assert found.fingerprints == tuple(corpus.fingerprint for corpus in corpora.values())
    assert found.words is None
    assert found.length_difference == 0
    assert found.notes == ()


def test_a_corpus_that_is_compared_whole_has_the_numbers_of_measure_corpus(compared):
    corpora, found = compared
    alone = measure_corpus(corpora["small"], encoder=ENCODER, metrics=FEW)
    for name in FEW:
        assert found.values[name][0].value == pytest.approx(alone.values[name].value, rel=1e-6)
        assert found.values[name][0].low == pytest.approx(alone.values[name].low, rel=1e-5)
        assert found.values[name][1].settings["draws"] == 4
        assert "draws" not in found.values[name][0].settings


def test_differences_are_to_the_first_corpus_and_see_a_narrow_vocabulary(compared):
    _, found = compared
    for name in FEW:
        values, differences = found.values[name], found.differences[name]
        assert differences[0] is None
        assert differences[2].value == pytest.approx(values[2].value - values[0].value)
    assert found.differences["distinct_1"][2].high < 0
    assert found.differences["vendi_q1"][2].high < 0
    same = found.differences["distinct_1"][1]
    assert same.low < 0 < same.high


def test_the_same_arguments_give_the_same_numbers_and_a_seed_moves_them(compared):
    corpora, found = compared
    assert compare_corpora(corpora, encoder=ENCODER, metrics=FEW, draws=4) == found
    other = compare_corpora(corpora, encoder=ENCODER, metrics=FEW, draws=4, seed=1)
    assert other.values["vendi_q1"][1].value != found.values["vendi_q1"][1].value
    assert other.values["vendi_q1"][0].value == pytest.approx(found.values["vendi_q1"][0].value)


def test_rows_and_draws_do_what_they_say(compared):
    corpora, found = compared
    fewer = compare_corpora(corpora, encoder=ENCODER, metrics=["vendi_q1"], rows=30, draws=2)
    assert (fewer.rows, fewer.draws) == (30, 2)
    assert fewer.values["vendi_q1"][1].value < found.values["vendi_q1"][1].value
    assert fewer.values["vendi_q1"][0].settings["draws"] == 2


def test_every_text_is_embedded_once():
    corpora = {"a": pool(30, 1), "b": pool(80, 2), "again": pool(80, 2)}
    encoder = CountingEncoder()
    compare_corpora(corpora, encoder=encoder, metrics=["vendi_q1", "mmd"], against=pool(20, 5), draws=3)
    assert len(encoder.seen) == len(set(encoder.seen)) <= 130


def test_lexical_numbers_load_no_encoder_and_tell_of_each_draw():
    told = []
    found = compare_corpora(
        {"a": pool(20, 1), "b": pool(40, 2)}, metrics=["distinct_1"], draws=3, progress=lambda *at: told.append(at)
    )
    assert (found.encoder, found.encoder_hash) == ("none", "")
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_lengths_are_matched_where_they_overlap():
    corpora = {"a": pool(200, 1, words=[6, 8, 10]), "b": pool(200, 2, words=[6, 8, 10, 10, 10])}
    found = compare_corpora(corpora, metrics=["mean_words"], draws=3)
    assert found.rows < 200
    assert found.length_difference == pytest.approx(0, abs=1e-9)
    assert found.values["mean_words"][0].value == pytest.approx(found.values["mean_words"][1].value)
    assert found.notes == ()
    free = compare_corpora(corpora, metrics=["mean_words"], match_lengths=False)
    assert (free.rows, free.draws) == (200, 1)
    assert free.length_difference > 0.1
    assert free.notes[0].startswith("lengths differ by")


def test_lexical_numbers_of_diversity_are_of_the_first_words():
    corpora = {"short": pool(60, 1, words=6), "long": pool(60, 2, words=30)}
    found = compare_corpora(corpora, metrics=["distinct_1", "mean_words"])
    assert found.words == 6
    assert found.notes[0] == "lengths not matched: short has no text of 30 words"
    assert found.values["distinct_1"][1].settings["words"] == 6
    assert [e.value for e in found.values["mean_words"]] == [6, 30]
    assert "words" not in found.values["mean_words"][1].settings
    cut = compare_corpora(corpora, metrics=["distinct_1"], words=12)
    assert cut.words == 12
    assert any(note.startswith("cut to 12 words, texts still differ") for note in cut.notes)
    assert compare_corpora(corpora, metrics=["distinct_1"], words=30).words is None


def test_shift_is_measured_once_and_the_real_rows_have_none():
    real = pool(90, 9, vocabulary=200)
    corpora = {"real": real, "pool": pool(120, 1, origin="synthetic"), "other": pool(60, 2, origin="synthetic")}
    found = compare_corpora(corpora, against=real, encoder=ENCODER, metrics=["mmd", "vendi_q1"], draws=3)
    none, one, other = found.values["mmd"]
    assert none is None
    assert found.differences["mmd"] == (None, None, None)
    assert 0 < one.p_value <= 1
    assert "draws" not in one.settings
    assert other.n == 60
    assert found.values["vendi_q1"][1].settings["draws"] == 3
    assert found.against == real.fingerprint
    assert "real is the real data itself: it has no shift and no label agreement here" in found.notes


def test_labels_out_of_balance_are_noted():
    found = compare_corpora({"a": pool(40, 1), "b": pool(40, 2, labels="aaab")}, metrics=["distinct_1"])
    assert found.notes == (
        "labels are not balanced: 'a' is 50% of a and 75% of b; give corpora of equal label counts to compare "
        "diversity within labels",
    )


def test_a_comparison_prints_as_a_table():
    corpora = {"<a>": pool(60, 1, words=6), "b": pool(60, 2, words=30)}
    found = compare_corpora(corpora, metrics=["distinct_1"])
    head, names, line, *notes = str(found).splitlines()
    assert head == "<a>, b  n=60 each  encoder=none  lexical diversity of the first 6 words"
    assert names.split() == ["metric", "<a>", "b", "b", "-", "<a>"]
    assert line.split()[:2] == ["distinct_1", f"{found.values['distinct_1'][0].value:.4g}"]
    assert notes[0].startswith("note: lengths not matched")
    assert "<th>&lt;a&gt;</th>" in found._repr_html_()
    assert "<li>lengths not matched" in found._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 41}, "rows is 41; the smallest corpus has 40"),
        ({"words": 0}, "words is 0"),
        ({"draws": 0}, "draws is 0"),
        ({"metrics": ["mmd"]}, "'mmd' needs against="),
        ({"metrics": ["leakage"]}, "'leakage' needs held_out=, the validation and test texts; a comparison takes none"),
        ({"metrics": ["distinct_3"]}, "'distinct_3' is not defined"),
    ],
)
def test_bad_arguments_are_named(options, message):
    corpora = {"a": pool(40, 1, words=2), "b": pool(50, 2, words=2)}
    with pytest.raises(ValueError, match=message):
        compare_corpora(corpora, encoder=ENCODER, **options)


def test_bad_corpora_are_named():
    with pytest.raises(ValueError, match="at least two"):
        compare_corpora({"a": pool(4, 1)})
    with pytest.raises(ValueError, match="corpus 'b' has no rows"):
        compare_corpora({"a": pool(4, 1), "b": pool(4, 2).take([])})
    with pytest.raises(ConfigError, match="did you mean 'vendi_q1'"):
        compare_corpora({"a": pool(4, 1), "b": pool(4, 2)}, metrics=["vendi_q11"])
    unfit = pool(60, 2).joined(Corpus.from_rows([{"text": "", "target": "a", "id": "blank"}]))
    with pytest.raises(InputError, match=r"corpus 'b': .*row 'blank'"):
        compare_corpora({"a": pool(4, 1), "b": unfit}, encoder=ENCODER, metrics=["vendi_q1"])


# --- what goes wrong without it ---------------------------------------------------------------------
def topic_pool(n, seed):
    """Topics for the vectors, then Zipf words: one population at any size."""
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, 5001)
    topics = rng.choice(40, size=n, p=np.arange(40, 0, -1) / 820)
    words = rng.choice(5000, size=(n, 8), p=share / share.sum())
    return Corpus.from_rows(
        {"text": f"t{t} n{seed * 100_000 + i} " + " ".join(f"w{w}" for w in row), "target": "x", "id": f"{seed}-{i}"}
        for i, (t, row) in enumerate(zip(topics.tolist(), words, strict=True))
    )


@pytest.mark.slow
def test_vendi_of_one_pool_at_two_sizes_agrees_after_rarefaction_only():
    """Of one pool Vendi was 112 at 250 rows and 185 at 16,000; compared, the sizes no longer matter."""
    names = ["vendi_q1", "dcscore_tau0.1", "distinct_2", "self_bleu"]
    corpora = {"thousand": topic_pool(1000, 1), "sixteen": topic_pool(16_000, 2)}
    raw = {
        name: measure_corpus(corpus, encoder=TopicEncoder(), metrics=names[:3]).values
        for name, corpus in corpora.items()
    }
    for name in names[:3]:
        small, large = raw["thousand"][name], raw["sixteen"][name]
        assert abs(large.value - small.value) > 4 * (small.high - small.low) / 2, name
    found = compare_corpora(corpora, encoder=TopicEncoder(), metrics=names, draws=6)
    assert found.rows > 900
    for name in names:
        difference = found.differences[name][1]
        assert difference.low < 0 < difference.high, name  # within two standard errors of nothing


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, m in METRICS.items() if reads_cut_texts(m) and m.standard])
def test_the_same_tokens_in_long_and_short_texts_are_as_diverse(name, cut_tokens):
    raw, found = cut_tokens
    short, long = found.values[name]
    assert long.value == pytest.approx(short.value, rel=0.05, abs=1e-3)
    assert found.words == 10
    if name in raw["long"]:
        assert raw["long"][name].value != pytest.approx(raw["short"][name].value, rel=0.1)


@pytest.fixture(scope="module")
def cut_tokens():
    """One stream of 96,000 Zipf-Mandelbrot words, cut into texts of 10 and of 80 words."""
    rng = np.random.default_rng(7)
    share = 1.0 / np.arange(4, 3004)
    stream = [f"w{i}" for i in rng.choice(3000, size=96_000, p=share / share.sum())]
    corpora = {
        name: Corpus.from_rows(
            {"text": " ".join(stream[at : at + size]), "target": "x", "id": f"{size}-{at}"}
            for at in range(0, len(stream), size)
        )
        for name, size in (("short", 10), ("long", 80))
    }
    metrics = [n for n, m in METRICS.items() if reads_cut_texts(m) and m.standard]
    uncut = ["distinct_2", "self_bleu"]
    raw = {name: measure_corpus(corpus, metrics=uncut, rows=1200).values for name, corpus in corpora.items()}
    return raw, compare_corpora(corpora, metrics=metrics, draws=4)
