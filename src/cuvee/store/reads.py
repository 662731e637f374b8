"""The log of the locked test, kept twice: in ``trials.sqlite`` and in a text file beside it."""

from __future__ import annotations

import json
import shlex
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from pydantic import TypeAdapter

from cuvee.corpus.files import replace_text
from cuvee.databases import Row, make_database, repair_database
from cuvee.errors import RunFolderError
from cuvee.fingerprint import hash_value
from cuvee.records import Cell

FILE = "locked-test.jsonl"
"""Of the run folder: what the study is about, then every logged read of the locked test, a line each."""
STUDY = "study"
_CELL = TypeAdapter(Cell)
_UNCHECKED = 4
"""Columns of ``trials`` as earlier versions made it, without a checksum."""
VERSION = 1
"""Of ``trials.sqlite``, since reads are logged twice and trials carry checksums."""
SCHEMA = (
    f"PRAGMA user_version = {VERSION}",
    "CREATE TABLE IF NOT EXISTS identity (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS trials (key TEXT PRIMARY KEY, payload TEXT NOT NULL, correct BLOB, "
    "failed INTEGER NOT NULL, checksum TEXT)",
    "CREATE TABLE IF NOT EXISTS running (key TEXT PRIMARY KEY, cell TEXT NOT NULL, draw TEXT NOT NULL, "
    "started REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS access (number INTEGER PRIMARY KEY AUTOINCREMENT, reason TEXT NOT NULL, "
    "detail TEXT NOT NULL)",
)
Entry = tuple[str, str]
"""A reason and its detail; the first one is ``study`` and what the study is about, as JSON."""


def read_database(database: sqlite3.Connection) -> list[Entry]:
    """The log in ``trials.sqlite``."""
    identity = dict(database.execute("SELECT key, value FROM identity"))
    study = [(STUDY, json.dumps(identity, sort_keys=True))] if identity else []
    return [*study, *database.execute("SELECT reason, detail FROM access ORDER BY number")]


def read_file(folder: Path, *, broken: bool = False) -> list[Entry]:
    """The log in the text file.

    Args:
        folder: the run folder.
        broken: leave out lines that cannot be read.

    Raises:
        RunFolderError: a line cannot be read.
    """
    path = folder / FILE
    found = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else [], start=1):
        try:
            reason, detail = json.loads(line)
            found.append((str(reason), str(detail)))
        except ValueError as exc:
            if not broken:
                raise RunFolderError(
                    f"{path}, line {number}: damaged; the log of the locked test is in {folder / 'trials.sqlite'} too: "
                    f"`cuvee repair {shlex.quote(str(folder))}` writes it again"
                ) from exc
    return found


def write_file(entries: Sequence[Entry]) -> str:
    """The content of the text file."""
    return "".join(f"{json.dumps(entry, ensure_ascii=False)}\n" for entry in entries)


def add_entry(database: sqlite3.Connection, entry: Entry) -> None:
    """Put one entry into ``trials.sqlite``; the caller commits."""
    reason, detail = entry
    if reason == STUDY:
        database.executemany("INSERT OR IGNORE INTO identity VALUES (?, ?)", sorted(json.loads(detail).items()))
    else:
        database.execute("INSERT INTO access (reason, detail) VALUES (?, ?)", entry)


def compare_logs(folder: Path, database: Sequence[Entry], file: Sequence[Entry]) -> Entry | None:
    """The entry that a killed process had put into the file and not yet into the database, if there is one.

    Raises:
        RunFolderError: the two differ in more than that.
    """
    if list(file[: len(database)]) == list(database) and len(file) <= len(database) + 1:
        return file[-1] if len(file) > len(database) else None
    if not database:
        happened = "it was deleted or emptied, and its trials with it"
    elif not file:
        happened = f"{FILE} was deleted or emptied"
    elif [entry for entry in database if entry[0] != STUDY] == [entry for entry in file if entry[0] != STUDY]:
        happened = "the reads agree, but the study that they belong to does not"
    else:
        happened = "one of them was changed, or is of another time"
    reads = [sum(reason != STUDY for reason, _ in log) for log in (database, file)]
    raise RunFolderError(
        f"{folder / 'trials.sqlite'}: logs {reads[0]} reads of the locked test, and {FILE} beside it logs {reads[1]}: "
        f"{happened}; put back the files that belong together, or `cuvee repair {shlex.quote(str(folder))}` keeps "
        "every read of both: trials that are gone are trained again, and the LLM is asked nothing"
    )


def repair_trials(folder: Path) -> list[str]:
    """Keep every trial of a run folder that can still be read, and every logged read of the locked test.

    Returns:
        What was done; nothing where all was whole.
    """

    def fix(table: str, row: Row) -> Row | None:
        if table != "trials":
            return None if any(isinstance(value, str) and "\ufffd" in value for value in row) else row
        wanted = hash_row(row)
        return (*row[:-1], wanted) if row[-1] in (None, wanted) else None

    path, done = folder / "trials.sqlite", []
    if path.exists():
        done += [said] if (said := repair_database(path, SCHEMA, fix, or_empty=True)) else []
    else:
        make_database(path, SCHEMA)
        done.append(f"{path}: made anew, without trials")
    with closing(sqlite3.connect(path)) as database, database:
        file, known = read_file(folder, broken=True), read_database(database)
        both = [*file, *(entry for entry in known if entry not in file)]
        study = [entry for entry in both if entry[0] == STUDY][:1]  # where the two name different ones, the file's
        both = [*study, *(entry for entry in both if entry[0] != STUDY)]
        if both != known:
            database.execute("DELETE FROM access")
            database.execute("DELETE FROM identity")
            for entry in both:
                add_entry(database, entry)
        content = write_file(both)
        if both != known or not (folder / FILE).is_file() or (folder / FILE).read_text(errors="replace") != content:
            replace_text(folder / FILE, content)
            done.append(f"{folder / FILE}: {sum(reason != STUDY for reason, _ in both)} reads of the locked test kept")
    return done


def upgrade_database(database: sqlite3.Connection) -> None:
    """Give the trials of an earlier version checksums, as they are; the caller commits."""
    for statement in SCHEMA[1:]:
        database.execute(statement)
    if len(database.execute("PRAGMA table_info(trials)").fetchall()) == _UNCHECKED:
        database.execute("ALTER TABLE trials ADD COLUMN checksum TEXT")
    rows = database.execute("SELECT * FROM trials").fetchall()
    database.executemany("UPDATE trials SET checksum = ? WHERE key = ?", [(hash_row(row), row[0]) for row in rows])


def name_trial(row: Row) -> str:
    """The cell and draw of a row of ``trials``, as far as they can be read."""
    try:
        found = json.loads(str(row[1]))
        cell, draw = _CELL.validate_python(found["cell"]), found["draw"]
        return f"{cell.key}, draw {draw['generation']}, {draw['sampling']}, {draw['training']}"
    except (ValueError, KeyError, TypeError):
        return str(row[0])[:12]


def hash_row(row: Row) -> str:
    """The checksum of a row of ``trials``: all that the advice depends on."""
    return hash_value(row[:4])[:16]
