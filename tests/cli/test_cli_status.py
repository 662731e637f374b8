"""``cuvee status``: a run seen from another process, while it runs and after."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from html import unescape

import pytest
import yaml
from aiohttp import web

from command_line import call, refused
from cuvee.generate.calls import Answer
from cuvee.generate.ledger import Ledger
from cuvee.records import Cell, Draw, TrialFailure
from cuvee.records.generation import GenerationAccount
from cuvee.report.tables import write_seconds
from cuvee.store import RunFolder
from cuvee.study.status import Recorder, read_status


def look(capsys, run) -> dict:
    code, out, _ = call(capsys, "status", run, "--json")
    assert code == 0
    return json.loads(out)


def test_a_run_is_seen_while_its_folder_is_held(tmp_path, capsys):
    cell = Cell(kind="blend", dial="topics", level="4", share=0.5, rows_per_label=3)
    now = [1000.0]
    with RunFolder(tmp_path / "run") as folder:
        recorder = Recorder(folder, None, clock=lambda: now[0])
        recorder.started("train", "trials")
        for done in range(4):
            now[0] += 1
            recorder.advanced("train", done, 12)
        recorder.noted("something to know")
        failure = TrialFailure(cell=cell, draw=Draw(generation=0, sampling=0, training=0), stage="train", reason="no")
        for number in range(3):
            folder.add_trial(f"failed {number}", failure)
        found = look(capsys, tmp_path / "run")
        assert (found["state"], found["process"]) == ("running", os.getpid())
        assert (found["stage"], found["done"], found["total"]) == ("train", 3, 12)
        assert found["trials"]["failed"] == 3 and found["trials"]["done"] == 0
        assert found["notes"] == ["something to know"]
        code, out, _ = call(capsys, "status", tmp_path / "run")
        assert code == 0 and "3 of 12" in out and "note: something to know" in out
        recorder.finished("train", 3.5)
        recorder.close()
    found = look(capsys, tmp_path / "run")
    assert (found["state"], found["process"]) == ("stopped", None)
    assert found["seconds"] == {"train": 3.5}
    (tmp_path / "run" / "report.html").write_text("written before")  # by a run; then came another command
    assert look(capsys, tmp_path / "run")["state"] == "finished"


def test_a_failure_that_was_put_right_is_no_failure_any_more(tmp_path):
    cell, draw = Cell(kind="real-only", rows_per_label=3), Draw(generation=0, sampling=0, training=0)
    failure = TrialFailure(cell=cell, draw=draw, stage="train", reason="no")
    with RunFolder(tmp_path / "run") as folder:
        Recorder(folder, None).close()
        folder.add_trial("failed", failure, replaces="failed")
        assert read_status(tmp_path / "run").trials.failed == 1
        folder.add_trial("now fine", failure, replaces="failed")
        assert folder.find_trial("failed") is None and folder.find_trial("now fine") == failure


def test_what_is_no_run_folder_is_told(tmp_path, capsys):
    assert "no run folder" in refused(capsys, "status", tmp_path)
    (tmp_path / "status.json").write_text("{", encoding="utf-8")
    said = (
        "damaged (Invalid JSON: EOF while parsing an object at line 1 column 1); delete it: it tells how far a run is"
    )
    assert f"status.json: {said}" in refused(capsys, "status", tmp_path)


def run_on_read_only(folder, command):
    """A command in another process, for which the folder is on read-only media."""
    cuvee = [sys.executable, "-m", "cuvee", command, str(folder), "--json"]
    if os.geteuid() == 0:  # whom no permission binds: a mount that only this process sees
        script = f'mount --bind "{folder}" "{folder}" && mount -o remount,ro,bind "{folder}" && exec "$@"'
        probe = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", "true"], check=False, capture_output=True)
        if probe.returncode:
            pytest.skip(f"this machine mounts nothing read-only: {probe.stderr.decode()}")
        cuvee = ["unshare", "-m", "sh", "-c", script, "sh", *cuvee]
    else:
        folder.chmod(0o555)
    try:
        return subprocess.run(cuvee, check=False, capture_output=True, text=True)
    finally:
        folder.chmod(0o755)


@pytest.mark.slow  # four processes
@pytest.mark.parametrize("stopped", ["in order", "by a kill"])
def test_status_and_ledger_read_a_read_only_folder(tmp_path, stopped):
    answer = Answer(text="a", finish_reason="stop", prompt_tokens=3)
    request = json.dumps({"endpoint": "e", "body": {"model": "m"}})
    failure = TrialFailure(
        cell=Cell(kind="real-only", rows_per_label=3), draw=Draw(generation=0, sampling=0, training=0),
        stage="train", reason="no",
    )  # fmt: skip
    with RunFolder(tmp_path / "run") as folder, Ledger(folder.ledger_path) as ledger:
        Recorder(folder, None).close()
        folder.add_trial("a", failure)
        for number in range(4):
            ledger.record(str(number), request, answer)
        ledger.flush()
        if stopped == "by a kill":  # both logs of SQLite are full, and nothing of them is in the files
            shutil.copytree(tmp_path / "run", tmp_path / "seen", ignore=shutil.ignore_patterns("*-shm"))
            assert (tmp_path / "seen" / "ledger.sqlite-wal").stat().st_size
    if stopped == "in order":
        shutil.copytree(tmp_path / "run", tmp_path / "seen")
    before = {path.name: path.read_bytes() for path in (tmp_path / "seen").iterdir()}
    for command in ("status", "ledger"):
        done = run_on_read_only(tmp_path / "seen", command)
        assert (done.returncode, done.stderr) == (0, "")
        found = json.loads(done.stdout)
        taken = found.get("generation", found)
        assert (taken["requests"], taken["prompt_tokens"]) == (4, 12)
        assert command == "ledger" or found["trials"]["failed"] == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "seen").iterdir()} == before


@pytest.mark.slow  # with the others of its kind
def test_another_process_is_seen_and_its_death_too(settings, tmp_path, capsys, local):
    held = True

    async def hold(number, _request, _body):
        while held and number >= 20:
            await asyncio.sleep(0.05)

    local.script = hold
    study, folder = tmp_path / "study.yaml", tmp_path / "run"
    settings["generator"]["timeout_s"] = 100
    study.write_text(yaml.safe_dump(settings), encoding="utf-8")
    run = subprocess.Popen(
        [sys.executable, "-m", "cuvee", "run", str(study), "--out", str(folder)], stderr=subprocess.DEVNULL
    )
    while len(local.bodies) < 24 and run.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    found = look(capsys, folder)
    assert (found["state"], found["process"], found["stage"]) == ("running", run.pid, "generate")
    assert 0 < found["generation"]["requests"] <= 20 and found["generation"]["prompt_tokens"] > 0
    before = {path.name for path in folder.iterdir()}
    run.send_signal(signal.SIGKILL)
    run.wait(timeout=60)
    held = False
    assert look(capsys, folder)["state"] == "stopped"
    assert {path.name for path in folder.iterdir()} <= before


class Trouble:
    """429, 500 and cut connections the first time, a request that always fails, and answers that become no row."""

    def __init__(self, local) -> None:
        self.local, self.sent, self.hold_from, self.busy = local, Counter(), None, 3
        local.script, honest = self.answer, local.text
        local.text = lambda body: "x" if body["seed"] % 5 == 0 else honest(body)

    async def answer(self, number, _request, body):
        key = json.dumps(body, sort_keys=True)
        self.sent[key] += 1
        if number < self.busy:
            return web.json_response({"error": "busy"}, status=429, headers={"Retry-After": "0"})
        while self.hold_from is not None and number >= self.hold_from:
            await asyncio.sleep(0.05)
        if body["seed"] % 19 == 0:
            return web.json_response({"error": "no such text"}, status=400)
        if body["seed"] % 7 == 0 and self.sent[key] == 1:
            return web.json_response({"error": "oops"}, status=500)
        return None

    def sent_again(self) -> int:
        return sum(n - 1 for n in self.sent.values())


def read_tables(page) -> dict[str, dict[str, str]]:
    """Caption, or first column, of each table of a page -> the first cell of its rows -> the last."""
    found = {}
    for table in re.findall(r"<table.*?</table>", page, flags=re.DOTALL):
        rows = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, flags=re.DOTALL) for row in table.split("<tr>")]
        caption = re.search(r"<caption>(.*?)</caption>", table)
        name = caption[1] if caption else next(row for row in rows if row)[0]
        found[name] = {unescape(row[0]): unescape(row[1]) for row in rows if len(row) > 1}
    return found


@pytest.mark.slow  # a study, killed and gone on with
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"search": {"kind": "adaptive", "budget": 0.9}},
        {"split": {"crossfit": 2, "validation": 45, "rows_per_label": 3}},
    ],
    ids=["grid", "adaptive", "crossfit"],
)
def test_a_study_killed_and_gone_on_with_is_counted_once_and_alike_everywhere(
    settings, tmp_path, capsys, local, changes
):
    trouble, folder, study = Trouble(local), tmp_path / "run", tmp_path / "study.yaml"
    prices = {"prompt_per_million": 1e4, "completion_per_million": 1e5, "currency": "EUR"}
    given = {**settings, **changes, "generator": {**settings["generator"], "prices": prices, "timeout_s": 100}}
    study.write_text(yaml.safe_dump(given), encoding="utf-8")
    trouble.hold_from = 40
    run = subprocess.Popen(
        [sys.executable, "-m", "cuvee", "run", str(study), "--out", str(folder)], stderr=subprocess.DEVNULL
    )
    while len(local.bodies) < 43 and run.poll() is None:
        time.sleep(0.05)
    time.sleep(0.7)
    run.send_signal(signal.SIGKILL)
    run.wait(timeout=60)
    killed = look(capsys, folder)
    assert killed["state"] == "stopped" and killed["seconds"]["generate"] > 0
    assert 1 <= killed["generation"]["retries"] <= trouble.sent_again()  # those that were answered
    trouble.hold_from, first = None, trouble.sent_again()
    trouble.sent.clear()

    code, out, err = call(capsys, "run", study, "--out", folder, "--json")
    told = json.loads(out)
    taken = told["generation"]
    assert code == 0 and taken["retries"] == killed["generation"]["retries"] + trouble.sent_again() > first
    assert taken["replayed"] >= killed["generation"]["requests"] and taken["failed"]["HTTP 400"] > 0
    bad = {json.dumps(b, sort_keys=True) for b in local.bodies if b["seed"] % 5 == 0}
    assert 0 < taken["rejected"]["too short"] <= len(bad) and "a draft" not in taken["rejected"]
    assert taken["cost"] == pytest.approx((taken["prompt_tokens"] * 1e4 + taken["completion_tokens"] * 1e5) / 1e6)
    assert all(told["seconds"][stage] >= spent for stage, spent in killed["seconds"].items())
    assert f"total {sum(told['seconds'].values()):.0f}" in err

    seen = look(capsys, folder)
    assert (seen["state"], seen["generation"], seen["seconds"]) == ("finished", taken, told["seconds"])
    again = json.loads(call(capsys, "ledger", folder, "--json")[1])
    assert again == taken

    page = (folder / "report.html").read_text(encoding="utf-8")
    tables = read_tables(page)
    generation = tables["Generation, all folds" if "split" in changes else "Generation"]
    rows = dict(row for row in GenerationAccount(**taken).list_rows() if row[0] != "note")
    assert {name: generation[name] for name in rows} == rows
    (times,) = [t for t in tables.values() if "time, generate" in t]
    spent = {stage: seconds for stage, seconds in told["seconds"].items() if stage != "report"}
    assert {f"time, {stage}": write_seconds(s) for stage, s in spent.items()}.items() <= times.items()
    assert times["time, all these stages"] == write_seconds(sum(spent.values()))

    pools = json.loads(call(capsys, "generate", folder, "--json")[1])
    by_level = Counter()
    for name, pool in pools.items():
        by_level[name.split(": ")[-1]] += pool["rejected"]
    flows = re.findall(r'<th scope="row">([^<]*)</th><td><ol class="flow">(.*?)</ol>', page)
    lost = {unescape(level): re.findall(r'<li class="lost">− ([\d,]+) ', flow) for level, flow in flows}
    assert {level: sum(int(n.replace(",", "")) for n in counts) for level, counts in lost.items()} == by_level
    card = (folder / "blend" / "README.md").read_text(encoding="utf-8")
    if level := re.search(r"dials and levels: (\S+)", card):
        pool = pools[level[1]] if level[1] in pools else pools[f"fold 1: {level[1]}"]
        left_out = sum(int(n) for n in re.findall(r"\| left out: .* \| (\d+) \|", card))
        assert (left_out, f"| kept | {pool['rows']} |" in card) == (pool["rejected"], left_out > 0)
    after = look(capsys, folder)["generation"]
    assert after == taken  # looking on asks nothing and counts nothing again


def test_a_file_that_is_no_ledger_is_not_called_damaged(tmp_path, capsys):
    rows = tmp_path / "real.jsonl"
    rows.write_text('{"text": "a", "label": "b"}\n')
    line = refused(capsys, "ledger", rows)
    assert "real.jsonl: no ledger; give a run folder" in line
