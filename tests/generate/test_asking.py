"""Lists asked from the LLM: nested, journalled, in the same order, refused when they stay short."""

import asyncio
import json

import pytest
from aiohttp import web

from cuvee.errors import ConfigError, EndpointError
from cuvee.generate.asking import ITEMS_A_REQUEST, ListAsker
from cuvee.generate.client import OpenedLLM
from cuvee.generate.dials import AttributesDial, TopicsDial
from cuvee.generate.ledger import Ledger
from local_llm import WORDS

TEXTS = {label: [f"{label} text {i} about {word}" for i, word in enumerate(WORDS)] for label in ("alpha", "beta")}


def asked_of(body) -> str:
    """The whole prompt, whatever its form."""
    return body["prompt"] if "prompt" in body else body["messages"][1]["content"]


def few_new(body) -> str:
    """Three words a request, some of them said before."""
    first = body["seed"] % len(WORDS)
    return "\n".join(f"{i}. {WORDS[(first + 5 * i) % len(WORDS)].title()}" for i in range(1, 4))


@pytest.fixture
def few(llm):
    llm.text = few_new
    return llm


def ask_topics(texts, count, *, endpoint, ledger, **given):
    return ListAsker(OpenedLLM(endpoint=endpoint), ledger, **given).topics(texts, count)


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_smaller_list_is_the_beginning_of_a_larger_one_and_nothing_is_asked_twice(few, api):
    endpoint = few.endpoint(api=api)
    with Ledger() as ledger:
        small = ask_topics(TEXTS, 2, endpoint=endpoint, ledger=ledger, describe="notes", seed=3)
        first = len(few.bodies)
        assert first == 2  # labels
        large = ask_topics(TEXTS, 12, endpoint=endpoint, ledger=ledger, describe="notes", seed=3)
        sent = len(few.bodies)
        assert sent > first
        assert {label: topics[:2] for label, topics in large.items()} == small
        assert ask_topics(TEXTS, 12, endpoint=endpoint, ledger=ledger, describe="notes", seed=3) == large
        assert len(few.bodies) == sent == ledger.totals().requests
    assert list(large) == ["alpha", "beta"]
    for topics in large.values():
        assert len({topic.casefold() for topic in topics}) == 12
    with Ledger() as other:
        fresh = ask_topics(TEXTS, 12, endpoint=endpoint, ledger=other, describe="notes", seed=3)
    assert fresh == large  # the order of arrival changes nothing
    assert TopicsDial(levels=[1, 12], topics=large).levels[-1].name == "12"


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_follow_ups_name_what_was_found_and_show_real_texts_of_the_label(few, api):
    with Ledger() as ledger:
        found = ask_topics(
            {"alpha": TEXTS["alpha"]}, 9, endpoint=few.endpoint(api=api), ledger=ledger, describe="notes"
        )
    first, second = (asked_of(body) for body in few.bodies[:2])
    assert f"{ITEMS_A_REQUEST} different topics" in first
    assert sum(text in first for text in TEXTS["alpha"]) == 4
    assert not any(text in first for text in TEXTS["beta"])
    if api == "chat":
        assert f"Other than: {', '.join(found['alpha'][:3])}." in second
        assert "Other than" not in first
    else:
        assert second.endswith(f"3. {found['alpha'][2]}\n4.")
        assert f"{ITEMS_A_REQUEST + 3} different topics" in second


def test_a_list_that_stays_short_is_refused_with_label_count_and_remedy(llm):
    def only_alpha(body):
        return few_new(body) if "alpha" in asked_of(body) else "1. Amber\n2. Birch"

    llm.text = only_alpha
    with Ledger() as ledger:
        with pytest.raises(
            ConfigError, match=r"6 topics of label 'beta' and named 2 in 5 answers; use topics: data"
        ) as why:
            ask_topics(TEXTS, 6, endpoint=llm.endpoint(), ledger=ledger, seed=3)
        assert "larger model" in str(why.value) and "by hand" in str(why.value)
        sent = len(llm.bodies)
        with pytest.raises(ConfigError, match="'beta' and named 2 in 5"):
            ask_topics(TEXTS, 6, endpoint=llm.endpoint(), ledger=ledger, seed=3)
        assert len(llm.bodies) == sent


def test_labels_and_training_texts_are_no_topics(llm):
    llm.text = lambda body: f"1. Alpha.\n2. {TEXTS['alpha'][0]}\n3. Topic {body['seed']}\n4. !!!"
    with Ledger() as ledger:
        found = ask_topics({"alpha": TEXTS["alpha"]}, 3, endpoint=llm.endpoint(), ledger=ledger)
    assert all(topic.startswith("Topic ") for topic in found["alpha"])


def test_a_broken_off_answer_loses_its_last_line(llm):
    llm.text = lambda _: "1. Amber\n2. Bir"
    llm.finish_reason = "length"
    with Ledger() as ledger:
        found = ask_topics({"x": ["t"]}, 1, endpoint=llm.endpoint(), ledger=ledger)
        assert found == {"x": ("Amber",)}
        with pytest.raises(ConfigError, match="named 1 in 5"):
            ask_topics({"x": ["t"]}, 2, endpoint=llm.endpoint(), ledger=ledger)


def test_attributes_and_their_values_make_a_dial(llm):
    def answer(body):
        if "values" in asked_of(body).split("different ")[1][:10]:
            return "\n".join(f"{i}. {WORDS[(i + body['seed']) % 29]} (for example)" for i in range(1, 7))
        return "1. Tone: formal, casual, dry or any other that suits the text at hand\n2. Length - short\n3. alpha"

    llm.text = answer
    with Ledger() as ledger:
        asker = ListAsker(OpenedLLM(endpoint=llm.endpoint(api="chat")), ledger, describe="notes")
        found = asker.attributes(TEXTS, count=2, values=3)
        assert list(found) == ["Tone", "Length"]
        assert all(len(values) == 3 and not any("(" in v for v in values) for values in found.values())
        sent = len(llm.bodies)
        assert sent == 3
        more = asker.attributes(TEXTS, count=2, values=6)
        assert len(llm.bodies) == sent and {name: given[:3] for name, given in more.items()} == found
        with pytest.raises(ConfigError, match="3 attributes and named 2"):
            asker.attributes(TEXTS, count=3, values=2)
    assert AttributesDial(levels=[1, 9], dimensions=found).levels[-1].name == "9"


def test_what_was_answered_before_an_outage_is_kept(llm):
    llm.text = few_new

    async def out(number, _request, _body):
        await asyncio.sleep(0)
        return web.Response(status=401) if number >= 2 else None

    llm.script = out
    with Ledger() as ledger:
        with pytest.raises(EndpointError):
            ask_topics(TEXTS, 12, endpoint=llm.endpoint(), ledger=ledger, seed=3)
        llm.script = None
        found = ask_topics(TEXTS, 12, endpoint=llm.endpoint(), ledger=ledger, seed=3)
    asked = [json.dumps(body, sort_keys=True) for body in llm.bodies]
    assert asked[0] != asked[1] and all(asked.count(answered) == 1 for answered in asked[:2])
    with Ledger() as other:
        assert found == ask_topics(TEXTS, 12, endpoint=llm.endpoint(), ledger=other, seed=3)


def test_a_list_is_the_same_where_a_request_waits(few):
    with Ledger() as other:
        clean = ask_topics(TEXTS, 12, endpoint=few.endpoint(), ledger=other, seed=3)
    few.bodies.clear()
    limited = []

    async def limit_one(_number, _request, body):
        if not limited:
            limited.append(body)
            return web.Response(status=429, headers={"Retry-After": "0.2"})
        return None

    few.script = limit_one
    with Ledger() as ledger:
        assert ask_topics(TEXTS, 12, endpoint=few.endpoint(), ledger=ledger, seed=3) == clean
    assert few.bodies.count(limited[0]) == 2
