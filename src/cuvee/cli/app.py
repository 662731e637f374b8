"""The commands."""

from __future__ import annotations

import functools
import inspect
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, ParamSpec, cast

import typer
from typer.core import TyperCommand
from typer.main import get_command

from cuvee._version import __version__
from cuvee.characters import check_name
from cuvee.cli import show
from cuvee.cli.progress import Display
from cuvee.config import config_schema, read_config, render_template
from cuvee.corpus import Corpus, load_corpus, read_columns
from cuvee.corpus.table import guess_columns
from cuvee.errors import ConfigError, CuveeError, InputError, TrialsFailed
from cuvee.generate.masking import mask_urls
from cuvee.inputs import show_value
from cuvee.recommend import advice_to_json
from cuvee.registry import trust_modules
from cuvee.study import Flow, make_demo, open_study

if TYPE_CHECKING:
    from click import UsageError
else:
    UsageError = typer.BadParameter.__base__  # newer releases of typer have a copy of click in them

app = typer.Typer(
    help="Find the blend: how diverse LLM-generated data should be, and how much of it to mix with real data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)

Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="MODULE",
        help="allow code of this module of your own, again and again; a study that names it, module:Name, is code then",
    ),
]
P = ParamSpec("P")


def may_trust(command: Callable[P, None]) -> Callable[..., None]:
    """Give ``--trust`` to a command that opens a study, a run folder or a model, which may name the user's own code."""
    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter("trust", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Trust)

    def run(*args: P.args, **given: P.kwargs) -> None:
        with trust_modules(*cast("list[str] | None", given.pop("trust", None)) or ()):
            command(*args, **given)

    found = functools.wraps(command)(run)
    parameters = [*signature.parameters.values(), option]
    found.__annotations__ = {each.name: each.annotation for each in parameters}
    vars(found)["__signature__"] = signature.replace(parameters=parameters)
    return found


Json = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")]
Text = Annotated[str | None, typer.Option("--text", help="column of the input")]
Label = Annotated[str | None, typer.Option("--label", help="column of the label")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="where to write")]
Seed = Annotated[int, typer.Option("--seed", min=0)]
EncoderName = Annotated[str, typer.Option("--encoder", help="minilm, hashing, or a sentence-transformers model")]
Target = Annotated[Path, typer.Argument(help="study.yaml or a run folder")]


def main() -> None:
    """Run the command line and leave at once: no library's exit handler may hang or print after it."""
    sys.excepthook = _report_defect
    cast("io.TextIOWrapper", sys.stdout).reconfigure(errors="backslashreplace")
    code = run_cli(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_cli(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are one line on stderr, exit code 2.

    It is 1 for a study that went through to its end, and of whose blends no trial finished.
    """
    for command in app.registered_commands:
        command.cls = _Command
    try:
        # not app(...): that puts a hook of its own in place of _report_defect
        code = get_command(app)(args=list(arguments), prog_name="cuvee", obj=list(arguments), standalone_mode=False)
    except CuveeError as exc:
        _complain(f"error: {exc}", "red")
        return 1 if isinstance(exc, TrialsFailed) else 2
    except UsageError as exc:
        told = io.StringIO()
        exc.show(told)
        show.err.print(told.getvalue(), end="", soft_wrap=True)
        return exc.exit_code
    except KeyboardInterrupt:
        return _stopped()
    except SystemExit as exc:  # of a pipe that nobody reads
        code = exc.code
    return _stopped() if code == _CTRL_C else int(code or 0)  # typer turns Ctrl-C into exit code 130


class _Command(TyperCommand):
    """A command whose numbers are finite, and of at most 64 bits."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        rest = super().parse_args(ctx, args)
        for name, value in ctx.params.items():
            if isinstance(value, int | float) and not abs(value) < (2**63 if isinstance(value, int) else float("inf")):
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{option} is {show_value(value)}; give a finite number of at most 64 bits")
        return rest


_CTRL_C = 130


def _stopped() -> int:
    _complain("stopped; everything answered and finished is kept: run the same command again to go on", "yellow")
    return _CTRL_C


def _complain(message: str, style: str) -> None:
    show.err.print(" ".join(mask_urls(message).split()), style=style, soft_wrap=True)


def _report_defect(kind: type[BaseException], value: BaseException, _trace: TracebackType | None) -> None:
    """One line for what should never happen; the traceback only when asked for."""
    if os.environ.get("CUVEE_DEBUG"):
        show.err.print("".join(traceback.format_exception(value)), soft_wrap=True)
    _complain(
        f"defect in cuvee {__version__}: {kind.__name__}: {value}; set CUVEE_DEBUG=1 for the traceback and report it",
        "red",
    )


def refuse_options(ctx: typer.Context, names: Sequence[str], why: str) -> None:
    """Refuse options that were given but would have no effect.

    Raises:
        ConfigError: naming the first of them.
    """
    for name in names:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"--{name.replace('_', '-')} has no effect here: {why}")


IN_STUDY = "a study takes it from study.yaml"
COLUMNS = ("text", "label")
ENDPOINT = ("base_url", "model", "api", "api_key_env")


def is_study(path: Path) -> bool:
    """Whether a path is a study.yaml or a run folder."""
    return path.suffix in (".yaml", ".yml") or (path / "study.yaml").is_file()


@contextmanager
def open_shown(path: Path, out: Path | None, display: Display) -> Iterator[Flow]:
    """A study opened from study.yaml or from a run folder, with progress on stderr."""
    if path.is_dir() and not (path / "study.yaml").is_file():
        raise InputError(f"{path}: not a run folder (it has no study.yaml); give study.yaml or a run folder")
    folder = out or (path if path.is_dir() else None)
    config = path / "study.yaml" if path.is_dir() else path
    if path.is_dir():
        _check_copy(path, config)
    with display, open_study(config, out=folder, listener=display) as flow:
        yield flow


def _check_copy(folder: Path, config: Path) -> None:
    """Say of a run folder's study.yaml that cannot be read how it is written again."""
    try:
        read_config(config)
    except ConfigError as exc:
        raise ConfigError(
            f"{exc}; this is the run folder's copy: with your own study.yaml `cuvee run study.yaml --out {folder}` "
            "writes it again, and goes on with all that is there"
        ) from exc


def _finish(flow: Flow, display: Display, json: bool) -> None:
    try:
        result = flow.result
    except TrialsFailed:
        display.stop()
        if json:
            report = flow.study.folder.path / "report.html"
            show.show_json({**advice_to_json(flow.advice), "report": str(report), "seconds": dict(display.seconds)})
        raise
    display.stop()
    if json:
        show.show_json(
            {
                **advice_to_json(result.advice),
                "report": str(result.report),
                "blend": str(result.folder / "blend"),
                "seconds": dict(display.seconds),
            }
        )
    else:
        show.show_measurements(result.measurements)
        show.show_advice(result.advice)
        if result.failed is not None:
            show.show_failed(result.failed, result.folder)
        show.show_composition(result.composition)
        show.out.print(f"blend:  {result.folder / 'blend'}", soft_wrap=True)
        show.out.print(f"report: {result.report}", soft_wrap=True)
    show.show_seconds(display.seconds)


@app.callback(invoke_without_command=True)
def start(
    version: Annotated[bool, typer.Option("--version", help="print the version and leave", is_eager=True)] = False,
) -> None:
    """Find the blend: how diverse LLM-generated data should be, and how much of it to mix with real data."""
    if version:
        show.out.print(__version__)
        raise typer.Exit


@app.command()
@may_trust
def run(study: Target, out: Out = None, json: Json = False) -> None:
    """Run a whole study, or go on with one."""
    display = Display()
    with open_shown(study, out, display) as flow:
        _finish(flow, display, json)


@app.command()
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


@app.command()
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
    show.out.print(f"{data}: columns {', '.join(names)}; text is {text!r}, label is {label!r}")
    show.out.print(f"wrote {target} and {schema}; next: cuvee run {target}")


def load_rows(path: Path, text: str | None, label: str | None) -> Corpus:
    """Rows of a file, by the columns the user named."""
    return load_corpus(path, text=text, label=label)
