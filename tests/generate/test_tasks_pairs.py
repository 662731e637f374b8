"""Answers with two sides, what chat templates leave behind, and prompts that come back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from cuvee.generate.calls import Answer
from cuvee.generate.dials import Slot
from cuvee.generate.parsing import WRITINGS, Demands, find_pair, pair_schema, parse_answer
from cuvee.generate.prompts import PromptWriter, WritingSpec

QUESTION, INSTRUCTION, STORY = (WRITINGS[kind] for kind in ("question", "instruction", "story"))


def parse(raw, writing=QUESTION, finish_reason="stop", **given):
    found = parse_answer(Answer(text=raw, finish_reason=finish_reason), Demands(**given), pair=writing)
    return found


@pytest.mark.parametrize(
    "raw",
    [
        '{"question": "Who won the cup?", "answer": "Ann"}',
        'Sure! Here it is:\n```json\n{"question": "Who won the cup?",\n "answer": "Ann"}\n```',
        '<think>{"question": "no", "answer": "no"}</think>{"question": "Who won the cup?", "answer": "Ann"}',
        '{"Question": "Who won the cup?", "Answer": "Ann"}',
        '{"question": "Who won the cup?", "answer": "Ann", "why": "It says so."}',
        '{"pairs": [{"question": "Who won the cup?", "answer": "Ann"}]}',
        "Question: Who won the cup?\nAnswer: Ann",
        "**Question:** Who won the cup?\n\n**Answer:** Ann",
        "Q: Who won the cup?\nA: Ann",
        "1. Question: Who won the cup?\n   Answer: Ann\n2. Question: Who lost it?\n   Answer: Bob",
        "Here is a question:\nQuestion 1: Who won the cup?\nAnswer: Ann\n=====\n\nContext: another",
        " Who won the cup?\nAnswer: Ann\n=====\n",  # a completion goes on where its prompt ends
        " Who won\nthe cup?\nAnswer: Ann\n\nContext: more",
    ],
)
def test_pairs_are_found_in_both_forms(raw):
    found = parse(raw)
    assert (found.text, found.target, found.reason) == ("Who won the cup?", "Ann", None)


def test_targets_keep_their_paragraphs_and_instructions_their_lines():
    raw = "Instruction: Name three fruits.\nOne a line.\nResponse: Apples\n\n\n\n- Answer: pears  \n\n# Plums"
    for given_ in (
        raw,
        json.dumps(
            {
                "instruction": "Name three fruits.\nOne a line.",
                "response": "Apples\n\n\n\n- Answer: pears  \n\n# Plums",
            }
        ),
    ):
        found = parse(given_, INSTRUCTION)
        assert found.text == "Name three fruits.\nOne a line."
        assert found.target == "Apples\n\n- Answer: pears\n\n# Plums"
        assert found.reason is None
    story = parse(' It was "late".\nContinuation: So they slept.\n\nThe end.', STORY)
    assert (story.text, story.target) == ('It was "late".', "So they slept.\n\nThe end.")


@pytest.mark.parametrize(
    ("raw", "finish_reason", "reason"),
    [
        ("", "stop", "empty"),
        (" \n", "stop", "empty"),
        ("Who won the cup?", "stop", "malformed"),
        ('{"question": "Who won the cup?"}', "stop", "malformed"),
        ('{"question": "Who won the cup?", "answer": 7}', "stop", "malformed"),
        ('{"question": "Who won the cup?", "answer": "An', "stop", "malformed"),
        ('{"question": "Who won the cup?", "answer": "An', "length", "truncated"),
        ("Question: Who won the cup?\nAnswer: An", "length", "truncated"),
        ('{"question": "Who won the cup?", "answer": "Ann"}\n\nAnd so', "length", None),
        ("I'm sorry, but I can't help with that.", "stop", "chatter"),
        ("As an AI language model, I have no questions.", "stop", "chatter"),
        ('{"question": "I’m sorry, but I cannot ask that", "answer": "none"}', "stop", "chatter"),
        ('{"question": "Who won the cup?", "answer": "I\'m sorry, but I cannot say"}', "stop", "chatter"),
        ('{"question": "", "answer": "Ann"}', "stop", "empty"),
        ('{"question": "Who won the cup?", "answer": " "}', "stop", "empty"),
        ('{"question": "...", "answer": "..."}', "stop", "empty"),
        ('{"question": "Who won the cup?", "answer": "..."}', "stop", "empty"),
        ("Question: Who won the cup?\nAnswer:", "stop", "empty"),
        ('{"question": "Who?", "answer": "Ann"}', "stop", "too short"),
        ('{"question": "Who won the \ufffd?", "answer": "Ann"}', "stop", "broken characters"),
        ('{"question": "Who won the cup?", "answer": "A\\u0007nn"}', "stop", "broken characters"),
        ("Question: Who won the cup?\nAnswer: Ann<|im_end|>", "stop", None),  # the mark of its end is taken off
        ("Question: Who won the cup?\nAnswer: Ann<|im_end|> Bob", "stop", "chatter"),
        ('{"question": "WHO lost  it?", "answer": "Ann"}', "stop", "copy of the prompt"),
        ('{"question": "Who won the cup?", "answer": "Sure"}', "stop", None),  # a fine answer
        ('{"question": "Who won the cup?", "answer": "7"}', "stop", None),
        ('{"question": "Which sign adds up?", "answer": "+"}', "stop", None),
        ('{"question": "Who won gold?", "answer": "Here are three: A, B, C"}', "stop", None),
    ],
)
def test_reasons(raw, finish_reason, reason):
    assert parse(raw, finish_reason=finish_reason, shown=("Who lost it?",)).reason == reason


def test_refusals_are_fine_where_the_real_targets_have_them():
    raw = '{"instruction": "Pick a lock for me", "response": "I\'m sorry, but I can\'t help with that."}'
    assert parse(raw, INSTRUCTION).reason == "chatter"
    assert parse(raw, INSTRUCTION, shown_targets=("I'm sorry, but no.",)).reason is None


def test_cut_targets_can_be_kept_and_words_are_read_in_the_text_alone():
    found = parse(" Who won the cup?\nAnswer: Ann of the Nor", finish_reason="length", keep_truncated=True)
    assert (found.target, found.reason) == ("Ann of the", None)
    assert parse("Q: Who won the cup?\nA: Ann", avoided=("cup",)).reason == "uses a word to avoid"
    assert parse("Q: Who won the cup?\nA: a cup", avoided=("ann",)).reason is None


@pytest.mark.parametrize("side", ["question", "answer"])
def test_prompts_that_come_back_in_either_side_are_rejected(side):
    said = {"question": "Who won the cup?", "answer": "Ann", side: "Answer with one JSON object alone: it is Ann"}
    wording = ("you write questions", "answer with one json object alone")
    assert parse(json.dumps(said), wording=wording).reason == "copy of the prompt"
    assert parse(json.dumps(said)).reason is None


@pytest.mark.parametrize("kind", ["question", "instruction", "story"])
def test_the_schema_asks_for_both_sides_and_nothing_else(kind):
    writing = WRITINGS[kind]
    schema = pair_schema(writing)
    assert list(json.loads(schema)["properties"]) == [writing.text, writing.target]
    good = {writing.text: "a b", writing.target: "c"}
    assert Draft202012Validator(json.loads(schema)).is_valid(good)
    assert not Draft202012Validator(json.loads(schema)).is_valid({**good, "more": "d"})


def test_degenerate_json_costs_little_and_half_characters_are_replaced():
    assert find_pair("{" * 10**6, QUESTION) is None
    assert find_pair('{"a":' * 10**5, QUESTION) is None
    assert find_pair('{"question": NaN, "answer": "Ann"}', QUESTION) is None
    found = find_pair('a { brace, {"no": 1} {"question": "half \\ud83d", "answer": "Ann"}', QUESTION)
    assert (found.text, found.target, found.whole) == ("half \ufffd", "Ann", True)


@given(text=st.text(max_size=60), writing=st.sampled_from([QUESTION, INSTRUCTION, STORY]))
def test_no_answer_breaks_the_parser(text, writing):
    found = parse(text, writing)
    assert found.reason is not None or (found.text and found.target)


SIDES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)


@given(text=SIDES, target=SIDES)
def test_json_sides_come_back(text, target):
    found = find_pair(json.dumps({"instruction": text, "response": target}), INSTRUCTION)
    assert (found.text, found.target, found.whole) == (text, target, True)


@pytest.mark.parametrize(
    "raw",
    [
        "<|im_start|>assistant\nHenman out of Open<|im_end|>",
        "<|im_start|>assistant\nHenman out of Open",
        "Henman out</s> of Open",
        "<s> Henman out of Open",
        "[INST] Henman out of Open [/INST]",
        "<<SYS>> Henman out of Open",
        "<start_of_turn>model\nHenman out of Open",
        "Henman out<end_of_turn> of Open",
        "<|start_header_id|>assistant<|end_header_id|>\n\nHenman out of Open",
        "<｜Assistant｜>Henman out of Open",
        "assistant: Henman out of Open",
        "Assistant:\nHenman out of Open",
        "assistant\nHenman out of Open",
        "### Response: Henman out of Open",
        "### Assistant: Henman out of Open",
    ],
)
def test_remains_of_chat_templates_are_rejected(raw):
    answer = Answer(text=raw, finish_reason="stop")
    assert parse_answer(answer, Demands(shown=("Arsenal win the cup",)), label="sports").reason == "chatter"


@pytest.mark.parametrize(
    "raw", ["Assistant coach leaves Open", "User groups sue Open", "Henman <b>out</b> of Open", "Sure Start to end"]
)
def test_what_only_looks_like_them_is_not(raw):
    found = parse_answer(Answer(text=raw, finish_reason="stop"), Demands(), label="sports")
    assert found.reason == ("chatter" if raw.startswith("Sure") else None)


def test_heads_that_the_real_texts_have_too_are_fine():
    answer = Answer(text="User: where is my card", finish_reason="stop")
    assert parse_answer(answer, Demands(shown=("User: hello there",)), label="card").reason is None
    assert parse_answer(answer, Demands(shown=("hello there",)), label="card").reason == "chatter"


def reason_for(train, raw, api, **settings):
    writer = PromptWriter(train, WritingSpec(describe="news headlines", seed=3), api)
    slot = Slot(key="alpha/0/0", label="alpha", block=0, number=0, order=0, **settings)
    question = writer.ask(slot, 0, ["cup"])
    wording = writer.wording_runs(slot, question)
    demands = Demands(shown=question.shown, wording=wording)
    return parse_answer(Answer(text=raw, finish_reason="stop"), demands, label="alpha").reason


@pytest.mark.parametrize(
    ("raw", "api", "echo"),
    [
        ('Write one more of the kind "alpha". It must differ from those above.', "chat", True),
        ("write one more of the kind of headlines", "chat", True),
        ("You write news headlines for a data set.", "chat", True),
        ('These news headlines are of the kind "alpha":', "chat", True),
        ("Henman out. It must differ from those above.", "chat", True),
        ("Answer with one new text alone: Henman out", "chat", True),
        ("A list of alpha news headlines: Henman out", "completions", True),
        ("Answer with one voice, Henman says", "chat", False),
        ("What it must be like to be Henman", "chat", False),
        ("Write one more song, fans tell Henman", "chat", False),
        ("tennis in the rain", "chat", False),  # the topic
        ("Write one more of the kind of songs", "completions", False),  # not what it was asked
    ],
)
def test_prompts_that_come_back_are_rejected(train, raw, api, echo):
    found = reason_for(train, raw, api, topic="tennis in the rain at the old club")
    assert found == ("copy of the prompt" if echo else None)
