"""``cuvee generate`` where things go wrong: nothing answered is lost, and what failed can be asked again."""

import asyncio
import json
import signal
import subprocess
import sys
import time

import pytest
import yaml
from aiohttp import web

from command_line import call, refused
from cuvee.corpus import load_corpus
from cuvee.generate.ledger import Ledger


@pytest.fixture
def base(headlines, tmp_path, local):
    url = f"http://127.0.0.1:{local.port}/v1"
    asked = ["--rows", 3, "--base-url", url, "--model", "tiny", "--api", "completions"]
    return ["generate", headlines, *asked, "--out", tmp_path / "made.jsonl"]


def totals(path):
    with Ledger(path, readonly=True) as ledger:
        return ledger.totals().requests


def breaking(number, status=401):
    async def script(n, _request, _body):
        return web.json_response({"error": "no more"}, status=status) if n >= number else None

    return script


def test_a_plain_file_keeps_every_answer_when_it_fails_and_asks_for_the_rest_alone(base, tmp_path, capsys, local):
    local.script = breaking(4)
    assert "no more" in refused(capsys, *base, "--concurrency", 1)
    assert local.most_at_once == 1
    assert not (tmp_path / "made.jsonl").exists()
    assert totals(tmp_path / "made.ledger.sqlite") == 4
    local.script = None
    code, out, _ = call(capsys, *base, "--json")
    made = json.loads(out)[str(tmp_path / "made.jsonl")]
    assert (code, made["rows"], made["failed"], made["requests"]) == (0, 9, 0, 9)
    assert (made["ledger"], made["quarantine"]) == (str(tmp_path / "made.ledger.sqlite"), None)
    assert len(local.bodies) == 4 + 1 + 5  # answered, refused, the rest
    assert not (tmp_path / "made.quarantine.jsonl").exists()
    first = load_corpus(tmp_path / "made.jsonl").texts
    code, _, _ = call(capsys, *base, "--rows", 4)
    assert (code, len(local.bodies)) == (0, 10 + 3)
    assert set(first) < set(load_corpus(tmp_path / "made.jsonl").texts)


def test_a_second_generate_into_one_file_or_ledger_names_the_first_and_sends_nothing(base, tmp_path, capsys, local):
    same_out = ["--ledger", tmp_path / "other.sqlite"]
    same_ledger = ["--out", tmp_path / "other.jsonl", "--ledger", tmp_path / "made.ledger.sqlite"]
    told = False

    async def slow(_number, _request, _body):
        while not told:
            await asyncio.sleep(0.02)

    local.script = slow
    command = [sys.executable, "-m", "cuvee", *map(str, base), "--concurrency", "1"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not local.bodies:
            assert first.poll() is None
            time.sleep(0.02)
        for own in (same_out, same_ledger):
            assert f"process {first.pid} is working on this file" in refused(capsys, *base, *own)
        told = True
        assert first.wait(timeout=60) == 0
    finally:
        first.kill()
    assert len(local.bodies) == 9
    local.script = None
    assert call(capsys, *base)[0] == 0
    assert len(local.bodies) == 9
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith("lock")]


def test_a_failed_request_costs_one_row_is_noted_and_asked_again_when_wanted(base, tmp_path, capsys, local):
    async def filtered(_number, _request, body):
        return web.json_response({"error": "filtered"}, status=400) if body["seed"] == bad else None

    bad = None
    call(capsys, *base, "--out", tmp_path / "whole.jsonl")
    bad = local.bodies[4]["seed"]
    local.script = filtered
    ledger, quarantine = tmp_path / "kept.sqlite", tmp_path / "bad.jsonl"
    files = ["--ledger", ledger, "--quarantine", quarantine]
    code, out, err = call(capsys, *base, *files, "--json")
    made = json.loads(out)[str(tmp_path / "made.jsonl")]
    assert (code, made["rows"], made["failed"], made["quarantine"]) == (0, 8, 1, str(quarantine))
    assert "1 of 9 rows" in made["note"]
    assert "--retry-failed" in " ".join(err.split())
    (line,) = [json.loads(text) for text in quarantine.read_text(encoding="utf-8").splitlines()]
    assert line["reason"] == "HTTP 400: filtered"
    sent = len(local.bodies)
    assert call(capsys, *base, *files)[0] == 0
    assert len(local.bodies) == sent
    local.script = None
    code, out, _ = call(capsys, *base, *files, "--retry-failed", "--json")
    assert (code, json.loads(out)[str(tmp_path / "made.jsonl")]["rows"], len(local.bodies)) == (0, 9, sent + 1)
    assert quarantine.read_text(encoding="utf-8") == ""  # nothing is missing any more
    assert (tmp_path / "made.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_no_row_at_all_is_one_line(base, capsys, local):
    local.text = lambda _body: ""
    assert "no usable row" in refused(capsys, *base)
    local.script = breaking(0, status=400)
    assert "HTTP 400 no more" in refused(capsys, *base, "--seed", 5, "--ledger", base[1].with_name("other.sqlite"))


@pytest.mark.parametrize(("option", "most"), [(["--budget-requests", 5], 5), (["--budget-tokens", 300], 9)])
def test_a_budget_is_that_of_the_ledger(base, capsys, local, option, most):
    for _ in range(2):
        line = refused(capsys, *base, "--rows", 12, "--max-tokens", 8, *option)
        assert "could pass the budget" in line
        assert "raise the budget" in line
        assert len(local.bodies) <= most
    assert len(local.bodies) > 0


def test_folders_and_options_that_do_not_fit_are_told(base, settings, tmp_path, capsys, local):
    assert "its folder does not exist" in refused(capsys, *base, "--ledger", tmp_path / "no" / "l.sqlite")
    assert "--concurrency has no effect" in refused(capsys, "generate", base[1], "--concurrency", 2)
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(settings), encoding="utf-8")
    for option in ("--ledger", "--quarantine", "--concurrency", "--budget-requests", "--budget-tokens"):
        assert f"{option} has no effect here" in refused(capsys, "generate", study, option, 3)
    assert not local.bodies


def test_a_study_asks_again_with_retry_failed_alone(settings, tmp_path, capsys, local):
    async def filtered(_number, _request, body):
        return web.json_response({"error": "filtered"}, status=400) if body["seed"] % 9 == 1 else None

    study, folder = tmp_path / "study.yaml", tmp_path / "run"
    dials = [{"name": "sampling", "levels": [0.3, 0.9]}]
    study.write_text(yaml.safe_dump({**settings, "dials": dials}), encoding="utf-8")
    local.script = filtered
    code, out, err = call(capsys, "generate", study, "--out", folder, "--json")
    failed = sum(pool["failed"] for pool in json.loads(out).values())
    assert (code, failed > 0) == (0, True)
    assert f"{failed} request" in err
    assert "--retry-failed" in " ".join(err.split())
    sent = len(local.bodies)
    assert call(capsys, "generate", folder)[0] == 0
    assert len(local.bodies) == sent
    local.script = None
    code, out, err = call(capsys, "generate", folder, "--retry-failed", "--json")
    assert (code, len(local.bodies)) == (0, sent + failed)
    assert {(pool["failed"], pool["rows"]) for pool in json.loads(out).values()} == {(0, 18)}
    assert f"{failed} failed requests are asked again" in err
    assert "no request has failed for good" in call(capsys, "generate", folder, "--retry-failed")[2]
    code, out, _ = call(capsys, "ledger", folder)
    assert (code, "answers replayed from the ledger" in out) == (0, True)


@pytest.mark.slow
def test_ctrl_c_keeps_what_a_plain_file_was_answered(base, tmp_path, capsys, local):
    async def slow(number, _request, _body):
        await asyncio.sleep(0.02 if number < 5 else 30)

    local.script = slow
    command = [sys.executable, "-m", "cuvee", *map(str, base), "--concurrency", "1"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while len(local.bodies) < 6:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    output = run.communicate(timeout=30)[0].decode()
    assert run.returncode == 130
    assert "run the same command again to go on" in " ".join(output.split())
    assert totals(tmp_path / "made.ledger.sqlite") == 5
    local.script = None
    assert call(capsys, *base)[0] == 0
    assert len(local.bodies) == 6 + 4


def test_several_addresses_are_replicas_of_which_one_may_be_dead(base, tmp_path, capsys, local):
    code, out, err = call(capsys, *base, "--base-url", "http://127.0.0.1:9/v1", "--json")
    made = json.loads(out)[str(tmp_path / "made.jsonl")]
    assert (code, made["rows"], made["failed"]) == (0, 9, 0), err
    assert len(local.bodies) == 9
    assert "http://127.0.0.1:9/v1 was set aside" in " ".join(err.split())


def test_addresses_that_are_none_or_come_twice_are_told_at_once(base, headlines, capsys, local):
    url = base[base.index("--base-url") + 1]
    for same in (f"{url}/", url.replace("127.0.0.1", "localhost")):
        assert "give at least one address, and each once" in refused(capsys, *base, "--base-url", same)
    line = refused(capsys, "generate", headlines, "--base-url", "127.0.0.1:9/v1", "--model", "tiny")
    assert "--base-url: address 1 of base_url is no HTTP address" in line
    assert not local.bodies


def test_a_context_is_refused_where_nothing_is_asked_about(base, capsys, local):
    assert "--context has no effect here" in refused(capsys, *base, "--context", "label", "--task", "classification")
    assert not local.bodies


def test_drafts_are_not_counted_as_rejected(settings, tmp_path, capsys, local):
    study = tmp_path / "study.yaml"
    dials = [{"name": "base_then_refine", "levels": [1.2]}]
    study.write_text(yaml.safe_dump({**settings, "dials": dials}), encoding="utf-8")
    code, out, err = call(capsys, "generate", study, "--out", tmp_path / "run", "--json")
    made = json.loads(out)["base_then_refine=1.2"]
    assert (code, made["rows"], made["rejected"]) == (0, 18, 0), err
    assert len(local.bodies) == 2 * 18


def test_another_model_file_is_for_the_embedded_llm(headlines, tmp_path, capsys):
    pytest.importorskip("xllamacpp")
    base = ["generate", headlines, "--out", tmp_path / "made.jsonl"]
    assert "no.gguf: no such model file" in refused(capsys, *base, "--model", tmp_path / "no.gguf")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF?")
    assert "broken.gguf: llama.cpp cannot load it" in refused(capsys, *base, "--model", broken)
    assert "--model has no effect here" in refused(capsys, *base, "--model", "tiny")
    assert "--api has no effect here" in refused(capsys, *base, "--model", broken, "--api", "chat")


def test_options_of_writing_reach_what_is_asked_and_taken(base, tmp_path, capsys, local):
    mine = tmp_path / "mine"
    assert call(capsys, "prompts", "--out", mine)[0] == 0
    for path in mine.iterdir():
        if path.name != "label_completion.jinja":
            path.unlink()
    own = mine / "label_completion.jinja"
    own.write_text(f"Dear LLM,\n{own.read_text(encoding='utf-8')}", encoding="utf-8")
    options = ["--prompts", mine, "--describe", "tweets", "--max-tokens", 9, "--temperature", 0.2, "--seed", 5]
    assert call(capsys, *base)[0] == 0
    plain = [*local.bodies]
    assert call(capsys, *base, *options)[0] == 0
    changed = local.bodies[len(plain) :]
    assert len(plain) == len(changed) == 9
    assert all(body["prompt"].startswith("Dear LLM,") and "tweets" in body["prompt"] for body in changed)
    assert {(body["max_tokens"], body["temperature"]) for body in changed} == {(9, 0.2)}
    assert {body["seed"] for body in plain}.isdisjoint(body["seed"] for body in changed)


def test_a_tolerance_decides_when_a_target_is_met(base, tmp_path, capsys, local):
    asked = []
    for tolerance in (1000, 0):
        given = ["--target", "distinct_1=0.5", "--tolerance", tolerance, "--ledger", tmp_path / f"{tolerance}.sqlite"]
        before = len(local.bodies)
        assert call(capsys, *base, *given)[0] == 0
        asked.append(len(local.bodies) - before)
    assert 0 < asked[0] < asked[1]
