"""``cuvee plan``: what a study would take, before anything is spent."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cuvee.cli import console
from cuvee.cli.options import Json, Target, may_trust
from cuvee.errors import ConfigError, InputError
from cuvee.study.planning import StudyPlan, plan_study


@may_trust
def plan(
    study: Target,
    ask: Annotated[
        bool,
        typer.Option("--ask", help="time one small batch of requests to the study's endpoint too; they are paid for"),
    ] = False,
    sd_between: Annotated[
        float, typer.Option(min=0, help="assumed SD of a cell's accuracy over generation draws, points")
    ] = 1.0,
    sd_within: Annotated[float, typer.Option(min=0, help="assumed SD over sampling and training draws, points")] = 1.0,
    disagreement: Annotated[
        float,
        typer.Option(help="assumed fraction of held-out items that two cells answer differently"),
    ] = 0.1,
    json: Json = False,
) -> None:
    """Show time, cost, trials, requests, tokens and power of a study; without --ask no endpoint is asked.

    One trial of each trainer is run here, and an embedded LLM answers one batch of requests; nothing is kept.
    """
    if not 0.0 <= disagreement <= 1.0:
        raise ConfigError(f"--disagreement is {disagreement:g}; give a fraction from 0 to 1")
    path = _config(study)
    with console.err.status("timing one trial of each trainer, and a batch of requests"):
        found = plan_study(path, ask=ask, sd_between=sd_between, sd_within=sd_within, disagreement=disagreement)
    if json:
        power = {name: None if math.isinf(number or 0.0) else number for name, number in asdict(found.power).items()}
        dials = [{k: v for k, v in asdict(dial).items() if k != "sample"} for dial in found.dials]
        time = asdict(found.time) | {"total": found.time.total}
        console.show_json(asdict(found) | {"power": power, "dials": dials, "time": time})
        return
    console.out.print(_table(found))
    for line in _tell_power(found):
        console.out.print(line, soft_wrap=True)
    for note in found.notes:
        console.out.print(f"note: {note}", style="yellow", soft_wrap=True)


def _tell_power(found: StudyPlan) -> list[str]:
    """What can be seen, a sentence a line, and what that rests on."""
    power = found.power
    if math.isinf(power.gain):
        told = [
            f"{power.draws} generation draw cannot tell the spread between draws, so no effect can be told from chance."
        ]
    else:
        hump = "" if power.hump is None else f", and an inverted U {power.hump:.1f} points above both ends"
        told = [
            f"With {power.draws} draws four in five studies see a gain of {power.gain:.1f} points on validation{hump}."
        ]
    if power.confirmed is not None:
        kind = f"{power.confirm_draws} draw" + ("" if power.confirm_draws == 1 else "s")
        told.append(
            "One confirmation draw cannot confirm a gain: set draws.confirm to 2 or more."
            if math.isinf(power.confirmed)
            else f"The confirmation, which decides, has {kind} and sees a gain of {power.confirmed:.1f} points."
        )
    told.append(
        f"Assumed: cells vary by {power.sd_between:g} points (SD) over generation draws (--sd-between) and by "
        f"{power.sd_within:g} over the others (--sd-within); two cells answer {power.disagreement:.0%} of the held-out "
        "items differently (--disagreement)."
    )
    return told


def _config(study: Path) -> Path:
    if not study.is_dir():
        return study
    if not (study / "study.yaml").is_file():
        raise InputError(f"{study}: not a run folder (it has no study.yaml); give study.yaml or a run folder")
    return study / "study.yaml"


def _table(found: StudyPlan) -> Table:
    held = "held-out" if found.folds > 1 else "locked test"
    rows = f"{found.train_rows} training, {found.validation_rows} validation, {found.test_rows} {held} rows"
    table = console.make_table(f"{found.name}: {rows}", "what")
    table.add_column("number", justify="right", no_wrap=True)
    time = found.time
    table.add_row("time of what is known, about", _tell(time.total))
    for name, seconds in (("trials", time.trials), ("generating", time.generating), ("embedding", time.embedding)):
        table.add_row(f"  {name}", _tell(seconds))
    if found.dials:
        cost = "not known" if found.cost is None else f"{found.cost:,.4g} {found.currency}".rstrip()
        table.add_row("cost, about", cost, end_section=True)
        for dial in found.dials:
            what = f"{dial.dial}: {len(dial.levels)} levels, {dial.draws} draws, requests"
            table.add_row(what, f"{dial.usage.requests:,}")
        confirm = max(dial.confirm.requests for dial in found.dials)
        table.add_row("confirmation: requests, at most", f"{confirm:,}")
        table.add_row("requests, each answer usable", f"{found.usage.requests:,}")
        table.add_row("requests, at most", f"{found.most_requests:,}")
        table.add_row("prompt tokens, about", f"{found.usage.prompt_tokens:,}")
        table.add_row("completion tokens, about", f"{found.usage.completion_tokens:,}", end_section=True)
    for stage in found.trials:
        recipe = f"{stage.recipe.trainer} with loss {stage.recipe.loss}"
        table.add_row(f"{stage.stage}: {stage.cells} cells, {recipe}, trials", f"{stage.trials:,}")
    for name, seconds in time.each.items():
        table.add_row(f"  seconds of one, {name}", f"{seconds:.3g}")
    table.add_row("trials at once", "the cluster's" if found.workers is None else f"{found.workers}")
    return table


def _tell(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "not known"
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
