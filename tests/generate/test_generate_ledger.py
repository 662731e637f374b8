import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import pytest

from cuvee.errors import RunFolderError
from cuvee.generate.calls import Answer, Endpoint, Failure, Request, Sampling, request_json, request_key
from cuvee.generate.ledger import Ledger, check_ledger, summarise
from cuvee.records import Prices, Usage
from cuvee.records.generation import GenerationAccount

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
    same = replace(ENDPOINT, api_key="other", key_name="KEY", concurrency=2, timeout_s=1, give_up_s=1)
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
from cuvee.generate.calls import Answer
from cuvee.generate.ledger import Ledger
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
from cuvee.generate.calls import Answer
from cuvee.generate.ledger import Ledger
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


@pytest.mark.slow
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


# --- failures -------------------------------------------------------------------------------------
REFUSED = Failure(reason="HTTP 400", message="content filter", tries=1)
STUCK = Failure(reason="HTTP 500", message="out of luck", tries=7)


def test_failures_are_kept_until_forgotten_and_the_latest_counts(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        assert ledger.failures() == {}
        ledger.record_failure("b", "{}", STUCK)
        ledger.record_failure("a", "{}", STUCK)
        ledger.record_failure("a", "{}", REFUSED)
    with Ledger(path) as ledger:
        assert ledger.failures() == {"a": REFUSED, "b": STUCK}
        assert all(failure.replayed for failure in ledger.failures().values())
        assert ledger.lookup("a") is None
        assert ledger.totals() == ledger.counts() == Usage()
        assert ledger.forget_failures() == 2
    with Ledger(path) as ledger:
        assert ledger.failures() == {}
        assert ledger.forget_failures() == 0


def test_what_is_answered_did_not_fail():
    with Ledger() as ledger:
        ledger.record_failure("a", "{}", STUCK)
        ledger.record("a", "{}", ANSWER)
        ledger.flush()
        assert ledger.failures() == {}
        assert ledger.lookup("a") == ANSWER


def make_ledger(path, *models):
    with Ledger(path) as ledger:
        for number, model in enumerate(models):
            endpoint = replace(ENDPOINT, model=model)
            request = replace(REQUEST, seed=number)
            answer = replace(ANSWER, finish_reason="length" if number % 3 == 2 else "stop")
            ledger.record(request_key(endpoint, request), request_json(endpoint, request), answer)
        ledger.record_failure("f", request_json(ENDPOINT, REQUEST), REFUSED)
    return path


def test_the_account_adds_up_and_costs_what_the_prices_say(tmp_path):
    with Ledger(make_ledger(tmp_path / "l.sqlite", "m", "m", "m", "n")) as ledger:
        assert summarise(ledger) == GenerationAccount(
            requests=4, prompt_tokens=12, completion_tokens=8, failed={"HTTP 400": 1},
            by_model={"m at http://one/v1": 3, "n at http://one/v1": 1}, by_ending={"length": 1, "stop": 3},
        )  # fmt: skip
        assert ledger.totals().requests == 4
        price = Prices(prompt_per_million=1e5, completion_per_million=2e5)
        assert summarise(ledger, prices=price).cost == pytest.approx(12 * 0.1 + 8 * 0.2)
    with Ledger() as empty:
        assert summarise(empty, prices=price).cost == 0
    folds = [make_ledger(tmp_path / name, "m", "m", "m", "n") for name in ("1.sqlite", "2.sqlite")]
    with Ledger(folds[0]) as one, Ledger(folds[1]) as two:
        both = summarise(one, two, prices=price)
    assert (both.requests, both.prompt_tokens, both.failed) == (8, 24, {"HTTP 400": 2})
    assert both.by_model["m at http://one/v1"] == 6 and both.cost == pytest.approx(2 * (12 * 0.1 + 8 * 0.2))


def test_looking_at_a_ledger_changes_nothing(tmp_path):
    path = make_ledger(tmp_path / "a ledger?.sqlite", "m")
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=DELETE")
    before = path.read_bytes()
    with Ledger(path, readonly=True) as ledger:
        assert ledger.failures() == {"f": REFUSED} and ledger.totals().requests == 1
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with Ledger(path) as ledger:
        ledger.record_failure("a", "{}", STUCK)
        assert ledger.failures() == {"a": STUCK, "f": REFUSED}
    with Ledger(path, readonly=True) as ledger, pytest.raises(RunFolderError, match="readonly"):
        ledger.forget_failures()
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE things (name TEXT)")
    with pytest.raises(RunFolderError, match="is not a ledger"):
        Ledger(other, readonly=True)
    with pytest.raises(RunFolderError, match="does its folder exist"):
        Ledger(tmp_path / "none.sqlite", readonly=True)
    assert not (tmp_path / "none.sqlite").exists()


def test_a_ledger_can_be_looked_at_while_it_is_written(tmp_path):
    path = tmp_path / "l.sqlite"
    with Ledger(path) as writer:
        writer.record("a", "{}", ANSWER)
        writer.flush()
        with Ledger(path, readonly=True) as reader:
            assert reader.totals().requests == 1
            writer.record("b", "{}", ANSWER)
            writer.flush()
            assert reader.totals().requests == 2


@pytest.mark.parametrize("place", [0, 4096 * 20, -4096 * 20, "text", "cut", "empty"])
def test_a_damaged_ledger_is_told_with_what_is_lost_and_what_to_do(tmp_path, place):
    path = tmp_path / "made.ledger.sqlite"
    answers = {f"{k:064}": replace(ANSWER, text=f"text number {k} " + "word " * 200) for k in range(400)}
    with Ledger(path) as ledger:
        for key, answer in answers.items():
            ledger.record(key, request_json(ENDPOINT, REQUEST), answer)
    content = bytearray(path.read_bytes())
    if place == "text":
        content = content.replace(b"text number 7 ", b"text number 8 ")
    elif place in ("cut", "empty"):
        content = content[: len(content) * 6 // 10] if place == "cut" else b""
    else:
        place %= len(content)
        content[place : place + 100] = bytes(byte ^ 0x5A for byte in content[place : place + 100])
    path.write_bytes(content)
    with pytest.raises(RunFolderError) as caught:
        check_ledger(path)
        with Ledger(path) as ledger:
            for key in answers:
                ledger.lookup(key)
    assert str(caught.value).startswith(f"{path}: damaged (") and "\n" not in str(caught.value)
    assert "pools already written stay, and an answer that cannot be read is asked for again" in str(caught.value)
    assert "move it away" in str(caught.value)
    path.unlink()
    with Ledger(path) as ledger:
        assert ledger.lookup(next(iter(answers))) is None


# --- the command ----------------------------------------------------------------------------------
def call(capsys, *arguments):
    from cuvee.cli.app import run_cli

    code = run_cli(["ledger", *(str(a) for a in arguments)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_command_shows_counts_tokens_cost_and_failures(tmp_path, capsys):
    make_ledger(tmp_path / "ledger.sqlite", "m", "m", "m", "n")
    prices = ["--price-prompt", "100000", "--price-completion", "200000"]
    code, out, err = call(capsys, tmp_path, *prices)
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for line in ("requests answered 4", "answers by model 4 (3 m at http://one/v1, 1 n at http://one/v1)",
                 "tokens in 12", "answers by how they ended 4 (1 length, 3 stop)", "cost 2.8000 USD",
                 "requests failed for good 1 (1 HTTP 400)"):  # fmt: skip
        assert line in lines, out
    code, out, _ = call(capsys, tmp_path / "ledger.sqlite", "--json")
    found = json.loads(out)
    assert (code, found["requests"], found["cost"], found["failed"]) == (0, 4, None, {"HTTP 400": 1})
    code, out, _ = call(capsys, tmp_path, "--json", "--price-completion", "200000")
    assert json.loads(out)["cost"] == pytest.approx(1.6)


def test_command_refuses_what_is_no_ledger_in_one_line(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("hello " * 100)
    for path in (tmp_path, tmp_path / "none", tmp_path / "text.txt"):
        code, out, err = call(capsys, path)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("error: ")
        assert "no ledger" in err
    make_ledger(tmp_path / "ledger.sqlite", "m")
    for price in ("-1", "nan", "inf", "much"):
        assert call(capsys, tmp_path, "--price-prompt", price)[0] == 2
