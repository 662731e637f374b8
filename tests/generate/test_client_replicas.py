"""Several addresses of one model: shared out, failed over, and known to the ledger as one."""

import asyncio
import json
import socket
from dataclasses import replace

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import BudgetReached, EndpointUnreachable
from cuvee.generate.calls import Answer, Endpoint, Request, Sampling, request_key
from cuvee.generate.client import LLMClient
from cuvee.generate.dispatch import RequestQueue
from cuvee.generate.exchange import Compatibility, Trouble
from cuvee.generate.ledger import Ledger, settle_identity
from cuvee.generate.replicas import AILING_FAILURES, LONGEST_PROBE_S, ReplicaPool
from cuvee.records import Budget
from local_llm import LocalLLM


@pytest.fixture
def pair():
    servers = LocalLLM(), LocalLLM()
    yield servers
    for server in servers:
        server.close()


def url(server):
    return f"http://127.0.0.1:{server.port}/v1"


def replicated(*urls, **settings):
    given = {"api": "completions", "give_up_s": 10.0, "timeout_s": 5.0, "model": "tiny", **settings}
    return Endpoint(base_url=urls[0], replicas=tuple(urls[1:]), **given)


def ask(n, start=0):
    return [Request(prompt=f"question {i:03}", sampling=Sampling(), seed=i) for i in range(start, start + n)]


def dead_url():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def send(endpoint, requests, ledger=None):
    with ledger or Ledger() as kept, LLMClient(endpoint, kept) as client:
        outcomes = client.answer_requests(requests)
        return outcomes, tuple(client._ledger.met.notes)


def slow(server, seconds):
    async def script(_number, _request, _body):
        await asyncio.sleep(seconds)

    server.script = script


# --- sharing out ----------------------------------------------------------------------------------
def test_both_replicas_work_neighbours_stay_together_and_each_request_is_sent_once(pair):
    for server in pair:
        slow(server, 0.01)
    outcomes, notes = send(replicated(*map(url, pair), concurrency=4), ask(80))
    assert all(isinstance(o, Answer) for o in outcomes)
    seeds = [sorted(body["seed"] for body in server.bodies) for server in pair]
    assert sorted(seeds[0] + seeds[1]) == list(range(80))
    assert min(map(len, seeds)) >= 20
    halves = sum(seed < 40 for seed in seeds[0]), sum(seed >= 40 for seed in seeds[1])
    assert min(halves) >= 20  # the first replica's are mostly of the first half
    assert all(server.most_at_once <= 4 for server in pair)
    assert notes == ()


def test_few_requests_go_to_the_idlest(pair):
    for server in pair:
        slow(server, 0.1)
    send(replicated(*map(url, pair)), ask(6))
    assert [len(server.bodies) for server in pair] == [3, 3]


def test_a_slow_replica_gets_less(pair):
    slow(pair[0], 0.005)
    slow(pair[1], 0.1)
    send(replicated(*map(url, pair), concurrency=2), ask(60))
    assert len(pair[0].bodies) > 3 * len(pair[1].bodies)


def test_a_budget_is_of_all_replicas_together(pair):
    with pytest.raises(BudgetReached):
        send(replicated(*map(url, pair), budget=Budget(requests=7), concurrency=2), ask(20))
    assert sum(len(server.bodies) for server in pair) == 7


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 4), st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_lanes_with_zones_hand_out_every_request_once(n, count, zones, order):
    lanes, taken = RequestQueue(ask(n), count, zones), []
    opened = [lanes.open(zone % zones) for zone in order]
    while (found := lanes.take(opened[len(taken) % len(opened)])) is not None:
        taken.append(found.seed)
    assert sorted(taken) == list(range(n))


# --- failover -------------------------------------------------------------------------------------
@pytest.mark.parametrize("first", [True, False])
def test_a_dead_replica_costs_nothing_but_a_note(llm, first):
    dead = dead_url()
    urls = (dead, url(llm)) if first else (url(llm), dead)
    outcomes, notes = send(replicated(*urls), ask(30))
    assert all(isinstance(o, Answer) for o in outcomes)
    assert len(llm.bodies) == 30
    assert [note for note in notes if dead in note] == [
        f"{dead} was set aside (cannot connect); the other replicas took its requests"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["HTTP 503", "connection lost"])
def test_a_replica_that_fails_lastingly_is_set_aside(pair, kind):
    bad, good = pair

    async def fail(_number, request, _body):
        if kind == "connection lost":
            request.transport.abort()
        return web.json_response({"error": "down"}, status=503)

    bad.script = fail
    slow(good, 0.02)
    outcomes, notes = send(replicated(url(bad), url(good), concurrency=4, give_up_s=1.0), ask(120))
    assert all(isinstance(o, Answer) for o in outcomes)
    assert any(f"{url(bad)} was set aside ({kind})" in note for note in notes)
    assert len(bad.bodies) < 40


def test_one_off_failures_set_nothing_aside_and_are_tried_at_the_other(pair):
    failing = {3, 11, 40}

    async def once(_number, _request, body):
        if body["seed"] in failing:
            failing.discard(body["seed"])
            return web.json_response({"error": "busy"}, status=503)
        return None

    for server in pair:
        server.script = once
    outcomes, notes = send(replicated(*map(url, pair), concurrency=4), ask(60))
    assert all(isinstance(o, Answer) for o in outcomes)
    assert notes == ()
    sent = [[body["seed"] for body in server.bodies] for server in pair]
    assert all(seed in sent[0] and seed in sent[1] for seed in (3, 11, 40))


@pytest.mark.slow
def test_a_replica_that_hangs_is_left_and_one_that_comes_back_works_again(pair):
    hung, good = pair
    out = True

    async def hang(_number, _request, _body):
        await asyncio.sleep(1.0 if out else 0.01)

    hung.script = hang
    slow(good, 0.05)
    endpoint = replicated(url(hung), url(good), concurrency=4, timeout_s=0.3, give_up_s=5.0)
    with Ledger() as ledger, LLMClient(endpoint, ledger) as client:
        assert all(isinstance(o, Answer) for o in client.answer_requests(ask(100)))
        assert any("no answer in time" in note for note in tuple(client._ledger.met.notes))
        out = False
        before = len(hung.bodies)
        assert all(isinstance(o, Answer) for o in client.answer_requests(ask(300, start=100)))
        assert len(hung.bodies) > before + 20  # after its trial
    assert len({body["seed"] for server in pair for body in server.bodies}) == 400


@pytest.mark.slow
def test_the_run_stops_when_all_are_out_and_keeps_what_was_answered(pair, tmp_path):
    async def fail_later(number, _request, _body):
        return web.json_response({"error": "down"}, status=500) if number >= 5 else None

    for server in pair:
        server.script = fail_later
    path = tmp_path / "ledger.sqlite"
    with pytest.raises(EndpointUnreachable, match=r"no usable answer from \S+ and 1 more"):
        send(replicated(*map(url, pair), give_up_s=1.0, concurrency=2), ask(40), Ledger(path))
    with Ledger(path) as ledger:
        assert ledger.totals().requests == 10
    with pytest.raises(EndpointUnreachable, match="cannot connect"):
        send(replicated(dead_url(), dead_url(), give_up_s=0.5), ask(3))


def test_a_replica_that_lists_another_model_is_noted_by_its_address(pair):
    pair[1].models = ["large"]
    with Ledger() as ledger, LLMClient(replicated(*map(url, pair)), ledger) as client:
        client.answer_requests(ask(3))
        (note,) = tuple(client._ledger.met.notes)
    assert f"{url(pair[1])} does not serve model 'tiny'; it serves: large; it is asked all the same" in note


def test_health_is_told_from_limits_and_late_news():
    fleet = ReplicaPool(replicated("http://a/v1", "http://b/v1"), Compatibility(replicated("http://a/v1"), {}))
    one, other = fleet.replicas
    limit = Trouble(kind="HTTP 429", reason="", first=0.0, limited=True)
    down = Trouble(kind="HTTP 503", reason="", first=0.0)
    for k in range(50):
        one.note_trouble(limit, k, k + 0.1)
    assert not one.ailing
    for k in range(AILING_FAILURES):
        one.note_trouble(down, 60.0, 60.0 + 3 * k)
    assert one.ailing
    one.set_aside()
    assert fleet.choose() is other
    assert (one.room, fleet.has_other(one), fleet.has_other(other)) == (0, True, False)
    for _ in range(9):
        one.put_off()
    assert one.probe_s == LONGEST_PROBE_S
    one.try_again(100.0)
    assert one.room == 1
    one.note_trouble(down, 99.0, 101.0)  # sent before the trial began
    assert not one.ailing
    one.note_answer(100.5, 101.0)
    assert one.room > 1
    assert one.probe_s < LONGEST_PROBE_S


# --- identity -------------------------------------------------------------------------------------
def test_replicas_that_come_go_or_change_places_send_nothing_again(pair, tmp_path):
    a, b = map(url, pair)
    path = tmp_path / "ledger.sqlite"
    send(replicated(b), ask(10), Ledger(path))
    for urls in [(b, a), (a, b), (a,), (a, "http://127.0.0.1:9/v1"), (b,)]:
        outcomes, _ = send(replicated(*urls), ask(10), Ledger(path))
        assert all(o.replayed for o in outcomes)
    assert (len(pair[0].bodies), len(pair[1].bodies)) == (0, 10)
    send(replicated(a, b, model="other"), ask(1), Ledger(path))
    assert sum(len(server.bodies) for server in pair) == 11  # another model is another identity
    with Ledger(path) as ledger:
        assert {identity for _, identity in ledger.identities("tiny")} == {b}


def test_the_identity_is_that_of_answers_from_before_addresses_were_written_down():
    old, new = "http://z/v1", "http://a/v1"
    with Ledger() as ledger:
        endpoint, request = replicated(old), ask(1)[0]
        text = '{"body": {"model": "tiny"}, "endpoint": "http://z/v1"}'
        ledger.record(request_key(endpoint, request), text, Answer(text="x", finish_reason="stop"))
        ledger.flush()
        assert settle_identity(replicated(new, old), ledger).identity == old
        assert settle_identity(replicated(new), ledger).identity == old
    with Ledger() as empty:
        assert settle_identity(replicated(old, new), empty).identity == new  # the first in the alphabet
        named = replace(replicated(old), identity="mine")
        assert settle_identity(named, empty) == named


@pytest.mark.parametrize("known", ["replicas", "answers"])
@pytest.mark.parametrize("was", ["http://localhost:8/v1", "http://127.0.0.1:8/v1", "http://[::1]:8/v1"])
def test_spellings_of_one_host_are_one_endpoint_whatever_a_ledger_calls_it(was, known):
    with Ledger() as ledger:
        if known == "replicas":
            ledger.record_identity([was], "tiny", was)
        else:
            text = json.dumps({"body": {"model": "tiny"}, "endpoint": was})
            ledger.record("k", text, Answer(text="x", finish_reason="stop"))
            ledger.flush()
        for url in (
            "http://LocalHost:8/v1/",
            "http://127.0.0.1:8/v1",
            "http://[::1]:8/v1",
            "HTTP://u:p@localhost:8/v1",
        ):
            assert settle_identity(replicated(url), ledger).identity == was
        for url in ("http://localhost:9/v1", "http://localhost:8/V1", "https://localhost:8/v1"):
            assert settle_identity(replicated(url), ledger).identity != was


def test_localhost_and_its_number_ask_once(llm, tmp_path):
    for host in ("localhost", "127.0.0.1", "LOCALHOST"):
        outcomes, _ = send(replicated(f"http://{host}:{llm.port}/v1"), ask(3), Ledger(tmp_path / "ledger.sqlite"))
        assert all(isinstance(o, Answer) for o in outcomes)
    assert len(llm.bodies) == 3


@given(st.permutations(["http://a/v1", "http://b/v1/", "http://c/v1"]))
def test_keys_know_no_order_of_replicas(urls):
    assert request_key(replicated(*urls), ask(1)[0]) == request_key(replicated("http://a/v1"), ask(1)[0])


def test_an_address_twice_is_refused():
    with pytest.raises(ValueError, match="each address once"):
        replicated("http://a/v1", "http://a/v1/")


def test_keys_of_every_address_are_secret(pair):
    urls = [f"{url(pair[0])}?api_key=first-secret", f"{url(pair[1])}?api_key=second-secret"]
    endpoint = replicated(*urls)
    assert {"first-secret", "second-secret"} <= set(endpoint.secrets)
    assert "secret" not in endpoint.shown_url + endpoint.identity + "".join(endpoint.addresses) + repr(endpoint)
