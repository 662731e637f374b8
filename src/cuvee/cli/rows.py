"""Rows of a user's files, and what is shown while they are measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from cuvee.cli.app import refuse_options
from cuvee.cli.progress import Display
from cuvee.corpus import SCHEMA, Corpus, Origin, Task, load_corpus, read_columns
from cuvee.corpus.files import OUTPUTS
from cuvee.corpus.table import LATER
from cuvee.errors import ConfigError

_UNITS = {"embed": "texts", "compare rows": "tiles", "measure": "metrics", "compare": "draws"}

Group = Annotated[str | None, typer.Option("--group", help="column of what belongs together: a source, a document")]
Metrics = Annotated[list[str] | None, typer.Option("--metric", help="only these metrics; all: every one")]
Against = Annotated[Path | None, typer.Option("--against", help="real rows: adds shift and label agreement")]

GuardCells = Annotated[
    bool, typer.Option("--guard-cells/--no-guard-cells", help="CSV: an apostrophe before what a spreadsheet would run")
]


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


class Watch:
    """Shows what measuring is at, with the time left."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._seen: set[str] = set()

    def __call__(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` units of something are finished."""
        if what not in self._seen:
            self._seen.add(what)
            self._display.started(what, _UNITS.get(what, "units"))
        self._display.advanced(what, done, total)
