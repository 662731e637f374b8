import asyncio
import time

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from cuvee.generate.calls import Request, Sampling
from cuvee.generate.client import LLMClient
from cuvee.generate.dispatch import RequestQueue
from cuvee.generate.ledger import Ledger
from cuvee.generate.replicas import FIRST_WINDOW, Window

pytestmark = pytest.mark.slow  # each is quick, together they are not


def ask(n, **settings):
    return [Request(prompt=f"question {i}", sampling=Sampling(), seed=i, **settings) for i in range(n)]


def test_the_window_starts_low_grows_to_its_maximum_and_no_further():
    window = Window(256, timeout_s=60)
    assert window.size == FIRST_WINDOW
    answers = 0
    while window.size < 256:
        window.note_answer(answers * 0.01, answers * 0.01 + 0.5)
        answers += 1
    assert answers <= FIRST_WINDOW  # within one round trip
    window.note_answer(9.0, 9.5)
    assert window.size == 256
    assert Window(8, timeout_s=60).size == 8


def test_one_off_failures_leave_the_window_alone_and_many_halve_it_once_a_round_trip():
    window = Window(256, timeout_s=60)
    for k in range(400):
        if k % 10 == 0:
            window.note_trouble(k, k + 0.1, timed_out=False)
        else:
            window.note_answer(k, k + 0.5)
        assert window.calm
    assert window.size == 256
    for k in range(100):  # all sent at once, all refused
        window.note_trouble(1000.0, 1000.1 + k / 1000, timed_out=False)
    assert window.size == 128
    assert not window.calm
    window.note_trouble(1000.5, 1000.6, timed_out=False)
    assert window.size == 64
    for k in range(32):  # answers to what was sent before the halving say nothing of the new size
        window.note_answer(1000.0, 1001.0 + k)
    assert window.size == 64
    for k in range(64):
        window.note_answer(1002.0 + k, 1003.0 + k)
    assert 76 <= window.size <= 84  # a sixteenth of the maximum each round trip


def test_a_timeout_halves_at_once_and_the_window_never_closes():
    window = Window(64, timeout_s=1)
    for k in range(20):
        window.note_trouble(2.0 * k, 2.0 * k + 1, timed_out=True)
        assert window.size == max(1, 64 >> (k + 1))
    window.note_answer(50, 50.1)
    assert window.size > 1


def test_the_window_stands_still_while_answers_wait_in_a_queue():
    window = Window(256, timeout_s=10)
    window.note_answer(0.0, 1.0)
    for k in range(1, 40):
        window.note_answer(k, k + 8.0)
    queued = window.size
    for k in range(40, 60):
        window.note_answer(k, k + 8.0)
    assert window.size == queued < 256
    slow = Window(256, timeout_s=10)
    for k in range(100):
        slow.note_answer(k, k + 8.0)  # a slow model is no queue
    assert slow.size == 256


@given(st.lists(st.tuples(st.sampled_from("agt"), st.floats(0, 3)), max_size=200), st.integers(1, 256))
def test_the_window_stays_between_one_and_its_maximum(events, most):
    window, now = Window(most, timeout_s=2), 0.0
    for kind, took in events:
        now += took
        if kind == "a":
            window.note_answer(now - took, now)
        else:
            window.note_trouble(now - took, now, timed_out=kind == "t")
        assert 1 <= window.size <= most


@given(st.integers(0, 60), st.integers(1, 20), st.lists(st.sampled_from(["open", "close", "take"]), max_size=80))
def test_lanes_hand_out_every_request_once_however_they_open_and_close(n, count, moves):
    lanes = RequestQueue(ask(n), count)
    open_lanes, taken = [], []
    for move in moves:
        if move == "open":
            open_lanes.append(lanes.open())
            assert len(set(open_lanes)) == len(open_lanes)
        elif open_lanes and move == "close":
            lanes.close(open_lanes.pop(0))
        elif open_lanes and (request := lanes.take(open_lanes[-1])) is not None:
            taken.append(request)
        assert lanes.left == n - len(taken)
    last = lanes.open()
    taken.extend(iter(lambda: lanes.take(last), None))
    assert sorted(r.seed for r in taken) == list(range(n))


def test_a_lane_opened_late_splits_the_longest_run():
    lanes = RequestQueue(ask(8), 1)
    first = lanes.open()
    assert [lanes.take(first).seed for _ in range(2)] == [0, 1]
    second = lanes.open()
    assert [lanes.take(second).seed, lanes.take(first).seed, lanes.take(second).seed] == [5, 2, 6]


def test_concurrency_adapts_beyond_its_start_and_an_int_bounds_it(llm):
    async def slow(_number, _request, _body):
        await asyncio.sleep(0.2)

    llm.script = slow
    with Ledger() as ledger, LLMClient(llm.endpoint(), ledger) as client:
        client.answer_requests(ask(320))
        assert FIRST_WINDOW < client._pool.size <= 256  # fewer where a busy machine is slow to answer
    assert FIRST_WINDOW < llm.most_at_once <= 256
    llm.most_at_once = 0
    with Ledger() as ledger, LLMClient(llm.endpoint(concurrency=70), ledger) as client:
        client.answer_requests(ask(140))
    assert FIRST_WINDOW < llm.most_at_once <= 70


@pytest.mark.slow  # with the others of its kind
def test_a_server_that_takes_few_at_once_is_found_out(llm):
    """More than eight at once are refused: the window ends near eight, and all are answered."""

    async def crowded(_number, _request, _body):
        if llm._at_once > 8:
            return web.json_response({"error": "too many"}, status=429)
        await asyncio.sleep(0.01)
        return None

    llm.script = crowded
    with Ledger() as ledger, LLMClient(llm.endpoint(give_up_s=30), ledger) as client:
        assert all(a.text for a in client.answer_requests(ask(150)))
        assert client._pool.size < FIRST_WINDOW
        assert ledger.met.retries == len(llm.bodies) - 150


@pytest.mark.slow
def test_one_off_limits_are_waited_out_while_the_rest_goes_on(llm):
    """A tenth answered 429 with Retry-After: 3, once: none is sent again earlier, and the run loses little more."""
    troubled = False

    async def limit(_number, _request, body):
        if troubled and body["seed"] % 10 == 0 and not any(b["seed"] == body["seed"] for b in llm.bodies[:-1]):
            return web.json_response({"error": "slow down"}, status=429, headers={"Retry-After": "3"})
        await asyncio.sleep(0.05)
        return None

    def run():
        llm.bodies, llm.times = [], []
        start = time.monotonic()
        with Ledger() as ledger, LLMClient(llm.endpoint(concurrency=16), ledger) as client:
            assert all(a.text for a in client.answer_requests(ask(400)))
        return time.monotonic() - start

    llm.script = limit
    clean = run()
    troubled = True
    took = run()
    sent = {}
    for body, at in zip(llm.bodies, llm.times, strict=True):
        sent.setdefault(body["seed"], []).append(at)
    again = [times for times in sent.values() if len(times) > 1]
    assert len(again) == 40
    assert all(later - first >= 3.0 for first, later in again)
    assert took <= 2 * clean + 4
