"""The LLMs of a study: another model for drafts, replicas, model files by their contents, lists as they stand."""

import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest
from aiohttp import web

from cuvee.config.reading import make_config
from cuvee.errors import RunFolderError
from cuvee.generate.ledger import Ledger
from cuvee.store import RunFolder
from cuvee.study.generation import ASKED, MODELS, hash_model, identify_generator
from cuvee.study.opening import open_study
from cuvee.study.outputs import describe_generator
from cuvee.study.status import account_folder
from local_llm import LocalLLM

pytestmark = pytest.mark.slow  # each is quick, together they are not

DRAFTING = {"name": "base_then_refine", "levels": [1.2]}
PLAIN = {"name": "sampling", "levels": [0.3]}
FEW = {"generation": 1, "sampling": 1, "training": 1, "confirm": 0}


@pytest.fixture
def base():
    server = LocalLLM()
    yield server
    server.close()


def url(server):
    return f"http://127.0.0.1:{server.port}/v1"


def pools_of(settings, out):
    with open_study(settings, out=out) as flow:
        return flow.pools, flow.study


def files_of(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("pools/*.parquet"))}


def test_another_draft_model_is_named_and_sends_only_drafts_and_what_hangs_on_them(settings, tmp_path, local):
    local.models = ["tiny", "base", "larger"]
    local.text = lambda body: f"{body['model']} headline {body['seed']} of some words"
    prices = {"prompt_per_million": 1e6, "completion_per_million": 0}
    given = {**settings, "generator": {**settings["generator"], "prices": prices}, "draws": FEW}

    def draft_by(model):
        before = len(local.bodies)
        with open_study({**given, "dials": [{**DRAFTING, "draft_model": model}, PLAIN]}, out=tmp_path / "run") as flow:
            pools, study = flow.pools, flow.study
        return Counter(body["model"] for body in local.bodies[before:]), pools, study

    sent, _, study = draft_by("base")
    assert sent == {"base": 9, "tiny": 18}
    assert describe_generator(study) == f"tiny at {url(local)}; drafts by base"
    spent = account_folder(study.folder.path)
    assert spent.cost == pytest.approx(27 * 7)
    assert spent.by_model == {f"base at {url(local)}": 9, f"tiny at {url(local)}": 18}
    assert spent.rejected == {}  # a draft that was refined is no rejected answer
    plain = tmp_path / "run" / "pools" / "sampling=0.3.parquet"
    before = plain.stat().st_mtime_ns
    assert draft_by("base")[0] == {}
    assert draft_by("larger")[0] == {"larger": 9, "tiny": 9}
    assert before == plain.stat().st_mtime_ns


# --- several dials --------------------------------------------------------------------------------
def test_requests_of_a_later_dial_are_sent_while_one_of_an_earlier_dial_waits(settings, tmp_path, local):
    given = {**settings, "dials": [PLAIN, {"name": "examples", "levels": [1, 2], "shown": 1}], "draws": FEW}
    pools_of(given, tmp_path / "clean")
    local.bodies.clear()
    waiting = []

    async def limit_one(_number, _request, body):
        if body["temperature"] == 0.3 and not waiting:
            waiting.append(body)
            return web.Response(status=429, headers={"Retry-After": "2"})
        return None

    local.script = limit_one
    pools_of(given, tmp_path / "run")
    first, again = [place for place, body in enumerate(local.bodies) if body == waiting[0]]
    assert any(body["temperature"] != 0.3 for body in local.bodies[first:again])
    assert files_of(tmp_path / "run") == files_of(tmp_path / "clean")


# --- replicas -------------------------------------------------------------------------------------
def test_adding_a_replica_sends_nothing_and_remakes_no_pool(settings, tmp_path, local, base):
    base.models = ["tiny"]
    given = {**settings, "dials": [PLAIN], "draws": FEW}
    pools_of(given, tmp_path / "run")
    sent = len(local.bodies)
    (pool,) = (tmp_path / "run").glob("pools/*.parquet")
    made = pool.stat().st_mtime_ns
    for urls in ([url(local), url(base)], [url(base), url(local)], url(base)):
        pools_of({**given, "generator": {**given["generator"], "base_url": urls}}, tmp_path / "run")
        assert pool.stat().st_mtime_ns == made
    assert (len(local.bodies), len(base.bodies)) == (sent, 0)
    with Ledger(tmp_path / "run" / "ledger.sqlite") as ledger:
        assert {identity for _, identity in ledger.identities("tiny")} == {url(local)}
    more = {**given, "draws": {**FEW, "generation": 4}}
    pools_of({**more, "generator": {**given["generator"], "base_url": [url(local), url(base)]}}, tmp_path / "run")
    assert base.bodies and len(local.bodies) + len(base.bodies) >= 4 * sent


# --- model files ----------------------------------------------------------------------------------
@contextmanager
def with_generator(settings, folder, generator):
    """A study whose generator is not started: only what it is known by is asked."""
    with open_study(settings, out=folder) as flow:
        yield replace(flow.study, config=make_config({**settings, "generator": generator}))


@pytest.mark.parametrize("kind", ["gguf", "folder"])
def test_a_replaced_model_file_is_noticed_though_size_and_time_are_the_same(settings, tmp_path, kind):
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).write_bytes(b"one")
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"one")
    if kind == "gguf":
        changed, generator = gguf, {"kind": "embedded", "gguf": str(gguf)}
    else:
        changed, generator = model / "model.safetensors", {"kind": "transformers", "model": str(model)}
    given = {**settings, "dials": [DRAFTING]}
    with with_generator(given, tmp_path / "run", generator) as study:
        first = identify_generator(study)
        assert identify_generator(study) == first
        stat = changed.stat()
        changed.write_bytes(b"two")
        os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert identify_generator(study) != first
        changed.write_bytes(b"one")
        assert identify_generator(study) == first


def test_hashes_are_remembered_and_outlive_the_file(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"weights")
    with RunFolder(tmp_path / "run") as folder:
        first = hash_model(folder, str(path))
        path.unlink()
        assert hash_model(folder, str(path)) == first
        assert hash_model(folder, "some/name-on-the-hub") is None
        (tmp_path / "run" / MODELS).write_text("{", encoding="utf-8")
        path.write_bytes(b"weights")
        with pytest.raises(RunFolderError, match=r"models\.json: damaged .*; delete it: model files are hashed again"):
            hash_model(folder, str(path))
        (tmp_path / "run" / MODELS).unlink()
        assert hash_model(folder, str(path)) == first


# --- lists ----------------------------------------------------------------------------------------
def test_an_edited_list_of_topics_remakes_the_pools_that_use_it(settings, tmp_path, local):
    plain_text = local.text

    def text(body):
        if "topics" in body["prompt"].rsplit("\n", 2)[-2]:
            return "\n".join(f"{i}. subject {i}" for i in range(1, 9))
        return plain_text(body)

    local.text = text
    given = {**settings, "dials": [{"name": "topics", "levels": [1, 2], "topics": "llm"}, PLAIN], "draws": FEW}
    pools_of(given, tmp_path / "run")
    whole, sent = files_of(tmp_path / "run"), len(local.bodies)
    pools_of(given, tmp_path / "run")
    assert (files_of(tmp_path / "run"), len(local.bodies)) == (whole, sent)
    path = tmp_path / "run" / ASKED
    original = path.read_text(encoding="utf-8")
    path.write_text(original.replace("subject 2", "subject two"), encoding="utf-8")
    pools_of(given, tmp_path / "run")
    assert 0 < len(local.bodies) - sent <= 3 * 9
    changed = files_of(tmp_path / "run")
    assert {name for name in whole if whole[name] != changed[name]} == {"topics=2.parquet"}
    path.unlink()  # as the LLM named them again
    sent = len(local.bodies)
    pools_of(given, tmp_path / "run")
    assert (files_of(tmp_path / "run"), len(local.bodies)) == (whole, sent)
