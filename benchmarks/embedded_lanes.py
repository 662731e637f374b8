"""What dealing like prompts to one slot buys with the embedded LLM: rows a second, sorted against shuffled, in one run.

    python benchmarks/embedded_lanes.py

Both orders send the same requests to the same server, 16 at once. Sorted is what Cuvée does: the client gives each
run of prompts with a common beginning to one lane, whose slot of llama.cpp still holds that beginning.
"""

from __future__ import annotations

import time
from dataclasses import replace

from cuvee import Corpus, EmbeddedLLM, Ledger, Sampling, SamplingDial, split_corpus
from cuvee.fingerprint import derive_rng
from cuvee.generate.calls import Request
from cuvee.generate.client import LLMClient
from cuvee.generate.prompts import PromptWriter, WritingSpec
from cuvee.study.demo import read_headlines

ROUNDS = 2


def write_requests(seed: int) -> list[Request]:
    """The demo's prompts: 240 headlines, 4 seed examples a label."""
    corpus = Corpus.from_rows([{"text": text, "target": label} for text, label in read_headlines()])
    train = split_corpus(corpus, test=1100, validation=900, rows_per_label=4, seed=0).train
    sampling = Sampling(temperature=0.7, max_tokens=20)
    writer = PromptWriter(train, WritingSpec(describe="news headlines", sampling=sampling, seed=0), "completions")
    dial = SamplingDial(levels=[0.7])
    slots = [slot for block in range(4) for slot in dial.slots("0.7", train.labels, block, 12)]
    requests = [writer.ask(slot, 0).request for slot in slots]
    return [replace(r, seed=(r.seed + seed) % 2**31) for r in requests]


def main() -> None:
    rates: dict[str, list[float]] = {"sorted": [], "shuffled": []}
    with EmbeddedLLM() as llm, Ledger() as ledger, LLMClient(llm.endpoint, ledger) as client:
        for number in range(ROUNDS):
            for name in rates:
                requests = sorted(write_requests(2 * number + (name == "sorted")), key=lambda r: r.prompt or "")
                if name == "shuffled":
                    requests = [requests[i] for i in derive_rng(0, "shuffle").permutation(len(requests))]
                start = time.perf_counter()
                client.answer_requests(requests)
                rates[name].append(len(requests) / (time.perf_counter() - start))
                print(f"{name:>8}: {rates[name][-1]:.2f} rows/s")
    print(f"sorted over shuffled: {max(rates['sorted']) / max(rates['shuffled']):.2f} times")


if __name__ == "__main__":
    main()
