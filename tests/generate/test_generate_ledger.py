import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from cuvee.errors import RunFolderError
from cuvee.generate import Answer, Endpoint, Ledger, Request, Sampling
from cuvee.generate.calls import request_json, request_key
from cuvee.records import Usage

ENDPOINT = Endpoint(base_url="http://one/v1", model="m", api="completions", api_key="sk-secret")
REQUEST = Request(prompt="p", sampling=Sampling(temperature=0.5), seed=1)
ANSWER = Answer(text="an answer ☃", finish_reason="stop", prompt_tokens=3, completion_tokens=2)


def test_answers_are_replayed_once_committed_and_only_then(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.record("a", "{}", ANSWER) == 1
        assert ledger.lookup("a") is None
        ledger.flush()
        assert ledger.lookup("a") == ANSWER
        assert ledger.counts() == Usage(requests=1, replayed=1, prompt_tokens=3, completion_tokens=2)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.lookup("a").replayed
        assert ledger.counts() == Usage(replayed=1)
        assert ledger.totals() == Usage(requests=1, prompt_tokens=3, completion_tokens=2)


def test_first_answer_to_a_key_stays(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for text in ("first", "second"):
            ledger.record("a", "{}", replace(ANSWER, text=text))
            ledger.flush()
        assert ledger.lookup("a").text == "first"


CHANGES = {
    "identity": (replace(ENDPOINT, identity="elsewhere"), REQUEST),
    "model": (replace(ENDPOINT, model="n"), REQUEST),
    "api": (replace(ENDPOINT, api="chat"), REQUEST),
    "prompt": (ENDPOINT, replace(REQUEST, prompt="q")),
    "messages": (ENDPOINT, replace(REQUEST, prompt=None, messages=(("user", "p"),))),
    "role": (ENDPOINT, replace(REQUEST, prompt=None, messages=(("system", "p"),))),
    "seed": (ENDPOINT, replace(REQUEST, seed=2)),
    "replicate": (ENDPOINT, replace(REQUEST, replicate=1)),
    "temperature": (ENDPOINT, replace(REQUEST, sampling=replace(REQUEST.sampling, temperature=0.6))),
    "top_p": (ENDPOINT, replace(REQUEST, sampling=replace(REQUEST.sampling, top_p=0.9))),
    "max_tokens": (ENDPOINT, replace(REQUEST, sampling=replace(REQUEST.sampling, max_tokens=9))),
    "stop": (ENDPOINT, replace(REQUEST, sampling=replace(REQUEST.sampling, stop=("\n",)))),
}


def test_every_determinant_changes_the_key_and_nothing_else_does():
    keys = [request_key(ENDPOINT, REQUEST), *(request_key(e, r) for e, r in CHANGES.values())]
    assert len(set(keys)) == len(CHANGES) + 1
    same = replace(
        ENDPOINT, api_key="other", key_name="KEY", concurrency=2, timeout_s=1, give_up_s=1, check_model=False
    )
    assert request_key(same, REQUEST) == keys[0]


def test_key_is_never_shown_or_stored():
    assert "sk-secret" not in repr(ENDPOINT)
    assert "sk-secret" not in request_json(ENDPOINT, REQUEST)
    assert "temperature" in request_json(ENDPOINT, REQUEST)


def test_endpoint_arguments_are_checked():
    with pytest.raises(ValueError, match="api 'chats'"):
        Endpoint(base_url="http://one", model="m", api="chats")
    with pytest.raises(ValueError, match="concurrency 0"):
        Endpoint(base_url="http://one", model="m", concurrency=0)
    assert Endpoint(base_url="http://one/v1/", model="m").identity == "http://one/v1"


WRITER = """
import sys
from cuvee.generate import Answer, Ledger
ledger = Ledger(__import__("pathlib").Path(sys.argv[1]))
start = ledger.totals().requests
for i in range(start, 10**6):
    if ledger.record(str(i), "{}", Answer(text=f"text {i} " + "x" * 500, finish_reason="stop")) >= 8:
        ledger.flush()
        print(i, flush=True)
"""


@pytest.mark.slow  # with the others of its kind
def test_sigkill_at_any_instant_loses_no_committed_answer(tmp_path):
    path = tmp_path / "ledger.sqlite"
    rng = random.Random(5)
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        first = writer.stdout.readline()
        time.sleep(rng.uniform(0, 0.2))
        os.kill(writer.pid, signal.SIGKILL)
        said = [int(line) for line in [first, *writer.stdout] if line.endswith("\n")]
        writer.wait()
        writer.stdout.close()
        with Ledger(path) as ledger:
            assert ledger.totals().requests >= said[-1] + 1
            assert all(ledger.lookup(str(i)).text.startswith(f"text {i} ") for i in range(said[-1] + 1))


FILLER = """
import pathlib, resource, sys
from cuvee.errors import CuveeError
from cuvee.generate import Answer, Ledger
ledger = Ledger(pathlib.Path(sys.argv[1]))
ledger.record("kept", "{}", Answer(text="kept", finish_reason="stop"))
ledger.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # what a full disk looks like to SQLite
try:
    for i in range(1000):
        ledger.record(str(i), "{}", Answer(text="x" * 5000, finish_reason="stop"))
        ledger.flush()
except CuveeError as exc:
    print(type(exc).__name__, exc)
"""


def test_full_disk_is_one_line_and_keeps_what_was_committed(tmp_path):
    path = tmp_path / "ledger.sqlite"
    done = subprocess.run([sys.executable, "-c", FILLER, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("RunFolderError")
    assert "full or failing" in done.stdout
    assert "free some space" in done.stdout
    assert done.stdout.count("\n") == 1
    with Ledger(path) as ledger:
        assert ledger.lookup("kept").text == "kept"
        assert ledger.totals().requests > 5


def test_a_file_that_is_no_ledger_is_refused(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_text("not a database at all, and long enough to look at " * 40)
    with pytest.raises(RunFolderError, match="is not a ledger"):
        Ledger(path)
    with pytest.raises(RunFolderError, match="does its folder exist"):
        Ledger(tmp_path / "missing" / "ledger.sqlite")
