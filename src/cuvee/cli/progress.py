"""How a study goes on, on the terminal while it runs."""

from __future__ import annotations

from collections.abc import Callable

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from cuvee.characters import visible
from cuvee.cli.show import err


class PlainColumn(ProgressColumn):
    """What is said of a stage, as it is."""

    def __init__(self, read: Callable[[Task], str], style: str, *, cut: bool = False) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="ellipsis" if cut else "ignore"))
        self._read, self._style = read, style

    def render(self, task: Task) -> Text:
        """Ask the stage."""
        return Text(visible(self._read(task)), style=self._style)


def _read_detail(task: Task) -> str:
    detail: Callable[[], str] | None = task.fields["detail"]
    return "" if detail is None else detail()


class Display:
    """A listener that draws stage, units, rate, time left, and what is being spent on stderr."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            PlainColumn(lambda task: f"{task.description:<10}", "bold"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            PlainColumn(lambda task: str(task.fields["unit"]), "none"),
            PlainColumn(lambda task: str(task.fields["rate"]), "dim"),
            TimeElapsedColumn(),
            PlainColumn(lambda _: "left", "dim"),
            TimeRemainingColumn(),
            PlainColumn(_read_detail, "dim", cut=True),
            console=err,
            transient=False,
        )
        self._tasks: dict[str, TaskID] = {}
        self.seconds: dict[str, float] = {}

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *details: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the last state on the screen; results can be printed now."""
        self._progress.stop()

    def started(self, stage: str, unit: str) -> None:
        """A stage begins."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=None, unit=unit, rate="", detail=None)

    def advanced(self, stage: str, done: int, total: int) -> None:
        """It goes on."""
        task = self._progress.tasks[self._progress.task_ids.index(self._tasks[stage])]
        rate = f"{task.speed:.1f}/s" if task.speed else ""
        self._progress.update(self._tasks[stage], completed=done, total=total, rate=rate)

    def detailed(self, stage: str, detail: Callable[[], str]) -> None:
        """It has something to say of itself."""
        self._progress.update(self._tasks[stage], detail=detail)

    def finished(self, stage: str, seconds: float) -> None:
        """It ended."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        task = self._progress.tasks[self._progress.task_ids.index(self._tasks[stage])]
        if task.total is None:
            self._progress.update(self._tasks[stage], completed=1, total=1)

    def noted(self, message: str) -> None:
        """Something the user should know."""
        self._progress.console.print(f"note: {message}", style="yellow")
