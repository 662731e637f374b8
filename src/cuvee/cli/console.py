"""The terminal: what is printed, and the progress that is drawn while work runs.

Everything that reaches the terminal goes through ``out`` and ``err``, or through ``show_json`` and ``show_text``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich import box, progress
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from cuvee.characters import to_json, visible, visible_lines

_UNCUT = 10_000  # columns
_UNITS = {"embed": "texts", "compare rows": "tiles", "measure": "metrics", "compare": "draws"}


class PlainConsole(Console):
    """A console that shows text as it is: no markup, no emoji codes, control characters as escapes."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:  # in a file or a pipe nothing is cut off
            self.width = _UNCUT

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 (rich's own options)
        """As rich does it, control characters as escapes."""
        return super().render_str(visible_lines(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """As rich does it; texts that were made elsewhere get their escapes here."""
        for segment in super().render(renderable, options):
            plain = segment.control or segment.text == visible_lines(segment.text)
            yield segment if plain else Segment(visible_lines(segment.text), segment.style)


out = PlainConsole()
err = PlainConsole(stderr=True)


def show_json(value: object) -> None:
    """One object on stdout."""
    out.file.write(to_json(value) + "\n")


def show_text(text: str) -> None:
    """A text on stdout, never wrapped."""
    out.file.write(visible_lines(text))


def make_table(
    title: str | None, heads: Iterable[str], rows: Iterable[Sequence[RenderableType] | None], *, wrap: bool = False
) -> Table:
    """A table: the first column is of names, the others of numbers.

    Args:
        title: above it.
        heads: of its columns.
        rows: their cells; None in place of a row is a line between two.
        wrap: break cells of numbers where the terminal is narrow.
    """
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in heads:
        first = not table.columns
        table.add_column(visible_lines(head), justify="left" if first else "right", no_wrap=first or not wrap)
    for row in rows:
        if row is None:
            table.add_section()
        else:
            table.add_row(*(visible(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def fold_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Table]:
    """A table, or several that each fit the terminal: all have the first column, and as many others as there is room.

    Nothing is folded in a file or a pipe.
    """
    widths = [max(cell_len(row[i]) for row in (heads, *rows)) + 2 for i in range(len(heads))]
    parts: list[list[int]] = [[]]
    for column in range(1, len(heads)):
        if parts[-1] and sum(widths[i] for i in (0, *parts[-1], column)) + 1 > out.width:
            parts.append([])
        parts[-1].append(column)
    return [
        make_table(title if part is parts[0] else None, [heads[i] for i in (0, *part)],
                   [[row[i] for i in (0, *part)] for row in rows], wrap=True)
        for part in parts
    ]  # fmt: skip


def note(text: str) -> Text:
    """Something the user should know."""
    return Text(f"note: {visible_lines(text)}", style="yellow")


class PlainColumn(progress.ProgressColumn):
    """A column of plain text about a stage."""

    def __init__(self, read: Callable[[progress.Task], str], style: str, *, cut: bool = False) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="ellipsis" if cut else "ignore"))
        self._read, self._style = read, style

    def render(self, task: progress.Task) -> Text:
        """The text as it is now."""
        return Text(visible(self._read(task)), style=self._style)


def _write_rate(task: progress.Task) -> str:
    return f"{task.speed:.1f}/s" if task.speed else ""


class Display:
    """A listener that draws stage, units, rate, time left, and what is being spent on stderr.

    Where stderr is no terminal it writes a line every ten seconds, of what is being done.
    """

    EVERY_S = 10.0

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._progress = progress.Progress(
            progress.SpinnerColumn(),
            PlainColumn(lambda task: f"{task.description:<10}", "bold"),
            progress.BarColumn(bar_width=12),
            progress.MofNCompleteColumn(),
            PlainColumn(lambda task: str(task.fields["unit"]), "none"),
            PlainColumn(_write_rate, "dim"),
            progress.TimeElapsedColumn(),
            PlainColumn(lambda _: "left", "dim"),
            progress.TimeRemainingColumn(),
            PlainColumn(lambda task: str(task.fields["detail"]()), "dim", cut=True),
            console=err,
            transient=False,
            disable=err.quiet,
        )
        self._tasks: dict[str, progress.Task] = {}

    def __enter__(self) -> Display:
        self._progress.start()
        if not err.is_terminal and not err.quiet:
            threading.Thread(target=self._write_lines, daemon=True).start()
        return self

    def __exit__(self, *details: object) -> None:
        self._ended.set()
        (self._progress if self._tasks else self._progress.live).stop()  # the former ends with a line, into a file too

    def _write_lines(self) -> None:
        while not self._ended.wait(self.EVERY_S):
            for task in [task for task in self._progress.tasks if not task.finished]:
                total = "" if task.total is None else f" of {task.total:,.0f}"
                parts = [f"{task.completed:,.0f}{total} {task.fields['unit']}", _write_rate(task)]
                parts += [f"{task.elapsed or 0.0:.0f} s", task.fields["detail"]()]
                err.print(f"{task.description}: {', '.join(filter(None, parts))}", soft_wrap=True)

    def started(self, stage: str, unit: str) -> None:
        """A stage begins."""
        if stage not in self._tasks:
            self._progress.add_task(stage, total=None, unit=unit, detail=str)
            self._tasks[stage] = self._progress.tasks[-1]

    def advanced(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` units are finished."""
        self._progress.update(self._tasks[stage].id, completed=done, total=total)

    def detailed(self, stage: str, detail: Callable[[], str]) -> None:
        """Show a detail beside the counter."""
        self._progress.update(self._tasks[stage].id, detail=detail)

    def finished(self, stage: str, seconds: float) -> None:
        """It ended; the seconds of all runs are printed at the end."""
        del seconds
        if self._tasks[stage].total is None:
            self.advanced(stage, 1, 1)

    def noted(self, message: str) -> None:
        """Something the user should know."""
        self._progress.console.print(note(message))

    def watch(self, what: str, done: int, total: int) -> None:
        """Show what measuring or evaluating is at: ``done`` of ``total`` units of something are finished."""
        self.started(what, _UNITS.get(what, "units"))
        self.advanced(what, done, total)
