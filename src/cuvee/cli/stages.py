"""A whole study: run it, begin one, see its advice and its report."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cuvee.characters import check_name
from cuvee.cli import console, show
from cuvee.cli.console import Display
from cuvee.cli.options import Json, Label, Out, Target, Text, may_trust, open_shown
from cuvee.config import config_schema, render_template
from cuvee.corpus import load_corpus, read_columns
from cuvee.corpus.table import guess_columns
from cuvee.errors import ConfigError, InputError, TrialsFailed
from cuvee.recommend import advice_to_json
from cuvee.study import Flow, make_demo, open_study
from cuvee.study.spending import account_folder


def _finish(flow: Flow, display: Display, json: bool) -> None:
    folder, seconds = flow.study.folder.path, flow.study.stages.seconds

    def show_whole(**more: str) -> None:
        taken = account_folder(folder)
        told = {"generation": None if taken is None else asdict(taken), "seconds": seconds}
        console.show_json({**advice_to_json(flow.advice), "report": str(folder / "report.html"), **more, **told})

    try:
        result = flow.result
    except TrialsFailed:
        display.stop()
        if json:
            show_whole()
        raise
    display.stop()
    if json:
        show_whole(blend=str(result.folder / "blend"))
    else:
        show.show_measurements(result.measurements)
        show.show_advice(result.advice)
        if result.failed is not None:
            show.show_failed(result.failed, result.folder)
        show.show_composition(result.composition)
        console.out.print(f"blend:  {result.folder / 'blend'}", soft_wrap=True)
        console.out.print(f"report: {result.report}", soft_wrap=True)
    console.show_seconds(seconds)


@may_trust
def run(study: Target, out: Out = None, json: Json = False) -> None:
    """Run a whole study, or go on with one."""
    display = Display()
    with open_shown(study, out, display) as flow:
        _finish(flow, display, json)


def demo(
    out: Out = None,
    small: Annotated[bool, typer.Option("--small", help="one dial and fewer draws: about a minute")] = False,
    json: Json = False,
) -> None:
    """Run the demo: BBC headlines, the embedded LLM, three dials; offline, about 8 minutes on 2 cores."""
    folder = out or Path("runs/demo-small" if small else "runs/demo")
    display = Display()
    with display, open_study(make_demo(folder, small=small), out=folder, listener=display) as flow:
        _finish(flow, display, json)


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
    for column in (text, label):
        try:
            check_name(column or "")
        except ValueError as exc:
            raise InputError(f"{data}: column {exc}; rename it") from exc
    named = os.path.relpath(data.resolve(), target.resolve().parent)
    target.write_text(render_template(Path(named), corpus, text=text or "", label=label or ""), encoding="utf-8")
    schema = target.with_name("study.schema.json")
    schema.write_text(config_schema(), encoding="utf-8")
    console.out.print(f"{data}: columns {', '.join(names)}; text is {text!r}, label is {label!r}")
    console.out.print(f"wrote {target} and {schema}; next: cuvee run {shlex.quote(str(target))}")


@may_trust
def recommend(study: Target, json: Json = False) -> None:
    """Say what to do, from the trials of a study; runs what is missing."""
    advise_study(study, json)


def advise_study(study: Path, json: bool) -> None:
    """Show the advice of a study; runs what is missing."""
    display = Display()
    with open_shown(study, None, display) as flow:
        advice = flow.advice
        display.stop()
        if json:
            console.show_json(advice_to_json(advice))
        else:
            show.show_advice(advice)
            if flow.failed is not None:
                show.show_failed(flow.failed, flow.study.folder.path)
        flow.check_trained()


@may_trust
def report(study: Target, json: Json = False) -> None:
    """Write the report and the recommended blend of a study; runs what is missing."""
    display = Display()
    with open_shown(study, None, display) as flow:
        result = flow.result
    if json:
        console.show_json({"report": str(result.report), "blend": str(result.folder / "blend")})
    else:
        console.out.print(f"report: {result.report}", soft_wrap=True)
