"""For labels nothing may change: requests, ledger keys, wordings and row ids are those of the first release."""

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
    ("topics", "completions"): "8268c53c59d184c3",
    ("topics", "chat"): "081d7aed2cdb1177",
    ("paraphrase", "completions"): "69c366e7d34e7034",
    ("paraphrase", "chat"): "c3b6e189fbb51dee",
    ("attributes", "completions"): "4ff22e8613244b66",
    ("attributes", "chat"): "5cbeefd2d404555a",
    ("examples", "completions"): "a76fddad91a72990",
    ("examples", "chat"): "f2eb945e577728f4",
    ("taboo", "completions"): "a865e6648af28b77",
    ("taboo", "chat"): "922e0183c5c5bc01",
    ("refine", "completions"): "70f41ad6ff511f57",
    ("refine", "chat"): "728aa39d29f23939",
    ("refine in chat", "completions"): "86e79060a29f69dd",
    ("refine in chat", "chat"): "6b0dad618a3e6d93",
}


def often_useless(body):
    return ["", "word", "Sure, here it is"][body["seed"] % 3] if body["seed"] % 4 == 0 else write_text(body)


@pytest.mark.parametrize("api", ["completions", "chat"])
@pytest.mark.parametrize("name", DIALS)
def test_requests_wordings_and_ids_are_the_same_bytes_as_ever(llm, train, name, api):
    llm.text = often_useless
    with Ledger() as ledger:
        pools = generate_pools(
            train, dial=DIALS[name], blocks=(0, 1), rows_per_label=4, endpoint=llm.endpoint(api=api, concurrency=8),
            ledger=ledger, sampling=Sampling(temperature=0.7), describe="short messages", seed=11,
        )  # fmt: skip
    rows = [
        [*(row[name] for name in ("id", "request_key", "prompt_hash", "attempts", "draft_key")), text]
        for pool in pools
        for row, text in zip(pool.provenance.to_pylist(), pool.corpus.texts, strict=True)
    ]
    rejected = [[q.slot, q.reason, q.request_key] for pool in pools for q in pool.quarantine]
    assert hash_value([rows, rejected])[:16] == PINNED[name, api]
