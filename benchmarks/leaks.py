"""How often the alarm on a whole set is raised: on clean pools, and on pools partly written from held-out rows.

    python benchmarks/leaks.py [--splits 200] [--encoder minilm] [--data gptaug_banking] [--rows 60 230 500]

Real rows with ten ChatGPT paraphrases each are split at random into training and held-out rows. A clean pool holds
the paraphrases of training rows alone; a planted share of the pool is replaced by paraphrases of held-out rows. About
five minutes for each data set on two cores, most of it embedding. Needs the folder named by CUVEE_DATA.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from pathlib import Path

import numpy as np

from cuvee.defects import LeakFinder, SetLeakFinder
from cuvee.encoders import load_encoder
from cuvee.similarity import unit_rows

DATA = Path(os.environ.get("CUVEE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
FIRST_ORIGIN = {"gptaug_banking": 100_000_001, "gptaug_stackoverflow": 1}


def read_rows(path: Path) -> list[dict[str, str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--data", default="gptaug_banking", choices=sorted(FIRST_ORIGIN))
    parser.add_argument("--rows", type=int, nargs="+", default=[60, 230, 500], help="training rows")
    args = parser.parse_args()
    real, pool = read_rows(DATA / args.data / "train.jsonl"), read_rows(DATA / args.data / "synthetic.jsonl.gz")
    real = real[:1000]
    origin = np.array([int(row["origin"]) - FIRST_ORIGIN[args.data] for row in pool])
    pool, origin = [row for row, o in zip(pool, origin, strict=True) if o < len(real)], origin[origin < len(real)]
    encode = load_encoder(args.encoder).encode
    real_texts, texts = [row["text"] for row in real], [row["text"] for row in pool]
    real_vectors, vectors = unit_rows(encode(real_texts)), unit_rows(encode(texts))

    def is_alarm(train: np.ndarray, held_out: np.ndarray, rows: np.ndarray, seed: int) -> bool:
        finder = SetLeakFinder(real_vectors[held_out], real_vectors[train], seed=seed)
        finder.add(vectors[rows])
        found = finder.find()
        return found is not None and found.alarm

    def refused_rate(train: np.ndarray, held_out: np.ndarray, rows: np.ndarray) -> float:
        """What the row-wise rules see of it."""
        finder = LeakFinder([real_texts[i] for i in held_out], reference=[real_texts[i] for i in train],
                            held_out_vectors=real_vectors[held_out], reference_vectors=real_vectors[train])  # fmt: skip
        return finder.find([texts[i] for i in rows], vectors[rows]).rate

    print(f"{args.data}, {args.encoder}: {len(real)} real rows, {len(pool)} paraphrases, {args.splits} splits")
    print("training rows | share of the pool from held-out rows | alarms | refused row by row")
    for size in args.rows:
        for share in (0.0, 0.1, 0.2, 0.35, 1.0):
            alarms, refused = [], []
            for seed in range(args.splits):
                rng = np.random.default_rng(seed)
                order = rng.permutation(len(real))
                train, held_out = order[:size], order[size:]
                inside = np.isin(origin, train)
                clean, planted = np.flatnonzero(inside), rng.permutation(np.flatnonzero(~inside))
                if share == 1.0:
                    rows = planted[: len(clean)]
                else:
                    rows = np.concatenate([clean, planted[: round(len(clean) * share / (1 - share))]])
                alarms.append(is_alarm(train, held_out, rows, seed))
                if seed < 3:
                    refused.append(refused_rate(train, held_out, rows))
            print(f"{size} | {share:.2f} | {np.mean(alarms):.1%} | {np.mean(refused):.2%}", flush=True)


if __name__ == "__main__":
    main()
