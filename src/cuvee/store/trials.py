"""Trials as the database of a run folder keeps them, and the log of the locked test in a file beside it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter

from cuvee.databases import TRIALS_LOST, Row, make_database, open_reading, repair_database, tell_damage
from cuvee.errors import RunFolderError
from cuvee.fingerprint import hash_value
from cuvee.records import Cell, Composition, Draw, Estimate, Scores, Trial, TrialFailure

# Of the run folder: what the study is about, then every logged read of the locked test, a line each.
FILE = "locked-test.jsonl"
# What to do without the log of the locked test.
STUDY, TRIALS = "study", "trials.sqlite"
LOG_LOST = "put back a copy of it, or run the study in another folder (--out): without it nobody knows what was read"
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS trials (key TEXT PRIMARY KEY, payload TEXT NOT NULL, correct BLOB, "
    "failed INTEGER NOT NULL, checksum TEXT)",
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
        except ValueError as exc:
            raise RunFolderError(f"{path}, line {number}: damaged; {LOG_LOST}") from exc
    return found


def repair_trials(folder: Path) -> str | None:
    """Keep every trial of a run folder that can still be read.

    Returns:
        What was done; None where all was whole.
    """

    def fix(_: str, row: Row) -> Row | None:
        wanted = hash_row(row)
        return (*row[:-1], wanted) if row[-1] in (None, wanted) else None

    path = folder / TRIALS
    if path.exists():
        return repair_database(path, SCHEMA, fix, or_empty=True)
    make_database(path, SCHEMA)
    return f"{path}: made again, without trials"


# --- trials ---
@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCounts:
    """What a run folder knows of its trials."""

    done: int
    failed: int


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


_STORED, _FAILURE = TypeAdapter(_Stored), TypeAdapter(TrialFailure)


def count_trials(path: Path) -> TrialCounts:
    """Count the trials of a run folder, which another process may hold; nothing is changed.

    Raises:
        RunFolderError: its ``trials.sqlite`` cannot be read.
    """
    with _look_into(path) as database:
        counts = dict(database.execute("SELECT failed, count(*) FROM trials GROUP BY failed"))
    return TrialCounts(done=counts.get(0, 0), failed=counts.get(1, 0))


def read_failures(path: Path) -> list[TrialFailure]:
    """The failed trials of a run folder, which another process may hold, in the order of their cells and draws.

    Raises:
        RunFolderError: its ``trials.sqlite`` cannot be read.
    """
    with _look_into(path) as database:
        rows = database.execute("SELECT payload FROM trials WHERE failed ORDER BY payload").fetchall()
        return [_FAILURE.validate_json(payload) for (payload,) in rows]


@contextmanager
def _look_into(path: Path) -> Iterator[sqlite3.Connection]:
    """The trials of a run folder, to be read."""
    file = path / TRIALS
    try:
        with closing(open_reading(file)) as database:
            yield database
    except (sqlite3.Error, ValueError) as exc:
        if not file.exists():
            raise RunFolderError(f"{file}: not there; is {path} a run folder?") from exc
        reason = "a row is not what was written" if isinstance(exc, ValueError) else exc
        raise tell_damage(file, reason, TRIALS_LOST) from exc


def encode_outcome(outcome: Trial | TrialFailure) -> tuple[str, bytes | None]:
    """The outcome as JSON, and what its items scored; None where it failed."""
    if isinstance(outcome, TrialFailure):
        return json.dumps(asdict(outcome), sort_keys=True), None
    scores, kept = outcome.scores, ("cell", "draw", "composition", "steps", "part")
    payload = {name: getattr(outcome, name) for name in kept}
    grouped = scores.groups is not None
    stored = _Stored(**payload, n=scores.n, values=dict(scores.values), score=scores.score, grouped=grouped)
    items = np.packbits(scores.correct).tobytes()
    if scores.graded is not None:
        items += scores.graded.astype("<f8").tobytes()
    if scores.groups is not None:
        items += scores.groups.astype("<i8").tobytes()
    return json.dumps(_STORED.dump_python(stored, mode="json"), sort_keys=True), items


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
    scores = Scores(n=kept.n, values=kept.values, correct=bits, graded=graded, score=kept.score, groups=groups)
    return Trial(
        cell=kept.cell, draw=kept.draw, composition=kept.composition, steps=kept.steps, part=kept.part, scores=scores
    )


def hash_row(row: Row) -> str:
    """The checksum of a row of ``trials``: all that the advice depends on."""
    return hash_value(row[:4])[:16]
