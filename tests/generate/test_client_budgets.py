import asyncio
from dataclasses import replace

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from cuvee.errors import BudgetReached, EndpointError
from cuvee.generate.calls import Endpoint, Request, Sampling
from cuvee.generate.client import LLMClient
from cuvee.generate.ledger import Ledger
from cuvee.generate.replicas import BudgetGuard, worst_case
from cuvee.records import Budget, Prices, Usage

PRICES = Prices(prompt_per_million=1_000_000.0, completion_per_million=2_000_000.0, currency="EUR")


def ask(n, max_tokens=20):
    return [Request(prompt="p" * 16, sampling=Sampling(max_tokens=max_tokens), seed=i) for i in range(n)]


def test_a_run_without_budget_says_what_it_spent_and_replays_cost_nothing(llm):
    with Ledger() as ledger:
        with LLMClient(llm.endpoint(prices=PRICES), ledger) as client:
            client.answer_requests(ask(4))
            spent = client._budget_guard.spent
            assert (spent.requests, spent.prompt_tokens, spent.completion_tokens) == (4, 28, 20)
        with LLMClient(llm.endpoint(prices=PRICES), ledger) as client:
            client.answer_requests(ask(4))
            assert client._budget_guard.spent == Usage()


def test_requests_stop_at_the_budget_and_a_higher_one_goes_on(llm, tmp_path):
    """A budget is the ledger's, not a run's: what was spent before counts, and is told apart."""
    path = tmp_path / "ledger.sqlite"
    told = {5: "0 requests, 0 tokens", 9: "5 requests, 60 tokens"}
    for most, before in told.items():
        for again in range(2):
            spent = before if again == 0 else f"{most} requests, {12 * most} tokens"
            expected = rf"budget \(requests {most}\); spent: {most} requests, {12 * most} tokens; .* this run: {spent};"
            with Ledger(path) as ledger, LLMClient(llm.endpoint(budget=Budget(requests=most)), ledger) as client:
                with pytest.raises(BudgetReached, match=expected) as caught:
                    client.answer_requests(ask(12))
                assert client._budget_guard.spent.requests == (0 if again else most - int(before[0]))
            assert len(llm.bodies) == most
        assert "kept" in str(caught.value)
        assert "raise the budget" in str(caught.value)
        assert isinstance(caught.value, EndpointError)
    with Ledger(path) as ledger, LLMClient(llm.endpoint(budget=Budget(requests=12)), ledger) as client:
        assert len(client.answer_requests(ask(12))) == 12
    assert len(llm.bodies) == 12


def test_tokens_and_money_spent_before_count_too(llm, tmp_path):
    path = tmp_path / "ledger.sqlite"
    for budget in (Budget(tokens=200), Budget(cost=17.0 * 12)):
        with Ledger(path) as ledger, LLMClient(llm.endpoint(budget=budget, prices=PRICES), ledger) as client:
            with pytest.raises(BudgetReached):
                client.answer_requests(ask(100))
            assert ledger.totals().requests == len(llm.bodies) == 9  # the last one started with 100 of 200 left
    with Ledger() as ledger, LLMClient(llm.endpoint(budget=Budget(tokens=200)), ledger) as client:
        client.answer_requests(ask(1))  # a ledger in memory begins at nothing


def test_a_budget_holds_for_all_clients_of_an_open_ledger(llm):
    endpoint = llm.endpoint(budget=Budget(requests=5))
    with Ledger() as ledger:
        with LLMClient(endpoint, ledger) as client:
            client.answer_requests(ask(3))
        with LLMClient(endpoint, ledger) as client, pytest.raises(BudgetReached):
            client.answer_requests(ask(9))
    assert len(llm.bodies) == 5


@pytest.mark.parametrize("budget", [Budget(tokens=500), Budget(cost=600.0)])
def test_tokens_and_cost_are_never_passed_even_if_every_answer_is_as_long_as_it_may_be(llm, budget):
    """16 bytes may be 80 tokens with a template, and an answer 20."""

    async def greedy(_number, _request, body):
        await asyncio.sleep(0.005)
        usage = {"prompt_tokens": 80, "completion_tokens": 20}
        return web.json_response({"choices": [{"text": f"{body['seed']}", "finish_reason": "stop"}], "usage": usage})

    llm.script = greedy
    with Ledger() as ledger, LLMClient(llm.endpoint(budget=budget, prices=PRICES), ledger) as client:
        with pytest.raises(BudgetReached):
            client.answer_requests(ask(50))
        assert client._budget_guard.spent.requests == len(llm.bodies) == 5
        assert llm.most_at_once <= 5


def test_cheap_answers_free_what_was_feared(llm):
    with Ledger() as ledger, LLMClient(llm.endpoint(budget=Budget(tokens=500)), ledger) as client:
        with pytest.raises(BudgetReached):
            client.answer_requests(ask(100))
        assert client._budget_guard.spent.requests == (500 - 100) // 12 + 1  # the last one started with 100 left for it


def test_requests_cut_off_count_at_their_worst(llm):
    async def hang(number, _request, _body):
        if number == 0:
            await asyncio.sleep(30)

    llm.script = hang
    endpoint = llm.endpoint(budget=Budget(requests=3), timeout_s=0.2, concurrency=1)
    with Ledger() as ledger, LLMClient(endpoint, ledger) as client:
        with pytest.raises(BudgetReached, match=r"2 requests \(1 more cut off unanswered\)"):
            client.answer_requests(ask(5))
        assert client._budget_guard.lost.requests == 1
    assert len(llm.bodies) == 3


def test_refused_requests_cost_nothing(llm):
    async def busy(number, _request, _body):
        return web.json_response({"error": "busy"}, status=503) if number < 2 else None

    llm.script = busy
    with Ledger() as ledger, LLMClient(llm.endpoint(budget=Budget(requests=2)), ledger) as client:
        assert len(client.answer_requests(ask(2))) == 2
        assert client._budget_guard.spent.requests == 2


def test_without_usage_the_worst_case_counts_and_a_note_says_so(llm):
    async def silent(_number, _request, _body):
        return web.json_response({"choices": [{"text": "words", "finish_reason": "stop"}]})

    llm.script = silent
    with Ledger() as ledger, LLMClient(llm.endpoint(), ledger) as client:
        client.answer_requests(ask(1))
        assert (client._budget_guard.spent.prompt_tokens, client._budget_guard.spent.completion_tokens) == (80, 20)
        assert any("no usage" in note for note in tuple(client._ledger.met.notes))


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 30), st.floats(0, 1), st.booleans()), max_size=40),
    st.integers(0, 2000),
)
def test_whatever_answers_cost_the_sum_stays_within_the_budget(calls, tokens):
    async def spend():
        purse = BudgetGuard(Budget(tokens=tokens), None, before=Usage(), where="x")
        cost = 0
        for size, most, used, lost in calls:
            worst = worst_case(size, most)
            try:
                await purse.reserve(worst)
            except BudgetReached:
                return cost
            cost += round(used * (worst.prompt_tokens + most))
            actual = Usage(requests=1, prompt_tokens=round(used * (worst.prompt_tokens + most)))
            purse.settle(worst, None if lost else actual, lost=lost)
        return cost

    assert asyncio.run(spend()) <= tokens


def test_a_budget_in_money_needs_prices():
    with pytest.raises(ValueError, match=r"budget\.cost 2\.0 needs prices"):
        Endpoint(base_url="http://one/v1", model="m", budget=Budget(cost=2.0))
    endpoint = Endpoint(base_url="http://one/v1", model="m", budget=Budget(cost=2.0), prices=PRICES)
    assert replace(endpoint, budget=None).budget is None
    assert str(Budget(requests=1000, cost=0.5)) == "requests 1,000, cost 0.5"
