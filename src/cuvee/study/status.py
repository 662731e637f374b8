"""How a run goes on: written into its folder while it runs, read by another process; what generating took in it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Literal

from pydantic import TypeAdapter

from cuvee._version import __version__
from cuvee.config.generators import JudgeConfig, LanguageModel, ReaderConfig, find_prices
from cuvee.config.reading import read_config
from cuvee.config.schema import StudyConfig
from cuvee.errors import ConfigError, RunFolderError
from cuvee.execute import Listener, Silent
from cuvee.generate.ledger import Ledger, summarise
from cuvee.generate.pools import count_rejected, read_quarantine
from cuvee.records import Advice, Cell, CellSummary, Draw, FailedTrials, Level, Prices, Trial, count_failed
from cuvee.records.generation import GenerationAccount, Quarantined
from cuvee.report.tables import Design, ReportData
from cuvee.store import LEDGER, RunFolder, count_finished, list_parts, read_failures, read_json, read_trials
from cuvee.study.draws import find_draws, is_open, read_draws, write_draws

FILE = "status.json"
State = Literal["running", "finished", "stopped"]
LAST = "report"  # the stage that ends a run
TRACK = "track"  # the stage after it, of studies that are tracked
_EVERY_S = 0.5
_NOTES = 20
_SILENT_S = 600.0  # after which a run on another machine that says nothing counts as stopped


@dataclass(slots=True, kw_only=True)
class _Written:
    """The content of ``status.json``. Times are seconds since 1970.

    ``seconds`` of each stage are those of all runs; ``reported`` says that this run got to the end of the last stage.
    """

    host: str
    process: int
    updated: float
    ended: bool = False
    stage: str = ""
    unit: str = ""
    done: int = 0
    total: int | None = None
    stage_begun: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    reported: bool = False
    notes: list[str] = field(default_factory=list)


_FILE = TypeAdapter(_Written)


class Recorder:
    """A listener that writes what it is told into the run folder, twice a second at most, and passes it on.

    Args:
        folder: held by this process.
        listener: is told everything too.
        clock: seconds since 1970.
    """

    def __init__(self, folder: RunFolder, listener: Listener | None, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._listener, self._clock = folder, listener or Silent(), clock
        self._written = _Written(host=socket.gethostname(), process=os.getpid(), updated=self._clock())
        with suppress(RunFolderError):  # it is damaged, or the folder is new
            self._written.seconds = _sum_seconds(_read(folder.path))
        self._last = 0.0

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each stage so far, in all runs."""
        return dict(self._written.seconds)

    def started(self, stage: str, unit: str) -> None:
        """A stage begins."""
        self._write(stage=stage, unit=unit, done=0, total=None, stage_begun=self._clock())
        self._listener.started(stage, unit)

    def advanced(self, stage: str, done: int, total: int) -> None:
        """It goes on."""
        due = self._written.total != total or self._clock() - self._last >= _EVERY_S
        self._write(due, stage=stage, done=done, total=total)
        self._listener.advanced(stage, done, total)

    def finished(self, stage: str, seconds: float) -> None:
        """It ended."""
        spent = self.seconds | {stage: self.seconds.get(stage, 0.0) + seconds}
        self._write(seconds=spent, stage_begun=None, reported=self._written.reported or stage == LAST)
        self._listener.finished(stage, seconds)

    def noted(self, message: str) -> None:
        """Something the user should know."""
        self._write(notes=[*self._written.notes, message][-_NOTES:])
        self._listener.noted(message)

    def detailed(self, stage: str, detail: Callable[[], str]) -> None:
        """A stage has something to say of itself."""
        self._listener.detailed(stage, detail)

    def close(self) -> None:
        """The run has ended, well or not."""
        self._write(ended=True)

    def _write(self, due: bool = True, **changes: object) -> None:
        """Take these changes over, and write the file where it is due."""
        for name, value in changes.items():
            setattr(self._written, name, value)
        if due:
            self._last = self._written.updated = self._clock()
            self._folder.save_text(FILE, json.dumps(asdict(self._written), indent=1, ensure_ascii=False), durable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCounts:
    """What a run folder knows of its trials."""

    done: int
    failed: int


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
        generation: what generating took so far; None where no LLM was asked.
        others: what other LLMs took: the judge, and those of filters.
        notes: the last ones.
        age_s: seconds since the run last said something.
        draws: how many are run of each kind; empty where the numbers are not chosen yet.
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
    generation: GenerationAccount | None
    notes: tuple[str, ...]
    age_s: float
    draws: str = ""
    failed: FailedTrials | None = None
    others: Mapping[str, GenerationAccount] = field(default_factory=dict)


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
    done = sum(count_finished(part) for part in list_parts(path))
    failures = [failure for part in list_parts(path) for failure in read_failures(part)]
    return RunStatus(
        **{name: getattr(written, name) for name in ("stage", "unit", "done", "total")},
        state=state,
        process=written.process if running else None,
        stage_s=None if written.stage_begun is None or not running else now - written.stage_begun,
        seconds=dict(written.seconds) if running else _sum_seconds(written),
        trials=TrialCounts(done=done, failed=len(failures)),
        generation=account_folder(path),
        notes=tuple(written.notes),
        age_s=max(0.0, now - written.updated),
        draws=_tell_draws(path),
        failed=count_failed(failures, trials=done + len(failures)),
        others=account_others(path),
    )


def gather_progress(path: Path) -> ReportData:
    """The mean validation score of every cell so far, as data of the page; without intervals and without a verdict.

    Raises:
        RunFolderError: its trials cannot be read.
    """
    config = _read_config(path)
    # trials of other choices have the cells of the grid, and come later
    first: dict[tuple[Path, Cell, Draw], Trial] = {}
    for part in list_parts(path):
        for trial in read_trials(part):
            if trial.part == "validation":
                first.setdefault((part, trial.cell, trial.draw), trial)
    found: dict[Cell, list[Trial]] = {}
    for trial in first.values():
        found.setdefault(trial.cell, []).append(trial)
    cells = tuple(
        CellSummary(
            cell=cell,
            accuracy=fmean(float(trial.scores.per_item.mean()) for trial in trials),
            draws=len({trial.draw.generation for trial in trials}),
            trials=len(trials),
            share=fmean(trial.composition.share for trial in trials),
            gains=(),
        )
        for cell, trials in found.items()
    )
    pools = dict.fromkeys((c.dial, c.level) for c in found if c.dial is not None and c.level is not None)
    score = next((trial.scores.score for trial in first.values()), "accuracy")
    levels = [Level(dial=dial, name=level, rank=rank) for rank, (dial, level) in enumerate(pools)]
    title, design = path.resolve().name, Design()
    if config is not None:
        title, design = config.name, Design(trainer=config.train.trainers[0], counts_from=config.advice.delta)
    advice = Advice(cells=cells, score=score)
    return ReportData(title=title, advice=advice, levels=levels, design=design, version=__version__)


def _tell_draws(path: Path) -> str:
    config = _read_config(path)
    if config is None or (is_open(config) and read_draws(path) is None):
        return ""
    return write_draws(config, find_draws(config, path))


def _read(path: Path) -> _Written:
    written = read_json(path / FILE, _FILE, "it tells how far a run is, and the next cuvee run writes it again")
    if written is None:
        raise RunFolderError(f"{path}: no run folder ({FILE} is not there); give runs/NAME of a study that was begun")
    return written


def _sum_seconds(written: _Written) -> dict[str, float]:
    """Seconds of each stage, with those of the stage that a run which is gone was stopped in."""
    if written.stage_begun is None:
        return written.seconds
    stopped = max(0.0, written.updated - written.stage_begun)
    return {**written.seconds, written.stage: written.seconds.get(written.stage, 0.0) + stopped}


def _is_alive(written: _Written) -> bool:
    """Whether the process that wrote is there and at it; of one on another machine only its last word is known."""
    if written.ended or written.host != socket.gethostname():
        return not written.ended and time.time() - written.updated < _SILENT_S
    try:
        os.kill(written.process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and another user's
        pass
    return True


def account_folder(path: Path, prices: Prices | None = None) -> GenerationAccount | None:
    """What generating took in a run folder, in all its runs and folds; None where no LLM was asked.

    It is the one account that report, status and the command line show.

    Args:
        path: the folder.
        prices: None takes those of its study.yaml; without any, the cost is left open.

    Raises:
        RunFolderError: a ledger or a quarantine file is damaged.
    """
    config = _read_config(path)
    with _open_ledgers(path, LEDGER) as found:
        if not found:
            return None
        rejected = Counter[str]()
        for part, ledger in found.items():
            rejected.update(_count_rejected(part, ledger))
        known = prices or (None if config is None else find_prices(config.generator))
        return replace(summarise(*found.values(), prices=known), rejected=dict(rejected.most_common()))


@contextmanager
def _open_ledgers(path: Path, name: str) -> Iterator[dict[Path, Ledger]]:
    """Run folder, or that of a fold -> its ledger of this name, where there is one."""
    with ExitStack() as opened:
        parts = [part for part in list_parts(path) if (part / name).is_file()]
        yield {part: opened.enter_context(Ledger(part / name, readonly=True)) for part in parts}


def account_others(path: Path) -> dict[str, GenerationAccount]:
    """What the judge and the LLMs of filters took, by name, in all folds.

    Raises:
        RunFolderError: a ledger is damaged.
    """
    accounts = dict[str, GenerationAccount]()
    for name, part in _list_others(_read_config(path)):
        with _open_ledgers(path, f"{name}.sqlite") as found:
            if found:
                accounts[name] = summarise(*found.values(), prices=find_prices(part))
    return accounts


def _list_others(config: StudyConfig | None) -> Iterator[tuple[str, LanguageModel]]:
    """The names of their ledgers, and the LLMs."""
    if config is not None and config.evaluate.judge is not None:
        yield "judge", config.evaluate.judge
    for each in () if config is None else config.filters:
        if isinstance(each, ReaderConfig | JudgeConfig):
            yield f"{each.name}.filter", each.by


def _count_rejected(part: Path, ledger: Ledger) -> dict[str, int]:
    """Rejected answers by reason: levels and dials share answers, and each counts once, for its first reason."""
    answers: dict[str, Quarantined] = {}
    for file in sorted((part / "pools").glob("*.quarantine.jsonl")):
        for row in read_quarantine(file):
            if row.request_key not in answers and ledger.holds(row.request_key):  # else it is a request that failed
                answers[row.request_key] = row
    return count_rejected(answers.values())


def _read_config(path: Path) -> StudyConfig | None:
    try:
        return read_config(path / "study.yaml")
    except ConfigError:  # not there, or damaged, which other commands tell: the counts hold without prices
        return None
