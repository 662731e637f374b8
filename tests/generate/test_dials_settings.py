"""What each dial varies, in which order, and which settings it refuses."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.errors import ConfigError
from cuvee.generate.dials import (
    AttributesDial,
    BaseThenRefineDial,
    CombinedDial,
    ExamplesDial,
    ParaphraseDial,
    SamplingDial,
    TabooDial,
    TopicsDial,
    chosen_slots,
    make_dial,
    wanted_slots,
)
from cuvee.generate.dials.contents import balanced_combinations

LABELS = ("alpha", "beta/1")
TOPICS = {label: [f"{label} topic {j}" for j in range(8)] for label in LABELS}
TONES = {"tone": ["dry", "warm"], "length": ["short", "long", "huge"]}


def slots_of(dial, level, *, rows=12, label="alpha", blocks=(0,)):
    chosen = [s for block in blocks for s in chosen_slots(dial.slots(level, LABELS, block, rows))]
    return [s for s in chosen if s.label == label]


def topics(*levels):
    return TopicsDial(levels=levels, topics=TOPICS)


# --- attributes -----------------------------------------------------------------------------------
@settings(max_examples=25)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_any_first_combinations_hold_the_values_of_each_dimension_equally_often(sizes, seed):
    dimensions = {f"d{i}": [f"v{j}" for j in range(size)] for i, size in enumerate(sizes)}
    made = list(balanced_combinations(dimensions, seed=seed))
    assert len(set(made)) == len(made) == np.prod(sizes)
    for k in (1, 2, 3, len(made) // 2 or 1, len(made)):
        for i, size in enumerate(sizes):
            counts = Counter(combination[i] for combination in made[:k])
            assert max(counts.values()) - (min(counts.values()) if len(counts) == size else 0) <= 1


def test_many_dimensions_are_not_enumerated():
    dimensions = {f"d{i}": [f"v{j}" for j in range(10)] for i in range(12)}
    assert len(set(islice(balanced_combinations(dimensions, seed=0), 100))) == 100


@settings(max_examples=25)
@given(rows=st.integers(6, 30), counts=st.sets(st.integers(1, 6), min_size=2), seed=st.integers(0, 9))
def test_combinations_are_nested_and_shared_out_evenly(rows, counts, seed):
    dial = AttributesDial(levels=sorted(counts), dimensions=TONES, seed=seed)
    chosen = {k: slots_of(dial, str(k), rows=rows) for k in counts}
    for k, slots in chosen.items():
        assert list(dict.fromkeys(s.attributes for s in slots)) == list(dial.combinations[:k])
        assert set(Counter(s.attributes for s in slots).values()) <= {rows // k, -(-rows // k)}
    small, large = min(counts), max(counts)
    among = {s.key for s in chosen[large] if s.attributes in dial.combinations[:small]}
    assert among <= {s.key for s in chosen[small]}


def test_the_seed_orders_the_combinations():
    orders = {AttributesDial(levels=[6], dimensions=TONES, seed=seed).combinations for seed in range(8)}
    assert len(orders) > 4


# --- examples -------------------------------------------------------------------------------------
@settings(max_examples=25)
@given(rows=st.integers(8, 40), k=st.integers(1, 16), shown=st.integers(2, 5))
def test_a_level_shows_as_many_different_examples_as_it_says(rows, k, shown):
    slots = slots_of(ExamplesDial(levels=[k], shown=shown), str(k), rows=rows)
    assert {place for s in slots for place in s.examples} == set(range(k))
    assert {len(s.examples) for s in slots} == {min(k, shown)}
    assert all(len(set(s.examples)) == len(s.examples) for s in slots)
    times = Counter(s.examples for s in slots)
    assert max(times.values()) - min(times.values()) <= 1


def test_levels_that_share_a_set_of_examples_share_its_rows():
    dial = ExamplesDial(levels=[4, 8, 16])
    keys = {k: {s.key for s in slots_of(dial, k)} for k in ("4", "8", "16")}
    assert len(keys["4"] & keys["8"]) == 6
    assert len(keys["8"] & keys["16"]) == 6
    assert len(keys["4"] & keys["16"]) == 3


# --- taboo ----------------------------------------------------------------------------------------
@settings(max_examples=25)
@given(rows=st.integers(16, 40), counts=st.sets(st.integers(1, 8), min_size=2))
def test_rounds_are_nested_and_avoid_the_first_rows_of_those_before(rows, counts):
    dial = TabooDial(levels=sorted(counts), read=2, words=5)
    by_level = {}
    for k in counts:
        slots = slots_of(dial, str(k), rows=rows)
        rounds = Counter(len(s.avoid.rounds) if s.avoid else 0 for s in slots)
        assert [rounds[r] for r in range(k)] == [rows // k + (r < rows % k) for r in range(k)]
        assert {s.avoid.words for s in slots if s.avoid} <= {5}
        assert all(len(keys) == 2 * len(LABELS) for s in slots if s.avoid for keys in s.avoid.rounds)
        by_level[k] = {s.key: s.avoid.rounds for s in slots if s.avoid} | {s.key: () for s in slots if not s.avoid}
    small, large = by_level[min(counts)], by_level[max(counts)]
    shared = [key for key in large if key in small]
    assert len(shared) >= min(counts) * (rows // max(counts))
    assert all(large[key] == small[key] for key in shared)


# --- sampling -------------------------------------------------------------------------------------
def test_levels_set_what_they_name_fixed_or_drawn_from_a_range():
    dial = SamplingDial(
        levels=[0.5, {"name": "wide", "temperature": [0.5, 1.5], "min_p": 0.1}, {"temperature": 2, "top_p": [0.5, 1]}]
    )
    assert [x.name for x in dial.levels] == ["0.5", "wide", "temperature 2, top_p 0.5-1"]
    fixed, wide, nucleus = (slots_of(dial, x.name, rows=40, blocks=(0, 1)) for x in dial.levels)
    assert {(s.temperature, s.top_p, s.min_p) for s in fixed} == {(0.5, None, None)}
    assert {(s.top_p, s.min_p) for s in wide} == {(None, 0.1)}
    drawn = [s.temperature for s in wide]
    assert len(set(drawn)) > 75
    assert 0.5 <= min(drawn) < 0.6
    assert 1.4 < max(drawn) <= 1.5
    assert len({s.top_p for s in nucleus}) > 70
    assert {s.temperature for s in nucleus} == {2.0}


def test_ranges_are_drawn_by_the_slot_and_the_seed():
    def drawn(seed, levels=1, rows=12, blocks=(0,)):
        ranged = [{"name": f"l{i}", "temperature": [0.0, 1.0 + i]} for i in range(levels)]
        return [s.temperature for s in slots_of(SamplingDial(levels=ranged, seed=seed), "l0", rows=rows, blocks=blocks)]

    assert drawn(0) == drawn(0, levels=3) == drawn(0, rows=20)[:12] == drawn(0, blocks=(0, 1))[:12]
    assert drawn(0) != drawn(1)
    assert len(set(drawn(0, blocks=(0, 1)))) == 24


# --- combined -------------------------------------------------------------------------------------
def test_combined_levels_are_pairs_ordered_by_their_ranks():
    dial = CombinedDial(topics(4, 1), SamplingDial(levels=[1.0, 0.2]))
    assert dial.name == "topics x sampling"
    assert [x.name for x in dial.levels] == ["1 x 0.2", "1 x 1", "4 x 0.2", "4 x 1"]
    assert dial.levels[3].key == "topics x sampling=4 x 1"
    some = CombinedDial(topics(4, 1), SamplingDial(levels=[1.0, 0.2]), levels=["4 x 1", "1 x 0.2"])
    assert [(x.name, x.rank) for x in some.levels] == [("1 x 0.2", 0), ("4 x 1", 1)]


@pytest.mark.parametrize("swap", [False, True])
def test_both_dials_settings_cross_and_keep_their_shares(swap):
    pair = (topics(4), AttributesDial(levels=[2], dimensions=TONES))
    dial = CombinedDial(*(pair[::-1] if swap else pair))
    slots = slots_of(dial, dial.levels[0].name, rows=16)
    assert set(Counter((s.topic, s.attributes) for s in slots).values()) == {2}
    assert len({(s.topic, s.attributes) for s in slots}) == 8


def test_rows_with_the_same_settings_of_both_are_shared_between_levels():
    dial = CombinedDial(topics(1, 2, 4), AttributesDial(levels=[1, 2], dimensions=TONES))
    batches = [dial.slots(x.name, LABELS, 0, 16) for x in dial.levels]
    slots = wanted_slots(dial, LABELS, blocks=(0,), rows_per_label=16, levels=[x.name for x in dial.levels])
    assert len(slots) <= sum(map(len, batches)) * 0.75
    content = {key: (s.label, s.topic, s.attributes, s.number) for key, s in slots.items()}
    for batch in batches:
        assert all(content[s.key] == (s.label, s.topic, s.attributes, s.number) for s in batch)


def test_paraphrases_stand_beside_what_the_other_dial_sets():
    dial = CombinedDial(SamplingDial(levels=[0.3]), ParaphraseDial(levels=[0, 2], sources=2))
    slots = dial.slots("0.3 x 2", ["alpha"], 0, 8)
    chosen = chosen_slots(slots)
    assert [s.order for s in chosen] == list(range(8))
    assert {s.temperature for s in slots} == {0.3}
    keys = {s.key: s for s in slots}
    made = [s for s in chosen if s.parent]
    assert len(made) == 4
    assert all(keys[s.parent].order in (0, 1) and keys[s.substitute].order == s.order for s in made)


def test_rounds_follow_the_rows_that_they_were_dealt_to():
    dial = CombinedDial(topics(2), TabooDial(levels=[2], read=2))
    slots = dial.slots("2 x 2", LABELS, 0, 8)
    first = {s.key for s in slots if s.avoid is None}
    later = [s for s in slots if s.avoid is not None]
    assert len(first) == len(later) == 8
    assert all(set(s.avoid.rounds[0]) <= first for s in later)
    assert Counter((s.label, s.topic) for s in later) == {(y, t): 2 for y in LABELS for t in TOPICS[y][:2]}


def test_three_dials_combine():
    inner = CombinedDial(topics(1, 2), SamplingDial(levels=[0.2, 1]))
    dial = CombinedDial(inner, AttributesDial(levels=[1, 2], dimensions=TONES))
    slots = slots_of(dial, "2 x 1 x 2", rows=8)
    assert {(s.topic, s.temperature, s.attributes) for s in slots} == {
        (t, 1.0, a) for t in TOPICS["alpha"][:2] for a in AttributesDial(levels=[2], dimensions=TONES).combinations
    }


# --- settings -------------------------------------------------------------------------------------
REFUSED = [
    (lambda: AttributesDial(levels=[7], dimensions=TONES), r"level 7 needs as many combinations, dimensions have 6"),
    (lambda: AttributesDial(levels=[1], dimensions={"tone": "dry"}), r"dimension 'tone' has values 'dry'; give a list"),
    (lambda: AttributesDial(levels=[1], dimensions={"tone": []}), r"dimension 'tone' has values \[\]"),
    (lambda: AttributesDial(levels=[1], dimensions={"a": ["x", "X "]}), r"none empty or repeated"),
    (lambda: AttributesDial(levels=[4], dimensions=TONES).check(LABELS, 3), r"'attributes': .* needs 4 rows"),
    (lambda: ExamplesDial(levels=[0]), r"'examples': level 0 must be a whole number, 1 or more"),
    (lambda: ExamplesDial(levels=[1], shown=0), r"'examples': shown 0 must be"),
    (lambda: ExamplesDial(levels=[20]).check(LABELS, 4), r"largest level needs 5 rows .* there are 4"),
    (lambda: TabooDial(levels=[4]).check(LABELS, 15), r"'taboo': its largest level needs 16 rows"),
    (lambda: TabooDial(levels=[2], words=0), r"'taboo': words 0 must be a whole number, 1 or more"),
    (lambda: TabooDial(levels=[2], read=1.5), r"'taboo': read 1.5 must be"),
    (lambda: SamplingDial(levels=[{"top_p": 0}]), r"top_p 0 must be a number above 0 and at most 1, or a range"),
    (lambda: SamplingDial(levels=[{"min_p": [0.5, 0.1]}]), r"min_p \[0.5, 0.1\] must be a number from 0 to 1"),
    (lambda: SamplingDial(levels=[{"temperature": [0, 1, 2]}]), r"temperature \[0, 1, 2\] must be"),
    (lambda: SamplingDial(levels=[{"topp": 1}]), r"must set some of temperature, top_p, min_p"),
    (lambda: SamplingDial(levels=[{"name": "x"}]), r"must set some of"),
    (lambda: SamplingDial(levels=[float("nan")]), r"temperature nan must be"),
    (lambda: BaseThenRefineDial(levels=[-1]), r"'base_then_refine': temperature -1 must be"),
    (
        lambda: CombinedDial(topics(1, 4), SamplingDial(levels=[1]), levels=["4 x 2"]),
        r"has no level '4 x 2'; did you mean '4 x 1'",
    ),
    (
        lambda: CombinedDial(SamplingDial(levels=[1]), SamplingDial(levels=[2])).check(LABELS, 4),
        r"'sampling x sampling': both its dials set temperature",
    ),
    (
        lambda: CombinedDial(ParaphraseDial(levels=[1]), ParaphraseDial(levels=[2])).check(LABELS, 8),
        r"both its dials set rows made of others",
    ),
    (lambda: TopicsDial(levels=[1], topics={"alpha": "tennis"}), r"'alpha' is 'tennis'; give a list of topics"),
    (lambda: make_dial("topic", {"levels": [1]}), r"unknown dial 'topic'; did you mean 'topics'"),
    (lambda: make_dial("combined", {"first": "topics", "second": {}}), r"first 'topics' must be a dial"),
    (lambda: make_dial("collections:Counter", {}), r"is <class 'coll.*; it must be a class with the methods of .*Dial"),
    (lambda: make_dial("math:pi", {"levels": [1]}), r"'math:pi' is 3.14.*; it must be a class"),
    (lambda: make_dial("math:nothing", {"levels": [1]}), r"'math:nothing' cannot be loaded"),
    (lambda: make_dial("topics", {"levels": [1], "topics": {"a": [1]}}), r"the topic 1, which is no text"),
]  # fmt: skip


@pytest.mark.parametrize(("build", "message"), REFUSED)
@pytest.mark.trust("collections", "math")
def test_wrong_settings_are_refused_with_dial_setting_and_choices(build, message):
    with pytest.raises(ConfigError, match=message):
        build()
