"""How a run goes on: written into its folder while it runs, read by who looks on from another process."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from cuvee.errors import RunFolderError
from cuvee.execute import Listener, Silent
from cuvee.records import FailedTrials, count_failed
from cuvee.records.generation import Generation
from cuvee.store import RunFolder, TrialCounts, count_trials, list_parts, read_failures
from cuvee.study.spending import account_folder

FILE = "status.json"
State = Literal["running", "finished", "stopped"]
LAST = "report"
"""The stage that ends a run."""
TRACK = "track"
"""The stage that counts trials and trains none."""
_EVERY_S = 0.5
_NOTES = 20
_SILENT_S = 600.0
"""After which a run on another machine that says nothing counts as stopped."""


@dataclass(slots=True, kw_only=True)
class _Written:
    """The content of ``status.json``. Times are seconds since 1970.

    ``before`` counts the trials that the run folder held when this run began. ``finished`` counts those of its stages
    that ended, taken from the folder or trained; ``planned`` those and all of the stage that runs, in all its folds.
    ``seconds`` of each stage are those of all runs; ``reported`` says that this run got to the end of the last stage.
    """

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
    before: int = 0
    finished: int = 0
    planned: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    reported: bool = False
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
        self._folder, self._listener, self._clock = folder, listener or Silent(), clock
        now = clock()
        self._written = _Written(host=socket.gethostname(), process=os.getpid(), begun=now, updated=now)
        with suppress(RunFolderError):  # it is damaged, or the folder is new
            self._written.seconds = _sum_seconds(_read(folder.path))
        self._written.before = _count_ran(_count_parts(folder.path))
        self._last = 0.0
        self._folds = 1
        self._trained: tuple[str, int] = ("", 0)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each stage so far, in all runs."""
        return dict(self._written.seconds)

    def expect_folds(self, folds: int) -> None:
        """Each stage of trials is gone through in so many folds."""
        self._folds = folds

    def started(self, stage: str, unit: str) -> None:
        """A stage begins."""
        written = self._written
        written.stage, written.unit, written.done, written.total = stage, unit, 0, None
        written.stage_begun = self._clock()
        if unit == "trials":
            name, times = self._trained
            self._trained = (stage, times + 1 if name == stage else 1)
        if stage == LAST:  # nothing more is trained
            written.planned = written.finished
        self._write()
        self._listener.started(stage, unit)

    def advanced(self, stage: str, done: int, total: int) -> None:
        """It goes on."""
        written = self._written
        written.stage, written.done, written.total = stage, done, total
        known = written.planned
        if written.unit == "trials" and stage != TRACK:
            ahead = max(0, self._folds - self._trained[1])  # folds of which no more is known than that they come
            written.planned = written.finished + max(done, total) * (1 + ahead)
        if written.planned != known or self._clock() - self._last >= _EVERY_S:
            self._write()
        self._listener.advanced(stage, done, total)

    def finished(self, stage: str, seconds: float) -> None:
        """It ended."""
        written = self._written
        written.seconds[stage] = written.seconds.get(stage, 0.0) + seconds
        written.stage_begun = None
        written.reported = written.reported or stage == LAST
        if written.unit == "trials" and stage != TRACK:  # a search may end before its budget does
            written.finished += written.done
            ahead = max(0, self._folds - self._trained[1])
            written.planned = written.finished + written.done * ahead
            written.total = written.done
        self._write()
        self._listener.finished(stage, seconds)

    def noted(self, message: str) -> None:
        """Something the user should know."""
        self._written.notes = [*self._written.notes, message][-_NOTES:]
        self._write()
        self._listener.noted(message)

    def detailed(self, stage: str, detail: Callable[[], str]) -> None:
        """A stage has something to say of itself."""
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
        seconds: of each stage, in all runs of the folder, those that were stopped too.
        trials: in the run folder, of all runs, those of check and confirmation among them.
        planned: ``trials`` done and failed, and those that are still to be run in the stage that runs, in all its
            folds: those that are to come are taken to have as many as this one. Never less than were run, and as many
            once the run is finished.
        generation: what generating took so far; None where no LLM was asked.
        notes: the last ones.
        age_s: seconds since the run last said something.
        failed: why trials failed most often; None where none did.
    """

    state: State
    process: int | None
    stage: str
    unit: str
    done: int
    total: int | None
    stage_s: float | None
    seconds: dict[str, float]
    trials: TrialCounts
    planned: int
    generation: Generation | None
    notes: tuple[str, ...]
    age_s: float
    failed: FailedTrials | None = None


def read_status(path: Path) -> RunStatus:
    """How the run in a folder stands; nothing is locked or changed.

    Raises:
        RunFolderError: it is no run folder, or of a version that kept no status.
    """
    written = _read(path)
    running = _is_alive(written)
    # a later command on a finished study, such as evaluate, reads what is there and writes no report again
    through = written.ended and written.stage_begun is None and (path / "report.html").is_file()
    now = time.time()
    state: State = "running" if running else "finished" if written.reported or through else "stopped"
    trials = _without_stale(_count_parts(path), running)
    return RunStatus(
        state=state,
        process=written.process if running else None,
        stage=written.stage,
        unit=written.unit,
        done=written.done,
        total=written.total,
        stage_s=None if written.stage_begun is None or not running else now - written.stage_begun,
        seconds=dict(written.seconds) if running else _sum_seconds(written),
        trials=trials,
        planned=_count_planned(written, _count_ran([trials]), state),
        generation=account_folder(path),
        notes=tuple(written.notes),
        age_s=max(0.0, now - written.updated),
        failed=_find_failed(path, _count_ran([trials])),
    )


def _read(path: Path) -> _Written:
    file = path / FILE
    if not file.is_file():
        raise RunFolderError(f"{path}: no run folder ({FILE} is not there); give runs/NAME of a study that was begun")
    try:
        return _FILE.validate_json(file.read_bytes())
    except ValueError as exc:
        raise RunFolderError(
            f"{file}: damaged; it says how far a run is and how long its stages took, nothing else: the next cuvee run "
            "writes it again"
        ) from exc


def _sum_seconds(written: _Written) -> dict[str, float]:
    """Seconds of each stage, with those of the stage that a run which is gone was stopped in."""
    if written.stage_begun is None:
        return written.seconds
    stopped = max(0.0, written.updated - written.stage_begun)
    return {**written.seconds, written.stage: written.seconds.get(written.stage, 0.0) + stopped}


def _find_failed(path: Path, ran: int) -> FailedTrials | None:
    failures = [failure for part in list_parts(path) for failure in read_failures(part)]
    return count_failed(failures, trials=max(ran, len(failures)))  # more may have failed since they were counted


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


def _count_parts(path: Path) -> list[TrialCounts]:
    return [count_trials(part) for part in list_parts(path)]


def _count_ran(counts: Sequence[TrialCounts]) -> int:
    return sum(each.done + each.failed for each in counts)


def _count_planned(written: _Written, ran: int, state: State) -> int:
    """Trials in the run folder, and those that are still to be run.

    Of the trials to come, some may be in the folder since an earlier run: as many as it held and were not met yet, at
    most. A stage may also meet a trial of an earlier stage again, which is in the folder once.
    """
    if state == "finished":
        return ran
    met = written.finished + (written.done if written.unit == "trials" and written.stage_begun is not None else 0)
    new = max(0, ran - written.before)
    met = max(met, new)  # the file lags behind the folder
    return ran + max(0, written.planned - met - max(0, written.before - (met - new)))


def _without_stale(counts: Sequence[TrialCounts], running: bool) -> TrialCounts:
    """All counts together; the marks of a process that is gone mean nothing."""
    return TrialCounts(
        done=sum(each.done for each in counts),
        failed=sum(each.failed for each in counts),
        running=tuple(mark for each in counts for mark in each.running) if running else (),
    )
