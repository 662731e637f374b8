"""Run a preregistered study: ``make study NAME=diversity-stackoverflow``, or ``python studies/run.py NAME``.

The folder NAME beside this file holds study.yaml and PREREGISTRATION.md. The data sets are found through CUVEE_DATA (by
default ``shared/data`` beside the checkout) and linked as ``studies/data``; files that a study makes of them lie in its
folder ``prepared``. An interrupted study goes on where it stopped. At the end NAME/result.json holds what
evidence.py reads, and NAME/report.txt what ``cuvee run`` printed of the advice. What an LLM took long to answer can be
kept beside them (``--answers``); a run from nothing begins with it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.corpus import load_corpus
from cuvee.encoders import load_encoder
from cuvee.generate.calls import Answer
from cuvee.generate.ledger import Ledger
from cuvee.mix import Selector
from cuvee.recommend.cells import CellTable, collect_tables
from cuvee.recommend.statistics import paired_gain
from cuvee.records import Cell, Gain, Trial
from cuvee.similarity import unit_rows
from cuvee.store import read_trials
from cuvee.study.demo import read_headlines

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("CUVEE_DATA", HERE.parents[1] / "shared" / "data"))
Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    """Rows of a JSONL file, gzipped or not."""
    content = path.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines()]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def halve(out: Path, rows: list[Row], *, validation: int | None = None) -> None:
    """Held-out rows as validation.jsonl and test.jsonl: every second row of a label, or the first so many of all."""
    chosen = random.Random(0).sample(rows, len(rows))
    seen: Counter[str] = Counter()
    for number, row in enumerate(chosen):
        seen[row["label"]] += 1
        first = seen[row["label"]] % 2 == 1 if validation is None else number < validation
        row["part"] = "validation" if first else "test"
    for part in ("validation", "test"):
        write_rows(out / f"{part}.jsonl", [row for row in chosen if row["part"] == part])


def halve_banking(out: Path) -> None:
    """The real test queries of BANKING77 as validation and test."""
    halve(out, read_rows(DATA / "gptaug_banking" / "test.jsonl"))


def halve_sentiment(out: Path) -> None:
    """3,000 of the real test tweets for validation, the rest as the locked test."""
    halve(out, read_rows(DATA / "workergpt_sentiment" / "test.jsonl.gz"), validation=3000)


def halve_tendim(out: Path) -> None:
    """The real test texts as validation and test."""
    halve(out, read_rows(DATA / "workergpt_tendim" / "test.jsonl"))


def write_levels(out: Path, name: str, levels: tuple[int, ...]) -> None:
    """Pools of the first so many ChatGPT paraphrases of each source row."""
    by_source: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(DATA / name / "synthetic.jsonl.gz"):
        by_source[row["origin"]].append(row)
    for level in levels:
        write_rows(out / f"paraphrases-{level}.jsonl", [row for rows in by_source.values() for row in rows[:level]])


def paraphrase_banking(out: Path) -> None:
    """Held-out halves; pools of 8, 4, 2 and 1 paraphrases of each source row."""
    halve_banking(out)
    write_levels(out, "gptaug_banking", (8, 4, 2, 1))


def paraphrase_stackoverflow(out: Path) -> None:
    """Pools of 8, 4, 2 and 1 paraphrases of each source row."""
    write_levels(out, "gptaug_stackoverflow", (8, 4, 2, 1))


def split_shift(out: Path, name: str, *, rows: int) -> None:
    """Four pools of equal rows, label counts and lengths: near to the real rows or far from them, narrow or wide.

    A row is near where its mean cosine to the ten nearest real training rows lies in the upper half of its label's. In
    each half the search goes towards the least and the most diverse subset; narrow and wide are the Vendi scores a
    fifth and four fifths of the way through the range that both halves reach.
    """
    pool = load_corpus(DATA / name / "synthetic.jsonl.gz", origin="synthetic")
    encoder = load_encoder()
    vectors, real = (
        unit_rows(encoder.encode(corpus.texts)) for corpus in (pool, load_corpus(DATA / name / "train.jsonl"))
    )
    parts = (vectors[start : start + 2000] @ real.T for start in range(0, len(pool), 2000))
    nearness = np.concatenate([np.partition(part, -10, axis=1)[:, -10:].mean(axis=1) for part in parts])
    labels = np.array(pool.targets)
    middle = {label: np.median(nearness[labels == label]) for label in set(labels)}
    is_near = nearness > np.array([middle[label] for label in labels])
    halves = {"near": np.flatnonzero(is_near), "far": np.flatnonzero(~is_near)}
    selectors = {half: Selector(pool.take(at), vectors[at], rows) for half, at in halves.items()}
    reach = [[end.values["vendi"] for end in selector.levels(2)] for selector in selectors.values()]
    low, high = max(least for least, _ in reach), min(most for _, most in reach)
    if low >= high:
        raise SystemExit(f"{name}: no diversity that both halves reach: {reach}")
    for (half, selector), (width, part) in product(selectors.items(), {"narrow": 0.2, "wide": 0.8}.items()):
        found = selector.target(low + part * (high - low))
        write_rows(
            out / f"{half}-{width}.jsonl",
            [{"text": t, "label": y} for t, y in zip(found.corpus.texts, found.corpus.targets, strict=True)],
        )
        print(
            f"{half}-{width}: Vendi {found.values['vendi']:.1f}; both halves reach {low:.1f} to {high:.1f}", flush=True
        )


def split_stackoverflow(out: Path) -> None:
    """Near and far, narrow and wide paraphrases of Stack Overflow titles."""
    split_shift(out, "gptaug_stackoverflow", rows=3000)


def split_sentiment(out: Path) -> None:
    """Held-out parts; near and far, narrow and wide tweets of two GPT models."""
    halve_sentiment(out)
    split_shift(out, "workergpt_sentiment", rows=3000)


def swap_words(text: str, chance: random.Random) -> str:
    """A text with a tenth of its words exchanged in pairs, and each left out with a chance of a tenth."""
    words = text.split()
    for _ in range(max(1, len(words) // 10)):
        a, b = chance.randrange(len(words)), chance.randrange(len(words))
        words[a], words[b] = words[b], words[a]
    kept = [word for word in words if chance.random() >= 0.1]
    return " ".join(kept or words[:1])


def swap_stackoverflow(out: Path) -> None:
    """For the same source rows: three ChatGPT paraphrases each, and three copies with words swapped and left out."""
    sources = read_rows(DATA / "gptaug_stackoverflow" / "train.jsonl")
    chance = random.Random(0)
    swapped = [
        {"text": swap_words(row["text"], chance), "label": row["label"], "origin": str(number)}
        for number, row in enumerate(sources)
        for _ in range(3)
    ]
    write_rows(out / "swapped.jsonl", swapped)
    write_levels(out, "gptaug_stackoverflow", (3,))


def take_headlines(out: Path) -> None:
    """Headline and topic of every BBC article."""
    write_rows(out / "headlines.jsonl", [{"text": text, "label": label} for text, label in read_headlines()])


def cut_snips(out: Path) -> None:
    """Of each label 200 distinct real rows to train on and 100 for validation, none of which is in the test part."""
    seen = {row["text"] for row in read_rows(DATA / "snips" / "test.jsonl")}
    by_label: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(DATA / "snips" / "train.jsonl.gz"):
        if row["text"] not in seen:
            seen.add(row["text"])
            by_label[row["label"]].append({"text": row["text"], "label": row["label"]})
    chosen = {label: random.Random(0).sample(rows, 300) for label, rows in sorted(by_label.items())}
    write_rows(out / "train.jsonl", [row for rows in chosen.values() for row in rows[:200]])
    write_rows(out / "validation.jsonl", [row for rows in chosen.values() for row in rows[200:]])


def take_fairytales(out: Path) -> None:
    """Questions of 60 stories to train on, one each, and of 50 others each for validation and test, two each."""
    by_story: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(DATA / "fairytaleqa" / "train.jsonl.gz"):
        if len(row["context"].split()) <= 160:
            by_story[row["story"]].append({key: row[key] for key in ("question", "answer", "context", "story")})
    chance = random.Random(0)
    stories = chance.sample([name for name in sorted(by_story) if len(by_story[name]) >= 2], 160)
    for part, names, each in (
        ("train", stories[:60], 1),
        ("validation", stories[60:110], 2),
        ("test", stories[110:], 2),
    ):
        write_rows(out / f"{part}.jsonl", [row for name in names for row in chance.sample(by_story[name], each)])


def take_few_stackoverflow(out: Path) -> None:
    """Of the real development titles 600 for validation."""
    rows = read_rows(DATA / "gptaug_stackoverflow" / "dev.jsonl")
    write_rows(out / "validation.jsonl", random.Random(0).sample(rows, 600))


def take_few_sentiment(out: Path) -> None:
    """600 of the real test tweets for validation, the rest as the locked test."""
    halve(out, read_rows(DATA / "workergpt_sentiment" / "test.jsonl.gz"), validation=600)


PREPARE: dict[str, Callable[[Path], None]] = {
    "causal-fairytale": take_fairytales,
    "diversity-banking": halve_banking,
    "diversity-sentiment": halve_sentiment,
    "diversity-tendim": halve_tendim,
    "llm-headlines": take_headlines,
    "llm-headlines-many": take_headlines,
    "llm-snips": cut_snips,
    "llm-snips-many": cut_snips,
    "losses-sentiment": halve_sentiment,
    "paraphrases-banking": paraphrase_banking,
    "paraphrases-stackoverflow": paraphrase_stackoverflow,
    "shift-stackoverflow": split_stackoverflow,
    "shift-sentiment": split_sentiment,
    "sources-sentiment": halve_sentiment,
    "sources-tendim": halve_tendim,
    "swaps-stackoverflow": swap_stackoverflow,
    "trainers-sentiment": take_few_sentiment,
    "trainers-stackoverflow": take_few_stackoverflow,
    "turn-banking": halve_banking,
    "turn-sentiment": halve_sentiment,
    "turn-tendim": halve_tendim,
}


def write_gain(gain: Gain) -> list[float]:
    """A difference of scores with its 95% interval."""
    return [round(each, 5) for each in (gain.value, gain.low, gain.high)]


def shorten(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell of the advice: what it is, its mean score, and its gain over the real rows alone with its interval."""
    name, gain = cell["cell"], next((each for each in cell["gains"] if each["over"] == "real-only"), None)
    return {
        **{key: name[key] for key in ("kind", "dial", "level", "rows_per_label", "trainer", "loss", "scope", "whole")},
        "share": round(cell["share"], 4),
        "score": round(cell["accuracy"], 5),
        "draws": cell["draws"],
        "gain": gain and [round(gain[key], 5) for key in ("value", "low", "high")],
    }


# --- differences between cells, which no advice tells ---
Tables = dict[Cell, CellTable]
Levels = dict[str, Cell]


def read_tables(run: Path) -> Tables:
    """What items score on validation, by cell; the first trial of a cell at a draw is the grid's."""
    first: dict[object, Trial] = {}
    for trial in read_trials(run):
        if trial.part == "validation":
            first.setdefault((trial.cell, trial.draw), trial)
    return collect_tables(first.values())


def contrast(tables: Tables, plus: list[Cell], minus: list[Cell]) -> Gain:
    """The mean of some cells less that of others, paired by draw and item."""
    drawn = [set(tables[cell].draws) for cell in (*plus, *minus) if len(tables[cell].draws) > 1]
    common = sorted(set.intersection(*drawn)) if drawn else []
    scores = {c: tables[c].take(common) if len(tables[c].draws) > 1 else tables[c].correct for c in (*plus, *minus)}
    mean = [np.mean(np.broadcast_arrays(*(scores[c] for c in cells)), axis=0) for cells in (plus, minus)]
    return paired_gain(*mean, over="")


def group_levels(tables: Tables) -> dict[tuple[int, float], Levels]:
    """(real rows a label, amount to one digit) -> level -> its cell, of this pool, with the loss ce and the probe."""
    found: dict[tuple[int, float], Levels] = defaultdict(dict)
    for cell in tables:
        if (cell.kind, cell.scope, cell.loss, cell.trainer) == ("blend", "this pool", "ce", "probe"):
            found[cell.rows_per_label, round(cell.amount, 1)][cell.level or ""] = cell
    return found


def largest_alike(tables: Tables) -> dict[int, tuple[float, Levels]]:
    """Real rows a label -> the largest amount that all levels have, and their cells there."""
    groups = group_levels(tables)
    found: dict[int, tuple[float, Levels]] = {}
    for rows in {rows for rows, _ in groups}:
        sizes = {amount: levels for (own, amount), levels in groups.items() if own == rows}
        single = {level for levels in sizes.values() for level in levels} - {"together"}
        whole = [amount for amount, levels in sizes.items() if single <= levels.keys()]
        if whole:
            found[rows] = max(whole), sizes[max(whole)]
    return found


def list_contrasts(name: str, tables: Tables) -> list[dict[str, Any]]:
    """The differences that a study of this kind is about, each with its interval."""
    kind = name.partition("-")[0]
    made: list[dict[str, Any]] = []

    def add(what: str, rows: int, amount: float, plus: list[Cell], minus: list[Cell]) -> None:
        gain = contrast(tables, plus, minus)
        made.append({"what": what, "rows": rows, "amount": amount, "gain": write_gain(gain), "draws": gain.draws})

    if kind == "losses":
        blends = {c: t.accuracy for c, t in tables.items() if c.kind == "blend" and c.scope == "this pool"}
        plain = {c: score for c, score in blends.items() if c.loss == "ce"}
        for what, cell in (("best", max(plain, key=plain.__getitem__)), ("worst", min(plain, key=plain.__getitem__))):
            others = [c for c in blends if c.loss != "ce" and replace(c, loss="ce") == cell]
            for other in others:
                add(
                    f"{what}: {other.loss} less ce",
                    cell.rows_per_label,
                    cell.amount,
                    [other],
                    [cell],
                )
    for rows, (amount, own) in sorted(largest_alike(tables).items()):
        if kind == "shift":
            near, far = ([own[f"{half}-{width}"] for width in ("narrow", "wide")] for half in ("near", "far"))
            wide, narrow = ([own[f"{half}-{width}"] for half in ("near", "far")] for width in ("wide", "narrow"))
            add("near less far", rows, amount, near, far)
            add("wide less narrow", rows, amount, wide, narrow)
        if kind == "swaps":
            add("chatgpt less swapped", rows, amount, [own["chatgpt"]], [own["swapped"]])
        if kind in ("diversity", "turn"):
            add("level 3 less level 1", rows, amount, [own["3"]], [own["1"]])
            add("level 3 less level 5", rows, amount, [own["3"]], [own["5"]])
    if kind == "sources":
        for (rows, amount), own in sorted(group_levels(tables).items()):
            if 9 < amount < 11 and "together" in own and not own["together"].whole:
                single = [cell for level, cell in own.items() if level != "together"]
                add("together less the mean of single sources", rows, amount, [own["together"]], single)
    return made


def summarise(name: str, run: Path) -> dict[str, Any]:
    """What evidence.py reads of a run folder."""
    advice = json.loads((run / "advice.json").read_bytes())
    measured = {}
    for path in sorted((run / "measurements").glob("*.json")):
        values = json.loads(path.read_bytes())["measurement"]["values"]
        measured[path.stem] = {
            metric: [values[metric][key] for key in ("value", "low", "high")]
            for metric in ("vendi_q1", "dcscore_tau0.1", "distinct_2", "mmd", "label_agreement")
            if metric in values
        }
    confirmed = advice["confirmation"]
    return {
        "decision": advice["decision"],
        "sentence": advice["sentence"],
        "scope": advice["scope"],
        "best": advice["best"] and shorten(advice["best"]),
        "alike": [shorten(cell) for cell in advice["not_distinguished"]],
        "confirmed": confirmed and shorten({"share": confirmed["cell"]["share"], "draws": None, **confirmed}),
        "shapes": [
            {
                key: shape[key]
                for key in ("dial", "levels", "means", "draws", "verdict", "p_values", "interpreted", "note")
            }
            for shape in advice["shapes"]
        ],
        "harmful": [shorten(cell) for cell in advice["harmful"]],
        "cells": [shorten(cell) for cell in advice["cells"]],
        "contrasts": list_contrasts(name, read_tables(run)),
        "measured": measured,
    }


def tell_again(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Whether a study that was run before says the same again."""
    keys = [key for key in before if key in now and key not in ("sentence", "scope")]
    other = [key for key in ("decision", "best", "confirmed", "shapes", "harmful") if key in keys]
    other = [key for key in other if json.dumps(_drop(before[key])) != json.dumps(_drop(now[key]))]
    return f"not as before: {', '.join(other)}" if other else "the same as the result that was kept"


def _drop(value: Any) -> Any:  # noqa: ANN401 (JSON)
    """Without what older results lack."""
    if isinstance(value, dict):
        return {key: _drop(each) for key, each in value.items() if key not in ("trainer", "draws")}
    return [_drop(each) for each in value] if isinstance(value, list) else value


# --- answers that took long ---
def keep_answers(run: Path, path: Path) -> None:
    """Write every answer of a run folder, one line of JSON each, compressed."""
    database = sqlite3.connect(f"file:{run / 'ledger.sqlite'}?mode=ro", uri=True)
    rows = database.execute(
        "SELECT key, request_json, text, finish_reason, prompt_tokens, completion_tokens FROM answers ORDER BY key"
    ).fetchall()
    path.write_bytes(lzma.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    print(f"{len(rows)} answers, {path.stat().st_size:,} bytes: {path}")


def take_answers(path: Path, run: Path) -> None:
    """Put answers that were kept into the ledger of a new run folder."""
    run.mkdir()
    with Ledger(run / "ledger.sqlite") as ledger:
        for line in lzma.decompress(path.read_bytes()).splitlines():
            key, request, *answer = json.loads(line)
            names = ("text", "finish_reason", "prompt_tokens", "completion_tokens")
            ledger.record(key, request, Answer(**dict(zip(names, answer, strict=True))))


def main() -> None:
    """Prepare, run, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(path.parent.name for path in HERE.glob("*/study.yaml")))
    parser.add_argument("--answers", action="store_true", help="keep the answers of the run folder, and run nothing")
    given = parser.parse_args()
    name = given.name
    if not DATA.is_dir():
        raise SystemExit(f"{DATA}: no such folder; set CUVEE_DATA to the folder of the data sets")
    link, folder = HERE / "data", HERE / name
    if not link.exists():
        link.symlink_to(DATA, target_is_directory=True)
    made = folder / "prepared"
    if name in PREPARE and not made.is_dir():
        making = folder / "preparing"
        making.mkdir(exist_ok=True)
        PREPARE[name](making)
        making.rename(made)
    cuvee = Path(sys.executable).with_name("cuvee")
    run, answers = folder / "run", folder / "answers.jsonl.xz"
    if given.answers:
        return keep_answers(run, answers)
    if answers.is_file() and not run.exists():
        take_answers(answers, run)
    command = [cuvee, "run", folder / "study.yaml", "--out", run, "--quiet"]
    shown = subprocess.run(command, capture_output=True, text=True)
    if shown.returncode:
        raise SystemExit(shown.stderr)
    (folder / "report.txt").write_text(shown.stdout, encoding="utf-8")
    result, kept = summarise(name, run), folder / "result.json"
    again = tell_again(json.loads(kept.read_bytes()), result) if kept.is_file() else ""
    kept.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(shown.stdout, again)


if __name__ == "__main__":
    main()
