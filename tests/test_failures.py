"""Failed trials in one line: how many, and why most often."""

from hypothesis import given
from hypothesis import strategies as st

from cuvee.records import Cell, Draw, TrialFailure, count_failed

REASONS = st.sampled_from(["out of memory", "took 1.3 GB", "took 0.9 GB", "died"])


def fail(reason, stage="train", draw=0):
    return TrialFailure(
        cell=Cell(kind="blend", rows_per_label=1),
        draw=Draw(generation=draw, sampling=0, training=0),
        stage=stage,
        reason=reason,
    )


def test_none_failed_is_none_and_one_is_told_without_a_count_of_reasons():
    assert count_failed([], trials=7) is None
    assert str(count_failed([fail("died")], trials=7)) == "1 of 7 trials failed: died (train)"


def test_reasons_that_differ_in_numbers_only_are_one():
    found = count_failed([fail("died"), fail("took 1.3 GB"), fail("took 0.9 GB"), fail("died", "mix")], trials=9)
    assert str(found) == "4 of 9 trials failed; most often: took 1.3 GB (train, 2 times)"


def test_a_reason_is_one_line_that_is_not_too_long():
    found = count_failed([fail("a\n  b" + "c" * 1000)], trials=1)
    assert found is not None and "a bc" in str(found) and len(str(found)) < 350 and len(found.reason) > 1000


@given(st.lists(REASONS, min_size=1, max_size=12))
def test_the_reason_is_the_first_of_the_most_frequent(reasons):
    found = count_failed([fail(reason) for reason in reasons], trials=20)
    kinds = ["took" if reason.startswith("took") else reason for reason in reasons]
    assert found is not None and found.failed == len(reasons)
    assert found.times == max(kinds.count(kind) for kind in kinds)
    first = next(r for r, kind in zip(reasons, kinds, strict=True) if kinds.count(kind) == found.times)
    assert found.reason == first
