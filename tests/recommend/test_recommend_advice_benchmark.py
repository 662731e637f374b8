"""The benchmark of advice on a small data set whose truth is plain: one pool helps, and one has wrong labels."""

import json
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TOPICS = ("rain wind storm cloud", "bread flour oven yeast", "goal match team score")


def write_rows(path, rng, count, *, wrong=0, **fields):
    path.parent.mkdir(exist_ok=True)
    rows = []
    for i in range(count):
        words = [*rng.choice(TOPICS[i % 3].split(), 2), *(f"w{n}" for n in rng.integers(200, size=6))]
        rows.append({"text": " ".join(rng.permutation(words)), "label": f"topic {(i + wrong) % 3}", **fields})
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.mark.slow
def test_advice_on_worlds_of_known_truth(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import advice

    rng, folder = np.random.default_rng(0), tmp_path / "workergpt_tendim"
    write_rows(folder / "train.jsonl", rng, 60)
    write_rows(folder / "test.jsonl", rng, 600)
    write_rows(folder / "synthetic.jsonl", rng, 90, generator="good", method="m")
    write_rows(folder / "synthetic.jsonl", rng, 90, wrong=1, generator="wrong", method="m")
    common = ["--worlds", str(tmp_path), "--only", "workergpt_tendim"]
    assert not advice.main(["record", str(tmp_path), "--encoder", "hashing", "--numbers", "0", "1", *common])
    capsys.readouterr()
    assert not advice.main(["replay", "--repeats", "2", "--jobs", "1", "--budgets", "demo", *common])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    rows = {cells[0]: cells for cells in lines if cells}
    regret = {policy: float(rows[policy][1].split()[0]) for policy in advice.POLICIES}
    assert min(regret.values()) >= 0 and regret[advice.LEAN] < 1 and regret[advice.VERDICT] < 2
    assert regret[advice.REAL] > 5 and regret[advice.POOLED] > 5
    assert rows[advice.VERDICT][2] == "0.0%"

    world = advice.load_world(advice.file_of(tmp_path, "workergpt_tendim", 3, 1))
    assert world.diversity.keys() == {"good m", "wrong m"} and len(world.answers[world.real]) == 1
    by_level = {cell.level: world.truth[cell] for cell in world.blends if cell.whole}
    assert by_level["good m"] > world.truth[world.real] > by_level["wrong m"]
