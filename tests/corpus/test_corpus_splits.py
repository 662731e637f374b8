import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus, LockedTest, normalise_text, split_corpus
from cuvee.errors import InputError, LockedTestError


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
    assert split.unused == 90 - 30 - 18 - 12


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
    with pytest.raises(InputError, match="one label only"):
        split_corpus(make(labels=1), test=5, validation=5, rows_per_label=1, seed=0)


def test_locked_test_opens_once_and_logs():
    log: list[str] = []
    test = LockedTest(make(6), log.append)
    assert len(test.texts_for_leak_guard()) == 6
    test.open_for_confirmation()
    with pytest.raises(LockedTestError):
        test.open_for_confirmation()
    assert log == ["leak-guard", "confirmation"]
