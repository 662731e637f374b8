"""One command a stage, on plain files and on studies."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from cuvee.cli import show
from cuvee.cli.app import (
    COLUMNS,
    ENDPOINT,
    IN_STUDY,
    EncoderName,
    Json,
    Label,
    Out,
    Seed,
    Target,
    Text,
    app,
    is_study,
    load_rows,
    open_shown,
    refuse_options,
)
from cuvee.corpus import load_corpus, write_corpus
from cuvee.encoders import DEFAULT_ENCODER, load_encoder
from cuvee.errors import ConfigError
from cuvee.evaluate import evaluate_model
from cuvee.execute import Stages
from cuvee.generate import EmbeddedLLM, Endpoint, Sampling, SamplingDial, generate_corpus
from cuvee.mix import mix_corpora
from cuvee.recommend import advice_to_json
from cuvee.records import Cell, Draw
from cuvee.study.trials import mix_cell
from cuvee.train import TrainSettings, load_predictor, train_model


@app.command()
def generate(
    ctx: typer.Context,
    target: Annotated[Path, typer.Argument(help="study.yaml or a run folder; or a file of real rows")],
    rows: Annotated[int, typer.Option("--rows", min=1, help="of each label, from a file of real rows")] = 12,
    temperature: Annotated[float, typer.Option("--temperature", min=0, max=5)] = 0.7,
    describe: Annotated[str, typer.Option("--describe", help="what the texts are: news headlines")] = "examples",
    base_url: Annotated[str | None, typer.Option("--base-url", help="an OpenAI-compatible endpoint")] = None,
    model: Annotated[str, typer.Option("--model", help="at the endpoint")] = "",
    api: Annotated[str, typer.Option("--api", help="chat or completions")] = "chat",
    api_key_env: Annotated[str | None, typer.Option("--api-key-env", help="variable that holds the key")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1)] = 48,
    out: Out = None,
    text: Text = None,
    label: Label = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Generate the pools of a study; or rows like those of a file, at one temperature."""
    display = show.Display()
    if is_study(target):
        refuse_options(ctx, [*ENDPOINT, *COLUMNS, "rows", "temperature", "describe", "max_tokens", "seed"], IN_STUDY)
        with open_shown(target, out, display) as flow:
            pools = {level.key: p for level, p in flow.pools.items()}
            made = {
                key: {"rows": len(p.corpus), "rejected": len(p.rejected), "note": p.note} for key, p in pools.items()
            }
    else:
        if base_url is None:
            refuse_options(ctx, ["model", "api", "api_key_env"], "it goes with --base-url")
        real, path = load_rows(target, text, label), out or Path("synthetic.jsonl")
        dial = SamplingDial(levels=[temperature])
        stages = Stages(display)
        with display, stages.stage("generate") as progress, ExitStack() as stack:
            pool = generate_corpus(
                real,
                dial=dial,
                level=dial.levels[0].name,
                rows_per_label=rows,
                endpoint=_endpoint(stack, base_url, model, api, api_key_env),
                sampling=Sampling(max_tokens=max_tokens),
                describe=describe,
                seed=seed,
                progress=progress,
            )
        write_corpus(pool.corpus, path)
        made = {str(path): {"rows": len(pool.corpus), "rejected": len(pool.rejected), "note": pool.note}}
    if json:
        show.show_json(made)
        return
    for name, found in made.items():
        show.out.print(
            f"{name}: {found['rows']} rows, {found['rejected']} answers rejected {found['note']}", markup=False
        )


def _endpoint(stack: ExitStack, base_url: str | None, model: str, api: str, key_name: str | None) -> Endpoint:
    """The embedded LLM, or the endpoint that was named."""
    if base_url is None:
        return stack.enter_context(EmbeddedLLM()).endpoint
    if api not in ("chat", "completions"):
        raise ConfigError(f"--api is {api!r}; valid: chat, completions")
    key = os.environ.get(key_name) if key_name else None
    if key_name and not key:
        raise ConfigError(f"--api-key-env: the environment variable {key_name} is not set; export it")
    return Endpoint(
        base_url=base_url.rstrip("/"),
        model=model,
        api="chat" if api == "chat" else "completions",
        api_key=key,
        key_name=key_name or "",
    )


@app.command()
def mix(
    ctx: typer.Context,
    real: Annotated[Path, typer.Argument(help="real rows; or study.yaml or a run folder")],
    synthetic: Annotated[Path | None, typer.Argument(help="synthetic rows")] = None,
    share: Annotated[float, typer.Option("--share", min=0, max=1, help="synthetic rows over all rows")] = 0.5,
    regime: Annotated[str, typer.Option("--regime", help="augment or replace")] = "augment",
    allow_repeats: Annotated[bool, typer.Option("--allow-repeats", help="draw rows again where too few")] = False,
    dial: Annotated[str | None, typer.Option("--dial", help="of a study's pool")] = None,
    level: Annotated[str | None, typer.Option("--level", help="of a study's pool")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet or JSONL")] = Path("blend.parquet"),
    text: Text = None,
    label: Label = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Mix real and synthetic rows at an exact share, and write the blend."""
    if regime not in ("augment", "replace"):
        raise ConfigError(f"--regime is {regime!r}; valid: augment, replace")
    if is_study(real):
        refuse_options(ctx, [*COLUMNS, "synthetic", "regime", "allow_repeats"], IN_STUDY)
        display = show.Display()
        with open_shown(real, None, display) as flow:
            corpora = {k.key: p.corpus for k, p in flow.pools.items()}
            if f"{dial}={level}" not in corpora:
                raise ConfigError(f"--dial {dial} --level {level}: no such pool; valid: {', '.join(corpora)}")
            cell = Cell(kind="blend", dial=dial, level=level, share=share, rows_per_label=flow.study.rows_per_label)
            blend = mix_cell(flow.study, corpora, cell, Draw(generation=0, sampling=seed, training=0))
    else:
        refuse_options(ctx, ["dial", "level"], "it names a pool of a study; these are plain files")
        if synthetic is None:
            raise ConfigError("which synthetic rows? cuvee mix REAL SYNTHETIC --share 0.5")
        blend = mix_corpora(
            load_rows(real, text, label),
            load_corpus(synthetic, text=text, label=label, origin="synthetic"),
            share=share,
            regime="augment" if regime == "augment" else "replace",
            seed=seed,
            allow_repeats=allow_repeats,
        )
    write_corpus(blend.corpus, out)
    if json:
        made = blend.composition
        show.show_json({"path": str(out), "share": made.share, "rows": made.rows, "real_rows": made.real_rows,
                        "synthetic_rows": made.synthetic_rows, "unique_rows": made.unique_rows,
                        "most_repeats": made.most_repeats,
                        "label_counts": {k: list(v) for k, v in made.label_counts.items()}})  # fmt: skip
    else:
        show.show_composition(blend.composition)
        show.out.print(f"wrote {out}", markup=False)


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
