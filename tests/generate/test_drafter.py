"""Drafts of one LLM, refined by another: who is asked what, and who is paid for it."""

import json

import pytest

from cuvee.errors import BudgetReached, ConfigError, GenerationError
from cuvee.generate import (
    BaseThenRefineDial,
    Budget,
    CombinedDial,
    Drafter,
    Ledger,
    LLMClient,
    OpenedLLM,
    Prices,
    Sampling,
    SamplingDial,
    TopicsDial,
    generate_pools,
    generate_to_target,
    provenance_table,
    summarise,
)
from cuvee.generate.spending import Meter, Tariff
from cuvee.generate.targets import Target
from local_llm import LocalLLM

DIAL = BaseThenRefineDial(levels=[0.9, 1.3])


@pytest.fixture
def base():
    server = LocalLLM()
    server.models = ["base", "larger"]
    yield server
    server.close()


def drafter(base, *, model="base", sampling=None, keep=False, open_client=LLMClient, **settings):
    endpoint = base.endpoint(model=model, identity="drafts", **settings)
    return Drafter(llm=OpenedLLM(endpoint=endpoint, open_client=open_client), sampling=sampling, keep_truncated=keep)


def generate(llm, train, by, ledger, dial=DIAL, **settings):
    given = {"blocks": [0], "rows_per_label": 4, "sampling": Sampling(temperature=0.3), "seed": 1, **settings}
    return generate_pools(train, dial=dial, endpoint=llm.endpoint(), ledger=ledger, drafter=by, **given)


def test_drafts_go_to_the_one_and_refinements_to_the_other(llm, base, train):
    with Ledger() as ledger:
        pools = generate(llm, train, drafter(base, sampling=Sampling(top_p=0.9, max_tokens=33)), ledger)
    assert len(base.bodies) >= 16 <= len(llm.bodies)
    assert {(b["temperature"], b["top_p"], b["max_tokens"], b["model"]) for b in base.bodies} == {
        (0.9, 0.9, 33, "base"), (1.3, 0.9, 33, "base"),
    }  # fmt: skip
    assert {(b["temperature"], b["top_p"], b["model"]) for b in llm.bodies} == {(0.3, 1.0, "tiny")}
    drafts = {base.text(body) for body in base.bodies}
    assert all(any(draft in body["prompt"] for draft in drafts) for body in llm.bodies)
    for pool in pools:
        rows = provenance_table(pool).to_pylist()
        assert {(row["model"], row["draft_model"]) for row in rows} == {("tiny", "base")}
        assert pool.draft_usage.requests == pool.usage.requests / 2 == 8
        assert set(pool.corpus.table["generator"].to_pylist()) == {"tiny"}


def test_another_draft_model_has_drafts_and_what_hangs_on_them_sent_again_and_nothing_else(llm, base, train, tmp_path):
    base.text = lambda body: f"{body['model']} {body['seed']} written down in words"
    path = tmp_path / "l.sqlite"
    topics = TopicsDial(levels=[1], topics={"alpha": ["tea"], "beta": ["sea"]})
    for model in ("base", "base", "larger"):
        sent = len(base.bodies), len(llm.bodies)
        with Ledger(path) as ledger:
            generate(llm, train, drafter(base, model=model), ledger)
            generate(llm, train, None, ledger, dial=topics)
        new = len(base.bodies) - sent[0], len(llm.bodies) - sent[1]
        if model == "larger":
            assert new == (16, 16)
        else:
            assert new == ((16, 24) if sent == (0, 0) else (0, 0))


def test_an_equal_request_to_both_is_two_requests(llm, base, train):
    dial = BaseThenRefineDial(levels=[0.9])
    with Ledger() as ledger:
        generate(llm, train, drafter(base), ledger, dial=dial)
        drafts = [json.dumps(body["prompt"]) for body in base.bodies]
        generate(llm, train, None, ledger, dial=dial)
    assert all(json.dumps(body["prompt"]) not in drafts for body in llm.bodies[:8])
    assert sum(json.dumps(body["prompt"]) in drafts for body in llm.bodies) == 8  # now it drafts itself


def test_a_drafter_without_drafts_is_refused_before_anything_is_asked(llm, base, train):
    with Ledger() as ledger, pytest.raises(ConfigError, match="dial 'sampling' drafts nothing; leave it out"):
        generate(llm, train, drafter(base), ledger, dial=SamplingDial(levels=[1.0]))
    assert not base.bodies + llm.bodies


def test_broken_drafts_are_kept_or_not_as_the_drafter_says(llm, base, train):
    base.finish_reason = "length"
    with Ledger() as ledger:
        (pool, _) = generate(llm, train, drafter(base, keep=True), ledger)
        assert len(pool.corpus) == 8
        with pytest.raises(GenerationError, match="rejected as truncated"):
            generate(llm, train, drafter(base), ledger, keep_truncated=True, attempts=2)


@pytest.mark.parametrize("place", ["first", "second"])
def test_a_combined_dial_drafts_too_and_a_target_is_searched(llm, base, train, place):
    topics = TopicsDial(levels=[1, 2], topics={"alpha": ["tea", "oil"], "beta": ["sea", "law"]})
    parts = (DIAL, topics) if place == "first" else (topics, DIAL)
    with Ledger() as ledger:
        generate(llm, train, drafter(base), ledger, dial=CombinedDial(*parts))
        assert base.bodies
        found = generate_to_target(
            train, dial=DIAL, score=len, target=Target(metric_name="rows", value=8, tolerance=0), budget_rows=99,
            rows_per_label=4, endpoint=llm.endpoint(), ledger=ledger, drafter=drafter(base),
        )  # fmt: skip
    assert found.reached


def test_each_has_its_budget_and_its_prices(llm, base, train):
    cheap = Prices(prompt_per_million=1e5, completion_per_million=0, currency="EUR")
    dear = Prices(prompt_per_million=1e6, completion_per_million=1e6, currency="EUR")
    tariff = Tariff(default=dear, others={("drafts", "base"): cheap})

    def of_drafts(identity, model):
        return (identity, model) == ("drafts", "base")

    def open_bounded(endpoint, ledger):
        return LLMClient(endpoint, ledger, counted=of_drafts)

    with Ledger() as ledger:
        meter = Meter(ledger, tariff)
        generate(llm, train, None, ledger, dial=SamplingDial(levels=[1.0]))  # 8 requests of the other's
        with pytest.raises(BudgetReached, match="spent: 10 requests"):
            bounded = drafter(base, open_client=open_bounded, budget=Budget(requests=10), concurrency=1)
            generate(llm, train, bounded, ledger)
        generate(llm, train, drafter(base, open_client=open_bounded, budget=Budget(requests=16)), ledger)
        found = summarise(ledger, tariff)
        spent = {(part.endpoint, part.model): (part.requests, part.cost) for part in found.by_endpoint}
        assert spent["drafts", "base"] == (16, pytest.approx(16 * 7 * 0.1))
        assert spent["local", "tiny"] == (24, pytest.approx(24 * 12))
        assert found.cost == pytest.approx(16 * 0.7 + 24 * 12)
        assert meter().endswith(f"{found.cost:.4f} EUR")
        assert Meter(ledger, tariff)().endswith(f"{found.cost:.4f} EUR")
    assert tariff.cost("gguf:1", "x", 10, 10) == 0.0
    with pytest.raises(ValueError, match="in EUR"):
        Tariff(default=dear, others={("a", "b"): Prices(prompt_per_million=1, completion_per_million=1)})
