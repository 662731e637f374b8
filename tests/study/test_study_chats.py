"""Real questions over tales as chats: studied with an endpoint and with files, judged, killed while it is judged."""

import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from test_study_kill import finished_trials
from test_study_three_tasks import one_thread, writer  # noqa: F401

from cuvee.generate.ledger import Ledger
from cuvee.study.opening import open_study, run_study
from cuvee.study.status import read_status
from local_llm import write_text

DATA = Path(os.environ.get("CUVEE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "fairytaleqa"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not DATA.is_dir(), reason="real questions are needed")]
TOGETHER = 2  # requests that are open at once


@pytest.fixture
def tales(tmp_path):
    """48 chats about 16 tales: a passage and a question, and the answer."""
    with gzip.open(DATA / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if len(row["context"].split()) < 120 and len(row["answer"]) < 50]
    by_story = {}
    for row in rows:
        by_story.setdefault(row["story"], []).append(row)
    kept = [row for own in [own[:3] for own in by_story.values() if len(own) >= 3][:16] for row in own]
    assert len(kept) == 48
    path = tmp_path / "tales.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row in kept:
            turns = [("user", f"{row['context']}\n\n{row['question']}"), ("assistant", row["answer"])]
            said = [{"role": role, "content": text} for role, text in turns]
            file.write(json.dumps({"messages": said, "story": row["story"]}) + "\n")
    return path


def answer(body):
    """Writes pairs, in which every second answer is of the question; reads prompts again; judges by length, and pairs
    by their place.
    """
    words = write_text(body, words=9).split()
    if "messages" not in body:
        said = " ".join(words[:6])
        return f" {said}\nResponse: {' '.join(words[2:5] if body['seed'] % 2 else words[6:])}\n====="
    told = body["messages"][1]["content"]
    if "Answer B:" in told:
        return "A"
    if "Answer:\n" in told:
        return f"{min(10, 1 + len(told.rpartition('Answer:')[2].split()))}"
    return " ".join(told.split()[-4:-1])


def study(settings, tales, model, **changes):
    part = {"kind": "endpoint", "base_url": settings["generator"]["base_url"], "model": "tiny", "concurrency": TOGETHER}
    tuning = {"model": model, "batch_size": 4, "learning_rate": 1e-3, "max_length": 64}
    return {
        **settings,
        "task": "generation",
        "data": {"real": str(tales), "group": "story"},
        "split": {"test": 12, "validation": 12},
        "dials": [{"name": "sampling", "levels": [0.3, 1.5]}],
        "mix": {"shares": [0.5], "shape_share": 0.5},
        "draws": {"generation": 2, "sampling": 1, "training": 1, "confirm": 1},
        "train": {"steps": 3, "settings": tuning},
        "evaluate": {"score": "judge", "judge": part, "max_tokens": 6},
        **changes,
    }


def count(path):
    if not path.exists():
        return 0
    with sqlite3.connect(path) as database:
        try:
            return int(database.execute("SELECT count(*) FROM answers").fetchone()[0])
        except sqlite3.OperationalError:  # the table is not made yet
            return 0


def test_chats_of_real_tales_are_studied_judged_and_killed_and_all_adds_up(settings, tmp_path, local, tales, writer):  # noqa: F811
    local.text = answer
    config = study(settings, tales, writer)
    result = run_study(config, out=tmp_path / "whole")
    assert result.advice.score == "judge" and "100% of choices were of the answer shown first" in str(
        result.advice.confirmation.note
    )
    clean = {json.dumps(body, sort_keys=True) for body in local.bodies}
    assert len(clean) == len(local.bodies)
    judged = sum("messages" in body for body in local.bodies)
    with open_study(config, out=tmp_path / "whole") as flow:
        parts = [flow.study.train, flow.study.split.validation]
        assert not set(parts[0].groups) & set(parts[1].groups)
        assert all(" " in text for pool in flow.pools.values() for text in pool.corpus.targets)
    # killed in the middle of judging, twice
    local.bodies.clear()
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "cuvee", "run", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "cut")]
    replies = tmp_path / "cut" / "judge.sqlite"
    for reached in (judged // 4, judged // 2):
        run, end = (
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
            time.monotonic() + 400,
        )
        while count(replies) < reached:
            assert run.poll() is None and time.monotonic() < end
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        run.wait(timeout=60)
    known = finished_trials(tmp_path / "cut")
    done = run_study(config, out=tmp_path / "cut")
    assert done.advice == result.advice and known.keys() <= finished_trials(tmp_path / "cut").keys()
    assert {json.dumps(body, sort_keys=True) for body in local.bodies} == clean
    assert len(local.bodies) - len(clean) <= 2 * TOGETHER  # what was under way
    with Ledger(replies, readonly=True) as ledger:
        assert ledger.totals().requests == judged == read_status(tmp_path / "cut").others["judge"].requests


def test_files_of_generated_pairs_are_filtered_by_their_answers_and_blended_as_chats(
    settings,
    tmp_path,
    local,
    tales,
    writer,  # noqa: F811
):
    local.text = answer
    config = study(settings, tales, writer, evaluate={"score": "token_f1", "max_tokens": 6})
    with open_study(config, out=tmp_path / "made") as flow:
        made = [pool.corpus for pool in flow.pools.values()]
        files = {level.name: flow.study.folder.path / "pools" / f"{level.key}.parquet" for level in flow.pools}
    assert all(path.is_file() for path in files.values())
    of_files = {name: value for name, value in config.items() if name != "dials"}
    of_files |= {
        "generator": {"kind": "files"},
        "pools": [{"dial": "sampling", "level": name, "path": str(path)} for name, path in files.items()],
        "filters": [{"name": "degenerate"}, {"name": "dedupe"}, {"name": "leak"}, {"name": "pairs", "grounded": 0.5}],
        "mix": {"shares": [0.3], "shape_share": 0.3},
    }
    result = run_study(of_files, out=tmp_path / "run", blend=True)
    kept = sum(len(pool) for pool in result.pools.values())
    assert 0 < kept < sum(map(len, made))
    table = pq.read_table(next((tmp_path / "run" / "blend").glob("*.parquet")))
    rows = table.select(["messages", "prompt", "completion", "origin"]).to_pylist()
    assert {row["origin"] for row in rows} == {"real", "synthetic"}
    assert all(row["messages"] == row["prompt"] + row["completion"] for row in rows)
    assert all([turn["role"] for turn in row["messages"]] == ["user", "assistant"] for row in rows)
    for row in rows:
        if row["origin"] == "synthetic":
            asked, said = (turn["content"] for turn in row["messages"])
            assert 2 * len(set(said.split()) & set(asked.split())) >= len(set(said.split()))
    assert "side by side" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
