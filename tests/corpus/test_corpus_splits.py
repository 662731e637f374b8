from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus, LockedTest, few_shot_sets, normalise_text, number_folds, split_corpus
from cuvee.errors import InputError, LockedTestError
from cuvee.fingerprint import hash_texts


def make(n: int = 90, labels: int = 3) -> Corpus:
    return Corpus.from_rows([{"text": f"row number {i}", "target": f"L{i % labels}"} for i in range(n)])


def opened(split) -> Corpus:
    return split.test.open_for_confirmation()


def test_parts_are_disjoint_stratified_and_exact():
    split = split_corpus(make(), test=30, validation=0.2, rows_per_label=4, seed=1)
    test = opened(split)
    assert test.label_counts() == {"L0": 10, "L1": 10, "L2": 10}
    assert len(split.validation) == 18
    assert split.train.label_counts() == {"L0": 4, "L1": 4, "L2": 4}
    assert not set(test.ids) & set(split.validation.ids) and not set(split.train.ids) & set(test.ids)


def test_few_shot_sizes_are_nested_and_follow_the_seed():
    small, large = (split_corpus(make(), test=30, validation=18, rows_per_label=k, seed=1) for k in (2, 6))
    assert set(small.train.ids) < set(large.train.ids)
    other = split_corpus(make(), test=30, validation=18, rows_per_label=2, seed=2)
    assert set(other.train.ids) != set(small.train.ids)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["x", "X!", "y", "z z"])), min_size=30, max_size=60)
)
def test_groups_and_duplicates_never_straddle(pairs):
    rows = [{"text": f"{t} {g}", "target": f"L{i % 2}", "group": g} for i, (g, t) in enumerate(pairs)]
    split = split_corpus(Corpus.from_rows(rows), test=5, validation=5, rows_per_label=None, seed=0)
    parts = [split.train, split.validation, opened(split)]
    for i, a in enumerate(parts):
        for b in parts[i + 1 :]:
            assert not set(a.groups) & set(b.groups)
            assert not {normalise_text(t) for t in a.texts} & {normalise_text(t) for t in b.texts}


def test_too_few_rows_and_one_label_are_told():
    with pytest.raises(InputError, match="the data has 90 rows"):
        split_corpus(make(), test=60, validation=40, rows_per_label=1, seed=0)
    with pytest.raises(InputError, match="were asked"):
        rows = [{"text": f"r{i}", "target": "rare" if i == 0 else "often"} for i in range(60)]
        split_corpus(Corpus.from_rows(rows), test=10, validation=10, rows_per_label=4, seed=0)
    with pytest.raises(InputError, match=r"one label only .*data.label, --label"):
        split_corpus(make(labels=1), test=5, validation=5, rows_per_label=1, seed=0)


def test_locked_test_opens_once_and_logs():
    log: list[str] = []
    test = LockedTest(make(6), log.append)
    assert len(test.texts_for_leak_guard()) == 6
    test.open_for_confirmation()
    with pytest.raises(LockedTestError):
        test.open_for_confirmation()
    assert log == ["leak-guard", "confirmation"]


PLAIN = [{"text": f"row number {i}", "target": f"L{i % 3}"} for i in range(90)]
GROUPED = [{"text": f"row number {i}", "target": f"L{i * i % 3}", "group": f"g{i // 4}"} for i in range(90)]
COPIES = [
    {
        "text": f"Row number {i % 37}." if i % 2 else f"row number {i % 37}",
        "target": "yes" if i % 5 else "no",
        "id": f"r{i}",
    }
    for i in range(90)
]


@pytest.mark.parametrize(
    ("rows", "rows_per_label", "seed", "known"),
    [
        (PLAIN, None, 0, ("52:d28005af62e0d761", "18:7c1c2fc1f6fc0968", "20:abc675f72538d19b")),
        (PLAIN, None, 7, ("52:0458ef11195a3c44", "18:884f197d1d7398db", "20:981ef2b2b61ef926")),
        (PLAIN, 3, 0, ("9:d04c7734e2a25538", "18:7c1c2fc1f6fc0968", "20:abc675f72538d19b")),
        (PLAIN, 3, 7, ("9:707f51c2cad01fe4", "18:884f197d1d7398db", "20:981ef2b2b61ef926")),
        (GROUPED, None, 0, ("60:84ca9794b79f7f17", "16:002935a98a145040", "14:fd95140f1f3a4cfb")),
        (GROUPED, 3, 7, ("6:e4cf78e00a9e8208", "16:aacf341d3de0c681", "16:01a2d9c8b8c8d841")),
        (COPIES, None, 0, ("54:edd042c013b5c7c0", "17:0c7e8ec2f51cbd2f", "19:bbe45777b66baeae")),
        (COPIES, 3, 7, ("6:8b737369c662e726", "16:abbf21a593950f1e", "19:ccb53caaf16fae10")),
    ],
)
def test_a_seed_gives_the_rows_it_always_gave(rows, rows_per_label, seed, known):
    split = split_corpus(Corpus.from_rows(rows), test=20, validation=0.2, rows_per_label=rows_per_label, seed=seed)
    parts = (split.train, split.validation, opened(split))
    assert tuple(f"{len(c)}:{hash_texts(c.ids)[:16]}" for c in parts) == known


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=60, max_size=60), st.integers(0, 10**6))
def test_rows_that_are_linked_stay_on_one_side(numbers, seed):
    corpus = make(60)
    split = split_corpus(corpus, test=12, validation=9, rows_per_label=None, seed=seed, together=np.array(numbers))
    number = dict(zip(corpus.ids, numbers, strict=True))
    parts = [{number[i] for i in part.ids} for part in (split.train, split.validation, opened(split))]
    assert sum(len(part) for part in parts) == len(set(numbers))


def test_links_join_groups_and_copies():
    rows = [{"text": f"r{i}", "target": f"L{i % 2}", "group": f"g{i // 3}"} for i in range(60)]
    links = [i // 6 for i in range(60)]  # joins two groups each
    split = split_corpus(Corpus.from_rows(rows), test=12, validation=12, rows_per_label=None, seed=0, together=links)
    for part in (split.train, split.validation, opened(split)):
        assert len(part) % 6 == 0
    alone = split_corpus(Corpus.from_rows(rows), test=12, validation=12, rows_per_label=None, seed=0)
    same = split_corpus(Corpus.from_rows(rows), test=12, validation=12, rows_per_label=None, seed=0, together=range(60))
    assert same.train.ids == alone.train.ids


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from("aabc"), min_size=20, max_size=50), st.integers(0, 10**6))
def test_few_shot_sets_are_exact_and_nested(labels, seed):
    labels = [*"abc" * 5, *labels]
    train = Corpus.from_rows([{"text": f"row {i}", "target": y} for i, y in enumerate(labels)])
    sets = few_shot_sets(train, [5, "all", 1, 2], seed=seed)
    assert list(sets) == ["5", "all", "1", "2"]
    for size in (1, 2, 5):
        assert sets[str(size)].label_counts() == dict.fromkeys(train.labels, size)
    assert set(sets["1"].ids) < set(sets["2"].ids) < set(sets["5"].ids) <= set(sets["all"].ids)
    assert sets["all"] is train
    assert few_shot_sets(train, [2], seed=seed)["2"].ids == sets["2"].ids


def test_few_shot_sets_follow_the_seed_and_hold_no_text_twice():
    rows = [{"text": t, "target": y} for y in "ab" for t in (*(f"{y} {i}" for i in range(8)), f"{y} 0.", f"{y}  1")]
    train = Corpus.from_rows(rows)
    first, other = (few_shot_sets(train, [8], seed=s)["8"] for s in (0, 1))
    assert len({normalise_text(t) for t in first.texts}) == 16 and len(train) == 20
    assert set(few_shot_sets(train, [3], seed=0)["3"].ids) != set(few_shot_sets(train, [3], seed=1)["3"].ids)
    assert first.ids == sorted(first.ids, key=train.ids.index) and len(other) == 16
    with pytest.raises(InputError, match=r"label 'a': 8 training rows have different texts, 9 .* size is 8$"):
        few_shot_sets(train, [4, 9], seed=0)


@pytest.mark.parametrize("task", ["generation", "retrieval"])
def test_tasks_without_labels_are_split_by_group_alone(task):
    rows = [{"text": f"ask {i}", "target": f"say {i}", "group": f"g{i // 2}"} for i in range(60)]
    corpus = Corpus.from_rows(rows, task=task)
    split = split_corpus(corpus, test=10, validation=0.2, rows_per_label=7, seed=3)
    assert (len(opened(split)), len(split.validation), len(split.train)) == (10, 12, 7)
    assert not set(split.train.groups) & set(split.validation.groups)
    assert {k: len(c) for k, c in few_shot_sets(split.train, [2, "all"], seed=0).items()} == {"2": 2, "all": 7}
    same = Corpus.from_rows([{"text": f"ask {i}", "target": "x"} for i in range(60)], task=task)
    assert len(split_corpus(same, test=10, validation=10, rows_per_label=None, seed=0).train) == 40
    copies = Corpus.from_rows([{"text": f"ask {i // 2}", "target": "x", "id": str(i)} for i in range(60)], task=task)
    with pytest.raises(InputError, match=r"rows left after the split, 35 were asked for") as refused:
        split_corpus(copies, test=10, validation=10, rows_per_label=35, seed=1)
    most = int(str(refused.value).split("the largest split.rows_per_label is ")[1].split(":")[0])
    assert len(split_corpus(copies, test=10, validation=10, rows_per_label=most, seed=1).train) == most == 20


def test_a_context_stays_on_one_side_and_a_question_may_be_asked_of_many():
    rows = [{"text": "Who wrote it?", "target": f"a {i}", "context": f"Passage {i // 3}"} for i in range(60)]
    split = split_corpus(Corpus.from_rows(rows, task="generation"), test=12, validation=12, rows_per_label=None, seed=0)
    parts = [set(part.contexts) for part in (split.train, split.validation, opened(split))]
    assert [len(part) for part in parts] == [12, 4, 4] and len(set.union(*parts)) == 20
    assert len(few_shot_sets(split.train, [12], seed=0)["12"]) == 12


def test_what_is_too_much_is_told_with_the_largest_possible():
    with pytest.raises(InputError, match=r"the largest split.rows_per_label is 10$"):
        split_corpus(make(), test=30, validation=30, rows_per_label=11, seed=0)
    assert len(split_corpus(make(), test=30, validation=30, rows_per_label=10, seed=0).train) == 30
    with pytest.raises(InputError, match=r"test and validation can have 87 rows together$"):
        split_corpus(make(), test=60, validation=40, rows_per_label=None, seed=0)
    assert len(split_corpus(make(), test=60, validation=27, rows_per_label=None, seed=0).train) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test": -1}, "test is -1"),
        ({"validation": float("nan")}, "validation is nan"),
        ({"rows_per_label": 0}, "rows_per_label is 0"),
        ({"together": [1, 2]}, "together has 2 entries for 90 rows"),
    ],
)
def test_arguments_that_cannot_be_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_corpus(make(), **{"test": 5, "validation": 5, "rows_per_label": None, "seed": 0} | arguments)


# --- folds ---
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
    with pytest.raises(ValueError, match="together has 2 entries for 12 rows"):
        fold_corpus(rows, 2, seed=0, together=[1, 2])
