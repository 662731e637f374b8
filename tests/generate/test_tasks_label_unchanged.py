"""For labels nothing may change: requests, ledger keys and row ids are those of the first release."""

import pytest

from asking import generate_pools
from cuvee.fingerprint import hash_value
from cuvee.generate.calls import Sampling
from cuvee.generate.dials import AttributesDial, BaseThenRefineDial, ExamplesDial, ParaphraseDial, TabooDial, TopicsDial
from cuvee.generate.ledger import Ledger
from local_llm import write_text

TOPICS = {"alpha": ["lost_card", "fees"], "beta": ["rain", "snow in May"]}
DIALS = {
    "topics": TopicsDial(levels=[1, 2], topics=TOPICS),
    "paraphrase": ParaphraseDial(levels=[0, 1], sources=2),
    "attributes": AttributesDial(levels=[2], dimensions={"tone": ["dry_humour", "plain"], "length": ["short", "long"]}),
    "examples": ExamplesDial(levels=[2, 6], shown=3),
    "taboo": TabooDial(levels=[2], read=2),
    "refine": BaseThenRefineDial(levels=[0.5]),
    "refine in chat": BaseThenRefineDial(levels=[0.5], draft="chat"),
}
PINNED = {
    ("topics", "completions"): "12b8bf61e70ce46c",
    ("topics", "chat"): "11479a700e3ebe67",
    ("paraphrase", "completions"): "192fdac994a4088b",
    ("paraphrase", "chat"): "62fa9aa10ac5e08c",
    ("attributes", "completions"): "5df8d61203faff8a",
    ("attributes", "chat"): "e030d63c371a220d",
    ("examples", "completions"): "6197de5763f9ad70",
    ("examples", "chat"): "ae9de78ce2f00d8b",
    ("taboo", "completions"): "622e5a54c269c168",
    ("taboo", "chat"): "d391d872ad329ab9",
    ("refine", "completions"): "c57c3e0291dc38b6",
    ("refine", "chat"): "514f16a96e8b90fa",
    ("refine in chat", "completions"): "ed956cac3b2ca5f3",
    ("refine in chat", "chat"): "a024b1da4c4c008f",
}


def often_useless(body):
    return ["", "word", "Sure, here it is"][body["seed"] % 3] if body["seed"] % 4 == 0 else write_text(body)


@pytest.mark.parametrize("api", ["completions", "chat"])
@pytest.mark.parametrize("name", DIALS)
def test_requests_and_ids_are_the_same_bytes_as_ever(llm, train, name, api):
    llm.text = often_useless
    with Ledger() as ledger:
        pools = generate_pools(
            train, dial=DIALS[name], blocks=(0, 1), rows_per_label=4, endpoint=llm.endpoint(api=api, concurrency=8),
            ledger=ledger, sampling=Sampling(temperature=0.7), describe="short messages", seed=11,
        )  # fmt: skip
    rows = [
        [*(row[name] for name in ("id", "request_key", "attempts", "draft_key")), text]
        for pool in pools
        for row, text in zip(pool.provenance.to_pylist(), pool.corpus.texts, strict=True)
    ]
    rejected = [[q.slot, q.reason, q.request_key] for pool in pools for q in pool.quarantine]
    assert hash_value([rows, rejected])[:16] == PINNED[name, api]
