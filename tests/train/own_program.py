"""A program as a user writes one: votes of words; or it misbehaves, as its settings say. It needs no package."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

folder = Path(sys.argv[1])
trial = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
own = trial["settings"]


def read(name):
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def write(name, rows):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if "log" in own:
    with Path(own["log"]).open("a", encoding="utf-8") as log:
        log.write(f"{folder.name} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')}\n")
sys.stdout.write("reading rows\n")
sys.stdout.flush()
do = own.get("do", "") if "synthetic" in {row["origin"] for row in read("train.jsonl")} else ""
if do == "fail":
    sys.exit("ValueError: no learning rate")
if do == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if do == "hang":
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    Path(own["child"]).write_text(str(child.pid), encoding="utf-8")
    child.wait()
if do == "swell":
    held = bytearray(400_000_000)
    time.sleep(600)
if do == "rubbish":
    (folder / "predictions.jsonl").write_text('{"id": 0, "predic', encoding="utf-8")
if do in ("silent", "rubbish"):
    sys.exit(0)
votes = defaultdict(Counter)
for row in read("train.jsonl"):
    for word in (row.get("text") or row["prompt"]).split():
        votes[word][row.get("label") or row["completion"]] += row["weight"]
answers, unknown = [], trial.get("labels", ["none"])[0]
for row in read("eval.jsonl"):
    assert set(row) in ({"id", "text"}, {"id", "prompt", "messages"}), row
    total = sum((votes[word] for word in (row.get("text") or row["prompt"]).split()), Counter())
    answers.append({"id": row["id"], "prediction": min(total, key=lambda y: (-total[y], y)) if total else unknown})
if do == "few":
    answers = answers[2:]
if do == "many":
    answers.append({"id": 999, "prediction": "none"})
if do == "unlabelled":
    answers = [{**row, "prediction": "none"} for row in answers]
if own.get("scores"):
    write("scores.jsonl", [{"id": row["id"], "score": own["scores"]} for row in answers])
else:
    write("predictions.jsonl", answers)
(folder / "model").mkdir()
(folder / "model" / "votes.json").write_text(json.dumps(votes), encoding="utf-8")
