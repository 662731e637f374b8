"""Studies whose trials are run by a program of the user's own: here, on workers, and elsewhere."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from test_study_execute import until
from test_study_kill import finished_trials
from test_study_run import counted, files, make_rows, write_pools

from command_line import call, refused
from cuvee.errors import ConfigError, CuveeError, TrialsAwaited
from cuvee.records import Trial, TrialFailure
from cuvee.study.opening import open_study, run_study
from cuvee.study.planning import plan_study

pytestmark = [pytest.mark.slow, pytest.mark.trust("command")]  # each is quick, together they are not

PROGRAM = Path(__file__).parents[1] / "train" / "own_program.py"
LINE = f"{sys.executable} -S '{PROGRAM}' {{folder}}"


@pytest.fixture
def make(settings, tmp_path):
    """A small study of a program, with what is said of it."""
    write_pools(tmp_path, {"low.jsonl": make_rows("low"), "high.jsonl": make_rows("high", groups=24, each=1)})

    def made(**said: object) -> dict:
        small = {
            "mix": {"shares": [0.5], "shape_share": 0.5},
            "draws": {"generation": 1, "sampling": 2, "training": 1, "confirm": 2},
            "train": {"trainer": "command", "steps": 5, "command": {"run": LINE, **said}},
        }
        return files(settings, low=tmp_path / "low.jsonl", high=tmp_path / "high.jsonl") | small

    return made


def read_log(path: Path) -> Counter[str]:
    return Counter(path.read_text(encoding="utf-8").splitlines()) if path.exists() else Counter()


def run_awaited(folder: Path) -> int:
    """What a cluster does: the program, in every folder of the list."""
    listed = (folder / "awaited.txt").read_text(encoding="utf-8").splitlines()
    for each in listed:
        subprocess.run([sys.executable, "-S", str(PROGRAM), each], check=True, stdout=subprocess.DEVNULL)
    return len(listed)


def test_a_study_of_a_program_ends_as_others_do_wherever_its_trials_run(make, tmp_path, monkeypatch, capsys):
    own = {"log": str(tmp_path / "log")}
    result = run_study(make(settings=own), out=tmp_path / "here")
    assert result.advice.confirmation is not None and result.failed is None
    assert not list((tmp_path / "here" / "trials").iterdir())  # what is kept stands in trials.sqlite
    begun = read_log(tmp_path / "log")
    assert len(begun) == len(finished_trials(tmp_path / "here")) and set(begun.values()) == {1}
    run_study(make(settings=own), out=tmp_path / "here")
    assert read_log(tmp_path / "log") == begun
    # on workers, each with its own GPU
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    there = make(settings={"log": str(tmp_path / "there.log")})
    run_study(there | {"execute": {"kind": "processes", "workers": 2, "gpus": 1}}, out=tmp_path / "there")
    assert {line.split()[1] for line in read_log(tmp_path / "there.log")} == {"4", "7"}
    assert counted(tmp_path / "there") == counted(tmp_path / "here")
    # other settings are other trials, and so is another program; the locked test then has one more look
    run_study(make(settings={**own, "lr": 2}), out=tmp_path / "here")
    assert len(finished_trials(tmp_path / "here")) == 2 * len(begun)
    # elsewhere: grid and confirmation are written, a round at a time, and read
    jobs = tmp_path / "jobs"
    offline = make(settings=own) | {"train": {"trainer": "command", "steps": 5, "command": {"folder": str(jobs)}}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(offline), encoding="utf-8")
    ran = []
    while len(ran) < 5:
        code, _, err = call(capsys, "run", tmp_path / "study.yaml", "--out", tmp_path / "elsewhere")
        if code == 0:
            break
        assert code == 1 and "run elsewhere and have no predictions yet" in err
        ran.append(run_awaited(jobs))
        if len(ran) == 1:  # the locked test is written for its confirmation alone
            written = "".join(path.read_text(encoding="utf-8") for path in jobs.glob("*/eval.jsonl"))
            texts = {json.loads(line)["text"] for line in written.splitlines()}
            with open_study(offline, out=tmp_path / "elsewhere") as flow:
                assert texts == set(flow.study.split.validation.texts)
                assert all(reason != "confirmation" for reason, _ in flow.study.folder.access_log())
    assert sum(ran) == len(begun) and not list(jobs.glob("*/"))
    assert counted(tmp_path / "elsewhere") == counted(tmp_path / "there")


def test_a_killed_study_runs_no_finished_trial_again_and_ends_its_program(make, tmp_path):
    log, folder = tmp_path / "log", tmp_path / "run"
    slow = f"sh -c 'sleep 0.1; exec {sys.executable} -S {PROGRAM} \"$0\"' {{folder}}"
    config = make(run=slow, settings={"log": str(log)})
    for trials in (3, 6):
        run = start(config, folder)
        until(lambda most=trials: len(finished_trials(folder)) >= most)
        run.send_signal(signal.SIGKILL)
        run.communicate(timeout=30)
        time.sleep(0.3)  # a program that outlived it would have begun by now
        assert sum(read_log(log).values()) <= len(finished_trials(folder)) + 2
    again = start(config, folder)
    assert again.wait(timeout=120) == 0, again.communicate()
    assert sum(count - 1 for count in read_log(log).values()) <= 2  # what was under way


def start(config: dict, folder: Path) -> subprocess.Popen[bytes]:
    study = folder.with_suffix(".yaml")
    study.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "cuvee", "run", str(study), "--out", str(folder), "--trust", "command"]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def test_trials_of_a_program_run_on_ray(make, tmp_path):
    pytest.importorskip("ray")
    made = make(settings={"log": str(tmp_path / "log")})
    made["draws"] = {"generation": 1, "sampling": 1, "training": 1, "confirm": 0}
    with open_study(made | {"execute": {"kind": "ray", "workers": 2}}, out=tmp_path / "run") as flow:
        assert all(isinstance(outcome, Trial) for outcome in flow.grid)
    assert len(read_log(tmp_path / "log")) == len(finished_trials(tmp_path / "run"))
    assert not list((tmp_path / "run" / "trials").iterdir())


def test_trials_that_fail_are_recorded_with_the_end_of_the_log_and_run_again(make, tmp_path):
    with open_study(make(settings={"do": "fail"}), out=tmp_path / "run") as flow:
        failed = [outcome for outcome in flow.grid if isinstance(outcome, TrialFailure)]
        assert len(failed) < len(flow.grid) and {each.stage for each in failed} == {"train"}
        assert all("exit code 1; the end of its log: reading rows | ValueError" in each.reason for each in failed)
        kept = sorted((tmp_path / "run" / "trials").iterdir())
        assert len(kept) == len(failed) and all((each / "log.txt").is_file() for each in kept)


def test_a_program_that_fails_in_every_trial_ends_the_study_early(make, tmp_path, capsys):
    config = make(run="sh -c 'echo no module torch; exit 3' {folder}")
    config["draws"]["sampling"] = 4
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    told = refused(capsys, "run", tmp_path / "study.yaml", "--out", tmp_path / "run")
    assert "the first 5 trials all failed in the same way: the program ended with exit code 3" in told
    assert "no module torch" in told and len(list((tmp_path / "run" / "trials").iterdir())) == 5
    assert "5 of 5 trials failed" in call(capsys, "status", tmp_path / "run")[1]
    # mended, the same command goes on
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config | {"train": make()["train"]}), encoding="utf-8")
    assert call(capsys, "run", tmp_path / "study.yaml", "--out", tmp_path / "run")[0] == 0


def test_a_program_trains_for_generation_and_its_own_scores_decide(settings, tmp_path):
    rows = [{"prompt": f"what is {a} of {b}", "completion": f"{a} {b}"} for a in range(12) for b in range(8)]
    write_pools(tmp_path, {"real.jsonl": rows[:72], "made.jsonl": rows[72:]})
    config = files(settings, made=tmp_path / "made.jsonl") | {
        "task": "generation",
        "data": {"real": str(tmp_path / "real.jsonl"), "text": "prompt", "label": "completion"},
        "split": {"test": 20, "validation": 20, "rows_per_label": 20},
        "pools": [
            {
                "dial": "source",
                "level": "a",
                "path": str(tmp_path / "made.jsonl"),
                "text": "prompt",
                "label": "completion",
            }
        ],
        "mix": {"amounts": ["0.5x"], "shape_share": 0.25},
        "draws": {"generation": 1, "sampling": 2, "training": 1, "confirm": 0},
        "train": {"trainer": "command", "command": {"run": LINE, "settings": {}}},
    }
    with open_study(config, out=tmp_path / "run") as flow:
        trials = [outcome for outcome in flow.grid if isinstance(outcome, Trial)]
        assert len(trials) == len(flow.grid) and {each.scores.score for each in trials} == {"token_f1"}
        assert "untuned" not in {each.cell.kind for each in trials}
    config["train"]["command"]["settings"] = {"scores": 0.5}
    with open_study(config, out=tmp_path / "run") as flow:
        assert flow.advice.score == "score" and {s.accuracy for s in flow.advice.cells} == {0.5}
    config["train"]["command"] = {"folder": str(tmp_path / "jobs")}
    with (
        pytest.raises(TrialsAwaited, match=r"awaited\.txt lists their folders"),
        open_study(config, out=tmp_path / "o") as flow,
    ):
        _ = flow.grid


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"trainer": "command"}, "trainer command needs the line of its program"),
        ({"command": LINE}, "command is for trainer command"),
        ({"trainer": "command", "command": "train.py"}, "does not say where the trial's folder goes; add {folder}"),
        ({"trainer": "command", "command": "'train.py {folder}"}, "no closing quotation"),
        ({"trainer": "command", "command": {"timeout_s": 3}}, "timeout_s is for a program that is run here"),
        ({"trainer": "command", "command": LINE, "settings": {"batch_size": 3}}, "train.command.settings"),
        ({"trainer": "command", "command": LINE, "loss": "gce"}, "loss 'gce' looks at the model as it trains"),
    ],
)
def test_what_does_not_go_together_is_refused(make, tmp_path, capsys, train, said):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(make() | {"train": train}), encoding="utf-8")
    assert said in refused(capsys, "run", tmp_path / "study.yaml", "--out", tmp_path / "run")


def test_a_plan_times_a_program_that_runs_here_and_writes_no_folder_of_one_that_does_not(make, tmp_path):
    found = plan_study(make())
    assert found.time.each and not any("not known" in note for note in found.notes)
    found = plan_study(make() | {"train": {"trainer": "command", "command": {"folder": str(tmp_path / "jobs")}}})
    assert not found.time.each and any("they run elsewhere" in note for note in found.notes)
    assert not (tmp_path / "jobs").exists()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"cwd": "nowhere"}, "train.command.cwd is .*nowhere, and there is no such folder"),
        ({"run": None, "folder": str(PROGRAM)}, "train.command.folder is .*own_program.py, which is a file"),
        ({"run": "python3 nothere.py {folder}"}, "train.command: there is no file .*nothere.py; name the script"),
        ({"run": "no-such-program {folder}"}, "train.command: there is no program 'no-such-program'"),
    ],
)
def test_folders_of_a_program_that_cannot_be_are_refused_before_anything_runs(make, tmp_path, said, told):
    with pytest.raises(CuveeError, match=told):
        run_study(make(**said), out=tmp_path / "run")
    assert not (tmp_path / "run" / "pools").exists()


def test_a_program_given_as_a_list_of_words_is_told_the_form(make, tmp_path):
    config = make()
    config["train"]["command"] = ["python3", "train.py", "{folder}"]
    with pytest.raises(ConfigError, match="give the program's line, or run, folder, timeout_s"):
        run_study(config, out=tmp_path / "run")
