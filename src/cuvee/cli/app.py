"""The commands."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer

from cuvee._version import __version__
from cuvee.cli import show
from cuvee.config import config_schema, render_template
from cuvee.corpus import Corpus, load_corpus, read_columns, write_corpus
from cuvee.corpus.files import guess_columns
from cuvee.encoders import DEFAULT_ENCODER, load_encoder
from cuvee.errors import ConfigError, CuveeError, InputError
from cuvee.evaluate import evaluate_model
from cuvee.execute import Stages
from cuvee.generate import EmbeddedLLM, Endpoint, Sampling, SamplingDial, generate_corpus
from cuvee.measure import measure_corpus
from cuvee.mix import mix_corpora
from cuvee.recommend import advice_to_json
from cuvee.records import Cell, Draw
from cuvee.study import Flow, make_demo, open_study
from cuvee.study.trials import mix_cell
from cuvee.train import TrainSettings, load_predictor, train_model

app = typer.Typer(
    help="Find the blend: how diverse LLM-generated data should be, and how much of it to mix with real data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")]
Text = Annotated[str | None, typer.Option("--text", help="column of the input")]
Label = Annotated[str | None, typer.Option("--label", help="column of the label")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="where to write")]
Seed = Annotated[int, typer.Option("--seed", min=0)]
EncoderName = Annotated[str, typer.Option("--encoder", help="minilm, hashing, or a sentence-transformers model")]
Target = Annotated[Path, typer.Argument(help="study.yaml or a run folder")]


def main() -> None:
    """Run the command line and leave at once: no library's exit handler may hang or print after it."""
    sys.excepthook = _report_defect
    code = run_cli(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_cli(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are one line on stderr, exit code 2."""
    try:
        app(list(arguments), prog_name="cuvee")
    except CuveeError as exc:
        _complain(f"error: {exc}", "red")
        return 2
    except KeyboardInterrupt:
        return _stopped()
    except SystemExit as exc:  # typer turns Ctrl-C into exit code 130
        return _stopped() if exc.code == _CTRL_C else int(exc.code or 0)
    return 0


_CTRL_C = 130


def _stopped() -> int:
    _complain("stopped; everything answered and finished is kept: run the same command again to go on", "yellow")
    return _CTRL_C


def _complain(message: str, style: str) -> None:
    show.err.print(" ".join(message.split()), style=style, markup=False, soft_wrap=True)


def _report_defect(kind: type[BaseException], value: BaseException, _trace: TracebackType | None) -> None:
    """One line for what should never happen; the traceback only when asked for."""
    if os.environ.get("CUVEE_DEBUG"):
        traceback.print_exception(value)
    _complain(
        f"defect in cuvee {__version__}: {kind.__name__}: {value}; set CUVEE_DEBUG=1 for the traceback and report it",
        "red",
    )


def _refuse_options(ctx: typer.Context, names: Sequence[str], why: str) -> None:
    """Refuse options that were given but would have no effect.

    Raises:
        ConfigError: naming the first of them.
    """
    for name in names:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"--{name.replace('_', '-')} has no effect here: {why}")


_IN_STUDY = "a study takes it from study.yaml"
_COLUMNS = ("text", "label")
_ENDPOINT = ("base_url", "model", "api", "api_key_env")


def _is_study(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml") or (path / "study.yaml").is_file()


@contextmanager
def _opened(path: Path, out: Path | None, display: show.Display) -> Iterator[Flow]:
    """A study opened from study.yaml or from a run folder, with progress on stderr."""
    if path.is_dir() and not (path / "study.yaml").is_file():
        raise InputError(f"{path}: not a run folder (it has no study.yaml); give study.yaml or a run folder")
    folder = out or (path if path.is_dir() else None)
    config = path / "study.yaml" if path.is_dir() else path
    with display, open_study(config, out=folder, listener=display) as flow:
        yield flow


def _finish(flow: Flow, display: show.Display, json: bool) -> None:
    result = flow.result
    display.stop()
    if json:
        show.show_json(
            {
                **advice_to_json(result.advice),
                "report": str(result.report),
                "blend": str(result.folder / "blend"),
                "seconds": dict(display.seconds),
            }
        )
    else:
        show.show_measurements(result.measurements)
        show.show_advice(result.advice)
        show.show_composition(result.composition)
        show.out.print(f"blend:  {result.folder / 'blend'}", markup=False, soft_wrap=True)
        show.out.print(f"report: {result.report}", markup=False, soft_wrap=True)
    show.show_seconds(display.seconds)


@app.callback(invoke_without_command=True)
def start(
    version: Annotated[bool, typer.Option("--version", help="print the version and leave", is_eager=True)] = False,
) -> None:
    """Find the blend: how diverse LLM-generated data should be, and how much of it to mix with real data."""
    if version:
        show.out.print(__version__)
        raise typer.Exit


@app.command()
def run(study: Target, out: Out = None, json: Json = False) -> None:
    """Run a whole study, or go on with one."""
    display = show.Display()
    with _opened(study, out, display) as flow:
        _finish(flow, display, json)


@app.command()
def demo(out: Out = None, json: Json = False) -> None:
    """Run the demo: BBC headlines, the embedded LLM, three dials; offline, about 8 minutes on 2 cores."""
    folder = out or Path("runs/demo")
    display = show.Display()
    with display, open_study(make_demo(folder), out=folder, listener=display) as flow:
        _finish(flow, display, json)


@app.command()
def init(
    data: Annotated[Path, typer.Argument(help="file of real, labelled rows")],
    text: Text = None,
    label: Label = None,
    out: Out = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite an existing study.yaml")] = False,
) -> None:
    """Write a commented study.yaml for DATA, and its JSON schema beside it."""
    target = out or Path("study.yaml")
    if target.exists() and not force:
        raise ConfigError(f"{target}: already there; choose another name with --out, or --force")
    names = list(read_columns(data))
    found_text, found_label = guess_columns(names)
    text, label = text or found_text, label or found_label
    corpus = load_corpus(data, text=text, label=label)
    named = os.path.relpath(data.resolve(), target.resolve().parent)
    target.write_text(render_template(Path(named), corpus, text=text or "", label=label or ""), encoding="utf-8")
    schema = target.with_name("study.schema.json")
    schema.write_text(config_schema(), encoding="utf-8")
    show.out.print(f"{data}: columns {', '.join(names)}; text is {text!r}, label is {label!r}", markup=False)
    show.out.print(f"wrote {target} and {schema}; next: cuvee run {target}", markup=False)


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
    if _is_study(target):
        _refuse_options(
            ctx, [*_ENDPOINT, *_COLUMNS, "rows", "temperature", "describe", "max_tokens", "seed"], _IN_STUDY
        )
        with _opened(target, out, display) as flow:
            pools = {level.key: p for level, p in flow.pools.items()}
            made = {
                key: {"rows": len(p.corpus), "rejected": len(p.rejected), "note": p.note} for key, p in pools.items()
            }
    else:
        if base_url is None:
            _refuse_options(ctx, ["model", "api", "api_key_env"], "it goes with --base-url")
        real, path = _load(target, text, label), out or Path("synthetic.jsonl")
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
def measure(
    ctx: typer.Context,
    target: Annotated[Path, typer.Argument(help="a file of texts, study.yaml, or a run folder")],
    against: Annotated[Path | None, typer.Option("--against", help="real rows: adds shift and label agreement")] = None,
    held_out: Annotated[Path | None, typer.Option("--held-out", help="rows that must not leak: adds leakage")] = None,
    metric: Annotated[list[str] | None, typer.Option("--metric", help="only these metrics")] = None,
    rows: Annotated[int | None, typer.Option("--rows", min=2, help="measure a sample of this many rows")] = None,
    encoder: EncoderName = DEFAULT_ENCODER,
    text: Text = None,
    label: Label = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure the diversity of a file, and its shift from real data; or the pools of a study."""
    if _is_study(target):
        _refuse_options(ctx, [*_COLUMNS, "against", "held_out", "metric", "rows", "encoder", "seed"], _IN_STUDY)
        display = show.Display()
        with _opened(target, None, display) as flow:
            measured = flow.measurements
        if json:
            show.show_json({name: show.measurement_to_json(m) for name, m in measured.items()})
        else:
            show.show_measurements(measured)
        return
    corpus = _load(target, text, label)
    real = _load(against, text, label) if against else None
    hidden = _load(held_out, text, label).texts if held_out else None
    try:
        measurement = measure_corpus(
            corpus,
            against=real,
            held_out=hidden,
            encoder=load_encoder(encoder),
            metrics=metric,
            name=target.name,
            rows=rows,
            seed=seed,
        )
    except ValueError as exc:  # an option that asks for what these files cannot give
        raise ConfigError(f"{target}: {exc}") from exc
    if json:
        show.show_json(show.measurement_to_json(measurement))
    else:
        show.show_values(f"{target.name}: {measurement.n} rows, encoder {measurement.encoder}", measurement.values)


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
    if _is_study(real):
        _refuse_options(ctx, [*_COLUMNS, "synthetic", "regime", "allow_repeats"], _IN_STUDY)
        display = show.Display()
        with _opened(real, None, display) as flow:
            corpora = {k.key: p.corpus for k, p in flow.pools.items()}
            if f"{dial}={level}" not in corpora:
                raise ConfigError(f"--dial {dial} --level {level}: no such pool; valid: {', '.join(corpora)}")
            cell = Cell(kind="blend", dial=dial, level=level, share=share, rows_per_label=flow.study.rows_per_label)
            blend = mix_cell(flow.study, corpora, cell, Draw(generation=0, sampling=seed, training=0))
    else:
        _refuse_options(ctx, ["dial", "level"], "it names a pool of a study; these are plain files")
        if synthetic is None:
            raise ConfigError("which synthetic rows? cuvee mix REAL SYNTHETIC --share 0.5")
        blend = mix_corpora(
            _load(real, text, label),
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
    if _is_study(target):
        names = [*_COLUMNS, "trainer", "loss", "source_weight", "steps", "encoder", "out", "seed"]
        _refuse_options(ctx, names, _IN_STUDY)
        display = show.Display()
        with _opened(target, None, display) as flow:
            outcomes = flow.grid
        failed = sum(1 for o in outcomes if not hasattr(o, "scores"))
        if json:
            show.show_json({"trials": len(outcomes) - failed, "failed": failed})
        else:
            show.out.print(f"{len(outcomes) - failed} trials finished, {failed} failed")
        return
    corpus = _load(target, text, label)
    if trainer == "encoder":
        _refuse_options(ctx, ["encoder"], "the trainer 'encoder' fine-tunes all-MiniLM-L6-v2")
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
    if _is_study(model):
        _refuse_options(ctx, [*_COLUMNS, "data", "encoder", "seed"], _IN_STUDY)
        _show_advice(model, json)
        return
    if data is None:
        raise ConfigError("which held-out rows? cuvee evaluate MODEL DATA")
    predictor = load_predictor(model, encoder=load_encoder(encoder) if encoder else None)
    scores = evaluate_model(predictor, _load(data, text, label), seed=seed)
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
    with _opened(study, None, display) as flow:
        advice = flow.advice
    if json:
        show.show_json(advice_to_json(advice))
    else:
        show.show_advice(advice)


@app.command()
def report(study: Target, json: Json = False) -> None:
    """Write the report and the recommended blend of a study; runs what is missing."""
    display = show.Display()
    with _opened(study, None, display) as flow:
        result = flow.result
    if json:
        show.show_json({"report": str(result.report), "blend": str(result.folder / "blend")})
    else:
        show.out.print(f"report: {result.report}", markup=False, soft_wrap=True)


def _load(path: Path, text: str | None, label: str | None) -> Corpus:
    return load_corpus(path, text=text, label=label)
