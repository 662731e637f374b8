from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.errors import ConfigError
from cuvee.generate.dials import (
    DIALS,
    Dial,
    ParaphraseDial,
    SamplingDial,
    TopicsDial,
    chosen_slots,
    make_dial,
    wanted_slots,
)

LABELS = ("alpha", "beta/1")
TOPICS = {label: [f"{label} topic {j}" for j in range(8)] for label in LABELS}
MADE = {
    "topics": {"levels": [4, 1, 2, 8], "topics": TOPICS},
    "paraphrase": {"levels": [0, 5, 1, 3], "sources": 2},
    "sampling": {"levels": [1.4, 0.2, 2, 0.7]},
    "attributes": {"levels": [6, 1, 2, 12], "dimensions": {"tone": ["dry", "warm"], "length": list("abcdef")}},
    "examples": {"levels": [2, 8, 1, 6], "shown": 2},
    "taboo": {"levels": [4, 1, 2, 3], "read": 2},
    "base_then_refine": {"levels": [2, 1.2, 0.2, 0.7]},
    "combined": {
        "first": {"name": "topics", "levels": [4, 1], "topics": TOPICS},
        "second": {"name": "sampling", "levels": [1.0, 0.2]},
    },
}
NAMES = {"combined": "topics x sampling"}


def make(name: str) -> Dial:
    return make_dial(name, MADE[name])


def composed(dial: Dial, level: str, *, blocks=(0, 1), rows=12) -> list:
    return [slot for block in blocks for slot in chosen_slots(dial.slots(level, LABELS, block, rows))]


@pytest.mark.parametrize("name", sorted(DIALS))
def test_every_dial_keeps_the_contract(name):
    dial = make(name)
    assert isinstance(dial, Dial)
    assert dial.name == NAMES.get(name, name)
    assert [x.rank for x in dial.levels] == list(range(4))
    assert len({x.name for x in dial.levels}) == 4
    assert {x.dial for x in dial.levels} == {dial.name}
    for level, block in product(dial.levels, (0, 1)):
        slots = dial.slots(level.name, LABELS, block, 12)
        assert len({s.key for s in slots}) == len(slots)
        seen = set()
        for slot in slots:
            assert slot.block == block
            assert slot.parent is None or slot.parent in seen
            assert slot.substitute is None or slot.substitute in seen
            assert slot.avoid is None or {key for keys in slot.avoid.rounds for key in keys} <= seen
            seen.add(slot.key)
    for level in dial.levels:
        slots = composed(dial, level.name)
        places = [(s.block, s.label, s.order) for s in slots]
        assert sorted(places) == [(b, y, i) for b in (0, 1) for y in sorted(LABELS) for i in range(12)]
        assert len({s.key for s in slots}) == len(slots)
        blocks_of = [{s.key for s in slots if s.block == b} for b in (0, 1)]
        assert not blocks_of[0] & blocks_of[1]


@pytest.mark.parametrize("name", sorted(set(DIALS) - {"combined"}))
def test_a_level_asks_for_the_same_rows_whatever_other_levels_are_there(name):
    for level in make(name).levels:
        given = next(x for x in MADE[name]["levels"] if f"{x:g}" == level.name)
        alone = make_dial(name, {**MADE[name], "levels": [given]})
        assert alone.slots(level.name, LABELS, 1, 12) == make(name).slots(level.name, LABELS, 1, 12)


def test_expected_order_of_levels():
    assert [x.name for x in make("topics").levels] == ["1", "2", "4", "8"]
    assert [x.name for x in make("paraphrase").levels] == ["5", "3", "1", "0"]
    assert [x.name for x in make("sampling").levels] == ["0.2", "0.7", "1.4", "2"]
    assert make("topics").levels[0].key == "topics=1"


@settings(max_examples=40)
@given(rows=st.integers(8, 40), counts=st.sets(st.integers(1, 8), min_size=2))
def test_topics_are_nested_and_shared_out_evenly(rows, counts):
    dial = TopicsDial(levels=sorted(counts), topics=TOPICS)
    chosen = {}
    for k in counts:
        slots = [s for s in composed(dial, str(k), rows=rows, blocks=(3,)) if s.label == "alpha"]
        shares = {t: sum(s.topic == t for s in slots) for t in TOPICS["alpha"]}
        assert list(shares.values())[:k] == [rows // k + (j < rows % k) for j in range(k)]
        assert sum(list(shares.values())[k:]) == 0
        chosen[k] = {t: {s.key for s in slots if s.topic == t} for t in TOPICS["alpha"]}
    small, large = min(counts), max(counts)
    for topic in TOPICS["alpha"][:small]:
        assert chosen[large][topic] <= chosen[small][topic]


def test_topics_ask_for_less_than_all_levels_apart():
    dial = make("topics")
    names = [x.name for x in dial.levels]
    slots = wanted_slots(dial, LABELS, blocks=(0,), rows_per_label=16, levels=names)
    assert len(slots) == 2 * (16 + 8 + 4 * 2 + 2 * 4)  # topic 0, topic 1, topics 2-3, topics 4-7


@settings(max_examples=40)
@given(sources=st.integers(1, 3), counts=st.sets(st.integers(0, 6), min_size=2), spare=st.integers(0, 5))
def test_paraphrases_are_nested_and_replace_the_last_rows(sources, counts, spare):
    rows = sources * (1 + max(counts)) + spare
    dial = ParaphraseDial(levels=sorted(counts), sources=sources)
    by_level = {}
    for m in counts:
        slots = [s for s in composed(dial, str(m), rows=rows, blocks=(0,)) if s.label == "alpha"]
        made = [s for s in slots if s.parent is not None]
        assert len(slots) == rows
        assert len(made) == m * sources
        assert [s.order for s in made] == list(range(rows - m * sources, rows))
        first = [s.key for s in slots[:sources]]
        assert sorted({s.parent for s in made}) == (sorted(first) if m else [])
        assert all(sum(s.parent == key for s in made) == m for key in first)
        by_level[m] = {s.key for s in made}
    assert by_level[min(counts)] <= by_level[max(counts)]


def test_paraphrase_level_is_the_plain_base_at_zero_and_shares_the_base_otherwise():
    dial = make("paraphrase")
    plain = composed(dial, "0")
    assert all(s.parent is None for s in plain)
    kept = {s.key for s in composed(dial, "5") if s.parent is None}
    assert kept < {s.key for s in plain}
    replaced = {s.substitute for s in composed(dial, "5") if s.parent is not None}
    assert replaced | kept == {s.key for s in plain}


def test_sampling_levels_share_nothing_but_the_seed_examples():
    dial = make("sampling")
    cold, hot = composed(dial, "0.2"), composed(dial, "2")
    assert {s.temperature for s in cold} == {0.2}
    assert {s.temperature for s in hot} == {2.0}
    assert not {s.key for s in cold} & {s.key for s in hot}
    assert [(s.label, s.block, s.number) for s in cold] == [(s.label, s.block, s.number) for s in hot]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TopicsDial(levels=[1, 9], topics=TOPICS), r"'alpha' has 8 topics, level 9 needs as many"),
        (lambda: TopicsDial(levels=[1], topics=TOPICS).check(["gamma"], 9), r"has none for label 'gamma'"),
        (lambda: TopicsDial(levels=[8], topics=TOPICS).check(LABELS, 7), r"largest level needs 8 rows"),
        (lambda: TopicsDial(levels=[1], topics={"a": ["x", "X "]}), r"'a' has an empty or repeated topic"),
        (lambda: TopicsDial(levels=[0], topics=TOPICS), r"level 0 must be a whole number, 1 or more"),
        (lambda: TopicsDial(levels=[1.5], topics=TOPICS), r"level 1.5 must be a whole number"),
        (lambda: TopicsDial(levels=[], topics=TOPICS), r"needs at least one level"),
        (lambda: ParaphraseDial(levels=[5], sources=2).check(LABELS, 11), r"needs 12 rows .*there are 11"),
        (lambda: ParaphraseDial(levels=[1], sources=0), r"sources 0 must be a whole number, 1 or more"),
        (lambda: ParaphraseDial(levels=[-1]), r"level -1 must be"),
        (lambda: SamplingDial(levels=[0.7, 0.7]), r"level 0.7 twice"),
        (lambda: SamplingDial(levels=[-0.1]), r"temperature -0.1 must be a number from 0 to 100"),
        (lambda: make_dial("topic", {"levels": [1]}), r"did you mean 'topics'"),
    ],
)  # fmt: skip
def test_bad_dials_are_refused_with_the_remedy(build, message):
    with pytest.raises(ConfigError, match=message):
        build()
