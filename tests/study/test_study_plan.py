"""``cuvee plan``: the numbers are those of the study that is then run; nothing is sent, nothing is written."""

import json
import math
from dataclasses import replace

import pytest
import yaml

from command_line import call, refused
from cuvee.errors import ConfigError, InputError
from cuvee.hub import without_hub
from cuvee.recommend import plan_power
from cuvee.recommend.wording import write_edge
from cuvee.records.advice import Edge
from cuvee.study.draws import find_spreads
from cuvee.study.opening import open_study, run_study
from cuvee.study.planning import plan_study
from cuvee.study.status import account_folder


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
        assert len(flow.study.train) == plan.rows.train
        rows = folder._database.execute('SELECT count(*) FROM trials WHERE payload LIKE \'%"part": "test"%\'')
        assert stages["confirm"].trials == rows.fetchone()[0]
        usage = json.loads(call_ledger(tmp_path / "run"))
    # every answer of this LLM is usable, up to a few duplicates
    assert plan.llm.usage.requests <= usage["requests"] + 9 * 2 * 2  # the confirmed level may be the smaller one
    assert usage["requests"] <= plan.llm.most_requests
    assert plan.llm.usage.prompt_tokens > 0 and plan.llm.usage.completion_tokens > 0


def call_ledger(folder) -> str:
    from cuvee.generate.ledger import Ledger

    with Ledger(folder / "ledger.sqlite", readonly=True) as ledger:
        return json.dumps({"requests": ledger.totals().requests})


def test_requests_are_those_of_the_union_of_levels(settings):
    plan = plan_study(settings)
    sampling, paraphrase = plan.llm.dials
    # 9 rows a draw (3 labels x 3), 2 draws: temperatures share nothing, paraphrases share their base rows
    assert sampling.usage.requests == 3 * 18 and sampling.confirm.requests == 18
    assert 18 < paraphrase.usage.requests < 36
    wanted = sampling.usage.requests + paraphrase.usage.requests + max(18, paraphrase.confirm.requests)
    assert plan.llm.usage.requests == wanted
    doubled = plan_study({**settings, "draws": {**settings["draws"], "generation": 4}})
    assert [d.usage.requests for d in doubled.llm.dials] == [2 * d.usage.requests for d in plan.llm.dials]


def test_cost_and_power_follow_their_settings(settings):
    prices = {"prompt_per_million": 1000, "completion_per_million": 2000}
    generator = {**settings["generator"], "prices": prices, "budget": {"requests": 3}}
    plan = plan_study({**settings, "generator": generator})
    assert plan.llm.cost == pytest.approx(
        (plan.llm.usage.prompt_tokens * 1000 + plan.llm.usage.completion_tokens * 2000) / 1e6
    )
    assert any("generator.budget.requests is 3" in note for note in plan.notes)
    cells = 5 * 2  # levels x shares above 0
    assert [each.spread for each in plan.power] == [1.4, 2.4, 3.4]  # of recorded studies
    middle, cell = plan.power[1], 2.4 / math.sqrt(2)
    assert middle.gain == plan_power(draws=2, sd_between=cell, tests=cells, items=45)
    assert middle.hump == plan_power(draws=2, sd_between=cell, levels=3, items=45)
    (steady,) = plan_study(settings, spread=0.1).power
    assert steady.gain < plan.power[0].gain and plan_study(settings, spread=0.1).llm.cost is None
    planned = plan_power(draws=2, sd_between=cell, items=45, alpha=0.045)  # a tenth is left for later looks
    assert middle.confirmed == pytest.approx(planned)
    apart = plan_study(settings, disagreement=0.3).power[1]
    assert apart.hump > middle.hump and apart.confirmed > middle.confirmed
    one = plan_study({**settings, "draws": {**settings["draws"], "generation": 1, "confirm": 0}})
    assert math.isinf(one.power[1].gain) and [s.stage for s in one.trials] == ["grid"]
    assert one.power[1].confirmed is None


def test_a_pilot_tells_how_much_gains_vary_between_draws(tmp_path):
    def save(*gains) -> None:
        cells = [{"cell": {"kind": "blend"}, "gains": [{"se_draws": e, "draws": n}]} for e, n in gains]
        (tmp_path / "advice.json").write_text(json.dumps({"cells": cells}), encoding="utf-8")

    save((0.01, 4), (0.02, 4), (0.03, 4), (0.0, 1))
    assert find_spreads(None, tmp_path) == pytest.approx((4.0,))
    save((0.0, 1))
    with pytest.raises(InputError, match=r"advice\.json: no blend was drawn twice"):
        find_spreads(None, tmp_path)
    with pytest.raises(InputError, match=r"advice\.json: no advice can be read"):
        find_spreads(None, tmp_path / "nosuch")
    with pytest.raises(ValueError, match="give one of them"):
        find_spreads(1.0, tmp_path)


def test_time_is_that_of_one_trial_and_one_batch_multiplied(settings, local):
    train = {"loss": ["ce", "imp"], "sensitivity": ["penalty"]}
    execute = {"kind": "processes", "workers": 2}
    plan = plan_study({**settings, "train": train, "execute": execute})
    time, stages = plan.time, {(stage.stage, stage.recipe.loss): stage for stage in plan.trials}
    assert plan.workers == 2 and not local.bodies
    assert set(time.each) == {"probe, ce", "probe, imp"} and min(time.each.values()) > 0
    assert stages["a tenth of the penalty", "ce"].trials == stages["10 times the penalty", "ce"].trials > 0
    wanted = [(math.ceil(s.trials / 2) * s.longer, time.each[f"probe, {s.recipe.loss}"]) for s in plan.trials]
    assert time.trials == pytest.approx(sum(trials * each for trials, each in wanted))
    assert time.generating is None and any("--ask" in note for note in plan.notes)
    asked = plan_study(settings, ask=True)
    assert local.bodies and asked.time.generating > 0 and not any("--ask" in note for note in asked.notes)
    assert len(local.bodies) <= 40 < asked.llm.usage.requests
    assert asked.time.total == pytest.approx(asked.time.trials + asked.time.generating + asked.time.embedding)


@pytest.mark.slow  # it times an encoder
def test_lists_drafts_and_a_dearer_trainer_are_counted(settings):
    dials = [
        {"name": "topics", "levels": [1, 2], "topics": "llm"},
        {"name": "base_then_refine", "levels": [0.7, 1.3]},
    ]
    train = {"check": {"trainer": "encoder", "steps": 5, "draws": 2}}
    plan = plan_study({**settings, "dials": dials, "train": train})
    topics, refine = plan.llm.dials
    assert topics.usage.requests == 3 + 2 * 12  # a question a label; level 2 adds a row
    assert refine.usage.requests == 2 * 2 * 18  # a draft and its refinement
    check = next(stage for stage in plan.trials if stage.stage == "check")
    assert (check.recipe.trainer, check.cells, check.trials) == ("encoder", 3, 6)
    assert plan.time.each["encoder, ce, 5 steps"] > 0
    missing = {**train, "check": {**train["check"], "settings": {"model": "nobody/no-such-model"}}}
    plan = plan_study({**settings, "dials": dials, "train": missing})
    assert "encoder, ce, 5 steps" not in plan.time.each
    assert any("encoder" in note and "not known" in note for note in plan.notes)


def test_nothing_is_fetched_while_trainers_are_timed(monkeypatch):
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with without_hub():
        assert constants.is_offline_mode()
    assert not constants.is_offline_mode()


def test_one_draw_detects_nothing_and_says_so(settings, tmp_path, capsys):
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps({**settings, "draws": {"generation": 1, "confirm": 1}}), encoding="utf-8")
    _, out, _ = call(capsys, "plan", path)
    assert "1 draw cannot tell" in out and "inf" not in out
    assert "set draws.confirm to 2 or more" in out
    found = json.loads(call(capsys, "plan", path, "--json")[1])
    assert found["power"][0]["gain"] is None is found["power"][0]["confirmed"]


def test_the_command_sends_and_writes_nothing(settings, tmp_path, capsys, local, monkeypatch):
    study = tmp_path / "here" / "study.yaml"
    study.parent.mkdir()
    study.write_text(yaml.safe_dump(settings), encoding="utf-8")
    monkeypatch.chdir(study.parent)
    code, out, _ = call(capsys, "plan", study, "--json")
    plan = json.loads(out)
    assert code == 0 and plan["llm"]["usage"]["requests"] == plan_study(settings).llm.usage.requests
    code, out, _ = call(capsys, "plan", study)
    assert (
        code == 0 and "requests, at most" in out and "2 draws, 80% of studies detect a gain of" in " ".join(out.split())
    )
    assert [path.name for path in study.parent.iterdir()] == ["study.yaml"] and not local.bodies
    assert "not a run folder" in refused(capsys, "plan", tmp_path)


def test_what_would_stop_the_study_stops_its_plan(settings):
    with pytest.raises(ConfigError, match=r"dials\.0"):
        plan_study({**settings, "dials": [{"name": "topics", "levels": [400], "topics": "data"}]})


@pytest.mark.slow  # with the others of its kind: it runs a study
def test_the_next_step_at_the_edge_takes_what_twice_the_draws_more_of_that_level_take(settings, tmp_path):
    config = {**settings, "dials": [settings["dials"][0]], "mix": {"amounts": ["1x", "all"], "shape_share": 0.5}}
    config["draws"] = {**config["draws"], "confirm": 0}
    with open_study(config, out=tmp_path / "run") as flow:
        advice, pools = flow.advice, flow.pools
        best = next(s for s in advice.cells if s.cell.whole and s.cell.kind == "blend")
        at_edge = replace(advice, best=best, edge=Edge(gain=None, factor=3.0, is_everything=True))
        edge = flow._advisor._find_next(at_edge)
        spent = account_folder(tmp_path / "run")
    draws = config["draws"]["generation"]
    more = plan_study({**config, "draws": {**config["draws"], "generation": 3 * draws}}).llm.usage.requests
    once = plan_study(config).llm.usage.requests
    (rows,) = {len(pool.corpus) for pool in pools.values()}
    rejected = sum(spent.rejected.values()) / spent.requests
    assert edge.rows == 2 * rows and edge.requests == round((more - once) / len(pools) / (1 - rejected))
    assert edge.part == pytest.approx(edge.requests / spent.requests, rel=0.05)
    assert edge.tokens == pytest.approx(edge.part * (spent.prompt_tokens + spent.completion_tokens), abs=1)
    said = write_edge(edge, takes="3 min")
    assert f"generate {edge.rows} more rows of it, about {edge.requests} requests" in said and "3 min, or stop" in said
