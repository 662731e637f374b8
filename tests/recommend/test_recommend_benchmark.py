"""The benchmark of the statistics, with few repeats: that it runs and that nothing is far off."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "error_rates.py"


def run(*arguments):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--jobs", "1", *arguments], capture_output=True, text=True, check=False
    )
    assert not done.stderr and done.returncode == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    return [(row[0], row[1], float(re.match(r"-?[\d.]+", row[2])[0])) for row in rows if len(row) == 5]


@pytest.mark.slow
def test_rates_and_biases_with_sixty_repeats():
    rows = run("--repeats", "60", "--only", "shapes", "power", "coverage", "selection")
    found = {}
    for part, what, value in rows:
        found.setdefault(part, {})[what] = value
    assert len(found["false inverted U"]) == 54 and max(found["false inverted U"].values()) <= 0.15
    assert max(found["false two lines"].values()) <= 0.2 and max(found["any shape"].values()) <= 0.2
    assert min(found["power"].values()) >= 0.4 and min(found["planned power"].values()) >= 0.6
    assert len(found["coverage"]) == 27 and min(found["coverage"].values()) >= 0.82
    apparent, confirmed = found["selection"].values()
    assert apparent > 1.0 and abs(confirmed) < 0.7


@pytest.mark.slow
def test_the_race_of_searches_runs():
    rows = run("--repeats", "2", "--only", "search")
    assert len(rows) == 3 * 5
    assert all(0 <= value < 3 for _, what, value in rows if "less grid" not in what)


@pytest.mark.slow
def test_confirmations_and_leans_with_forty_repeats():
    rows = run("--repeats", "40", "--only", "confirmations", "lean")
    found = {}
    for part, what, value in rows:
        found.setdefault(part, {})[what] = value
    assert len(found["confirmation covers"]) == 22 and min(found["confirmation covers"].values()) >= 0.8
    assert max(found["false use"].values()) <= 0.1
    assert found["use"]["demo; all good; SD 1"] >= 0.75 > 0.4 > found["use"]["small; all good; SD 1"]
    for budget in ("small", "demo", "large"):
        assert abs(found["lean"][f"{budget}; expected less true gain"]) < 1.5
        regret = {what: value for what, value in found["regret"].items() if what.startswith(budget)}
        assert regret[f"{budget}; the lean"] < regret[f"{budget}; a blend only where shown"]
