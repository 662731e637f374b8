"""SIGKILL at random moments: nothing answered is asked again, nothing finished is repeated, the bytes are the same."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from test_study_run import counted, files, make_rows, write_pools

KILLS = 3  # each costs two starts of a process
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
    settings["draws"]["sampling"] = 4  # trials enough to be killed among
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
def test_an_adaptive_study_killed_at_ten_random_moments_ends_with_the_same_bytes(settings, tmp_path):
    """The search is told again what was finished, and goes on as if nothing had happened."""
    names = ("a", "b", "c")
    write_pools(tmp_path, {f"{n}.jsonl": make_rows(n, groups=12 + 4 * k) for k, n in enumerate(names)})
    made = {
        **files(settings, **{name: tmp_path / f"{name}.jsonl" for name in names}),
        "mix": {"shares": [0.1, 0.25, 0.5], "shape_share": 0.5},
        "draws": {"generation": 3, "sampling": 1, "training": 4, "confirm": 1},
        "train": {"trainer": "slow_trainer:train", "steps": 10},
        "search": {"kind": "adaptive", "budget": 0.7, "batch": 2},
    }
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump(made), encoding="utf-8")
    known = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "TRAINER_LOG": str(tmp_path / "log")}

    def begin(folder: Path, sleep: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "cuvee", "run", str(config), "--out", str(folder), "--trust", "slow_trainer"]
        environment = {**known, "TRAINER_SLEEP": str(sleep)}
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)

    assert begin(tmp_path / "whole", 0.0).wait(timeout=120) == 0
    total, moments = len(finished_trials(tmp_path / "whole")), random.Random(5)
    folder = tmp_path / "cut"
    for target in sorted(moments.sample(range(1, total - 4), 10)):  # trials finished when it is struck
        before = finished_trials(folder)
        run, end = begin(folder, 0.01), time.monotonic() + 60
        while len(finished_trials(folder)) < target and run.poll() is None:
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.005)
        assert run.poll() is None
        run.send_signal(signal.SIGKILL)
        run.wait(timeout=30)
        now = finished_trials(folder)
        assert {key: now[key] for key in before} == before
    assert begin(folder, 0.0).wait(timeout=120) == 0
    assert counted(folder) == counted(tmp_path / "whole")
    assert finished_trials(folder).keys() == finished_trials(tmp_path / "whole").keys()


VARIANTS = {
    "adaptive": {"search": {"kind": "adaptive", "budget": 0.8, "batch": 2}},
    "cross-fitted": {"split": {"crossfit": 2, "validation": 40, "rows_per_label": 3}},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", VARIANTS)
def test_kills_and_a_faulty_endpoint_change_no_byte_of_an_adaptive_or_cross_fitted_study(
    settings, tmp_path, local, kind
):
    """Every tenth request fails once, in one of three ways, while the study is killed twice."""
    made = {**settings, **VARIANTS[kind]}
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump(made), encoding="utf-8")
    whole = start(config, tmp_path / "whole")
    output = whole.communicate(timeout=300)[0]
    assert whole.returncode == 0, output.decode()
    clean = Counter(json.dumps(body, sort_keys=True) for body in local.bodies)
    assert set(clean.values()) == {1}
    local.bodies.clear()
    failed: Counter[int] = Counter()

    async def faulty(_number, request, body):
        await asyncio.sleep(0.01)
        asked = json.dumps(body, sort_keys=True)
        digest = zlib.crc32(asked.encode())
        if digest % 10 or asked not in clean or failed[digest]:
            return None
        failed[digest] += 1
        if digest % 3 == 0:
            request.transport.abort()
        status = 429 if digest % 3 == 1 else 500
        return web.json_response(
            {"error": "busy"}, status=status, headers={"Retry-After": "1"} if status == 429 else {}
        )

    local.script = faulty
    folder = tmp_path / "cut"
    for part in (0.3, 0.8):  # of the requests
        run = start(config, folder)
        while len(local.bodies) < part * len(clean) and run.poll() is None:
            time.sleep(0.005)
        assert run.poll() is None
        run.send_signal(signal.SIGKILL)
        run.communicate(timeout=30)
    last = start(config, folder)
    output = last.communicate(timeout=300)[0]
    assert last.returncode == 0, output.decode()
    names = {path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").glob("folds/*/pools/*.parquet")}
    assert bool(names) == (kind == "cross-fitted")
    assert counted(folder) == counted(tmp_path / "whole")
    assert all((folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)
    asked = Counter(json.dumps(body, sort_keys=True) for body in local.bodies)
    assert set(clean) <= set(asked)
    assert len(failed) > 5
    again = sum(count - 1 for body, count in asked.items() if body in clean)
    assert again <= len(failed) + 2 * CONCURRENCY  # nothing that was journalled is sent again


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
