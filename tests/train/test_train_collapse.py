"""A language model that is trained on what it wrote: decodings, regimes, both checkpoints, going on after a kill."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_train_causal import save_tiny

from cuvee import run_collapse
from cuvee.collapse import plan_collapse
from cuvee.collapse.causal import CausalExperiment
from cuvee.collapse.experiment import Place
from cuvee.config.collapse import CollapseConfig, DecodingConfig
from cuvee.config.reading import make_config
from cuvee.errors import ConfigError
from cuvee.store import RunFolder


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collapse")
    rows = [{"prompt": f"one two {n}", "completion": f"three {n % 7} four five {n % 5}"} for n in range(40)]
    for name, part in (("real", rows[:28]), ("held", rows[28:])):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    data = {"real": str(folder / "real.jsonl"), "validation": str(folder / "held.jsonl")}
    return {
        "model": {
            "kind": "causal", "data": {**data, "text": "prompt", "label": "completion"}, "rows": 8, "held_out": 10,
            "steps": 4, "evaluations": 2, "max_tokens": 6, "encoder": "hashing",
            "settings": {"model": str(save_tiny(folder / "model")), "batch_size": 4, "max_length": 64},
            "decodings": [{}, {"temperature": 0}, {"temperature": 0, "beams": 2}],
        },
        "regimes": ["replace", "accumulate", "accumulate_subsample", "fresh", "curated"], "generations": 1,
    }  # fmt: skip


def test_the_plan_counts_trainings_and_the_models_that_are_kept(config):
    planned = {}
    for kept in ("none", "last", "all"):
        model = {**config["model"], "keep_models": kept}
        planned[kept] = plan_collapse(
            make_config({**config, "model": model, "generations": 3, "chains": 2}, CollapseConfig)
        )
    courses = 5 * 3
    assert planned["none"].trainings == 2 * (1 + 3 * courses) and planned["none"].seconds > 0
    one = sum(
        file.stat().st_size for file in Path(config["model"]["settings"]["model"]).glob("*.safetensors")
    )  # beside it lies a tokenizer
    models = {kept: plan.model_bytes / one for kept, plan in planned.items()}
    assert models == pytest.approx({"none": 0, "last": 2 * courses, "all": 2 * 3 * (1 + courses)}, rel=0.1)


def test_curated_rows_are_chosen_from_the_usable_ones(config, tmp_path):
    chosen = {}
    words = ["a cat sat here", "a dog ran away", "she sings at night", "rain falls on stone"]
    texts = [*(f"{words[n % 4]} {n}" for n in range(10)), *["the very same words"] * 4, "", "  "]
    for select in ("vendi", "lowest_shift"):
        own = {**config, "regimes": ["curated"], "curated": {"select": select}}
        with RunFolder(tmp_path / select) as folder:
            experiment = CausalExperiment(make_config(own, CollapseConfig), folder)
            (start,) = experiment.list_tasks(0, {})
            assert len(start.prompts) == 2 * len(start.rows) == len(set(start.prompts.ids)) == 16
            place = Place(chain=0, number=1, diet=experiment.diets[0], decoding=DecodingConfig())
            chosen[select] = experiment.compose(place, [start.prompts.with_columns(target=texts)]).targets
    for found in chosen.values():
        assert len(found) == len(set(found)) == 8 and set(found) <= set(texts) - {"", "  "}
    assert chosen["vendi"] != chosen["lowest_shift"]


def test_completions_that_a_checker_of_real_rows_finds_improbable_are_left_out(config, tmp_path):
    own = {**config, "regimes": ["curated"], "curated": {"agreement": 0.6, "select": "random"}}
    own["model"] = {**config["model"], "decodings": [{}]}
    with RunFolder(tmp_path / "run") as folder:
        experiment = CausalExperiment(make_config(own, CollapseConfig), folder)
        (start,) = experiment.list_tasks(0, {})
        (made,) = experiment.work()(start)
        place = Place(chain=0, number=1, diet=experiment.diets[0], decoding=DecodingConfig())
        likely = dict(zip(made.written.ids, made.written.weights, strict=True))
        assert len(set(likely.values())) > 8 and all(0 < value < 1 for value in likely.values())
        usable = made.written.with_columns(target=[f"she sings at {n} in the night" for n in range(16)])
        chosen = experiment.compose(place, [usable])
    assert set(chosen.ids) <= set(sorted(likely, key=likely.get)[-10:]) and len(chosen) == 8
    assert (chosen.weights == 1).all()


@pytest.mark.slow
def test_a_loss_decides_what_a_generation_learns(config, tmp_path):
    found = {}
    for loss, gamma in (("ce", None), ("tce", 1), ("tce", 1e-9)):
        model = {**config["model"], "loss": loss, "decodings": [{}]}
        model["settings"] = {**model["settings"], **({} if gamma is None else {"gamma": gamma})}
        made = run_collapse({**config, "model": model, "regimes": ["replace"]}, out=tmp_path / f"{loss}{gamma}")
        found[gamma] = made.courses[0].values["loss"].ravel().tolist()
    assert found[1] == found[None]
    # all rows are more probable than that: nothing moves the weights but their decay
    assert found[1e-9] == pytest.approx([made.untuned["loss"]] * 2, rel=1e-4) != found[1]
    with pytest.raises(ConfigError, match="gamma is 2, but loss 'ce' has none"):
        model["settings"] = {**config["model"]["settings"], "gamma": 2}
        run_collapse({**config, "model": {**model, "loss": "ce"}}, out=tmp_path / "refused")


@pytest.mark.slow
def test_a_parallel_run_that_is_killed_ends_with_the_bytes_of_one_that_is_neither(config, tmp_path):
    config = {**config, "model": {**config["model"], "keep_models": "last"}, "execute": {"cpus": 1}}
    whole = run_collapse(config, out=tmp_path / "whole")
    assert len(whole.courses) == 15 and len(list((tmp_path / "whole/models").iterdir())) == 15
    course = whole.courses[0]
    assert (course.values["best_loss"] <= course.values["last_loss"]).all()
    greedy, beams = (next(c for c in whole.courses if c.decoding == name) for name in ("greedy", "2 beams"))
    assert greedy.samples != course.samples and len(beams.samples) == 2

    config["execute"] = {"kind": "processes", "workers": 2}  # of one core each
    (tmp_path / "study.yaml").write_text(json.dumps(config))  # JSON is YAML
    command = [sys.executable, "-m", "cuvee", "collapse", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as killed:
        wait_until(lambda: len(list(tmp_path.glob("run/pools/*.parquet"))) > 6)
        killed.kill()
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "run/collapse.json").exists()
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("run/pools/*.parquet")}
    run_collapse(config, out=tmp_path / "run")
    assert all(file.stat().st_mtime_ns == at for file, at in written.items())
    files = [file.relative_to(tmp_path / "whole") for file in (tmp_path / "whole").rglob("*") if file.is_file()]
    assert len(files) > len(written)
    for file in files:
        if file.suffix in (".parquet", ".json", ".safetensors"):
            assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def wait_until(ready, seconds=300):
    """Until ``ready`` holds."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"not ready within {seconds} s"
        time.sleep(0.05)
