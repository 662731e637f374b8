"""The run folder: the only reader and writer of study files.

It holds pools, measurements, trials in a database, and beside it the log of the locked test. Everything is written
under a temporary name and renamed, or in one SQLite transaction, so that a kill at any instant leaves either the old
state or the new one.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Literal, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
from pydantic import TypeAdapter, ValidationError

from cuvee import databases
from cuvee.corpus import Corpus
from cuvee.corpus.cells import typed_table
from cuvee.corpus.table import BlendForm
from cuvee.encoders import resolve_encoder
from cuvee.errors import InputError, LockedTestError, RunFolderBusy, RunFolderError, RunFolderMismatch
from cuvee.fingerprint import hash_value
from cuvee.hub import write_dataset
from cuvee.inputs import first_line, whole_file
from cuvee.records import Cell, Composition, Draw, Estimate, Level, Measurement, Rejected, Scores, Trial, TrialFailure

# Of the run folder: what the study is about, then every logged read of the locked test, a line each.
FILE = "locked-test.jsonl"
STUDY, TRIALS = "study", "trials.sqlite"
# What to do without the log of the locked test.
LOG_LOST = "put back a copy of it, or run the study in another folder (--out): without it nobody knows what was read"
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS trials (key TEXT PRIMARY KEY, payload TEXT NOT NULL, correct BLOB, "
    "failed INTEGER NOT NULL, checksum TEXT);"
)
# A reason and its detail; the first one is ``study`` and what the study is about, as JSON.
Entry = tuple[str, str]


def read_log(folder: Path) -> list[Entry]:
    """The log of the locked test.

    Raises:
        RunFolderError: a line cannot be read.
    """
    path = folder / FILE
    found = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else [], start=1):
        try:
            reason, detail = json.loads(line)
            found.append((str(reason), str(detail)))
            dict(json.loads(detail) if reason == STUDY else {})
        except (TypeError, ValueError) as exc:
            raise RunFolderError(f"{path}, line {number}: damaged; {LOG_LOST}") from exc
    return found


# --- trials ---
@dataclass(frozen=True, kw_only=True)
class _Stored:
    """What is kept of a finished trial, apart from the scores of its items."""

    cell: Cell
    draw: Draw
    composition: Composition
    steps: int
    part: Literal["validation", "test"]
    n: int
    values: dict[str, Estimate]
    score: str = "accuracy"
    grouped: bool = False
    written: tuple[str, ...] = ()


SHOWN_OUTPUTS = 10  # texts of a model that the page shows
_STORED, _FAILURE = TypeAdapter(_Stored), TypeAdapter(TrialFailure)
_OF_TRIAL = ("cell", "draw", "composition", "steps", "part")  # what both hold


def count_finished(path: Path) -> int:
    """How many trials of a run folder are finished, which another process may hold; nothing is changed.

    Raises:
        RunFolderError: its ``trials.sqlite`` cannot be read.
    """
    with _look_into(path) as database:
        return int(database.execute("SELECT count(*) FROM trials WHERE NOT failed").fetchone()[0])


def read_failures(path: Path) -> list[TrialFailure]:
    """The failed trials of a run folder, which another process may hold, in the order of their cells and draws.

    Raises:
        RunFolderError: its ``trials.sqlite`` cannot be read.
    """
    with _look_into(path) as database:
        rows = database.execute("SELECT payload FROM trials WHERE failed ORDER BY payload").fetchall()
        return [_FAILURE.validate_json(payload) for (payload,) in rows]


def read_trials(path: Path) -> list[Trial]:
    """The finished trials of a run folder, which another process may hold, in the order in which they ended.

    Raises:
        RunFolderError: its ``trials.sqlite`` cannot be read.
    """
    with _look_into(path) as database:
        rows = database.execute("SELECT payload, correct FROM trials WHERE NOT failed ORDER BY rowid").fetchall()
        return [trial for row in rows if isinstance(trial := decode_outcome(*row), Trial)]


@contextmanager
def _look_into(path: Path) -> Iterator[sqlite3.Connection]:
    """The trials of a run folder, to be read."""
    file = path / TRIALS
    try:
        with closing(databases.open_reading(file)) as database:
            yield database
    except (sqlite3.Error, ValueError) as exc:
        if not file.exists():
            raise RunFolderError(f"{file}: not there; is {path} a run folder?") from exc
        reason = "a row is not what was written" if isinstance(exc, ValueError) else exc
        raise databases.tell_damage(file, reason, databases.TRIALS_LOST) from exc


def encode_outcome(outcome: Trial | TrialFailure) -> tuple[str, bytes | None]:
    """The outcome as JSON, and what its items scored; None where it failed."""
    if isinstance(outcome, TrialFailure):
        return json.dumps(asdict(outcome), sort_keys=True), None
    scores = outcome.scores
    written = scores.written if scores.score == "judge" else scores.written[:SHOWN_OUTPUTS]
    stored = _Stored(
        **{name: getattr(outcome, name) for name in _OF_TRIAL}, n=scores.n, values=dict(scores.values),
        score=scores.score, grouped=scores.groups is not None, written=written,
    )  # fmt: skip
    items = np.packbits(scores.correct).tobytes()
    if scores.graded is not None:
        items += scores.graded.astype("<f8").tobytes()
    if scores.groups is not None:
        items += scores.groups.astype("<i8").tobytes()
    exclude = None if written else {"written"}
    return json.dumps(_STORED.dump_python(stored, mode="json", exclude=exclude), sort_keys=True), items


def decode_outcome(payload: str, items: bytes | None) -> Trial | TrialFailure:
    """What ``encode_outcome`` was given.

    ``items`` holds a bit an item, whether it is correct; then, for graded scores, a float64 each; then, for items that
    come in groups, an int64 each.
    """
    if items is None:
        return _FAILURE.validate_json(payload)
    kept = _STORED.validate_json(payload)
    whole = -(-kept.n // 8)
    bits = np.unpackbits(np.frombuffer(items[:whole], dtype=np.uint8), count=kept.n).astype(bool)
    end = len(items) - 8 * kept.n * kept.grouped
    graded = np.frombuffer(items[whole:end], dtype="<f8").astype(np.float64) if end > whole else None
    groups = np.frombuffer(items[end:], dtype="<i8").astype(np.int64) if kept.grouped else None
    scores = Scores(
        n=kept.n, values=kept.values, correct=bits, graded=graded, score=kept.score, groups=groups, written=kept.written
    )
    return Trial(**{name: getattr(kept, name) for name in _OF_TRIAL}, scores=scores)


def hash_row(row: databases.Row) -> str:
    """The checksum of a row of ``trials``: all that the advice depends on."""
    return hash_value(row[:4])[:16]


LEDGER, LOCK = "ledger.sqlite", "lock"
_MEASUREMENT, _CONTENT = TypeAdapter(Measurement), TypeAdapter(dict[str, object])
J = TypeVar("J")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPool:
    """A pool as the run folder keeps it: rows, rejected answers, note, and the key of its making.

    ``read`` counts the rows of the file that it was read from, and is not kept, since files are read in every run.
    ``failed`` holds the ledger's keys of the requests that failed for good. What generating took is not told of pools,
    since they share answers, but of the run folder.
    """

    level: Level
    corpus: Corpus
    rejected: tuple[Rejected, ...] = ()
    note: str = ""
    key: str = ""
    failed: tuple[str, ...] = ()
    read: int | None = None

    def to_table(self) -> pa.Table:
        """The rows, with the rest of the pool in the metadata."""
        meta = {
            "level": asdict(self.level),
            # may be a million: asdict would take ten times as long
            "rejected": [{"slot": r.slot, "reason": r.reason, "text": r.text} for r in self.rejected],
            "note": self.note,
            "key": self.key,
            "task": self.corpus.task,
            "failed": list(self.failed),
        }
        content = json.dumps(meta, sort_keys=True)
        made = {"cuvee": content, "checksum": hash_value(content)[:16]}
        return typed_table(self.corpus.table).replace_schema_metadata(made)

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """What ``to_table`` made of a pool.

        Raises:
            ValueError, KeyError, TypeError: it is not what was written.
        """
        found = table.schema.metadata or {}
        content = found.get(b"cuvee", b"").decode()
        if found.get(b"checksum") != hash_value(content)[:16].encode():
            raise ValueError("its checksum is wrong")
        meta = json.loads(content)
        return cls(
            level=Level(**meta["level"]),
            corpus=Corpus(table.replace_schema_metadata(None).combine_chunks(), meta.get("task", "classification")),
            rejected=tuple(Rejected(**r) for r in meta["rejected"]),
            note=meta["note"],
            key=meta["key"],
            failed=tuple(meta.get("failed", ())),
        )


def safe_name(name: str) -> str:
    """A name of a file, made of any name."""
    return "".join(c if c.isalnum() or c in "=._-" else "_" for c in name)


def take_lock(path: Path, held: Path, what: str = "this run folder") -> int:
    """A lock on a file made for it; closing what is returned lets it go.

    Args:
        path: of the lock.
        held: what is locked.
        what: that is.

    Raises:
        RunFolderBusy: another process has it.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.read(handle, 64).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise RunFolderBusy(
                f"{held}: process {holder} is working on {what}; wait for it, or stop it: the same command then goes "
                "on with all that it has"
            ) from exc
        if path.exists() and os.fstat(handle).st_ino == path.stat().st_ino:  # its last holder may have removed it
            break
        os.close(handle)
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


def list_parts(path: Path) -> list[Path]:
    """The run folder; of a cross-fitted study also that of each fold after the first."""
    names = (TRIALS, FILE, LEDGER)
    return [path, *(part for part in sorted((path / "folds").glob("*")) if any((part / n).exists() for n in names))]


@contextmanager
def hold_file(path: Path) -> Iterator[None]:
    """Be the only process that writes a file: its run folder, where it is in one, or the file is locked.

    Raises:
        RunFolderBusy: another process writes it.
    """
    path = path.resolve()
    is_run = path.name == TRIALS or (path.name == LEDGER and (path.parent / LOCK).is_file())
    lock = path.parent / LOCK if is_run else path.with_name(f".{path.name}.{LOCK}")
    handle = take_lock(lock, path.parent) if is_run else take_lock(lock, path, "this file")
    try:
        yield
    finally:
        if not is_run:
            lock.unlink(missing_ok=True)
        os.close(handle)


class RunFolder(AbstractContextManager["RunFolder"]):
    """One study's files, held by one process at a time. Use as a context manager.

    Args:
        path: the folder; made when missing.

    Raises:
        RunFolderBusy: another process holds it.
        RunFolderError: it cannot be made or written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        database = self.path / TRIALS
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(self.path / LOCK, self.path)
        except OSError as exc:
            raise RunFolderError(
                f"{self.path}: the run folder cannot be used ({exc}); make it writable, or go on with a copy of all "
                "of it, which --out names"
            ) from exc
        with ExitStack() as opened:
            opened.callback(os.close, self._lock)
            for left in chain(self.path.glob(".*.tmp-*"), self.path.glob("*/.*.tmp-*")):  # by a process that was killed
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
            self._log = read_log(self.path)
            with self._guard(database):
                databases.make_database(database, SCHEMA)
            databases.check_database(database, databases.TRIALS_LOST)
            databases.check_database(self.ledger_path, databases.ANSWERS_LOST)
            with self._guard(database):
                self._database = opened.enter_context(closing(sqlite3.connect(database, timeout=30)))
                self._database.text_factory = lambda content: content.decode("utf-8", "replace")
                self._database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL")
            if not self._log and self._has_trials():
                raise RunFolderError(f"{self.path / FILE}: it was deleted or emptied; {LOG_LOST}")
            self._opened = opened.pop_all()

    def _has_trials(self) -> bool:
        return bool(self._database.execute("SELECT EXISTS (SELECT 1 FROM trials)").fetchone()[0])

    def __exit__(self, *details: object) -> None:
        """Release the folder."""
        self._opened.close()

    # --- identity and config ---
    def check_identity(self, identity: Mapping[str, str]) -> bool:
        """Record what the study is about, or compare with what was recorded last.

        Returns:
            Whether the split is another one than recorded, which is taken where nothing was trained yet.

        Raises:
            RunFolderMismatch: data, split or seeds differ.
        """
        recorded = [detail for reason, detail in self._log if reason == STUDY]
        known: dict[str, str] = json.loads(recorded[-1]) if recorded else {}
        changed = [k for k, v in identity.items() if known.get(k) != v]
        is_new = not self._has_trials() and all(reason in (STUDY, "leak-guard") for reason, _ in self._log)
        if not recorded or (changed == ["split"] and is_new):
            self._add_to_log((STUDY, json.dumps(dict(identity), sort_keys=True)))
        elif changed:
            raise RunFolderMismatch(
                f"{self.path}: this run folder holds a study with other {', '.join(changed)}; "
                "levels, shares, rows and draws may be added to it, but for these choose a new name or --out"
            )
        return bool(recorded and changed)

    def keep_encoder(self, name: str) -> str:
        """An encoder's name with the way that it computes: as the kept config says, else this machine's fastest."""
        line = re.compile(rf"^ *encoder: ({re.escape(name)}@\S+)$", re.MULTILINE)
        with self._guard(self.path):
            files = [file for file in (self.path / "study.yaml", self.path / "collapse.yaml") if file.is_file()]
            kept = [line.search(file.read_text("utf-8")) for file in files]
        return next((found[1] for found in kept if found), resolve_encoder(name))

    def save_text(self, name: str, content: str, *, durable: bool = True) -> Path:
        """Write a text file (study.yaml, report.html, advice.json) by rename.

        Args:
            name: in the folder.
            content: of the file.
            durable: on the disk when this returns; else a power cut may lose it.
        """
        return self._write(self.path / name, lambda file: file.write_text(content, encoding="utf-8"), durable=durable)

    def _write(self, path: Path, write: Callable[[Path], object], *, durable: bool = True) -> Path:
        with self._guard(path), whole_file(path, durable=durable) as temporary:
            write(temporary)
        return path

    def read_json(self, name: str, adapter: TypeAdapter[J], remedy: str) -> J | None:
        """What a JSON file of the folder holds; None where it is not there.

        Raises:
            RunFolderError: it is damaged; ``remedy`` says what happens once it is deleted.
        """
        return read_json(self.path / name, adapter, remedy)

    @property
    def ledger_path(self) -> Path:
        """Where LLM requests and answers are journalled."""
        return self.path / LEDGER

    # --- pools and measurements ---
    def save_pool(self, pool: StoredPool, suffix: str = "") -> Path:
        """Write ``pools/DIAL=LEVEL{suffix}.parquet``; what is not rows goes into the file's metadata."""
        table = pool.to_table()
        return self._write(
            self._pool_path(pool.level, suffix),
            lambda file: pa_parquet.write_table(table, file, compression="zstd", write_page_checksum=True),
        )

    def beside_pool(self, level: Level, suffix: str, kind: str) -> Path:
        """Where a file about a pool stands: ``pools/DIAL=LEVEL{suffix}.KIND.jsonl``."""
        return self._pool_path(level, suffix).with_suffix(f".{kind}.jsonl")

    def load_pool(self, level: Level, key: str, suffix: str = "") -> StoredPool | None:
        """The pool of this level if it was made with the same ``key``, else None.

        Raises:
            RunFolderError: it is not what was written.
        """
        path = self._pool_path(level, suffix)
        if not path.is_file():
            return None
        try:
            found = StoredPool.from_table(pa_parquet.read_table(path, page_checksum_verification=True))
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as exc:
            raise _tell_file(path, exc, "it is made again from the answers in ledger.sqlite without a request") from exc
        return found if found.key == key else None

    def _pool_path(self, level: Level, suffix: str) -> Path:
        return self.path / "pools" / f"{safe_name(level.key + suffix)}.parquet"

    def save_measurement(self, name: str, measurement: Measurement, key: str) -> None:
        """Write ``measurements/NAME.json``."""
        content = {"key": key, "measurement": _MEASUREMENT.dump_python(measurement, mode="json")}
        content["checksum"] = hash_value(content)[:16]
        self.save_text(f"measurements/{safe_name(name)}.json", json.dumps(content, indent=1))  # METRICS order is kept

    def load_measurement(self, name: str, key: str) -> Measurement | None:
        """The measurement if it was made with the same ``key``, else None.

        Raises:
            RunFolderError: it is not what was written.
        """
        file, remedy = f"measurements/{safe_name(name)}.json", "it is measured again, and the LLM is asked nothing"
        stored = self.read_json(file, _CONTENT, remedy)
        if stored is None:
            return None
        try:
            if stored.pop("checksum") != hash_value(stored)[:16]:
                raise ValueError("its checksum is wrong")
            return _MEASUREMENT.validate_python(stored["measurement"]) if stored["key"] == key else None
        except (ValueError, KeyError) as exc:
            raise _tell_file(self.path / file, exc, remedy) from exc

    # --- trials ---
    def find_trial(self, key: str) -> Trial | TrialFailure | None:
        """A finished trial, or None.

        Raises:
            RunFolderError: it is not what was written.
        """
        file = self.path / TRIALS
        try:
            row = self._database.execute("SELECT * FROM trials WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as exc:
            raise databases.tell_damage(file, exc, databases.TRIALS_LOST) from exc
        if row is None:
            return None
        if row[-1] != hash_row(row):
            raise databases.tell_damage(file, f"the checksum of trial {key[:12]} is wrong", databases.TRIALS_LOST)
        return decode_outcome(row[1], row[2])

    def add_trial(self, key: str, outcome: Trial | TrialFailure, *, replaces: str | None = None) -> None:
        """Keep a finished or failed trial: committed when this returns.

        Args:
            key: to find it by.
            outcome: of the trial.
            replaces: key of an outcome that no longer counts: the trial failed, and now did not.
        """
        payload, correct = encode_outcome(outcome)
        with self._guard(self.path / TRIALS), self._database:
            row = (key, payload, correct, int(isinstance(outcome, TrialFailure)))
            self._database.execute("INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?)", (*row, hash_row(row)))
            self._database.execute("DELETE FROM trials WHERE key = ? AND key != ?", (replaces, key))

    # --- the locked test ---
    def log_access(self, reason: str, detail: str) -> None:
        """Log a read of the locked test.

        Raises:
            LockedTestError: a confirmation of another cell was logged before.
        """
        if reason == "confirmation":
            earlier = self.confirmed()
            if earlier is not None and earlier != detail:
                raise LockedTestError(
                    f"the locked test was already used to confirm {earlier!r}; it cannot confirm {detail!r} as well"
                )
        if (reason, detail) not in self.access_log():
            self._add_to_log((reason, detail))

    def _add_to_log(self, entry: Entry) -> None:
        lines = (json.dumps(each, ensure_ascii=False) for each in [*self._log, entry])
        self.save_text(FILE, "".join(f"{line}\n" for line in lines))
        self._log.append(entry)

    def confirmed(self) -> str | None:
        """The cell for whose confirmation the locked test was opened, if it was."""
        return next((d for r, d in self.access_log() if r == "confirmation"), None)

    def log_look(self, draws: int, planned: int, how: str) -> None:
        """Log that the locked test is read with so many draws, made as ``how`` says, of those planned at first."""
        self.log_access("look", f"{draws} of {self.looks()[1] or planned} draws{how}")

    def looks(self) -> tuple[tuple[int, ...], int]:
        """The draws of each look at the locked test so far, and how many were planned at the first; 0 before it."""
        logged = [detail.split() for reason, detail in self.access_log() if reason == "look"]
        planned = int(logged[0][2]) if logged else 0
        return tuple(int(words[0]) for words in logged), planned

    def access_log(self) -> list[tuple[str, str]]:
        """Every logged read of the locked test: reason and detail."""
        return [(reason, detail) for reason, detail in self._log if reason != STUDY]

    # --- the blend ---
    def save_blend(self, corpus: Corpus, card: str, form: BlendForm = "auto") -> Path:
        """Write ``blend/train.parquet`` and its dataset card ``blend/README.md``."""
        with self._guard(self.path / "blend"):
            return write_dataset(self.path / "blend", corpus, card, force=True, form=form)

    def drop_blend(self) -> None:
        """Remove the blend, if there is one."""
        with self._guard(self.path / "blend"):
            if (self.path / "blend").is_dir():
                shutil.rmtree(self.path / "blend")

    @contextmanager
    def _guard(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, InputError, sqlite3.OperationalError) as exc:
            free = shutil.disk_usage(self.path).free // 2**20
            raise RunFolderError(
                f"{path}: cannot be written ({exc}; {free} MiB free); everything before it is kept: "
                "free some space and run the same command again"
            ) from exc
        except sqlite3.DatabaseError as exc:
            raise databases.tell_damage(path, exc, databases.TRIALS_LOST) from exc


def read_json(path: Path, adapter: TypeAdapter[J], remedy: str) -> J | None:
    """As :meth:`RunFolder.read_json`, of a folder that another process may hold."""
    try:
        return adapter.validate_json(path.read_bytes()) if path.is_file() else None
    except ValueError as exc:
        raise _tell_file(path, exc, remedy) from exc


def _tell_file(path: Path, reason: Exception, remedy: str) -> RunFolderError:
    said = reason.errors()[0]["msg"] if isinstance(reason, ValidationError) else first_line(reason)
    return RunFolderError(f"{path}: damaged ({said}); delete it: {remedy}")
