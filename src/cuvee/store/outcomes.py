"""Trials as the database of a run folder keeps them, and how many there are."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from cuvee.databases import TRIALS_LOST, open_reading, tell_damage
from cuvee.errors import RunFolderError
from cuvee.records import Cell, Composition, Draw, Estimate, Scores, Trial, TrialFailure
from cuvee.store.reads import compare_logs, read_file

_VALUES = TypeAdapter(dict[str, Estimate])
_CELL, _DRAW, _FAILURE = TypeAdapter(Cell), TypeAdapter(Draw), TypeAdapter(TrialFailure)
_COMPOSITION = TypeAdapter(Composition)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTrial:
    """A trial under way: its cell, its draw (generation, sampling, training), since when (seconds since 1970)."""

    cell: str
    draw: tuple[int, int, int]
    started: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCounts:
    """What a run folder knows of its trials."""

    done: int
    failed: int
    running: tuple[RunningTrial, ...]


def count_trials(path: Path) -> TrialCounts:
    """Count the trials of a run folder, which another process may hold; nothing is changed.

    Raises:
        RunFolderError: its ``trials.sqlite`` cannot be read.
    """
    file = path / "trials.sqlite"
    try:
        with closing(open_reading(file)) as database:
            counts = dict(database.execute("SELECT failed, count(*) FROM trials GROUP BY failed"))
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            query = "SELECT cell, draw, started FROM running ORDER BY started, key"
            rows = database.execute(query).fetchall() if "running" in tables else []
        running = [
            RunningTrial(cell=cell, draw=(int(g), int(s), int(t)), started=started)
            for cell, (g, s, t), started in ((cell, draw.split(","), started) for cell, draw, started in rows)
        ]
    except (sqlite3.Error, ValueError) as exc:
        raise _refuse(file, exc) from exc
    return TrialCounts(done=counts.get(0, 0), failed=counts.get(1, 0), running=tuple(running))


def read_failures(path: Path) -> list[TrialFailure]:
    """The failed trials of a run folder, which another process may hold, in the order of their cells and draws.

    Raises:
        RunFolderError: its ``trials.sqlite`` cannot be read.
    """
    file = path / "trials.sqlite"
    try:
        with closing(open_reading(file)) as database:
            rows = database.execute("SELECT payload FROM trials WHERE failed ORDER BY payload").fetchall()
        return [_FAILURE.validate_json(payload) for (payload,) in rows]
    except (sqlite3.Error, ValueError) as exc:
        raise _refuse(file, exc) from exc


def _refuse(file: Path, exc: Exception) -> RunFolderError:
    if not file.exists():
        compare_logs(file.parent, [], read_file(file.parent, broken=True))  # says so if it was there
        return RunFolderError(f"{file}: not there; is {file.parent} a run folder?")
    reason = "a row is not what was written" if isinstance(exc, ValueError) else exc
    return tell_damage(file, reason, TRIALS_LOST)


def encode_outcome(outcome: Trial | TrialFailure) -> tuple[str, bytes | None]:
    """The outcome as JSON, and what its items scored; None where it failed."""
    if isinstance(outcome, TrialFailure):
        return json.dumps(asdict(outcome), sort_keys=True), None
    payload = {
        "cell": asdict(outcome.cell),
        "draw": asdict(outcome.draw),
        "composition": asdict(outcome.composition),
        "steps": outcome.steps,
        "part": outcome.part,
        "n": outcome.scores.n,
        "values": _VALUES.dump_python(dict(outcome.scores.values), mode="json"),
        "score": outcome.scores.score,
    }
    items = np.packbits(outcome.scores.correct).tobytes()
    if outcome.scores.graded is not None:
        items += outcome.scores.graded.astype("<f8").tobytes()
    return json.dumps(payload, sort_keys=True), items


def decode_outcome(payload: str, items: bytes | None) -> Trial | TrialFailure:
    """What ``encode_outcome`` was given.

    ``items`` holds a bit an item, whether it is correct; then, for graded scores, a float64 each.
    """
    if items is None:
        return _FAILURE.validate_json(payload)
    values = json.loads(payload)
    n = int(values["n"])
    whole = -(-n // 8)
    bits = np.unpackbits(np.frombuffer(items[:whole], dtype=np.uint8), count=n).astype(bool)
    graded = np.frombuffer(items[whole:], dtype="<f8").astype(np.float64) if len(items) > whole else None
    return Trial(
        cell=_CELL.validate_python(values["cell"]),
        draw=_DRAW.validate_python(values["draw"]),
        composition=_COMPOSITION.validate_python(values["composition"]),
        steps=int(values["steps"]),
        part="test" if values["part"] == "test" else "validation",
        scores=Scores(
            n=n,
            values=_VALUES.validate_python(values["values"]),
            correct=bits,
            graded=graded,
            score=str(values.get("score", "accuracy")),
        ),
    )
