"""One bad request never costs a run; a wrong set-up still ends in one clear line, at once."""

import asyncio
import json
import sqlite3

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.errors import AuthenticationError, EndpointError, EndpointUnreachable, ModelNotFound
from cuvee.generate.calls import Answer, Failure, Request, Sampling, request_key
from cuvee.generate.client import LLMClient
from cuvee.generate.dispatch import MOST_REFUSED
from cuvee.generate.exchange import Trouble, concerns_request, find_parameter
from cuvee.generate.ledger import Ledger, Met, summarise, tell_spending
from cuvee.generate.replicas import MOST_TRIES, RetryPolicy
from cuvee.records import Budget, Prices

pytestmark = pytest.mark.slow  # each is quick, together they are not

CANARY = "sk-canary-91f3"


def ask(n, start=0, **settings):
    sampling = Sampling(stop=("\n",), **settings)
    return [Request(prompt=f"question {i:03}", sampling=sampling, seed=i) for i in range(start, start + n)]


def answer(llm, requests, ledger=None, **settings):
    with Ledger() if ledger is None else ledger as kept, LLMClient(llm.endpoint(**settings), kept) as client:
        return client.answer_requests(requests)


def refuse(seeds, status=400, message="content filter", slow_s=0.0):
    """A script that refuses these requests, and takes some time for the others."""

    async def script(_number, _request, body):
        if body["seed"] in seeds:
            return web.json_response({"error": {"message": message}}, status=status)
        await asyncio.sleep(slow_s)
        return None

    return script


# --- refused requests -----------------------------------------------------------------------------
@pytest.mark.parametrize("concurrency", [1, 4, None])
@pytest.mark.parametrize("bad", [{0}, {0, 1, 2, 3, 4, 5, 6, 7}, {39}], ids=["first", "a run of eight", "last"])
def test_refused_requests_fail_and_the_others_are_answered(llm, concurrency, bad):
    llm.script = refuse(bad)
    with Ledger() as ledger:
        outcomes = answer(llm, ask(40), concurrency=concurrency)
        assert ledger.failures() == {}
    for seed, outcome in enumerate(outcomes):
        if seed in bad:
            assert outcome == Failure(reason="HTTP 400", message="content filter", tries=1)
        else:
            assert isinstance(outcome, Answer)
    assert len(llm.bodies) == 40  # none is sent twice


@pytest.mark.parametrize("status", [400, 413, 422])
def test_answers_under_way_are_waited_for_before_a_set_up_is_called_wrong(llm, status):
    """Refusals come at once, answers later: eight of twelve are refused before the first answer."""
    llm.script = refuse(range(8), status=status, slow_s=0.15)
    outcomes = answer(llm, ask(12))
    assert [type(o) for o in outcomes] == [Failure] * 8 + [Answer] * 4
    assert {o.reason for o in outcomes[:8]} == {f"HTTP {status}"}


@pytest.mark.parametrize("n", [1, 3, 60])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_where_every_request_is_refused_a_few_end_the_run(llm, n, concurrency):
    llm.script = refuse(range(100), message="this field is wrong")
    with pytest.raises(EndpointError, match="refused the request: HTTP 400 this field is wrong"):
        answer(llm, ask(n), concurrency=concurrency)
    assert len(llm.bodies) <= min(n, MOST_REFUSED + concurrency - 1)


def test_an_endpoint_known_from_the_ledger_may_refuse_all_of_a_run(llm, tmp_path):
    path = tmp_path / "ledger.sqlite"
    answer(llm, ask(1), Ledger(path))
    llm.script = refuse(range(1, 100))
    assert {type(o) for o in answer(llm, ask(8, start=1), Ledger(path))} == {Failure}
    with pytest.raises(EndpointError, match="content filter"):  # elsewhere nothing was ever answered
        answer(llm, ask(8, start=1), Ledger(path), identity="elsewhere")
    llm.models = ["tiny", "large"]
    with pytest.raises(EndpointError, match="content filter"):
        answer(llm, ask(8, start=1), Ledger(path), model="large")


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (401, "bad key", AuthenticationError),
        (403, "no access", AuthenticationError),
        (404, "the model `tiny` does not exist any more", ModelNotFound),
        (404, "no such path", EndpointError),
        (400, "Unsupported value: 'temperature' must be at most 2", EndpointError),
        (422, "unknown parameter: seed", EndpointError),
    ],
)
def test_what_concerns_all_requests_still_ends_the_run(llm, status, message, error):
    llm.models = None
    llm.script = refuse({20}, status=status, message=message)
    with pytest.raises(error) as caught:
        answer(llm, ask(40), concurrency=1)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("status", "message", "own"),
    [
        (400, "This model's maximum context length is 512 tokens; 'max_tokens' is 48 and the prompt has 600", True),
        (400, "max_tokens is too large: 48; this model supports at most 16 completion tokens", False),
        (400, "the request was stopped: the seed of violence", True),
        (400, "'stop' is unknown", False),
        (403, "Your chosen model requires moderation and your input was flagged", True),
        (403, "forbidden", False),
        (409, "content filter", False),
    ],
)
def test_whose_fault_a_refusal_is(status, message, own):
    assert concerns_request(ask(1)[0], status, message) is own


def test_a_prompt_that_is_too_long_fails_alone_where_models_are_not_listed(llm):
    llm.models = None
    message = "This model's max context is not enough: 'max_tokens' or 'max_completion_tokens' 48, your prompt has 9000"
    llm.script = refuse({7}, message=message)
    with Ledger() as ledger, LLMClient(llm.endpoint(concurrency=1), ledger) as client:
        outcomes = client.answer_requests(ask(12))
        assert tuple(client._ledger.met.notes) == ()
    assert [i for i, o in enumerate(outcomes) if isinstance(o, Failure)] == [7]
    assert find_parameter("we had to stop", ask(1)[0]) is None


def test_failures_are_kept_when_the_run_ends_early_and_hold_no_key(llm, tmp_path):
    async def script(number, request, body):
        if number == 30:
            return web.json_response({"error": "bad key"}, status=401)
        said = f"filtered {request.headers['Authorization']}"
        return web.json_response({"error": said}, status=400) if body["seed"] == 3 else None

    llm.script = script
    path = tmp_path / "ledger.sqlite"
    with pytest.raises(AuthenticationError):
        answer(llm, ask(60), Ledger(path), concurrency=1, api_key=CANARY)
    with Ledger(path) as ledger:
        key = request_key(llm.endpoint(), ask(4)[3])
        assert ledger.failures() == {key: Failure(reason="HTTP 400", message="filtered Bearer ***", tries=1)}
    assert not any(CANARY.encode() in file.read_bytes() for file in tmp_path.iterdir())


@settings(max_examples=40)
@given(bad=st.sets(st.integers(0, 19), max_size=19), concurrency=st.integers(1, 24))
def test_whichever_are_refused_in_whatever_order_the_rest_is_answered(llm_shared, bad, concurrency):
    """Or, if at least five were refused before any was answered, the run ends with what was said."""
    llm_shared.script = refuse(bad)
    good = [seed for seed in range(20) if seed not in bad]
    try:
        outcomes = answer(llm_shared, ask(20), concurrency=concurrency)
    except EndpointError as exc:
        assert len(bad) >= MOST_REFUSED
        assert "content filter" in str(exc)
    else:
        assert [seed for seed, o in enumerate(outcomes) if isinstance(o, Answer)] == good


@pytest.fixture(scope="module")
def llm_shared():
    from local_llm import LocalLLM

    server = LocalLLM()
    yield server
    server.close()


# --- requests that keep failing -------------------------------------------------------------------
def is_sign(body):
    """Whether a request only asks whether the endpoint answers."""
    return body["max_tokens"] == 1


@pytest.mark.parametrize("bad", [{3}, set(range(20, 40)), set(range(40))], ids=["one", "half", "all but the known"])
def test_requests_that_always_fail_cost_their_rows_and_nothing_else(llm, tmp_path, bad):
    """However many they are, and with nothing left to be answered beside them: a killed run may have come this far."""
    path = tmp_path / "ledger.sqlite"
    known = ask(1, start=99)
    answer(llm, known, Ledger(path))
    llm.script = refuse(bad, status=500, message="cannot do that")
    for _ in range(2):
        llm.bodies.clear()
        outcomes = answer(llm, [*ask(40), *known], Ledger(path), give_up_s=1.0, concurrency=8)
        assert {i for i, o in enumerate(outcomes) if isinstance(o, Failure)} == bad
        assert {o.reason for o in outcomes if isinstance(o, Failure)} == {"HTTP 500"}
        with Ledger(path) as ledger:
            assert len(ledger.failures()) == len(bad)
            assert ledger.forget_failures() == len(bad)
        assert all(body["seed"] not in bad for body in llm.bodies if is_sign(body))


def test_an_outage_is_no_failure_of_its_requests_and_ends_the_run_if_nothing_is_answered(llm, tmp_path, monkeypatch):
    monkeypatch.setattr("cuvee.generate.replicas.LONGEST_BACKOFF_S", 0.1)
    path = tmp_path / "ledger.sqlite"
    answer(llm, ask(2), Ledger(path))
    tries = 0

    async def out(_number, _request, body):
        nonlocal tries
        tries += body["seed"] == 7 and not is_sign(body)
        return web.json_response({"error": "down"}, status=500) if tries <= MOST_TRIES + 4 else None

    llm.script = out
    assert {type(o) for o in answer(llm, ask(12), Ledger(path))} == {Answer}
    llm.script = refuse(range(100), status=500, message="down")
    with pytest.raises(EndpointUnreachable, match="no usable answer"):
        answer(llm, ask(20), Ledger(path), give_up_s=0.3)
    with Ledger(path) as ledger:
        assert ledger.failures() == {}
    with pytest.raises(EndpointUnreachable):  # nothing was ever answered
        answer(llm, ask(2, start=50), give_up_s=0.3)


def test_after_an_outage_all_that_waits_is_tried_before_the_next_sign_of_life(llm, monkeypatch):
    """One request goes on failing, so that signs go on being asked for: they are the clock."""
    monkeypatch.setattr("cuvee.generate.replicas.PROBE_S", 0.3)
    monkeypatch.setattr("cuvee.generate.replicas.FIRST_BACKOFF_S", 60.0)  # each waits 6 s or more
    log = []

    async def out(number, _request, body):
        log.append("sign" if is_sign(body) else body["seed"])
        down = number >= 2 and log.count("sign") < (5 if body["seed"] == 9 else 3)
        return web.json_response({"error": "down"}, status=500) if down else None

    llm.script = out
    answer(llm, ask(10), concurrency=2, give_up_s=96.0)
    back = [i for i, entry in enumerate(log) if entry == "sign"][2]
    waiting = {entry for entry in log[2:back]} - {"sign", 9}
    assert len(waiting) >= 2
    tried = log[back + 1 :]
    assert waiting <= set(tried[: tried.index("sign")] if "sign" in tried else tried)


@pytest.mark.parametrize("kind", ["reset", "garbage", "hang", "limit"])
def test_every_kind_of_trouble_that_never_passes_ends_in_a_failure(llm, kind):
    async def script(_number, request, body):
        if body["seed"] != 5:
            return None
        if kind == "limit":  # too large a request for what may be read in a minute
            return web.json_response({"error": "too large"}, status=429)
        if kind == "reset":
            request.transport.abort()
        elif kind == "hang":
            await asyncio.sleep(20)
        return web.Response(text="<html>no</html>", content_type="text/html")

    llm.script = script
    outcomes = answer(llm, ask(12), concurrency=4, give_up_s=0.5, timeout_s=0.15)
    reasons = {"reset": "connection lost", "garbage": "no answer in the reply", "hang": "no answer in time"}
    reasons["limit"] = "HTTP 429"
    assert [o.reason for o in outcomes if isinstance(o, Failure)] == [reasons[kind]]
    assert outcomes[5].tries >= 2


def test_a_first_reply_that_is_none_is_tried_again_among_good_ones(llm):
    async def script(number, _request, _body):
        return web.Response(text="<html>starting</html>", content_type="text/html") if number == 0 else None

    llm.script = script
    assert all(isinstance(o, Answer) for o in answer(llm, ask(8), concurrency=1))
    assert len(llm.bodies) == 9


def trouble(first, failures, **settings):
    return Trouble(kind="HTTP 500", reason="HTTP 500", first=first, failures=failures, **settings)


def test_when_a_request_is_hopeless(llm, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("cuvee.generate.replicas.time.monotonic", lambda: now)
    patience = RetryPolicy(llm.endpoint(give_up_s=300.0))
    patience.note_success(now)  # so it is the request that fails, not the endpoint
    assert patience.wait_seconds(trouble(now, MOST_TRIES), 1) is None
    assert patience.wait_seconds(trouble(now, MOST_TRIES - 1), 1) is not None
    assert patience.wait_seconds(trouble(now - 299, 2), 1) is not None
    assert patience.wait_seconds(trouble(now - 300, 2), 1) is None
    assert patience.wait_seconds(trouble(now - 300, 1), 1) is not None


def test_only_failures_with_an_answer_in_between_are_the_requests_own():
    first = trouble(5.0, 1)
    limited = trouble(6.0, 1, limited=True).since(first, answered=5.5)
    assert (limited.first, limited.failures) == (5.0, 1)
    own = trouble(7.0, 1).since(limited, answered=6.5)
    assert (own.first, own.failures) == (5.0, 2)
    assert trouble(8.0, 1).since(own, answered=6.5).failures == 2  # nothing sent since was answered: an outage


def test_failed_requests_cost_nothing_of_a_budget_unless_they_were_cut_off(llm):
    llm.script = refuse({1, 2, 3})
    with Ledger() as ledger, LLMClient(llm.endpoint(budget=Budget(requests=5), concurrency=1), ledger) as client:
        assert len(client.answer_requests(ask(8))) == 8
        assert (client._budget_guard.spent.requests, client._budget_guard.lost.requests) == (5, 0)


# --- what was met and spent -----------------------------------------------------------------------
def test_what_a_client_met_is_in_the_ledger(llm, tmp_path):
    async def script(number, _request, body):
        if number == 2:
            return web.json_response({"error": "busy"}, status=503)
        if body["seed"] == 1:
            return web.json_response({"error": "filtered"}, status=400)
        return web.json_response({"choices": [{"text": "some words", "finish_reason": "stop"}]})

    llm.script = script
    path = tmp_path / "ledger.sqlite"
    answer(llm, ask(4, min_p=0.1), Ledger(path), concurrency=1)
    answer(llm, ask(1, min_p=0.1), Ledger(path))
    note = "the endpoint reports no usage: tokens are counted at their worst case"
    with Ledger(path) as ledger:
        assert ledger.read_met() == Met(replayed=1, retries=1, notes={note: None})
        found = summarise(ledger)
        assert (found.replayed, found.retries, found.notes, found.failed) == (1, 1, (note,), {"HTTP 400": 1})
    with Ledger(path) as ledger, LLMClient(llm.endpoint(), ledger):
        pass  # nothing asked, nothing met
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM sessions").fetchone() == (2,)


def test_what_is_spent_is_told_of_the_whole_ledger(llm, tmp_path):
    path = tmp_path / "ledger.sqlite"
    answer(llm, ask(2), Ledger(path))
    prices = Prices(prompt_per_million=1e6, completion_per_million=2e6, currency="EUR")
    with Ledger(path) as ledger, LLMClient(llm.endpoint(), ledger) as client:
        spending, plain = tell_spending(ledger, prices), tell_spending(ledger, part="fold 2")
        assert spending() == "14+10 tokens, 34.0000 EUR"
        client.answer_requests(ask(10))
        assert spending() == "70+50 tokens, 170.0000 EUR"
        assert plain() == "fold 2: 70+50 tokens"


def test_the_ledger_knows_who_answered(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.record("odd", "no json", Answer(text="t", finish_reason="stop"))
        ledger.flush()
        assert ledger.answered("tiny") == ()
        body = {"model": "tiny"}
        ledger.record("k", json.dumps({"endpoint": "local", "body": body}), Answer(text="t", finish_reason="stop"))
        ledger.flush()
        assert ledger.answered("tiny") == ("local",)
