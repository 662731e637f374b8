"""Equal rows of matched length, and notes on what did not match."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.measure.comparing import (
    count_words,
    note_labels,
    note_lengths,
    plan_rows,
    standardised_difference,
)


def corpus_of_lengths(counts, group_size=1):
    lengths = [length for length, times in counts.items() for _ in range(times)]
    order = np.random.default_rng(0).permutation(len(lengths))
    return Corpus.from_rows(
        {"text": " ".join(["w"] * lengths[i]), "target": "x", "id": str(i), "group": f"g{k // group_size}"}
        for k, i in enumerate(order)
    )


def draw(plan, name, corpus, seed):
    return corpus.take(plan.pick(name, corpus, seed))


def plan_of(corpora, rows=None, match=True):
    return plan_rows({name: count_words(c) for name, c in corpora.items()}, rows=rows, match_lengths=match)


A = corpus_of_lengths({4: 60, 8: 60, 12: 60})
B = corpus_of_lengths({4: 20, 8: 60, 12: 100})


def test_every_length_is_drawn_as_often_from_each_corpus():
    plan = plan_of({"a": A, "b": B})
    assert plan.rows == 140
    assert plan.notes == ()
    for name, corpus in {"a": A, "b": B}.items():
        drawn = draw(plan, name, corpus, seed=1)
        assert Counter(count_words(drawn).tolist()) == {4: 20, 8: 60, 12: 60}
        assert len(set(drawn.ids)) == 140
        assert drawn.ids != draw(plan, name, corpus, seed=2).ids


def test_fewer_rows_keep_the_proportions_of_lengths():
    plan = plan_of({"a": A, "b": B}, rows=70)
    assert Counter(count_words(draw(plan, "b", B, seed=1)).tolist()) == {4: 10, 8: 30, 12: 30}


def test_without_matching_the_smallest_corpus_sets_the_rows():
    small = A.take(range(50))
    plan = plan_of({"a": small, "b": B}, match=False)
    assert plan.rows == 50
    assert plan.pick("a", small, seed=3).tolist() == list(range(50))
    assert len(set(plan.pick("b", B, seed=3).tolist())) == 50
    assert plan.fraction("b", B) == 50 / 180


@pytest.mark.parametrize("rows", [0, -1, 181])
def test_rows_out_of_range_name_the_range(rows):
    with pytest.raises(ValueError, match=f"rows is {rows}; the smallest corpus has 180, give 1 to 180"):
        plan_of({"a": A, "b": B}, rows=rows)


def test_lengths_that_do_not_overlap_are_not_matched_and_a_note_says_which():
    long = corpus_of_lengths({4: 10, 80: 170})
    plan = plan_of({"a": A, "b": long})
    assert plan.rows == 180
    assert plan.notes == ("lengths not matched: a has no text of 80 words",)
    short = corpus_of_lengths({2: 170, 40: 10})
    assert plan_of({"a": A, "b": short}).notes == ("lengths not matched: a has no text of 2 words",)


def test_a_match_that_costs_more_than_half_of_the_rows_is_not_made():
    apart = corpus_of_lengths({4: 8, 8: 2, 12: 170})
    other = corpus_of_lengths({4: 170, 8: 2, 12: 8})
    plan = plan_of({"a": apart, "b": other})
    assert (plan.rows, plan.notes) == (180, ("lengths not matched: only 18 of 180 rows would be left",))


def test_more_rows_than_can_be_matched_are_drawn_unmatched():
    plan = plan_of({"a": A, "b": B}, rows=150)
    assert plan.rows == 150
    assert plan.notes == ("lengths not matched: that is possible for at most 140 rows, and 150 were asked for",)


def test_texts_of_one_length_need_no_strata():
    plan = plan_of({"a": corpus_of_lengths({6: 30}), "b": corpus_of_lengths({6: 90})})
    assert (plan.rows, plan.strata, plan.notes) == (30, {}, ())


def test_matched_draws_keep_groups_together():
    grouped = corpus_of_lengths({4: 80, 12: 80}, group_size=8)
    plan = plan_of({"a": corpus_of_lengths({4: 20, 12: 20}), "b": grouped})
    groups = Counter(draw(plan, "b", grouped, seed=0).groups)
    assert sum(groups.values()) == 40
    assert len(groups) < 10  # 40 single rows would touch nearly all of the 20


def test_a_used_up_stratum_counts_in_full():
    plan = plan_of({"a": A, "b": B})
    assert plan.fraction("a", A) == pytest.approx((20 * 20 / 60 + 60 + 60) / 140)
    assert plan.fraction("b", B) == pytest.approx((20 + 60 + 60 * 0.6) / 140)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 30), min_size=20, max_size=120), min_size=2, max_size=3),
    st.one_of(st.none(), st.integers(1, 20)),
)
def test_a_plan_never_asks_for_rows_that_are_not_there(lengths, rows):
    counts = {str(i): np.array(own) for i, own in enumerate(lengths)}
    plan = plan_rows(counts, rows=rows, match_lengths=True)
    smallest = min(map(len, lengths))
    assert plan.rows == rows if rows is not None else smallest / 2 <= plan.rows <= smallest
    if plan.strata:
        assert plan.quota.sum() == plan.rows
        for strata in plan.strata.values():
            assert (plan.quota <= np.bincount(strata, minlength=len(plan.quota))).all()


def test_the_standardised_difference_has_its_textbook_value():
    one, other = np.array([2, 4, 6]), np.array([6, 8, 10])
    assert standardised_difference([one, other]) == pytest.approx(4 / math.sqrt(8 / 3))
    assert standardised_difference([one, other, one + 100]) == pytest.approx(100 / math.sqrt(8 / 3))
    assert standardised_difference([one, one]) == 0
    assert standardised_difference([np.array([10, 10]), np.array([80, 80])]) == math.inf
    assert standardised_difference([np.array([10]), np.array([10])]) == 0


def test_lengths_are_noted_above_a_tenth_of_a_deviation():
    one = np.arange(20)
    assert note_lengths({"a": one, "b": one}) == ()
    (note,) = note_lengths({"a": one, "b": one + 3})
    assert "mean words: a 9.5, b 12.5" in note
    assert len(note_lengths({"a": one + 5, "b": one + 9}, 5)) == 1
    assert "cut to 15 words" in note_lengths({"a": one, "b": one + 3}, 15)[1]


def test_labels_that_differ_are_noted_not_matched():
    def labelled(labels, task="classification"):
        return Corpus.from_rows(({"text": f"t{i}", "target": y} for i, y in enumerate(labels)), task=task)

    even, skewed = labelled("xy" * 20), labelled("x" * 30 + "y" * 10)
    (note,) = note_labels({"a": even, "b": skewed})
    assert note.startswith("labels are not balanced: 'x' is 50% of a and 75% of b")
    assert note_labels({"a": even, "b": labelled("xy" * 5)}) == ()
    assert "'z' is 0% of a and 100% of b" in note_labels({"a": even, "b": labelled("z" * 4)})[0]
    assert note_labels({"a": labelled("xy", "generation"), "b": labelled("zz", "generation")}) == ()
