"""The options that commands share, and how the files they name are read."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeVar, cast

import typer

from cuvee.cli.console import Display
from cuvee.corpus import SCHEMA, Corpus, Origin, Task, load_corpus, read_columns
from cuvee.corpus.files import OUTPUTS
from cuvee.corpus.table import LATER
from cuvee.errors import ConfigError, InputError
from cuvee.registry import nearest_name, trust_modules

if TYPE_CHECKING:
    from cuvee.study import Flow

Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="MODULE",
        help="allow code of this module of your own, again and again; a study that names it, module:Name, is code then",
    ),
]
P = ParamSpec("P")
C = TypeVar("C", bound=str)


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
Group = Annotated[str | None, typer.Option("--group", help="column of what belongs together: a source, a document")]
Metrics = Annotated[list[str] | None, typer.Option("--metric", help="only these metrics; all: every one")]
Against = Annotated[Path | None, typer.Option("--against", help="real rows: adds shift and label agreement")]

GuardCells = Annotated[
    bool, typer.Option("--guard-cells/--no-guard-cells", help="CSV: an apostrophe before what a spreadsheet would run")
]


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
    from cuvee.study import open_study

    if path.is_dir():
        _check_copy(path, config)
    with display, open_study(config, out=folder, listener=display) as flow:
        yield flow


def _check_copy(folder: Path, config: Path) -> None:
    """Say of a run folder's study.yaml that cannot be read how it is written again."""
    from cuvee.config import read_config

    try:
        read_config(config)
    except ConfigError as exc:
        raise ConfigError(
            f"{exc}; this is the run folder's copy: with your own study.yaml `cuvee run study.yaml --out {folder}` "
            "writes it again, and goes on with all that is there"
        ) from exc


@dataclass(frozen=True, slots=True)
class Columns:
    """How rows are read from a user's file; ``files`` are all that one command reads, or may read."""

    text: str | None
    label: str | None
    group: str | None = None
    task: Task = "classification"
    context: str | None = None
    files: tuple[Path | None, ...] = ()

    def load(self, path: Path, *, origin: Origin = "real", labelled: bool = False) -> Corpus:
        """The rows of a file; unless ``labelled``, a label is welcome and not needed.

        The columns that a user names may be those of another of the ``files`` alone: one that Cuvée wrote is read by
        its own then, so that synthetic rows go with the real ones that they are like.
        """
        own = self._is_of_others(path)
        return load_corpus(
            path,
            text=None if own else self.text,
            label=None if own else self.label,
            group=self.group,
            context=None if own else self.context,
            origin=origin,
            task=self.task,
            labelled=labelled,
        )

    def load_other(self, path: Path) -> Corpus:
        """The rows of a file that need not have groups, such as the real rows that paraphrases came from."""
        group = self.group if self.group in read_columns(path) else None
        return replace(self, group=group).load(path)

    def _is_of_others(self, path: Path) -> bool:
        """Whether Cuvée wrote a file, and the named columns are those of another one."""
        named = {name for name in (self.text, self.label) if name is not None}
        there = set(read_columns(path)) if named else set()
        if named <= there or not set(SCHEMA.names) - set(LATER) <= there:
            return False
        return any(named <= set(read_columns(other)) for other in self.files if other is not None)


def choose_name(given: str, valid: Sequence[C], option: str) -> C:
    """One of the valid names, else a ConfigError that names the option."""
    for name in valid:
        if given == name:
            return name
    raise ConfigError(f"{option} is {given!r}; {nearest_name(given, valid)}")


def check_output(out: Path) -> None:
    """Refuse a file to write whose kind is not known, before anything is made.

    Raises:
        ConfigError: naming the kinds that are.
    """
    if out.suffix not in OUTPUTS:
        raise ConfigError(f"--out {out}: unknown kind of file; use {', '.join(OUTPUTS)}")


def check_guard(ctx: typer.Context, suffix: str) -> None:
    """Refuse ``--guard-cells`` where no CSV is written."""
    if suffix != ".csv":
        refuse_options(ctx, ["guard_cells"], "it is for a CSV")
