"""Iterated self-training: a model is trained again and again on what it wrote, measured, and judged."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from cuvee._version import __version__
from cuvee.collapse.exact import SCORES, run_exact
from cuvee.collapse.judging import advise, advise_in_theory, average, find_warning, judge_curated, word_warning
from cuvee.config.collapse import CausalModel, CollapseConfig, TrainedModel
from cuvee.config.reading import config_to_yaml, make_config
from cuvee.errors import ConfigError
from cuvee.execute import Listener, Stages
from cuvee.fingerprint import hash_value
from cuvee.records import CollapsePlan, CollapseResult
from cuvee.store import RunFolder

if TYPE_CHECKING:
    from cuvee.collapse.experiment import Experiment


def run_collapse(
    config: CollapseConfig | str | Path | dict[str, object],
    *,
    out: str | Path | None = None,
    listener: Listener | None = None,
) -> CollapseResult:
    """Train a model generation after generation on what it writes, or go on with such an experiment.

    Args:
        config: a YAML file, a mapping, or a config.
        out: the folder of the experiment, ``runs/NAME`` by default; it gets ``collapse.yaml``, ``collapse.json`` and
            ``report.html``. Of a causal model it holds every finished generation, which is not trained again.
        listener: told how it goes on.

    Raises:
        ConfigError: the config is wrong. InputError: too few rows, or a model that cannot be loaded.
        RunFolderMismatch: the folder holds an experiment with other data, model or seed.
    """
    read = make_config(config, CollapseConfig)
    with RunFolder(out or Path("runs") / read.name) as folder:
        if isinstance(read.model, TrainedModel):
            kept = {"encoder": folder.keep_encoder(read.model.encoder)}
            read = read.model_copy(update={"model": read.model.model_copy(update=kept)})
        folder.check_identity({"model": hash_value(read.model.model_dump(exclude={"keep_models", "decodings"}))})
        folder.save_text("collapse.yaml", config_to_yaml(read))
        theory = [advise_in_theory(read.delta)] if read.model.kind == "gaussian" else []
        if isinstance(read.model, TrainedModel):
            experiment = _open_experiment(read, folder, listener)
            score, courses, untuned = experiment.score, experiment.run(), dict(experiment.untuned)
        else:
            score, courses, untuned = SCORES[read.model.kind], run_exact(read), {}
        weights = {diet.name: diet.weight for diet in read.list_diets()}
        curated = [judge_curated(course, score) for course in courses if course.regime == "curated"]
        warnings = tuple(find_warning(course, score, read.alpha) for course in courses)
        result = CollapseResult(
            name=read.name,
            model=read.model.kind,
            generations=read.generations,
            chains=read.chains,
            score=score,
            courses=tuple(courses),
            points={each.name: {name: average(each, name) for name in each.values} for each in courses},
            warnings=warnings,
            warned=tuple(map(word_warning, warnings)),
            advice=(*advise(courses, score, read.delta, weights=weights), *curated, *theory),
            untuned=untuned,
            version=__version__,
        )
        folder.save_text("collapse.json", json.dumps(collapse_to_json(result), indent=1))
        from cuvee.report.collapse_page import render_collapse  # charts take long to load

        folder.save_text("report.html", render_collapse(result))
    return result


def _open_experiment(config: CollapseConfig, folder: RunFolder, listener: Listener | None = None) -> Experiment:
    """The experiment with a model that is trained."""
    if isinstance(config.model, CausalModel):
        from cuvee.collapse.causal import CausalExperiment

        return CausalExperiment(config, folder, Stages(listener))
    from cuvee.collapse.classifier import ClassifierExperiment

    return ClassifierExperiment(config, folder, Stages(listener))


def plan_collapse(config: CollapseConfig) -> CollapsePlan:
    """What an experiment takes: trainings, time and disk, from a training, or a part of one, that is timed here.

    Raises:
        ConfigError: the model is none that is trained.
    """
    if not isinstance(config.model, TrainedModel):
        raise ConfigError(f"model.kind is {config.model.kind}, which takes seconds; leave out --plan")
    with TemporaryDirectory() as folder, RunFolder(folder) as empty:
        return _open_experiment(config, empty).plan()


def collapse_to_json(result: CollapseResult) -> dict[str, object]:
    """The result of plain values; means over chains where there are many, NaN as null."""

    def plain(value: object) -> object:
        if isinstance(value, np.ndarray):
            return plain(value.tolist() if value.ndim < 2 or value.shape[1] <= 20 else value.mean(axis=1).tolist())
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        return None if isinstance(value, float) and not np.isfinite(value) else value

    return {name: plain(value) for name, value in asdict(result).items()}
