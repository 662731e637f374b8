"""Several rows in one request: each has its slot, what is missing is asked for alone, one answer is one group."""

import re

import pytest

from cuvee.errors import ConfigError
from cuvee.generate.calls import Answer, Sampling
from cuvee.generate.client import OpenedLLM
from cuvee.generate.dials import CombinedDial, SamplingDial, TopicsDial
from cuvee.generate.ledger import Ledger
from cuvee.generate.parsing import pick_row
from cuvee.generate.pools import GenerationSpec, count_rejected, generate_pools
from cuvee.generate.prompts import load_prompts

NUMBERS = "one two three four five six seven eight nine ten".split()


def generate(train, llm, dial, ledger=None, rows=6, api="chat", **settings):
    spec = GenerationSpec(rows_per_label=rows, sampling=Sampling(max_tokens=10), **settings)
    with Ledger() as own:
        return generate_pools(train, spec, dial, OpenedLLM(endpoint=llm.endpoint(api=api)), ledger or own)


def listed(rows, first=1):
    """``text(body)``: as many numbered rows as ``rows`` says for a request of several, one row for a request of one."""

    def text(body):
        asked = body["messages"][1]["content"] if "messages" in body else body["prompt"]
        name = f"{body['seed']} {body['temperature']:g}"
        if "numbered list" not in str(body.get("messages")) and "messages" in body:
            return f"alone {name}"
        count = rows(asked)
        return "\n".join(f"{first + i}. row {NUMBERS[i]} of {name}" for i in range(count))

    return text


def test_each_request_asks_for_several_rows_which_are_one_group(train, llm):
    llm.text = listed(lambda _: 3)
    (pool,) = generate(train, llm, SamplingDial(levels=[0.5]), rows_per_request=3)
    assert len(llm.bodies) == 4  # two labels, six rows each, three in a request
    assert {body["max_tokens"] for body in llm.bodies} == {3 * 14}
    assert len(pool.corpus) == 12
    assert len(set(pool.corpus.texts)) == 12
    groups = pool.corpus.table.column("group").to_pylist()
    texts = dict(zip(pool.corpus.texts, groups, strict=True))
    assert len(set(groups)) == 4
    for text, group in texts.items():
        assert texts[re.sub("row .* of", "row one of", text)] == group
    one = generate(train, llm, SamplingDial(levels=[0.5]))[0]
    assert set(one.corpus.table.column("group").to_pylist()) == {None}


def test_what_an_answer_lacks_is_counted_and_asked_for_alone(train, llm):
    llm.text = listed(lambda _: 2)
    (pool,) = generate(train, llm, SamplingDial(levels=[0.5]), rows_per_request=3)
    assert len(pool.corpus) == 12
    assert count_rejected(pool.rejected) == {"missing in an answer of several": 4}
    assert sum(text.startswith("alone") for text in pool.corpus.texts) == 4
    assert len(llm.bodies) == 8
    llm.text = listed(lambda _: 7)
    (more,) = generate(train, llm, SamplingDial(levels=[0.5]), rows_per_request=3, seed=1)
    assert len(more.corpus) == 12
    assert not more.rejected


def test_a_completion_goes_on_with_the_list(train, llm):
    llm.text = lambda body: f" first of {body['seed']}\n6. second of {body['seed']}"
    (pool,) = generate(train, llm, SamplingDial(levels=[0.5]), api="completions", rows=2, rows_per_request=2)
    assert len(pool.corpus) == 4
    assert {tuple(body["stop"]) for body in llm.bodies} == {("\n7.",)}
    assert sum(text.startswith("first") for text in pool.corpus.texts) == 2
    llm.text = lambda body: f" first of {body['seed']}\n2. second of {body['seed']}"
    topics = {"alpha": ["sun"], "beta": ["sea"]}
    generate(train, llm, TopicsDial(levels=[1], topics=topics), api="completions", rows=2, rows_per_request=2)
    assert llm.bodies[-1]["stop"] == ["\n3."]
    assert "2 more" in llm.bodies[-1]["prompt"]


def test_more_rows_and_more_levels_change_no_row(train, llm):
    llm.text = listed(lambda _: 4)
    topics = {label: ["sun", "sea", "sand", "salt"] for label in train.labels}
    few = generate(train, llm, TopicsDial(levels=[1, 2], topics=topics), rows=8, rows_per_request=4)
    with Ledger() as ledger:
        many = generate(train, llm, TopicsDial(levels=[1, 2, 4], topics=topics), ledger, rows=12, rows_per_request=4)
        asked = len(llm.bodies)
        again = generate(train, llm, TopicsDial(levels=[1, 2, 4], topics=topics), ledger, rows=12, rows_per_request=4)
        assert len(llm.bodies) == asked
    for one, other, third in zip(few, many, again, strict=False):
        assert set(one.corpus.texts) <= set(other.corpus.texts)
        assert other.corpus.ids == third.corpus.ids


def test_rows_with_other_settings_are_not_asked_for_together(train, llm):
    llm.text = listed(lambda _: 2)
    topics = {label: ["sun", "sea"] for label in train.labels}
    dial = CombinedDial(TopicsDial(levels=[2], topics=topics), SamplingDial(levels=[0.5, 0.9]))
    pools = generate(train, llm, dial, rows=4, rows_per_request=2)
    assert [len(pool.corpus) for pool in pools] == [8, 8]
    assert len(llm.bodies) == 2 * 2 * 2  # labels, topics, temperatures
    assert all(pool.level.name.rpartition(" ")[2] in text for pool in pools for text in pool.corpus.texts)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('```json\n{"examples": ["a b", "c d", "e f"]}\n```', ["a b", "c d", "e f"]),
        ("Here are three:\n1. a b\n2. c d\n3. e f", ["a b", "c d", "e f"]),
        (" a b\n6. c d\n7. e f", ["a b", "c d", "e f"]),
        ("1) a b\n\n2) c d", ["a b", "c d"]),
        ('["a b", "c d"]', ["a b", "c d"]),
        ('```json\n[{"text": "a b"}, {"text": "c d"}]\n```', ['{"text": "a b"}', '{"text": "c d"}']),
        ("a b\n\nc d", ["a b", "c d"]),
        ("Sure:\n- a b\n- c d", ["- a b", "- c d"]),
        ("<think>1. x</think>1. a b\n2. c\nd", ["a b", "c\nd"]),
        ("1. in 2024.\n3. is no head\n2. c d", ["in 2024.\n3. is no head", "c d"]),
    ],
)
def test_answers_of_several_rows(text, rows):
    found = [pick_row(Answer(text=text, finish_reason="length"), i) for i in range(len(rows) + 1)]
    assert [row.text.strip() for row in found[:-1]] == rows
    assert found[-1] is None
    assert [row.finish_reason for row in found[:-1]] == ["stop"] * (len(rows) - 1) + ["length"]


def test_a_wording_that_does_not_say_how_many_is_refused(train, llm, tmp_path):
    built_in = load_prompts().file("label_chat_user").source
    (tmp_path / "label_chat_user.jinja").write_text(built_in.replace("count", "1"))
    system = load_prompts().file("label_chat_system").source
    (tmp_path / "label_chat_system.jinja").write_text(system.replace("count", "1"))
    prompts = load_prompts(tmp_path)
    with pytest.raises(ConfigError, match=r"label_chat_user.jinja: rows_per_request 3 needs {{ count }} in it"):
        generate(train, llm, SamplingDial(levels=[0.5]), rows_per_request=3, prompts=prompts)
