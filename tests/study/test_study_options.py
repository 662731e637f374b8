"""Every option of study.yaml changes what it says it changes, or is refused before anything is spent."""

import json

import pytest

from cuvee.errors import BudgetReached, ConfigError
from cuvee.records import Trial
from cuvee.study.opening import open_study, run_study


def look(settings, folder, local) -> dict[str, object]:
    """What a study asked, generated, mixed, trained and concluded."""
    local.bodies.clear()
    result = run_study(settings, out=folder)
    with open_study(settings, out=folder) as flow:
        trials = [t for t in flow.grid if isinstance(t, Trial)]
        seen = {
            "asked": sorted(json.dumps(b, sort_keys=True) for b in local.bodies),
            "at once": local.most_at_once,
            "texts": {k: v.texts for k, v in result.pools.items()},
            "cells": sorted({t.cell.key for t in trials}),
            "draws": sorted({(t.draw.generation, t.draw.sampling, t.draw.training) for t in trials}),
            "compositions": sorted(
                {(t.cell.key, t.composition.real_rows, t.composition.synthetic_rows) for t in trials}
            ),
            "scores": [t.scores.values["log_loss"].value for t in trials],
            "confirmed": flow.confirmation is not None,
            "shape": [(s.dial, s.share, s.delta, s.alpha) for s in result.advice.shapes],
            "scope": result.advice.scope,
        }
    return seen


pytestmark = pytest.mark.slow  # each is quick, together they are not

SMALL = {
    "dials": [{"name": "sampling", "levels": [0.3, 0.9]}],
    "draws": {"generation": 2, "sampling": 1, "training": 1, "confirm": 1},
}
GENERATOR = {"temperature": 1.3, "top_p": 0.5, "max_tokens": 9, "model": "other", "api": "chat"}
GENERATOR |= {"min_p": 0.2, "top_k": 7, "omit": ["top_p"]}


def with_part(settings, part: str, **changes):
    return {**settings, part: {**settings[part], **changes}}


@pytest.fixture
def plain(settings):
    dials = [{"name": "paraphrase", "levels": [1, 0], "sources": 1}]
    return {**settings, **SMALL, "dials": dials}


@pytest.mark.parametrize("name", list(GENERATOR))
def test_generator_options_reach_the_requests(plain, tmp_path, local, name):
    local.models = ["tiny", "other"]
    before = look(plain, tmp_path / "a", local)
    after = look(with_part(plain, "generator", **{name: GENERATOR[name]}), tmp_path / "b", local)
    assert before["asked"] != after["asked"]


def test_a_budget_stops_before_it_is_passed_and_the_next_run_goes_on(plain, tmp_path, local):
    small = with_part(plain, "generator", budget={"requests": 5}, concurrency=2)
    with pytest.raises(BudgetReached, match="5"):
        run_study(small, out=tmp_path / "run")
    asked = [json.dumps(b, sort_keys=True) for b in local.bodies]
    assert len(asked) == 5
    run_study(plain, out=tmp_path / "run")
    every = [json.dumps(b, sort_keys=True) for b in local.bodies]
    assert len(set(every)) == len(every)  # what was answered is not asked again


def test_a_budget_in_money_counts_prices(plain, tmp_path, local):
    prices = {"prompt_per_million": 1e6, "completion_per_million": 1e6}
    with pytest.raises(BudgetReached, match="cost"):
        run_study(with_part(plain, "generator", budget={"cost": 500}, prices=prices), out=tmp_path / "run")
    assert len(local.bodies) < 60


def test_concurrency_changes_how_many_requests_are_under_way(plain, tmp_path, local):
    assert look(with_part(plain, "generator", concurrency=1), tmp_path / "a", local)["at once"] == 1
    assert look(with_part(plain, "generator", concurrency=3), tmp_path / "b", local)["at once"] == 3


def test_truncated_answers_are_kept_or_not(plain, tmp_path, local):
    local.finish_reason = "length"
    with pytest.raises(Exception, match="truncated"):
        run_study(plain, out=tmp_path / "a")
    kept = look(with_part(plain, "generator", truncated="keep"), tmp_path / "b", local)
    assert all(kept["texts"].values())


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"describe": "tweets"}, {"asked", "texts", "scope"}),
        ({"dials": [{"name": "paraphrase", "levels": [2, 0], "sources": 1}]}, {"asked", "cells"}),
        ({"dials": [{"name": "paraphrase", "levels": [0], "sources": 1}]}, {"cells"}),
        ({"dials": [{"name": "paraphrase", "levels": [1, 0], "sources": 1, "draws": 1}]}, {"draws"}),
        ({"mix": {"shares": [0.25, 0.4, 0.5], "shape_share": 0.5}}, {"cells"}),
        ({"mix": {"shares": [0.25, 0.6], "shape_share": 0.6}}, {"asked", "shape"}),
        ({"mix": {"regime": "replace", "shares": [0.34, 0.67], "shape_share": 0.67}}, {"compositions"}),
        ({"draws": {**SMALL["draws"], "generation": 3}}, {"draws", "asked"}),
        ({"draws": {**SMALL["draws"], "sampling": 2}}, {"draws"}),
        ({"draws": {**SMALL["draws"], "confirm": 0}}, {"confirmed"}),
        ({"train": {"settings": {"l2": 7.0}}}, {"scores"}),
        ({"train": {"loss": "source_weight", "source_weight": 0.2}}, {"cells", "scores"}),
        ({"advice": {"delta": 0.03}}, {"shape"}),
        ({"advice": {"alpha": 0.2}}, {"shape"}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else str(sorted(value)),
)
def test_options_change_what_they_say(plain, tmp_path, local, change, moved):
    before = look(plain, tmp_path / "a", local)
    after = look({**plain, **change}, tmp_path / "b", local)
    changed = {k for k in before if before[k] != after[k]}
    assert moved <= changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": {"trainer": "prob"}}, "config: train.trainer: unknown trainer 'prob'; did you mean 'probe'"),
        ({"train": {"check": {"trainer": "encodr"}}}, "config: train.check.trainer: .* did you mean 'encoder'"),
        ({"train": {"loss": "cee"}}, "unknown loss 'cee'"),
        ({"generator": {"kind": "endpoint", "base_url": "http://x/v1", "model": "m", "budget": {"cost": 1}}}, "prices"),
        ({"dials": [{"name": "paraphrase", "levels": [9], "sources": 1}]}, "dials.0"),
        ({"dials": [{"name": "topics", "levels": [1], "topics": {"business": ["oil"]}}]}, "dials.0"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_before_anything_is_asked(settings, tmp_path, local, change, message):
    with pytest.raises(ConfigError, match=message):
        run_study({**settings, **change}, out=tmp_path / "run")
    assert not local.bodies
