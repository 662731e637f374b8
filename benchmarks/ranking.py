"""How well a ranking of pools before training agrees with what each pool gains when it is trained with.

    python benchmarks/ranking.py [--sets gptaug_stackoverflow,...] [--rows 400] [--draws 3] [--json FILE]

For each real data set pools of different quality are made at equal rows: written by an LLM where the set has such
rows, else other real rows; whole, with repeats, with wrong labels, of few sources, of few labels, templated, cut off,
and with rows of another set. Downstream score: accuracy on the real test rows of a probe that is trained on 8 real rows
a label and the pool, less that of the real rows alone, mean over draws of the real rows. Printed: for each set
Spearman's rank correlation of the gain with the ranking and with each number alone, and the means over sets. Needs the
folder named by CUVEE_DATA. Ten minutes of one core, most of it embedding.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cuvee.corpus import Corpus
from cuvee.encoders import KnownVectors, load_encoder
from cuvee.fingerprint import derive_rng
from cuvee.measure.comparing import rank_pools
from cuvee.probe import DEFAULT_L2, fit_probe

DATA = Path(os.environ.get("CUVEE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SETS = (
    "gptaug_stackoverflow", "gptaug_banking", "workergpt_sentiment", "workergpt_tendim", "snips", "clinc_banking15",
    "goemotions", "sms_spam",
)  # fmt: skip
LLM = SETS[:4]
FEW, MOST_TEST, MOST_REAL = 8, 1500, 400
Row = dict[str, str]


def read_rows(name: str, part: str) -> list[Row]:
    """The rows of one file of a set."""
    path = next((DATA / name).glob(f"{part}.jsonl*"))
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [{**row, "origin": str(row.get("origin", i))} for i, row in enumerate(map(json.loads, lines))]


def pick(rows: Sequence[Row], count: int, rng: np.random.Generator) -> list[Row]:
    """That many rows, each once as long as there are enough."""
    order = rng.permutation(len(rows))
    return [rows[i] for i in np.resize(order, count)]


def make_pools(rows: Sequence[Row], other: Sequence[Row], count: int, rng: np.random.Generator) -> dict[str, list[Row]]:
    """Pools of different quality, all of ``count`` rows."""
    labels = sorted({r["label"] for r in rows})
    whole = pick(rows, count, rng)
    origins = sorted({r["origin"] for r in rows})

    def relabel(share: float) -> list[Row]:
        wrong = rng.random(count) < share
        return [r | {"label": str(rng.choice(labels))} if w else r for r, w in zip(whole, wrong, strict=True)]

    def of_sources(share: float) -> list[Row]:
        kept = set(rng.choice(origins, max(len(labels), int(share * count)), replace=False)) if share < 1 else origins
        return pick([r for r in rows if r["origin"] in kept], count, rng)

    others = pick(other, count, rng)
    few = set(rng.choice(labels, max(1, len(labels) // 2), replace=False).tolist())
    return {
        "whole": whole, "whole again": pick(rows, count, rng),
        "half repeated": pick(whole[: count // 2], count, rng),
        "nine in ten repeated": pick(whole[: count // 10], count, rng),
        "15% wrong labels": relabel(0.15), "40% wrong labels": relabel(0.4), "80% wrong labels": relabel(0.8),
        "few sources": of_sources(0.05), "half of the labels": pick([r for r in rows if r["label"] in few], count, rng),
        "one opening": [r | {"text": f"Here is what I would like to say about it today: {r['text']}"} for r in whole],
        "cut to three words": [r | {"text": " ".join(r["text"].split()[:3])} for r in whole],
        "a third of another set": [
            r if i % 3 else r | {"text": other["text"]} for i, (r, other) in enumerate(zip(whole, others, strict=True))
        ],
    }  # fmt: skip


def to_corpus(rows: Sequence[Row], labels: set[str]) -> Corpus:
    return Corpus.from_rows([{"text": r["text"], "target": r["label"]} for r in rows if r["label"] in labels])


def gain_of(pool: Corpus, real: Corpus, test: Corpus, encoder: KnownVectors, draws: int) -> float:
    """Mean gain in accuracy of few real rows and the pool over the few real rows alone."""
    gains, inside, ours = [], encoder.encode(test.texts), encoder.encode(pool.texts)
    for draw in range(draws):
        rng = derive_rng(draw, "few real rows")
        targets = np.array(real.targets)
        few = np.concatenate([rng.permutation(np.flatnonzero(targets == y))[:FEW] for y in real.labels])
        own, own_targets = encoder.encode([real.texts[i] for i in few]), [real.targets[i] for i in few]
        said = [
            fit_probe(np.vstack(rows), names, l2=DEFAULT_L2).predict(inside)
            for rows, names in (([own], own_targets), ([own, ours], [*own_targets, *pool.targets]))
        ]
        scores = [float((np.array(each) == np.array(test.targets)).mean()) for each in said]
        gains.append(scores[1] - scores[0])
    return float(np.mean(gains))


def correlate(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's rank correlation."""
    from scipy.stats import spearmanr

    return 0.0 if len(set(one)) < 2 else float(spearmanr(one, other).statistic)


def study_set(name: str, rows: int, draws: int) -> dict[str, object]:
    """The pools of one set: their gain, rank and numbers."""
    rng = derive_rng(0, "ranking", name)
    train, test = read_rows(name, "train"), pick(read_rows(name, "test"), MOST_TEST, rng)
    many = read_rows(name, "synthetic") if name in LLM else train
    labels = {y for y in {r["label"] for r in train} if sum(r["label"] == y for r in train) >= FEW}
    train, test = [r for r in train if r["label"] in labels], [r for r in test if r["label"] in labels]
    kept = pick(train, min(MOST_REAL, len(train)), rng) if name in LLM else pick(train, len(train), rng)
    real, rest = (kept, many) if name in LLM else (kept[:MOST_REAL], kept[MOST_REAL:])
    other = read_rows("snips" if name != "snips" else "sms_spam", "test")
    made = make_pools([r for r in rest if r["label"] in labels], other, rows, rng)
    pools = {key: to_corpus(own, labels) for key, own in made.items()}
    against, held = to_corpus(real, labels), to_corpus(test, labels)
    texts = [t for c in (*pools.values(), against, held) for t in c.texts]
    encoder = KnownVectors(load_encoder(), texts)
    gains = {key: gain_of(pool, against, held, encoder, draws) for key, pool in pools.items()}
    ranking = rank_pools(pools, against=against, encoder=encoder)
    return {"gains": gains, "scores": {r.name: r.score for r in ranking.pools},
            "numbers": {r.name: dict(r.numbers) for r in ranking.pools}}  # fmt: skip


def summarise(found: Mapping[str, Mapping[str, object]]) -> None:
    """The rank correlations, a row a set, and their means; numbers of which less is better are turned round."""
    measures = ["ranking", *next(iter(next(iter(found.values()))["numbers"].values()))]
    down = ("repeats", "auc", "labels_off", "unlike")
    table = []
    for each in found.values():
        names = list(each["gains"])
        gains = [each["gains"][key] for key in names]
        columns = [[each["scores"][key] for key in names]]
        columns += [[each["numbers"][key][m] * (-1 if m in down else 1) for key in names] for m in measures[1:]]
        table.append([correlate(column, gains) for column in columns])
    width = max(map(len, found)) + 2
    print(f"{'set':<{width}}" + "".join(f"{m[:14]:>16}" for m in measures))
    for name, row in zip(found, table, strict=True):
        print(f"{name:<{width}}" + "".join(f"{v:>16.2f}" for v in row))
    print(f"{'mean':<{width}}" + "".join(f"{v:>16.2f}" for v in np.mean(table, axis=0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {}
    for name in options.sets.split(","):
        found[name] = study_set(name, options.rows, options.draws)
        print(f"{name}: " + ", ".join(f"{k} {100 * v:+.1f}" for k, v in found[name]["gains"].items()), file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    summarise(found)


if __name__ == "__main__":
    main()
