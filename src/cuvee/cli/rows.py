"""Rows of a user's files, and what is shown while they are measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cuvee.cli import show
from cuvee.corpus import Corpus, Task, load_corpus, read_columns
from cuvee.corpus.output import OUTPUTS
from cuvee.errors import ConfigError

_UNITS = {"embed": "texts", "compare rows": "tiles", "measure": "metrics", "compare": "draws"}

Group = Annotated[str | None, typer.Option("--group", help="column of what belongs together: a source, a document")]
Metrics = Annotated[list[str] | None, typer.Option("--metric", help="only these metrics; all: every one")]
Against = Annotated[Path | None, typer.Option("--against", help="real rows: adds shift and label agreement")]


@dataclass(frozen=True, slots=True)
class Columns:
    """How rows are read from a user's file."""

    text: str | None
    label: str | None
    group: str | None
    task: Task = "classification"

    def load(self, path: Path) -> Corpus:
        """The rows of a file; a label is welcome and not needed."""
        return load_corpus(path, text=self.text, label=self.label, group=self.group, task=self.task, labelled=False)

    def load_other(self, path: Path) -> Corpus:
        """The rows of a file that need not have groups, such as the real rows that paraphrases came from."""
        group = self.group if self.group in read_columns(path) else None
        return load_corpus(path, text=self.text, label=self.label, group=group, task=self.task, labelled=False)


def check_output(out: Path) -> None:
    """Refuse a file to write whose kind is not known, before anything is made.

    Raises:
        ConfigError: naming the kinds that are.
    """
    if out.suffix not in OUTPUTS:
        raise ConfigError(f"--out {out}: unknown kind of file; use {', '.join(OUTPUTS)}")


class Watch:
    """Shows what measuring is at, with the time left."""

    def __init__(self, display: show.Display) -> None:
        self._display = display
        self._seen: set[str] = set()

    def __call__(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` units of something are finished."""
        if what not in self._seen:
            self._seen.add(what)
            self._display.started(what, _UNITS.get(what, "units"))
        self._display.advanced(what, done, total)
