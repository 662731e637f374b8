"""The how-to's trainer and loss of one's own, word for word."""

import re
import sys
from pathlib import Path

import pytest
from test_study_run import files, make_rows, write_pools

from cuvee.records import Trial
from cuvee.study.opening import open_study

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to.md"


@pytest.mark.slow  # with the other programs of the how-to
def test_the_example_of_the_how_to_runs_and_its_loss_counts(settings, tmp_path, monkeypatch):
    text = HOW_TO.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n# mine\.py\n(.*?)```", text, re.DOTALL)
    assert 'train: {trainer: "mine:centroids", loss: "mine:ShortRowsLess", steps: 1}' in text
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    rows = make_rows("low")
    short = [{**row, "text": row["text"].replace("told ", "").replace("times", "")} for row in rows[::2]]
    rows[::2] = short
    write_pools(tmp_path, {"low.jsonl": rows})
    config = files(settings, low=tmp_path / "low.jsonl") | {
        "mix": {"shares": [0.5], "shape_share": 0.5},
        "draws": {"generation": 2, "training": 1, "confirm": 0},
        "train": {"trainer": "mine:centroids", "loss": ["mine:ShortRowsLess", "ce"], "steps": 1},
    }
    try:
        with open_study(config, out=tmp_path / "run", trust=["mine"]) as flow:
            outcomes = flow.grid
            assert flow.advice.best.cell.loss == "mine:ShortRowsLess"
    finally:
        sys.modules.pop("mine", None)
    assert all(isinstance(outcome, Trial) for outcome in outcomes)
    answers = {"ce": [], "mine:ShortRowsLess": []}
    for each in (each for each in outcomes if each.cell.kind == "blend"):
        answers[each.cell.loss] += each.scores.correct.tolist()
    assert answers["ce"] != answers["mine:ShortRowsLess"]
