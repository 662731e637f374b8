"""Folds: every real row is held out once, and what belongs together stays together."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.corpus import Corpus, number_folds
from cuvee.errors import InputError


def corpus(labels, groups=None):
    groups = groups or [None] * len(labels)
    rows = zip(labels, groups, strict=True)
    return Corpus.from_rows([{"text": f"row {i}", "target": t, "group": g} for i, (t, g) in enumerate(rows)])


def fold_corpus(rows, folds, **options):
    fold_of = number_folds(rows, folds, **options)
    return [(rows.keep(fold_of != k), rows.keep(fold_of == k)) for k in range(folds)]


@given(
    labels=st.lists(st.sampled_from("ab"), min_size=0, max_size=30),
    folds=st.integers(2, 5),
    seed=st.integers(0, 3),
)
def test_every_row_is_held_out_once_and_labels_are_even(labels, folds, seed):
    rows = corpus([*"ab" * folds, *labels])
    made = fold_corpus(rows, folds, seed=seed)
    assert len(made) == folds
    assert sorted(i for _, held in made for i in held.ids) == sorted(rows.ids)
    for rest, held in made:
        assert sorted(rest.ids + held.ids) == sorted(rows.ids)
        assert rest.ids == [i for i in rows.ids if i in set(rest.ids)]
    for label in "ab":
        counts = [Counter(held.targets)[label] for _, held in made]
        assert max(counts) - min(counts) <= 1
    sizes = [len(held) for _, held in made]
    assert max(sizes) - min(sizes) <= 2
    assert [h.ids for _, h in fold_corpus(rows, folds, seed=seed)] == [h.ids for _, h in made]


@given(groups=st.lists(st.sampled_from(["g1", "g2", "g3", None]), min_size=6, max_size=30))
def test_a_group_is_held_out_whole(groups):
    rows = corpus(["a"] * len(groups), groups)
    distinct = len({g for g in groups if g}) + groups.count(None)
    if distinct < 2:
        return
    for rest, held in fold_corpus(rows, 2, seed=0):
        assert not set(rest.groups) & set(held.groups)


def test_near_rows_and_other_seeds_and_too_few_rows():
    rows = corpus([*"ab" * 6])
    pairs = [i // 4 for i in range(12)]  # rows 0 to 3, 4 to 7, 8 to 11
    for _, held in fold_corpus(rows, 3, seed=0, together=pairs):
        assert len({pairs[rows.ids.index(i)] for i in held.ids}) == 1
    assert [h.ids for _, h in fold_corpus(rows, 3, seed=0)] != [h.ids for _, h in fold_corpus(rows, 3, seed=1)]
    with pytest.raises(InputError, match=r"label 'b' has 1 rows .* for 2 folds; lower split.crossfit"):
        fold_corpus(corpus("aab"), 2, seed=0)
    with pytest.raises(ValueError, match="folds is 1"):
        fold_corpus(rows, 1, seed=0)
    with pytest.raises(ValueError, match="together has 2 entries for 12 rows"):
        fold_corpus(rows, 2, seed=0, together=[1, 2])
