import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import replace
from urllib.parse import quote

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import CuveeError, EndpointError, RunFolderError
from cuvee.generate.calls import Answer, Endpoint, Request, Sampling
from cuvee.generate.client import Journal, LLMClient
from cuvee.generate.ledger import Ledger
from cuvee.generate.replies import Reply, read_message
from cuvee.masking import (
    fill_variables,
    find_secrets,
    join_url,
    mask_secrets,
    redact_url,
    unset_variables,
)

pytestmark = pytest.mark.slow  # each is quick, together they are not

CANARY = "sk-canary/7f3a+91"
PASSWORD = "pw-canary-55d2"
QUERY = "query-canary-08c1"


def ask(n, **settings):
    return [Request(prompt=f"question {i}", sampling=Sampling(), seed=i, **settings) for i in range(n)]


def canary_endpoint(llm, **settings):
    url = f"http://user:{PASSWORD}@127.0.0.1:{llm.port}/v1?key={QUERY}&api-version=2"
    return Endpoint(base_url=url, model="tiny", api="completions", api_key=CANARY, give_up_s=0.2, **settings)


def secrets_in(*parts):
    spellings = [CANARY, quote(CANARY, safe=""), PASSWORD, QUERY]
    whole = b"".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)
    return [secret for secret in spellings if secret.encode() in whole]


@pytest.mark.parametrize("code", [200, 302, 400, 401, 404, 429, 500])
@pytest.mark.parametrize("filler", [0, 290])
def test_keys_are_in_no_message_traceback_repr_or_file(llm, code, filler, tmp_path):
    """The server echoes all it was sent: in errors, also where they are cut, and in an answer."""

    async def echo(_number, request, _body):
        said = f"{request.headers['Authorization']} {request.headers.get('X')} {request.path_qs} {PASSWORD} "
        said = "x" * filler + said + quote(CANARY, safe="")
        if code == 200:
            return web.json_response({"choices": [{"text": said, "finish_reason": "stop"}]})
        return web.json_response({"error": {"message": said}}, status=code, headers={"Location": f"/?{QUERY}"})

    llm.script = echo
    llm.models = None
    seen = []
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        endpoint = canary_endpoint(llm, identity="" if filler else f"http://user:{PASSWORD}@host/v1")
        with LLMClient(endpoint, ledger) as client:
            try:
                seen.extend(client.answer_requests(ask(2)))
            except CuveeError as exc:
                seen.extend([*traceback.format_exception(exc), repr(exc)])
            seen.extend([repr(client), tuple(client._ledger.met.notes), client._budget_guard.spent])
        seen.extend([repr(endpoint), endpoint.identity])
        files = [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(files) >= 2  # the log too, while it is there
    assert secrets_in(*seen, *files) == []
    assert "***" in str(seen) or code == 302
    assert llm.headers[0]["Authorization"] == f"Bearer {CANARY}"


def test_an_address_that_is_none_does_not_show_its_key():
    endpoint = Endpoint(base_url=f"127.0.0.1/v1?key={QUERY}", model="m", api_key=CANARY)
    with Ledger() as ledger, LLMClient(endpoint, ledger) as client, pytest.raises(EndpointError) as caught:
        client.answer_requests(ask(1))
    assert secrets_in("".join(traceback.format_exception(caught.value))) == []
    unset = replace(endpoint, base_url="http://h/v1?key=${UNSET_KEY}")
    with Ledger() as ledger, LLMClient(unset, ledger) as client, pytest.raises(EndpointError, match="UNSET_KEY is not"):
        client.answer_requests(ask(1))


def test_urls_keep_what_is_open_and_lose_what_is_secret():
    assert redact_url("https://u:p@h:8/v1?key=abc&api-version=3") == "https://h:8/v1?key=***&api-version=3"
    assert redact_url("https://h/sk-123456789/v1", "sk-123456789") == "https://h/***/v1"
    assert redact_url("gguf:1234") == "gguf:1234"
    assert redact_url("hf:name@abc:float32") == "hf:name@abc:float32"
    assert redact_url("KEY@host:8000/v1") == "host:8000/v1"
    assert redact_url("host/v1?code=KEY") == "host/v1?code=***"
    assert redact_url("http://h/v1?KEY#KEY") == redact_url("http://h/v1#KEY") == "http://h/v1"
    assert redact_url("http://KEY@[h/v1") == "***"
    assert redact_url("http://h/short/v1", "short") == redact_url("http://h/${UNSET}/v1") == "http://h/***/v1"
    assert redact_url("http://h/sk%2F123456/v1", "sk/123456") == "http://h/***/v1"
    assert join_url("http://h/v1?a=b", "/completions") == "http://h/v1/completions?a=b"
    assert join_url("http://h/v1/", "/completions") == "http://h/v1/completions"
    assert find_secrets("http://h/v1", None) == ()


@pytest.mark.parametrize(
    ("url", "filled"),
    [
        ("http://${A_KEY}@h/v1", "http://s%2Bk%2F%3D@h/v1"),
        ("http://h/v1?a=${A_KEY}&${A_QUERY}", "http://h/v1?a=s%2Bk%2F%3D&b=c&d=e"),
        ("http://h/v1?a=${A_SPELLED_KEY}", "http://h/v1?a=s%2Bk%2F%3D"),
        ("http://h/v1?a=${UNSET_KEY}&b=$A_KEY", "http://h/v1?a=${UNSET_KEY}&b=$A_KEY"),
    ],
)
def test_variables_are_filled_in_for_the_request_alone(monkeypatch, url, filled):
    known = redact_url(url)
    for name, value in {"A_KEY": "s+k/=", "A_SPELLED_KEY": "s%2Bk%2F%3D", "A_QUERY": "b=c&d=e"}.items():
        monkeypatch.setenv(name, value)
    assert fill_variables(url) == filled
    assert redact_url(url) == known  # the ledger knows it whether they are set or not
    assert unset_variables([url]) == (("UNSET_KEY",) if "UNSET" in url else ())


@given(st.text(min_size=1), st.data())
def test_no_message_holds_a_key_however_it_is_spelled(key, data):
    either = [[c, *(each for q in [quote(c, safe="")] if q != c for each in (q, q.lower()))] for c in key]
    encoded = [data.draw(st.sampled_from(spellings)) for spellings in either]
    assert mask_secrets("".join(encoded), (key,)) == "***"


@given(st.text(alphabet="k/+ -", min_size=8, max_size=12), st.text(max_size=20), st.integers(0, 320))
def test_no_message_holds_a_key_wherever_it_stands(key, words, before):
    secrets = find_secrets("http://h/v1", key)
    message = read_message(Reply(400, "é" * before + key + words), secrets)
    assert key not in message or key in "é" * before + "***" + words
    assert mask_secrets(key, secrets) == "***"


GUARDED = """
import sys
hosts = set()
def watch(event, args):
    if event == "socket.connect":
        hosts.add(str(args[1]))
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        hosts.add(str(args[0]))
sys.addaudithook(watch)
from cuvee.errors import CuveeError
from cuvee.generate.calls import Endpoint, Request, Sampling
from cuvee.generate.client import LLMClient
from cuvee.generate.ledger import Ledger
endpoint = Endpoint(base_url=sys.argv[1], model="tiny", api="completions")
with Ledger() as ledger, LLMClient(endpoint, ledger) as client:
    try:
        client.answer_requests([Request(prompt="p", sampling=Sampling(), seed=i) for i in range(8)])
    except CuveeError as exc:
        print(exc)
print(sorted(hosts))
"""


@pytest.mark.slow  # with the others of its kind
@pytest.mark.parametrize("redirect", [False, True])
def test_no_other_host_is_contacted(llm, redirect):
    async def elsewhere(_number, _request, _body):
        return web.Response(status=307, headers={"Location": "http://192.0.2.1/v1/completions"})

    llm.script = elsewhere if redirect else None
    proxies = {"http_proxy": "http://192.0.2.2:1", "HTTP_PROXY": "http://192.0.2.2:1"}
    command = [sys.executable, "-c", GUARDED, llm.endpoint().base_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **proxies})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str([f"('127.0.0.1', {llm.port})"])
    assert ("redirects (HTTP 307), which is not followed" in done.stdout) == redirect


ASKER = """
import sys
from pathlib import Path
from cuvee.generate.calls import Endpoint, Request, Sampling
from cuvee.generate.client import LLMClient
from cuvee.generate.ledger import Ledger
endpoint = Endpoint(base_url=sys.argv[1], model="tiny", api="completions", concurrency=12)
requests = [Request(prompt=f"p{i}", sampling=Sampling(), seed=i) for i in range(3000)]
with Ledger(Path(sys.argv[2])) as ledger, LLMClient(endpoint, ledger) as client:
    client.answer_requests(requests)
"""


@pytest.mark.slow
def test_after_sigkill_at_most_what_was_under_way_is_sent_again(llm, tmp_path):
    path = tmp_path / "ledger.sqlite"
    lost = 0
    for run in range(3):
        start = len(llm.bodies)
        asker = subprocess.Popen([sys.executable, "-c", ASKER, llm.endpoint().base_url, str(path)])
        while len(llm.bodies) < start + 150 * (run + 1):
            time.sleep(0.005)
        os.kill(asker.pid, signal.SIGKILL)
        asker.wait()
        time.sleep(0.1)
        with Ledger(path) as ledger:
            unanswered = len(llm.bodies) - lost - ledger.totals().requests
        assert 0 <= unanswered <= 12
        lost += unanswered


def test_what_came_is_committed_when_a_refusal_ends_the_run(llm, tmp_path):
    async def refuse(number, _request, _body):
        return web.json_response({"error": "no"}, status=401) if number == 20 else None

    llm.script = refuse
    with Ledger(tmp_path / "ledger.sqlite") as ledger, LLMClient(llm.endpoint(concurrency=4), ledger) as client:
        with pytest.raises(EndpointError):
            client.answer_requests(ask(60))
        assert ledger.totals().requests == client._budget_guard.spent.requests >= 17


def test_the_journal_shares_commits_and_keeps_what_is_left_behind(tmp_path):
    answer = Answer(text="t", finish_reason="stop")
    flushed = []

    class Counting(Ledger):
        def flush(self):
            flushed.append(threading.current_thread() is not threading.main_thread())
            super().flush()

    async def fill(ledger):
        async with Journal(ledger, lambda: 0.0) as journal:
            await asyncio.gather(*(journal.keep(str(k), "{}", answer) for k in range(50)))
            assert flushed == [True]
            left = asyncio.create_task(journal.keep("left", "{}", answer))
            await asyncio.sleep(0)
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)

    with Counting(tmp_path / "ledger.sqlite") as ledger:
        asyncio.run(fill(ledger))
        assert ledger.totals().requests == 51


def test_a_ledger_that_cannot_be_written_ends_the_run(llm, tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger, LLMClient(llm.endpoint(concurrency=4), ledger) as client:
        client.answer_requests(ask(2))
        ledger._database.execute("PRAGMA query_only=1")
        with pytest.raises(RunFolderError, match="readonly"):
            client.answer_requests(ask(40))
        ledger._database.execute("PRAGMA query_only=0")
    assert len(llm.bodies) <= 6


def test_connections_closed_between_two_calls_are_not_used_again(llm):
    async def close_soon(_number, request, _body):
        asyncio.get_running_loop().call_later(0.1, request.transport.close)

    llm.script = close_soon
    with Ledger() as ledger, LLMClient(llm.endpoint(), ledger) as client:
        client.answer_requests(ask(8))
        time.sleep(0.3)
        client.answer_requests(ask(16))
        assert ledger.met.retries == 0


def test_half_replies_and_error_bodies_among_good_ones_are_tried_again(llm):
    async def half(number, _request, _body):
        if number == 4:
            return web.Response(text='{"choices": [{"te', content_type="application/json")
        if number == 5:
            return web.json_response({"error": {"code": 502, "message": "upstream"}})
        return None

    llm.script = half
    with Ledger() as ledger, LLMClient(llm.endpoint(concurrency=1), ledger) as client:
        assert all(a.text for a in client.answer_requests(ask(8)))
        assert ledger.met.retries == 2
