"""Near-duplicates by MinHash, verified by exact Jaccard."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus, normalise_text
from cuvee.defects.duplicates import NEAR_TEXTS, _Shingles, _sort_unique, find_near_texts
from cuvee.measure.subject import Subject
from cuvee.measure.surface import measure_near_texts as measure_near_duplicates

TEXTS = [
    "please book a quiet table for four people at the cafe in town",
    "please book a quiet table for four people at the cafes in town",
    "play some jazz",
    "Please: book a quiet table for four people at the cafe in town!",
]


def measure(texts):
    return measure_near_duplicates(Subject(corpus=Corpus.from_rows({"text": t, "target": "x"} for t in texts)))


def shingle_set(text):
    text = normalise_text(text).ljust(5, "\0")
    return {text[i : i + 5] for i in range(len(text) - 4)}


def similarity(one, other):
    return len(shingle_set(one) & shingle_set(other)) / len(shingle_set(one) | shingle_set(other))


def headlines(n, seed=0):
    """Texts of 12 words, a third of them made of an earlier one by a small change."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), rng.integers(2, 9))) for _ in range(800)]
    texts = []
    for i in range(n):
        if i and rng.random() < 0.35:
            chosen = texts[rng.integers(i)].split()
            chosen[rng.integers(12)] = rng.choice(words)
        else:
            chosen = rng.choice(words, 12).tolist()
        texts.append(" ".join(chosen))
    return texts


def test_the_rate_counts_rows_with_a_partner():
    assert similarity(TEXTS[0], TEXTS[1]) == 53 / 62
    found = measure(TEXTS)
    assert found.value == 3 / 4
    assert found.settings["threshold"] == 0.8
    assert measure(["one text", "quite another"]).value == 0.0
    assert measure(["one"]) is None


@pytest.mark.parametrize("texts, rate", [(["z", "a", "Z!", "b"], 0.5), (["", "", "."], 1.0)])
def test_rows_that_agree_after_normalisation_are_partners(texts, rate):
    assert measure(texts).value == rate


@pytest.mark.slow
def test_it_finds_the_pairs_that_comparing_all_pairs_finds():
    texts = sorted(set(headlines(250)))
    sets = [shingle_set(text) for text in texts]
    pairs = combinations(range(len(texts)), 2)
    exact = {(i, j) for i, j in pairs if len(sets[i] & sets[j]) >= NEAR_TEXTS * len(sets[i] | sets[j])}
    assert len(exact) > 4
    found = find_near_texts(texts, seed=0)
    assert {tuple(pair) for pair in found.pairs.tolist()} == exact


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text("ab é漢", max_size=12), min_size=2, max_size=6))
def test_jaccard_is_exact(texts):
    pairs = np.array(list(combinations(range(len(texts)), 2)))
    normal = [normalise_text(t) for t in texts]
    expected = [similarity(texts[i], texts[j]) for i, j in pairs]
    assert _Shingles(normal).jaccard(pairs).tolist() == expected


def test_many_letters_are_numbered_exactly():
    # 50,000 letters: five of them do not fit into 64 bits
    letters = [chr(0x4E00 + i) for i in range(20_000)] + [chr(0xAC00 + i) for i in range(11_000)]
    texts = ["".join(letters[i : i + 50]) for i in range(0, 31_000, 50)]
    texts += [texts[0][:49] + "x", texts[0][1:]]
    pairs = np.array([[0, 620], [0, 621], [0, 1]])
    assert _Shingles(texts).jaccard(pairs) == pytest.approx([45 / 47, 45 / 46, 0.0])


@pytest.mark.slow
def test_copies_and_look_alikes_do_not_make_all_pairs():
    copies = ["one and the same text"] * 1000
    assert len(find_near_texts(copies, seed=0).pairs) == 0
    assert measure(copies).value == 1.0
    alike = [f"this is the synthetic example of a headline about cats number {i}" for i in range(400)]
    found = find_near_texts(alike, seed=0)
    assert len(found.pairs) < 60 * len(alike)
    assert measure(alike).value == 1.0


def test_sorted_keys_without_repeats():
    assert _sort_unique(np.array([3, 1, 3, 2])).tolist() == [1, 2, 3]
    assert _sort_unique(np.array([], dtype=np.int64)).tolist() == []
