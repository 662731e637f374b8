"""A whole study, begun, planned, run, its advice read and its report written; and training on one's own output."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import rich.text
from rich.console import RenderableType
from rich.table import Table
from typer import Argument, Context, Option

from cuvee.cli import console, options, show
from cuvee.cli.options import Label, Out, Seed, Target, TaskName, Tell, Text, expand_options, may_trust, open_shown
from cuvee.errors import ConfigError, InputError, TrialsFailed
from cuvee.records.measurement import write_seconds

if TYPE_CHECKING:
    from cuvee.config.schema import StudyConfig
    from cuvee.study.flow import Flow
    from cuvee.study.outputs import StudyResult
    from cuvee.study.planning import PowerPlan, StudyPlan

_FROM_OPTIONS = {"draws.time": "--time", "generator.base_url": "--base-url", "generator.model": "--model"}


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a study of a file of rows begins with."""

    text: Text = None
    label: Label = None
    task: TaskName = None
    pool: Annotated[list[Path] | None, Option(help="file of synthetic rows, instead of an LLM; can be repeated")] = None
    base_url: Annotated[str, Option(help="OpenAI-compatible endpoint, instead of the embedded LLM")] = ""
    model: Annotated[str, Option(help="its model")] = ""
    time: Annotated[str, Option(help="for the trials: 90s, 10m, 2h")] = "10m"

    def render(self, data: Path, target: Path) -> tuple[str, StudyConfig]:
        """What the commented study.yaml of a file says, as text and as read."""
        from cuvee.characters import check_name
        from cuvee.config.reading import bare_name, parse_config, render_template
        from cuvee.corpus.formats import read_table
        from cuvee.corpus.forms import choose_columns

        if bool(self.base_url) != bool(self.model):
            raise ConfigError("--base-url and --model go together: the address of an endpoint, and its model")
        if self.pool and self.base_url:
            raise ConfigError("--pool and --base-url both say where synthetic rows come from; give one of them")
        corpus = options.Columns(text=self.text, label=self.label, task=self.task).load(data, labelled=True)
        options.check_labels(corpus, data)
        columns = choose_columns(read_table(data), self.text, self.label, str(data))
        if corpus.task != "generation":
            columns.pop("context", None)
        for column in columns.values():
            try:
                check_name(column)
            except ValueError as exc:
                raise InputError(f"{data}: column {exc}; rename it") from exc
        base = target.resolve().parent
        pools = list[dict[str, str]]()
        for i, path in enumerate(self.pool or (), 1):
            table = read_table(path)
            own = {role: name for role, name in columns.items() if name in table.column_names}
            found = choose_columns(table, own.get("text"), own.get("label"), str(path))
            for role in (role for role in ("text", "label") if role in columns.keys() - found.keys()):
                has = f"which column is the {role}? It has {', '.join(table.column_names)}"
                raise InputError(f"{path}: {has}; call it {columns[role]!r}, as {data} does")
            level = f"{bare_name(path)}{'' if len(self.pool or ()) == 1 else f'-{i}'}"
            pools.append({"dial": "source", "level": level, "path": os.path.relpath(path.resolve(), base), **own})
        named = Path(os.path.relpath(data.resolve(), base))
        written = render_template(
            named, corpus, columns=columns, pools=pools, base_url=self.base_url, model=self.model, time=self.time
        )
        try:
            return written, parse_config(written, target)
        except ConfigError as exc:  # names a line of a file that is not there yet
            option = next((option for key, option in _FROM_OPTIONS.items() if f": {key}: " in str(exc)), None)
            if option is None:
                raise
            raise ConfigError(f"{option}: {str(exc).partition(': ')[2].partition(': ')[2]}") from exc


@may_trust
def run(
    ctx: Context,
    study: Annotated[Path, Argument(help="study.yaml, a run folder, or a file of real rows")],
    beginning: Beginning,
    tell: Tell,
    out: Out = None,
    blend: Annotated[bool, Option("--blend", help="write a blend even if the advice is to use none")] = False,
) -> None:
    """Run a whole study, or continue one; of a file of rows, write its study.yaml and run that."""
    if study.is_file() and not options.is_study(study):
        study = _begin(study, beginning)
    else:
        options.refuse_options(ctx, [each.name for each in fields(Beginning)], "study.yaml says it")
    with open_shown(study, out) as flow:
        found = _finish(flow, wants_blend=blend)
    _tell_study(flow, tell, found)


def _tell_columns(config: StudyConfig) -> str:
    label = "the answer is its last turn" if config.data.label is None else f"label is {config.data.label!r}"
    return f"text is {config.data.text!r}, {label}, task {config.task}"


def _begin(data: Path, beginning: Beginning) -> Path:
    """Write the study of a file, unless it is there, and say what it assumes."""
    from cuvee.config.reading import bare_name

    target = Path(f"{bare_name(data)}.study.yaml")
    text, config = beginning.render(data, target)
    if target.exists() and target.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{target}: already there, and another study; run it with `cuvee run {target}`, or remove it")
    target.write_text(text, encoding="utf-8")
    split, rows = config.split, config.split.rows_per_label
    sources = ", ".join(pool.level or "" for pool in config.pools) or ", ".join(dial.name for dial in config.dials)
    a_label = " a label" if config.task == "classification" else ""
    for line in (
        f"{data}: {text.splitlines()[1].partition(': ')[2]}",
        _tell_columns(config),
        f"training has {rows} real rows{a_label}; {split.validation:.0%} of all rows choose, {split.test:.0%} confirm",
        f"synthetic rows: {config.generator.kind}: {sources}",
        f"the model is a {config.train.trainer} on {config.encoder}; trials may take {config.draws.time}",
        f"all of it stands in {target}: change it there, and run it with `cuvee run {target}`",
    ):
        console.err.print(line, soft_wrap=True, style="dim")
    return target


@expand_options
def demo(
    tell: Tell,
    out: Out = None,
    small: Annotated[bool, Option("--small", help="one dial and fewer draws: about a minute")] = False,
) -> None:
    """Run the demo: BBC headlines, the embedded LLM, three dials; offline, about 8 minutes on 2 cores."""
    from cuvee.study.demo import make_demo
    from cuvee.study.opening import open_study

    folder = out or Path("runs/demo-small" if small else "runs/demo")
    with console.Display() as display, open_study(make_demo(folder, small=small), out=folder, listener=display) as flow:
        found = _finish(flow)
    pages, panel = run_panel(folder / "collapse")
    _tell_study(flow, tell, found, {"collapse": pages}, [panel, f"collapse: {', '.join(pages.values())}"])


def _finish(flow: Flow, *, wants_blend: bool = False) -> StudyResult | TrialsFailed:
    """Do all that is missing; of a study of whose blends no trial finished the error."""
    from cuvee.study.outputs import write_outputs

    try:
        return write_outputs(flow, wants_blend=wants_blend)
    except TrialsFailed as exc:
        return exc


def _tell_study(
    flow: Flow, tell: Tell, result: StudyResult | TrialsFailed, more: Mapping[str, object] | None = None,
    lines: Sequence[RenderableType] = (),
) -> None:  # fmt: skip
    from cuvee.recommend import advice_to_json
    from cuvee.study.status import account_folder

    folder, seconds = flow.study.folder.path, flow.study.stages.seconds
    advice, written = advice_to_json(flow.advice), {"report": folder / "report.html"}
    spent = {"generation": account_folder(folder), "seconds": seconds, **(more or {})}
    if isinstance(result, TrialsFailed):
        tell({**advice, **written, **spent})
        raise result
    written |= {} if result.blend is None else {"blend": folder / "blend"}
    written |= {} if result.model is None else {"model": result.model}
    tell(
        {"findings": result.findings, **advice, **written, **spent},
        *show.list_advice(result.advice, seconds, result.findings[len(result.advice.findings) :]),
        show.tabulate_measurements(result.measurements),
        *show.list_failed(result.failed, folder),
        *([] if result.composition is None else [rich.text.Text(str(result.composition))]),
        result.blend_line,
        *(f"{name}: {path}" for name, path in written.items() if name != "blend"),
        *lines,
    )
    parts = [f"{stage} {taken:.0f}" for stage, taken in seconds.items()]
    console.err.print(f"seconds: {', '.join(parts)}; total {sum(seconds.values()):.0f}", style="dim")


@expand_options
def init(
    data: Annotated[Path, Argument(help="file of real, labelled rows")],
    beginning: Beginning,
    out: Out = None,
    force: Annotated[bool, Option("--force", help="overwrite an existing study.yaml")] = False,
) -> None:
    """Write a commented study.yaml for DATA, and its JSON schema beside it."""
    from cuvee.config.reading import config_schema
    from cuvee.corpus import read_columns

    target = out or Path("study.yaml")
    if target.exists() and not force:
        raise ConfigError(f"{target}: already there; choose another name with --out, or --force")
    text, config = beginning.render(data, target)
    target.write_text(text, encoding="utf-8")
    schema = target.with_name("study.schema.json")
    schema.write_text(config_schema(), encoding="utf-8")
    columns = ", ".join(read_columns(data))
    console.out.print(f"{data}: columns {columns}; {_tell_columns(config)}")
    console.out.print(f"wrote {target} and {schema}; next: cuvee run {shlex.quote(str(target))}")


@may_trust
def recommend(study: Target, tell: Tell) -> None:
    """Say what to do, from the trials of a study; runs what is missing."""
    from cuvee.recommend import advice_to_json

    with open_shown(study) as flow:
        advice, failed, seconds = flow.advice, flow.failed, flow.study.stages.seconds
    listed = show.list_failed(failed, flow.study.folder.path)
    tell({"findings": advice.findings, **advice_to_json(advice)}, *show.list_advice(advice, seconds), *listed)
    flow.check_trained()


@may_trust
def report(
    study: Target,
    tell: Tell,
    charts: Annotated[Path | None, Option(help="a folder for each chart as SVG, PNG and CSV, for papers")] = None,
) -> None:
    """Write the report and the recommended blend of a study; runs what is missing."""
    from cuvee.study.outputs import write_outputs

    with open_shown(study) as flow:
        result = write_outputs(flow, charts=charts)
    written = {"report": result.report, "blend": result.folder / "blend"} | ({"charts": charts} if charts else {})
    tell(written, f"report: {result.report}", *([f"charts: {charts}"] if charts else []))


# --- before a study runs ---
@may_trust
def plan(
    study: Target,
    tell: Tell,
    ask: Annotated[bool, Option("--ask", help="time a few requests to the endpoint too; they are paid for")] = False,
    spread: Annotated[float | None, Option(min=0, help="assumed SD of a gain between draws, in points")] = None,
    pilot: Annotated[Path | None, Option(help="run folder of a smaller study: takes the spread from it")] = None,
    disagreement: Annotated[float, Option(min=0, max=1, help="part of items that two cells answer differently")] = 0.1,
) -> None:
    """Show time, cost, trials, requests, tokens and power of a study; without --ask no endpoint is asked.

    One trial of each trainer is run here, and an embedded LLM answers one batch of requests; nothing is kept.
    """
    from cuvee.study.planning import plan_study

    if spread is not None and pilot is not None:
        raise ConfigError("--spread and --pilot both say how gains vary between draws; give one of them")
    path = options.find_study(study)
    with console.err.status("timing one trial of each trainer, and a batch of requests"):
        found = plan_study(path, ask=ask, spread=spread, pilot=pilot, disagreement=disagreement)
    power = [
        {name: None if math.isinf(number or 0.0) else number for name, number in asdict(each).items()}
        for each in found.power
    ]
    time = asdict(found.time) | {"total": found.time.total}
    whole = asdict(found) | {"power": power, "time": time}
    spreads = ", ".join(f"{each.spread:.1f}" for each in found.power)
    source = "given" if spread is not None else "of the pilot" if pilot is not None else "quartiles of recorded studies"
    assumed = (
        f"Assumed: gains vary between draws by {spreads} points (SD, {source}; --spread or --pilot), and two cells "
        f"answer {disagreement:.0%} of the held-out items differently (--disagreement)."
    )
    tell(whole, _tabulate_plan(found), *_tell_power(found.power), assumed, *map(console.note, found.notes))


def _tell_power(plans: Sequence[PowerPlan]) -> list[str]:
    """What can be seen, a sentence a line; with several spreads for the middle one, and in brackets for the others."""
    power = plans[len(plans) // 2]

    def tell(name: str) -> str:
        others = [getattr(each, name) for each in (plans[0], plans[-1])] if len(plans) > 1 else []
        about = f" ({' to '.join(f'{other:.1f}' for other in others)})" if others else ""
        return f"{getattr(power, name):.1f} points{about}"

    hump = "" if power.hump is None else f", and an inverted U of {tell('hump')} above both ends"
    told = [f"With {power.draws} draws, 80% of studies detect a gain of {tell('gain')} on validation{hump}."]
    if math.isinf(power.gain):
        told = [f"{power.draws} draw cannot tell the spread between draws, so no effect can be told from chance."]
    if power.confirmed is not None and math.isinf(power.confirmed):
        told.append("One confirmation draw cannot confirm a gain: set draws.confirm to 2 or more.")
    elif power.confirmed is not None:
        draws = f"{power.confirm_draws} draw" + ("" if power.confirm_draws == 1 else "s")
        told.append(f"The confirmation, which decides, has at most {draws}: 80% of studies detect {tell('confirmed')}.")
    return told


def _tabulate_plan(found: StudyPlan) -> Table:
    held, time, llm = "held-out" if found.rows.folds > 1 else "locked test", found.time, found.llm
    times = {"time of what is known, about": time.total, "  trials": time.trials}
    times |= {"  generating": time.generating, "  embedding": time.embedding}
    rows = [(name, "not known" if seconds is None else write_seconds(seconds)) for name, seconds in times.items()]
    if llm.dials:
        rows += [
            ("cost, about", "not known" if llm.cost is None else f"{llm.cost:,.4g} {llm.currency}".rstrip()),
            *(
                (f"{dial.dial}: {len(dial.levels)} levels, {dial.draws} draws, requests", f"{dial.usage.requests:,}")
                for dial in llm.dials
            ),
            ("confirmation: requests, at most", f"{max(dial.confirm.requests for dial in llm.dials):,}"),
            ("requests, each answer usable", f"{llm.usage.requests:,}"),
            ("requests, at most", f"{llm.most_requests:,}"),
            ("prompt tokens, about", f"{llm.usage.prompt_tokens:,}"),
            ("completion tokens, about", f"{llm.usage.completion_tokens:,}"),
        ]
    for stage in found.trials:
        recipe = f"{stage.recipe.trainer} with loss {stage.recipe.loss}"
        rows.append((f"{stage.stage}: {stage.cells} cells, {recipe}, trials", f"{stage.trials:,}"))
    rows += [(f"  seconds of one, {name}", f"{seconds:.3g}") for name, seconds in time.each.items()]
    rows.append(("trials at once", "the cluster's" if found.workers is None else f"{found.workers}"))
    counts = found.rows
    title = f"{found.name}: {counts.train} training, {counts.validation} validation, {counts.held_out} {held} rows"
    return show.tabulate_numbers(title, rows)


# --- collapse ---
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
        options.refuse_options(ctx, ["seed"], "an experiment takes it from its file")
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
    report, (heads, *rows) = (out or Path("runs") / config.name) / "report.html", result.table
    made, table = {**collapse_to_json(result), "report": report}, console.make_table(None, heads, rows)
    tell(made, table, *result.warned, *result.advice, f"report: {report}")


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
