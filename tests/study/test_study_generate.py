"""Failed requests cost no study: they are counted, said, kept, and asked again when that is wanted."""

import json

import pytest
from aiohttp import web
from test_study_run import counted

from cuvee.errors import BudgetReached, ConfigError, GenerationError
from cuvee.execute import Silent
from cuvee.study.generation import retry_failed
from cuvee.study.opening import open_study, run_study
from cuvee.study.status import account_folder


class Heard(Silent):
    def __init__(self):
        self.notes, self.details = [], []

    def noted(self, message):
        self.notes.append(message)

    def detailed(self, stage, detail):
        self.details.append((stage, detail))


@pytest.fixture
def small(settings):
    prices = {"prompt_per_million": 1e6, "completion_per_million": 1e6, "currency": "EUR"}
    return {
        **settings,
        "generator": {**settings["generator"], "prices": prices},
        "dials": [{"name": "sampling", "levels": [0.3, 0.9]}],
        "draws": {"generation": 2, "sampling": 1, "training": 1, "confirm": 0},
    }


def written(bodies):
    return sorted(json.dumps(body, sort_keys=True) for body in bodies)


def refuse(bodies, message="content filter"):
    bad = written(bodies)

    async def script(_number, _request, body):
        if json.dumps(body, sort_keys=True) in bad:
            return web.json_response({"error": {"message": message}}, status=400)
        return None

    return script


def generate(settings, out, retry=False):
    """Pools of a study, and what was said."""
    heard = Heard()
    with open_study(settings, out=out, listener=heard) as flow:
        if retry:
            retry_failed(flow.study)
        return {level.key: pool for level, pool in flow.pools.items()}, heard


def test_failed_slots_are_noted_kept_and_asked_again_only_when_wanted(small, tmp_path, local):
    whole, _ = generate(small, tmp_path / "whole")
    spread = [local.bodies[i] for i in (3, 11, 20)]
    local.script = refuse(spread)
    local.bodies.clear()
    short, heard = generate(small, tmp_path / "run")
    asked = len(local.bodies)
    lost = sum(len(pool.failed) for pool in short.values())
    assert lost == 3 and account_folder(tmp_path / "run").failed == {"HTTP 400": 3}
    assert sum(len(p.corpus) for p in whole.values()) - sum(len(p.corpus) for p in short.values()) == 3
    how = (
        f"3 requests failed for good (3 HTTP 400) and are not asked again; to ask again: cuvee generate {tmp_path}/run"
    )
    assert f"{how} --retry-failed" in heard.notes

    local.script = None  # the endpoint has come to reason
    again, heard = generate(small, tmp_path / "run")
    assert len(local.bodies) == asked
    assert {k: p.corpus.texts for k, p in again.items()} == {k: p.corpus.texts for k, p in short.items()}
    assert any(note.startswith(how) for note in heard.notes)

    mended, heard = generate(small, tmp_path / "run", retry=True)
    assert written(local.bodies[asked:]) == written(spread)
    assert counted_pools(tmp_path / "run") == counted_pools(tmp_path / "whole")
    assert not any("failed" in note for note in heard.notes)
    assert all(pool.failed == () for pool in mended.values())
    sent = len(local.bodies)
    generate(small, tmp_path / "run", retry=True)
    assert len(local.bodies) == sent


def counted_pools(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("pools/*.parquet"))}


@pytest.mark.slow  # with the others of its kind
def test_what_was_forgotten_is_asked_again_by_the_next_run_if_the_first_is_killed(small, tmp_path, local):
    generate(small, tmp_path / "whole")
    local.script = refuse([local.bodies[5]])
    generate(small, tmp_path / "run")
    local.script = None
    with open_study(small, out=tmp_path / "run") as flow:
        assert retry_failed(flow.study) == 1  # and nothing more
    local.bodies.clear()
    generate(small, tmp_path / "run")
    assert len(local.bodies) == 1
    assert counted_pools(tmp_path / "run") == counted_pools(tmp_path / "whole")


@pytest.mark.slow  # with the others of its kind
def test_a_label_without_any_row_ends_in_one_line_that_says_how_to_ask_again(small, tmp_path, local):
    generate(small, tmp_path / "whole")
    local.script = refuse([body for body in local.bodies if "A list of sports" in body["prompt"]])
    with pytest.raises(GenerationError, match=r"label 'sports'.*HTTP 400.*content filter.*--retry-failed\)") as caught:
        generate(small, tmp_path / "run")
    assert "\n" not in str(caught.value)
    local.script = None
    generate(small, tmp_path / "run", retry=True)
    assert counted_pools(tmp_path / "run") == counted_pools(tmp_path / "whole")


@pytest.mark.slow  # with the others of its kind
def test_what_was_spent_and_noted_is_on_the_terminal_and_in_the_report(small, tmp_path, local):
    async def silent(number, _request, body):
        if number == 1:
            return web.json_response({"error": "busy"}, status=503)
        reply = local.reply(body)
        return web.json_response({"choices": reply["choices"]})

    local.script = silent
    _, heard = generate(small, tmp_path / "run")
    note = "the endpoint reports no usage: tokens are counted at their worst case"
    assert heard.notes.count(note) == 1
    taken = account_folder(tmp_path / "run")
    assert (taken.requests, taken.retries, taken.notes) == (36, 1, (note,))
    assert (taken.cost, taken.currency) == (0, "EUR")
    stage, detail = heard.details[0]
    assert (stage, detail().endswith("0+0 tokens, 0.0000 EUR")) == ("generate", True)
    heard = Heard()
    page = run_study(small, out=tmp_path / "run", listener=heard).report.read_text(encoding="utf-8")
    assert note not in heard.notes  # once a run folder is enough
    table = page.split("<caption>Generation</caption>")[1].split("</table>")[0]
    for said in ("requests answered", "tokens in", "EUR", note, "sent again after trouble"):
        assert said in table


def test_a_budget_is_the_run_folders(small, tmp_path, local):
    bounded = {**small, "generator": {**small["generator"], "budget": {"requests": 7}, "concurrency": 2}}
    for before in (0, 7):
        with pytest.raises(BudgetReached, match=f"spent: 7 requests.*before this run: {before} requests"):
            generate(bounded, tmp_path / "run")
        assert len(local.bodies) == 7
    generate({**bounded, "generator": {**bounded["generator"], "budget": {"requests": 40}}}, tmp_path / "run")
    assert len(local.bodies) == 36


def test_ready_made_pools_have_nothing_to_ask_again(settings, tmp_path):
    rows = "".join(
        json.dumps({"text": f"{label} story {i}", "label": label}) + "\n"
        for label in ("business", "politics", "sports")
        for i in range(40)
    )
    (tmp_path / "p.jsonl").write_text(rows, encoding="utf-8")
    given = {k: v for k, v in settings.items() if k not in ("dials", "generator")}
    pools = [{"dial": "mine", "level": "a", "path": str(tmp_path / "p.jsonl")}]
    study = {**given, "generator": {"kind": "files"}, "pools": pools}
    with (
        pytest.raises(ConfigError, match="--retry-failed has no effect"),
        open_study(study, out=tmp_path / "run") as flow,
    ):
        retry_failed(flow.study)


@pytest.mark.slow  # with the others of its kind
def test_a_run_with_failed_requests_ends_with_advice_and_the_same_bytes_when_repeated(small, tmp_path, local):
    generate(small, tmp_path / "whole")
    local.script = refuse([local.bodies[2]])
    for name in ("a", "b"):
        run_study(small, out=tmp_path / name)
    assert counted(tmp_path / "a") == counted(tmp_path / "b")
