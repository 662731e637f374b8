"""SQLite files that outlive kills, full disks and damage: made whole, read on read-only media, checked."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from cuvee.errors import RunFolderError

Row = tuple[str | bytes | int | float | None, ...]
# What damage to a ledger costs.
ANSWERS_LOST = "pools already written stay, and an answer that cannot be read is asked for again (one request each)"
# What damage to the trials of a run folder costs.
TRIALS_LOST = "a trial that cannot be read is trained again, the others are not, and the LLM is asked nothing"
_ROOM = 2**22  # bytes free on a disk below which a database that cannot be read may lack room and no more


def make_database(path: Path, schema: str) -> None:
    """Make a database (WAL) if it is missing: under another name first, so that a kill leaves no half of one."""
    if path.exists():
        return
    for end in ("-wal", "-shm"):  # what a file left that was moved away would be read into the new one
        _beside(path, end).unlink(missing_ok=True)
    aside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    aside.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(aside)) as database:
            database.executescript(f"BEGIN;\n{schema}\nCOMMIT")
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
    is_readonly = path.exists() and not os.access(path.parent, os.W_OK)
    mode = "immutable=1" if is_readonly and not _beside(path, "-wal").exists() else "mode=ro"
    address = f"{path.absolute().as_uri()}?{mode}"
    database = sqlite3.connect(address, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        database.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error as exc:
        database.close()
        if not isinstance(exc, sqlite3.OperationalError) or not is_readonly:
            raise
    else:
        return database
    with TemporaryDirectory() as folder:  # SQLite reads such a file only where it may make others beside it
        database = sqlite3.connect(_copy(path, Path(folder)), isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA query_only=ON")
        database.execute("SELECT 1 FROM sqlite_master").fetchone()  # opens what the folder takes away with it
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
        f"{path}: damaged ({' '.join(str(reason).split())}); {lost}; move it away, or put in its place what "
        "`sqlite3 FILE .recover` can read of it, and run the same command again"
    )


def _copy(path: Path, folder: Path) -> Path:
    """A copy of a database in another folder, with its write-ahead log."""
    for source in (path, _beside(path, "-wal")):
        if source.exists():
            shutil.copyfile(source, folder / source.name)
    return folder / path.name


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)
