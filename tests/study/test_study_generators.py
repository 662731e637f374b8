"""The LLMs of a study: another one for drafts, replicas, model files by their contents, lists as they stand."""

import json
import os
from contextlib import contextmanager
from dataclasses import replace

import pytest

from cuvee.config import make_config
from cuvee.errors import ConfigError, RunFolderError
from cuvee.generate import Ledger
from cuvee.generate.spending import Tariff
from cuvee.store import RunFolder
from cuvee.study import open_study
from cuvee.study.generators import identify_generator
from cuvee.study.lists import FILE
from cuvee.study.model_hashes import FILE as HASHES
from cuvee.study.model_hashes import ModelHashes
from cuvee.study.outputs import describe_generator
from cuvee.study.spending import account_study, find_charges
from local_llm import LocalLLM

pytestmark = pytest.mark.slow  # each is quick, together they are not

DRAFTING = {"name": "base_then_refine", "levels": [1.2]}
PLAIN = {"name": "sampling", "levels": [0.3]}
FEW = {"generation": 1, "sampling": 1, "training": 1, "confirm": 0}


@pytest.fixture
def base():
    server = LocalLLM()
    server.models = ["base", "larger"]
    yield server
    server.close()


def url(server):
    return f"http://127.0.0.1:{server.port}/v1"


@pytest.fixture
def drafting(settings, base):
    draft = {"kind": "endpoint", "base_url": url(base), "model": "base", "max_tokens": 31}
    generator = {**settings["generator"], "draft": draft}
    return {**settings, "generator": generator, "dials": [DRAFTING, PLAIN], "draws": FEW}


def pools_of(settings, out):
    with open_study(settings, out=out) as flow:
        return flow.pools, flow.study


def files_of(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("pools/*.parquet"))}


def test_another_llm_drafts_and_only_drafts_and_changing_it_sends_only_what_hangs_on_it(
    drafting, tmp_path, local, base
):
    base.text = lambda body: f"{body['model']} headline {body['seed']} of some words"
    pools_of(drafting, tmp_path / "run")
    drafts, rest = len(base.bodies), len(local.bodies)
    assert drafts == 9 and rest == 18
    assert {(body["temperature"], body["max_tokens"]) for body in base.bodies} == {(1.2, 31)}
    slower = {**drafting["generator"]["draft"], "concurrency": 2, "timeout_s": 9}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("pools/*.parquet")}
    pools_of({**drafting, "generator": {**drafting["generator"], "draft": slower}}, tmp_path / "run")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("pools/*.parquet")}
    larger = {**drafting["generator"]["draft"], "model": "larger"}
    pools_of({**drafting, "generator": {**drafting["generator"], "draft": larger}}, tmp_path / "run")
    assert (len(base.bodies) - drafts, len(local.bodies) - rest) == (9, 9)
    plain = tmp_path / "run" / "pools" / "sampling=0.3.parquet"
    assert before[plain] == plain.stat().st_mtime_ns


def test_both_are_named_and_each_is_charged_its_prices(drafting, tmp_path, local, base):
    prices = {"prompt_per_million": 1e6, "completion_per_million": 0}
    cheap = {"prompt_per_million": 1e5, "completion_per_million": 0}
    generator = {**drafting["generator"], "prices": prices, "budget": {"requests": 18}}
    generator["draft"] = {**generator["draft"], "prices": cheap, "budget": {"requests": 9}}
    with open_study({**drafting, "generator": generator}, out=tmp_path / "run") as flow:
        pools, study = flow.pools, flow.study
        assert describe_generator(study) == f"tiny at {url(local)}; drafts by base at {url(base)}"
        assert isinstance(find_charges(study), Tariff)
        spent = account_study(study, pools)
    assert spent.cost == pytest.approx(18 * 7 + 9 * 0.7)
    assert f"base at {url(base)} answered 9 of the requests (63+45 tokens, 6.3000)" in spent.notes
    costs = {level.key: pool.generation.cost for level, pool in pools.items()}
    assert costs == {"base_then_refine=1.2": pytest.approx(9 * 7.7), "sampling=0.3": pytest.approx(63)}


def test_local_models_for_drafts_cost_nothing(settings, tmp_path):
    generator = {**settings["generator"], "prices": {"prompt_per_million": 1, "completion_per_million": 2}}
    given = {**settings, "generator": {**generator, "draft": {"kind": "embedded"}}, "dials": [DRAFTING]}
    with open_study(given, out=tmp_path / "run") as flow:
        charges = find_charges(flow.study)
    assert charges.cost("gguf:abc", "base", 10**6, 10**6) == 0
    assert charges.cost("http://other/v1", "tiny", 10**6, 10**6) == 3


OWN_DIAL = """
from cuvee.generate import SamplingDial


class Mine(SamplingDial):
    @property
    def name(self):
        return "mine"
"""


@pytest.mark.trust("own_dial_without_drafts")
def test_a_generator_for_drafts_that_a_dial_of_ones_own_does_not_use_is_refused(
    drafting, tmp_path, monkeypatch, base, local
):
    (tmp_path / "own_dial_without_drafts.py").write_text(OWN_DIAL, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    given = {**drafting, "dials": [{"name": "own_dial_without_drafts:Mine", "levels": [0.5]}]}
    with pytest.raises(ConfigError, match=r"generator.draft writes drafts, and no dial drafts \(mine\)"):
        pools_of(given, tmp_path / "run")
    assert not base.bodies + local.bodies


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
        assert set(ledger.identities((url(local), url(base)), "tiny").values()) == {url(local)}
    more = {**given, "draws": {**FEW, "generation": 4}}
    pools_of({**more, "generator": {**given["generator"], "base_url": [url(local), url(base)]}}, tmp_path / "run")
    assert base.bodies and len(local.bodies) + len(base.bodies) >= 4 * sent


# --- model files ----------------------------------------------------------------------------------
@contextmanager
def with_generator(settings, folder, generator):
    """A study whose generator is not started: only what it is known by is asked."""
    with open_study(settings, out=folder) as flow:
        yield replace(flow.study, config=make_config({**settings, "generator": generator}))


@pytest.mark.parametrize("kind", ["gguf", "folder", "adapter", "draft"])
def test_a_replaced_model_file_is_noticed_though_size_and_time_are_the_same(settings, tmp_path, kind):
    model, adapter = tmp_path / "model", tmp_path / "adapter"
    for folder, name in ((model, "config.json"), (model, "model.safetensors"), (adapter, "adapter_model.bin")):
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"one")
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"one")
    if kind == "gguf":
        changed, generator = gguf, {"kind": "embedded", "gguf": str(gguf)}
    elif kind == "draft":
        changed, generator = gguf, {"kind": "embedded", "draft": {"kind": "embedded", "gguf": str(gguf)}}
    else:
        changed = model / "model.safetensors" if kind == "folder" else adapter / "adapter_model.bin"
        generator = {"kind": "transformers", "model": str(model), "adapter": str(adapter)}
    given = {**settings, "dials": [DRAFTING]}
    with with_generator(given, tmp_path / "run", generator) as study:
        first, alone = identify_generator(study, drafts=True), identify_generator(study)
        assert identify_generator(study, drafts=True) == first
        stat = changed.stat()
        changed.write_bytes(b"two")
        os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        second = identify_generator(study, drafts=True)
        assert second != first
        assert (identify_generator(study) == alone) == (kind == "draft")
        changed.write_bytes(b"one")
        assert identify_generator(study, drafts=True) == first


def test_hashes_are_remembered_and_outlive_the_file(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"weights")
    with RunFolder(tmp_path / "run") as folder:
        hashes = ModelHashes(folder)
        first = hashes.find(str(path))
        kept = json.loads((tmp_path / "run" / HASHES).read_text(encoding="utf-8"))
        kept[str(path)]["sha256"] = "remembered"
        (tmp_path / "run" / HASHES).write_text(json.dumps(kept), encoding="utf-8")
        assert ModelHashes(folder).find(str(path)) == "remembered"
        path.unlink()
        assert ModelHashes(folder).find(str(path)) == "remembered"
        assert ModelHashes(folder).find("some/name-on-the-hub") is None
        (tmp_path / "run" / HASHES).write_text("{", encoding="utf-8")
        path.write_bytes(b"weights")
        with pytest.raises(RunFolderError, match=r"models\.json: damaged .*; delete it: model files are hashed again"):
            ModelHashes(folder).find(str(path))
        (tmp_path / "run" / HASHES).unlink()
        assert ModelHashes(folder).find(str(path)) == first


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
    path = tmp_path / "run" / FILE
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
