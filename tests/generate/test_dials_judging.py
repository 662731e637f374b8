"""How the judge settles rounds and drafts, without an LLM: answers are given by hand."""

import itertools

import pytest

from cuvee.errors import ConfigError
from cuvee.generate.calls import Answer
from cuvee.generate.dials import BaseThenRefineDial, CombinedDial, ParaphraseDial, Slot, TabooDial
from cuvee.generate.dials.slots import Avoid, Draft
from cuvee.generate.filling import AcceptanceFilter, AcceptanceRules, Filling, settling_waves
from cuvee.generate.prompts import PromptWriter, WritingSpec

LABELS = ("alpha", "beta")


def make_judge(train, slots, attempts=3):
    writer = PromptWriter(train, WritingSpec(describe="texts", seed=1), "completions")
    judge = AcceptanceFilter(train=train, writer=writer, rules=AcceptanceRules(attempts=attempts))
    judge.check_slots(slots)
    return Filling(slots, judge)


def reasons(filling, key):
    return [made.reason for made in filling.attempts[key] if made.reason is not None]


def slots_of(dial, rows=8):
    (level,) = dial.levels
    return dial.slots(level.name, LABELS, 0, rows)


def settle(judge, text):
    """Answer all questions until there are none; what was asked in each round, by slot."""
    rounds = []
    while questions := judge.open_questions():
        rounds.append(questions)
        judge.give({key: (q, Answer(text=text(key, q), finish_reason="stop")) for key, q in questions.items()})
    return rounds


def test_waves_put_rounds_in_their_order_and_paraphrases_last():
    dial = CombinedDial(TabooDial(levels=[3], read=2), ParaphraseDial(levels=[1], sources=2))
    waves = settling_waves(slots_of(dial))
    assert [len(wave) for wave in waves] == [6, 6, 4, 4]
    assert [{(len(s.avoid.rounds) if s.avoid else 0, s.parent is not None) for s in wave} for wave in waves] == [
        {(0, False)}, {(1, False)}, {(2, False)}, {(0, True)},
    ]  # fmt: skip


def test_a_round_is_asked_for_when_the_one_before_is_settled(train):
    judge = make_judge(train, slots_of(TabooDial(levels=[2], read=2, words=2)))
    counter = itertools.count()
    rounds = settle(judge, lambda key, _q: "" if next(counter) == 0 else f"zebra mango {key}")
    assert [len(asked) for asked in rounds[:3]] == [8, 1, 8]
    first, later = rounds[0], rounds[2]
    assert {q.avoided for q in first.values()} == {()}
    assert {q.avoided for q in later.values()} == {("mango", "zebra")}
    assert all(len(asked) <= 8 for asked in rounds)
    # answers with a forbidden word are used up: the first round alone has rows
    assert len(judge.rows) == 8
    assert sum(reasons(judge, key).count("uses a word to avoid") for key in judge.slots) == 8 * 3


def test_rounds_go_on_without_slots_that_failed(train):
    slots = slots_of(TabooDial(levels=[4], read=2))
    gone = {slots[0].key, slots[4].key}
    judge = make_judge(train, [slot for slot in slots if slot.key not in gone])
    texts = (f"{a}{b}{c} {b}{c}{a}{a}" for a, b, c in itertools.product(*["bcdfg" * 1, "aeiou", "klmnp"]))
    rounds = settle(judge, lambda _key, _q: next(texts))
    assert len(rounds) >= 4
    assert set(judge.rows) == {slot.key for slot in slots} - gone


def test_rows_tell_their_draft_and_the_words_they_avoided(train):
    dial = CombinedDial(TabooDial(levels=[2], read=2, words=1), BaseThenRefineDial(levels=[1]))
    texts = (f"{a}{b}{c} {b}{c}{a}{a}" for a, b, c in itertools.product("bcdfg", "aeiou", "klmnp"))

    def text(_key, question):
        return f"{question.source} indeed" if question.step == "refinement" else next(texts)

    judge = make_judge(train, slots_of(dial))
    rounds = settle(judge, text)
    kinds = [{q.step for q in asked.values()} for asked in rounds]
    assert kinds == [{"draft"}, {"refinement"}, {"draft"}, {"refinement"}]
    assert all(row.text == f"{row.question.source} indeed" for row in judge.rows.values())
    assert {len(row.question.avoided) for row in judge.rows.values()} == {0, 1}


def test_an_unchanged_draft_is_a_fine_refinement_but_not_a_second_time(train):
    slots = [
        Slot(key=f"s{i}", label="alpha", block=0, draft=Draft(temperature=2.0), number=i, order=i) for i in range(2)
    ]
    judge = make_judge(train, slots, attempts=2)
    rounds = settle(judge, lambda _key, q: q.source or "the same draft")
    assert [list(asked) for asked in rounds] == [["s0", "s1"], ["s0", "s1"], ["s1"], ["s1"]]
    assert [row.text for row in judge.rows.values()] == ["the same draft"]
    assert reasons(judge, "s1") == ["a draft", "duplicate"] * 2
    assert reasons(judge, "s0") == ["a draft"]


def test_attempts_do_not_count_usable_drafts_but_the_useless_ones(train):
    slot = Slot(key="s", label="alpha", block=0, draft=Draft(temperature=2.0), number=0, order=0)
    judge = make_judge(train, [slot], attempts=4)
    drafts = iter(["", "draft one", "draft two", "draft three"])
    rounds = settle(judge, lambda _key, q: "" if q.step == "refinement" else next(drafts))
    kinds = [q.step for asked in rounds for q in asked.values()]
    assert kinds == ["draft", *["draft", "refinement"] * 3]
    assert [q.request.replicate for asked in rounds for q in asked.values()] == list(range(7))


def test_wanted_examples_must_be_there(train):
    places = Slot(key="s", label="alpha", block=0, examples=(0, 6), number=0, order=0)
    with pytest.raises(ConfigError, match=r"7 seed examples are wanted of label 'alpha', it has 6 training rows"):
        make_judge(train, [places])
    avoiding = Slot(key="s", label="alpha", block=0, avoid=Avoid(rounds=(("x",),), words=1), number=0, order=0)
    assert settle(make_judge(train, [avoiding]), lambda _key, _q: "some words")[0]["s"].avoided == ()
