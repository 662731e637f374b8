"""SIGKILL at random moments: nothing answered is asked again, nothing finished is repeated, the bytes are the same."""

import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import pytest
import yaml
from test_study_run import counted

KILLS = 5  # ten take over two minutes
CONCURRENCY = 4


def start(config, out) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cuvee", "run", str(config), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finished_trials(out) -> dict[str, int]:
    path = out / "trials.sqlite"
    if not path.exists():
        return {}
    with sqlite3.connect(path) as database:
        try:
            return dict(database.execute("SELECT key, rowid FROM trials"))
        except sqlite3.OperationalError:  # killed before the table was made
            return {}


def answered(out) -> int:
    path = out / "ledger.sqlite"
    if not path.exists():
        return 0
    with sqlite3.connect(path) as database:
        try:
            return int(database.execute("SELECT count(*) FROM answers").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


@pytest.mark.slow
def test_a_study_killed_again_and_again_ends_with_the_same_bytes(settings, tmp_path, local):
    async def slow(_number, _request, _body):
        await asyncio.sleep(0.01)

    local.script = slow
    settings["draws"]["training"] = 8  # trials enough to be killed among
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    began = time.monotonic()
    whole = start(config, tmp_path / "whole")
    output = whole.communicate(timeout=300)[0]
    assert whole.returncode == 0, output.decode()
    length = time.monotonic() - began
    clean = len(local.bodies)
    assert len({json.dumps(b, sort_keys=True) for b in local.bodies}) == clean
    local.bodies.clear()

    moments = random.Random(11)
    kills = 0
    for attempt in range(60):
        known, had, sent = finished_trials(tmp_path / "cut"), answered(tmp_path / "cut"), len(local.bodies)
        run = start(config, tmp_path / "cut")
        try:
            run.wait(timeout=moments.uniform(0.25, 1.0) * length)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            kills += 1
        run.communicate(timeout=60)
        now = finished_trials(tmp_path / "cut")
        assert {k: now[k] for k in known} == known
        assert answered(tmp_path / "cut") >= had
        # what was sent in this run and not journalled is no more than what was under way
        assert len(local.bodies) - sent - (answered(tmp_path / "cut") - had) <= CONCURRENCY
        if kills == KILLS:
            break
        if run.returncode == 0:  # it got through: the remaining kills strike a fresh folder
            assert counted(tmp_path / "cut") == counted(tmp_path / "whole")
            (tmp_path / "cut").rename(tmp_path / f"done{attempt}")
            local.bodies.clear()
    assert kills == KILLS
    last = start(config, tmp_path / "cut")
    output = last.communicate(timeout=300)[0]
    assert last.returncode == 0, output.decode()
    assert counted(tmp_path / "cut") == counted(tmp_path / "whole")
    asked = Counter(json.dumps(b, sort_keys=True) for b in local.bodies)
    assert len(asked) == clean
    assert len(local.bodies) - clean <= kills * CONCURRENCY


@pytest.mark.slow
def test_ctrl_c_stops_within_two_seconds_and_says_how_to_go_on(settings, tmp_path, local):
    async def slow(_number, _request, _body):
        await asyncio.sleep(0.3)

    local.script = slow
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    run = start(config, tmp_path / "run")
    while len(local.bodies) < 6:
        time.sleep(0.05)
    pressed = time.monotonic()
    run.send_signal(signal.SIGINT)
    output = run.communicate(timeout=20)[0].decode()
    assert time.monotonic() - pressed < 2
    assert run.returncode == 130
    assert "run the same command again to go on" in output and "Traceback" not in output
    assert answered(tmp_path / "run") > 0
