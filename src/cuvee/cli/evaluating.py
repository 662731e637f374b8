"""``cuvee evaluate`` and ``cuvee predict``: a model of any task on held-out rows, and what it says of every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer

from cuvee.cli import console, show
from cuvee.cli.console import Display, Watch
from cuvee.cli.options import (
    IN_STUDY,
    Columns,
    GuardCells,
    Json,
    Output,
    Seed,
    is_study,
    may_trust,
    option_names,
    refuse_options,
)
from cuvee.cli.stages import advise_study
from cuvee.corpus import Corpus, Task, write_table
from cuvee.corpus.files import read_table
from cuvee.encoders import DEFAULT_ENCODER, load_encoder
from cuvee.errors import ConfigError, InputError
from cuvee.evaluate import (
    ClassificationReport,
    PairedScores,
    Ranking,
    Writing,
    compare_diversity,
    compare_predictors,
    judge_model,
    rank_passages,
    report_labels,
    score_items,
    write_texts,
)
from cuvee.records import Estimate, Scores
from cuvee.study.running import load_passages, measure_texts
from cuvee.train import Predictor, load_predictor
from cuvee.train.settings import TextWriter, Trained

_COLUMNS = ("text", "label", "group", "context")
NO_USE = {
    "classification": ("context", "passages", "passage", "top", "max_tokens", "temperature", "diversity"),
    "generation": ("passages", "passage", "top", "per_label"),
    "retrieval": ("context", "max_tokens", "temperature", "diversity", "per_label", "encoder"),
}
"""Options that a task has no use for."""
_MOST_CONFUSIONS = 10
_UNITS = {"classification": "rows", "generation": "prompts", "retrieval": "queries"}
_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How a model answers."""

    passages: Annotated[Path | None, typer.Option(help="file of passages to rank (retrieval)")] = None
    max_tokens: Annotated[int, typer.Option(min=1, help="of a completion (generation)")] = 64
    temperature: Annotated[float, typer.Option(min=0, help="of completions; 0: the most likely token")] = 0.0
    encoder: Annotated[
        str | None, typer.Option(help="the probe's, when it was not trained with minilm; or for diversity")
    ] = None
    seed: Seed = 0

    def load(self, model: Path) -> Trained:
        """The model, with the encoder that was named."""
        return load_predictor(model, encoder=load_encoder(self.encoder) if self.encoder else None)


@dataclass(frozen=True, kw_only=True)
class Judging:
    """What is told of a model beyond its scores."""

    compare: Annotated[Path | None, typer.Option(help="another model, on the same rows")] = None
    per_label: Annotated[bool, typer.Option("--per-label", help="precision, recall, F1 and confusions")] = False
    diversity: Annotated[bool, typer.Option("--diversity/--no-diversity", help="of what the model writes")] = True


@may_trust
def evaluate(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(help="a folder written by cuvee train; or study.yaml or a run folder")],
    judging: Judging,
    answering: Answering,
    columns: Annotated[Columns, _COLUMNS],
    data: Annotated[Path | None, typer.Argument(help="held-out real rows")] = None,
    json: Json = False,
) -> None:
    """Evaluate a model on held-out real rows, beside another one if you like; or list the cells of a study."""
    if is_study(model):
        refuse_options(ctx, [*option_names(Judging, Answering), *_COLUMNS, "data"], IN_STUDY)
        advise_study(model, json)
        return
    if data is None:
        raise ConfigError("which held-out rows? cuvee evaluate MODEL DATA")
    predictor, seed = answering.load(model), answering.seed
    task = task_of(predictor)
    refuse_options(ctx, NO_USE[task], f"{model} is a model for {task}")
    corpus = replace(columns, task=task).load(data, labelled=True)
    pool = load_passages(answering.passages) if answering.passages is not None else None
    writing = None
    if task == "generation":
        writing = Writing(max_tokens=answering.max_tokens, temperature=answering.temperature)
    display = Display()
    with display:
        watch = Watch(display)
        judged = judge_model(predictor, corpus, seed=seed, passages=pool, writing=writing, watch=watch)
        scores = score_items(judged, intervals=True, seed=seed)
        values = dict(scores.values)
        if writing is not None and judging.diversity and isinstance(predictor, TextWriter):
            measure = measure_texts(load_encoder(answering.encoder or DEFAULT_ENCODER), seed)
            values |= compare_diversity(predictor, corpus, diversity=measure, writing=writing, seed=seed, watch=watch)
        paired = None
        if judging.compare is not None:
            other = answering.load(judging.compare)
            if task_of(other) != task:
                raise ConfigError(
                    f"--compare {judging.compare} is a model for {task_of(other)}, not for {task}; give one of the "
                    "same task"
                )
            again = judge_model(other, corpus, seed=seed, passages=pool, writing=writing, watch=watch)
            paired = compare_predictors(judged, again, seed=seed)
        report = report_labels(judged, seed=seed) if judging.per_label else None
    scores = replace(scores, values=values)
    if json:
        console.show_json(_as_object(scores, report, paired))
        return
    show.show_values(f"{model} on {data.name}: {scores.n} {_UNITS[task]}", scores.values)
    if report is not None:
        _show_report(report)
    if paired is not None:
        _show_paired(paired, str(model), str(judging.compare))


def task_of(predictor: Trained) -> Task:
    """The task that a model was trained for."""
    if isinstance(predictor, Predictor):
        return "classification"
    return "generation" if isinstance(predictor, TextWriter) else "retrieval"


def _as_object(scores: Scores, report: ClassificationReport | None, paired: PairedScores | None) -> dict[str, object]:
    out = show.scores_to_json(scores)
    if report is not None:
        out["labels"] = {label: asdict(found) for label, found in report.scores.items()}
        out["confusions"] = [asdict(found) for found in report.confusions]
        out["matrix"] = {"labels": list(report.labels), "counts": report.matrix.tolist()}
    if paired is not None:
        out["difference"] = {name: asdict(estimate) for name, estimate in paired.values.items()}
    return out


def _show_report(report: ClassificationReport) -> None:
    table = console.make_table("label by label (95% intervals)", "label")
    for column in ("rows", "predicted", "precision", "recall", "F1"):
        table.add_column(column, justify="right", no_wrap=True)
    for label, found in report.scores.items():
        numbers = [_with_interval(e) for e in (found.precision, found.recall, found.f1)]
        table.add_row(label, str(found.support), str(found.predicted), *numbers)
    console.out.print(table)
    if not report.confusions:
        return
    table = console.make_table(f"taken for another ({len(report.confusions)} kinds, the most frequent)", "label")
    for column in ("taken for", "rows", "of its rows"):
        table.add_column(column, justify="right" if column != "taken for" else "left", no_wrap=True)
    for confusion in report.confusions[:_MOST_CONFUSIONS]:
        table.add_row(confusion.truth, confusion.predicted, str(confusion.count), _with_interval(confusion.rate))
    console.out.print(table)


def _show_paired(paired: PairedScores, first: str, second: str) -> None:
    table = console.make_table(f"{first} less {second}, {paired.n} items in {paired.groups} groups", "score")
    for column in (first, second, "difference", "95% interval", "p"):
        table.add_column(column, justify="right")
    for name, e in paired.values.items():
        sides = [f"{float(e.settings[side]):.4g}" for side in ("first", "second")]
        interval = "" if e.low is None or e.high is None else f"{e.low:+.3g} to {e.high:+.3g}"
        table.add_row(name, *sides, f"{e.value:+.3g}", interval, "" if e.p_value is None else f"{e.p_value:.3g}")
    console.out.print(table)


def _with_interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.2f}, {estimate.high:.2f}]"


@dataclass(frozen=True, kw_only=True)
class PredictedOutput(Output):
    """A file of the rows as they came, with what the model says of each."""

    out: Annotated[Path, typer.Option("--out", "-o", help="file to write: .parquet, .jsonl or .csv")]
    guard_cells: GuardCells = True


@may_trust
def predict(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(help="a folder written by cuvee train")],
    file: Annotated[Path, typer.Argument(help="rows to predict; they need no label")],
    output: PredictedOutput,
    answering: Answering,
    columns: Annotated[Columns, ("text", "context")],
    passage: Annotated[str | None, typer.Option(help="column of the passages")] = None,
    top: Annotated[int, typer.Option(min=1, help="passages a query (retrieval)")] = 10,
) -> None:
    """Predict every row of a file: its label, its completion, or the passages that fit it best.

    The rows are written as they came, with new columns: predicted and probability, and the probability of each
    label (classification); predicted (generation); rank, predicted and similarity, a row a passage (retrieval).
    """
    output.check(ctx)
    predictor = answering.load(model)
    task = task_of(predictor)
    idle = [*NO_USE[task], *(["encoder"] if task == "generation" else ["seed"])]
    refuse_options(ctx, idle, f"{model} is a model for {task}")
    if task == "retrieval" and answering.passages is None:
        raise ConfigError(f"{model} ranks passages; which? give a file of them with --passages")
    rows = replace(columns, task=task).load(file)
    table = read_table(file)
    display = Display()
    with display:
        watch = Watch(display)
        if isinstance(predictor, Predictor):
            made = add_columns(table, label_columns(predictor, rows, watch), file)
        elif isinstance(predictor, TextWriter):
            written = write_texts(
                predictor,
                rows.prompts,
                max_tokens=answering.max_tokens,
                temperature=answering.temperature,
                seed=answering.seed,
                watch=watch,
            )
            made = add_columns(table, {"predicted": pa.array(written, pa.string())}, file)
        else:
            pool = list(load_passages(answering.passages, passage)) if answering.passages is not None else []
            made = ranked_rows(rank_passages(predictor, rows.texts, pool, top=top, watch=watch), pool, table, file)
    write_table(made, output.out, guard_cells=output.guard_cells)
    if output.json:
        console.show_json({"out": str(output.out), "task": task, "rows": len(rows), "written": made.num_rows})
    else:
        console.out.print(f"predicted {len(rows)} rows of {file}; wrote {output.out}", soft_wrap=True)


def label_columns(predictor: Predictor, rows: Corpus, watch: Watch) -> dict[str, pa.Array]:
    """Most probable label, its probability, and the probability of each label."""
    parts = []
    for start in range(0, len(rows), _CHUNK):
        stop = min(start + _CHUNK, len(rows))
        parts.append(predictor.predict_proba(rows.texts[start:stop]))
        watch("predict", stop, len(rows))
    proba = np.concatenate(parts)
    best = proba.argmax(axis=1)
    columns = {
        "predicted": pa.array([predictor.labels[i] for i in best.tolist()], pa.string()),
        "probability": pa.array(proba.max(axis=1)),
    }
    return columns | {f"probability_{label}": pa.array(proba[:, i]) for i, label in enumerate(predictor.labels)}


def ranked_rows(found: Ranking, passages: Sequence[str], table: pa.Table, file: Path) -> pa.Table:
    """Each row of ``table`` once for each of its best passages."""
    n, width = found.places.shape
    repeated = table.take(pa.array(np.repeat(np.arange(n), width)))
    columns = {
        "rank": pa.array(np.tile(np.arange(1, width + 1), n)),
        "predicted": pa.array([passages[i] for i in found.places.ravel().tolist()], pa.string()),
        "similarity": pa.array(found.similarities.ravel()),
    }
    return add_columns(repeated, columns, file)


def add_columns(table: pa.Table, columns: dict[str, pa.Array], file: Path) -> pa.Table:
    """The table with more columns.

    Raises:
        InputError: it has one of them already.
    """
    taken = next((name for name in columns if name in table.column_names), None)
    if taken is not None:
        raise InputError(f"{file}: has a column {taken!r} already; rename it, since that is what is written")
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table
