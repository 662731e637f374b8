import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web

from cuvee.errors import AuthenticationError, EndpointError, EndpointUnreachable, ModelNotFound
from cuvee.generate.calls import Endpoint, Failure, Request, Sampling
from cuvee.generate.client import LLMClient
from cuvee.generate.dispatch import RequestQueue
from cuvee.generate.ledger import Ledger
from cuvee.generate.replies import wait_seconds


def ask(n, **settings):
    return [Request(prompt=f"question {i}", sampling=Sampling(stop=("\n",)), seed=i, **settings) for i in range(n)]


def answers(llm, requests, ledger=None, **settings):
    with Ledger() if ledger is None else ledger as kept, LLMClient(llm.endpoint(**settings), kept) as client:
        return client.answer_requests(requests)


def status(code, message="something is wrong", when=lambda _: True, headers=None):
    async def script(number, _request, _body):
        if when(number):
            return web.json_response({"error": {"message": message}}, status=code, headers=headers)
        return None

    return script


def test_answers_come_in_order_with_the_whole_request_sent(llm):
    found = answers(llm, ask(20), concurrency=4, api_key="sk-1")
    assert [a.text for a in found] == [llm.text(dict(r.payload("tiny"))) for r in ask(20)]
    assert found[0].prompt_tokens == 7
    assert found[0].completion_tokens == 5
    assert 1 < llm.most_at_once <= 4
    body = next(b for b in llm.bodies if b["seed"] == 3)
    assert body == {
        "model": "tiny", "prompt": "question 3", "temperature": 1.0, "top_p": 1.0, "max_tokens": 48,
        "stop": ["\n"], "seed": 3,
    }  # fmt: skip
    assert llm.headers[0]["Authorization"] == "Bearer sk-1"


def test_chat_requests_go_to_the_chat_path(llm):
    request = Request(messages=(("system", "s"), ("user", "u")), sampling=Sampling(), seed=1)
    assert answers(llm, [request], api="chat")[0].text
    assert llm.bodies[0]["messages"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert "stop" not in llm.bodies[0]


def test_nothing_answered_is_sent_again_and_replicates_are_other_requests(llm, tmp_path):
    path = tmp_path / "ledger.sqlite"
    first = answers(llm, ask(10), Ledger(path))
    assert len(llm.bodies) == 10
    again = answers(llm, [*ask(10), *ask(2), *ask(2, replicate=1)], Ledger(path))
    assert len(llm.bodies) == 12
    assert again[:10] == first
    assert [a.replayed for a in again] == [True] * 12 + [False] * 2


def test_equal_requests_are_sent_once(llm):
    found = answers(llm, ask(3) * 4)
    assert len(llm.bodies) == 3
    assert found[:3] * 4 == found


def test_on_answer_hears_of_each_answer_once(llm):
    heard = []
    with Ledger() as ledger, LLMClient(llm.endpoint(), ledger) as client:
        client.answer_requests(ask(2))
        client.answer_requests(ask(5), lambda request, answer: heard.append((request, answer.replayed)))
    assert sorted(r.seed for r, _ in heard) == [0, 1, 2, 3, 4]
    assert sum(replayed for _, replayed in heard) == 2


@pytest.mark.parametrize("code", [500, 502, 503])
def test_server_errors_are_tried_again(llm, code):
    llm.script = status(code, when=lambda n: n < 3)
    assert all(a.text for a in answers(llm, ask(3)))
    assert len(llm.bodies) == 6


def test_connection_resets_are_tried_again(llm):
    async def reset(number, request, _body):
        if number < 2:
            request.transport.abort()
        return None

    llm.script = reset
    assert all(a.text for a in answers(llm, ask(2)))


def test_hanging_requests_are_tried_again(llm):
    async def hang(number, _request, _body):
        if number == 0:
            await asyncio.sleep(30)
        return None

    llm.script = hang
    assert all(a.text for a in answers(llm, ask(2), timeout_s=0.5))


@pytest.mark.parametrize("form", ["seconds", pytest.param("date", marks=pytest.mark.slow)])
def test_retry_after_is_honoured_without_stalling_the_others(llm, form):
    def header():
        if form == "seconds":
            return "2"
        return format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)  # whole seconds: 2 to 3 s

    async def limit(_number, _request, body):
        if body["seed"] == 0 and sum(b["seed"] == 0 for b in llm.bodies) == 1:
            return web.json_response({"error": "slow down"}, status=429, headers={"Retry-After": header()})
        return None

    llm.script = limit
    start = time.monotonic()
    assert all(a.text for a in answers(llm, ask(8), concurrency=2))
    sent = [(body["seed"], at - start) for body, at in zip(llm.bodies, llm.times, strict=True)]
    others = [at for seed, at in sent if seed != 0]
    mine = [at for seed, at in sent if seed == 0]
    assert max(others) < mine[1] and mine[1] - mine[0] >= 1.9


def test_retry_after_values():
    at = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert wait_seconds({"Retry-After": "3"}) == 3
    assert wait_seconds({"Retry-After": "0.5"}) == 0.5
    assert wait_seconds({"Retry-After": "-3"}) == 0
    assert wait_seconds({"Retry-After": "9", "retry-after-ms": "120"}) == 0.12
    assert wait_seconds({"Retry-After": "Wed, 21 Oct 2015 07:28:30 GMT", "Date": at}) == 30
    assert wait_seconds({"Retry-After": "Wed, 21 Oct 2015 07:27:00 GMT", "Date": at}) == 0
    assert wait_seconds({"Retry-After": "soon", "Date": at}) is None
    assert wait_seconds({"Retry-After": "inf"}) is None
    assert wait_seconds({}) is None


def test_a_wait_longer_than_give_up_ends_at_once(llm):
    llm.script = status(429, headers={"Retry-After": "3600"})
    start = time.monotonic()
    with pytest.raises(EndpointUnreachable, match="asks to wait 3600 s") as caught:
        answers(llm, ask(2))
    assert time.monotonic() - start < 2
    assert llm.endpoint().base_url in str(caught.value)
    assert "answers so far are kept" in str(caught.value)


@pytest.mark.slow
def test_an_outage_ends_after_give_up_and_keeps_what_was_answered(llm, tmp_path):
    llm.script = status(503, "overloaded", when=lambda n: n >= 6)
    path = tmp_path / "ledger.sqlite"
    start = time.monotonic()
    with pytest.raises(EndpointUnreachable, match="503 overloaded"):
        answers(llm, ask(12), Ledger(path), concurrency=2, give_up_s=2.0)
    assert 0.5 < time.monotonic() - start < 6
    with Ledger(path) as ledger:
        assert ledger.totals().requests == 6


def test_one_request_that_keeps_failing_among_good_ones_fails_alone(llm):
    async def poison(_number, _request, body):
        if body["seed"] == 0:
            return web.json_response({"error": "cannot do that"}, status=500)
        await asyncio.sleep(0.02)
        return None

    llm.script = poison
    failed, *others = answers(llm, ask(100), concurrency=2, give_up_s=0.6)
    assert failed == Failure(reason="HTTP 500", message="HTTP 500 cannot do that", tries=failed.tries)
    assert failed.tries == sum(body["seed"] == 0 for body in llm.bodies) >= 4
    assert all(a.text for a in others)


@pytest.mark.parametrize("code", [401, 403])
def test_a_refused_key_ends_at_once_names_its_variable_and_is_not_shown(llm, code):
    llm.script = status(code, "Incorrect API key: sk-secret")
    with pytest.raises(AuthenticationError, match=f"answered {code}.*check the key in \\$MY_KEY") as caught:
        answers(llm, ask(5), api_key="sk-secret", key_name="MY_KEY", concurrency=1)
    assert "sk-secret" not in str(caught.value)
    assert len(llm.bodies) <= 2


def test_a_model_that_is_not_listed_is_noted_and_asked(llm):
    llm.models = ["tiny", "large:latest"]
    for model, notes in (("tinny", 1), ("large", 0)):
        with Ledger() as ledger, LLMClient(llm.endpoint(model=model), ledger) as client:
            client.answer_requests(ask(1))
            assert len(tuple(client._ledger.met.notes)) == notes
    assert [body["model"] for body in llm.bodies] == ["tinny", "large"]


def test_a_wrong_model_is_found_where_models_are_not_listed(llm):
    llm.models = None
    llm.script = status(404, "The model `tinny` does not exist")
    with pytest.raises(ModelNotFound, match="does not serve model 'tinny'"):
        answers(llm, ask(2), model="tinny")


def test_a_wrong_path_is_not_taken_for_a_wrong_model(llm):
    endpoint = llm.endpoint()
    wrong = Endpoint(base_url=endpoint.base_url.removesuffix("/v1"), model="tiny", api="completions")
    with (
        Ledger() as ledger,
        LLMClient(wrong, ledger) as client,
        pytest.raises(EndpointError, match=r"does not exist .* usually ends in /v1") as caught,
    ):
        client.answer_requests(ask(1))
    assert not isinstance(caught.value, ModelNotFound)


def test_other_refusals_carry_the_servers_message(llm):
    llm.script = status(400, "unknown parameter:\n seed")
    with pytest.raises(EndpointError, match="HTTP 400 unknown parameter: seed"):
        answers(llm, ask(1))


def test_replies_that_are_no_replies_are_refused(llm):
    async def page(_number, _request, _body):
        return web.Response(text="<html>welcome</html>", content_type="text/html")

    llm.script = page
    with pytest.raises(EndpointError, match=r"not as an OpenAI-compatible endpoint.*welcome"):
        answers(llm, ask(1))


def test_empty_replies_are_answers_for_the_parser_to_reject(llm):
    async def empty(_number, _request, _body):
        return web.json_response({"choices": [{"text": None, "finish_reason": "stop"}]})

    llm.script = empty
    found = answers(llm, ask(1))
    assert (found[0].text, found[0].finish_reason, found[0].prompt_tokens) == ("", "stop", 0)


def test_broken_characters_can_be_stored(llm):
    async def broken(_number, _request, _body):
        return web.Response(text='{"choices": [{"text": "half \\ud83d, whole \\ud83d\\ude00"}]}')

    llm.script = broken
    assert answers(llm, ask(1))[0].text == "half \ufffd, whole 😀"


def test_a_dead_port_ends_within_seconds_and_names_the_address():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    dead = Endpoint(base_url=f"http://127.0.0.1:{port}/v1", model="tiny", give_up_s=60)
    start = time.monotonic()
    with (
        Ledger() as ledger,
        LLMClient(dead, ledger) as client,
        pytest.raises(EndpointUnreachable, match=f"127.0.0.1:{port}.*is the server up"),
    ):
        client.answer_requests(ask(3))
    assert time.monotonic() - start < 5


def test_a_base_url_that_is_none_is_refused():
    wrong = Endpoint(base_url="localhost/v1", model="tiny", give_up_s=1)
    with Ledger() as ledger, LLMClient(wrong, ledger) as client, pytest.raises(EndpointUnreachable):
        client.answer_requests(ask(1))


def test_it_works_inside_a_running_loop_as_in_a_notebook(llm):
    async def notebook():
        return answers(llm, ask(3))

    assert all(a.text for a in asyncio.run(notebook()))


INTERRUPTED = """
import sys
from pathlib import Path
from cuvee.generate.calls import Endpoint, Request, Sampling
from cuvee.generate.client import LLMClient
from cuvee.generate.ledger import Ledger
endpoint = Endpoint(base_url=sys.argv[1], model="tiny", api="completions", concurrency=4)
requests = [Request(prompt="p", sampling=Sampling(), seed=i) for i in range(8)]
with Ledger(Path(sys.argv[2])) as ledger, LLMClient(endpoint, ledger) as client:
    client.answer_requests(requests)
"""


@pytest.mark.slow
def test_ctrl_c_stops_at_once_and_keeps_what_was_answered(llm, tmp_path):
    held = threading.Event()

    async def hang(number, _request, _body):
        if number >= 3:
            held.set()
            await asyncio.sleep(30)
        return None

    llm.script = hang
    path = tmp_path / "ledger.sqlite"
    arguments = [sys.executable, "-c", INTERRUPTED, llm.endpoint().base_url, str(path)]
    client = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    assert held.wait(20)
    time.sleep(0.3)
    os.kill(client.pid, signal.SIGINT)
    _, stderr = client.communicate(timeout=20)  # the server would take 30 s
    assert "KeyboardInterrupt" in stderr
    with Ledger(path) as ledger:
        assert ledger.totals().requests == 3


def test_each_lane_gets_a_run_and_helps_the_longest_when_it_is_done():
    requests = [Request(prompt=f"p{k // 4}", sampling=Sampling(), seed=k) for k in range(16)]
    lanes = RequestQueue(requests, 4)
    assert [lanes.take(lane).seed for lane in (0, 0, 1, 2, 3)] == [0, 1, 4, 8, 12]
    rest = [lanes.take(0).seed for _ in range(5)]
    assert rest[:2] == [2, 3]
    assert rest[2:] == [7, 11, 15]
    taken = {r.seed for r in iter(lambda: lanes.take(3), None)}
    assert taken | {0, 1, 2, 3, 4, 7, 8, 11, 12, 15} == set(range(16))
