"""Cells over numbers of real rows, losses and epochs: nested rows, one advice for each, all of it counted."""

import json

import pytest
from test_study_run import files, make_rows, write_pools

from cuvee.errors import ConfigError
from cuvee.probe import choose_l2
from cuvee.records import Cell, Draw, Trial
from cuvee.study.grids import plan_grids
from cuvee.study.opening import open_study, run_study
from cuvee.study.planning import plan_study
from cuvee.study.running import grid_recipes, make_mixing

pytestmark = pytest.mark.trust("slow_trainer")

MANY = {
    "split": {"test": 45, "validation": 45, "rows_per_label": [2, 4]},
    "train": {
        "trainer": "slow_trainer:plain",
        "steps": 20,
        "loss": ["ce", "gce"],
        "each": {"gce": {"settings": {"q": 0.4}}},
        "sensitivity": ["equal-epochs"],
        "check": {"trainer": "slow_trainer:fail_on_level_d", "steps": 5, "draws": 1, "keep": 3},
    },
    "draws": {"generation": 2, "sampling": 1, "training": 1, "confirm": 2},
}


REPLACE = {"regime": "replace", "shares": [0.5], "shape_share": 0.5}


@pytest.fixture
def ready(settings, tmp_path):
    names = ("a", "b", "c")
    write_pools(tmp_path, {f"{n}.jsonl": make_rows(n, groups=20 + 4 * k, each=1) for k, n in enumerate(names)})
    return {**files(settings, **{name: tmp_path / f"{name}.jsonl" for name in names}), **MANY}


def test_fewer_rows_lie_within_more_and_draw_from_the_same_blocks(ready, tmp_path):
    with open_study(ready, out=tmp_path / "run") as flow:
        study = flow.study
        assert study.row_counts == (4, 2) and study.rows_per_label == 4
        few, many = study.real_rows(2), study.real_rows(4)
        assert set(few.ids) < set(many.ids) and set(few.label_counts().values()) == {2}
        pools = {level.key: pool.corpus for level, pool in flow.pools.items()}
        mixing = make_mixing(study, pools, [0])
        for share, more in ((0.25, 0), (0.5, 6)):  # 1 row a label at both, by rounding; 4 and 2
            made = {
                rows: mixing.mix(
                    Cell(kind="blend", dial="mine", level="a", share=share, rows_per_label=rows),
                    Draw(generation=1, sampling=0, training=0),
                ).corpus
                for rows in (2, 4)
            }
            synthetic = {
                rows: [i for i, origin in zip(c.ids, c.origins, strict=True) if origin == "synthetic"]
                for rows, c in made.items()
            }
            assert set(synthetic[2]) <= set(synthetic[4])
            assert len(synthetic[4]) - len(synthetic[2]) == more
            assert {r: len(c) - len(synthetic[r]) for r, c in made.items()} == {2: 6, 4: 12}


def test_smaller_numbers_of_rows_may_be_added_to_a_run_folder(ready, tmp_path):
    alone = {**ready, "split": {**ready["split"], "rows_per_label": 4}}
    for config in (alone, ready, {**ready, "split": {**ready["split"], "rows_per_label": [4, 1]}}):
        with open_study(config, out=tmp_path / "run"):
            pass


def test_each_trainer_and_loss_is_trained_by_its_own_recipe(ready, tmp_path):
    train = {
        "trainer": ["probe", "encoder"],
        "loss": ["ce", "gce"],
        "steps": 200,
        "each": {
            "probe": {"settings": {"l2": 0.5}},
            "encoder": {"settings": {"batch_size": 8}},
            "gce": {"settings": {"q": 0.4}},
        },
    }
    with open_study({**ready, "train": train}, out=tmp_path / "run") as flow:
        made = {(r.trainer, r.loss): (r.steps, dict(r.settings)) for r in grid_recipes(flow.study)}
    assert list(made) == [("probe", "ce"), ("probe", "gce"), ("encoder", "ce"), ("encoder", "gce")]
    assert made["probe", "ce"] == (None, {"l2": 0.5})
    assert made["probe", "gce"] == (None, {"l2": 0.5, "q": 0.4})
    assert made["encoder", "ce"] == (200, {"batch_size": 8})
    assert made["encoder", "gce"] == (200, {"batch_size": 8, "q": 0.4})


def test_the_plan_counts_all_grids_the_check_and_equal_epochs(ready):
    planned = plan_study(ready).trials
    stages, grids = {stage.stage: stage for stage in planned}, [stage for stage in planned if stage.stage == "grid"]
    # 3 levels x (2 shares + alone) and 3 baselines, and 2 blocks of each level; 2 numbers of rows, 2 losses
    assert [(stage.cells, stage.trials) for stage in grids] == [((12 + 3) * 2, (12 + 3 * 2) * 2)] * 2
    assert (stages["check"].cells, stages["check"].trials) == (5, 5)
    # 3 levels and 2 baselines at the tested share, 2 blocks of each level; the best cell and repeated rows at the other
    assert (stages["equal epochs"].cells, stages["equal epochs"].trials) == (7 + 3, 7 + 3 * 2)
    assert stages["equal epochs"].longer > 1
    check = {**MANY["train"]["check"], "keep": 99}
    many = {stage.stage: stage for stage in plan_study({**ready, "train": {**MANY["train"], "check": check}}).trials}
    assert many["check"].cells == 1 + 6  # real-only and every blend: 3 levels x 2 shares
    alone = plan_study({**ready, "train": {"sensitivity": []}, "split": {**ready["split"], "rows_per_label": 4}})
    assert [(s.stage, s.trials) for s in alone.trials] == [("grid", 12 + 3 * 2), ("confirm", 6)]
    assert not any("no shape" in note for note in alone.notes)
    larger = plan_study({**ready, "mix": {"shares": [0.5, 0.95], "shape_share": 0.95}})
    assert any("no shape is tested" in note and "mix.shape_share 0.95" in note for note in larger.notes)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"split": {"rows_per_label": [4, 4]}}, "split.rows_per_label: give a whole number"),
        ({"split": {"rows_per_label": []}}, "split.rows_per_label: give a whole number"),
        ({"split": {"rows_per_label": 0}}, "split.rows_per_label: give a whole number"),
        ({"split": {"rows_per_label": "some"}}, "split.rows_per_label: give a whole number"),
        ({"train": {"loss": ["ce", "ce"]}}, "train.loss: give one name"),
        ({"train": {"trainer": ["probe", "encodr"]}}, "did you mean 'encoder'"),
        ({"train": {"trainer": ["probe", "encoder"], "settings": {"lora_rank": 4}}}, "probe"),
        ({"train": {"loss": ["ce", "gce"], "settings": {"q": 0.5}}}, "q is 0.5, but loss 'ce' has none"),
        ({"train": {"each": {"gce": {}}}}, "each has 'gce'"),
        ({"train": {"loss": ["ce", "gce"], "each": {"gce": {"steps": 3}}}}, "each.gce.steps is 3"),
        ({"draws": {"training": 3}}, "draws.training is 3, and training probe again changes nothing; leave it out"),
        ({"train": {"steps": 300}}, "train: steps is 300, but trainer probe is fitted to its optimum; leave it out"),
        ({"train": {"trainer": ["probe", "encoder"], "each": {"probe": {"steps": 3}}}}, "each.probe.steps is 3, but"),
        ({"train": {"loss": "gce", "check": {"trainer": "probe", "steps": 3}}}, "check.steps is 3, but trainer probe"),
        ({"train": {"sensitivity": ["equal-epochs"]}}, "sensitivity has equal-epochs, but trainer probe is fitted"),
        ({"train": {"trainer": "encoder", "sensitivity": ["penalty"]}}, "penalty, which trainer 'encoder' has none"),
        ({"train": {"source_weight": 0.5}}, "source_weight has no effect with loss ce"),
        ({"train": {"check": {"trainer": "probe"}}}, "check.trainer 'probe' with loss ce is in the grid already"),
        ({"train": {"sensitivity": ["equal-steps"]}}, "equal-epochs"),
        (
            {"train": {"trainer": "encoder", "sensitivity": ["equal-epochs"]}, "mix": REPLACE},
            "changes nothing with mix.regime replace",
        ),
    ],
)
def test_what_does_not_fit_is_refused(settings, change, why):
    made = {**settings, **change}
    if "split" in change:
        made["split"] = {**settings["split"], **change["split"]}
    with pytest.raises(ConfigError, match=why):
        plan_study(made)


@pytest.mark.slow
def test_a_study_over_rows_losses_and_epochs_says_how_its_advice_depends_on_them(ready, tmp_path):
    result = run_study(ready, out=tmp_path / "run")
    advice = result.advice
    assert {(s.cell.rows_per_label, s.cell.loss) for s in advice.cells if s.cell.trainer == "slow_trainer:plain"} == {
        (4, "ce"), (4, "gce"), (2, "ce"), (2, "gce"),
    }  # fmt: skip
    assert advice.best is not None and (advice.best.cell.rows_per_label, advice.best.cell.loss) == (4, "ce")
    assert [found.rows_per_label for found in advice.by_rows] == [4, 2]
    assert all(f.best is not None and f.best.cell.rows_per_label == f.rows_per_label for f in advice.by_rows)
    assert advice.sensitivity is not None
    names = [row.variant for row in advice.sensitivity.rows]
    check = "trainer slow_trainer:fail_on_level_d (check)"
    assert names == [
        "metric vendi_q0.5",
        "metric dcscore_tau0.1",
        "metric distinct_2",
        "loss gce",
        check,
        "equal epochs",
    ]
    with open_study(ready, out=tmp_path / "run") as flow:
        steps = {(o.cell.kind, o.cell.share): o.steps for o in flow.variants["equal epochs"] if isinstance(o, Trial)}
        assert steps["real-only", 0.0] == 20 and steps["blend", 0.5] == steps["real-duplicated", 0.5] == 40
        main = plan_grids(flow.study, flow.levels)[0]
        assert main.count_epochs()["blend", 0.25] == 15 / 12
        checked = {o.cell for o in flow.checks}
        kept = [c for c in checked if c.kind == "blend"]
        # the best of the cheap trainer, the two next, and the most diverse, which may be one of them
        assert len(kept) in (3, 4) and any(c.level == advice.best.cell.level for c in kept)
        assert (advice.best.cell.level, advice.best.cell.share) in {(c.level, c.share) for c in kept}
        assert {o.cell.rows_per_label for o in flow.checks} == {4}
        logged, checks = flow.study.folder.access_log(), flow.checks
    written = json.loads((tmp_path / "run" / "advice.json").read_text(encoding="utf-8"))
    assert written["sensitivity"]["robust"] in (True, False)
    assert [row["rows_per_label"] for row in written["by_rows"]] == [4, 2]
    page = result.report.read_text(encoding="utf-8")
    # the cells of the check that did not fail are ranked by both trainers
    by_check = {row.variant: row.ranks for row in advice.sensitivity.rows}
    assert {name for name, ranks in by_check.items() if ranks is not None} == {check}
    assert by_check[check].cells == len({o.cell for o in checks if isinstance(o, Trial)})
    assert str(by_check[check]) in page and "rank correlation" in str(by_check[check])
    assert "How many real rows" in page and "Would other choices say the same?" in page and "equal epochs" in page
    # another number of rows and no other loss: the same cell, confirmed already
    fewer = {**ready, "split": {**ready["split"], "rows_per_label": [1, 2, 4]}}
    fewer["train"] = {"trainer": "slow_trainer:plain", "steps": 20}
    with open_study(fewer, out=tmp_path / "run") as flow:
        assert flow.confirmation == advice.confirmation and flow.study.folder.access_log() == logged


@pytest.mark.slow
def test_each_number_of_rows_is_searched_for_itself(ready, tmp_path):
    train = {"sensitivity": []}
    config = {**ready, "train": train, "search": {"kind": "adaptive", "budget": 0.5}}
    config["mix"] = {"shares": [0.1, 0.25, 0.4, 0.5], "shape_share": 0.5}
    with open_study(config, out=tmp_path / "run") as flow:
        outcomes, advice = flow.grid, flow.advice
    blends = [o for o in outcomes if o.cell.kind == "blend"]
    assert {rows: sum(o.cell.rows_per_label == rows for o in blends) for rows in (2, 4)} == {2: 9, 4: 9}
    assert [found.rows_per_label for found in advice.by_rows] == [4, 2]


@pytest.mark.slow  # two runs of a study
def test_a_choice_that_hangs_on_the_penalty_is_flagged_unless_it_is_not_asked_for(ready, tmp_path):
    config = {**ready, "split": {**ready["split"], "rows_per_label": 4}, "train": {"settings": {"l2": 0.5}}}
    names = ["a tenth of the penalty", "10 times the penalty"]
    with open_study(config, out=tmp_path / "run") as flow:
        assert list(flow.variants) == names
        loss = {
            name: [o.scores.values["log_loss"].value for o in outcomes if isinstance(o, Trial)]
            for name, outcomes in [("own", flow.grid), *flow.variants.items()]
        }
        assert loss[names[0]] != loss[names[1]] and len(loss[names[0]]) == len(loss[names[1]]) < len(loss["own"])
        advice = flow.advice
        assert {"probe, ce, penalty 0.5"} == {recipe.name for recipe in grid_recipes(flow.study)}
    assert advice.sensitivity is not None and [row.variant for row in advice.sensitivity.rows][-2:] == names
    # the tenth of one penalty is another study's own
    with open_study({**config, "train": {"settings": {"l2": 0.05}, "sensitivity": []}}, out=tmp_path / "run") as flow:
        tenth = [o.scores.values["log_loss"].value for o in flow.grid if isinstance(o, Trial)]
        assert not flow.variants and set(loss[names[0]]) <= set(tenth)


def test_the_penalty_of_a_study_is_chosen_once_from_its_real_rows(ready, tmp_path):
    config = {**ready, "split": {**ready["split"], "rows_per_label": 4}, "train": {"sensitivity": []}}
    with open_study(config, out=tmp_path / "run") as flow:
        (recipe,) = grid_recipes(flow.study)
        train = flow.study.train
        chosen = choose_l2(flow.study.encoder.encode(train.texts), train.targets, train.groups)
        assert recipe.fit(flow.study).settings == {"l2": chosen}
