"""``cuvee train``, ``evaluate`` and ``predict``: a model from a blend, its scores, and what it says of every row."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import RenderableType
from typer import Argument, Option

import cuvee.evaluate as room
from cuvee.cli import console, options, show
from cuvee.cli.options import UNGROUPED, Columns, Hub, Tell, may_trust, refuse_options
from cuvee.corpus import Corpus, Task, compare_labels, write_table
from cuvee.corpus.files import replace_text
from cuvee.corpus.formats import read_table
from cuvee.encoders import DEFAULT_ENCODER, load_encoder
from cuvee.errors import ConfigError, InputError
from cuvee.execute import Stages
from cuvee.hub import CARD_FILE, is_own_card, open_hub, push_folder
from cuvee.registry import nearest_name
from cuvee.report import Reproduction, render_model_card
from cuvee.train import LOSSES, TASKS, find_trainer, is_deterministic, load_predictor, train_model
from cuvee.train.settings import Predictor, TextWriter, Trained, TrainSettings

_NAMED = ("trainer", "loss", "steps", "seed", "source_weight")
_OF_STUDIES = ("program",)
_CHECKING = ("imp", "dimp", "source_weight", "agreement_filter")  # losses that use sentence vectors with every trainer
_FREE = tuple(field.name for field in fields(TrainSettings) if field.name not in (*_NAMED, *_OF_STUDIES))
_LOSS_HELP = f"{', '.join(LOSSES)} [default: source_weight where real and synthetic rows have labels, else ce]"
_TRAINERS = "classification: probe (default), encoder or setfit; generation: causal; retrieval: retriever"


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model is trained."""

    trainer: Annotated[str | None, Option(help=_TRAINERS, show_default=False)] = None
    loss: Annotated[str | None, Option(help=_LOSS_HELP, show_default=False)] = None
    source_weight: Annotated[float | None, Option(min=0, help="weight of synthetic rows; chosen if left out")] = None
    steps: Annotated[int | None, Option(min=1, help="optimiser steps")] = None
    settings: Annotated[list[str] | None, Option("--set", help=f"NAME=VALUE, repeatable: {', '.join(_FREE)}")] = None
    validation: Annotated[Path | None, Option(help="real rows for early stopping, with --set patience=N")] = None
    checkpoints: Annotated[Path | None, Option(help="folder from which a stopped training goes on")] = None
    encoder: options.EncoderName = DEFAULT_ENCODER
    seed: options.Seed = 0

    def read(self, trainer: str, loss: str) -> TrainSettings:
        """Settings from the options, with those of ``--set`` read by their types.

        Raises:
            ConfigError: not NAME=VALUE, no such setting, one that is an option of its own, or a value out of range.
        """
        found: dict[str, str] = {}
        for pair in self.settings or ():
            name, mark, value = (part.strip() for part in pair.partition("="))
            if not mark:
                raise ConfigError(f"--set {pair!r}: give NAME=VALUE, such as batch_size=8")
            if name in _NAMED:
                raise ConfigError(f"--set {name}: it is an option of its own, --{name.replace('_', '-')}")
            if name not in _FREE:
                raise ConfigError(f"--set: no setting {name!r}; {nearest_name(name, _FREE)}")
            found[name] = value
        given = {"steps": self.steps, "seed": self.seed, "source_weight": self.source_weight}
        try:
            return TypeAdapter(TrainSettings).validate_python({"trainer": trainer, "loss": loss, **given, **found})
        except ValidationError as exc:
            error = exc.errors()[0]
            where = ".".join(f" {part}={found[str(part)]}" for part in error["loc"] if str(part) in _FREE)
            raise ConfigError(f"--set{where}: {error['msg'].removeprefix('Value error, ')}") from exc
        except ValueError as exc:
            raise ConfigError(f"--set: {exc}") from exc


@may_trust
def train(
    ctx: typer.Context,
    target: Annotated[Path, Argument(help="a blend (file of rows); or study.yaml or a run folder")],
    how: Training,
    hub: Hub,
    columns: Annotated[Columns, UNGROUPED],
    tell: Tell,
    out: Annotated[Path, Option("--out", "-o", help="folder of the model")] = Path("model"),
) -> None:
    """Train a model on a blend; or on what a study advises, with all real rows, into RUN/model."""
    if options.is_study(target):
        from cuvee.study.outputs import train_advised

        options.refuse_others(ctx, "target")
        with options.open_shown(target) as flow:
            advice = flow.advice
            winner = train_advised(flow, advice)
        advised = None if winner.cell is None else winner.cell.name
        told = {"model": winner.folder, "blend": advised, "real_rows": winner.real, "synthetic_rows": winner.synthetic}
        tell(told | {"decision": advice.decision}, f"{advice.headline}.", winner.said, f"model: {winner.folder}")
        return
    columns = columns.checked(ctx, target, how.validation)
    card = hub.describe(ctx, out.name)
    if (out / CARD_FILE).exists() and not is_own_card(out / CARD_FILE):
        raise InputError(f"{out / CARD_FILE}: not a card that Cuvée wrote, and it would be lost; give another --out")
    if hub.push is not None:
        open_hub(hub.push)
    corpus = columns.load(target, labelled=True)
    options.check_labels(corpus, target)
    columns, task = columns.like(corpus), corpus.task
    chosen = how.trainer or TASKS[task][0]
    find_trainer(chosen)
    loss = how.loss or _default_loss(corpus)
    if chosen != "probe" and (task != "classification" or loss not in _CHECKING):
        refuse_options(ctx, ["encoder"], f"the trainer {chosen!r} fine-tunes a model of its own: --set model=NAME")
    if is_deterministic(chosen, loss):
        refuse_options(ctx, ["seed"], f"the trainer {chosen!r} is fitted to its optimum and draws nothing")
    settings = how.read(chosen, loss)
    if settings.patience is None and ":" not in chosen:
        remedy = ", which the probe does not do" if chosen == "probe" else ": add --set patience=3"
        refuse_options(ctx, ["validation"], f"it is for early stopping{remedy}")
    with console.Display() as display, Stages(display).stage("train", "steps") as progress:
        predictor = train_model(
            corpus,
            settings=settings,
            encoder=load_encoder(how.encoder),
            validation=columns.load(how.validation, labelled=True) if how.validation is not None else None,
            progress=lambda done, total, _loss: progress(done, total),
            folder=how.checkpoints,
        )
    predictor.save(out)
    made = Reproduction(command=options.told_command(ctx), fingerprints={"the rows": corpus.fingerprint})
    took, base = asdict(predictor.settings), how.encoder if chosen == "probe" else ""
    card = replace(card, task=task, reproduction=made)
    replace_text(out / CARD_FILE, render_model_card(card, corpus, took, base=base))
    address = push_folder(out, hub.push, "model", private=not hub.public) if hub.push is not None else None
    taken = {name: value for name, value in took.items() if value is not None}
    labels, weight = list(getattr(predictor, "labels", ())), predictor.settings.source_weight
    said = loss if weight is None else f"{loss} (synthetic rows weigh {weight:g})"
    pushed = f"pushed to {address}; " if address else ""
    tell(
        {"model": out, "rows": len(corpus), "labels": labels, "settings": taken, "pushed": address},
        f"trained {chosen} on {len(corpus)} rows with loss {said}; wrote {out}; {pushed}"
        f"next: cuvee evaluate {shlex.quote(str(out))} TEST_FILE",
    )


def _default_loss(corpus: Corpus) -> str:
    """A chosen weight of the synthetic rows, where there are real rows enough to choose it by."""
    if corpus.task != "classification" or len(set(corpus.origins)) < 2:
        return "ce"
    real = Counter(y for y, origin in zip(corpus.targets, corpus.origins, strict=True) if origin == "real")
    return "source_weight" if sum(rows >= 2 for rows in real.values()) >= 2 else "ce"


# --- evaluate ---
# Options that a task has no use for.
NO_USE = {
    "classification": ("context", "passages", "passage", "top", "max_tokens", "temperature", "diversity"),
    "generation": ("passages", "passage", "top", "per_label"),
    "retrieval": ("context", "max_tokens", "temperature", "diversity", "per_label", "encoder"),
}
_MOST_CONFUSIONS, _OF_LABELS = 10, ("precision", "recall", "f1")
_UNITS = {"classification": "rows", "generation": "prompts", "retrieval": "queries"}


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How a model answers."""

    passages: Annotated[Path | None, Option(help="file of passages to rank (retrieval)")] = None
    max_tokens: Annotated[int, Option(min=1, help="most tokens of a completion (generation)")] = 64
    temperature: Annotated[float, Option(min=0, help="temperature of completions; 0: the most likely token")] = 0.0
    encoder: Annotated[str | None, Option(help="encoder of the probe, if it is not minilm; or for diversity")] = None
    seed: options.Seed = 0

    def load(self, model: Path) -> tuple[Trained, Task]:
        """The model, with the encoder that was named, and the task that it was trained for."""
        found = load_predictor(model, encoder=load_encoder(self.encoder) if self.encoder else None)
        if isinstance(found, Predictor):
            return found, "classification"
        return found, "generation" if isinstance(found, TextWriter) else "retrieval"


@dataclass(frozen=True, kw_only=True)
class Judging:
    """What is told of a model beyond its scores."""

    compare: Annotated[Path | None, Option(help="another model to compare on the same rows")] = None
    per_label: Annotated[bool, Option("--per-label", help="show precision, recall, F1 and confusions")] = False
    diversity: Annotated[bool, Option("--diversity/--no-diversity", help="measure the diversity of completions")] = True


@may_trust
def evaluate(
    ctx: typer.Context,
    model: Annotated[Path, Argument(help="a folder written by cuvee train")],
    data: Annotated[Path, Argument(help="held-out real rows")],
    judging: Judging,
    answering: Answering,
    columns: Annotated[Columns, ("text", "label", "group", "context")],
    tell: Tell,
) -> None:
    """Evaluate a model on held-out real rows, and compare it with another one if asked."""
    from cuvee.study.running import load_passages, measure_written

    seed, (predictor, task) = answering.seed, answering.load(model)
    refuse_options(ctx, NO_USE[task], f"{model} is a model for {task}")
    corpus = replace(columns, task=task).load(data, labelled=True)
    if isinstance(predictor, Predictor):
        compare_labels(predictor.labels, corpus.labels, known_name=str(model), found_name=str(data))
    pool = load_passages(answering.passages) if answering.passages is not None else None
    writing = None
    if task == "generation":
        writing = room.Writing(max_tokens=answering.max_tokens, temperature=answering.temperature)
    paired, other = None, None
    if judging.compare is not None:
        other, its_task = answering.load(judging.compare)
        if its_task != task:
            raise ConfigError(f"--compare {judging.compare} is a model for {its_task}; give one for {task}")
    with console.Display() as display:
        watch = display.watch
        judged = room.judge_model(predictor, corpus, seed=seed, passages=pool, writing=writing, watch=watch)
        scores = room.score_items(judged, intervals=True, seed=seed)
        values = dict(scores.values)
        if writing is not None and judging.diversity and isinstance(predictor, TextWriter):
            measure = measure_written(load_encoder(answering.encoder or DEFAULT_ENCODER), seed)
            values |= room.compare_diversity(
                predictor, corpus, diversity=measure, writing=writing, seed=seed, watch=watch
            )
        if other is not None:
            again = room.judge_model(other, corpus, seed=seed, passages=pool, writing=writing, watch=watch)
            paired = room.compare_predictors(judged, again, seed=seed)
        report = room.report_labels(judged) if judging.per_label else None
    value: dict[str, object] = {"n": scores.n, **values}
    shown: list[RenderableType] = [show.tabulate_values(f"{model} on {data.name}: {scores.n} {_UNITS[task]}", values)]
    if report is not None:
        matrix = {"labels": report.labels, "counts": report.matrix.tolist()}
        value |= {"labels": report.scores, "confusions": report.confusions, "matrix": matrix}
        shown += _list_labels(report)
    if paired is not None:
        value["difference"] = paired.values
        shown.append(f"{model} less {judging.compare}:\n{paired}")
    tell(value, *shown)


def _list_labels(report: room.ClassificationReport) -> Iterator[RenderableType]:
    """Precision, recall and F1 of each label, and the most frequent confusions."""
    scores = {f"{label}: {name}": getattr(s, name) for label, s in report.scores.items() for name in _OF_LABELS}
    yield show.tabulate_values("label by label", {name: e for name, e in scores.items() if e is not None})
    confusions = report.confusions[:_MOST_CONFUSIONS]
    if confusions:
        rates = {f"{c.truth} taken for {c.predicted}, {c.count} rows": c.rate for c in confusions}
        yield show.tabulate_values(f"taken for another ({len(report.confusions)} kinds, of the label's rows)", rates)


# --- predict ---
_CHUNK = 256


@may_trust
def predict(
    ctx: typer.Context,
    model: Annotated[Path, Argument(help="a folder written by cuvee train")],
    file: Annotated[Path, Argument(help="rows to predict; they need no label")],
    output: Annotated[options.Output, {"guard_cells": True}],
    answering: Answering,
    columns: Annotated[Columns, ("text", "context")],
    passage: Annotated[str | None, Option(help="column of the passages")] = None,
    top: Annotated[int, Option(min=1, help="passages for each query (retrieval)")] = 10,
) -> None:
    """Predict every row of a file: its label, its completion, or the passages that fit it best.

    The rows are written as they came, with new columns: predicted and probability, and the probability of each
    label (classification); predicted (generation); rank, predicted and similarity, a row a passage (retrieval).
    """
    from cuvee.study.running import load_passages

    output.check(ctx)
    predictor, task = answering.load(model)
    idle = [*NO_USE[task], *(["encoder"] if task == "generation" else ["seed"])]
    refuse_options(ctx, idle, f"{model} is a model for {task}")
    rows, table = replace(columns, task=task).load(file), read_table(file)
    with console.Display() as display:
        if isinstance(predictor, Predictor):
            found = _label_columns(predictor, rows.texts, display)
        elif isinstance(predictor, TextWriter):
            written = room.write_texts(
                predictor, rows.prompts, max_tokens=answering.max_tokens, temperature=answering.temperature,
                seed=answering.seed, watch=display.watch,
            )  # fmt: skip
            found = {"predicted": pa.array(written, pa.string())}
        else:
            if answering.passages is None:
                raise ConfigError(f"{model} ranks passages; which? give a file of them with --passages")
            passages = load_passages(answering.passages, passage)
            ranked = room.rank_passages(predictor, rows.texts, passages, top=top, watch=display.watch)
            n, width = ranked.places.shape
            table = table.take(pa.array(np.repeat(np.arange(n), width)))  # each row once for each of its passages
            found = {
                "rank": pa.array(np.tile(np.arange(1, width + 1), n)),
                "predicted": pa.array([passages[i] for i in ranked.places.ravel().tolist()], pa.string()),
                "similarity": pa.array(ranked.similarities.ravel()),
            }
    for name, column in found.items():
        if name in table.column_names:
            raise InputError(f"{file}: has a column {name!r} already; rename it, since that is what is written")
        table = table.append_column(name, column)
    write_table(table, output.out, guard_cells=output.guard_cells)
    made = {"out": output.out, "task": task, "rows": len(rows), "written": table.num_rows}
    output(made, f"predicted {len(rows)} rows of {file}; wrote {output.out}")


def _label_columns(predictor: Predictor, texts: Sequence[str], display: console.Display) -> dict[str, pa.Array]:
    """Most probable label, its probability, and the probability of each label."""
    parts = []
    for start in range(0, len(texts), _CHUNK):
        stop = min(start + _CHUNK, len(texts))
        parts.append(predictor.predict_proba(texts[start:stop]))
        display.watch("predict", stop, len(texts))
    proba = np.concatenate(parts)
    columns = {
        "predicted": pa.array([predictor.labels[i] for i in proba.argmax(axis=1).tolist()], pa.string()),
        "probability": pa.array(proba.max(axis=1)),
    }
    return columns | {f"probability_{label}": pa.array(proba[:, i]) for i, label in enumerate(predictor.labels)}
