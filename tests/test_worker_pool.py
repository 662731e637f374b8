"""What is spread over workers gives what it gives here."""

import json
import os
import pickle
from functools import partial

import numpy as np
import pytest

from command_line import call, refused
from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder, load_encoder
from cuvee.encoders.loading import CachedEncoder
from cuvee.errors import ConfigError
from cuvee.execute import Terms, open_executor
from cuvee.measure import measure_corpus


class Counting:
    """A pool in this process that pickles as one of other processes does, and notes what it is given."""

    def __init__(self):
        self.items = []

    def map(self, work, items):
        carried = pickle.loads(pickle.dumps(work))
        self.items += items
        return map(carried, items)


def texts(n, seed=0):
    rng = np.random.default_rng(seed)
    words = "river bridge train market council budget harbour airport school street museum bread".split()
    return [" ".join(rng.choice(words, 6)) + f" {i % 700}" for i in range(n)]


def test_parts_are_the_same_whether_embedded_here_or_by_a_crew(tmp_path):
    class Noting(HashingEncoder):
        def __init__(self):
            self.parts = []

        def encode(self, texts):
            self.parts.append(list(texts))
            return super().encode(texts)

    words = texts(5000) + texts(100)  # some come again in a later part
    here, crew = Noting(), Counting()
    alone = CachedEncoder(here, tmp_path / "a").encode(words)
    spread = CachedEncoder(HashingEncoder(), tmp_path / "b", partial(crew.map, HashingEncoder().encode)).encode(words)
    assert (alone == spread).all()
    assert here.parts == crew.items and sum(map(len, here.parts)) == len(set(words))
    assert (CachedEncoder(here, tmp_path / "b").encode(words) == alone).all() and len(here.parts) == len(crew.items)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_a_measurement_by_workers_equals_the_local_one(kind):
    if kind == "ray":
        pytest.importorskip("ray")
    corpus = Corpus.from_rows([{"text": t, "target": ""} for t in texts(6000)])
    here = measure_corpus(corpus, encoder=load_encoder("hashing"))
    with open_executor(kind, Terms(workers=2)) as executor:
        there = measure_corpus(corpus, encoder=load_encoder("hashing", workers=executor))
    assert dict(there.values) == dict(here.values)


class Broken:
    def __call__(self, code):
        os._exit(code)


@pytest.mark.slow
def test_a_worker_that_dies_again_and_again_is_one_line():
    with open_executor("processes", Terms(workers=1, retries=0)) as executor:
        with pytest.raises(ConfigError, match=r"a worker was lost: .*exit code 3"):
            list(executor.map(Broken(), [3]))


@pytest.mark.slow
def test_measuring_a_file_in_processes_prints_the_same_numbers(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts(900)), encoding="utf-8")
    base = ["measure", path, "--encoder", "hashing", "--json"]
    assert call(capsys, *base, "--execute", "processes", "--workers", "2")[1] == call(capsys, *base)[1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--execute", "cluster"], "'cluster' is not one of 'local', 'processes', 'ray'"),
        (["--workers", "2"], "--workers has no effect"),
        (["--execute", "processes", "--address", "1.2.3.4:5"], "--address has no effect"),
    ],
)
def test_options_without_effect_are_refused(tmp_path, capsys, options, says):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n', encoding="utf-8")
    assert says in refused(capsys, "measure", path, *options)


def test_nearly_the_name_of_an_encoder_is_not_asked_from_the_hub(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n', encoding="utf-8")
    assert "encoder 'hashng': did you mean 'hashing'?" in refused(capsys, "measure", path, "--encoder", "hashng")
