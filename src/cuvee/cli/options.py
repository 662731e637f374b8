"""The options that commands share, and how the files they name are read."""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args, get_origin, get_type_hints

import typer
from rich.console import RenderableType
from typer import Argument, Option

from cuvee._version import __version__
from cuvee.cli import console
from cuvee.corpus import Corpus, Origin, Task, load_corpus, read_columns
from cuvee.corpus.files import OUTPUTS
from cuvee.corpus.formats import SUFFIXES
from cuvee.corpus.table import is_ours
from cuvee.errors import ConfigError, InputError
from cuvee.registry import trust_modules

if TYPE_CHECKING:
    from cuvee.config.generators import ReaderConfig
    from cuvee.report import CardFacts
    from cuvee.study.flow import Flow

Command = Callable[..., None]
_NAMED = inspect.Parameter.KEYWORD_ONLY

Trust = Annotated[
    list[str] | None,
    Option(
        metavar="MODULE", help="run code of this module of yours where a study names it as module:Name; can be repeated"
    ),
]
Quiet = Annotated[bool, Option("--quiet", "-q", help="no progress and no notes, only errors")]
Label = Annotated[str | None, Option(help="column of the label")]
Text = Annotated[str | None, Option(help="column of the input")]
TaskName = Annotated[Task | None, Option(help="what rows are for; by default as they are")]
Out = Annotated[Path | None, Option("--out", "-o", help="where to write")]
Seed = Annotated[int, Option(min=0)]
EncoderName = Annotated[str, Option(help="minilm, hashing, or a sentence-transformers model; @bfloat16 after it")]
Target = Annotated[Path, Argument(help="study.yaml or a run folder")]
Metrics = Annotated[list[str] | None, Option(help="measure only these metrics; all: every metric")]
Against = Annotated[Path | None, Option(help="real rows: adds shift and label agreement")]
GuardCells = Annotated[
    bool, Option("--guard-cells/--no-guard-cells", help="CSV: an apostrophe before cells that a spreadsheet would run")
]
HF = "hf:"  # how a transformers model is named where an endpoint's model could be
GROUNDED = "least share of an answer's content words that stand in its context"
Reader = Annotated[str | None, Option(help="an LLM that answers again: embedded, FILE.gguf or hf:PATH")]

# Columns that commands take.
PLAIN = ("text", "label", "group")
GROUPED = (*PLAIN, "context", "task")
UNGROUPED = ("text", "label", "context", "task")


# --- commands ---
_WRITTEN = ("out", "page", "examples", "removed", "junit", "quarantine", "ledger")  # options that name a new file


def may_trust(command: Command, *, trusts: bool = True) -> Command:
    """Let a parameter whose type is a dataclass stand for options: one a field, or those that ``Annotated`` lists.

    A mapping in ``Annotated`` gives fields another default.

    The command gets ``--quiet``, and ``--trust`` too: what it opens, a study, a run folder or a model, may name the
    user's own code.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[Callable[..., object], Sequence[str]]] = {}
    for each in inspect.signature(command, eval_str=True).parameters.values():
        kind, *more = get_args(each.annotation) if get_origin(each.annotation) is Annotated else (each.annotation,)
        if not is_dataclass(kind):
            parameters.append(each.replace(kind=_NAMED))
            continue
        hints, given = get_type_hints(kind, include_extras=True), more[0] if more else {}
        options = [f for f in fields(kind) if (f.init if isinstance(given, dict) else f.name in given)]
        groups[each.name] = (cast("Callable[..., object]", kind), [f.name for f in options])
        for f in options:
            default = given[f.name] if isinstance(given, dict) and f.name in given else f.default
            default = inspect.Parameter.empty if default is MISSING else default
            parameters.append(inspect.Parameter(f.name, _NAMED, default=default, annotation=hints[f.name]))
    parameters.append(inspect.Parameter("quiet", _NAMED, default=False, annotation=Quiet))
    if trusts:
        parameters.append(inspect.Parameter("trust", _NAMED, default=None, annotation=Trust))

    @functools.wraps(command)
    def run(*, trust: list[str] | None = None, quiet: bool = False, **given: object) -> None:
        console.err.quiet = quiet
        _refuse_loss(given)
        made = {name: kind(**{each: given.pop(each) for each in names}) for name, (kind, names) in groups.items()}
        with trust_modules(*trust or ()):
            command(**given, **made)

    run.__annotations__ = {each.name: each.annotation for each in parameters}  # what typer is to see
    vars(run)["__signature__"] = inspect.Signature(parameters)
    return run


# The same without ``--trust``, for a command that opens no file that can name code.
expand_options = functools.partial(may_trust, trusts=False)


def _refuse_loss(given: Mapping[str, object]) -> None:
    """Refuse to write over a file that the same command reads, or writes too."""
    files = [(n, p) for n, each in given.items() for p in (each if isinstance(each, list) else [each])]
    known = {path.resolve() for name, path in files if isinstance(path, Path) and name not in _WRITTEN}
    for name, path in files:
        if name in _WRITTEN and isinstance(path, Path):
            if path.resolve() in known and not path.is_dir():
                raise ConfigError(f"--{name} {path}: the same command reads or writes this file; name another one")
            known.add(path.resolve())


def is_given(ctx: typer.Context, name: str) -> bool:
    """Whether the user gave an option."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_options(ctx: typer.Context, names: Iterable[str], why: str) -> None:
    """Refuse options that were given but would have no effect.

    Raises:
        ConfigError: naming the first of them.
    """
    for name in names:
        if is_given(ctx, name):
            raise ConfigError(f"--{name.replace('_', '-')} has no effect here: {why}")


def refuse_idle(ctx: typer.Context, **why: str | bool) -> None:
    """Refuse options that would have no effect: option -> why it has none; empty or False where it has one."""
    for name, told in why.items():
        if told:
            refuse_options(ctx, [name], str(told))


def refuse_others(ctx: typer.Context, *allowed: str) -> None:
    """Refuse all options that were given, except those allowed, ``--json``, ``--trust``, ``--quiet``."""
    others = (name for name in ctx.params if name not in (*allowed, "json", "trust", "quiet"))
    refuse_options(ctx, others, "a study takes it from study.yaml")


def check_pairs(ctx: typer.Context, **needs: str) -> None:
    """Refuse options without the one that each of them goes with."""
    why = {name: f"it goes with --{other.replace('_', '-')}" for name, other in needs.items()}
    refuse_idle(ctx, **{name: not is_given(ctx, needs[name]) and told for name, told in why.items()})


def told_command(ctx: typer.Context) -> str:
    """The command as it was given, for a card or a page."""
    return shlex.join(["cuvee", *cast("list[str]", ctx.obj)])


# --- studies ---
def is_study(path: Path) -> bool:
    """Whether a path is a study.yaml or a run folder."""
    return path.suffix in (".yaml", ".yml") or (path / "study.yaml").is_file()


def find_study(path: Path) -> Path:
    """The study.yaml that a path is, or that is in the run folder there."""
    if path.is_dir() and not (path / "study.yaml").is_file():
        rows = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        do = f"to study its rows: cuvee run {shlex.quote(str(rows[0]))}" if rows else "give study.yaml or a run folder"
        raise InputError(f"{path}: not a run folder (it has no study.yaml); {do}")
    if path.suffix in SUFFIXES:
        do = f"a file of rows and no study; `cuvee init {shlex.quote(str(path))}` writes one"
        raise InputError(f"{path}: {do if path.exists() else 'no such file; give rows, study.yaml or a run folder'}")
    return path / "study.yaml" if path.is_dir() else path


@contextmanager
def open_shown(path: Path, out: Path | None = None) -> Iterator[Flow]:
    """A study opened from study.yaml or from a run folder, with progress on stderr."""
    from cuvee.config.reading import read_config
    from cuvee.study.opening import open_study

    config, folder = find_study(path), path if path.is_dir() else None
    try:
        given = config if folder is None else read_config(config)
    except ConfigError as exc:
        raise ConfigError(
            f"{exc}; this is the run folder's copy: with your own study.yaml "
            f"`cuvee run study.yaml --out {shlex.quote(str(folder))}` writes it again, and goes on "
            "with all that is there"
        ) from exc
    with console.Display() as display, open_study(given, out=out or folder, listener=display) as flow:
        yield flow


def read_reader(name: str, least: float | None = None) -> ReaderConfig:
    """The filter of the LLM that ``--reader`` names.

    Raises:
        ConfigError: it names none.
    """
    from cuvee.config.generators import EmbeddedGenerator, ReaderConfig, TransformersGenerator

    by: EmbeddedGenerator | TransformersGenerator
    if name.startswith(HF):
        by = TransformersGenerator(kind="transformers", model=name)
    elif name == "embedded" or name.endswith(".gguf"):
        by = EmbeddedGenerator(gguf=None if name == "embedded" else name)
    else:
        raise ConfigError(f"--reader is {name!r}; give embedded, FILE.gguf, or hf: and a folder or a name on the hub")
    return ReaderConfig(name="reader", by=by, **({} if least is None else {"least": least}))


def check_labels(corpus: Corpus, path: Path) -> None:
    """Refuse rows of a file that all have one label."""
    if corpus.task == "classification" and len(corpus.labels) == 1:
        raise InputError(f"{path}: one label only ({corpus.labels[0]!r}); is it in another column (--label)?")


@contextmanager
def explaining(where: str = "") -> Iterator[None]:
    """Make an error of the user's of what a function says that is given what it cannot use, after ``where``."""
    try:
        yield
    except ValueError as exc:
        raise ConfigError(f"{where}{exc}") from exc


# --- groups of options ---
@dataclass(frozen=True, kw_only=True)
class Tell:
    """How the result of a command is told: in tables and sentences, or as one JSON object."""

    json: Annotated[bool, Option("--json", help="print one JSON object on stdout")] = False

    def __call__(self, value: object, *shown: RenderableType) -> None:
        """Print the object, or what is shown in its place; a sentence is never wrapped, so that paths can be copied."""
        if self.json:
            console.show_json(value)
        else:
            for each in shown:
                console.out.print(each, soft_wrap=isinstance(each, str))


@dataclass(frozen=True, kw_only=True)
class Output(Tell):
    """Where rows are written, and how what was done is told."""

    out: Annotated[Path, Option("--out", "-o", help="Parquet, JSONL or CSV")]
    guard_cells: GuardCells = False

    def check(self, ctx: typer.Context) -> None:
        """Refuse an unknown kind of file before any work is done."""
        check_kind(ctx, "out", self.out)


def check_kind(ctx: typer.Context, option: str, path: Path) -> None:
    """Refuse an unknown kind of file, and ``--guard-cells`` for one that is no CSV."""
    if path.suffix not in OUTPUTS:
        raise ConfigError(f"--{option} {path}: unknown kind of file; use {', '.join(OUTPUTS)}")
    check_guard(ctx, path.suffix)


def check_guard(ctx: typer.Context, suffix: str) -> None:
    """Refuse ``--guard-cells`` where no CSV is written."""
    if suffix != ".csv":
        refuse_options(ctx, ["guard_cells"], "it is for a CSV")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """How rows are read from a user's file; ``files`` are all that one command reads, or may read."""

    text: Text = None
    label: Label = None
    group: Annotated[str | None, Option(help="column of groups that stay together: a source, a document")] = None
    context: Annotated[str | None, Option(help="column of what a question is about, for the task generation")] = None
    task: TaskName = None
    files: tuple[Path | None, ...] = ()

    def checked(self, ctx: typer.Context, *files: Path | None) -> Columns:
        """These columns with the files that a command reads; useless columns are refused."""
        task = "generation" if self.context is not None and self.task is None else self.task
        if task != "generation":
            refuse_options(ctx, ["context"], f"it is for --task generation, this one is {task}")
        return replace(self, files=files, task=task)

    def load(self, path: Path, *, origin: Origin = "real", labelled: bool = False) -> Corpus:
        """The rows of a file; unless ``labelled``, a label is welcome and not needed.

        The columns that a user names may be those of another of the ``files`` alone: one that Cuvée wrote is read by
        its own then, so that synthetic rows go with the real ones that they are like.
        """
        text, label, context = (None,) * 3 if self._is_of_others(path) else (self.text, self.label, self.context)
        return load_corpus(
            path, text=text, label=label, group=self.group, context=context,
            origin=origin, task=self.task, labelled=labelled,
        )  # fmt: skip

    def like(self, corpus: Corpus) -> Columns:
        """These columns for other rows of the task that those read first have."""
        return replace(self, task=corpus.task)

    def load_other(self, path: Path) -> Corpus:
        """The rows of a file in which the group column may be missing, such as the sources of paraphrases."""
        group = self.group if self.group in read_columns(path) else None
        return replace(self, group=group).load(path)

    def _is_of_others(self, path: Path) -> bool:
        """Whether Cuvée wrote a file, and the named columns are those of another one."""
        named = {name for name in (self.text, self.label) if name is not None}
        there = set(read_columns(path)) if named else set()
        if named <= there or not is_ours(there):
            return False
        return any(named <= set(read_columns(other)) for other in self.files if other is not None)


@dataclass(frozen=True, kw_only=True)
class Hub:
    """What the card of a dataset or a model says, and where both are uploaded to."""

    licence: Annotated[str, Option(help="licence, as the hub names it: cc-by-4.0, apache-2.0")] = "other"
    language: Annotated[list[str] | None, Option(help="language of the texts: en")] = None
    push: Annotated[str | None, Option(help="upload to the hub as NAMESPACE/NAME; needs HF_TOKEN")] = None
    public: Annotated[bool, Option("--public", help="with --push: make it public")] = False

    def describe(self, ctx: typer.Context, name: str) -> CardFacts:
        """The facts of a card, checked before anything is made."""
        from cuvee.report import CardFacts, Licences, is_language

        check_pairs(ctx, public="push")
        with explaining("--licence: "):
            terms = Licences(blend=self.licence)
        for code in self.language or ():
            if not is_language(code):
                raise ConfigError(f"--language is {code!r}; give ISO 639 codes such as en or pt-BR")
        return CardFacts(name=name, version=__version__, languages=self.language or [], licences=terms)
