"""Five levels of diversity from pools of ChatGPT paraphrases, and rows nearest to the real data.

DATA holds folders gptaug_banking and gptaug_stackoverflow (github.com/fangyihao/gptaug, MIT) and workergpt_sentiment
(github.com/AGMoller/worker_vs_gpt, MIT), each with synthetic.jsonl.gz, train.jsonl and test rows: text, label, origin.

    python docs/studies/select_gptaug.py DATA

Prints the tables of docs/selecting.md. About five minutes on two idle cores, most of it the encoder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from cuvee.corpus import Corpus, load_corpus
from cuvee.encoders import Encoder, load_encoder
from cuvee.measure import measure_corpus
from cuvee.mix import Dedupe, Degenerate, Leak, Selector, apply_filters
from cuvee.similarity import mmd, unit_rows

METRICS = ["vendi_q1", "dcscore_tau0.1", "distinct_2", "mmd"]
DRAWS = 10


def show_levels(folder: Path, encoder: Encoder) -> None:
    """Clean a pool, select five levels of 1,000 rows, measure them."""
    train, test = load_corpus(folder / "train.jsonl"), load_corpus(folder / "test.jsonl")
    pool = load_corpus(folder / "synthetic.jsonl.gz", group="origin", origin="synthetic")
    filters = [Dedupe(against=train.texts), Degenerate(), Leak(held_out=test.texts, reference=train.texts)]
    clean = apply_filters(pool, filters, encode=encoder.encode)
    print(f"\n{folder.name}: {len(clean.corpus)} of {len(pool)} rows are clean\n")
    print("| level | Vendi q=1 | DCScore tau=0.1 | distinct-2 | MMD to real | length differs, SD |")
    print("|---|---|---|---|---|---|")
    for level in Selector(clean.corpus, encoder.encode(clean.corpus.texts), 1000).levels(5):
        found = measure_corpus(level.corpus, against=train, encoder=encoder, metrics=METRICS).values
        shown = [f"{e.value:.3g} [{e.low:.3g}, {e.high:.3g}]" for e in (found[m] for m in METRICS)]
        print(f"| {level.name} | {' | '.join(shown)} | {level.length_difference:.3f} |", flush=True)


def show_shift(folder: Path, encoder: Encoder) -> None:
    """MMD to held-back real rows: rows nearest to the training rows against random rows, the same labels."""
    pool, train = load_corpus(folder / "synthetic.jsonl.gz", origin="synthetic"), load_corpus(folder / "train.jsonl")
    held_back = _sample(load_corpus(folder / "test.jsonl.gz"), 2000)
    vectors, real, other = (unit_rows(encoder.encode(c.texts)) for c in (pool, train, held_back))
    near = Selector(pool, vectors, 500).best("lowest_shift", real)
    print(f"\n{folder.name}: squared MMD (bandwidth 1) to {len(held_back)} held-back real rows, 500 rows each\n")
    value = mmd(vectors[near.rows], other, bandwidth=1.0, permutations=0).value
    random = [
        mmd(vectors[Selector(pool, vectors, 500, seed=s).best("random").rows], other, bandwidth=1.0,
            permutations=0).value
        for s in range(DRAWS)
    ]  # fmt: skip
    mean, half = float(np.mean(random)), 2.262 * float(np.std(random, ddof=1)) / DRAWS**0.5
    print(f"lowest_shift {value:.5f}; random {mean:.5f} [{mean - half:.5f}, {mean + half:.5f}] over {DRAWS} draws")


def _sample(corpus: Corpus, rows: int) -> Corpus:
    return corpus.take(np.sort(np.random.default_rng(0).permutation(len(corpus))[:rows]))


def main() -> None:
    """All tables."""
    data, encoder = Path(sys.argv[1]), load_encoder()
    for name in ("gptaug_banking", "gptaug_stackoverflow"):
        show_levels(data / name, encoder)
    show_shift(data / "workergpt_sentiment", encoder)


if __name__ == "__main__":
    main()
