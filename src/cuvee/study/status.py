"""How a run goes on: written into its folder while it runs, read by who looks on from another process."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from cuvee.errors import RunFolderError
from cuvee.execute import Listener
from cuvee.execute.stages import DetailListener
from cuvee.generate import Ledger
from cuvee.store import RunFolder, TrialCounts, count_trials

FILE = "status.json"
LAST = "report"
"""The stage that ends a run."""
_EVERY_S = 0.5
_NOTES = 20
_SILENT_S = 600.0
"""After which a run on another machine that says nothing counts as stopped."""


@dataclass(slots=True, kw_only=True)
class _Written:
    """The content of ``status.json``. Times are seconds since 1970."""

    host: str
    process: int
    begun: float
    updated: float
    ended: bool = False
    stage: str = ""
    unit: str = ""
    done: int = 0
    total: int | None = None
    stage_begun: float | None = None
    planned: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


_FILE = TypeAdapter(_Written)


class Recorder:
    """A listener that writes what it hears into the run folder, twice a second at most, and passes it on.

    Args:
        folder: held by this process.
        listener: hears everything too.
        clock: seconds since 1970.
    """

    def __init__(self, folder: RunFolder, listener: Listener | None, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._listener, self._clock = folder, listener, clock
        now = clock()
        self._written = _Written(host=socket.gethostname(), process=os.getpid(), begun=now, updated=now)
        self._last = 0.0

    def started(self, stage: str, unit: str) -> None:
        """A stage begins."""
        written = self._written
        written.stage, written.unit, written.done, written.total = stage, unit, 0, None
        written.stage_begun = self._clock()
        self._write()
        if self._listener is not None:
            self._listener.started(stage, unit)

    def advanced(self, stage: str, done: int, total: int) -> None:
        """It goes on."""
        written = self._written
        if written.unit == "trials" and written.total is None:
            written.planned += total
        written.stage, written.done, written.total = stage, done, total
        if self._clock() - self._last >= _EVERY_S:
            self._write()
        if self._listener is not None:
            self._listener.advanced(stage, done, total)

    def finished(self, stage: str, seconds: float) -> None:
        """It ended."""
        self._written.seconds[stage] = self._written.seconds.get(stage, 0.0) + seconds
        self._written.stage_begun = None
        self._write()
        if self._listener is not None:
            self._listener.finished(stage, seconds)

    def noted(self, message: str) -> None:
        """Something the user should know."""
        self._written.notes = [*self._written.notes, message][-_NOTES:]
        self._write()
        if self._listener is not None:
            self._listener.noted(message)

    def detailed(self, stage: str, detail: Callable[[], str]) -> None:
        """Passed on to listeners that show it."""
        if isinstance(self._listener, DetailListener):
            self._listener.detailed(stage, detail)

    def close(self) -> None:
        """The run has ended, well or not."""
        self._written.ended = True
        self._write()

    def _write(self) -> None:
        self._last = self._written.updated = self._clock()
        self._folder.save_text(FILE, json.dumps(asdict(self._written), indent=1, ensure_ascii=False), durable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """A run as it stands.

    Attributes:
        state: ``running``; ``finished`` (its report is written); ``stopped`` (the same command goes on with it).
        process: that holds the folder; None where none does.
        stage, unit, done, total: the running or last stage; ``total`` is None before it is known.
        stage_s: seconds since it began; None where it does not run.
        seconds: of each stage of this run that got to its end.
        trials: in the run folder, of all runs, those of check and confirmation among them.
        planned: trials of the stages that have begun.
        requests, prompt_tokens, completion_tokens: of all answers so far.
        notes: the last ones.
        age_s: seconds since the run last said something.
    """

    state: Literal["running", "finished", "stopped"]
    process: int | None
    stage: str
    unit: str
    done: int
    total: int | None
    stage_s: float | None
    seconds: dict[str, float]
    trials: TrialCounts
    planned: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    notes: tuple[str, ...]
    age_s: float


def read_status(path: Path) -> RunStatus:
    """How the run in a folder stands; nothing is locked or changed.

    Raises:
        RunFolderError: it is no run folder, or of a version that kept no status.
    """
    file = path / FILE
    if not file.is_file():
        raise RunFolderError(f"{path}: no run folder ({FILE} is not there); give runs/NAME of a study that was begun")
    try:
        written = _FILE.validate_json(file.read_bytes())
    except ValueError as exc:
        raise RunFolderError(f"{file}: broken; run the study again, it goes on from where it was") from exc
    running = _is_alive(written)
    # a later command on a finished study, such as evaluate, reads what is there and writes no report again
    through = written.ended and written.stage_begun is None and (path / "report.html").is_file()
    requests = prompt = completion = 0
    # a cross-fitted study has a folder for each fold after the first
    parts = [path, *(file.parent for file in sorted((path / "folds").glob("*/trials.sqlite")))]
    for ledger in (part / "ledger.sqlite" for part in parts):
        if ledger.is_file():
            with Ledger(ledger, readonly=True) as opened:
                totals = opened.totals()
            requests += totals.requests
            prompt += totals.prompt_tokens
            completion += totals.completion_tokens
    now = time.time()
    return RunStatus(
        state="running" if running else "finished" if LAST in written.seconds or through else "stopped",
        process=written.process if running else None,
        stage=written.stage,
        unit=written.unit,
        done=written.done,
        total=written.total,
        stage_s=None if written.stage_begun is None or not running else now - written.stage_begun,
        seconds=written.seconds,
        trials=_without_stale(
            [count_trials(part) for part in parts if part == path or (part / "trials.sqlite").is_file()], running
        ),
        planned=written.planned,
        requests=requests,
        prompt_tokens=prompt,
        completion_tokens=completion,
        notes=tuple(written.notes),
        age_s=max(0.0, now - written.updated),
    )


def _is_alive(written: _Written) -> bool:
    """Whether the process that wrote is there and at it; of one on another machine only its last word is known."""
    if written.ended:
        return False
    if written.host != socket.gethostname():
        return time.time() - written.updated < _SILENT_S
    try:
        os.kill(written.process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and another user's
        return True
    return True


def _without_stale(counts: Sequence[TrialCounts], running: bool) -> TrialCounts:
    """All counts together; the marks of a process that is gone mean nothing."""
    return TrialCounts(
        done=sum(each.done for each in counts),
        failed=sum(each.failed for each in counts),
        running=tuple(mark for each in counts for mark in each.running) if running else (),
    )
