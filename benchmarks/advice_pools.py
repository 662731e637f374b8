"""Pools of the embedded LLM for ``advice.py``: real rows of three data sets, and what the LLM writes by some of them.

    python benchmarks/advice_pools.py DATA --out FOLDER [--only SET ...]

Of each label 40 real rows are the training rows, drawn at random; all others are held out. ``cuvee generate`` writes
rows like the first 20 of those at two temperatures. ``FOLDER/NAME_embedded`` gets seeds (these 20), train, held_out and
synthetic, for ``advice.py record FOLDER --only ...``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from cuvee.study.demo import read_headlines
from recorded_grids import read_rows

TEMPERATURES = 0.3, 1.0
REAL_ROWS, SEED_ROWS = 40, 20
# what the texts are, and rows of each label at each temperature
SETS = {
    "bbc_headlines": ("news headlines", 60),
    "clinc_banking15": ("requests to the assistant of a bank", 20),
    "snips": ("commands to a voice assistant", 40),
}


def read_set(name: str, data: Path) -> list[dict[str, str]]:
    """The real rows of a data set."""
    if name == "bbc_headlines":
        return [{"text": text, "label": label} for text, label in read_headlines()]
    rows = [row for part in ("train", "test") for row in read_rows(data / name, part)]
    return [{"text": row["text"], "label": row["label"]} for row in rows]


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """Write a JSONL file."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> int:
    """Write the data sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS))
    options = parser.parse_args()
    for name in options.only:
        describe, rows_per_label = SETS[name]
        folder = options.out / f"{name}_embedded"
        folder.mkdir(parents=True, exist_ok=True)
        rows = read_set(name, options.data)
        rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
        by_label: dict[str, list[dict[str, str]]] = defaultdict(list)
        for row in rows:
            by_label[row["label"]].append(row)
        for part, count in (("seeds", SEED_ROWS), ("train", REAL_ROWS)):
            write_rows(folder / f"{part}.jsonl", [row for own in by_label.values() for row in own[:count]])
        write_rows(folder / "held_out.jsonl", [row for own in by_label.values() for row in own[REAL_ROWS:]])
        made = []
        for temperature in TEMPERATURES:
            path, begun = folder / f"pool-{temperature:g}.jsonl", time.time()
            if not path.exists():
                subprocess.run(
                    [
                        sys.executable, "-m", "cuvee", "generate", str(folder / "seeds.jsonl"), "--out", str(path),
                        "--rows", str(rows_per_label), "--temperature", f"{temperature:g}", "--describe", describe,
                        "--max-tokens", "24",
                    ],
                    check=True,
                )  # fmt: skip
            pool = read_rows(folder, path.stem)
            print(f"{path}: {len(pool)} rows, {time.time() - begun:.0f} s", flush=True)
            made += [
                {"text": row["text"], "label": row["target"], "generator": "SmolLM2", "method": f"at {temperature:g}"}
                for row in pool
            ]
        write_rows(folder / "synthetic.jsonl", made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
