"""Does measured diversity rise with the level? The embedded LLM, BBC headlines, one pool a level.

    python docs/studies/dials_headlines.py

Prints the table of dials_headlines.md. About eight minutes on two idle cores.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from cuvee.corpus import Corpus, split_corpus
from cuvee.encoders import load_encoder
from cuvee.generate.client import OpenedLLM
from cuvee.generate.dials import (
    AttributesDial,
    BaseThenRefineDial,
    CombinedDial,
    Dial,
    ExamplesDial,
    ParaphraseDial,
    SamplingDial,
    TabooDial,
    TopicsDial,
)
from cuvee.generate.embedded import EmbeddedLLM
from cuvee.generate.ledger import Ledger
from cuvee.generate.pools import GenerationSpec, generate_pools
from cuvee.measure import measure_corpus
from cuvee.records import Sampling
from cuvee.study.demo import make_demo, read_headlines

ROWS = 16
with TemporaryDirectory() as folder:
    TOPICS = make_demo(Path(folder), small=True).model_dump()["dials"][0]["topics"]
METRICS = ["vendi_q1", "dcscore_tau0.1", "distinct_2", "near_duplicate_rate"]
DIMENSIONS = {
    "tone": ["dry", "excited", "worried", "mocking"],
    "length": ["four words", "ten words"],
    "view": ["from Asia", "from Europe"],
}


def make_dials() -> list[Dial]:
    """Eight dials with at least three levels each."""
    return [
        TopicsDial(levels=[1, 2, 4, 8], topics=TOPICS),
        ParaphraseDial(levels=[5, 3, 1, 0], sources=2),
        SamplingDial(levels=[0.2, 0.6, 1.0, 1.4]),
        ExamplesDial(levels=[1, 4, 16]),
        AttributesDial(levels=[1, 4, 16], dimensions=DIMENSIONS),
        TabooDial(levels=[1, 2, 4]),
        BaseThenRefineDial(levels=[0.3, 0.8, 1.3]),
        CombinedDial(
            first=TopicsDial(levels=[1, 2, 4, 8], topics=TOPICS),
            second=SamplingDial(levels=[0.3, 0.6, 0.9, 1.2]),
            levels=["1 x 0.3", "2 x 0.6", "4 x 0.9", "8 x 1.2"],
        ),
    ]


def main() -> None:
    """Generate, measure, print."""
    rows = Corpus.from_rows({"text": text, "target": label} for text, label in read_headlines())
    train = split_corpus(rows, test=0.3, validation=0.3, rows_per_label=16, seed=0).train
    encoder = load_encoder()
    print("| dial | level | rows | Vendi q=1 | DCScore tau=0.1 | distinct-2 | near-duplicates |")
    print("|---|---|---|---|---|---|---|")
    sampling = Sampling(temperature=0.7, max_tokens=24)
    spec = GenerationSpec(rows_per_label=ROWS, sampling=sampling, describe="news headlines")
    with EmbeddedLLM() as llm, Ledger() as ledger:
        for dial in make_dials():
            pools = generate_pools(train, spec, dial, OpenedLLM(endpoint=llm.endpoint), ledger)
            least = min(len(pool.corpus) for pool in pools)
            for pool in pools:
                found = measure_corpus(pool.corpus, encoder=encoder, metrics=METRICS, rows=least).values
                shown = [f"{e.value:.3g} [{e.low:.3g}, {e.high:.3g}]" for e in (found[m] for m in METRICS)]
                print(f"| {dial.name} | {pool.level.name} | {least} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
