"""Killed at any instant, even within a write of the journal: same bytes, nothing journalled is asked again."""

import json
import multiprocessing
import random
import resource
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from asking import generate_pools
from cuvee.corpus import Corpus, write_corpus
from cuvee.generate.calls import Endpoint, Request, Sampling
from cuvee.generate.client import LLMClient
from cuvee.generate.dials import ParaphraseDial, SamplingDial, TopicsDial
from cuvee.generate.ledger import Ledger
from local_llm import write_text

TOPICS = {label: [f"{label} topic {j}" for j in range(4)] for label in ("alpha", "beta")}
CONCURRENCY = 4
KILLS, TORN = 14, 6


def generate(folder: Path, train: Corpus, endpoint: Endpoint) -> None:
    """Both kinds of dial into one ledger; pools as files."""
    with Ledger(folder / "ledger.sqlite") as ledger:
        for dial in (TopicsDial(levels=[1, 4], topics=TOPICS), ParaphraseDial(levels=[0, 2], sources=2)):
            pools = generate_pools(
                train, dial=dial, blocks=(0,), rows_per_label=20, endpoint=endpoint, ledger=ledger,
                sampling=Sampling(), seed=3,
            )  # fmt: skip
            for pool in pools:
                write_corpus(pool.corpus, folder / f"{pool.level.key}.parquet")


def generate_until(folder: Path, train: Corpus, endpoint: Endpoint, most_bytes: int | None) -> None:
    """In a child process; with ``most_bytes`` the kernel ends it within the write that would pass them."""
    if most_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    generate(folder, train, endpoint)


def journalled(folder: Path) -> set[str]:
    """Bodies of the requests that were answered and committed."""
    path = folder / "ledger.sqlite"
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        try:
            found = database.execute("SELECT request_json FROM answers").fetchall()
        except sqlite3.OperationalError:  # killed before the table was made
            return set()
    return {json.dumps(json.loads(text)["body"], sort_keys=True) for (text,) in found}


def finished(folder: Path, train: Corpus, endpoint: Endpoint) -> dict[str, bytes]:
    """The files of a run that goes on to its end."""
    generate(folder, train, endpoint)
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


@pytest.mark.slow
def test_twenty_kills_change_no_byte_and_repeat_no_answered_request(llm, train, tmp_path):
    def text(body):
        return write_text(body, words=3, vocabulary=5) + " " + "and so on " * 40  # long, so that commits are long

    llm.text = text
    (tmp_path / "whole").mkdir()
    whole = finished(tmp_path / "whole", train, llm.endpoint(concurrency=CONCURRENCY))
    clean = len(llm.bodies)
    assert len(whole) == 4
    assert clean > 120
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["cuvee.generate.client", "cuvee.generate.pools"])
    moments = random.Random(7)
    endpoint, kinds = llm.endpoint(concurrency=CONCURRENCY), ["kill"] * KILLS + ["torn"] * TORN
    moments.shuffle(kinds)
    folder = tmp_path / "cut0"
    folder.mkdir()
    struck = {"kill": 0, "torn": 0}
    for attempt in range(120):
        if not kinds:
            break
        known, sent = journalled(folder), len(llm.bodies)
        left = clean - len(known)
        # beyond SQLite's 32 KiB of shared memory; the journal itself starts anew, for it was just read to its end
        most = moments.randrange(40_000, 42_000 + 2_000 * left) if kinds[-1] == "torn" else None
        child = processes.Process(target=generate_until, args=(folder, train, endpoint, most))
        child.start()
        if most is None:
            stop_at = sent + moments.randint(0, max(1, left // 3))
            while len(llm.bodies) < stop_at and child.is_alive():
                time.sleep(0.0005)
            time.sleep(moments.uniform(0, 0.004))
            child.kill()
        child.join(30)
        if child.exitcode == -signal.SIGXFSZ:
            assert (folder / "ledger.sqlite-wal").stat().st_size == most  # cut off within a frame
        now = [json.dumps(body, sort_keys=True) for body in llm.bodies[sent:]]
        assert not known & set(now)  # nothing that was journalled was sent again
        assert journalled(folder) >= known
        assert len(now) - (len(journalled(folder)) - len(known)) <= CONCURRENCY
        if child.exitcode in (-signal.SIGKILL, -signal.SIGXFSZ):
            struck[kinds.pop()] += 1
        else:
            assert child.exitcode == 0
        if child.exitcode == 0 or len(journalled(folder)) == clean:  # it got through: the next kills strike anew
            assert finished(folder, train, endpoint) == whole
            folder = tmp_path / f"cut{attempt + 1}"
            folder.mkdir()
    assert struck == {"kill": KILLS, "torn": TORN}
    assert finished(folder, train, endpoint) == whole
    assert len(journalled(folder)) == clean


# --- a change re-sends what it changes, and nothing else -------------------------------------------
def ask(llm, train, ledger, dial=None, *, endpoint=None, **given) -> int:
    """How many requests a generation sent."""
    before = len(llm.bodies)
    generate_pools(
        train, dial=dial or SamplingDial(levels=[0.5, 1.0]), ledger=ledger,
        endpoint=llm.endpoint(api="chat", **(endpoint or {})),
        **{"blocks": (0,), "rows_per_label": 10, "sampling": Sampling(), "describe": "texts", "seed": 1, **given},
    )  # fmt: skip
    return len(llm.bodies) - before


@pytest.mark.parametrize(
    ("change", "resent"),
    [
        ({}, 0),
        ({"describe": "tweets"}, 40),
        ({"endpoint": {"identity": "elsewhere"}}, 40),
        ({"endpoint": {"model": "other"}}, 40),
        ({"dial": SamplingDial(levels=[0.5, 1.2])}, 20),
        ({"sampling": Sampling(temperature=0.1)}, 0),  # each level has its own temperature
        ({"sampling": Sampling(top_p=0.5)}, 40),
        ({"seed": 2}, 40),
        ({"blocks": (0, 1)}, 40),
        ({"rows_per_label": 12}, 8),
        ({"endpoint": {"concurrency": 1, "api_key": "sk-other-key"}}, 0),
    ],
)
def test_a_change_sends_exactly_the_requests_that_it_affects(llm, train, change, resent):
    llm.models = ["tiny", "other"]
    with Ledger() as ledger:
        assert ask(llm, train, ledger) == 40
        assert ask(llm, train, ledger, **change) == resent
        assert ask(llm, train, ledger, **change) == 0
        assert ledger.totals().requests == 40 + resent


def test_the_system_prompt_alone_is_part_of_what_is_asked(llm):
    requests = [
        Request(messages=(("system", system), ("user", "one")), sampling=Sampling(), seed=1) for system in ("a", "b")
    ]
    with Ledger() as ledger, LLMClient(llm.endpoint(api="chat"), ledger) as client:
        client.answer_requests(requests[:1])
        client.answer_requests(requests)
        client.answer_requests([*requests, replace(requests[0], replicate=1)])
        client.answer_requests([replace(requests[0], replicate=1)])
    assert [body["messages"][0]["content"] for body in llm.bodies] == ["a", "b", "a"]


@pytest.mark.parametrize("dial", [SamplingDial(levels=[1.0]), TopicsDial(levels=[2], topics=TOPICS)])
def test_a_hundred_rows_become_a_hundred_and_twenty_for_twenty_requests(llm, train, dial):
    with Ledger() as ledger:
        assert ask(llm, train, ledger, dial, rows_per_label=50) == 100
        assert ask(llm, train, ledger, dial, rows_per_label=60) == 20


def test_only_the_rejected_slots_are_asked_for_again(llm, train):
    llm.text = lambda body: "" if body["seed"] % 4 == 0 else write_text(body)
    with Ledger() as ledger:
        sent = ask(llm, train, ledger, attempts=1)
        empty = sum(body["seed"] % 4 == 0 for body in llm.bodies)
        assert (sent, empty > 3) == (40, True)
        llm.bodies.clear()
        more = ask(llm, train, ledger, attempts=2)
        assert more == empty
