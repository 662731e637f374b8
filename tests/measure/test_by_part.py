"""Parts measured alone equal the same rows measured by themselves; the page holds what one subject gives."""

import numpy as np
import pytest

from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder
from cuvee.measure import (
    GivenVectors,
    Subject,
    gather_page,
    measure_corpus,
    measure_parts,
    measure_subject,
    measure_vectors,
    parts_of,
)
from cuvee.report.corpus_page import render_measurement

ENCODER = HashingEncoder()
WORDS = "match goal team coach bank shares profit market actor film award screen".split()


def corpus(n=60, seed=0, origin="real"):
    rng = np.random.default_rng(seed)
    return Corpus.from_rows(
        [
            {
                "text": " ".join(rng.choice(WORDS, size=rng.integers(5, 9))) + f" {i}",
                "target": "abc"[i % 3],
                "level": str(i % 2) if origin == "synthetic" else None,
                "group": f"{origin}{i // 2}",
            }
            for i in range(n)
        ],
        origin=origin,
    )


def test_a_part_has_the_numbers_of_its_rows():
    made, real = corpus(60, 1, "synthetic"), corpus(45, 2)
    names = ["vendi_q1", "distinct_2", "mmd", "label_noise", "near_duplicate_rate"]
    subject = Subject(corpus=made, against=real, encoder=ENCODER)
    parts = measure_parts(subject, parts_of(made, "level"), ["vendi_q1", "distinct_2", "mmd", "near_duplicate_rate"])
    assert list(parts) == ["0", "1"]
    alone = measure_corpus(made.take(range(0, 60, 2)), against=real, encoder=ENCODER, metrics=names[:3])
    assert (parts["0"].fingerprint, parts["0"].encoder) == (alone.fingerprint, alone.encoder)
    for name in names[:3]:
        assert parts["0"].values[name].value == pytest.approx(alone.values[name].value, rel=1e-6)
        assert parts["0"].values[name].n == 30


def test_labels_are_measured_against_the_real_rows_of_their_label():
    made, real = corpus(60, 1, "synthetic"), corpus(45, 2)
    parts = measure_parts(Subject(corpus=made, against=real, encoder=ENCODER), parts_of(made, "label"), ["mmd"])
    like = real.keep([t == "a" for t in real.targets])
    rows = made.keep([t == "a" for t in made.targets])
    alone = measure_corpus(rows, against=like, encoder=ENCODER, metrics=["mmd"])
    assert parts["a"].values["mmd"].value == pytest.approx(alone.values["mmd"].value, rel=1e-6)


def test_leaks_of_a_part_are_found_by_words_and_by_vectors_as_in_the_whole():
    made = corpus(60, 1, "synthetic")
    held_out = [f"{made.texts[0]} x", made.texts[1]]  # one that only a vector is near to, one that is equal
    subject = Subject(corpus=made, held_out=held_out, encoder=ENCODER)
    parts = measure_parts(subject, parts_of(made, "level"), ["leakage"])
    for level, first in (("0", 0), ("1", 1)):
        alone = measure_corpus(made.take(range(first, 60, 2)), held_out=held_out, encoder=ENCODER, metrics=["leakage"])
        assert parts[level].values["leakage"] == alone.values["leakage"]


def test_vectors_of_parts_that_were_given_are_cut_with_their_rows():
    made = corpus(60, 1, "synthetic")
    given = Subject(corpus=made, encoder=GivenVectors("hashing", ENCODER.encode(made.texts)))
    parts = measure_parts(given, parts_of(made, "level"), ["vendi_q1"])
    alone = measure_corpus(made.take(range(0, 60, 2)), encoder=ENCODER, metrics=["vendi_q1"])
    assert parts["0"].values["vendi_q1"].value == pytest.approx(alone.values["vendi_q1"].value, rel=1e-6)


def test_parts_that_are_none_are_refused():
    made = corpus()
    with pytest.raises(ValueError, match="by is 'topic'; valid: label"):
        parts_of(made, "topic")
    with pytest.raises(ValueError, match="row 1 has none"):
        parts_of(made, "level")
    every = Corpus.from_rows({"text": f"t{i}", "target": f"y{i}"} for i in range(4))
    with pytest.raises(ValueError, match="every row has another"):
        parts_of(every, "label")


@pytest.mark.slow
def test_the_page_of_a_subject_holds_every_picture():
    made, real = corpus(60, 1, "synthetic"), corpus(45, 2)
    subject = Subject(corpus=made, against=real, encoder=ENCODER)
    found = measure_subject(subject, name="pool")
    parts = measure_parts(subject, parts_of(made, "level"))
    page = gather_page(subject, found, parts, by="level", against_name="real.jsonl", reproduce="cuvee measure pool")
    assert page.map is not None and page.map.grouping == "level" and set(page.map.origin) == {"real", "synthetic"}
    assert page.taus is not None and len(page.orders) == 1
    assert page.redundant and page.novel
    assert set(page.by_label) == {"0", "1"}
    shown = render_measurement(page)
    assert "real.jsonl" in shown and "cuvee measure pool" in shown


def test_vectors_and_their_texts_give_the_same_numbers():
    made, real = corpus(60, 1, "synthetic"), corpus(45, 2)
    by_text = measure_corpus(made, against=real, encoder=ENCODER, metrics=["vendi_q1", "dcscore_tau0.1", "mmd"])
    given = measure_vectors(
        ENCODER.encode(made.texts), against=ENCODER.encode(real.texts), groups=made.groups, made_by="hashing",
        metrics=["vendi_q1", "dcscore_tau0.1"],
    )  # fmt: skip
    for name in given.values:
        assert given.values[name] == by_text.values[name]
    assert given.encoder == "hashing" and given.encoder_hash == "given:hashing:512"


def test_vectors_that_do_not_fit_are_refused():
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    with pytest.raises(ValueError, match="need one length"):
        measure_vectors(x, against=x[:, :3])
    with pytest.raises(ValueError, match="targets has 3 entries for 20 rows"):
        measure_vectors(x, labels=["a", "b", "c"])
    with pytest.raises(ValueError, match="'self_bleu' needs a corpus with texts"):
        measure_vectors(x, metrics=["self_bleu"])
    with pytest.raises(ValueError, match="20 texts came without any, give theirs too"):
        measure_corpus(corpus(20), against=corpus(20, 1), encoder=GivenVectors("numpy", x))
    with pytest.raises(ValueError, match="give one vector a row"):
        measure_corpus(corpus(19), encoder=GivenVectors("numpy", x), metrics=["vendi_q1"])
