"""``cuvee ledger``: what was asked of the LLM so far, and what it cost."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cuvee.cli import console
from cuvee.cli.options import Json, may_trust
from cuvee.errors import ConfigError, InputError
from cuvee.generate.budgets import Prices
from cuvee.generate.ledger import Ledger, check_ledger
from cuvee.generate.spending import LedgerSummary, list_notes, summarise
from cuvee.store import LEDGER, list_parts
from cuvee.study.spending import summarise_folder


@may_trust
def ledger(
    run: Annotated[Path, typer.Argument(help="a run folder, or its ledger.sqlite")],
    price_prompt: Annotated[float | None, typer.Option(min=0, help="of a million tokens of prompts")] = None,
    price_completion: Annotated[float | None, typer.Option(min=0, help="of a million tokens of answers")] = None,
    json: Json = False,
) -> None:
    """Count the answers in a ledger, their tokens and cost, and the requests that failed for good."""
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
        console.out.print(_table(found, run))
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


def _table(found: LedgerSummary, path: Path) -> Table:
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
