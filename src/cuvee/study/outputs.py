"""What a study leaves behind: advice, blend with its card, report; and what it says of trials that failed."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cuvee._version import __version__
from cuvee.characters import to_html
from cuvee.config import (
    EmbeddedGenerator,
    EndpointGenerator,
    FileGenerator,
    StudyConfig,
    config_to_yaml,
)
from cuvee.corpus import Corpus
from cuvee.errors import TrialsFailed
from cuvee.generate.masking import redact_url
from cuvee.generate.pools import count_rejected
from cuvee.measure import METRICS
from cuvee.mix import Blend, mix_corpora
from cuvee.recommend import advice_to_json, advice_to_text
from cuvee.records import (
    Advice,
    Cell,
    Composition,
    Draw,
    FailedTrials,
    Level,
    Measurement,
    MetricNote,
    Trial,
    TrialFailure,
    count_failed,
)
from cuvee.report import CardFacts, ReportData, Reproduction, SyntheticPart, render_card, render_report
from cuvee.store import StoredPool
from cuvee.study.pools import usable_draws
from cuvee.study.running import Outcome, grid_recipes
from cuvee.study.setup import Pools, Study
from cuvee.study.spending import account_folder
from cuvee.study.status import LAST, TRACK
from cuvee.study.tracking import TrainedTrials
from cuvee.study.trials import level_of, list_corpora, mix_cell, overlapping_shares


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """A finished study: its advice with the evidence, and where everything lies."""

    name: str
    advice: Advice
    measurements: Mapping[str, Measurement]
    pools: Mapping[str, Corpus]
    blend: Corpus
    composition: Composition
    folder: Path
    report: Path
    seconds: Mapping[str, float]
    failed: FailedTrials | None = None

    def __str__(self) -> str:
        lost = () if self.advice.sensitivity is None else self.advice.sensitivity.lost
        lines = [f"{self.name}: {advice_to_text(self.advice)}", *map(str, lost)]
        lines += [] if self.failed is None else [str(self.failed)]
        return "\n".join([*lines, f"report: {self.report}", f"blend: {self.folder / 'blend'}"])

    def _repr_html_(self) -> str:
        return (
            f"<p><b>{to_html(self.name)}</b>: {to_html(self.advice.sentence)}</p>"
            f"<p>report: <code>{to_html(str(self.report))}</code></p>"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MadePart:
    """What a study made; of a cross-fitted one, what one fold made."""

    study: Study
    pools: Pools
    measurements: Mapping[str, Measurement]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedStudy:
    """A study whose stages are done, before its files are written.

    Attributes:
        study: as it is shown.
        parts: what it made, or what each of its folds made; the blend is of the first.
        measurements: of all parts together.
        advice: the verdict.
        trained: the trials of every stage that trains, in every fold.
        trials: those of the grid and the check that did not fail, of all folds together.
        failed: how many trials failed and why most often; None where none did.
    """

    study: Study
    parts: Sequence[MadePart]
    measurements: Mapping[str, Measurement]
    advice: Advice
    trained: Sequence[TrainedTrials]
    trials: Sequence[Trial]
    failed: FailedTrials | None


def _name_parts(parts: Sequence[MadePart]) -> list[str]:
    """What stands before a line of each part; nothing where there is one."""
    return [""] if len(parts) == 1 else [f"fold {number}, " for number in range(1, len(parts) + 1)]


def write_by_fold(counts: Sequence[int]) -> str:
    """A number of each part in words: ``40 in each of 3 folds``."""
    if len(counts) == 1:
        return str(counts[0])
    if len(set(counts)) == 1:
        return f"{counts[0]} in each of {len(counts)} folds"
    return f"{', '.join(map(str, counts))} in folds 1 to {len(counts)}"


def count_held_out(parts: Sequence[MadePart]) -> dict[str, str]:
    """Name -> rows that only the confirmation reads."""
    folds = parts[0].study.config.split.crossfit
    rows = [len(part.study.split.test) for part in parts]
    if folds is None:
        return {"locked test rows": str(rows[0])}
    if len(parts) == 1:  # the folder of one fold, opened for itself
        return {"rows held out": f"all, in {folds} folds ({rows[0]} here)"}
    return {"rows held out": f"all {sum(rows)}: {write_by_fold(rows)}"}


def sum_rejected(parts: Sequence[MadePart]) -> dict[str, Counter[str]]:
    """Level -> how many of its answers were rejected for each reason, in all parts; levels share answers."""
    found: dict[str, Counter[str]] = {}
    for part in parts:
        for level, pool in part.pools.items():
            found.setdefault(level.key, Counter()).update(count_rejected(pool.rejected))
    return found


def list_notes(parts: Sequence[MadePart]) -> dict[str, str]:
    """Level -> remarks on its pool, each with its fold."""
    found: dict[str, list[str]] = {}
    for name, part in zip(_name_parts(parts), parts, strict=True):
        for level, pool in part.pools.items():
            if pool.note:
                found.setdefault(level.key, []).append(f"{name}{pool.note}")
    return {key: "; ".join(notes) for key, notes in found.items()}


def list_reads(parts: Sequence[MadePart]) -> tuple[str, ...]:
    """Every logged read of held-out rows, each with its fold."""
    return tuple(
        f"{name}{reason}: {detail}"
        for name, part in zip(_name_parts(parts), parts, strict=True)
        for reason, detail in part.study.folder.access_log()
    )


def list_failures(trained: Sequence[TrainedTrials]) -> list[TrialFailure]:
    """Every trial that failed, in the order of stages; of a cross-fitted study its fold stands before the reason."""
    return [
        outcome if part.fold is None else replace(outcome, reason=f"fold {part.fold}: {outcome.reason}")
        for part in trained
        for outcome in part.outcomes
        if isinstance(outcome, TrialFailure)
    ]


def find_failed(trained: Sequence[TrainedTrials]) -> FailedTrials | None:
    """How many trials of all stages failed, and why most often; None where none did."""
    failures = [o for part in trained for o in part.outcomes if isinstance(o, TrialFailure)]
    return count_failed(failures, trials=sum(len(part.outcomes) for part in trained))


def is_without_blend(study: Study, grid: Sequence[Outcome]) -> bool:
    """Whether every trial of a blend failed, of those that the advice is drawn from.

    Args:
        study: as it is shown.
        grid: the outcomes of all its grids, of all folds together.
    """
    main = grid_recipes(study)[0]
    wanted = (main.trainer, main.loss, study.rows_per_label)
    blends = [
        outcome
        for outcome in grid
        if outcome.cell.kind == "blend"
        and (outcome.cell.trainer, outcome.cell.loss, outcome.cell.rows_per_label) == wanted
    ]
    return bool(blends) and all(isinstance(outcome, TrialFailure) for outcome in blends)


def name_loss(study: Study, failed: FailedTrials | None) -> TrialsFailed:
    """That a study went through to its end and has no blend to speak of, with the most common reason and the remedy."""
    path = study.folder.path
    kept = "; blend/ is of an earlier run" if (path / "blend").is_dir() else ""
    return TrialsFailed(
        f"no blend could be trained, so there is nothing to recommend: {failed}; put that right and run the same "
        f"command again (every failure: {path / 'report.html'}, Failed trials{kept})"
    )


SAMPLES = 6
_WRITTEN = "diversity."
"""How scores begin that are not of the task but of the diversity of completions."""


def write_outputs(done: FinishedStudy, *, with_blend: bool) -> StudyResult | None:
    """Write advice.json, blend/ and report.html into the run folder; None where it has no blend to recommend."""
    study, advice, pools = done.study, done.advice, done.parts[0].pools
    with study.stages.stage("report", "files") as progress:
        study.folder.save_text("advice.json", json.dumps(advice_to_json(advice), indent=1, sort_keys=True))
        cell = recommended_cell(study, advice)
        blend = make_blend(study, pools, cell) if with_blend else None
        if blend is not None:
            study.folder.save_blend(blend.corpus, _write_card(done, cell, blend))
        progress(1, 2)
        report = study.folder.save_text("report.html", render_report(make_report(done, blend)))
        progress(2, 2)
    if blend is None:
        return None
    return StudyResult(
        name=study.config.name,
        advice=advice,
        measurements=done.measurements,
        pools=list_corpora(pools),
        blend=blend.corpus,
        composition=blend.composition,
        folder=study.folder.path,
        report=report,
        seconds=dict(study.stages.seconds),
        failed=done.failed,
    )


def _write_card(done: FinishedStudy, cell: Cell, blend: Blend) -> str:
    """The dataset card of the blend of ``cell``."""
    study, part = done.study, done.parts[0]
    level = level_of(part.pools, cell) if cell.dial else None
    prints = {"real training rows": study.train.fingerprint, "blend": blend.corpus.fingerprint}
    if level is not None:
        prints["pool"] = part.pools[level].corpus.fingerprint
    facts = CardFacts(
        name=study.config.name,
        version=__version__,
        task=blend.corpus.task,
        languages=study.config.card.languages,
        licences=study.config.card.licences(),
        reproduction=Reproduction(command="cuvee run study.yaml", seed=study.config.seed, fingerprints=prints),
    )
    return render_card(
        facts,
        blend.composition,
        advice=done.advice,
        synthetic=_describe_synthetic(study, level, part.pools[level]) if level else None,
        measurement=part.measurements[level.key] if level else None,
        notes={n: MetricNote(family=m.family, description=m.description, better=m.better) for n, m in METRICS.items()},
        weights=blend.weighing if blend.is_weighted else "",
    )


def average_written(trials: Sequence[Trial]) -> dict[Cell, dict[str, float]]:
    """Cell -> diversity of what its models wrote and of the real completions, where trials measured it: means."""
    found: dict[Cell, dict[str, list[float]]] = {}
    for trial in trials:
        for name, estimate in trial.scores.values.items():
            if name.startswith(_WRITTEN):
                found.setdefault(trial.cell, {}).setdefault(name.removeprefix(_WRITTEN), []).append(estimate.value)
    return {
        cell: {name: math.fsum(values) / len(values) for name, values in numbers.items()}
        for cell, numbers in found.items()
    }


def recommended_cell(study: Study, advice: Advice) -> Cell:
    """The best cell, or the real rows alone where the advice is not to use synthetic data."""
    if advice.best is None or advice.decision == "do-not-use":
        return Cell(kind="real-only", rows_per_label=study.rows_per_label)
    return advice.best.cell


def make_blend(study: Study, pools: Pools, cell: Cell) -> Blend:
    """The blend of a cell at its first draw."""
    if cell.dial is None:
        return mix_corpora(study.train, share=0.0, seed=study.config.seed, kind="real-only")
    first = usable_draws(study, pools)[level_of(pools, cell)][0]
    return mix_cell(study, pools, cell, Draw(generation=first, sampling=0, training=0))


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


def _describe_synthetic(study: Study, level: Level, pool: StoredPool) -> SyntheticPart:
    """How the synthetic rows of the blend were made."""
    generator = study.config.generator
    found: dict[str, str | int | float] = {}
    if not isinstance(generator, FileGenerator):
        for name in ("temperature", "top_p", "min_p", "top_k", "max_tokens"):
            value = getattr(generator, name, None)
            if value is not None:
                found[name] = value
    return SyntheticPart(
        writer=describe_generator(study),
        model=describe_generator(study),
        sampling=found,
        levels=(level,),
        left_out=count_rejected(pool.rejected),
        kept=len(pool.corpus),
    )


def make_report(done: FinishedStudy, blend: Blend | None) -> ReportData:
    """Everything the page shows."""
    study, parts = done.study, done.parts
    config, pools = study.config, parts[0].pools
    each = " a label" if config.task == "classification" else ""
    return ReportData(
        title=config.name,
        advice=done.advice,
        measurements=done.measurements,
        levels=tuple(pools),
        trainer=config.train.trainers[0],
        shape_share=config.mix.shape_share,
        descriptive_shares=overlapping_shares(study),
        delta=config.advice.delta,
        failures=list_failures(done.trained),
        failed=done.failed,
        generation=account_folder(study.folder.path),
        crossfit=len(parts) if len(parts) > 1 else 0,
        seconds={stage: spent for stage, spent in study.stages.seconds.items() if stage not in (LAST, TRACK)},
        composition=None if blend is None else blend.composition,
        samples={level.key: _samples(pool.corpus) for level, pool in pools.items()},
        written=average_written(done.trials),
        rejected=sum_rejected(parts),
        settings={
            "data": Path(config.data.real).name,
            "real training rows": write_by_fold([len(part.study.train) for part in parts]),
            "validation rows": write_by_fold([len(part.study.split.validation) for part in parts]),
            **count_held_out(parts),
            "encoder": f"{study.encoder.name} ({study.encoder.hash[:12]})",
            "generator": describe_generator(study),
            "regime": config.mix.regime,
            "shares": ", ".join(f"{s:g}" for s in config.mix.shares),
            "draws (generation, sampling, training)": (
                f"{config.draws.generation}, {config.draws.sampling}, {config.draws.training}"
            ),
            "real rows" + each: ", ".join(str(rows) for rows in study.row_counts),
            "trainer, loss and optimiser steps of every cell": "; ".join(
                f"{each.trainer}, {each.loss}, {each.steps}" for each in grid_recipes(study)
            ),
            "search": _describe_search(config),
            "seed": str(config.seed),
        },
        notes=list_notes(parts),
        access_log=list_reads(parts),
        study_yaml=config_to_yaml(config),
        version=__version__,
    )


def _describe_search(config: StudyConfig) -> str:
    search = config.search
    if search.kind == "grid":
        return "grid, all planned trials"
    budget = f"{search.budget:.0%} of the blend trials" if search.budget <= 1 else f"{search.budget:g} blend trials"
    return f"adaptive, {budget}"


def _samples(corpus: Corpus) -> list[tuple[str, str]]:
    """A few rows, spread over the pool: label and text."""
    step = max(1, len(corpus) // SAMPLES)
    return [(corpus.targets[i], corpus.texts[i]) for i in range(0, len(corpus), step)][:SAMPLES]
