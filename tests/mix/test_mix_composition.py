"""Counts of what a blend holds; and that a share changes nothing but the share."""

import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus, normalise_text, split_tokens
from cuvee.mix import mix_corpora
from cuvee.mix.blend import count_composition
from cuvee.records import PartCounts


def test_every_number_is_counted_by_hand():
    rows = [
        {"text": "Good news!", "target": "a", "id": "1"},
        {"text": "good, news", "target": "a", "id": "2"},
        {"text": "The red-hot sun", "target": "b", "id": "3"},
    ]
    made = [
        {"text": "good news", "target": "a", "id": "9"},
        {"text": "\u4eca\u5929 sunny", "target": "b", "id": "8"},
    ]
    real = Corpus.from_rows(rows).take([0, 1, 2, 2])
    found = count_composition(real.joined(Corpus.from_rows(made, origin="synthetic").take([0, 0, 0, 1])))
    assert found.real == PartCounts(rows=4, words=2 + 2 + 4 + 4, unique_rows=3, unique_texts=2, most_repeats=2)
    assert found.synthetic == PartCounts(rows=4, words=2 * 3 + 3, unique_rows=2, unique_texts=2, most_repeats=3)
    assert (found.unique_rows, found.unique_texts, found.most_repeats, found.words) == (5, 3, 3, 21)
    assert found.label_counts == {"a": (2, 3), "b": (2, 1)} and found.share == 0.5


def test_targets_are_words_only_where_they_are_text():
    rows = [{"text": "one two", "target": "three four five"}]
    words = {
        task: count_composition(Corpus.from_rows(rows, task=task)).words
        for task in ("classification", "generation", "retrieval")
    }
    assert words == {"classification": 2, "generation": 5, "retrieval": 5}


def test_an_empty_corpus_counts_nothing():
    found = count_composition(Corpus.from_rows([]))
    assert (found.rows, found.words, found.unique_texts, found.share) == (0, 0, 0, 0.0)


LABELS = ("often", "sometimes", "rare")
sizes = st.fixed_dictionaries({"often": st.integers(8, 25), "sometimes": st.integers(2, 9), "rare": st.integers(1, 3)})


def skewed(counts, origin):
    return Corpus.from_rows(
        [{"text": f"{origin} {k} {i}", "target": k} for k, n in counts.items() for i in range(n)], origin=origin
    )


def ids(blend, origin):
    return {i for i, o in zip(blend.corpus.ids, blend.corpus.origins, strict=True) if o == origin}


@settings(deadline=None, max_examples=15)
@given(sizes, st.lists(st.floats(0, 0.9), min_size=2, max_size=5), st.integers(0, 10**6))
def test_neighbouring_shares_differ_in_the_share_alone(counts, shares, seed):
    real = skewed(counts, "real")
    pool = skewed({k: 10 * n for k, n in counts.items()}, "synthetic")
    for regime in ("augment", "replace"):
        blends = [mix_corpora(real, pool, share=s, seed=seed, regime=regime) for s in sorted(shares)]
        for less, more in pairwise(blends):
            assert ids(less, "synthetic") <= ids(more, "synthetic")
            if regime == "augment":
                assert ids(less, "real") == ids(more, "real") == set(real.ids)
            else:
                assert ids(more, "real") <= ids(less, "real")
                totals = [{k: r + s for k, (r, s) in b.composition.label_counts.items()} for b in (less, more)]
                assert totals == [counts, counts]


@settings(deadline=None, max_examples=15)
@given(sizes, st.floats(0, 0.9), st.sampled_from(["augment", "replace"]), st.booleans(), st.integers(0, 99))
def test_a_composition_is_what_the_blend_holds(counts, share, regime, scarce, seed):
    real = skewed(counts, "real")
    pool = skewed({k: 3 if scarce else 10 * n for k, n in counts.items()}, "synthetic")
    blend = mix_corpora(real, pool, share=share, regime=regime, seed=seed, allow_repeats=scarce)
    made, corpus = blend.composition, blend.corpus
    assert made.rows == len(corpus) == sum(r + s for r, s in made.label_counts.values())
    assert made.most_repeats == max(Counter(corpus.ids).values())
    assert made.unique_texts == len({normalise_text(t) for t in corpus.texts})
    assert made.words == sum(len(split_tokens(t)) for t in corpus.texts)
    for part, origin in ((made.real, "real"), (made.synthetic, "synthetic")):
        held = corpus.keep([o == origin for o in corpus.origins])
        assert (part.rows, part.unique_rows) == (len(held), len(set(held.ids)))
        assert part.words == sum(len(split_tokens(t)) for t in held.texts)
    assert made.real_rows == made.real.rows and made.synthetic_rows == made.synthetic.rows
    if not scarce:
        assert made.most_repeats == 1 and made.unique_texts == made.rows


def test_a_seed_gives_the_blend_it_always_gave():
    real = Corpus.from_rows([{"text": f"row number {i}", "target": f"L{i % 3}"} for i in range(24)])
    made = [{"text": f"made {i}", "target": f"L{i % 3}"} for i in range(120)]
    pool = Corpus.from_rows(made, origin="synthetic")
    for regime, known in {"augment": "713bc7f032591509", "replace": "e2aaa3896885f058"}.items():
        assert mix_corpora(real, pool, share=0.5, regime=regime, seed=3).corpus.fingerprint.startswith(known)


SCRIPT = """
from cuvee.corpus import Corpus
from cuvee.mix import mix_corpora
def rows(origin, n):
    made = [{"text": f"{origin} {k} {i}", "target": k} for k, m in (("x", n), ("y", 3), ("z", 2 * n)) for i in range(m)]
    return Corpus.from_rows(made, origin=origin)
for regime in ("augment", "replace"):
    blend = mix_corpora(rows("real", 9), rows("synthetic", 50), share=0.3, regime=regime, seed=5)
    print(blend.corpus.fingerprint, blend.composition)
"""


@pytest.mark.slow
def test_every_process_mixes_the_same_blend():
    def run(hash_seed):
        made = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
        )  # fmt: skip
        return made.stdout

    first = run("1")
    assert len(first.splitlines()) == 2 and run("4242") == first
