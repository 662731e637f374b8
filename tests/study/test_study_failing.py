"""Studies whose trials fail say so, and one without any blend is no success."""

import json
import re
import sqlite3
from contextlib import closing
from html import unescape

import pytest
import yaml
from test_study_run import files, make_rows, write_pools

from command_line import call
from cuvee.errors import InputError, TrialsFailed
from cuvee.study.opening import open_study, run_study
from cuvee.study.planning import plan_study
from cuvee.study.status import read_status

pytestmark = pytest.mark.trust("failing_trainer")


@pytest.fixture
def ready(settings, tmp_path):
    """A study on ready-made pools of few trials."""
    write_pools(tmp_path, {"low.jsonl": make_rows("low"), "high.jsonl": make_rows("high", groups=24, each=1)})
    config = files(settings, low=tmp_path / "low.jsonl", high=tmp_path / "high.jsonl")
    return {
        **config,
        "mix": {"shares": [0.5], "shape_share": 0.5},
        "draws": {"generation": 2, "sampling": 2, "training": 1, "confirm": 1},
        "train": {"sensitivity": []},
    }


def trained_by(config: dict, trainer: str, **more) -> dict:
    return {**config, "train": {**config["train"], "trainer": trainer, **more}}


def run(capsys, config, folder, *options) -> tuple[int, str, str]:
    study = folder.with_suffix(".yaml")
    study.write_text(yaml.safe_dump(config), encoding="utf-8")
    code, out, err = call(capsys, "run", study, "--out", folder, *options)
    return code, " ".join(out.split()), err


def read(page) -> str:
    """The words of a page."""
    return " ".join(unescape(re.sub(r"<style.*?</style>|<[^>]+>", " ", page.read_text("utf-8"), flags=re.S)).split())


@pytest.mark.slow  # with the others of its kind
def test_a_study_without_a_trained_blend_is_one_error_line_and_writes_no_blend(ready, tmp_path, capsys):
    folder, config = tmp_path / "run", trained_by(ready, "failing_trainer:on_blends")
    code, out, err = run(capsys, config, folder)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, out, len(lines)) == (1, "", 1) and "Traceback" not in err
    # of 2 pools each 2 subsamples of blends and of synthetic rows alone, and 2 blocks; those of real rows go well
    assert "no blend could be trained" in lines[0] and "12 of 16 trials failed; most often: " in lines[0]
    assert "KeyError: 'boom'" in lines[0] and "(train, 12 times)" in lines[0] and "Failed trials" in lines[0]
    assert not (folder / "blend").exists()
    advice = json.loads((folder / "advice.json").read_text(encoding="utf-8"))
    assert (advice["failures"], advice["best"], advice["sensitivity"]) == (12, None, None)
    words = read(folder / "report.html")
    assert "12 of 16 trials failed" in words and "12 failed trials" in words and "flips" not in words
    code, out, _ = call(capsys, "status", folder)
    shown = " ".join(out.split())
    assert code == 0 and "12 of 16 trials failed; most often: trainer 'failing_trainer:on_blends'" in shown
    assert "report.html, Failed trials" in shown
    code, out, _ = run(capsys, config, folder, "--json")
    found = json.loads(out)
    assert (code, found["failures"], "blend" in found) == (1, 12, False) and found["report"].endswith("report.html")
    code, out, _ = call(capsys, "recommend", folder)
    assert code == 1 and "flips" not in out and "12 of 16 trials failed" in " ".join(out.split())


@pytest.mark.slow  # with the others of its kind
def test_lost_trials_stand_beside_the_verdict_and_a_lost_check_in_the_table(ready, tmp_path, capsys):
    check = {"trainer": "failing_trainer:on_blends", "steps": 20, "draws": 2}
    config = trained_by(ready, "failing_trainer:on_some", check=check)
    code, out, _ = run(capsys, config, tmp_path / "run")
    # grid: what has rows of one of two pools; check: the best cell and the most diverse one, 2 draws
    verdict, after = out.split("Verdict: ")
    assert code == 0 and "Failed trials" in after and " trials failed; most often: trainer 'failing_trainer:" in after
    lost = "trainer failing_trainer:on_blends (check): could not be run: "
    assert lost in verdict and "tried: metric vendi_q0.5, metric dcscore_tau0.1, metric distinct_2" in verdict
    folder = tmp_path / "run"
    counted = read_status(folder).failed
    assert counted is not None and f"{counted.failed} of {counted.trials} trials failed" in after
    advice = json.loads((folder / "advice.json").read_text(encoding="utf-8"))
    assert advice["failures"] == counted.failed > 4
    [found] = advice["sensitivity"]["lost"]
    assert found["variant"] in lost and found["failed"]["failed"] == counted.failed - 6
    words = read(folder / "report.html")
    assert f"could not be run: {found['variant']}." in words
    assert f"{counted.failed} of {counted.trials} trials failed" in words


@pytest.mark.slow  # with the others of its kind
def test_the_api_raises_too_and_says_that_an_earlier_blend_stays(ready, tmp_path):
    done = run_study(ready, out=tmp_path / "run")
    assert done.failed is None and "failed" not in str(done)
    with pytest.raises(TrialsFailed, match=r"12 of 16 trials failed.*blend/ is of an earlier run"):
        run_study(trained_by(ready, "failing_trainer:on_blends"), out=tmp_path / "run")
    assert (tmp_path / "run" / "blend" / "train.parquet").is_file()


OWN = """import numpy as np

from cuvee.train.losses import WeightedRows
from cuvee.train.probe import train_probe


def train(training):
    return train_probe(training)


class Loss:
    def __init__(self, settings):
        self.settings = settings

    def prepare(self, rows):
        return WeightedRows(np.where(rows.synthetic, 0.5, 1.0))
"""


@pytest.mark.slow  # five runs of a study
@pytest.mark.parametrize("own", [{"trainer": "own_trained_a:train"}, {"loss": "own_trained_b:Loss"}])
@pytest.mark.trust("own_trained_a", "own_trained_b")
def test_changed_code_of_a_trainer_or_a_loss_is_trained_again_and_only_that(ready, tmp_path, monkeypatch, own):
    file = tmp_path / f"{next(iter(own.values())).partition(':')[0]}.py"
    file.write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    config = {**ready, "train": {**ready["train"], **own}}

    def train() -> int:
        with open_study(config, out=tmp_path / "run") as flow:
            assert len(flow.grid) == 16
        with closing(sqlite3.connect(tmp_path / "run" / "trials.sqlite")) as database:
            return int(database.execute("SELECT count(*) FROM trials WHERE NOT failed").fetchone()[0])

    assert (train(), train()) == (16, 16)
    file.write_text(OWN + "\n\n# a remark\n", encoding="utf-8")
    assert train() == 16
    file.write_text(OWN + "\n\nSTEPS = 2\n", encoding="utf-8")
    assert (train(), train()) == (32, 32)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"pools\.1: .*high.jsonl: no such file"),
        ("{'text': broken\n", r"pools\.1: .*high.jsonl, line 1"),
        ('{"text": "a", "label": "sports"}\n', r"pools\.1: .*column.*group"),
        (
            json.dumps({"text": "a", "label": "Sport", "group": "g"}) + "\n",
            r"pools\.1: .*'Sport', .*'business'",
        ),
    ],
)
def test_a_plan_refuses_the_pools_that_a_run_refuses(ready, tmp_path, content, message):
    path = tmp_path / "high.jsonl"
    path.unlink()
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        plan_study(ready)
    with pytest.raises(InputError, match=message), open_study(ready, out=tmp_path / "run"):
        pass
