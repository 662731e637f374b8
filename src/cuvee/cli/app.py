"""The commands, each loaded when it is asked for, and what becomes of their errors."""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperCommand
from typer.main import get_command

from cuvee._version import __version__
from cuvee.cli import console
from cuvee.errors import ConfigError, CuveeError, InputWarning, TrialsAwaited, TrialsFailed

if TYPE_CHECKING:
    from click import UsageError
else:
    UsageError = typer.BadParameter.__base__  # newer releases of typer have a copy of click in them

# Name of a command -> its module, which has a function of that name, its line in ``cuvee --help``, and what one might
# type after the name.
COMMANDS = {
    "run": ("stages", "Run a whole study, of a file of rows or study.yaml.", "reviews.csv --pool made.jsonl --time 9m"),
    "demo": ("stages", "Run the demo, offline: 8 minutes; --small: one minute.", "--small"),
    "collapse": ("stages", "Train a model again and again on its own output.", "collapse.yaml"),
    "init": ("stages", "Write a commented study.yaml for a file of rows.", "reviews.csv --text review --label stars"),
    "plan": ("stages", "Show trials, requests, cost, time, power of a study.", "study.yaml"),
    "status": ("watching", "Show how a study goes on that another process runs.", "runs/NAME"),
    "watch": ("watching", "Serve the page of a study here while it runs.", "runs/NAME"),
    "recommend": ("stages", "Say what to do, from the trials of a study.", "runs/NAME --json"),
    "report": ("stages", "Write report and recommended blend of a study.", "runs/NAME --charts charts"),
    "ledger": ("watching", "Count answers, tokens, cost and failed requests.", "runs/NAME --price-prompt 0.15"),
    "generate": ("generating", "Generate the pools of a study, or rows like a file's.", "study.yaml"),
    "prompts": ("generating", "List, print or copy the prompts.", ""),
    "measure": ("measuring", "Measure diversity, and the shift from real data.", "pool.jsonl --against real.jsonl"),
    "compare": ("measuring", "Compare corpora at equal rows and matched lengths.", "a.jsonl b.jsonl --against c.jsonl"),
    "split": ("mixing", "Split a file into train, validation and test.", "reviews.csv --test 0.2 --out data"),
    "select": ("mixing", "Filter a pool, and choose rows by their diversity.", "pool.jsonl --real real.csv --rows 99"),
    "mix": ("mixing", "Mix real and synthetic rows at an exact share.", "real.jsonl pool.jsonl --share 0.5 --dedupe"),
    "replace": ("mixing", "Let paraphrases stand in for other rows.", "real.jsonl versions.jsonl --m-p 4 --group id"),
    "train": ("training", "Train a model on a blend, or on what a study advises.", "blend.parquet --out model"),
    "evaluate": ("training", "Evaluate a model on held-out real rows.", "model test.jsonl"),
    "predict": ("training", "Predict every row of a file.", "model new.csv"),
    "check": ("measuring", "Check files against rules; exit code 1 if one fails.", "made.jsonl --rules rules.yaml"),
    "doctor": ("generating", "Check installation, models, machine and LLM.", ""),
}
_CTRL_C = 130


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

    It is 1 for a study that went through to its end, and of whose blends no trial finished, and for one whose trials
    run elsewhere and are not finished.
    """
    console.err.quiet = False
    try:
        # not app(...): that puts a hook of its own in place of _report_defect
        if "" in arguments:
            raise ConfigError("an argument is empty; is a variable of the shell not set?")
        with _noted_warnings():
            command = load_commands(next((each for each in arguments or _typed() if not each.startswith("-")), ""))
            code = command(args=list(arguments), prog_name="cuvee", obj=list(arguments), standalone_mode=False)
    except CuveeError as exc:
        _complain(f"error: {exc}", "red")
        return 1 if isinstance(exc, TrialsFailed | TrialsAwaited) else 2
    except UsageError as exc:
        said = exc.format_message().replace("Value error, ", "").rstrip(".")
        if arguments:
            _complain(f"error: {said}; see {exc.ctx.command_path if exc.ctx else 'cuvee'} --help", "red")
        else:  # it is the help
            console.err.print(said, soft_wrap=True)
        return exc.exit_code
    except KeyboardInterrupt:
        return _stopped()
    except SystemExit as exc:  # of a pipe that nobody reads
        code = exc.code
    return _stopped() if code == _CTRL_C else int(code or 0)  # typer turns Ctrl-C into exit code 130


def _typed() -> list[str]:
    """What stands on the line that a shell wants to be completed, in bash and in others."""
    return os.environ.get("_TYPER_COMPLETE_ARGS", os.environ.get("COMP_WORDS", "")).split()[1:]


@contextmanager
def _noted_warnings() -> Iterator[None]:
    """Print each warning about the user's data once, as a note."""
    seen: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:  # noqa: ANN401
        if not issubclass(category, InputWarning):
            before(message, category, *place, **more)
        elif (said := str(message)) not in seen:
            seen.add(said)
            _complain(f"note: {said}", "yellow")

    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        before, warnings.showwarning = warnings.showwarning, show
        yield


def load_commands(wanted: str) -> Callable[..., str | int | None]:
    """The command line with one command loaded; of the others it knows name and line."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.callback(invoke_without_command=True)(_start)
    for name, (module, line, example) in COMMANDS.items():
        if name == wanted:
            app.command(name, cls=_Command, epilog=f"Example: cuvee {name} {example}".rstrip())(
                getattr(import_module(f"cuvee.cli.{module}"), name)
            )
        else:
            app.command(name, help=line)(_start)  # listed, never run
    return get_command(app)


class _Command(TyperCommand):
    """A command whose numbers are finite, and of at most 64 bits."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        from cuvee.inputs import show_value

        rest = super().parse_args(ctx, args)
        for name, value in ctx.params.items():
            if isinstance(value, int | float) and not abs(value) < (2**63 if isinstance(value, int) else float("inf")):
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{option} is {show_value(value)}; give a finite number of at most 64 bits")
        return rest


def _start(
    version: Annotated[bool, typer.Option("--version", help="print the version and leave", is_eager=True)] = False,
) -> None:
    """Find the blend: how diverse LLM-generated data should be, and how much of it to mix with real data."""
    if version:
        console.out.print(__version__)
        raise typer.Exit


def _stopped() -> int:
    _complain("stopped; everything answered and finished is kept: run the same command again to go on", "yellow")
    return _CTRL_C


def _complain(message: str, style: str) -> None:
    from cuvee.masking import mask_urls

    console.err.quiet &= style != "red"  # an error is always told
    console.err.print(" ".join(mask_urls(message).split()), style=style, soft_wrap=True)


def _report_defect(kind: type[BaseException], value: BaseException, _trace: TracebackType | None) -> None:
    """One line for what should never happen; the traceback only when asked for."""
    if os.environ.get("CUVEE_DEBUG"):
        console.err.print("".join(traceback.format_exception(value)), soft_wrap=True)
    _complain(
        f"defect in cuvee {__version__}: {kind.__name__}: {value}; report it with what CUVEE_DEBUG=1 shows", "red"
    )
