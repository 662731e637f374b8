"""Cross-fitting: every real row is held out once, and no fold's pools or choice know the rows that it holds out."""

import json
import os
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import yaml
from aiohttp import web
from test_study_run import files, make_rows, write_pools

from command_line import call
from cuvee.config.reading import config_to_yaml, make_config, read_config
from cuvee.corpus import Corpus, LockedTest
from cuvee.errors import ConfigError, InputError, RunFolderMismatch, TrainingError
from cuvee.execute import Stages
from cuvee.store import RunFolder
from cuvee.study.crossfit import open_folds, write_choices
from cuvee.study.flow import Flow
from cuvee.study.opening import open_study, run_study
from cuvee.study.outputs import write_outputs
from cuvee.study.planning import plan_study
from cuvee.study.status import read_status
from cuvee.train.probe import train_probe

FOLDS = 3
ROWS = 150
VALIDATION = 40


@pytest.fixture
def folded(settings) -> dict:
    return {
        **settings,
        "split": {"crossfit": FOLDS, "validation": VALIDATION, "rows_per_label": 3},
        "dials": [{"name": "sampling", "levels": [0.3, 1.5]}],
        "mix": {"shares": [0.5], "shape_share": 0.5},
        "draws": {"generation": 2, "sampling": 1, "training": 1, "confirm": 2},
    }


class Listening:
    """Keeps the notes, and what had been sent by then; stops the study at one of them."""

    def __init__(self, local, stop_at: str = "") -> None:
        self.local, self.stop_at, self.notes, self.sent = local, stop_at, [], []

    def started(self, stage, unit):
        pass

    def finished(self, stage, seconds):
        pass

    def advanced(self, stage, done, total):
        pass

    def detailed(self, stage, detail):
        pass

    def noted(self, message):
        self.notes.append(message)
        self.sent.append(len(self.local.bodies))
        if message == self.stop_at:
            raise InterruptedError(message)

    def sent_for(self, fold: int) -> list[dict]:
        """What was sent while a fold was at work."""
        turns = [(note, at) for note, at in zip(self.notes, self.sent, strict=True) if note.startswith("fold ")]
        ends = [*(at for _, at in turns[1:]), len(self.local.bodies)]
        return [
            body
            for (note, begin), end in zip(turns, ends, strict=True)
            if note.startswith(f"fold {fold} ")
            for body in self.local.bodies[begin:end]
        ]


def kept(run) -> dict[str, bytes]:
    """What must not depend on how a run went."""
    found = [*run.glob("**/pools/*.parquet"), *run.glob("blend/*"), run / "advice.json", *run.glob("**/study.yaml")]
    return {str(path.relative_to(run)): path.read_bytes() for path in found}


def finished(run) -> int:
    count = 0
    for path in run.glob("**/trials.sqlite"):
        with sqlite3.connect(path) as database:
            count += database.execute("SELECT count(*) FROM trials").fetchone()[0]
    return count


# --- a study in folds ---
@pytest.mark.slow  # it runs a study in each of three folds
def test_every_row_is_held_out_once_and_its_fold_knows_nothing_of_it(folded, tmp_path, local):
    heard = Listening(local)
    plan = plan_study(folded)
    assert not local.bodies
    with open_study(folded, out=tmp_path / "run", listener=heard) as flow:
        result = write_outputs(flow)
        held_out = [fold.study.split.test.open_for_confirmation() for fold in flow.parts]
        for number, (fold, test) in enumerate(zip(flow.parts, held_out, strict=True), start=1):
            split = fold.study.split
            assert not set(test.ids) & {*split.train.ids, *split.validation.ids}
            prompts = json.dumps(heard.sent_for(number))  # for pools and for the confirmation
            unseen = [*test.texts, *split.validation.texts]
            assert not [text for text in unseen if json.dumps(text)[1:-1] in prompts]
            assert any(json.dumps(text)[1:-1] in prompts for text in split.train.texts)
            pools = fold.pools.values()
            shown = {i for pool in pools for ids in pool.corpus.table["seed_ids"].to_pylist() for i in ids or []}
            assert shown and shown <= set(split.train.ids)
            log = fold.study.folder.access_log()
            (confirmed,) = [detail for reason, detail in log if reason == "confirmation"]
            assert confirmed.startswith(fold.draft.best.cell.key)
        real = Corpus.from_rows(
            [json.loads(line) | {"target": json.loads(line)["label"]} for line in headlines(folded)]
        )
        assert sorted(row for test in held_out for row in test.ids) == sorted(real.ids)

        validated = {row for fold in flow.parts for row in fold.study.split.validation.ids}
        assert {trial.scores.n for trial in flow.grid} == {len(validated)}
        assert [(t.cell, t.draw) for t in flow.grid] == [(t.cell, t.draw) for t in flow.parts[0].grid]
        choices = write_choices([fold.draft.best.cell for fold in flow.parts])
        measured = [fold.measurements for fold in flow.parts]
    confirmation, advice = result.advice.confirmation, result.advice
    assert (confirmation.folds, confirmation.fresh_draws, confirmation.test_items) == (FOLDS, True, ROWS)
    assert [(gain.over, gain.items) for gain in confirmation.gains] == [("real-only", ROWS), ("real-duplicated", ROWS)]
    assert confirmation.cell == advice.best.cell and confirmation.note.startswith(choices)
    assert "150 items held out in 3 folds, each by its own choice" in advice.sentence
    assert "Cross-fitted in 3 folds" in advice.scope
    page = result.report.read_text(encoding="utf-8")
    assert "what each of 3 folds held out" in page
    assert "locked test rows" not in page
    assert "50, 50, 50 in folds 1 to 3" in page and "40, 40, 40 in folds 1 to 3" in page
    # what is shown of pools is of all folds
    assert f'<th scope="row">requests answered</th><td class="long">{len(local.bodies)}</td>' in page
    assert "first fold" not in page.replace("rows shown are those of the first fold", "").replace(advice.scope, "")
    for fold in range(1, FOLDS + 1):
        assert f"<li>fold {fold}: confirmation: " in page and f"<li>fold {fold}: leak-guard: " in page
    (check,) = json.loads((tmp_path / "run" / "advice.json").read_text())["checks"]
    for level, shown in zip(check["levels"], check["estimates"], strict=True):
        key = f"sampling={level}"
        each = [found[key].values["vendi_q1"].value for found in measured]
        assert shown["value"] == pytest.approx(np.mean(each)) == result.measurements[key].values["vendi_q1"].value
        assert (shown["settings"]["lowest"], shown["settings"]["highest"]) == (min(each), max(each))
        assert len(set(each)) > 1 and "; folds " in page
    status = read_status(tmp_path / "run")
    assert not status.trials.failed
    assert status.trials.done == sum(stage.trials for stage in plan.trials)
    assert status.generation.requests == len(local.bodies)
    # the plan is what was then done
    assert sum(stage.trials for stage in plan.trials) == finished(tmp_path / "run")
    assert plan.llm.usage.requests <= len(local.bodies) <= plan.llm.most_requests
    assert (plan.rows.folds, plan.rows.held_out) == (FOLDS, ROWS)


def headlines(settings) -> list[str]:
    with open(settings["data"]["real"], encoding="utf-8") as lines:
        return list(lines)


@pytest.mark.slow  # it runs a study in each of three folds, and goes on with it
def test_a_study_that_was_stopped_goes_on_and_ends_in_the_same_bytes(folded, tmp_path, local):
    run_study(folded, out=tmp_path / "whole")
    sent = len(local.bodies)
    for moment in ("fold 2 of 3: grid", "fold 1 of 3: confirmation", "fold 3 of 3: confirmation"):
        with pytest.raises(InterruptedError):
            run_study(folded, out=tmp_path / "cut", listener=Listening(local, stop_at=moment))
    run_study(tmp_path / "cut" / "study.yaml", out=tmp_path / "cut")
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole")
    assert len(local.bodies) == 2 * sent
    trained = finished(tmp_path / "whole")
    again = run_study(folded, out=tmp_path / "whole")
    assert len(local.bodies) == 2 * sent and finished(tmp_path / "whole") == trained
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole") and again.advice.confirmation.folds == FOLDS


@pytest.mark.slow  # it generates in each of three folds, several times
def test_failed_requests_of_every_fold_are_asked_again(folded, tmp_path, local, capsys):
    heard, study, run = Listening(local), tmp_path / "study.yaml", tmp_path / "run"
    study.write_text(yaml.safe_dump(folded), encoding="utf-8")
    with open_study(folded, out=tmp_path / "whole", listener=heard) as flow:
        assert len(flow.pools) == 2
    lost = [json.dumps(heard.sent_for(fold)[4], sort_keys=True) for fold in (1, 2, 3)]

    async def refuse(_number, _request, body):
        if json.dumps(body, sort_keys=True) in lost:
            return web.json_response({"error": {"message": "content filter"}}, status=400)
        return None

    def generate(target, *more) -> dict:
        code, out, _ = call(capsys, "generate", target, "--json", *more)
        assert code == 0
        return json.loads(out)

    local.script = refuse
    short = generate(study, "--out", run)
    assert list(short) == [f"fold {fold}: sampling={level:g}" for fold in (1, 2, 3) for level in (0.3, 1.5)]
    assert sum(level["failed"] for level in short.values()) == FOLDS
    local.script = None
    local.bodies.clear()
    generate(run)
    assert not local.bodies
    mended = generate(run, "--retry-failed")
    assert sorted(json.dumps(body, sort_keys=True) for body in local.bodies) == sorted(lost)
    assert not any(level["failed"] for level in mended.values())
    pools = sorted(path.relative_to(run) for path in run.glob("**/pools/*.parquet"))
    assert len(pools) == 2 * FOLDS
    assert all((run / path).read_bytes() == (tmp_path / "whole" / path).read_bytes() for path in pools)


@pytest.mark.slow  # it runs a fold twice
def test_what_a_fold_chooses_does_not_depend_on_the_labels_that_it_holds_out(folded, tmp_path):
    with open_study(folded, out=tmp_path / "run") as flow, RunFolder(tmp_path / "other") as folder:
        fold = flow.parts[1]
        test = fold.study.split.test.open_for_confirmation()
        turned = Corpus.from_rows(
            [
                {"id": i, "text": text, "target": target}
                for i, text, target in zip(test.ids, test.texts, np.roll(test.targets, 17), strict=True)
            ]
        )
        assert turned.targets != test.targets
        split = replace(fold.study.split, test=LockedTest(turned))
        other = Flow(replace(fold.study, split=split, folder=folder))
        assert other.draft == fold.draft and other.draft.best is not None
        assert [t.scores.correct.tolist() for t in other.grid] == [t.scores.correct.tolist() for t in fold.grid]
        assert other.confirmation.accuracy != fold.confirmation.accuracy  # only there the labels are read


def fail_when_told(training):
    """A trainer that a user wrote."""
    if os.environ.get("TRAINER_FAILS"):
        raise TrainingError("told to fail")
    return train_probe(training)


@pytest.mark.trust("test_study_crossfit")
@pytest.mark.slow  # it runs a study in each of three folds
def test_ready_made_pools_fewer_rows_and_a_confirmation_that_fails(folded, tmp_path, local, monkeypatch):
    write_pools(tmp_path, {f"{name}.jsonl": make_rows(name, groups=24, each=1) for name in ("low", "high")})
    made = files(folded, low=tmp_path / "low.jsonl", high=tmp_path / "high.jsonl")
    made["split"] = {**made["split"], "rows_per_label": [2, 4]}
    made["train"] = {"trainer": "test_study_crossfit:fail_when_told", "steps": 20}
    heard = Listening(local)
    with open_study(made, out=tmp_path / "run", listener=heard) as flow:
        assert flow.draft.best is not None and not flow.draft.failures
        monkeypatch.setenv("TRAINER_FAILS", "1")
        assert flow.parts[0].confirmation is None and flow.confirmation is None
        assert any(note.startswith("every trial of") for note in heard.notes)
        assert heard.notes[-1].endswith("confirms its choice: the study is unconfirmed")
        assert "not confirmed on the test" in flow.advice.sentence
    monkeypatch.delenv("TRAINER_FAILS")
    advice = run_study(made, out=tmp_path / "run").advice
    assert advice.confirmation.folds == FOLDS and advice.confirmation.test_items == ROWS
    assert "was shown rows that are held out here is not known" in advice.scope
    assert [found.rows_per_label for found in advice.by_rows] == [4, 2]


def test_folders_of_folds(folded, tmp_path, local):
    with open_study(folded, out=tmp_path / "run") as flow:
        assert [fold.study.folder.path for fold in flow.parts] == [
            tmp_path / "run", tmp_path / "run" / "folds" / "2", tmp_path / "run" / "folds" / "3",
        ]  # fmt: skip
    with pytest.raises(RunFolderMismatch), open_study({**folded, "seed": 5}, out=tmp_path / "run"):
        pass
    plain = {**folded, "split": {"test": 45, "validation": VALIDATION, "rows_per_label": 3}}
    with open_study(plain, out=tmp_path / "plain") as flow:
        assert type(flow) is Flow
    assert not (tmp_path / "plain" / "folds").exists() and not local.bodies


def test_groups_and_near_rows_stay_in_one_fold(folded, tmp_path):
    rows = [json.loads(line) for line in headlines(folded)]
    for number, row in enumerate(rows):
        row["document"] = f"{row['label']} {number // 5}"
    path = tmp_path / "grouped.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    made = make_config(
        {
            **folded,
            "data": {"real": str(path), "group": "document"},
            "split": {**folded["split"], "near": 0.9, "validation": 0.2},
        }
    )
    with RunFolder(tmp_path / "run") as folder, open_folds(made, folder, Stages(), None) as studies:
        for study in studies:
            test, split = study.split.test.open_for_confirmation(), study.split
            assert not set(test.groups) & {*split.train.groups, *split.validation.groups}
            assert 10 <= len(split.validation) <= 20  # a fifth of the rows outside the fold, in whole groups


# --- refusals and settings ---
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": {"crossfit": 3, "rows_per_label": 3, "test": 45}}, "test is 45 and crossfit 3: every row is held"),
        ({"split": {"crossfit": 3}}, "crossfit 3 needs as many training rows in every fold: .* not None"),
        ({"split": {"crossfit": 3, "rows_per_label": [2, "all"]}}, "set rows_per_label to a number"),
        ({"split": {"crossfit": 1, "rows_per_label": 3}}, "split.crossfit: .* equal to 2"),
        ({"data": {"real": "real.csv", "test": "test.csv"}}, "does not go with data.test"),
        ({"search": {"kind": "adaptive"}}, "split.crossfit 3 does not go with search.kind adaptive"),
        ({"train": {"check": {"trainer": "encoder"}}}, "does not go with train.check"),
        ({"train": {"sensitivity": ["penalty"]}}, "does not go with train.sensitivity"),
        ({"draws": {"confirm": 0}}, "crossfit 3 has no effect with draws.confirm 0"),
        (
            {"dials": [{"name": "sampling", "levels": [0.3, 1.5], "target": {"metric": "vendi_q1", "value": 9}}]},
            "does not go with a dial with a target",
        ),
    ],
)
def test_what_folds_cannot_be_joined_over_is_refused(folded, change, message):
    with pytest.raises(ConfigError, match=message):
        make_config({**folded, **change})


def test_too_few_rows_for_the_folds_are_refused_before_anything_is_spent(folded, tmp_path, local):
    for split, message in (
        ({"crossfit": 60, "validation": 30, "rows_per_label": 3}, "label 'business' has 50 rows .* for 60 folds"),
        ({"crossfit": 3, "validation": 95, "rows_per_label": 3}, "fold 1 of split.crossfit 3: split asks for"),
    ):
        with pytest.raises(InputError, match=message), open_study({**folded, "split": split}, out=tmp_path / "run"):
            pass
    assert not local.bodies


def test_a_validation_file_has_none_of_the_rows_that_are_held_out(folded, tmp_path):
    rows = headlines(folded)
    other, same = tmp_path / "other.jsonl", tmp_path / "same.jsonl"
    lines = [json.dumps({"text": f"something else {i}", "label": "sports"}) + "\n" for i in range(5)]
    other.write_text("".join(lines), encoding="utf-8")
    same.write_text("".join([*lines, *rows[:2]]), encoding="utf-8")
    made = {**folded, "data": {**folded["data"], "validation": str(other)}}
    with open_study(made, out=tmp_path / "run") as flow:
        assert [len(fold.study.split.validation) for fold in flow.parts] == [5] * FOLDS
    assert "5 validation rows" in plan_study(made).notes[0]
    made["data"] = {**folded["data"], "validation": str(same)}
    with pytest.raises(InputError, match=r"repeats 2 rows of data.real, which"):
        plan_study(made)


def test_each_fold_has_its_part_of_the_budget_and_study_yaml_the_whole(folded, tmp_path, local):
    budget = {"requests": 100, "tokens": 10, "cost": 6.0}
    prices = {"prompt_per_million": 1, "completion_per_million": 1}
    made = make_config({**folded, "generator": {**folded["generator"], "budget": budget, "prices": prices}})
    heard = Listening(local)
    with open_study(made, out=tmp_path / "run", listener=heard) as flow:
        assert heard.notes == ["each of 3 folds may spend one part in 3 of generator.budget"]
        parts = [fold.study.config.generator.budget.model_dump() for fold in flow.parts]
        assert parts == [{"requests": 33, "tokens": 3, "cost": 2.0}] * FOLDS
        assert flow.shown.config == made
    for written in [tmp_path / "run" / "study.yaml", *tmp_path.glob("run/folds/*/study.yaml")]:
        assert read_config(written) == made
    assert make_config(yaml.safe_load(config_to_yaml(made))) == made


def test_a_plan_counts_every_fold(folded):
    prices = {"prompt_per_million": 1000, "completion_per_million": 2000}
    made = {**folded, "generator": {**folded["generator"], "prices": prices}}
    plan = plan_study(made)
    undivided = {**made, "split": {"test": 50, "validation": VALIDATION, "rows_per_label": 3}}
    one = plan_study(undivided)
    assert (plan.llm.usage.requests, plan.llm.most_requests) == (
        FOLDS * one.llm.usage.requests,
        FOLDS * one.llm.most_requests,
    )
    assert [d.usage.requests + d.confirm.requests for d in plan.llm.dials] == [
        FOLDS * (d.usage.requests + d.confirm.requests) for d in one.llm.dials
    ]
    (grid, confirm), (own, fresh) = plan.trials, one.trials
    assert confirm.trials == FOLDS * fresh.trials
    assert grid.trials == FOLDS * (own.trials + 2)  # real rows are trained once a draw, since folds are joined by draw
    most = max(plan.llm.dials, key=lambda dial: dial.confirm.requests)
    written = sum(d.usage.completion_tokens for d in plan.llm.dials) + most.confirm.completion_tokens
    assert plan.llm.usage.completion_tokens == written
    assert plan.llm.cost == pytest.approx(
        (plan.llm.usage.prompt_tokens * 1000 + plan.llm.usage.completion_tokens * 2000) / 1e6
    )
    (each,) = plan.time.each.values()
    assert plan.time.trials == pytest.approx(each * sum(stage.trials for stage in plan.trials))
    folds, alone = (plan_study(config, spread=0.1).power[0] for config in (made, undivided))
    assert folds.gain < alone.gain  # folds validate on more rows together
    assert "those of 3 folds" in plan.notes[0] and "all 150 real rows" in plan.notes[0]
    assert (one.rows.folds, one.rows.held_out) == (1, 50)
