"""``cuvee status``, ``repair`` and ``ledger``: how a run stands, what was asked and spent, and damage mended."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cuvee.cli import console, show
from cuvee.cli.options import Json, may_trust
from cuvee.errors import ConfigError, InputError, RunFolderError
from cuvee.generate.budgets import Prices
from cuvee.generate.ledger import Ledger, check_ledger, repair_ledger
from cuvee.generate.spending import LedgerSummary, list_notes, summarise
from cuvee.store import LEDGER, TRIALS, hold_file, is_run_folder, list_parts, repair_trials

if TYPE_CHECKING:
    from cuvee.study.status import RunStatus

SHOWN = 8
"""Running trials and notes that are listed."""


@may_trust
def status(
    run: Annotated[Path, typer.Argument(help="a run folder, of a study that runs or ran")], json: Json = False
) -> None:
    """Show how a study goes on while another process runs it; nothing is locked or changed."""
    from cuvee.study.status import read_status

    found = read_status(run)
    if json:
        console.show_json(asdict(found))
        return
    console.out.print(_status_table(found, run))
    if found.failed is not None:
        show.show_failed(found.failed, run)
    for note in found.notes[-SHOWN:]:
        console.out.print(f"note: {note}", style="yellow")


@may_trust
def repair(
    run: Annotated[Path, typer.Argument(help="a run folder, or the ledger of a generate without a study")],
) -> None:
    """Keep what can be read of damaged files, so that only what is lost is asked for or trained again."""
    done: list[str] = []
    run = run.parent if run.name in (LEDGER, TRIALS) and is_run_folder(run.parent) else run
    if not run.is_file() and not is_run_folder(run):
        raise RunFolderError(f"{run}: neither a run folder nor a ledger; there is nothing to repair")
    for part in list_parts(run) if run.is_dir() else [run]:
        ledger = part / LEDGER if part.is_dir() else part
        with hold_file(part / TRIALS if part.is_dir() else part):
            try:
                if ledger.exists() and (said := repair_ledger(ledger)):
                    done.append(said)
                done += repair_trials(part) if part.is_dir() else []
            except (OSError, sqlite3.Error) as exc:
                raise RunFolderError(
                    f"{part}: cannot be repaired ({exc}); free some space, or make it writable"
                ) from exc
    for said in done or [f"{run}: nothing is damaged"]:
        console.out.print(said, soft_wrap=True)


def _status_table(found: RunStatus, path: Path) -> Table:
    table = console.make_table(f"{path}: {_state(found)}", "what")
    table.add_column("number", justify="right", no_wrap=True)
    of = "" if found.total is None else f" of {found.total}"
    table.add_row(f"stage {found.stage}, {found.unit}", f"{found.done}{of}", end_section=True)
    table.add_row("trials finished", f"{found.trials.done}")
    table.add_row("trials failed", f"{found.trials.failed}")
    table.add_row("trials planned so far", f"{found.planned}")
    table.add_row("trials running", f"{len(found.trials.running)}", end_section=not found.trials.running)
    for trial in found.trials.running[:SHOWN]:
        table.add_row(f"  {trial.cell}, draw {', '.join(map(str, trial.draw))}", "")
    for what, number in [] if found.generation is None else found.generation.list_rows():
        table.add_row(what, number)
    table.add_section()
    for stage, seconds in found.seconds.items():
        table.add_row(f"seconds of {stage}", f"{seconds:.1f}")
    if found.stage_s is not None:
        table.add_row(f"seconds of {found.stage} so far", f"{found.stage_s:.1f}")
    return table


def _state(found: RunStatus) -> str:
    if found.state == "running":
        return f"running, process {found.process}, last heard of {found.age_s:.0f} s ago"
    return "finished" if found.state == "finished" else "stopped; the same command goes on with it"


@may_trust
def ledger(
    run: Annotated[Path, typer.Argument(help="a run folder, or its ledger.sqlite")],
    price_prompt: Annotated[float | None, typer.Option(min=0, help="of a million tokens of prompts")] = None,
    price_completion: Annotated[float | None, typer.Option(min=0, help="of a million tokens of answers")] = None,
    json: Json = False,
) -> None:
    """Count the answers in a ledger, their tokens and cost, and the requests that failed for good."""
    from cuvee.study.spending import summarise_folder

    prices, found = _prices(price_prompt, price_completion), None
    if run.is_dir():
        for part in list_parts(run):
            check_ledger(part / LEDGER)
        found = summarise_folder(run, prices)
    elif run.is_file():
        with Ledger(run, readonly=True) as opened:
            check_ledger(run)
            found = summarise(opened, prices=prices)
    if found is None:
        raise InputError(f"{run}: no ledger there; give a run folder in which something was generated, or its {LEDGER}")
    if json:
        console.show_json(asdict(found))
    else:
        console.out.print(_ledger_table(found, run))
        for note in list_notes(found.notes, found.unverified):
            console.out.print(f"note: {note}", style="yellow")


def _prices(prompt: float | None, completion: float | None) -> Prices | None:
    """The same for all models; one that is not given is 0."""
    if prompt is None and completion is None:
        return None
    try:
        return Prices(prompt_per_million=prompt or 0.0, completion_per_million=completion or 0.0)
    except ValueError as exc:
        raise ConfigError(f"--price-prompt, --price-completion: {exc}") from exc


def _ledger_table(found: LedgerSummary, path: Path) -> Table:
    table = console.make_table(str(path), "what")
    table.add_column("number", justify="right", no_wrap=True)
    table.add_row("answers", f"{found.requests}", end_section=not (found.by_model or found.by_finish_reason))
    for model, number in found.by_model.items():
        table.add_row(f"  of {model or 'an unnamed model'}", f"{number}")
    if len({part.endpoint for part in found.by_endpoint}) > 1:
        for part in found.by_endpoint:
            table.add_row(f"  of {part.model or 'an unnamed model'} at {part.endpoint}", f"{part.requests}")
    for reason, number in found.by_finish_reason.items():
        table.add_row(f"  ended by {reason or 'no reason given'}", f"{number}")
    table.add_row("prompt tokens", f"{found.prompt_tokens}")
    table.add_row("completion tokens", f"{found.completion_tokens}")
    if found.cost is not None:
        table.add_row("cost", f"{found.cost:.6g}")
    if found.replayed:
        table.add_row("answers used again", f"{found.replayed}")
    if found.retries:
        table.add_row("times sent again after trouble", f"{found.retries}")
    if found.unanswered:
        table.add_row("cut off unanswered", f"{found.unanswered}")
    table.add_row("requests failed for good", f"{found.failures}")
    for reason, number in found.by_failure.items():
        table.add_row(f"  {reason}", f"{number}")
    for reason, number in found.rejected.items():
        table.add_row(f"answers rejected: {reason}", f"{number}")
    return table
