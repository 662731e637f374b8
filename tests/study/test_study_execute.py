"""Studies whose trials run elsewhere: the same bytes, whatever happens to the workers."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_study_kill import finished_trials
from test_study_run import counted, files, make_rows, write_pools

from cuvee.config.sections import ExecuteConfig
from cuvee.encoders import HashingEncoder, KnownVectors
from cuvee.errors import ConfigError, MissingDependency
from cuvee.execute import Silent, Terms
from cuvee.records import TrialFailure
from cuvee.study.opening import open_study, run_study
from cuvee.study.status import read_status

pytestmark = pytest.mark.trust("slow_trainer")


@pytest.fixture
def ready(settings, tmp_path):
    """A study on ready-made pools: no LLM, all its time is trials."""
    write_pools(tmp_path, {"low.jsonl": make_rows("low"), "high.jsonl": make_rows("high", groups=24, each=1)})
    return files(settings, low=tmp_path / "low.jsonl", high=tmp_path / "high.jsonl")


def elsewhere(config: dict, kind: str = "processes", trainer: str | None = None, **terms) -> dict:
    train = {**config["train"], "trainer": trainer} if trainer else config["train"]
    return {**config, "train": train, "execute": {"kind": kind, **terms}}


@pytest.mark.slow  # with the others of its kind
def test_processes_give_the_same_bytes_as_this_process(ready, tmp_path):
    run_study(ready, out=tmp_path / "here")
    run_study(elsewhere(ready, workers=2), out=tmp_path / "there")
    assert counted(tmp_path / "there") == counted(tmp_path / "here")
    assert finished_trials(tmp_path / "there").keys() == finished_trials(tmp_path / "here").keys()
    status = read_status(tmp_path / "there")
    assert (status.state, status.process) == ("finished", None)
    assert status.trials.done == len(finished_trials(tmp_path / "there")) and status.trials.failed == 0


@pytest.mark.slow  # with the others of its kind
@pytest.mark.parametrize(
    ("trainer", "terms", "why"),
    [
        ("die_on_synthetic", {"retries": 1}, "its worker died 2 times"),
        ("hang_on_synthetic", {"timeout_s": 2.0}, "execute.timeout_s (2 s)"),
    ],
)
def test_trials_that_die_or_hang_are_failures_and_the_study_goes_on(ready, tmp_path, trainer, terms, why):
    ready["draws"] = {**ready["draws"], "training": 1, "generation": 1, "confirm": 0}
    config = elsewhere(ready, trainer=f"slow_trainer:{trainer}", workers=2, **terms)
    with open_study(config, out=tmp_path / "run") as flow:
        outcomes = flow.grid
    failed = [o for o in outcomes if isinstance(o, TrialFailure)]
    assert {o.cell.kind for o in failed} == {"synthetic-only"} and len(failed) == 2
    assert all(o.stage == "train" and why in o.reason for o in failed)
    assert read_status(tmp_path / "run").trials.failed == 2
    # the failed ones are tried again, the others are not
    kept = finished_trials(tmp_path / "run")
    probes = elsewhere(ready, trainer=f"slow_trainer:{trainer}", workers=1, **{**terms, "retries": 0})
    with open_study(probes, out=tmp_path / "run") as flow:
        again = flow.grid
    assert [isinstance(o, TrialFailure) for o in again] == [isinstance(o, TrialFailure) for o in outcomes]
    now = finished_trials(tmp_path / "run")
    assert now.keys() == kept.keys() and sum(now[key] != kept[key] for key in now) == 2


def start(config: dict, folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    study = folder.with_suffix(".yaml")
    study.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "cuvee", "run", str(study), "--out", str(folder), "--trust", "slow_trainer"]
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=known)


def until(found, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def trained(log: Path) -> Counter[str]:
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return Counter(line.split(" ", 1)[1] for line in lines)


@pytest.mark.slow  # with the others of its kind
def test_a_killed_parent_loses_no_finished_trial_and_a_killed_worker_costs_one(ready, tmp_path, monkeypatch):
    log, folder = tmp_path / "log", tmp_path / "run"
    config = elsewhere(ready, trainer="slow_trainer:train", workers=2)
    environment = {"TRAINER_LOG": str(log), "TRAINER_SLEEP": "0.1"}
    run = start(config, folder, **environment)
    until(lambda: len(finished_trials(folder)) >= 6)
    status = read_status(folder)
    assert status.state == "running" and status.process == run.pid and status.stage == "train"
    os.kill(int(log.read_text(encoding="utf-8").splitlines()[-1].split()[0]), signal.SIGKILL)  # a worker
    until(lambda: len(finished_trials(folder)) >= 12)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=30)
    had = finished_trials(folder)
    assert read_status(folder).state == "stopped"
    again = start(config, folder, **environment)
    output = again.communicate(timeout=120)[0].decode()
    assert again.returncode == 0, output
    now = finished_trials(folder)
    assert {key: now[key] for key in had} == had
    # trained twice: what the killed worker and the killed parent had under way
    assert sum(count - 1 for count in trained(log).values()) <= 3
    monkeypatch.setenv("TRAINER_LOG", str(tmp_path / "other"))
    run_study({**config, "execute": {}}, out=tmp_path / "here")
    assert counted(folder) == counted(tmp_path / "here")


@pytest.mark.slow  # with the others of its kind
def test_ctrl_c_ends_workers_within_two_seconds(ready, tmp_path):
    log, folder = tmp_path / "log", tmp_path / "run"
    config = elsewhere(ready, trainer="slow_trainer:train", workers=2)
    run = start(config, folder, TRAINER_LOG=str(log), TRAINER_SLEEP="60")
    until(lambda: log.exists() and log.read_text(encoding="utf-8").count("\n") == 2)
    workers = [int(line.split()[0]) for line in log.read_text(encoding="utf-8").splitlines()]
    pressed = time.monotonic()
    run.send_signal(signal.SIGINT)
    output = run.communicate(timeout=20)[0].decode()
    assert time.monotonic() - pressed < 2
    assert run.returncode == 130 and "Traceback" not in output
    until(lambda: not any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers), 5)


@pytest.mark.slow
def test_a_ray_node_killed_in_mid_study_changes_nothing(ready, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    log = tmp_path / "log"
    monkeypatch.setenv("TRAINER_LOG", str(log))
    monkeypatch.setenv("TRAINER_SLEEP", "0.1")
    run_study(elsewhere(ready, kind="local", trainer="slow_trainer:train"), out=tmp_path / "here")
    log.unlink()
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)

        class Killer(Silent):
            nodes = 2

            def advanced(self, stage: str, done: int, total: int) -> None:
                if stage == "train" and done >= total // 3 and self.nodes == 2:
                    self.nodes = 1
                    assert len({line.split()[0] for line in log.read_text(encoding="utf-8").splitlines()}) == 2
                    cluster.remove_node(second, allow_graceful=False)

        killer = Killer()
        config = elsewhere(ready, kind="ray", trainer="slow_trainer:train", address=cluster.address)
        result = run_study(config, out=tmp_path / "there", listener=killer, trust=["ray"])
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert killer.nodes == 1 and result.advice.decision
    assert counted(tmp_path / "there") == counted(tmp_path / "here")
    assert finished_trials(tmp_path / "there").keys() == finished_trials(tmp_path / "here").keys()
    assert sum(count - 1 for count in trained(log).values()) <= 1  # what the node had under way


def test_ray_is_asked_for_by_name_where_it_is_missing(monkeypatch):
    from cuvee.execute import open_executor

    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "cuvee.execute.ray", raising=False)
    with pytest.raises(MissingDependency, match=r"pip install 'cuvee\[ray\]'"):
        open_executor("ray")


@pytest.mark.parametrize(
    ("execute", "why"),
    [
        ({"timeout_s": 5}, "timeout_s has no effect with kind local"),
        ({"workers": 2}, "workers has no effect with kind local"),
        ({"kind": "processes", "address": "auto"}, "address has no effect with kind processes"),
        ({"kind": "processes", "workers": 0}, r"execute\.workers"),
        ({"kind": "processes", "gpus": 0.5}, r"execute\.gpus"),
        ({"kind": "processes", "timeout_s": -1}, "execute.timeout_s"),
        ({"kind": "threads"}, "local"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings, tmp_path, execute, why):
    with pytest.raises(ConfigError, match=why), open_study({**settings, "execute": execute}, out=tmp_path / "run"):
        pass


def test_settings_reach_the_executor():
    given = {"workers": 3, "timeout_s": 5.0, "memory_gb": 1.5, "retries": 7, "cpus": 2, "gpus": 2}
    assert ExecuteConfig(kind="ray", **given).terms() == Terms(**given)
    assert ExecuteConfig(kind="processes").terms() == Terms() == ExecuteConfig().terms()
    assert ExecuteConfig(cpus=1).terms() == Terms(cpus=1)


def test_known_vectors_are_those_of_the_encoder_here_and_when_carried(tmp_path):
    from cuvee.execute.workers import pack, unpack

    class Counting(HashingEncoder):
        asked = 0

        def encode(self, texts):
            Counting.asked += len(texts)
            return super().encode(texts)

    texts = ["one text", "another", "one text", "a third \ud800 one"]
    known = KnownVectors(Counting(), texts, source="hashing")
    assert Counting.asked == 3
    pack(known, tmp_path / "known")
    for encoder in (known, unpack(tmp_path / "known")):
        asked = [texts[2], "never seen", texts[3], texts[1]]
        assert np.array_equal(encoder.encode(asked), HashingEncoder().encode(asked))
        assert encoder.encode([]).shape == (0, 512)
        assert (encoder.name, encoder.hash, encoder.dim) == ("hashing", HashingEncoder.hash, 512)
    assert Counting.asked == 4  # the carried one made what it did not know itself
    nothing = KnownVectors(HashingEncoder(), [], source="hashing")
    assert np.array_equal(nothing.encode(["x"]), HashingEncoder().encode(["x"]))


@pytest.mark.slow  # with the others of its kind
@pytest.mark.parametrize(("trainer", "trainings"), [("plain", 1), ("lucky", 3)])
def test_one_training_a_draw_confirms_where_trainings_hardly_differ(ready, tmp_path, trainer, trainings):
    told, listener = [], Silent()
    listener.noted = told.append
    some = {**ready, "mix": {"amounts": ["1x"]}, "draws": {"sampling": 3, "confirm": 2}}
    config = elsewhere(some, kind="local", trainer=f"slow_trainer:{trainer}")
    with open_study(config, out=tmp_path / "run", listener=listener) as flow:
        assert flow.confirmation is not None and len({o.draw.training for o in flow.grid}) == 3
        assert len({o.draw.training for o in flow.confirmation_trials.outcomes}) == trainings
    assert any(note.startswith("one training a draw confirms: 3 would") for note in told) == (trainings == 1)
