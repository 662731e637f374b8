"""What asking for several rows at once buys and costs with the embedded LLM: headlines, one against several a request.

    python benchmarks/rows_per_request.py [ROWS ...]

For each number of rows: rows a CPU-second and prompt tokens for each written one, and of the pools their measured
diversity (Vendi at equal rows, with the interval of groups) and the accuracy of the probe on 900 validation headlines
with 4 real rows a label and the pool, as mean over generation draws with its standard error.
"""

from __future__ import annotations

import resource
import sys

import numpy as np

from cuvee import Corpus, Ledger, Sampling, SamplingDial, measure_corpus, split_corpus
from cuvee.encoders import load_encoder
from cuvee.generate.client import OpenedLLM
from cuvee.generate.embedded import EmbeddedLLM
from cuvee.generate.pools import GenerationSpec, generate_pools
from cuvee.probe import fit_probe
from cuvee.study.demo import read_headlines

DRAWS, ROWS = 5, 12


def cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main(numbers: list[int]) -> None:
    corpus = Corpus.from_rows([{"text": text, "target": label} for text, label in read_headlines()])
    split = split_corpus(corpus, test=1100, validation=900, rows_per_label=4, seed=0)
    encoder = load_encoder("minilm")
    real, test = encoder.encode(split.train.texts), encoder.encode(split.validation.texts)
    print(f"real rows alone: {score(real, split.train.targets, test, split.validation.targets):.4f}")
    for number in numbers:
        spec = GenerationSpec(
            rows_per_label=ROWS, blocks=range(DRAWS), sampling=Sampling(temperature=0.7, max_tokens=20),
            describe="news headlines", rows_per_request=number,
        )  # fmt: skip
        before = cpu_seconds()
        with EmbeddedLLM() as llm, Ledger() as ledger:
            opened = OpenedLLM(endpoint=llm.endpoint)
            (pool,) = generate_pools(split.train, spec, SamplingDial(levels=[0.7]), opened, ledger)
            spent = ledger.totals()
        seconds = cpu_seconds() - before  # the LLM's process has ended
        vectors = encoder.encode(pool.corpus.texts)
        blocks, scores = pool.corpus.blocks, []
        for block in range(DRAWS):
            own = blocks == block
            labels = [*split.train.targets, *(t for t, mine in zip(pool.corpus.targets, own, strict=True) if mine)]
            scores.append(score(np.concatenate([real, vectors[own]]), labels, test, split.validation.targets))
        vendi = measure_corpus(pool.corpus, encoder=encoder, metrics=["vendi_q1"]).values["vendi_q1"]
        error = np.std(scores, ddof=1) / DRAWS**0.5
        print(
            f"{number} a request: {len(pool.corpus)} rows, {spent.requests} requests, "
            f"{len(pool.corpus) / seconds:.2f} rows a CPU-second, "
            f"{spent.prompt_tokens / spent.completion_tokens:.2f} prompt tokens a written one, "
            f"{spent.tokens / len(pool.corpus):.0f} tokens a row, Vendi {vendi}, "
            f"accuracy {np.mean(scores):.4f} +- {error:.4f}"
        )


def score(vectors: np.ndarray, labels: list[str], test: np.ndarray, targets: list[str]) -> float:
    """Accuracy of the probe."""
    fitted = fit_probe(vectors, labels, l2=1.0)
    return float(np.mean([said == is_so for said, is_so in zip(fitted.predict(test), targets, strict=True)]))


if __name__ == "__main__":
    main([int(number) for number in sys.argv[1:]] or [1, 3, 6])
