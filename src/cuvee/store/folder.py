"""The run folder itself."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pa_parquet
from pydantic import TypeAdapter

from cuvee.corpus import Corpus
from cuvee.errors import InputError, LockedTestError, RunFolderBusy, RunFolderError, RunFolderMismatch
from cuvee.hub import write_dataset
from cuvee.records import Cell, Draw, Level, Measurement, Trial, TrialFailure
from cuvee.records.generation import Generation
from cuvee.store.outcomes import decode_outcome, encode_outcome
from cuvee.store.pools import StoredPool, pool_from_table, pool_to_table, safe_name

_MEASUREMENT, _GENERATION = TypeAdapter(Measurement), TypeAdapter(Generation)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
  key TEXT PRIMARY KEY, payload TEXT NOT NULL, correct BLOB, failed INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS running (
  key TEXT PRIMARY KEY, cell TEXT NOT NULL, draw TEXT NOT NULL, started REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS access (
  number INTEGER PRIMARY KEY AUTOINCREMENT, reason TEXT NOT NULL, detail TEXT NOT NULL
);
"""


class RunFolder:
    """One study's files, held by one process at a time. Use as a context manager.

    Args:
        path: the folder; made when missing.

    Raises:
        RunFolderBusy: another process holds it.
        RunFolderError: it cannot be made or written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
            self._database = sqlite3.connect(self.path / "trials.sqlite", timeout=30)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            with self._database:
                self._database.executescript(_SCHEMA)
                self._database.execute("DELETE FROM running")  # of a process that was killed
            # marks of running trials are for who looks on: they need not survive a power cut, and must cost nothing
            self._marks = sqlite3.connect(self.path / "trials.sqlite", timeout=30, isolation_level=None)
            self._marks.execute("PRAGMA synchronous=OFF")
        except (OSError, sqlite3.Error) as exc:
            raise RunFolderError(
                f"{self.path}: the run folder cannot be used ({exc}); choose another with --out"
            ) from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the folder."""
        self._marks.close()
        self._database.close()
        os.close(self._lock)

    def _take_lock(self) -> int:
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.read(handle, 64).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise RunFolderBusy(
                f"{self.path}: process {holder} is working on this run folder; "
                "wait for it, stop it, or choose another --out"
            ) from exc
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        return handle

    # --- identity and config ---
    def check_identity(self, identity: Mapping[str, str]) -> None:
        """Record what the study is about, or compare with what was recorded.

        Raises:
            RunFolderMismatch: data, split or seeds differ.
        """
        known = dict(self._database.execute("SELECT key, value FROM identity"))
        if not known:
            with self._database:
                self._database.executemany("INSERT INTO identity VALUES (?, ?)", sorted(identity.items()))
            return
        changed = [k for k, v in identity.items() if known.get(k) != v]
        if changed:
            raise RunFolderMismatch(
                f"{self.path}: this run folder holds a study with other {', '.join(changed)}; "
                "levels, shares, rows and draws may be added to it, but for these choose a new name or --out"
            )

    def save_text(self, name: str, content: str, *, durable: bool = True) -> Path:
        """Write a text file (study.yaml, report.html, advice.json) by rename.

        Args:
            name: in the folder.
            content: of the file.
            durable: on the disk when this returns; else a power cut may lose it.
        """
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        with self._guard(path):
            with temporary.open("w", encoding="utf-8") as stream:
                stream.write(content)
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
            temporary.replace(path)
        return path

    def read_text(self, name: str) -> str | None:
        """A text file of the folder, or None."""
        path = self.path / name
        return path.read_text(encoding="utf-8") if path.is_file() else None

    @property
    def ledger_path(self) -> Path:
        """Where LLM requests and answers are journalled."""
        return self.path / "ledger.sqlite"

    # --- pools and measurements ---
    def save_pool(self, pool: StoredPool, suffix: str = "") -> Path:
        """Write ``pools/DIAL=LEVEL{suffix}.parquet``; what is not rows goes into the file's metadata.

        What generating it took goes into ``pools/DIAL=LEVEL{suffix}.generation.json``.
        """
        path = self._pool_path(pool.level, suffix)
        path.parent.mkdir(exist_ok=True)
        if pool.generation is not None:
            self.save_text(self._taken(path), _GENERATION.dump_json(pool.generation, indent=1).decode())
        temporary = path.with_name(f".{path.name}.tmp")
        table = pool_to_table(pool)
        with self._guard(path):
            pa_parquet.write_table(table, temporary, compression="zstd")
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
        return path

    def beside_pool(self, level: Level, suffix: str, kind: str) -> Path:
        """Where a file about a pool stands: ``pools/DIAL=LEVEL{suffix}.KIND.jsonl``."""
        return self._pool_path(level, suffix).with_suffix(f".{kind}.jsonl")

    def load_pool(self, level: Level, key: str, suffix: str = "") -> StoredPool | None:
        """The pool of this level if it was made with the same ``key``, else None."""
        path = self._pool_path(level, suffix)
        if not path.is_file():
            return None
        try:
            table = pa_parquet.read_table(path)
        except (pa.ArrowException, OSError):
            return None
        found = pool_from_table(table)
        if found is None or found.key != key:
            return None
        return replace(found, generation=self._load_generation(path))

    def _taken(self, pool: Path) -> str:
        """The name of the file that says what generating a pool took."""
        return str(pool.relative_to(self.path).with_suffix(".generation.json"))

    def _load_generation(self, pool: Path) -> Generation | None:
        content = self.read_text(self._taken(pool))
        try:
            return None if content is None else _GENERATION.validate_json(content)
        except ValueError:  # torn, or of another version: it is no part of the pool
            return None

    def _pool_path(self, level: Level, suffix: str) -> Path:
        return self.path / "pools" / f"{safe_name(level.key + suffix)}.parquet"

    def save_measurement(self, name: str, measurement: Measurement, key: str) -> None:
        """Write ``measurements/NAME.json``."""
        content = {"key": key, "measurement": _MEASUREMENT.dump_python(measurement, mode="json")}
        self.save_text(f"measurements/{safe_name(name)}.json", json.dumps(content, indent=1))  # METRICS order is kept

    def load_measurement(self, name: str, key: str) -> Measurement | None:
        """The measurement if it was made with the same ``key``, else None."""
        content = self.read_text(f"measurements/{safe_name(name)}.json")
        if content is None:
            return None
        stored = json.loads(content)
        return _MEASUREMENT.validate_python(stored["measurement"]) if stored["key"] == key else None

    # --- trials ---
    def find_trial(self, key: str) -> Trial | TrialFailure | None:
        """A finished trial, or None."""
        row = self._database.execute("SELECT payload, correct FROM trials WHERE key = ?", (key,)).fetchone()
        return None if row is None else decode_outcome(row[0], row[1])

    def mark_trial(self, key: str, cell: Cell, draw: Draw) -> None:
        """Note that a trial is being run, for :func:`count_trials` of other processes."""
        numbers = f"{draw.generation},{draw.sampling},{draw.training}"
        with self._guard(self.path / "trials.sqlite"):
            self._marks.execute(
                "INSERT OR REPLACE INTO running VALUES (?, ?, ?, ?)", (key, cell.key, numbers, time.time())
            )

    def add_trial(
        self, key: str, outcome: Trial | TrialFailure, *, mark: str | None = None, replaces: str | None = None
    ) -> None:
        """Keep a finished or failed trial, and take away its mark: committed when this returns.

        Args:
            key: to find it by.
            outcome: of the trial.
            mark: the key it was marked with, if that was another.
            replaces: key of an outcome that no longer counts: the trial failed, and now did not.
        """
        payload, correct = encode_outcome(outcome)
        with self._guard(self.path / "trials.sqlite"), self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?)",
                (key, payload, correct, isinstance(outcome, TrialFailure)),
            )
            self._database.execute("DELETE FROM running WHERE key IN (?, ?)", (key, mark))
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
            with self._database:
                self._database.execute("INSERT INTO access (reason, detail) VALUES (?, ?)", (reason, detail))

    def confirmed(self) -> str | None:
        """The cell for whose confirmation the locked test was opened, if it was."""
        return next((d for r, d in self.access_log() if r == "confirmation"), None)

    def count_looks(self, draws: str) -> int:
        """Log that the locked test is read with these draws; how many different ones it was read with so far."""
        self.log_access("look", draws)
        return sum(reason == "look" for reason, _ in self.access_log())

    def access_log(self) -> list[tuple[str, str]]:
        """Every logged read of the locked test: reason and detail."""
        return [(r, d) for r, d in self._database.execute("SELECT reason, detail FROM access ORDER BY number")]

    # --- the blend ---
    def save_blend(self, corpus: Corpus, card: str) -> Path:
        """Write ``blend/train.parquet`` and its dataset card ``blend/README.md``."""
        with self._guard(self.path / "blend"):
            return write_dataset(self.path / "blend", corpus, card, force=True)

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
