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
from cuvee.errors import ConfigError, InputError
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
    disagreement: Annotated[
        float,
        typer.Option("--disagreement", help="assumed fraction of held-out items that two cells answer differently"),
    ] = 0.1,
    latency: Annotated[
        float | None,
        typer.Option("--latency", help="assumed seconds of a request to an endpoint, at the configured concurrency"),
    ] = None,
    json: Json = False,
) -> None:
    """Show time, cost, trials, requests, tokens and power of a study; nothing is sent, nothing is kept.

    Trainers, encoder and an embedded LLM are timed here, some seconds each.
    """
    if latency is not None and not (math.isfinite(latency) and latency > 0):
        raise ConfigError(f"--latency is {latency:g}; give seconds above 0")
    if not 0.0 <= disagreement <= 1.0:
        raise ConfigError(f"--disagreement is {disagreement:g}; give a fraction from 0 to 1")
    path = _config(study)
    with show.err.status("timing trainers, encoder and embedded LLM"):
        found = plan_study(path, sd_between=sd_between, sd_within=sd_within, disagreement=disagreement, latency=latency)
    if json:
        power = {name: None if math.isinf(number or 0.0) else number for name, number in asdict(found.power).items()}
        show.show_json(asdict(found) | {"power": power})
        return
    show.out.print(_table(found))
    for line in _tell_power(found):
        show.out.print(line, soft_wrap=True, markup=False)
    for note in found.notes:
        show.out.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)


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
    table = Table(title=f"{found.name}: {rows}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("what", no_wrap=True)
    table.add_column("number", justify="right", no_wrap=True)
    _add_summary(table, found)
    if found.dials:
        _add_requests(table, found)
    for stage in found.trials:
        table.add_row(f"{stage.stage}: {stage.cells} cells, {stage.trainer}, trials", f"{stage.trials:,}")
        each = "not timed" if stage.seconds_each is None else f"{stage.seconds_each:.3g}"
        table.add_row("  seconds of one", f"at most {each}" if stage.rough else each)
    if len(found.timings) > len({stage.trainer for stage in found.trials}):
        for timing in found.timings:
            table.add_row(f"{timing.trainer}, {timing.loss}: seconds of a step", f"{timing.step:.3g}")
    table.add_row("trials at once", "the cluster's" if found.workers is None else f"{found.workers}")
    return table


def _add_summary(table: Table, found: StudyPlan) -> None:
    """What is wanted first: how long, how much, how many."""
    time = found.time
    parts = {"trials": time.trials, "generating": time.generating, "embedding": time.embedding}
    parts["measuring"] = time.measuring
    if not found.dials:
        del parts["generating"]
    unknown = [name for name, seconds in parts.items() if seconds is None]
    without = f" without {', '.join(unknown)}" if unknown and time.total is not None else ""
    table.add_row(f"time, about{without}", _tell(time.total))
    for name, seconds in parts.items():
        table.add_row(f"  {name}", _tell(seconds))
    if found.dials and time.generating is None and time.generating_at_least:
        table.add_row("  generating, at least", _tell(time.generating_at_least))
    if found.dials:
        table.add_row("cost, about", _tell_cost(found, found.cost))
        if found.drafts.requests:
            table.add_row("  of which drafts", _tell_cost(found, found.drafts_cost))
        table.add_row("requests, each answer usable", f"{found.requests:,}")
    table.add_row("trials", f"{sum(stage.trials for stage in found.trials):,}", end_section=True)


def _add_requests(table: Table, found: StudyPlan) -> None:
    for dial in found.dials:
        table.add_row(f"{dial.dial}: {len(dial.levels)} levels, {dial.draws} draws, requests", f"{dial.requests:,}")
        if dial.list_requests:
            table.add_row("  asking for its lists, at least", f"{dial.list_requests:,}")
    confirm = max(dial.confirm_requests for dial in found.dials)
    table.add_row("confirmation: requests, at most", f"{confirm:,}")
    if found.drafts.requests:
        table.add_row("of all requests: drafts of generator.draft", f"{found.drafts.requests:,}")
    table.add_row("requests, at most", f"{found.most_requests:,}")
    table.add_row("prompt tokens, about", f"{found.prompt_tokens:,}")
    table.add_row("completion tokens, about", f"{found.completion_tokens:,}", end_section=True)


def _tell_cost(found: StudyPlan, cost: float | None) -> str:
    if cost is None:
        return "not known"
    return f"{cost:,.4g} {found.currency}".rstrip()


def _tell(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "not known"
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
