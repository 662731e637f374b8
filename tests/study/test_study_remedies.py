"""The advice's own remedies, run on real rows: evidence gets no weaker by them, and what was confirmed stays so."""

import gzip
import json
import os
import random
import re
from collections import defaultdict
from pathlib import Path

import pytest

from cuvee.study.opening import open_study

DATA = Path(os.environ.get("CUVEE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "gptaug_stackoverflow"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="shared data gptaug_stackoverflow is not beside the checkout"),
]
ROWS = 12  # of a label in each pool


def read(name):
    path = DATA / name
    with gzip.open(path, "rt") if name.endswith("gz") else path.open() as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture
def study(tmp_path):
    """Ten labels, five real rows of each and a pool; with a function that adds a pool of other rows."""
    real = read("test.jsonl")
    labels = sorted({row["label"] for row in real})[:10]
    pools = defaultdict(list)

    def add(name, rows, each=ROWS):
        pools[name] = []
        for label in labels:
            pools[name] += [row | {"pool": name} for row in rows if row["label"] == label][:each]
        every = [row for own in pools.values() for row in own]
        (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in every), encoding="utf-8")

    made = read("synthetic.jsonl.gz")
    random.Random(0).shuffle(made)
    add("first", made)
    (tmp_path / "real.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in real if row["label"] in labels), encoding="utf-8"
    )

    def make(seed=0, amounts=("1x", "2x"), test=1000, dial="source", **draws):
        return {
            "seed": seed,
            "data": {"real": str(tmp_path / "real.jsonl")}, "encoder": "hashing", "generator": {"kind": "files"},
            "split": {"test": test, "validation": 200, "rows_per_label": 5}, "train": {"sensitivity": []},
            "pools": [{"dial": dial, "path": str(tmp_path / "pool.jsonl"), "levels": {"pool": list(pools)}}],
            "mix": {"amounts": list(amounts), "shape_share": 0.5},
            "draws": {"sampling": 3, "confirm": 2, "real": 1, **draws},
        }  # fmt: skip

    return make, add


def advise(config, folder):
    with open_study(config, out=folder) as flow:
        return flow.advice


def test_the_draws_that_are_asked_for_are_more_evidence_of_the_same_kind(study, tmp_path):
    make, _ = study
    few = {"seed": 3, "amounts": ["1x"], "sampling": 4}
    before = advise(make(**few), tmp_path / "run")
    assert before.decision == "underpowered" and before.more_of == "confirm" and 0 < before.more_draws < 20
    after = advise(make(**few, confirm=2 + before.more_draws), tmp_path / "run")
    earlier, later = before.confirmation, after.confirmation
    assert later.cell == earlier.cell == after.best.cell  # power is 0.8, so it need not be settled
    assert later.fresh_draws and earlier.fresh_draws and later.test_items == earlier.test_items
    assert all(2 < gain.draws <= 2 + before.more_draws for gain in later.gains) and later.looks[0] == 2
    widths = [[gain.high - gain.low for gain in each.gains] for each in (earlier, later)]
    assert max(widths[1]) < min(widths[0])


def test_what_was_confirmed_stays_the_choice_until_another_is_shown_to_be_better(study, tmp_path):
    make, add = study
    first = advise(make(confirm=6), tmp_path / "run")
    more = advise(make(confirm=6, sampling=8), tmp_path / "run")
    made = read("synthetic.jsonl.gz")
    random.Random(1).shuffle(made)
    add("like it", made)
    add("real", read("train.jsonl"))
    other = advise(make(confirm=6, sampling=8), tmp_path / "run")
    for advice in (first, more, other):
        assert advice.decision == "use" and advice.confirmation.cell == advice.best.cell == first.best.cell
        assert advice.confirmation.fresh_draws and advice.confirmation.looks == first.confirmation.looks
    best = max(other.cells, key=lambda summary: summary.accuracy)
    assert best.cell.level == "real" and best.cell in {summary.cell for summary in other.not_distinguished}


def test_the_items_that_are_asked_for_are_more_evidence_of_the_same_kind(study, tmp_path):
    make, _ = study
    before = advise(make(amounts=["all"], seed=1, test=60), tmp_path / "few")
    assert before.decision == "underpowered" and before.more_draws is None and 60 < before.more_items < 1000
    assert f"about {before.more_items} held-out items in place of 60 would" in before.sentence
    after = advise(make(amounts=["all"], seed=1, test=before.more_items), tmp_path / "many")
    assert after.confirmation.test_items == before.more_items and after.best.cell == before.best.cell
    assert after.confirmation.fresh_draws == before.confirmation.fresh_draws
    widths = [max(gain.high - gain.low for gain in each.confirmation.gains) for each in (before, after)]
    assert widths[1] < widths[0] * (60 / before.more_items) ** 0.4


def test_the_rows_that_are_asked_for_let_the_recipe_be_judged(study, tmp_path):
    make, add = study
    made = read("synthetic.jsonl.gz")

    def give(each):
        for number, name in enumerate(("first", "second")):
            random.Random(number).shuffle(made)
            add(name, made, each=each)
        return advise(make(dial="mine"), tmp_path / str(each))

    before = give(9)
    needed = int(
        re.search(r"no shape over levels was tested: mine=first holds 90.* need (\d+) of each", before.scope)[1]
    )
    after = give(needed // 10)
    assert before.shapes == () and [shape.dial for shape in after.shapes] == ["mine"]
    assert "recipe cannot be judged" not in after.scope and after.shapes[0].draws == 2
