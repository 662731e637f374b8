"""Embedding: texts a CPU-second and agreement with float32, beside sentence-transformers as it is.

    python benchmarks/embed.py [--rows 512] [--rounds 5]
    python benchmarks/embed.py --study

all-MiniLM-L6-v2 on rows of three data sets. Each round embeds the same texts in each way, one after the other, so that
a busy machine slows all of them; the ratio is the median over rounds of the two CPU times of a round. Below stand the
largest difference of a component where the texts come in another order, and the test accuracy of the probe of 1,000
real rows of gptaug_banking. With --study the same studies are run with each precision, on ten labels of
gptaug_stackoverflow and on workergpt_sentiment, and their advice stands side by side. Needs the folder named by
CUVEE_DATA.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from cuvee import run_study
from cuvee.encoders import build_encoder, find_minilm, resolve_encoder
from cuvee.encoders.models import WAYS
from cuvee.probe import fit_probe

DATA = Path(os.environ.get("CUVEE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SETS = {
    "gptaug_banking": ("synthetic.jsonl.gz", "text"),
    "workergpt_sentiment": ("synthetic.jsonl.gz", "text"),
    "fairytale_story": ("train.jsonl.gz", "prompt"),
}
Encode = Callable[[Sequence[str]], NDArray[np.float32]]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a JSONL file, gzipped or not."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in content.splitlines()]


def time_ways(ways: dict[str, Encode], texts: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each way in each round."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, encode in ways.items():
            start = time.process_time()
            encode(texts)
            spent[name].append(time.process_time() - start)
    return spent


def compare_studies() -> None:
    """Print the advice of the same studies with each precision."""
    print("| real rows and pool | seed | encoder | choice | verdict | gains over both baselines |")
    print("|---|---|---|---|---|---|")
    for name in ("gptaug_stackoverflow", "workergpt_sentiment"):
        real, made = (read_rows(next((DATA / name).glob(f"{part}.jsonl*"))) for part in ("test", "synthetic"))
        labels = sorted({row["label"] for row in real})[:10]
        for seed in range(2):
            for encoder in ("minilm@float32", resolve_encoder("minilm")):
                with tempfile.TemporaryDirectory() as folder:
                    for file, rows in (("real", real), ("pool", made)):
                        own = [row for row in rows if row["label"] in labels]
                        Path(folder, file).with_suffix(".jsonl").write_text("\n".join(map(json.dumps, own)))
                    config = {
                        "seed": seed, "encoder": encoder, "generator": {"kind": "files"}, "train": {"sensitivity": []},
                        "data": {"real": f"{folder}/real.jsonl"}, "mix": {"amounts": ["1x", "3x", "10x"]},
                        "split": {"test": 600, "validation": 300, "rows_per_label": 5},
                        "pools": [{"dial": "source", "level": "made", "path": f"{folder}/pool.jsonl"}],
                        "draws": {"sampling": 4, "confirm": 6, "real": 1},
                    }  # fmt: skip
                    advice = run_study(config, out=Path(folder, "run")).advice
                best, found = advice.best, advice.best and (advice.confirmation or advice.best)
                gains = [f"{100 * g.value:+.1f} [{100 * g.low:+.1f}, {100 * g.high:+.1f}]" for g in found.gains]
                choice = f"{best.cell.amount:.3g}x"
                print(
                    f"| {name} | {seed} | {encoder} | {choice} | {advice.decision} | {', '.join(gains)} |", flush=True
                )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--study", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.study:
        compare_studies()
        return
    default = SentenceTransformer(find_minilm(), device="cpu")

    def encode_plainly(texts: Sequence[str]) -> NDArray[np.float32]:
        found = default.encode(list(texts), show_progress_bar=False)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), dtype=np.float32)

    ways: dict[str, Encode] = {
        "sentence-transformers": encode_plainly,
        **{f"cuvee, {way}": build_encoder(f"minilm@{way}").encode for way in WAYS},
    }
    print("| texts | way | texts a CPU-second | times the default | mean cosine | least | another order |")
    print("|---|---|---|---|---|---|---|")
    for name, (file, column) in SETS.items():
        rows = read_rows(DATA / name / file)
        chosen = np.random.default_rng(0).permutation(len(rows))[: args.rows]
        texts = [rows[i][column] for i in chosen]
        for encode in ways.values():
            encode(texts[:32])
        spent = time_ways(ways, texts, args.rounds)
        first = np.array(spent["sentence-transformers"])
        base = encode_plainly(texts)
        for way, encode in ways.items():
            found = encode(texts)
            cosine, order = (base * found).sum(axis=1), np.abs(encode(texts[::-1])[::-1] - found).max()
            rate, ratio = args.rows / np.median(spent[way]), np.median(first / np.array(spent[way]))
            agrees = f"{cosine.mean():.6f} | {cosine.min():.5f} | {order:.1g}"
            print(f"| {name} | {way} | {rate:.0f} | {ratio:.2f} | {agrees} |", flush=True)
    train = read_rows(DATA / "gptaug_banking" / "train.jsonl")
    test = read_rows(DATA / "gptaug_banking" / "test.jsonl")[:1000]
    vectors = {way: [encode([row["text"] for row in part]) for part in (train, test)] for way, encode in ways.items()}
    truth, said = [row["label"] for row in test], {}
    for way, (own, held_out) in vectors.items():
        probe = fit_probe(own, [row["label"] for row in train])
        said[way] = np.array(probe.labels)[probe.proba(held_out).argmax(axis=1)]
        differ = (said[way] != said["sentence-transformers"]).sum()
        print(f"probe on {way}: {(said[way] == np.array(truth)).mean():.3f}, {differ} of {len(test)} answers differ")


if __name__ == "__main__":
    main()
