"""The benchmark of advice on a small data set whose truth is plain: one pool helps, and one has wrong labels."""

import json
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TOPICS = ("rain wind storm cloud", "bread flour oven yeast", "goal match team score")


def write_rows(path, rng, count, **fields):
    path.parent.mkdir(exist_ok=True)
    rows = []
    for i in range(count):
        words = [*rng.choice(TOPICS[i % 3].split(), 2), *(f"w{n}" for n in rng.integers(200, size=6))]
        rows.append({"text": " ".join(rng.permutation(words)), "label": f"topic {i % 3}", **fields})
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.mark.slow
def test_advice_on_worlds_of_known_truth(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import advice
    import advice_worlds

    plan = advice_worlds.Plan("real/train", ("real/test",), "real/synthetic", (1, 3), wrong=(0.0, 1.0))
    monkeypatch.setitem(advice.PLANS, "topics, wrong labels", plan)
    rng, folder = np.random.default_rng(0), tmp_path / "real"
    write_rows(folder / "train.jsonl", rng, 60)
    write_rows(folder / "test.jsonl", rng, 600)
    write_rows(folder / "synthetic.jsonl", rng, 90, generator="a", method="m")
    write_rows(folder / "synthetic.jsonl", rng, 90, generator="b", method="m")
    common = ["--worlds", str(tmp_path), "--only", "topics, wrong labels"]
    assert not advice.main(["record", str(tmp_path), "--encoder", "hashing", "--numbers", "0", "1", *common])
    capsys.readouterr()
    assert not advice.main(["replay", "--repeats", "2", "--jobs", "1", "--budgets", "demo", *common])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    rows = {cells[0]: cells for cells in lines if cells}
    regret = {policy: float(rows[policy][1].split()[0]) for policy in advice.POLICIES}
    assert min(regret.values()) >= 0 and regret[advice.LEAN] < 1 and regret[advice.VERDICT] < 2
    assert regret[advice.REAL] > 5 and regret[advice.POOLED] > 5
    assert rows[advice.VERDICT][2] == "0.0%"
    alone = {cells[2]: cells for cells in lines if cells and cells[0] == "topics" and cells[1] == "3"}
    assert float(alone["a m, 0% wrong"][4]) > 5 and alone["a m, 0% wrong"][5].startswith("0 / ")
    assert float(alone["b m, 100% wrong"][4]) < -5 and alone["b m, 100% wrong"][5] == "100 / 0 / 0"

    world = advice.load_world(advice.file_of(tmp_path, "topics, wrong labels", 3, 1))
    assert world.diversity.keys() == {"a m, 0% wrong", "b m, 100% wrong"} and len(world.answers[world.real]) == 1
    by_level = {cell.level: world.truth[cell] for cell in world.blends if cell.whole}
    assert by_level["a m, 0% wrong"] > world.truth[world.real] > by_level["b m, 100% wrong"]
