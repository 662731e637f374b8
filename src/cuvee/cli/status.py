"""``cuvee status``: how a run goes on, seen from another terminal."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cuvee.cli import console, show
from cuvee.cli.options import Json, may_trust
from cuvee.errors import RunFolderError
from cuvee.generate.ledger import repair_ledger
from cuvee.store import LEDGER, TRIALS, hold_file, is_run_folder, list_parts, repair_trials
from cuvee.study.status import RunStatus, read_status

SHOWN = 8
"""Running trials and notes that are listed."""


@may_trust
def status(
    run: Annotated[Path, typer.Argument(help="a run folder, of a study that runs or ran")], json: Json = False
) -> None:
    """Show how a study goes on while another process runs it; nothing is locked or changed."""
    found = read_status(run)
    if json:
        console.show_json(asdict(found))
        return
    console.out.print(_table(found, run))
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


def _table(found: RunStatus, path: Path) -> Table:
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
