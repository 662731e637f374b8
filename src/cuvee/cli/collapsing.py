"""A model that is trained again and again on what it writes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table
from typer import Argument, Context, Option

from cuvee.cli import console
from cuvee.cli.options import Out, Seed, Tell, expand_options, refuse_options
from cuvee.errors import ConfigError

if TYPE_CHECKING:
    from cuvee.records import CollapseResult

_CHAINS = {"gaussian": 1000, "unigram": 1000, "bigram": 100}


@expand_options
def collapse(
    ctx: Context,
    tell: Tell,
    study: Annotated[Path | None, Argument(help="YAML file of an experiment, or its folder")] = None,
    model: Annotated[str | None, Option(help="in place of a file: gaussian, unigram or bigram")] = None,
    seed: Seed = 0,
    out: Out = None,
    plan: Annotated[bool, Option("--plan", help="show trainings, time and disk beforehand, and run nothing")] = False,
) -> None:
    """Train a model again and again on what it writes, and say what that does to it and what prevents it."""
    from cuvee.collapse import collapse_to_json, plan_collapse, run_collapse
    from cuvee.config.collapse import CollapseConfig
    from cuvee.config.reading import make_config

    if (study is None) == (model is None):
        raise ConfigError("give the file of an experiment, or --model gaussian, unigram or bigram; one of the two")
    if study is not None:
        refuse_options(ctx, ["seed"], "an experiment takes it from its file")
        out = out or (study if study.is_dir() else None)
        config = make_config(study / "collapse.yaml" if study.is_dir() else study, CollapseConfig)
    else:
        config = make_config(_quick_config(str(model), seed), CollapseConfig)
    if plan:
        found = plan_collapse(config)
        told = f"{found.trainings} trainings, about {found.seconds / 60:,.1f} minutes"
        told += "" if config.model.kind == "causal" else " beside what the LLM takes"
        told += f", {found.model_bytes / 1e6:,.1f} MB of models"
        tell(asdict(found), told)
        return
    with console.Display() as display:
        result = run_collapse(config, out=out, listener=display)
    report = (out or Path("runs") / config.name) / "report.html"
    tell(
        {**collapse_to_json(result), "report": str(report)},
        tabulate_courses(result), *result.warned, *result.advice, f"report: {report}",
    )  # fmt: skip


def _quick_config(model: str, seed: int) -> dict[str, object]:
    """An experiment with one of the models that take seconds, under every regime that it has."""
    if model not in _CHAINS:
        raise ConfigError(f"--model is {model!r}; valid: {', '.join(_CHAINS)}; a language model needs a file")
    more = {"gaussian": ["accumulate_subsample", "curated"], "unigram": ["accumulate_subsample"]}
    regimes = ["replace", "accumulate", "fresh", *more.get(model, [])]
    return {"name": model, "model": {"kind": model}, "seed": seed, "regimes": regimes, "chains": _CHAINS[model]}


def run_panel(folder: Path) -> tuple[dict[str, str], Table]:
    """Gaussian and unigram collapse in a few seconds: their pages by model, and both in one table."""
    from cuvee.collapse import run_collapse

    normal, words = (run_collapse(_quick_config(name, 0), out=folder / name) for name in ("gaussian", "unigram"))
    rows = []
    for course, other in zip(normal.courses, words.courses, strict=False):
        error, left = normal.points[course.name][normal.score][-1], words.points[other.name]["vocabulary"]
        expected = course.expected.get(normal.score)
        theory = "" if expected is None else f"{expected[-1]:.2f}"
        rows.append((course.name, f"{error.value:.2f}", theory, f"{left[-1].value / left[0].value:.0%}"))
    title = f"a model trained on its own output, {normal.generations} times"
    table = console.make_table(title, ("regime", "error of a mean", "theory", "words kept"), rows)
    return {name: str(folder / name / "report.html") for name in ("gaussian", "unigram")}, table


def tabulate_courses(result: CollapseResult) -> Table:
    """First and last generation of every measure and course, with the value that theory expects."""
    heads, *rows = result.table
    return console.make_table(None, heads, rows)
