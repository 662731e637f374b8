"""A classifier that is trained on the labels that the last one gave to what an LLM wrote."""

import json
from collections import Counter

import numpy as np
import pytest

from command_line import call
from cuvee import run_collapse
from cuvee.collapse.classifier import ClassifierExperiment
from cuvee.collapse.experiment import Place
from cuvee.config.collapse import CollapseConfig, DecodingConfig
from cuvee.config.reading import make_config
from cuvee.corpus import Corpus
from cuvee.errors import ConfigError, InputError
from cuvee.execute import Silent
from cuvee.store import RunFolder
from cuvee.study.demo import read_headlines

LABELS = ("business", "politics", "sports")


class Heard(Silent):
    """Keeps what is told of the rows that the LLM writes."""

    def __init__(self):
        self.told = []

    def advanced(self, stage, done, total):
        if stage == "generate":
            self.told.append((done, total))

    def detailed(self, stage, detail):
        self.detail = {stage: detail}


@pytest.fixture
def config(tmp_path):
    """Real headlines: 30 to train on, 60 held out, and others as the file that an LLM wrote."""
    rows = [{"text": text, "label": label} for text, label in read_headlines() if label in LABELS]
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:390]]
    for name, part in (("real", rows[:120]), ("held", rows[120:210]), ("pool", rows[210:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    data = {"real": str(tmp_path / "real.jsonl"), "validation": str(tmp_path / "held.jsonl")}
    model = {"kind": "classifier", "data": data, "pool": str(tmp_path / "pool.jsonl"), "rows": 30, "held_out": 90}
    return {"model": {**model, "encoder": "hashing"}, "regimes": ["replace"], "generations": 4, "chains": 3}


@pytest.mark.slow
def test_labels_narrow_when_each_classifier_learns_from_the_last(config, tmp_path):
    config = {**config, "regimes": ["replace", "accumulate", "fresh", "curated"], "generations": 2}
    config["fresh"] = {"shares": [0.5]}
    config["curated"] = {"agreement": 0.7}
    config["model"] = {**config["model"], "rows": 30, "keep_models": "last"}
    result = run_collapse(config, out=tmp_path / "run")
    replace = result.courses[0]
    for course in result.courses:
        assert course.values["error"].shape == (3, 3) and (course.values["label_entropy"] <= np.log2(3) + 1e-9).all()
        assert (course.values["error"][0] == replace.values["error"][0]).all()  # generation 0 is the same
    kept = {course.regime: course.values["label_entropy"].mean() for course in result.courses}
    assert replace.values["label_entropy"][-1].mean() < replace.values["label_entropy"][0].mean() - 0.1
    assert kept["replace"] < min(kept["accumulate"], kept["fresh 50%"])
    assert 4 < len(list((tmp_path / "run/models").iterdir())) <= 4 * 3  # none where one label is left
    assert "Entropy of labels" in (tmp_path / "run/report.html").read_text()
    again = {file: file.stat().st_mtime_ns for file in tmp_path.glob("run/pools/*.parquet")}
    assert run_collapse(config, out=tmp_path / "run").courses[0].samples == replace.samples
    assert {file: file.stat().st_mtime_ns for file in again} == again  # nothing is done again


def test_the_plan_counts_trainings_and_bytes(config, tmp_path, capsys):
    config = {**config, "model": {**config["model"], "keep_models": "all"}, "regimes": ["replace", "accumulate"]}
    (tmp_path / "file.yaml").write_text(json.dumps(config))  # JSON is YAML
    code, out, _ = call(capsys, "collapse", tmp_path / "file.yaml", "--plan", "--json")
    found = json.loads(out)
    assert (code, found["trainings"]) == (0, 3 * (1 + 2 * 4)) and found["seconds"] > 0
    run_collapse({**config, "chains": 1, "generations": 1}, out=tmp_path / "run")
    size = sum(file.stat().st_size for file in tmp_path.glob("run/models/*/*"))
    assert found["model_bytes"] == pytest.approx(27 * size / 3, rel=0.15)  # later models know fewer labels
    assert not list(tmp_path.glob("runs/*"))


def test_a_round_labels_what_was_written_for_the_labels_given_before(config, tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        experiment = ClassifierExperiment(make_config({**config, "chains": 1}, CollapseConfig), folder)
        place = Place(chain=0, number=1, diet=experiment.diets[0], decoding=DecodingConfig())
        (start,) = experiment.list_tasks(0, {})
        first = experiment.prepare(start, {})
        assert Counter(first.prompts.targets) == Counter(start.real.targets)
        work = experiment.work()
        (made,) = work(first)
        (task,) = experiment.list_tasks(1, {place.at(0): made})
        assert task.rows.targets == made.written.targets != first.prompts.targets
        assert made.values["relabelled"] == np.mean(np.array(made.written.targets) != np.array(first.prompts.targets))
        asked = experiment.prepare(task, {place.at(0): made}).prompts
        assert Counter(asked.targets) == Counter(made.written.targets) and set(asked.texts) != set(task.rows.texts)
        one = task.rows.with_columns(target=["sports"] * len(task.rows))
        (last,) = work(type(task)(places=task.places, keys=task.keys, real=task.real, rows=one, prompts=asked))
        assert set(last.written.targets) == {"sports"} and last.values["label_entropy"] == 0


@pytest.mark.slow  # three chains
def test_the_llm_is_shown_what_was_labelled_and_asked_once(config, tmp_path, local):
    generator = {
        "kind": "endpoint", "base_url": f"http://127.0.0.1:{local.port}/v1", "model": "tiny", "api": "completions",
    }  # fmt: skip
    config = {**config, "generations": 1, "chains": 1}
    config["model"] = {
        **config["model"],
        "pool": None,
        "generator": generator,
        "describe": "news headlines",
        "rows": 12,
    }
    heard = Heard()
    result = run_collapse(config, out=tmp_path / "run", listener=heard)
    assert heard.told[0] == (0, 12) and heard.told[-1] == (24, 24) and "tokens" in heard.detail["generate"]()
    prompts = [body["prompt"] for body in local.bodies]
    assert len(prompts) >= 24 and all("news headlines" in prompt for prompt in prompts)
    (course,) = result.courses
    texts = [line.partition(": ")[2] for line in course.samples[0]]
    assert any(text in prompt for text in texts for prompt in prompts)  # of generation 0, shown in generation 1
    for file in tmp_path.glob("run/pools/*.parquet"):
        file.unlink()
    assert run_collapse(config, out=tmp_path / "run").courses[0].samples == course.samples
    assert len(local.bodies) == len(prompts)  # the ledger has every answer
    local.finish_reason = "length"
    config["model"]["generator"] = {**generator, "truncated": "keep", "temperature": 0.5}
    assert run_collapse(config, out=tmp_path / "cut").courses[0].values["error"].shape == (2, 1)


def test_agreement_keeps_the_rows_whose_label_real_rows_support(config, tmp_path):
    config = {**config, "regimes": ["curated"], "curated": {"agreement": 0.5, "select": "random"}}
    with RunFolder(tmp_path / "run") as folder:
        experiment = ClassifierExperiment(make_config(config, CollapseConfig), folder)
        place = Place(chain=0, number=1, diet=experiment.diets[0], decoding=DecodingConfig())
        (start, *_) = experiment.list_tasks(0, {})
        written = experiment.prepare(start, {}).prompts
        true, rng = dict(zip(written.ids, written.targets, strict=True)), np.random.default_rng(0)
        noisy = written.with_columns(
            target=[t if rng.random() < 0.6 else str(rng.choice(LABELS)) for t in written.targets]
        )
        chosen = experiment.compose(place, [noisy])

    def share(rows: Corpus) -> float:
        return float(np.mean([true[id_] == target for id_, target in zip(rows.ids, rows.targets, strict=True)]))

    assert len(chosen) == 30 and share(chosen) > share(noisy) + 0.05


@pytest.mark.parametrize(
    ("change", "told"),
    [({"pool": None}, "one of the two"), ({"generator": {"kind": "embedded"}}, "one of the two"),
     ({"steps": 5}, "steps is 5"),
     ({"data": {"real": "a", "validation": "b", "group": "c"}}, "data.group has no effect"),
     ({"decodings": [{}]}, "decodings")],
)  # fmt: skip
def test_wrong_config(config, tmp_path, change, told):
    with pytest.raises(ConfigError, match=told):
        run_collapse({**config, "model": {**config["model"], **change}}, out=tmp_path / "run")


def test_a_file_without_a_real_label_is_refused(config, tmp_path):
    rows = [row for row in (tmp_path / "pool.jsonl").read_text().splitlines() if "sports" not in row]
    (tmp_path / "pool.jsonl").write_text("\n".join(rows))
    with pytest.raises(InputError, match="no row of the label 'sports'"):
        run_collapse(config, out=tmp_path / "run")
