"""MLflow tracking: off by default, in a folder without any network, each study once."""

import socket
import sys
import traceback
from base64 import b64encode

import pytest
import yaml
from test_study_run import counted, files, make_rows, write_pools

from command_line import call, refused
from cuvee.config.reading import make_config, read_config
from cuvee.errors import ConfigError, MissingDependency
from cuvee.execute import Silent
from cuvee.study.opening import open_study, run_study
from cuvee.study.outputs import tracking_uri


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def noted(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture
def tracked(settings, tmp_path):
    write_pools(tmp_path, {"low.jsonl": make_rows("low"), "high.jsonl": make_rows("high", groups=24, each=1)})
    config = files(settings, low=tmp_path / "low.jsonl", high=tmp_path / "high.jsonl")
    draws = {"generation": 2, "sampling": 1, "training": 1, "confirm": 0}
    return {**config, "draws": draws, "track": {"mlflow": str(tmp_path / "mlruns")}}


@pytest.mark.slow  # with the others of its kind
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside mlflow
def test_a_study_is_one_run_with_parameters_metrics_and_artefacts(tracked, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    connected = []
    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda self, to: connected.append(to) or connect(self, to))
    run_study(tracked, out=tmp_path / "run")
    run_study(tracked, out=tmp_path / "run")  # nothing is tracked twice
    assert not [to for to in connected if isinstance(to, tuple)]
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri(tracked["track"]["mlflow"]))
    experiment = client.get_experiment_by_name("tiny")
    (run,) = client.search_runs([experiment.experiment_id])
    with open_study({k: v for k, v in tracked.items() if k != "track"}, out=tmp_path / "run") as flow:
        grid, advice = flow.grid, flow.advice
    assert run.data.metrics["trials"] == len(grid) and run.data.metrics["failed_trials"] == 0
    assert run.data.metrics["best.accuracy"] == advice.best.accuracy
    assert run.data.params["mix.shape_share"] == "0.5" and run.data.params["name"] == "tiny"
    kept = {artefact.path for artefact in client.list_artifacts(run.info.run_id)}
    assert kept == {"report.html", "advice.json", "study.yaml", "blend"}
    # tracking changes nothing else
    run_study({k: v for k, v in tracked.items() if k != "track"}, out=tmp_path / "plain")
    assert counted(tmp_path / "plain") == counted(tmp_path / "run")


@pytest.mark.slow  # with the others of its kind
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside mlflow
def test_a_password_of_the_tracking_server_is_sent_and_neither_written_nor_shown(
    tracked, tmp_path, monkeypatch, capsys, local
):
    pytest.importorskip("mlflow")
    host, secret = f"127.0.0.1:{local.port}", "pw-canary-55d2"
    with pytest.raises(ConfigError, match=r"'http://\$\{LLM_USER\}:\$\{LLM_PASSWORD\}@") as caught:
        make_config({**tracked, "track": {"mlflow": f"http://alice:{secret}@{host}"}})
    assert secret not in "".join(traceback.format_exception(caught.value))
    tracked["track"] = {"mlflow": f"http://${{A_USER}}:${{A_PASSWORD}}@{host}"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tracked), encoding="utf-8")
    monkeypatch.setenv("A_USER", "alice")
    assert "A_PASSWORD is not set" in refused(capsys, "run", tmp_path / "study.yaml", "--out", tmp_path / "run")
    monkeypatch.setenv("A_PASSWORD", secret)
    sent = b64encode(f"alice:{secret}".encode()).decode()
    seen = []

    def guard(request):
        seen.extend([request.headers.get("Authorization")] * ("mlflow" in request.path))
        return "mlflow" not in request.path

    local.guard = guard
    code, out, err = call(capsys, "run", tmp_path / "study.yaml", "--out", tmp_path / "run")
    assert code == 0 and "track.mlflow" in err and set(seen) == {f"Basic {sent}"}
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert not [each for each in (secret, sent) if each in out + err or each.encode() in written]


@pytest.mark.slow  # with the others of its kind
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside mlflow
def test_a_store_that_refuses_costs_a_note_and_no_result(tracked, tmp_path):
    pytest.importorskip("mlflow")
    (tmp_path / "mlruns").write_text("a file, no folder", encoding="utf-8")
    heard = Notes()
    result = run_study(tracked, out=tmp_path / "run", listener=heard)
    assert result.report.is_file()
    assert any("track.mlflow" in note and "tracks it again" in note for note in heard.notes)


def test_without_mlflow_nothing_is_spent(tracked, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with (
        pytest.raises(MissingDependency, match=r"pip install 'cuvee\[mlflow\]'"),
        open_study(tracked, out=tmp_path / "run"),
    ):
        pass
    assert make_config({k: v for k, v in tracked.items() if k != "track"}).track is None


@pytest.mark.parametrize("uri", ["http://host:5000", "sqlite:///a.db", "databricks", "file:///tmp/x"])
def test_uris_stay_and_folders_are_those_beside_the_study(uri, settings, tmp_path):
    path = tmp_path / "study.yaml"
    for given, wanted in ((uri, uri), ("some/folder", (tmp_path / "some" / "folder").as_uri())):
        path.write_text(yaml.safe_dump({**settings, "track": {"mlflow": given}}), encoding="utf-8")
        track = read_config(path).track
        assert track is not None and tracking_uri(track.mlflow) == wanted
