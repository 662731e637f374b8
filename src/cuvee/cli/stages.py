"""One command a stage, on plain files and on studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cuvee.cli import show
from cuvee.cli.app import (
    COLUMNS,
    IN_STUDY,
    EncoderName,
    Json,
    Label,
    Seed,
    Target,
    Text,
    app,
    is_study,
    load_rows,
    open_shown,
    refuse_options,
)
from cuvee.encoders import DEFAULT_ENCODER, load_encoder
from cuvee.errors import ConfigError
from cuvee.evaluate import evaluate_model
from cuvee.recommend import advice_to_json
from cuvee.train import TrainSettings, load_predictor, train_model


@app.command()
def train(
    ctx: typer.Context,
    target: Annotated[Path, typer.Argument(help="a blend (file of labelled rows); or study.yaml or a run folder")],
    trainer: Annotated[str, typer.Option("--trainer", help="probe or encoder")] = "probe",
    loss: Annotated[str, typer.Option("--loss", help="ce or source_weight")] = "ce",
    source_weight: Annotated[
        float | None, typer.Option("--source-weight", min=0, help="weight of synthetic rows, for --loss source_weight")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="optimiser steps")] = None,
    encoder: EncoderName = DEFAULT_ENCODER,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder of the model")] = Path("model"),
    text: Text = None,
    label: Label = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train a model on a blend; or run the trials of a study."""
    if is_study(target):
        names = [*COLUMNS, "trainer", "loss", "source_weight", "steps", "encoder", "out", "seed"]
        refuse_options(ctx, names, IN_STUDY)
        display = show.Display()
        with open_shown(target, None, display) as flow:
            outcomes = flow.grid
        failed = sum(1 for o in outcomes if not hasattr(o, "scores"))
        if json:
            show.show_json({"trials": len(outcomes) - failed, "failed": failed})
        else:
            show.out.print(f"{len(outcomes) - failed} trials finished, {failed} failed")
        return
    corpus = load_rows(target, text, label)
    if trainer == "encoder":
        refuse_options(ctx, ["encoder"], "the trainer 'encoder' fine-tunes all-MiniLM-L6-v2")
    settings = TrainSettings(trainer=trainer, loss=loss, steps=steps, seed=seed, source_weight=source_weight)
    predictor = train_model(corpus, settings=settings, encoder=load_encoder(encoder))
    predictor.save(out)
    if json:
        show.show_json({"model": str(out), "rows": len(corpus), "labels": list(predictor.labels)})
    else:
        show.out.print(f"trained {trainer} on {len(corpus)} rows; wrote {out}; next: cuvee evaluate {out} TEST_FILE")


@app.command()
def evaluate(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(help="a folder written by cuvee train; or study.yaml or a run folder")],
    data: Annotated[Path | None, typer.Argument(help="held-out real rows")] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="the probe's, when it was not trained with minilm")
    ] = None,
    text: Text = None,
    label: Label = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Evaluate a model on held-out real rows; or list the cells of a study."""
    if is_study(model):
        refuse_options(ctx, [*COLUMNS, "data", "encoder", "seed"], IN_STUDY)
        _show_advice(model, json)
        return
    if data is None:
        raise ConfigError("which held-out rows? cuvee evaluate MODEL DATA")
    predictor = load_predictor(model, encoder=load_encoder(encoder) if encoder else None)
    scores = evaluate_model(predictor, load_rows(data, text, label), seed=seed)
    if json:
        show.show_json(show.scores_to_json(scores))
    else:
        show.show_values(f"{model} on {data.name}: {scores.n} rows", scores.values)


@app.command()
def recommend(study: Target, json: Json = False) -> None:
    """Say what to do, from the trials of a study; runs what is missing."""
    _show_advice(study, json)


def _show_advice(study: Path, json: bool) -> None:
    display = show.Display()
    with open_shown(study, None, display) as flow:
        advice = flow.advice
    if json:
        show.show_json(advice_to_json(advice))
    else:
        show.show_advice(advice)


@app.command()
def report(study: Target, json: Json = False) -> None:
    """Write the report and the recommended blend of a study; runs what is missing."""
    display = show.Display()
    with open_shown(study, None, display) as flow:
        result = flow.result
    if json:
        show.show_json({"report": str(result.report), "blend": str(result.folder / "blend")})
    else:
        show.out.print(f"report: {result.report}", markup=False, soft_wrap=True)
