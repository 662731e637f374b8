"""SQLite files that outlive kills, full disks and damage: made whole, read on read-only media, checked, repaired."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from cuvee.errors import RunFolderError

Row = tuple[str | bytes | int | float | None, ...]
# Table and row -> the row as it is to be stored; None where it is not what was written.
Fix = Callable[[str, Row], Row | None]
# What damage to a ledger costs.
ANSWERS_LOST = (
    "pools already written stay, and an answer that cannot be read is asked for again (one request each), the others "
    "are not"
)
# What damage to the trials of a run folder costs.
TRIALS_LOST = "a trial that cannot be read is trained again, the others are not, and the LLM is asked nothing"
_HEADER, _PAGE = 100, 4096
_BYTES_A_ROW = 50
_ROOM = 2**22  # bytes free on a disk below which a database that cannot be read may lack room and no more


def make_database(path: Path, schema: Sequence[str]) -> None:
    """Make a database (WAL) if it is missing: under another name first, so that a kill leaves no half of one."""
    if path.exists():
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(aside)) as database:
            database.executescript(";\n".join(("BEGIN", *schema, "COMMIT")))
            # last: what stood in a write-ahead log on a full disk would be lost with it, and no error says so
            database.execute("PRAGMA journal_mode=WAL")
        try:
            os.link(aside, path)  # unlike a rename, this takes no other process's file away
        except OSError:
            if not path.exists():  # the file system knows no links
                aside.replace(path)
    finally:
        for end in ("", "-journal", "-wal", "-shm"):
            _beside(aside, end).unlink(missing_ok=True)


def open_reading(path: Path, timeout: float = 5) -> sqlite3.Connection:
    """Open for reading while another process may write; nothing is made or changed, also on read-only media.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    address = f"{path.absolute().as_uri()}?mode=ro"
    try:
        return _open(address, timeout)
    except sqlite3.OperationalError:
        if os.access(path.parent, os.W_OK):
            raise
    log = _beside(path, "-wal")
    if not log.is_file() or not log.stat().st_size:
        return _open(f"{address}&immutable=1", timeout)
    with TemporaryDirectory() as folder:  # SQLite reads a write-ahead log only where it may make a file beside it
        with closing(sqlite3.connect(_copy(path, Path(folder)))) as source:
            memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            source.backup(memory)
    memory.execute("PRAGMA query_only=ON")
    return memory


def _open(address: str, timeout: float) -> sqlite3.Connection:
    database = sqlite3.connect(address, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        database.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error:
        database.close()
        raise
    return database


def check_database(path: Path, lost: str) -> None:
    """See that a database is whole: every page, every index.

    Args:
        path: of the file; one that is not there is whole.
        lost: what damage to it costs.

    Raises:
        RunFolderError: it is not.
    """
    if not path.exists():
        return
    if not path.stat().st_size:
        raise tell_damage(path, "it is empty", lost)
    try:
        with closing(open_reading(path)) as database:
            (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as exc:
        raise tell_damage(path, exc, lost) from exc
    if found != "ok":
        raise tell_damage(path, found, lost)


def tell_damage(path: Path | str, reason: object, lost: str) -> RunFolderError:
    """The error for a damaged database, with the cheapest remedy; a full disk is no damage."""
    is_full = any(mark in str(reason) for mark in ("full", "disk I/O"))
    if isinstance(reason, sqlite3.OperationalError) and (is_full or shutil.disk_usage(Path(path).parent).free < _ROOM):
        return RunFolderError(
            f"{path}: the disk is full or failing ({reason}); free some space and run the same command again, "
            "everything so far is kept"
        )
    return RunFolderError(
        f"{path}: damaged ({' '.join(str(reason).split())}); {lost}; `cuvee repair {shlex.quote(str(path))}` keeps all "
        "that can be read"
    )


def repair_database(path: Path, schema: Sequence[str], fix: Fix, *, or_empty: bool = False) -> str | None:
    """Write every row that can still be read into a new file, which takes the damaged one's place.

    Args:
        path: the damaged file, which stays beside the new one under another name.
        schema: of the new file.
        fix: looks at each row.
        or_empty: where not one row can be read, an empty file takes its place.

    Returns:
        What was done; None where nothing is damaged.

    Raises:
        RunFolderError: not one row can be read; the file is left as it is.
    """
    with TemporaryDirectory(dir=path.parent) as folder:
        new = Path(folder) / "new"
        make_database(new, schema)
        start, pages = new.read_bytes()[:_PAGE], path.stat().st_size // _PAGE
        start = start[:28] + pages.to_bytes(4, "big") + bytes(8) + start[40:]  # with all pages in use that there are
        with closing(sqlite3.connect(new)) as fresh, fresh:
            fresh.execute("PRAGMA journal_mode=DELETE")  # all rows are in this one file once it is closed
            tables = [name for (name,) in fresh.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for size in (_HEADER, _PAGE):  # the first page too, where nothing can be read by its own
                with _copy(path, Path(folder)).open("r+b") as stream:
                    stream.write(start[:size])
                found = {table: _read_rows(Path(stream.name), table) for table in tables}
                if any(found.values()):
                    break
            fixed = {table: [fix(table, row) for row in rows] for table, rows in found.items()}
            for table, rows in fixed.items():
                for row in filter(None, rows):
                    fresh.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        number, seen = (sum(row is not None for row in chain(*rows.values())) for rows in (fixed, found))
        with suppress(RunFolderError):
            check_database(path, "")
            if fixed == found:
                return None
        if not number and not or_empty and path.stat().st_size:
            raise RunFolderError(
                f"{path}: not one row can be read; it is left as it is, and if it was a ledger, its answers are lost"
            )
        damaged = next(p for n in range(1, 10**6) if not (p := _beside(path, f".damaged{n}")).exists())
        shutil.copyfile(path, damaged)
        for end in ("-wal", "-shm"):  # they belong to the damaged file, and would be read into the new one
            if (beside := _beside(path, end)).exists():
                beside.replace(_beside(damaged, end))
        new.replace(path)
    left = f", {seen - number} left out that had been changed" if seen > number else ""
    return f"{path}: {number} rows kept{left}; the damaged file is now {damaged.name}"


def _read_rows(path: Path, table: str) -> list[Row]:
    """Every row that can be read, one by one: damage to a page costs the rows in it and no others."""
    found: list[Row] = []
    with closing(sqlite3.connect(path)) as database, suppress(sqlite3.Error):
        database.text_factory = lambda content: content.decode("utf-8", "replace")
        database.execute(f"SELECT * FROM {table} WHERE rowid = 0")  # without such a table nothing can be read
        last = path.stat().st_size // _BYTES_A_ROW
        with suppress(sqlite3.Error, TypeError):
            last = min(last, int(database.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0]))
        for number in range(1, last + 1):
            with suppress(sqlite3.Error):
                found += database.execute(f"SELECT * FROM {table} WHERE rowid = ?", (number,)).fetchall()
    return found


def _copy(path: Path, folder: Path) -> Path:
    """A copy of a database in another folder, with its write-ahead log."""
    for source in (path, _beside(path, "-wal")):
        if source.exists():
            shutil.copyfile(source, folder / source.name)
    return folder / path.name


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)
