"""Full grids of real trials, recorded once, and the race of the searches on them.

::

    python benchmarks/recorded_grids.py --record DATA [--only NAME ...]
    python benchmarks/recorded_grids.py --study RUN [RUN ...]
    python benchmarks/recorded_grids.py [--repeats 1000]

``DATA`` holds the folders ``clinc_banking15``, ``snips`` and ``gptaug_banking``. For each a study of a probe on
all-MiniLM-L6-v2 is run in full: 5 levels of diversity selected from one pool, 5 shares, 10 generation draws. Where
there is no pool of an LLM, it is real rows that the study may not train on otherwise: the search sees diversity, share
and noise as they are on real text, which is what is at stake here. ``benchmarks/grids/NAME.json`` keeps the accuracy
of every trial. With ``--study`` it keeps the grid of a finished study of the folder ``studies``: its blends of *this
pool* at the largest number of real rows, whose draws are those of subsamples and real rows.

The race: half of the draws are drawn at random; the full grid sees all its blend trials, the adaptive search asks for
two in five of them. What each of the chosen cells is worth is its mean over the other draws, which neither has seen: so
the difference between the two is unbiased, although the truth is not known. The regret of each is told against the cell
that is best in those other draws, which flatters nobody but is too large for both by the luck of the best.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from cuvee.recommend import AdaptiveSearch, PlannedTrial
from cuvee.records import Cell, Draw, Trial
from cuvee.store import read_trials
from cuvee.study.opening import open_study

OUT = Path(__file__).parent / "grids"
DRAWS, LEVELS = 10, 5
SETUPS: dict[str, dict[str, object]] = {
    "clinc_banking15": {"real": 4, "shares": [0.2, 0.34, 0.43, 0.5, 0.6]},
    "snips": {"real": 4, "shares": [0.2, 0.43, 0.6, 0.75, 0.85]},
    "gptaug_banking": {"real": 3, "shares": [0.25, 0.4, 0.5, 0.58, 0.63]},
}
"""Real rows a label, and shares in ``augment``: 1, 2, 3, 4 and 6 synthetic rows a label; 1, 3, 6, 12 and 23; 1 to 5."""
SOURCES = 14
"""gptaug_banking: labels of at least so many paraphrased rows, so that ten draws get a whole family of each."""


def read_rows(folder: Path, name: str) -> list[dict[str, str]]:
    """Rows of NAME.jsonl or NAME.jsonl.gz."""
    path = folder / f"{name}.jsonl"
    text = (
        path.read_text("utf-8")
        if path.exists()
        else gzip.decompress((folder / f"{name}.jsonl.gz").read_bytes()).decode()
    )
    return [json.loads(line) for line in text.splitlines()]


def cut_real(rows: list[dict[str, str]], each: int, rng: np.random.Generator) -> tuple[list[dict], list[dict]]:
    """Some distinct rows of each label, and all others whose text is not among them."""
    taken: dict[str, list[dict]] = {}
    for i in rng.permutation(len(rows)):
        own = taken.setdefault(rows[i]["label"], [])
        if len(own) < each and rows[i]["text"] not in {r["text"] for r in own}:
            own.append(rows[i])
    first = [row for own in taken.values() for row in own]
    known = {row["text"].casefold().strip() for row in first}
    return first, [row for row in rows if row["text"].casefold().strip() not in known]


def write_rows(path: Path, rows: list[dict[str, str]]) -> str:
    """Write text, label and, where it is known, the row that a paraphrase came from."""
    kept = ({k: str(row[k]) for k in ("text", "label", "origin") if row.get(k) is not None} for row in rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    return str(path)


def make_config(name: str, data: Path, folder: Path) -> dict[str, object]:
    """The study of one dataset, its files in ``folder``."""
    rng, setup = np.random.default_rng(0), SETUPS[name]
    rows, test = read_rows(data / name, "train"), read_rows(data / name, "test")
    each = int(str(setup["real"]))
    if name == "gptaug_banking":
        pool = read_rows(data / name, "synthetic")
        families = {label: {r["origin"] for r in pool if r["label"] == label} for label in {r["label"] for r in pool}}
        rows, test, pool = ([r for r in part if len(families[r["label"]]) >= SOURCES] for part in (rows, test, pool))
        first, _ = cut_real(rows, each, rng)
    else:
        first, pool = cut_real(rows, each, rng)
    kept = rng.permutation(len(test))
    half = len(test) // 2
    pool_file: dict[str, object] = {"dial": "select", "path": write_rows(folder / "pool.jsonl", pool)}
    if name == "gptaug_banking":
        pool_file["group"] = "origin"
    shares = setup["shares"]
    assert isinstance(shares, list)
    return {
        "name": name,
        "data": {
            "real": write_rows(folder / "real.jsonl", first),
            "validation": write_rows(folder / "validation.jsonl", [test[i] for i in kept[:half]]),
            "test": write_rows(folder / "test.jsonl", [test[i] for i in kept[half:]]),
        },
        "generator": {"kind": "files"},
        "pools": [pool_file | {"select": {"metric": "vendi", "levels": LEVELS}}],
        "mix": {"shares": shares, "shape_share": shares[-1]},
        "draws": {"generation": DRAWS, "sampling": 1, "training": 1, "confirm": 0},
        "train": {"trainer": "probe", "sensitivity": []},
    }


def record(name: str, data: Path) -> Path:
    """Run one grid and write what it gave."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with open_study(make_config(name, data, folder), out=folder / "run") as flow:
            trials = [trial for trial in flow.grid if isinstance(trial, Trial)]
            vendi = {key: measured.values["vendi_q1"].value for key, measured in flow.measurements.items()}
            names = [level.name for level in flow.pools]
    found = {
        "dataset": name,
        "trainer": "probe on all-MiniLM-L6-v2",
        "items": trials[0].scores.n,
        "rows_per_label": trials[0].cell.rows_per_label,
        "levels": {level: round(vendi[f"select={level}"], 2) for level in names},
        "trials": [
            [t.cell.kind, t.cell.level, t.cell.share, t.draw.generation, round(t.scores.values["accuracy"].value, 5)]
            for t in trials
        ],
    }
    return write_grid(name, found)


def record_study(run: Path) -> Path:
    """Write the grid of a study that was run, of its best cell's dial, trainer and number of real rows."""
    advice = json.loads((run / "advice.json").read_bytes())
    best = advice["best"]["cell"]
    first: dict[object, Trial] = {}
    for trial in read_trials(run):
        cell = trial.cell
        own = (cell.rows_per_label, cell.trainer, cell.loss) == (best["rows_per_label"], best["trainer"], best["loss"])
        if own and trial.part == "validation" and cell.scope == "this pool" and not cell.whole:
            first.setdefault((cell, trial.draw), trial)
    trials = [trial for trial in first.values() if trial.cell.dial in (best["dial"], None)]
    levels = {str(trial.cell.level) for trial in trials if trial.cell.level is not None}
    vendi = {
        level: json.loads((run / "measurements" / f"{best['dial']}={level}.json").read_bytes())["measurement"]
        for level in sorted(levels)
    }
    found = {
        "dataset": run.resolve().parent.name,
        "trainer": "probe on all-MiniLM-L6-v2",
        "items": trials[0].scores.n,
        "rows_per_label": best["rows_per_label"],
        "levels": {level: round(each["values"]["vendi_q1"]["value"], 2) for level, each in vendi.items()},
        "trials": [
            [t.cell.kind, t.cell.level, t.cell.share, t.draw.sampling, round(float(t.scores.per_item.mean()), 5)]
            for t in trials
        ],
    }
    return write_grid(str(found["dataset"]), found)


def write_grid(name: str, found: dict[str, object]) -> Path:
    """One trial a line."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.json"
    path.write_text(json.dumps(found).replace("], [", "],\n["), encoding="utf-8")
    return path


# --- the race ---------------------------------------------------------------------------------------------
Table = Mapping[tuple[str, float], Mapping[int, float]]
"""(level, share) of a blend -> generation draw -> accuracy."""


def read_grid(name: str) -> tuple[Table, dict[str, float]]:
    """The blends of a recorded grid, and the measured diversity of each level."""
    found = json.loads((OUT / f"{name}.json").read_text("utf-8"))
    table: dict[tuple[str, float], dict[int, float]] = {}
    for kind, level, share, draw, accuracy in found["trials"]:
        if kind == "blend":
            table.setdefault((level, share), {})[draw] = accuracy
    return table, found["levels"]


def blend(level: str, share: float) -> Cell:
    """The cell of a level and share."""
    return Cell(kind="blend", dial="select", level=level, share=share, rows_per_label=4)


def run_search(search: AdaptiveSearch, table: Table, draws: Sequence[int]) -> Cell:
    """What a search chooses that sees the trials of these draws alone."""
    while batch := search.ask():
        for item in batch:
            seen = table[item.cell.level or "", item.cell.share]
            search.tell(item, seen[draws[item.draw.generation]])
    best = search.best()
    assert best is not None
    return best


def race(name: str, seed: int) -> Sequence[float]:
    """Accuracy, over draws that neither saw, of the best cell there and of the cells that each search chose."""
    table, levels = read_grid(name)
    count = min(len(by_draw) for by_draw in table.values())
    draws = np.random.default_rng([6, seed]).permutation(count).tolist()
    seen, other = draws[: count // 2], draws[count // 2 :]
    shares = sorted({share for _, share in table})
    planned = [
        PlannedTrial(cell=blend(level, share), draw=Draw(generation=g, sampling=0, training=0))
        for level in levels
        for share in shares
        for g in range(len(seen))
    ]
    search = AdaptiveSearch(
        planned,
        diversity={f"select={level}": value for level, value in levels.items()},
        shape_share=shares[-1],
        budget=0.4,
        batch=5,
    )
    highest = max(table, key=lambda key: np.mean([table[key][g] for g in seen]))
    chosen = [blend(*highest), run_search(search, table, seen)]
    worth = {key: float(np.mean([accuracy[g] for g in other])) for key, accuracy in table.items()}
    return [max(worth.values()), *(worth[cell.level or "", cell.share] for cell in chosen)]


def show_race(name: str, repeats: int, pool: ProcessPoolExecutor) -> None:
    """One grid's rows of the table, in points with 95% intervals over repeats."""
    found = 100 * np.array(list(pool.map(partial(race, name), range(repeats), chunksize=10)))

    def write(values: np.ndarray) -> str:
        half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
        return f"{values.mean():+.2f} [{values.mean() - half:+.2f}, {values.mean() + half:+.2f}]"

    best, grid, searched = found.T
    print(f"| {name} | full grid: regret | {write(best - grid)} |  |")
    less = grid - searched
    print(f"| {name} | adaptive search, two trials in five: regret | {write(best - searched)} |  |")
    print(
        f"| {name} | adaptive search less full grid | {write(less)} | {'yes' if less.mean() <= 0 else 'NO'} |",
        flush=True,
    )


def main() -> int:
    """Record, or race."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, metavar="DATA", help="the folder of datasets")
    parser.add_argument("--study", type=Path, nargs="+", metavar="RUN", help="run folders of studies")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="grids; by default all that are there")
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    if options.record is not None:
        for name in options.only or SETUPS:
            print(record(name, options.record), flush=True)
        return 0
    for run in options.study or ():
        print(record_study(run), flush=True)
    if options.study:
        return 0
    names = options.only or sorted(path.stem for path in OUT.glob("*.json"))
    print("| grid | what | points [95% over repeats] | at most 0 |\n|---|---|---|---|")
    with ProcessPoolExecutor(options.jobs, initializer=threadpool_limits, initargs=(1,)) as pool:
        for name in names:
            show_race(name, options.repeats, pool)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
