"""Every loss against plain cross-entropy on the pool, and against real rows alone, where synthetic rows are damaged.

    python benchmarks/losses.py --data DIR [--draws 20] [--losses NAME ...] [--cache DIR]

DIR holds the folders clinc_banking15, snips and workergpt_sentiment, with train and test as JSON lines of text and
label (gzipped or not), and in workergpt_sentiment also synthetic: rows that a GPT wrote. "Synthetic" rows of the
other regimes are real training rows with damage made on purpose, so what is wrong with them is known.

A draw takes 8 real rows a label, 40 synthetic rows a label from the others, and a training seed; all losses see the
same draw. Test rows are never among them, and are the same in every draw: intervals are over draws, not over test
rows. Trainer probe on vectors of all-MiniLM-L6-v2, defaults of every loss. Prints Markdown; the cells
are differences of accuracy in percentage points with the half width of their paired 95% t interval.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from cuvee.encoders import load_encoder
from cuvee.train import LOSSES, TrainSettings
from on_vectors import train_on_vectors

DATA_SETS = ("clinc_banking15", "snips", "workergpt_sentiment")
REAL, SYNTHETIC = 8, 40  # rows a label
TRAIN_CAP, TEST_ROWS, GPT_CAP = 110, 900, 200  # rows a label, rows, rows a label
BASELINES = ("real-only", "ce")
Labels = np.ndarray


@dataclass(frozen=True)
class Rows:
    """Vectors and their labels."""

    vectors: np.ndarray
    labels: Labels

    def take(self, places: np.ndarray) -> Rows:
        return Rows(self.vectors[places], self.labels[places])


@dataclass(frozen=True)
class DataSet:
    """Real rows to draw from, real rows to test on, and, where there are any, rows that a GPT wrote."""

    name: str
    train: Rows
    test: Rows
    written: Rows | None


# --- damage: from undamaged rows and a stream to synthetic rows ---------------------------------------------
def keep_clean(rows: Rows, rng: np.random.Generator) -> Rows:
    """40 rows a label as they are."""
    return rows.take(per_label(rows, rng, SYNTHETIC))


def mislabel(rows: Rows, rng: np.random.Generator) -> Rows:
    """Two labels in five replaced by another one, at random."""
    clean = keep_clean(rows, rng)
    labels, names = clean.labels.copy(), np.unique(clean.labels)
    for place in np.flatnonzero(rng.random(len(labels)) < 0.4):
        labels[place] = rng.choice(names[names != labels[place]])
    return Rows(clean.vectors, labels)


def shift_inputs(rows: Rows, rng: np.random.Generator) -> Rows:
    """The 40 rows of each label that lie farthest along one direction of the space."""
    along = rows.vectors @ rng.normal(size=rows.vectors.shape[1])
    places = [np.flatnonzero(rows.labels == name) for name in np.unique(rows.labels)]
    return rows.take(np.concatenate([p[np.argsort(-along[p])][:SYNTHETIC] for p in places]))


def shift_concept(rows: Rows, rng: np.random.Generator) -> Rows:
    """Half of the labels mean another of that half, consistently."""
    clean = keep_clean(rows, rng)
    half = rng.permutation(np.unique(clean.labels))
    half = half[: max(2, len(half) // 2)]
    meaning = dict(zip(half, np.roll(half, 1), strict=True))
    return Rows(clean.vectors, np.array([meaning.get(name, name) for name in clean.labels]))


def narrow(rows: Rows, rng: np.random.Generator) -> Rows:
    """4 rows a label, ten times each."""
    return rows.take(np.tile(per_label(rows, rng, 4), SYNTHETIC // 4))


REGIMES: dict[str, Callable[[Rows, np.random.Generator], Rows]] = {
    "clean": keep_clean,
    "40% wrong labels": mislabel,
    "covariate shift": shift_inputs,
    "concept shift": shift_concept,
    "narrowed": narrow,
}
WRITTEN = "GPT rows"


def per_label(rows: Rows, rng: np.random.Generator, count: int) -> np.ndarray:
    """Places of ``count`` rows of each label."""
    order = rng.permutation(len(rows.labels))
    return np.concatenate([order[rows.labels[order] == name][:count] for name in np.unique(rows.labels)])


# --- one draw ------------------------------------------------------------------------------------------------
def score_draw(data: DataSet, regime: str, draw: int, losses: Sequence[str]) -> dict[str, float]:
    """Test accuracy of real-only and of the losses on one draw."""
    rng = np.random.default_rng([draw, *map(ord, data.name + regime)])
    chosen = per_label(data.train, rng, REAL)
    real = data.train.take(chosen)
    rest = data.train.take(np.setdiff1d(np.arange(len(data.train.labels)), chosen))
    if regime == WRITTEN:
        assert data.written is not None
        synthetic = keep_clean(data.written, rng)
    else:
        synthetic = REGIMES[regime](rest, rng)
    vectors = np.vstack([real.vectors, synthetic.vectors])
    targets = [*real.labels.tolist(), *synthetic.labels.tolist()]
    marks = np.arange(len(targets)) >= len(real.labels)

    def accuracy(settings: TrainSettings) -> float:
        model = train_on_vectors(vectors, targets, synthetic=marks, settings=settings)
        return float((np.array(model.predict(data.test.vectors)) == data.test.labels).mean())

    found = {"real-only": accuracy(TrainSettings(loss="source_weight", source_weight=0.0, seed=draw))}
    return found | {name: accuracy(TrainSettings(loss=name, seed=draw)) for name in losses}


# --- data and tables -----------------------------------------------------------------------------------------
def load_set(folder: Path, cache: Path) -> DataSet:
    """The rows used, encoded."""
    encoder = load_encoder("minilm", cache=cache)

    def read(part: str, most: int) -> Rows:
        found = capped(folder / f"{part}.jsonl", most)
        return Rows(encoder.encode([text for text, _ in found]), np.array([label for _, label in found]))

    train = read("train", TRAIN_CAP)
    test = read("test", TEST_ROWS // len(np.unique(train.labels)))
    written = read("synthetic", GPT_CAP) if any(folder.glob("synthetic.jsonl*")) else None
    return DataSet(folder.name, train, test, written)


def capped(path: Path, most: int) -> list[tuple[str, str]]:
    """At most ``most`` rows a label, the same ones every time."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
    else:
        lines = gzip.decompress(path.with_suffix(".jsonl.gz").read_bytes()).decode("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    taken: Counter[str] = Counter()
    out = []
    for place in np.random.default_rng(0).permutation(len(rows)):
        label = rows[place]["label"]
        taken[label] += 1
        if taken[label] <= most:
            out.append((rows[place]["text"], label))
    return out


def difference(scores: list[dict[str, float]], one: str, other: str) -> str:
    """Mean paired difference and half its 95% t interval, in percentage points."""
    found = 100 * np.array([s[one] - s[other] for s in scores])
    half = stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found))
    return f"{found.mean():+.1f} ± {half:.1f}"


def print_tables(results: dict[tuple[str, str], list[dict[str, float]]]) -> None:
    columns = list(results)
    heads = [f"{name}, {regime}" for name, regime in columns]
    print("\n## Accuracy, percent\n")
    print("| data, synthetic rows | real-only | ce on the pool |\n|---|---|---|")
    for head, key in zip(heads, columns, strict=True):
        print(
            f"| {head} | " + " | ".join(f"{100 * np.mean([s[b] for s in results[key]]):.1f}" for b in BASELINES) + " |"
        )
    for base in BASELINES:
        names = [name for name in next(iter(results.values()))[0] if name != base]
        print(f"\n## Against {'real rows alone' if base == 'real-only' else '`ce` on the pool'}, points\n")
        print(
            "| data, synthetic rows | " + " | ".join(f"`{n}`" for n in names) + " |\n" + "|---" * (len(names) + 1) + "|"
        )
        for head, key in zip(heads, columns, strict=True):
            print(f"| {head} | " + " | ".join(difference(results[key], name, base) for name in names) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--sets", nargs="+", default=DATA_SETS)
    parser.add_argument("--cache", type=Path, help="folder of encoded texts; by default a temporary one")
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), help="by default all; ce is always there")
    given = parser.parse_args()
    losses = list(dict.fromkeys(["ce", *given.losses]))
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.sets:
            data = load_set(given.data / name, given.cache or Path(temporary))
            for regime in [*REGIMES, *([WRITTEN] if data.written is not None else [])]:
                results[name, regime] = [score_draw(data, regime, draw, losses) for draw in range(given.draws)]
                print(f"{name}, {regime}: done", file=sys.stderr, flush=True)
    print_tables(results)


if __name__ == "__main__":
    main()
