"""Prepare the study of ChatGPT paraphrases of BANKING77: pool files and a study.yaml.

The folder needs train.jsonl (1,000 real queries, the sources), synthetic.jsonl.gz (10 ChatGPT paraphrases of each,
``origin`` naming the source) and test.jsonl, as published in github.com/fangyihao/gptaug (MIT; BANKING77 is CC BY 4.0).

    python docs/studies/gptaug_banking.py FOLDER --out banking
    cuvee run banking/study.yaml
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROWS = 15  # real training rows of each label; labels with fewer are left out
LEVELS = (4, 3, 2, 1)  # paraphrases of each source, from least to most diverse as expected
SHARE = 0.21  # 4 synthetic rows a label and draw: 1, 2, 2 or 4 source rows stand behind them


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a JSONL file, gzipped or not."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in content.decode("utf-8").splitlines() if line]


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def prepare(folder: Path, out: Path) -> Path:
    """Write real, validation, test and pool files and study.yaml into ``out``; returns the path of the last."""
    out.mkdir(parents=True, exist_ok=True)
    train, held_out = read_rows(folder / "train.jsonl"), read_rows(folder / "test.jsonl")
    counts = Counter(row["label"] for row in train)
    labels = sorted(label for label, count in counts.items() if count >= ROWS)
    # sources are numbered from 100000001 in the order of the real rows
    by_label: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(train):
        by_label[row["label"]].append(number)
    kept = {number for label in labels for number in by_label[label][:ROWS]}
    write_rows(out / "real.jsonl", [train[number] for number in sorted(kept)])
    halves: dict[str, list[dict[str, str]]] = {"validation": [], "test": []}
    seen: Counter[str] = Counter()
    for row in held_out:
        if row["label"] in labels:
            halves["validation" if seen[row["label"]] % 2 else "test"].append(row)
            seen[row["label"]] += 1
    for name, rows in halves.items():
        write_rows(out / f"{name}.jsonl", rows)
    paraphrases: dict[int, list[dict[str, str]]] = defaultdict(list)
    for row in read_rows(folder / "synthetic.jsonl.gz"):
        paraphrases[int(row["origin"]) - 100000001].append(row)
    for level in LEVELS:
        rows = [row for number in sorted(kept) for row in paraphrases[number][:level]]
        write_rows(out / f"paraphrases-{level}.jsonl", rows)
    pools = "\n".join(
        f'  - {{dial: paraphrase, level: "{n}", path: paraphrases-{n}.jsonl, group: origin}}' for n in LEVELS
    )
    study = f"""name: gptaug-banking
describe: customer questions to a bank
data: {{real: real.jsonl, validation: validation.jsonl, test: test.jsonl}}
split: {{rows_per_label: {ROWS}}}
generator: {{kind: files}}
pools:
{pools}
mix: {{regime: augment, shares: [{SHARE}, 0.5], shape_share: {SHARE}}}
draws: {{generation: 3, sampling: 1, confirm: 3}}
train: {{trainer: probe}}
"""
    (out / "study.yaml").write_text(study, encoding="utf-8")
    return out / "study.yaml"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("banking"))
    given = parser.parse_args()
    sys.stdout.write(f"cuvee run {prepare(given.folder, given.out)}\n")
