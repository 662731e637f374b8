import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cuvee.mix.blend import apportion_rows, largest_share, share_counts

sizes = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 60), min_size=1)
shares = st.floats(0, 0.95)


def test_few_shot_shares_of_the_protocol():
    for share, synthetic in {0.0: 0, 0.2: 1, 0.5: 4, 0.75: 12, 0.9: 36}.items():
        assert share_counts({"a": 4, "b": 4}, share) == {"a": (4, synthetic), "b": (4, synthetic)}


@given(sizes, st.integers(0, 300))
def test_apportioned_rows_add_up_and_stay_within_one_row_of_their_part(counts, total):
    found = apportion_rows(counts, total)
    assert sum(found.values()) == total
    whole = sum(counts.values())
    for label, rows in found.items():
        assert abs(rows - total * counts[label] / whole) < 1


@given(sizes, st.integers(0, 200))
# where plain largest remainders take the third label's only row away again (the Alabama paradox)
@example({"a": 6, "b": 6, "c": 2}, 10)
def test_one_more_row_takes_none_away(counts, total):
    fewer, more = apportion_rows(counts, total), apportion_rows(counts, total + 1)
    assert all(fewer[label] <= more[label] for label in counts)


@given(sizes, st.sampled_from(["augment", "replace"]), shares, shares)
def test_counts_are_nested_in_the_share(counts, regime, one, other):
    low, high = sorted((one, other))
    fewer, more = (share_counts(counts, s, regime=regime) for s in (low, high))
    assert all(fewer[k][1] <= more[k][1] and fewer[k][0] >= more[k][0] for k in counts)


@given(sizes, shares)
def test_augment_keeps_all_real_rows_and_is_stratified(counts, share):
    for label, (real, synthetic) in share_counts(counts, share).items():
        assert real == counts[label]
        assert abs(synthetic - real * share / (1 - share)) <= 0.5 + 1e-6


@given(sizes, st.floats(0, 1))
def test_replace_keeps_the_rows_of_each_label_and_is_stratified(counts, share):
    found = share_counts(counts, share, regime="replace")
    rows = sum(counts.values())
    assert {label: real + synthetic for label, (real, synthetic) in found.items()} == counts
    assert abs(sum(s for _, s in found.values()) - share * rows) <= 0.5 + 1e-6
    for real, synthetic in found.values():
        assert real >= 0 and synthetic >= 0
        assert abs(synthetic - share * (real + synthetic)) <= 1.5


@given(sizes, sizes, st.sampled_from(["augment", "replace"]))
def test_largest_share_fits_and_the_next_does_not(real, pool, regime):
    share = largest_share(real, pool, regime=regime)

    def fits(value):
        return all(s <= pool.get(k, 0) for k, (_, s) in share_counts(real, value, regime=regime).items())

    assert fits(share)
    above = share + 0.001
    if above < (1 if regime == "augment" else 1.0005):
        assert not fits(min(1.0, above))


def test_largest_share_by_hand():
    # 20 rows a label for 4 real ones: 20.49 round to 20, and 20.49 / 24.49 is 0.836
    assert largest_share({"a": 4, "b": 4}, {"a": 20, "b": 99}) == pytest.approx(math.floor(1000 * 20.5 / 24.5) / 1000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 1.5}, "share is 1.5"),
        ({"share": -0.1}, "share is -0.1"),
        ({"share": float("nan")}, "share is nan"),
        ({"share": 1.0}, "augment cannot reach"),
        ({"share": 0.5, "regime": "append"}, "'append'; valid: augment, replace"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        share_counts({"a": 4}, **arguments)


def test_a_label_without_rows_is_given_none():
    assert apportion_rows({"a": 0, "b": 2}, 3) == {"a": 0, "b": 3}
