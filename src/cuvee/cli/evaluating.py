"""``cuvee evaluate``: a model of any task on held-out rows, beside another one, label by label."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from cuvee.cli import console, show
from cuvee.cli.console import Display, Watch
from cuvee.cli.options import (
    COLUMNS,
    IN_STUDY,
    Group,
    Json,
    Label,
    Seed,
    Text,
    is_study,
    may_trust,
    refuse_options,
)
from cuvee.cli.stages import advise_study
from cuvee.corpus import Task, load_corpus
from cuvee.encoders import Encoder, load_encoder
from cuvee.errors import ConfigError
from cuvee.evaluate import (
    ClassificationReport,
    ClassifiedItems,
    PairedScores,
    Writing,
    compare_diversity,
    compare_predictors,
    judge_model,
    report_labels,
    score_items,
)
from cuvee.records import Estimate, Scores
from cuvee.study.judging import load_passages, measure_texts
from cuvee.train import Predictor, load_predictor
from cuvee.train.settings import TextWriter, Trained

Context = Annotated[str | None, typer.Option("--context", help="column of what each prompt is about (generation)")]
Passages = Annotated[Path | None, typer.Option("--passages", help="file of passages to rank (retrieval)")]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="of a completion (generation)")]
Temperature = Annotated[float, typer.Option("--temperature", min=0, help="of completions; 0: the most likely token")]
ProbeEncoder = Annotated[
    str | None, typer.Option("--encoder", help="the probe's, when it was not trained with minilm; or for diversity")
]
NO_USE = {
    "classification": ("context", "passages", "max_tokens", "temperature", "diversity"),
    "generation": ("passages", "per_label"),
    "retrieval": ("context", "max_tokens", "temperature", "diversity", "per_label", "encoder"),
}
"""Options that a task has no use for."""
_MOST_CONFUSIONS = 10


@may_trust
def evaluate(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(help="a folder written by cuvee train; or study.yaml or a run folder")],
    data: Annotated[Path | None, typer.Argument(help="held-out real rows")] = None,
    compare: Annotated[Path | None, typer.Option(help="another model, on the same rows")] = None,
    per_label: Annotated[bool, typer.Option("--per-label", help="precision, recall, F1 and confusions")] = False,
    passages: Passages = None,
    max_tokens: MaxTokens = 64,
    temperature: Temperature = 0.0,
    diversity: Annotated[bool, typer.Option("--diversity/--no-diversity", help="of what the model writes")] = True,
    encoder: ProbeEncoder = None,
    text: Text = None,
    label: Label = None,
    group: Group = None,
    context: Context = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Evaluate a model on held-out real rows, beside another one if you like; or list the cells of a study."""
    if is_study(model):
        taken = ["data", "compare", "per_label", "passages", "max_tokens", "temperature", "diversity", "encoder"]
        refuse_options(ctx, [*COLUMNS, *taken, "group", "context", "seed"], IN_STUDY)
        advise_study(model, json)
        return
    if data is None:
        raise ConfigError("which held-out rows? cuvee evaluate MODEL DATA")
    vectors = load_encoder(encoder) if encoder else None
    predictor = load_predictor(model, encoder=vectors)
    task = task_of(predictor)
    refuse_options(ctx, NO_USE[task], f"{model} is a model for {task}")
    corpus = load_corpus(data, text=text, label=label, group=group, context=context, task=task)
    pool = load_passages(passages) if passages is not None else None
    writing = Writing(max_tokens=max_tokens, temperature=temperature) if task == "generation" else None
    display = Display()
    with display:
        watch = Watch(display)
        judged = judge_model(predictor, corpus, seed=seed, passages=pool, writing=writing, watch=watch)
        scores = score_items(judged, intervals=True, seed=seed)
        values = dict(scores.values)
        if writing is not None and diversity and isinstance(predictor, TextWriter):
            measure = measure_texts(vectors or load_encoder(), seed)
            values |= compare_diversity(predictor, corpus, diversity=measure, writing=writing, seed=seed, watch=watch)
        paired = None
        if compare is not None:
            other = load_other(compare, vectors, task)
            again = judge_model(other, corpus, seed=seed, passages=pool, writing=writing, watch=watch)
            paired = compare_predictors(judged, again, seed=seed)
        report = report_labels(judged, seed=seed) if per_label and isinstance(judged, ClassifiedItems) else None
    scores = replace(scores, values=values)
    if json:
        console.show_json(_as_object(scores, report, paired))
        return
    show.show_values(f"{model} on {data.name}: {scores.n} {_UNITS[task]}", scores.values)
    if report is not None:
        _show_report(report)
    if paired is not None:
        _show_paired(paired, str(model), str(compare))


_UNITS = {"classification": "rows", "generation": "prompts", "retrieval": "queries"}


def task_of(predictor: Trained) -> Task:
    """The task that a model was trained for."""
    if isinstance(predictor, Predictor):
        return "classification"
    return "generation" if isinstance(predictor, TextWriter) else "retrieval"


def load_other(folder: Path, encoder: Encoder | None, task: Task) -> Trained:
    """The model to compare with.

    Raises:
        ConfigError: it is for another task.
    """
    other = load_predictor(folder, encoder=encoder)
    if task_of(other) != task:
        raise ConfigError(
            f"--compare {folder} is a model for {task_of(other)}, not for {task}; give one of the same task"
        )
    return other


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
