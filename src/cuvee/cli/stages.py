"""One command a stage, on plain files and on studies."""

from __future__ import annotations

from pathlib import Path

from cuvee.cli import show
from cuvee.cli.app import (
    Json,
    Target,
    app,
    may_trust,
    open_shown,
)
from cuvee.cli.progress import Display
from cuvee.recommend import advice_to_json


@app.command()
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
            show.show_json(advice_to_json(advice))
        else:
            show.show_advice(advice)
            if flow.failed is not None:
                show.show_failed(flow.failed, flow.study.folder.path)
        flow.check_trained()


@app.command()
@may_trust
def report(study: Target, json: Json = False) -> None:
    """Write the report and the recommended blend of a study; runs what is missing."""
    display = Display()
    with open_shown(study, None, display) as flow:
        result = flow.result
    if json:
        show.show_json({"report": str(result.report), "blend": str(result.folder / "blend")})
    else:
        show.out.print(f"report: {result.report}", soft_wrap=True)
