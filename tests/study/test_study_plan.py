"""``cuvee plan``: the numbers are those of the study that is then run; nothing is sent, nothing is written."""

import json
import math
import os

import pytest
import yaml

from command_line import call, refused
from cuvee.errors import ConfigError
from cuvee.hub import without_hub
from cuvee.recommend.power import plan_power
from cuvee.study import open_study, run_study
from cuvee.study.planned_machine import tell_load
from cuvee.study.planned_timing import RecipeTime
from cuvee.study.planning import plan_study


@pytest.mark.slow  # with the others of its kind: it runs a study
def test_the_plan_is_what_the_study_then_does(settings, tmp_path, local):
    plan = plan_study(settings)
    assert not local.bodies
    run_study(settings, out=tmp_path / "run")
    with open_study(settings, out=tmp_path / "run") as flow:
        grid, folder = flow.grid, flow.study.folder
        stages = {stage.stage: stage for stage in plan.trials}
        assert stages["grid"].trials == len(grid)
        assert stages["grid"].cells == len({outcome.cell for outcome in grid})
        assert len(flow.study.train) == plan.train_rows
        rows = folder._database.execute('SELECT count(*) FROM trials WHERE payload LIKE \'%"part": "test"%\'')
        assert stages["confirm"].trials == rows.fetchone()[0]
        usage = json.loads(call_ledger(tmp_path / "run"))
    # every answer of this LLM is usable, up to a few duplicates
    assert plan.requests <= usage["requests"] + 9 * 2 * 2  # the confirmed level may be the smaller one
    assert usage["requests"] <= plan.most_requests
    assert plan.prompt_tokens > 0 and plan.completion_tokens > 0


def call_ledger(folder) -> str:
    from cuvee.generate import Ledger

    with Ledger(folder / "ledger.sqlite", readonly=True) as ledger:
        return json.dumps({"requests": ledger.totals().requests})


def test_requests_are_those_of_the_union_of_levels(settings):
    plan = plan_study(settings)
    sampling, paraphrase = plan.dials
    # 9 rows a draw (3 labels x 3), 2 draws: temperatures share nothing, paraphrases share their base rows
    assert sampling.requests == 3 * 18 and sampling.confirm_requests == 18
    assert 18 < paraphrase.requests < 36
    assert plan.requests == sampling.requests + paraphrase.requests + max(18, paraphrase.confirm_requests)
    doubled = plan_study({**settings, "draws": {**settings["draws"], "generation": 4}})
    assert [d.requests for d in doubled.dials] == [2 * d.requests for d in plan.dials]


def test_cost_time_and_power_follow_their_settings(settings):
    generator = {**settings["generator"], "prices": {"prompt_per_million": 1000, "completion_per_million": 2000}}
    plan = plan_study({**settings, "generator": generator, "execute": {"kind": "processes", "workers": 2}})
    assert plan.cost == pytest.approx((plan.prompt_tokens * 1000 + plan.completion_tokens * 2000) / 1e6)
    assert plan.workers == 2
    assert all(stage.seconds_each > 0 and not stage.rough for stage in plan.trials)
    assert plan.time.trials >= sum(s.trials * s.seconds_each for s in plan.trials) / 2
    assert plan.time.embedding > 0 and plan.time.measuring > 0
    known = plan.time.trials + plan.time.embedding + plan.time.measuring
    assert plan.time.generating is None and plan.time.total == pytest.approx(known)
    assert any("--latency" in note for note in plan.notes)
    cells = 5 * 2  # levels x shares above 0
    assert plan.power.gain == plan_power(draws=2, sd_between=1, sd_within=1, repeats=2, tests=cells, items=45)
    assert plan.power.hump == plan_power(draws=2, sd_between=1, sd_within=1, repeats=2, levels=3)
    steady = plan_study(settings, sd_between=0.1, sd_within=0.1)
    assert steady.power.gain < plan.power.gain and steady.cost is None
    assert plan.power.confirmed == plan_power(draws=2, sd_between=1, sd_within=1, repeats=2, items=45)
    apart = plan_study(settings, disagreement=0.3).power
    assert apart.disagreement == 0.3 and apart.gain > plan.power.gain and apart.confirmed > plan.power.confirmed
    one = plan_study({**settings, "draws": {**settings["draws"], "generation": 1, "confirm": 0}})
    assert math.isinf(one.power.gain) and [s.stage for s in one.trials] == ["grid"] and one.power.confirmed is None


def test_an_endpoint_takes_what_is_assumed_and_its_limits_allow(settings):
    slow = {**settings, "generator": {**settings["generator"], "concurrency": 4}}
    plan = plan_study(slow, latency=2.0)
    assert plan.time.generating == pytest.approx(math.ceil(plan.requests / 4) * 2.0)
    limited = {**slow, "generator": {**slow["generator"], "requests_per_minute": 10}}
    assert plan_study(limited, latency=2.0).time.generating == pytest.approx(plan.requests * 6.0)
    assert plan_study(limited).time.generating_at_least == pytest.approx(plan.requests * 6.0)
    with pytest.raises(ValueError, match="latency"):
        plan_study(slow, latency=0.0)
    with pytest.raises(ConfigError, match="--latency 2 has no effect: the embedded LLM is timed here"):
        plan_study({**settings, "generator": {"kind": "embedded"}}, latency=2.0)


def test_drafts_cost_what_their_writer_asks_and_budgets_are_compared(settings):
    dials = [{"name": "base_then_refine", "levels": [0.7, 1.3]}]
    draft = {k: settings["generator"][k] for k in ("kind", "base_url", "model")}
    prices = {"prompt_per_million": 1000, "completion_per_million": 2000}
    tenfold = {"prompt_per_million": 10_000, "completion_per_million": 20_000}
    generator = {**settings["generator"], "prices": prices, "draft": {**draft, "model": "base", "prices": tenfold}}
    dear = plan_study({**settings, "dials": dials, "generator": generator})
    same = {**generator, "draft": {**generator["draft"], "prices": prices}}
    cheap = plan_study({**settings, "dials": dials, "generator": same})
    assert dear.drafts.requests == dear.requests // 2 > 0
    assert dear.drafts_cost == pytest.approx(10 * cheap.drafts_cost)
    assert dear.cost - dear.drafts_cost == pytest.approx(cheap.cost - cheap.drafts_cost)
    small = {**generator, "budget": {"requests": 3}}
    notes = plan_study({**settings, "dials": dials, "generator": small}).notes
    assert any("generator.budget" in note and "3" in note for note in notes)


@pytest.mark.slow  # it times an encoder
def test_lists_drafts_and_a_dearer_trainer_are_counted(settings):
    dials = [
        {"name": "topics", "levels": [1, 2], "topics": "llm", "degree": [2]},
        {"name": "base_then_refine", "levels": [0.7, 1.3]},
    ]
    train = {"steps": 40, "check": {"trainer": "encoder", "steps": 5, "draws": 2}}
    plan = plan_study({**settings, "dials": dials, "train": train})
    topics, refine = plan.dials
    assert topics.list_requests == 3  # one question a label
    assert refine.requests == 2 * 2 * 18  # a draft and its refinement
    check = next(stage for stage in plan.trials if stage.stage == "check")
    assert (check.trainer, check.cells, check.trials) == ("encoder", 3, 6) and check.seconds_each > 0
    missing = {**train, "check": {**train["check"], "settings": {"model": "nobody/no-such-model"}}}
    plan = plan_study({**settings, "dials": dials, "train": missing})
    assert next(s for s in plan.trials if s.stage == "check").seconds_each is None
    assert any("encoder" in note and "not timed" in note for note in plan.notes)


def test_a_trial_takes_its_steps_and_its_rows(settings):
    made = RecipeTime(trainer="encoder", loss="ce", start=9.0, fixed=1.0, step=0.5, row=0.01)
    assert made.seconds(steps=20, rows=100) == pytest.approx(1 + 10 + 1)
    train = {"steps": 40, "loss": ["ce", "imp"], "sensitivity": ["equal-epochs"]}
    plan = plan_study({**settings, "train": train})
    assert [(timing.trainer, timing.loss) for timing in plan.timings] == [("probe", "ce"), ("probe", "imp")]
    ce, imp = (timing.seconds(steps=40, rows=plan.validation_rows) for timing in plan.timings)
    stages = {stage.stage: stage.seconds_each for stage in plan.trials}
    assert stages["grid"] == pytest.approx((ce + imp) / 2)  # as many trials with each
    assert stages["equal epochs"] >= ce  # as many steps, or more
    assert stages["confirm"] == pytest.approx(plan.timings[0].seconds(steps=40, rows=plan.test_rows))


def test_a_busy_machine_is_told():
    assert tell_load(0.4, 2, "local") == []
    (note,) = tell_load(3.0, 2, "local")
    assert "load of 3.0 on 2 cores" in note and "execute.cpus 1" in note
    assert "execute.cpus" not in tell_load(3.0, 2, "processes")[0]


def test_nothing_is_fetched_while_trainers_are_timed(monkeypatch):
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with without_hub():
        assert constants.is_offline_mode() and os.environ["HF_HUB_OFFLINE"] == "1"
    assert not constants.is_offline_mode() and os.environ["HF_HUB_OFFLINE"] == "0"


def test_one_draw_detects_nothing_and_says_so(settings, tmp_path, capsys):
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps({**settings, "draws": {"generation": 1, "confirm": 1}}), encoding="utf-8")
    _, out, _ = call(capsys, "plan", path)
    assert "1 generation draw cannot tell" in out and "inf" not in out
    assert "set draws.confirm to 2 or more" in out
    found = json.loads(call(capsys, "plan", path, "--json")[1])
    assert found["power"]["gain"] is None is found["power"]["confirmed"]


def test_the_command_sends_and_writes_nothing(settings, tmp_path, capsys, local, monkeypatch):
    study = tmp_path / "here" / "study.yaml"
    study.parent.mkdir()
    study.write_text(yaml.safe_dump(settings), encoding="utf-8")
    monkeypatch.chdir(study.parent)
    code, out, _ = call(capsys, "plan", study, "--json")
    plan = json.loads(out)
    assert code == 0 and plan["requests"] == plan_study(settings).requests
    code, out, _ = call(capsys, "plan", study)
    assert code == 0 and "requests, at most" in out and "four in five studies see a gain of" in " ".join(out.split())
    assert [path.name for path in study.parent.iterdir()] == ["study.yaml"] and not local.bodies
    assert "not a run folder" in refused(capsys, "plan", tmp_path)


def test_what_would_stop_the_study_stops_its_plan(settings):
    with pytest.raises(ConfigError, match=r"dials\.0"):
        plan_study({**settings, "dials": [{"name": "topics", "levels": [400], "topics": "data"}]})
