"""MLflow: a finished study as a run, its trials as nested runs. Nothing leaves this machine unless the URI says so."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import TypeAdapter

from cuvee._version import __version__
from cuvee.config import EndpointGenerator, StudyConfig
from cuvee.errors import ConfigError, MissingDependency
from cuvee.fingerprint import hash_value
from cuvee.generate.masking import fill_variables, find_secrets, mask_secrets, redact_url, unset_variables
from cuvee.records import Advice, Trial, TrialFailure
from cuvee.study.running import Outcome
from cuvee.study.setup import Study

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

FILE = "tracking.json"
"""Of the run folder: where the study is tracked, and in which run."""
TRIAL = "cuvee.trial"
"""The tag that a trial is known by."""
STAGE, FOLD = "cuvee.stage", "cuvee.fold"
"""The tags that say what a trial was trained for, and of a cross-fitted study in which fold, from 1."""
ARTEFACTS = ("report.html", "advice.json", "study.yaml", "blend/README.md")
_LONGEST = 500
"""Letters of a parameter, in the oldest servers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedTrials:
    """The trials of one stage.

    Attributes:
        stage: ``grid``, ``check``, ``equal-epochs`` or ``confirm``.
        fold: of a cross-fitted study the fold, from 1; else None.
        outcomes: finished and failed trials.
    """

    stage: str
    fold: int | None
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One trial as it is tracked: under its key, with its tags."""

    key: str
    tags: Mapping[str, str]
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    uri: str
    run: str


_SCHEMES = ("file", "http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")


def check_tracking(config: StudyConfig) -> None:
    """Refuse a study that is to be tracked where that is not possible, before anything is spent.

    Raises:
        MissingDependency: MLflow is not installed.
        ConfigError: a variable that its URI names is not set, or MLflow stores nothing at such an address.
    """
    if config.track is not None and find_spec("mlflow") is None:
        raise MissingDependency("track.mlflow needs MLflow: pip install 'cuvee[mlflow]', or leave track out")
    for name in unset_variables([config.track.mlflow] if config.track is not None else []):
        raise ConfigError(f"track.mlflow: the environment variable {name} is not set; export it")
    scheme = "" if config.track is None else urlsplit(config.track.mlflow).scheme.partition("+")[0]
    if len(scheme) > 1 and scheme not in _SCHEMES:  # one letter is a drive
        raise ConfigError(
            f"track.mlflow begins with {scheme}:, where MLflow stores nothing; give a folder, or an "
            f"address that begins with one of {', '.join(_SCHEMES)}"
        )


def track_study(study: Study, advice: Advice, trained: Sequence[TrainedTrials]) -> None:
    """Track a finished study and its trials; a study that was tracked before goes on in the same run.

    What MLflow refuses is noted, since everything lies in the run folder already.

    Args:
        study: as it is shown.
        advice: its verdict.
        trained: the trials of every stage, in every fold.
    """
    if study.config.track is None:
        return
    with study.stages.stage("track", "trials") as progress:
        uri = tracking_uri(study.config.track.mlflow)
        try:
            entries = _list_entries(trained)
            for done in _track(study, uri, advice, entries):
                progress(done, len(entries))
        except ConfigError as exc:
            study.stages.listener.noted(f"{exc}; the same command tracks it again")


def tracking_uri(given: str) -> str:
    """A folder (an absolute path) as the URI of MLflow's file store; a URI as it is."""
    return Path(given).as_uri() if Path(given).is_absolute() else given


def _list_entries(trained: Sequence[TrainedTrials]) -> list[_Entry]:
    """Every trial once.

    Keys of the grid and of the check, without folds, are those of earlier releases, so that what they tracked is not
    tracked again. Other stages and folds add their name; so does a check of a cell and draw that the grid has too.
    """
    found: dict[str, _Entry] = {}
    for part in trained:
        tags = {STAGE: part.stage} | ({} if part.fold is None else {FOLD: str(part.fold)})
        for outcome in part.outcomes:
            plain = [outcome.cell, outcome.draw, isinstance(outcome, Trial)]
            where = [] if part.fold is None else ["fold", part.fold]
            key = hash_value([*plain, *where, *([] if part.stage in ("grid", "check") else [part.stage])])
            if key in found and found[key].tags != tags:
                key = hash_value([*plain, *where, part.stage])
            found[key] = _Entry(key=key, tags=tags, outcome=outcome)
    return list(found.values())


def _track(study: Study, uri: str, advice: Advice, entries: Sequence[_Entry]) -> Iterator[int]:
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
    if uri.startswith("file:"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(tracking_uri=fill_variables(uri))
        kept = _find(study, client, uri)
        experiment = client.get_run(kept.run).info.experiment_id
        known = _tracked(client, experiment, kept.run)
        for done, entry in enumerate(entries, start=1):
            if entry.key not in known:
                _track_trial(client, experiment, kept.run, entry)
            elif STAGE not in known[entry.key].data.tags:  # tracked by an earlier release
                for name, value in entry.tags.items():
                    client.set_tag(known[entry.key].info.run_id, name, value)
            yield done
        _log(client, kept.run, {}, _metrics(advice, [entry.outcome for entry in entries]))
        for name in ARTEFACTS:
            if (path := study.folder.path / name).is_file():
                client.log_artifact(kept.run, str(path), str(Path(name).parent) if "/" in name else None)
        client.set_terminated(kept.run)
    except (MlflowException, OSError) as exc:
        reason = mask_secrets((str(exc).splitlines() or [""])[0], find_secrets(uri, None))
        raise ConfigError(f"track.mlflow {uri!r}: {reason}") from None  # what was raised may hold what is secret


def _find(study: Study, client: MlflowClient, uri: str) -> _Kept:
    """The run of this study: the one it had, or a new one."""
    known = study.folder.read_json(FILE, TypeAdapter(_Kept), "the study is tracked again, as a new run")
    if known is not None and known.uri == uri:
        return known
    name = study.config.name
    found = client.get_experiment_by_name(name)
    experiment = client.create_experiment(name) if found is None else found.experiment_id
    run = client.create_run(experiment, run_name=name, tags={"cuvee.version": __version__}).info.run_id
    _log(client, run, _params(study.config), {})
    kept = _Kept(uri=uri, run=run)
    study.folder.save_text(FILE, json.dumps(asdict(kept), indent=1))
    return kept


def _tracked(client: MlflowClient, experiment: str, parent: str) -> dict[str, Run]:
    """Trials that are there already, from this run or one that was killed, by their keys."""
    found: dict[str, Run] = {}
    page: str | None = None
    while True:
        runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'", page_token=page)
        found |= {run.data.tags[TRIAL]: run for run in runs if TRIAL in run.data.tags and run.info.status != "RUNNING"}
        page = runs.token
        if not page:
            return found


def _track_trial(client: MlflowClient, experiment: str, parent: str, entry: _Entry) -> None:
    outcome = entry.outcome
    tags = {"mlflow.parentRunId": parent, TRIAL: entry.key, **entry.tags}
    if isinstance(outcome, TrialFailure):
        tags |= {"stage": outcome.stage, "reason": outcome.reason}
    run = client.create_run(experiment, run_name=outcome.cell.key, tags=tags).info.run_id
    draw = {f"draw.{name}": str(number) for name, number in asdict(outcome.draw).items()}
    params = {name: str(value) for name, value in asdict(outcome.cell).items()} | draw
    if isinstance(outcome, TrialFailure):
        _log(client, run, params, {})
        client.set_terminated(run, status="FAILED")
        return
    values = {name: estimate.value for name, estimate in outcome.scores.values.items()}
    _log(client, run, params, {**values, "share": outcome.composition.share, "rows": outcome.composition.rows})
    client.set_terminated(run)


def _log(client: MlflowClient, run: str, params: Mapping[str, str], metrics: Mapping[str, float]) -> None:
    from mlflow.entities import Metric, Param

    client.log_batch(
        run,
        metrics=[Metric(name, float(value), 0, 0) for name, value in metrics.items()],
        params=[Param(name, value[:_LONGEST]) for name, value in params.items()],
    )


def _params(config: StudyConfig) -> dict[str, str]:
    """Every key of the config, sections joined by dots; no password of a URL."""
    found: dict[str, str] = {}

    def walk(value: object, name: str) -> None:
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                walk(inner, f"{name}.{key}" if name else str(key))
        else:
            found[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    values = config.model_dump(mode="json", exclude={"dials", "pools", "track"})
    walk(values, "")
    if isinstance(config.generator, EndpointGenerator):
        found["generator.base_url"] = ", ".join(redact_url(url) for url in config.generator.urls)
    found["dials"] = ", ".join(dict.fromkeys([*(d.name for d in config.dials), *(p.dial for p in config.pools)]))
    return found


def _metrics(advice: Advice, outcomes: Sequence[Outcome]) -> dict[str, float]:
    failed = sum(isinstance(outcome, TrialFailure) for outcome in outcomes)
    found: dict[str, float] = {"trials": len(outcomes) - failed, "failed_trials": failed}
    if advice.best is not None:
        found |= {"best.accuracy": advice.best.accuracy, "best.share": advice.best.share}
        found |= {f"best.gain_over_{gain.over}": gain.value for gain in advice.best.gains}
    if advice.confirmation is not None:
        found["confirmed.accuracy"] = advice.confirmation.accuracy
    return found
