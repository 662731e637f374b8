"""Which rows the last training takes: the blend that was tried, or more real rows beside its synthetic ones.

    python benchmarks/winner_rows.py --data DIR [--draws 20]

DIR holds folders with train, test and synthetic rows (JSON lines of text and label, gzipped or not), the last written
by an LLM. A draw takes 8 real rows a label as training rows and others as validation rows, and synthetic rows for an
amount. On the test rows, with a probe on vectors of all-MiniLM-L6-v2, it compares

    blend      training rows and the synthetic rows of the amount: what the trials of a study are trained on
    real       training and validation rows
    kept       training and validation rows, and the same synthetic rows
    in step    training and validation rows, and synthetic rows at the same amount of these

Prints Markdown: accuracy of real in %, and differences of accuracy in points with the half width of their 95% t
interval over draws.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

from cuvee.encoders import load_encoder
from cuvee.probe import fit_probe

DATA_SETS = ("gptaug_banking", "gptaug_stackoverflow", "workergpt_sentiment", "workergpt_tendim")
TRAIN, TEST_ROWS, CAP = 8, 900, 100  # rows a label, rows, rows a label
HELD = (4, 16)  # validation rows a label
AMOUNTS = (1, 3)


def read(folder: Path, name: str) -> list[tuple[str, str]]:
    for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"):
        if path.exists():
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            return [(row["text"], row["label"]) for row in map(json.loads, raw.decode().splitlines())]
    raise SystemExit(f"{folder}: no {name}.jsonl")


def by_label(rows: list[tuple[str, str]], rng: np.random.Generator, cap: int) -> dict[str, list[str]]:
    found = defaultdict(list)
    for i in rng.permutation(len(rows)):
        text, label = rows[i]
        if len(found[label]) < cap:
            found[label].append(text)
    return found


def compare(folder: Path, draws: int, held: int, amount: int) -> dict[str, list[float]]:
    encoder, rng = load_encoder(), np.random.default_rng(0)
    made, test = by_label(read(folder, "synthetic"), rng, 4 * CAP), read(folder, "test")
    test = [test[i] for i in rng.permutation(len(test))[:TEST_ROWS]]
    real = by_label(read(folder, "train"), rng, CAP)
    labels = [y for y in real if len(real[y]) >= TRAIN + held and len(made[y]) >= amount * (TRAIN + held)]
    if len(labels) < 2:
        return {}
    test = [(text, label) for text, label in test if label in labels]
    known = {text for rows in (real, made) for y in labels for text in rows[y]} | {text for text, _ in test}
    vectors = dict(zip(known, encoder.encode(list(known)), strict=True))
    truth = np.array([label for _, label in test])
    x = np.array([vectors[text] for text, _ in test])

    def score(rows: dict[str, list[str]]) -> float:
        texts = [(text, y) for y in labels for text in rows[y]]
        probe = fit_probe(np.array([vectors[t] for t, _ in texts]), [y for _, y in texts])
        return float((np.array(probe.predict(x)) == truth).mean())

    found = defaultdict(list)
    for draw in range(draws):
        rng = np.random.default_rng([1, draw])
        own = {y: [real[y][i] for i in rng.permutation(len(real[y]))[: TRAIN + held]] for y in labels}
        written = {y: [made[y][i] for i in rng.permutation(len(made[y]))] for y in labels}
        arms = {
            "blend": {y: own[y][:TRAIN] + written[y][: amount * TRAIN] for y in labels},
            "real": own,
            "kept": {y: own[y] + written[y][: amount * TRAIN] for y in labels},
            "in step": {y: own[y] + written[y][: amount * (TRAIN + held)] for y in labels},
        }
        for name, rows in arms.items():
            found[name].append(score(rows))
    return found


def tell(values: list[float]) -> str:
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{100 * np.mean(values):+.1f} ± {100 * half:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=20)
    given = parser.parse_args()
    out = sys.stdout
    out.write("| data | validation rows a label | amount | real | kept - blend | kept - real | in step - kept |\n")
    out.write("|---|---|---|---|---|---|---|\n")
    for name in DATA_SETS:
        for held in HELD:
            for amount in AMOUNTS:
                found = {arm: np.array(v) for arm, v in compare(given.data / name, given.draws, held, amount).items()}
                if not found:  # too few rows a label
                    continue
                cells = [f"{100 * found['real'].mean():.1f}"]
                pairs = (("kept", "blend"), ("kept", "real"), ("in step", "kept"))
                cells += [tell(list(found[a] - found[b])) for a, b in pairs]
                out.write(f"| {name} | {held} | {amount}x | {' | '.join(cells)} |\n")
                out.flush()


if __name__ == "__main__":
    main()
