"""``cuvee plan``: what a study would take, before anything is spent."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from cuvee.cli import show
from cuvee.cli.app import Json, Target, app
from cuvee.errors import InputError
from cuvee.study.planning import StudyPlan, plan_study


@app.command()
def plan(
    study: Target,
    sd_between: Annotated[
        float, typer.Option("--sd-between", min=0, help="assumed SD of a cell's accuracy over generation draws, points")
    ] = 1.0,
    sd_within: Annotated[
        float, typer.Option("--sd-within", min=0, help="assumed SD over sampling and training draws, points")
    ] = 1.0,
    json: Json = False,
) -> None:
    """Show cells, trials, requests, tokens, cost, time and power of a study; nothing is sent, nothing is written."""
    found = plan_study(_config(study), sd_between=sd_between, sd_within=sd_within)
    if json:
        show.show_json(asdict(found))
        return
    show.out.print(_table(found))
    power = found.power
    if math.isinf(power.gain):
        told = (
            f"{power.draws} generation draw cannot tell the spread between draws, so no effect can be told from chance."
        )
    else:
        hump = "" if power.hump is None else f"; an inverted U {power.hump:.1f} points above both ends"
        told = (
            f"With {power.draws} draws, and cells that vary by {power.sd_between:g} points (SD) over generation draws "
            f"and {power.sd_within:g} over the others, four in five studies see a gain of {power.gain:.1f} points"
            f"{hump}."
        )
    show.out.print(told, soft_wrap=True)
    for note in found.notes:
        show.out.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)


def _config(study: Path) -> Path:
    if not study.is_dir():
        return study
    if not (study / "study.yaml").is_file():
        raise InputError(f"{study}: not a run folder (it has no study.yaml); give study.yaml or a run folder")
    return study / "study.yaml"


def _table(found: StudyPlan) -> Table:
    held = "held-out" if found.folds > 1 else "locked test"
    rows = f"{found.train_rows} training, {found.validation_rows} validation, {found.test_rows} {held} rows"
    table = Table(title=f"{found.name}: {rows}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("what", no_wrap=True)
    table.add_column("number", justify="right", no_wrap=True)
    for dial in found.dials:
        table.add_row(f"{dial.dial}: {len(dial.levels)} levels, {dial.draws} draws, requests", f"{dial.requests:,}")
        if dial.list_requests:
            table.add_row("  asking for its lists, at least", f"{dial.list_requests:,}")
    if found.dials:
        confirm = max(dial.confirm_requests for dial in found.dials)
        table.add_row("confirmation: requests, at most", f"{confirm:,}", end_section=True)
        table.add_row("requests, each answer usable", f"{found.requests:,}")
        table.add_row("requests, at most", f"{found.most_requests:,}")
        table.add_row("prompt tokens, about", f"{found.prompt_tokens:,}")
        table.add_row("completion tokens, about", f"{found.completion_tokens:,}")
        cost = "not known" if found.cost is None else f"{found.cost:,.4g} {found.currency}"
        table.add_row("cost, about", cost, end_section=True)
    for stage in found.trials:
        table.add_row(f"{stage.stage}: {stage.cells} cells, {stage.trainer}, trials", f"{stage.trials:,}")
        each = "not timed" if stage.seconds_each is None else f"{stage.seconds_each:.3g}"
        table.add_row("  seconds of one", each)
    workers = "the cluster's" if found.workers is None else f"{found.workers}"
    table.add_row("trials at once", workers)
    table.add_row("seconds of the timed trials", "not known" if found.seconds is None else f"{found.seconds:,.0f}")
    return table
