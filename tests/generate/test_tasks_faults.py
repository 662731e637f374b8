"""Every fault that an endpoint can make, 2% each: all in the quarantine, and no good answer lost."""

import asyncio
import hashlib
import json
from collections import Counter

import pytest
from aiohttp import web

from asking import generate_pools
from cuvee.corpus import Corpus
from cuvee.generate.calls import Sampling
from cuvee.generate.dials import SamplingDial
from cuvee.generate.ledger import Ledger

ROWS = 600
TRAIN = {
    "label": Corpus.from_rows(
        [{"text": f"real {label} row {i}", "target": label} for label in ("alpha", "beta") for i in range(6)]
    ),
    "instruction": Corpus.from_rows(
        [{"text": f"real task {i}", "target": f"real response {i}" + " and so on" * 9} for i in range(6)],
        task="generation",
    ),
}
FAULTS = {
    "malformed": "malformed",
    "refusal": "chatter",
    "empty": "empty",
    "truncated": "truncated",
    "wrong": "wrong label",
    "repeat": "duplicate",
    "debris": "chatter",
    "echo": "copy of the prompt",
    "refused": "HTTP 400",
}
NOT_OF = {"label": "malformed", "instruction": "wrong"}
"""Faults that a kind cannot have."""
REPEATED = "the quiet harbor lights went out again on the last night of a long and cold winter"


class Faulty:
    """Answers each request by a hash of its seed: well, or with one of the faults, ``percent`` each."""

    def __init__(self, kind, percent=2):
        self.kind = kind
        self.percent = percent
        self.said = {}  # seed -> (fault or None, raw answer)

    def fault_of(self, seed):
        point = int(hashlib.sha256(f"fault {seed}".encode()).hexdigest()[:8], 16) % 100
        place = point // self.percent
        names = [
            n for n in FAULTS if (n != "wrong" or self.kind == "label") and (n != "malformed" or self.kind != "label")
        ]
        return names[place] if place < len(names) else None

    def wrap(self, text):
        return text if self.kind == "label" else json.dumps({"instruction": text, "response": f"Well.\n\n{text[::-1]}"})

    def write(self, fault, seed):
        digest = hashlib.sha256(str(seed).encode()).hexdigest()
        good = " ".join(digest[i : i + 6].translate(str.maketrans("0123456789", "ghijklmnop")) for i in range(0, 36, 6))
        return {
            None: self.wrap(good),
            "malformed": '{"instruction": "' + good + '", "response": ',
            "refusal": "I'm sorry, but I can't help with that.",
            "empty": "",
            "truncated": self.wrap(good)[:-3],
            "wrong": f"wrongly {good}",
            "repeat": self.wrap(REPEATED),
            "debris": f"<|im_start|>assistant\n{self.wrap(good)}<|im_end|>"
            if self.kind == "label"
            else "[INST] no pair",
            "echo": self.wrap("It must differ from those above."),
            "refused": "",
        }[fault]

    async def script(self, _number, _request, body):
        fault = self.fault_of(body["seed"])
        raw = self.write(fault, body["seed"])
        self.said[body["seed"]] = (fault, raw)
        await asyncio.sleep(0.0005 * (body["seed"] % 5))
        if fault == "refused":
            return web.json_response({"error": {"message": "this one is not allowed"}}, status=400)
        choice = {"message": {"content": raw}, "finish_reason": "length" if fault == "truncated" else "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})


def agrees(texts, labels):
    assert len(texts) == len(labels)
    return [not text.startswith("wrongly") for text in texts]


def generate(llm, kind, faulty, ledger, attempts):
    llm.script = faulty.script
    train = TRAIN[kind]
    (pool,) = generate_pools(
        train, dial=SamplingDial(levels=[1.0]), blocks=(0,), rows_per_label=ROWS // (2 if kind == "label" else 1),
        endpoint=llm.endpoint(api="chat", concurrency=16), ledger=ledger, sampling=Sampling(), describe="texts", seed=1,
        kind=kind, agrees=agrees if kind == "label" else None, attempts=attempts,
    )  # fmt: skip
    return pool


@pytest.mark.parametrize("kind", TRAIN)
def test_all_faults_are_in_the_quarantine_and_no_good_answer_is_lost(llm, kind):
    faulty = Faulty(kind)
    with Ledger() as ledger:
        pool = generate(llm, kind, faulty, ledger, attempts=1)
        requests = {row["request_key"]: row for row in pool.provenance.to_pylist()}
        assert set(requests).isdisjoint(q.request_key for q in pool.quarantine)
        for q in pool.quarantine:
            if not q.reason.startswith("HTTP"):
                assert ledger.lookup(q.request_key).text == q.text
    injected = Counter(fault for fault, _ in faulty.said.values())
    assert set(injected) == {None, *FAULTS} - {NOT_OF[kind]}
    failed = [q for q in pool.quarantine if q.failed]
    assert pool.requested == ROWS == len(pool.corpus) + len(pool.rejected) + len(failed)
    wanted = Counter()
    for fault, count in injected.items():
        if fault is not None:
            wanted[FAULTS[fault]] += count
    wanted["duplicate"] -= 1  # the first of them is like no row before it
    assert Counter(q.reason.partition(":")[0] for q in pool.quarantine) == +wanted
    assert (len(pool.corpus), len(failed)) == (injected[None] + 1, injected["refused"])
    by_raw = Counter((FAULTS[f], raw) for f, raw in faulty.said.values() if f not in (None, "refused", "repeat"))
    kept = Counter((q.reason, q.text) for q in pool.quarantine if q.reason != "duplicate" and q.text != "")
    assert kept == Counter({pair: n for pair, n in by_raw.items() if pair[1]})
    assert {q.attempt for q in pool.quarantine} == {0}
    assert all("not allowed" in q.reason for q in pool.quarantine if q.reason.startswith("HTTP"))
    good = {json.loads(raw)["instruction"] if kind != "label" else raw for f, raw in faulty.said.values() if f is None}
    assert good < set(pool.corpus.texts)


@pytest.mark.slow  # with the others of its kind
@pytest.mark.parametrize("kind", TRAIN)
def test_with_attempts_enough_only_requests_that_failed_for_good_leave_a_slot_empty(llm, kind):
    faulty = Faulty(kind)
    with Ledger() as ledger:
        pool = generate(llm, kind, faulty, ledger, attempts=8)
    failed = sum(fault == "refused" for fault, _ in faulty.said.values())
    assert (pool.requested, pool.short, sum(q.failed for q in pool.quarantine)) == (ROWS, failed, failed)
    assert len(faulty.said) - failed == len(pool.corpus) + len(pool.rejected)
    assert len(pool.corpus) == len(set(pool.corpus.texts)) == ROWS - failed
    retried = [q for q in pool.quarantine if not q.reason.startswith("HTTP")]
    assert {q.attempt for q in retried} >= {0, 1}
    if kind == "instruction":
        assert all("\n\n" in target for target in pool.corpus.targets)
