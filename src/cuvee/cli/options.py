"""The options that commands share, and how the files they name are read."""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, cast, get_args, get_origin, get_type_hints

import typer

from cuvee._version import __version__
from cuvee.cli.console import Display
from cuvee.corpus import SCHEMA, Corpus, Origin, Task, load_corpus, read_columns
from cuvee.corpus.files import OUTPUTS
from cuvee.corpus.table import LATER
from cuvee.errors import ConfigError, InputError
from cuvee.registry import nearest_name, trust_modules

if TYPE_CHECKING:
    from cuvee.report import CardFacts
    from cuvee.study import Flow

C = TypeVar("C", bound=str)
_NAMED = inspect.Parameter.KEYWORD_ONLY


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a parameter whose type is a dataclass stand for options: one a field, or those that ``Annotated`` lists."""
    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[Callable[..., object], Sequence[str]]] = {}
    for each in signature.parameters.values():
        kind, *listed = get_args(each.annotation) if get_origin(each.annotation) is Annotated else (each.annotation,)
        if not is_dataclass(kind):
            parameters.append(each.replace(kind=_NAMED))
            continue
        hints = get_type_hints(kind, include_extras=True)
        options = [f for f in fields(kind) if (f.name in listed[0] if listed else f.init)]
        groups[each.name] = (cast("Callable[..., object]", kind), [f.name for f in options])
        for f in options:
            default = inspect.Parameter.empty if f.default is MISSING else f.default
            parameters.append(inspect.Parameter(f.name, _NAMED, default=default, annotation=hints[f.name]))

    def run(**given: object) -> None:
        made = {name: kind(**{each: given.pop(each) for each in names}) for name, (kind, names) in groups.items()}
        command(**given, **made)

    return _with_parameters(functools.wraps(command)(run), parameters)


def may_trust(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``--trust`` to a command that opens a study, a run folder or a model, which may name the user's own code."""
    expanded = expand_options(command)
    option = inspect.Parameter("trust", _NAMED, default=None, annotation=Trust)

    def run(*, trust: list[str] | None, **given: object) -> None:
        with trust_modules(*trust or ()):
            expanded(**given)

    named = functools.wraps(expanded)(run)
    return _with_parameters(named, [*inspect.signature(expanded).parameters.values(), option])


def _with_parameters(command: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """The command with the parameters that typer is to see."""
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    vars(command)["__signature__"] = inspect.Signature(parameters)
    return command


def option_names(*groups: type) -> list[str]:
    """The options of groups."""
    return [each.name for group in groups for each in fields(group)]


Trust = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODULE",
        help="allow code of this module of your own, again and again; a study that names it, module:Name, is code then",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")]
Text = Annotated[str | None, typer.Option(help="column of the input")]
Label = Annotated[str | None, typer.Option(help="column of the label")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="where to write")]
Seed = Annotated[int, typer.Option(min=0)]
EncoderName = Annotated[str, typer.Option(help="minilm, hashing, or a sentence-transformers model")]
TaskName = Annotated[str, typer.Option(help="classification, generation or retrieval")]
Context = Annotated[str | None, typer.Option(help="column of what a question is about, for the task generation")]
Target = Annotated[Path, typer.Argument(help="study.yaml or a run folder")]
Group = Annotated[str | None, typer.Option(help="column of what belongs together: a source, a document")]
Metrics = Annotated[list[str] | None, typer.Option(help="only these metrics; all: every one")]
Against = Annotated[Path | None, typer.Option(help="real rows: adds shift and label agreement")]

PLAIN = ("text", "label", "group")
GROUPED = (*PLAIN, "context", "task")
UNGROUPED = ("text", "label", "context", "task")
"""Columns that commands take."""
GuardCells = Annotated[
    bool, typer.Option("--guard-cells/--no-guard-cells", help="CSV: an apostrophe before what a spreadsheet would run")
]


def refuse_options(ctx: typer.Context, names: Sequence[str], why: str) -> None:
    """Refuse options that were given but would have no effect.

    Raises:
        ConfigError: naming the first of them.
    """
    for name in names:
        if is_given(ctx, name):
            raise ConfigError(f"--{name.replace('_', '-')} has no effect here: {why}")


def is_given(ctx: typer.Context, name: str) -> bool:
    """Whether the user gave an option."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


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
            f"{exc}; this is the run folder's copy: with your own study.yaml "
            f"`cuvee run study.yaml --out {shlex.quote(str(folder))}` writes it again, and goes on "
            "with all that is there"
        ) from exc


@dataclass(frozen=True, kw_only=True)
class Columns:
    """How rows are read from a user's file; ``files`` are all that one command reads, or may read."""

    text: Text = None
    label: Label = None
    group: Group = None
    context: Context = None
    task: TaskName = "classification"
    files: tuple[Path | None, ...] = ()

    def checked(self, ctx: typer.Context, *files: Path | None) -> Columns:
        """With the files that a command reads; a task that there is not is refused, and a column it has no use for."""
        if choose_name(self.task, get_args(Task), "--task") != "generation":
            refuse_options(ctx, ["context"], f"it is for --task generation, this one is {self.task}")
        return replace(self, files=files)

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
            task=choose_name(self.task, get_args(Task), "--task"),
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


OutFile = Annotated[Path, typer.Option("--out", "-o", help="Parquet, JSONL or CSV")]


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where rows are written, and how what was done is told."""

    out: OutFile
    guard_cells: GuardCells = False
    json: Json = False

    def check(self, ctx: typer.Context) -> None:
        """Refuse a kind of file that there is not, before anything is made."""
        check_output(self.out)
        check_guard(ctx, self.out.suffix)


@dataclass(frozen=True, kw_only=True)
class Hub:
    """What the card of a dataset or a model says, and where both are uploaded to."""

    licence: Annotated[str, typer.Option(help="as the hub names it: cc-by-4.0, apache-2.0")] = "other"
    licence_name: Annotated[str, typer.Option(help="where the licence is 'other'")] = "unstated"
    real_licence: Annotated[str, typer.Option(help="terms of the real rows, in words")] = ""
    synthetic_licence: Annotated[str, typer.Option(help="terms of the synthetic rows, in words")] = ""
    language: Annotated[list[str] | None, typer.Option(help="of the texts: en")] = None
    push: Annotated[str | None, typer.Option(help="upload to the hub as NAMESPACE/NAME; needs HF_TOKEN")] = None
    public: Annotated[bool, typer.Option("--public", help="with --push: for all to see")] = False

    def describe(self, ctx: typer.Context, name: str) -> CardFacts:
        """The facts of a card, checked before anything is made."""
        from cuvee.report import CardFacts, Licences

        if self.push is None:
            refuse_options(ctx, ["public"], "it goes with --push")
        try:
            terms = Licences(
                blend=self.licence, name=self.licence_name, real=self.real_licence, synthetic=self.synthetic_licence
            )
        except ValueError as exc:
            raise ConfigError(f"--licence: {exc}") from exc
        try:
            return CardFacts(name=name, version=__version__, languages=self.language or [], licences=terms)
        except ValueError as exc:
            raise ConfigError(str(exc).replace("languages has", "--language is")) from exc


def told_command(ctx: typer.Context) -> str:
    """The command as it was given, for a card or a page."""
    return shlex.join(["cuvee", *cast("list[str]", ctx.obj)])


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
