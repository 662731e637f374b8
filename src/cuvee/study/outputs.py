"""What a study leaves behind: advice, blend with its card, report, the model, and a run in MLflow if it is tracked."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter

from cuvee import records
from cuvee._version import __version__
from cuvee.characters import to_html
from cuvee.config.generators import EmbeddedGenerator, EndpointGenerator, FileGenerator
from cuvee.config.reading import config_to_yaml
from cuvee.config.schema import StudyConfig
from cuvee.config.sections import PROBE
from cuvee.corpus import Corpus
from cuvee.corpus.files import fill_folder, replace_text
from cuvee.errors import ConfigError, MissingDependency, TrialsAwaited
from cuvee.evaluate.generation import distinct_prompts
from cuvee.fingerprint import derive_seed, hash_value
from cuvee.generate.pools import count_rejected
from cuvee.hub import CARD_FILE
from cuvee.masking import fill_variables, find_secrets, mask_secrets, redact_url, unset_variables
from cuvee.measure import METRICS, Subject, map_pools, sample_rows, sample_subject
from cuvee.mix import Blend, mix_corpora
from cuvee.recommend import advice_to_json
from cuvee.report import CardFacts, ReportData, Reproduction, SyntheticPart, render_card, render_model_card
from cuvee.report.tables import Design, PoolFacts, RunRecord, list_findings
from cuvee.store import SHOWN_OUTPUTS
from cuvee.study.draws import write_draws
from cuvee.study.flow import Flow
from cuvee.study.grids import count_pool, list_shares, rows_at_hand, tell_short_labels
from cuvee.study.pools import PooledStudy
from cuvee.study.prepare import Study
from cuvee.study.running import NUMBERS, grid_recipes, make_mixing
from cuvee.study.status import LAST, TRACK, account_folder
from cuvee.study.trials import confirmed_cells
from cuvee.train import TRAINERS, train_model
from cuvee.train.settings import FORMAT

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StudyResult(records.Shown):
    """A finished study: its advice with the evidence, and where everything lies.

    ``blend`` is None, and so is its composition, where the advice is not to use synthetic data and no blend was asked
    for; where nothing is settled it is the blend that the evidence leans to. ``findings`` say all of it in a few
    sentences. ``model`` is the folder of the model, where ``train_winner`` asks for one.
    """

    name: str
    advice: records.Advice
    measurements: Mapping[str, records.Measurement]
    pools: Mapping[str, Corpus]
    blend: Corpus | None
    composition: records.Composition | None
    folder: Path
    report: Path
    seconds: Mapping[str, float]
    failed: records.FailedTrials | None = None
    findings: tuple[records.Finding, ...] = ()
    model: Path | None = None

    def __str__(self) -> str:
        lost = () if self.advice.sensitivity is None else self.advice.sensitivity.lost
        lines = [f"{self.name}: {self.advice}", *map(str, lost)]
        lines += [] if self.failed is None else [str(self.failed)]
        lines += [f"report: {self.report}", self.blend_line]
        return "\n".join([*lines, *([] if self.model is None else [f"model: {self.model}"])])

    @property
    def blend_line(self) -> str:
        """Where the blend lies and what it is, or why there is none."""
        if self.blend is None and self.advice.best is None:
            return "blend: none, as there is no cell to recommend"
        if self.blend is None:
            return "blend: none, as the advice is not to use synthetic data; --blend writes that of the best cell"
        unsettled = ", which the evidence leans to" if self.advice.decision == "underpowered" else ""
        unwanted = ", although the advice is not to use it" if self.advice.decision == "do-not-use" else ""
        return f"blend: {self.folder / 'blend'}{unsettled}{unwanted}"

    def _repr_html_(self) -> str:
        return (
            f"<p><b>{to_html(self.name)}</b></p>{self.advice._repr_html_()}"
            f"<p>{to_html(self.blend_line)}<br>report: <code>{to_html(str(self.report))}</code></p>"
        )


_SAMPLING = ("temperature", "top_p", "min_p", "top_k", "max_tokens")
_WRITTEN = "diversity."  # how scores begin that are not of the task but of the diversity of completions


def write_outputs(flow: Flow, *, wants_blend: bool = False, charts: Path | None = None) -> StudyResult:
    """Finish a study: write advice.json, blend/, report.html and the model into the run folder, and track it.

    Args:
        flow: the study; stages that are missing run now.
        wants_blend: write the best cell's blend even where the advice is not to use it.
        charts: a folder for each chart of the report as SVG, PNG and CSV; None writes none.

    Raises:
        TrialsFailed: every trial of a blend failed; the report is written, and no blend.
    """
    result = _write_files(flow, wants_blend=wants_blend, charts=charts)
    if flow.study.config.train_winner:
        result = replace(result, model=train_advised(flow, flow.advice).folder)
    track_study(flow.shown, flow.advice, sum(len(part.outcomes) for part in flow.parts))
    flow.check_trained()
    return result


def _write_files(flow: Flow, *, wants_blend: bool, charts: Path | None) -> StudyResult:
    """Write advice, blend and report."""
    from cuvee.report.charts import save_figures  # charts take long to load
    from cuvee.report.study_page import draw_figures, render_report

    # the advice first: it runs all stages, fold after fold
    advice, study, made = flow.advice, flow.shown, flow.parts[0]
    with study.stages.stage("report", "files") as progress:
        study.folder.save_text("advice.json", json.dumps(advice_to_json(advice), indent=1, sort_keys=True))
        blend = None
        if advice.best is not None and (wants_blend or advice.decision != "do-not-use"):
            is_open = advice.decision == "underpowered" and advice.lean is not None
            cell = advice.lean.cell if is_open and advice.lean is not None else advice.best.cell
            first = 0 if cell.scope == "this pool" else made.levels[made.find_level(cell)].blocks[0]
            draw = records.Draw(generation=first, sampling=0, training=0)
            blend = make_mixing(study, made.corpora, [draw.real]).mix(cell, draw)
            study.folder.save_blend(blend.corpus, _write_card(flow, cell, blend), study.config.mix.format)
        elif advice.best is not None:
            study.folder.drop_blend()  # of an earlier run, whose advice was another one
        progress(1, 2)
        page = make_report(flow, blend)
        report = study.folder.save_text("report.html", render_report(page))
        if charts is not None:
            try:
                save_figures(draw_figures(page), charts)
            except OSError as exc:
                raise ConfigError(f"--charts {charts}: cannot be written ({exc}); name a folder that can") from exc
        progress(2, 2)
    return StudyResult(
        name=study.config.name,
        advice=advice,
        measurements=flow.measurements,
        pools=made.corpora,
        blend=None if blend is None else blend.corpus,
        composition=None if blend is None else blend.composition,
        folder=study.folder.path,
        report=report,
        seconds=dict(study.stages.seconds),
        failed=flow.failed,
        findings=list_findings(page),
    )


def _write_card(flow: Flow, cell: records.Cell, blend: Blend) -> str:
    """The dataset card of the blend of ``cell``."""
    study, part = flow.shown, flow.parts[0]
    prints = {"real training rows": study.train.fingerprint, "blend": blend.corpus.fingerprint}
    synthetic = measurement = None
    if cell.dial is not None:
        level = part.find_level(cell)
        pool, measurement = part.pools[level], part.measurements[level.key]
        given = study.config.generator.model_dump(include=set(_SAMPLING), exclude_none=True)
        synthetic = SyntheticPart(
            writer=describe_generator(study),
            sampling={name: given[name] for name in _SAMPLING if name in given},
            levels=(level,),
            left_out=count_rejected(pool.rejected),
            kept=len(pool.corpus),
        )
        prints["pool"] = pool.corpus.fingerprint
    facts = tell_facts(study, study.config.name, "cuvee run study.yaml", prints)
    weights, advice, held = blend.weighing if blend.is_weighted else "", flow.advice, blend.composition
    return render_card(
        facts, held, advice=advice, synthetic=synthetic, measurement=measurement, notes=METRICS, weights=weights
    )


def tell_facts(study: Study, name: str, command: str, fingerprints: Mapping[str, str]) -> CardFacts:
    """What every card of a study says: ``name`` is that of what the card is about, ``command`` makes it again."""
    config, card = study.config, study.config.card
    again = Reproduction(command=command, seed=config.seed, fingerprints=fingerprints)
    spoken, terms = card.languages, card.licences()
    return CardFacts(
        name=name, version=__version__, task=config.task, languages=spoken, licences=terms, reproduction=again
    )


def average_written(outcomes: Sequence[records.Outcome]) -> dict[records.Cell, dict[str, float]]:
    """Cell -> diversity of what its models wrote and of the real completions, where trials measured it: means."""
    found: dict[records.Cell, dict[str, list[float]]] = {}
    for trial in [outcome for outcome in outcomes if isinstance(outcome, records.Trial)]:
        for name, estimate in trial.scores.values.items():
            if name.startswith(_WRITTEN):
                found.setdefault(trial.cell, {}).setdefault(name.removeprefix(_WRITTEN), []).append(estimate.value)
    return {cell: {name: fmean(values) for name, values in numbers.items()} for cell, numbers in found.items()}


def gather_outputs(flow: Flow) -> tuple[list[str], list[list[str]]]:
    """Prompts of validation, the real answer to each, and what models wrote: columns, and a row a prompt.

    Models of real rows alone, of the best blend, and of the blend whose pool is the most diverse by the Vendi score;
    of a cross-fitted study, of its first fold.
    """
    part, best, wrote = flow.parts[0], flow.advice.best, dict[records.Cell, Sequence[str]]()
    for trial in part.outcomes:
        if isinstance(trial, records.Trial) and trial.part == "validation" and trial.scores.written:
            wrote.setdefault(trial.cell, trial.scores.written)
    if best is None or best.cell not in wrote:
        return [], []

    def rank(cell: records.Cell) -> tuple[float, bool, float]:
        value = part.measurements[f"{cell.dial}={cell.level}"].values.get("vendi_q1")
        return 0.0 if value is None else value.value, cell == best.cell, cell.share

    blends = [cell for cell in wrote if cell.kind == "blend" and cell.trainer == best.cell.trainer]
    real = confirmed_cells(best.cell)["real-only"]
    named = {"real rows alone": real, f"best: {best.cell.name}": best.cell}
    named |= {f"most diverse: {cell.name}": cell for cell in [max(blends, key=rank)] if cell != best.cell}
    shown = {name: wrote[cell] for name, cell in named.items() if cell in wrote}
    validation = part.study.split.validation
    prompts, rows = distinct_prompts(validation)
    table = zip(prompts, (validation.targets[at[0]] for at in rows), *shown.values(), strict=False)
    return ["prompt", "real answer", *shown], [list(row) for row in islice(table, SHOWN_OUTPUTS)]


def describe_generator(study: Study) -> str:
    """Who wrote the synthetic rows, and their drafts if that was another."""
    generator = study.config.generator
    if isinstance(generator, FileGenerator):
        return "ready-made pools"
    if isinstance(generator, EmbeddedGenerator):
        return f"embedded {Path(generator.gguf).name if generator.gguf else 'SmolLM2-135M-Instruct'}"
    if isinstance(generator, EndpointGenerator):
        first, *others = (redact_url(url) for url in generator.urls)
        drafts = "".join(f"; drafts by {model}" for model in study.config.draft_models)
        return f"{generator.model} at {first}" + (f" and {len(others)} more" if others else "") + drafts
    return f"{Path(generator.model).name if Path(generator.model).exists() else generator.model} in transformers"


def make_report(flow: Flow, blend: Blend | None) -> ReportData:
    """Everything the page shows."""
    study, parts, config = flow.shown, flow.parts, flow.shown.config
    corpora = {"real": study.train} | {level.key: pool.corpus for level, pool in parts[0].pools.items()}
    subjects = {key: sample_subject(corpus, study.encoder, seed=config.seed) for key, corpus in corpora.items()}
    pools, rows = {key: subject for key, subject in subjects.items() if key != "real"}, sum(map(len, corpora.values()))
    return ReportData(
        title=config.name,
        advice=flow.advice,
        levels=tuple(parts[0].pools),
        measurements=flow.measurements,
        pools={level.key: _tell_pool(level, parts, subjects[level.key]) for level in parts[0].pools},
        design=Design(
            trainer=config.train.trainers[0],
            tested_share=config.mix.shape_share,
            counts_from=config.advice.delta,
            folds=len(parts) if len(parts) > 1 else 0,
        ),
        failures=[
            replace(outcome, reason=f"{part.study.fold_name}{outcome.reason}")
            for part in parts
            for outcome in part.outcomes
            if isinstance(outcome, records.TrialFailure)
        ],
        failed=flow.failed,
        generation=account_folder(study.folder.path),
        composition=None if blend is None else blend.composition,
        written=average_written([*flow.grid, *flow.checks]),
        outputs=gather_outputs(flow),
        map=map_pools(subjects["real"], pools, rows=rows, seed=config.seed),
        record=RunRecord(
            settings=_tell_settings(flow),
            seconds={stage: spent for stage, spent in study.stages.seconds.items() if stage not in (LAST, TRACK)},
            access_log=tuple(
                f"{part.study.fold_name}{reason}: {detail}"
                for part in parts
                for reason, detail in part.study.folder.access_log()
            ),
            study_yaml=config_to_yaml(config),
        ),
        version=__version__,
    )


def _tell_pool(level: records.Level, parts: Sequence[PooledStudy], subject: Subject) -> PoolFacts:
    """Of the pools of a level in all parts; the rows are those of the first."""
    rejected: Counter[str] = Counter()
    for part in parts:
        rejected.update(count_rejected(part.pools[level].rejected))
    told = [(part.study, part.pools[level].note) for part in parts]
    told += [(p.study, tell_short_labels(p.study, level, count_pool(p.pools[level].corpus))) for p in parts]
    notes = (f"{study.fold_name}{note}" for study, note in told if note)
    read = [part.pools[level].read for part in parts]
    kept, came = sum(len(part.pools[level].corpus) for part in parts), None if None in read else sum(filter(None, read))
    return PoolFacts(samples=sample_rows(subject), rejected=rejected, kept=kept, read=came, note="; ".join(notes))


def _tell_settings(flow: Flow) -> dict[str, str]:
    study, config, folds = flow.shown, flow.shown.config, len(flow.parts)

    def tell(count: Callable[[Study], int]) -> str:
        """A number of each part in words: ``40, 41 in folds 1 to 2``."""
        counts = ", ".join(str(count(part.study)) for part in flow.parts)
        return counts if folds == 1 else f"{counts} in folds 1 to {folds}"

    return {
        "real training rows": tell(lambda study: len(study.train)),
        "validation rows": tell(lambda study: len(study.split.validation)),
        "locked test rows" if config.split.crossfit is None else "rows held out": tell(
            lambda study: len(study.split.test)
        ),
        "encoder": f"{study.encoder.name} ({study.encoder.hash[:12]})",
        "generator": describe_generator(study),
        "amounts": ", ".join(
            "all" if share is None else f"{share / (1 - share):.3g}x"
            for share in list_shares(study, study.rows_per_label)
        ),
        "draws": write_draws(config, study.draws, study.real_draws),
        "real rows" + (" a label" if config.task == "classification" else ""): ", ".join(map(str, study.row_counts)),
        "trainer and loss of every cell": "; ".join(each.fit(study).name for each in grid_recipes(study)),
    }


# --- the model of what the advice says ---
MODEL, KEY_FILE = "model", "model.json"  # of the run folder: the model, and the key of its making


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """The model of a study.

    Attributes:
        folder: that it lies in.
        cell: whose synthetic rows it is trained on; None where on real rows alone.
        real, synthetic: rows that it is trained on.
        said: which rows these are, and what the advice is.
    """

    folder: Path
    cell: records.Cell | None
    real: int
    synthetic: int
    said: str


def find_advised(advice: records.Advice) -> records.Cell | None:
    """The blend that is advised, or that the evidence leans to; None for the real rows alone."""
    if advice.decision == "use":
        return None if advice.best is None else advice.best.cell
    leans = advice.decision == "underpowered" and advice.lean is not None and advice.lean.gain > 0
    return advice.lean.cell if leans and advice.lean is not None else None


def train_advised(flow: Flow, advice: records.Advice) -> Winner:
    """Train the model into ``model/`` of the run folder, unless it lies there already.

    It is trained on the real rows that are not in the locked test, and on as many synthetic rows for each of them as
    the advised blend has, or all that the pool holds. A trainer of the user's own is handed the validation rows
    instead, for early stopping.

    Raises:
        TrialsFailed: every trial of a blend failed. TrialsAwaited: it is to be trained elsewhere.
        CuveeError: training failed, or the model cannot be kept.
    """
    flow.check_trained()
    study, cell = flow.study, find_advised(advice)
    recipe, seed = grid_recipes(study)[0].fit(study), derive_seed(study.config.seed, MODEL)
    is_own = recipe.trainer not in TRAINERS or recipe.program is not None
    real, validation = study.split.at_hand or study.train, study.split.validation
    real = rows = real if is_own else real.joined(validation)
    if cell is not None:
        pool = rows_at_hand(flow.pools[flow.find_level(cell)].corpus)
        share = None if cell.whole else cell.share
        amount: Literal["all"] | None = "all" if cell.whole else None
        rows = mix_corpora(real, pool, share=share, amount=amount, seed=seed, allow_fewer=True).corpus
    settings, synthetic = recipe.make_settings(recipe.steps, seed), len(rows) - len(real)
    said = _tell_rows(study, cell, len(real), synthetic, with_validation=not is_own)
    found = Winner(folder=study.folder.path / MODEL, cell=cell, real=len(real), synthetic=synthetic, said=said)
    told = [rows.fingerprint, asdict(settings), study.encoder.hash, NUMBERS, FORMAT, *recipe.code, said]
    told.append(advice_to_json(advice))
    key = hash_value(told)
    known = study.folder.read_json(KEY_FILE, TypeAdapter(str), "the model is trained again")
    if known == key and found.folder.is_dir():
        return found
    work = None if recipe.program is None else study.folder.path.resolve() / "trials" / f"model-{key[:12]}"
    with study.stages.stage("model", "steps") as progress:
        try:
            predictor = train_model(
                rows,
                settings=settings,
                encoder=study.encoder,
                validation=validation if is_own else None,
                progress=lambda done, total, _loss: progress(done, total),
                folder=work,
            )
        except TrialsAwaited as exc:
            raise TrialsAwaited(
                f"the model is trained elsewhere: let {work} have a folder model, then run the same command again"
            ) from exc
        with fill_folder(found.folder, replaces=lambda _: True) as target:
            predictor.save(target)
            # a program's line and its folder tell of a machine
            taken = {name: value for name, value in asdict(predictor.settings).items() if name != "program"}
            base = study.encoder.name if recipe.trainer == PROBE else ""
            facts = tell_facts(study, f"{study.config.name} model", "cuvee train RUN", {"the rows": rows.fingerprint})
            card = render_model_card(facts, rows, taken, base=base, advice=advice, said=said)
            replace_text(target / CARD_FILE, card)
        study.folder.save_text(KEY_FILE, f'"{key}"')
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return found


def _tell_rows(study: Study, cell: records.Cell | None, real: int, synthetic: int, *, with_validation: bool) -> str:
    beside = " and validation" if with_validation else ""
    locked = f"; the {len(study.split.test)} rows of the locked test are not among them"
    if cell is None:
        return f"Trained on all {real} real rows for training{beside}{locked}. There are no synthetic rows."
    return (
        f"Trained on all {real} real rows for training{beside}{locked}, and on {synthetic} synthetic rows "
        f"({synthetic / real:.3g}x) of {cell.name}, or as many as its pool holds. The study tried this blend beside "
        f"{len(study.train)} real rows: with more of them its gain may be smaller."
    )


# --- MLflow: nothing leaves this machine unless the URI says so ---
_ARTEFACTS = ("report.html", "advice.json", "study.yaml", "blend/README.md")
_LONGEST = 500  # letters of a parameter, in the oldest servers


def check_tracking(config: StudyConfig) -> None:
    """Refuse a study that is to be tracked where that is not possible, before anything is spent.

    Raises:
        MissingDependency: MLflow is not installed.
        ConfigError: a variable that its URI names is not set.
    """
    if config.track is None:
        return
    if find_spec("mlflow") is None:
        raise MissingDependency("track.mlflow needs MLflow: pip install 'cuvee[mlflow]', or leave track out")
    for name in unset_variables([config.track.mlflow]):
        raise ConfigError(f"track.mlflow: the environment variable {name} is not set; export it")


def track_study(study: Study, advice: records.Advice, trials: int) -> None:
    """Track a finished study; one that was tracked before goes on in the same run.

    What MLflow refuses is noted, since everything lies in the run folder already.

    Args:
        study: as it is shown.
        advice: its verdict.
        trials: how many were run in all stages and folds, failed ones among them.
    """
    if study.config.track is None:
        return
    uri = tracking_uri(study.config.track.mlflow)
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
    if uri.startswith("file:"):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    metrics: dict[str, float] = {"trials": trials - advice.failures, "failed_trials": advice.failures}
    if advice.best is not None:
        metrics |= {"best.accuracy": advice.best.accuracy, "best.share": advice.best.share}
        metrics |= {f"best.gain_over_{gain.over}": gain.value for gain in advice.best.gains}
    if advice.confirmation is not None:
        metrics["confirmed.accuracy"] = advice.confirmation.accuracy
    with study.stages.stage(TRACK, "files"):
        try:
            client = MlflowClient(tracking_uri=fill_variables(uri))
            run = _find_run(study, client)
            for name, value in metrics.items():
                client.log_metric(run, name, value)
            for name in _ARTEFACTS:
                if (path := study.folder.path / name).is_file():
                    client.log_artifact(run, str(path), str(Path(name).parent) if "/" in name else None)
            client.set_terminated(run)
        except (MlflowException, OSError) as exc:
            reason = mask_secrets((str(exc).splitlines() or [""])[0], find_secrets(uri, None))
            study.note(f"track.mlflow {uri!r}: {reason}; the same command tracks it again")


def tracking_uri(given: str) -> str:
    """A folder (an absolute path) as the URI of MLflow's file store; a URI as it is."""
    return Path(given).as_uri() if Path(given).is_absolute() else given


def _find_run(study: Study, client: MlflowClient) -> str:
    """The run of this study: the one that its run folder had, or a new one with the config as parameters."""
    name, mark = study.config.name, hash_value(str(study.folder.path.absolute()))
    found = client.get_experiment_by_name(name)
    experiment = client.create_experiment(name) if found is None else found.experiment_id
    known = client.search_runs([experiment], f"tags.run_folder = '{mark}'")
    if known:
        return str(known[0].info.run_id)
    run: str = client.create_run(experiment, run_name=name, tags={"run_folder": mark}).info.run_id
    for section, value in study.config.model_dump(mode="json", exclude={"track"}).items():
        for key, each in value.items() if isinstance(value, dict) else (("", value),):
            client.log_param(run, f"{section}.{key}".rstrip("."), str(each)[:_LONGEST])
    return run
