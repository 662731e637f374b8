"""Trees of topics: their leaves spread from the top, their shape honoured or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import ConfigError
from cuvee.generate.dials import TopicsDial, wanted_slots
from cuvee.generate.dials.contents import list_leaves

SPORT = {"tennis": ["Wimbledon", "umpires"], "football": ["cups", "transfers", "stadiums"], "golf": []}


def test_leaves_take_the_branches_in_turn_and_are_named_by_their_path():
    assert list_leaves(SPORT) == (
        "tennis: Wimbledon", "football: cups", "golf", "tennis: umpires", "football: transfers", "football: stadiums",
    )  # fmt: skip
    deep = {a: {b: [f"{b}{i}" for i in range(2)] for b in (f"{a}x", f"{a}y")} for a in ("p", "q")}
    assert list_leaves(deep) == (
        "p: px: px0", "q: qx: qx0", "p: py: py0", "q: qy: qy0", "p: px: px1", "q: qx: qx1", "p: py: py1", "q: qy: qy1",
    )  # fmt: skip
    assert list_leaves(["a  b", "c"]) == ("a b", "c")
    assert list_leaves({}) == ()


def full_tree(degree, name="t"):
    topics = [f"{name}{i}" for i in range(degree[0])]
    return topics if len(degree) == 1 else {topic: full_tree(degree[1:], topic) for topic in topics}


@given(degree=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_every_prefix_of_the_leaves_of_a_full_tree_is_spread_as_far_as_can_be(degree):
    tree = full_tree(degree)
    leaves = [leaf.split(": ") for leaf in list_leaves(tree)]
    assert len({tuple(path) for path in leaves}) == len(leaves)
    for depth in range(1, len(degree) + 1):
        counts = dict.fromkeys((tuple(path[:depth]) for path in leaves), 0)
        for path in leaves:
            counts[tuple(path[:depth])] += 1
            # no branch gets a second leaf before every branch beside it has its first
            assert max(counts.values()) - min(counts.values()) <= 1
    smaller = [*degree[:-1], max(1, degree[-1] - 1)]
    fewer = list_leaves(full_tree(smaller))
    assert list_leaves(tree)[: len(fewer)] == fewer


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": "b"}, "label 'x'.a is 'b'; give a list of topics"),
        ({"a": {"b": ["c", "C "]}}, "a.b has an empty or repeated topic"),
        ({"a": ["b"], "a: b": []}, "repeated topic"),
        ({"a": 3}, "is 3; give a list"),
    ],
)
def test_what_is_no_tree_is_refused(tree, message):
    with pytest.raises(ConfigError, match=message):
        TopicsDial(levels=[1], topics={"x": tree})


def test_levels_of_a_tree_nest_and_spread_over_the_top():
    dial = TopicsDial(levels=[1, 3, 6], topics={"x": SPORT})

    def topics(level):
        return {slot.topic for slot in dial.slots(level, ["x"], 0, 6)}

    asked = {level: topics(level) for level in ("1", "3", "6")}
    assert asked["1"] < asked["3"] < asked["6"]
    assert asked["3"] == {"tennis: Wimbledon", "football: cups", "golf"}
    with pytest.raises(ConfigError, match="'x' has 6 topics, level 7 needs as many"):
        TopicsDial(levels=[7], topics={"x": SPORT})


def test_one_list_serves_every_label():
    dial = TopicsDial(levels=[2], topics=["home", "work"])
    slots = wanted_slots(dial, ["x", "y"], blocks=[0], rows_per_label=2, levels=["2"]).values()
    assert {(s.label, s.topic) for s in slots} == {(y, t) for y in "xy" for t in ("home", "work")}
    tree = TopicsDial(levels=[2], topics={"any": SPORT, "x": ["home", "work"]})
    slots = tree.slots("2", ["x", "y"], 0, 2)
    assert {s.topic for s in slots if s.label == "y"} == {"tennis: Wimbledon", "football: cups"}
    assert {s.topic for s in slots if s.label == "x"} == {"home", "work"}
    with pytest.raises(ConfigError, match="label 'any' has 2 topics, level 3"):
        TopicsDial(levels=[3], topics=["home", "work"])
