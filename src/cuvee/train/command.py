"""Training by a program of the user's own: it is given a folder, and what it leaves there is read.

::

    train.jsonl        the blend: text and label, or prompt, completion and both as messages; with origin and weight
    validation.jsonl   real rows that are never trained on, in the same form
    eval.jsonl         what to predict, without targets: id, and text, or prompt and messages; empty where only the
                       model is wanted
    trial.json         task, seed, steps, labels, and the settings of one's own
    log.txt            what the program prints
    predictions.jsonl  from the program: id and prediction of every row of eval.jsonl; or
    scores.jsonl       id and score of every row, from 0 to 1
    model/             from the program: the model, where one is to be kept

Where a study names no program, its folders are run elsewhere: they are written once, and read when they have answers.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cuvee.characters import visible
from cuvee.corpus import Corpus
from cuvee.corpus.files import replace_text
from cuvee.corpus.formats import read_table
from cuvee.corpus.forms import split_turns
from cuvee.errors import ConfigError, InputError, TrainingError, TrialsAwaited
from cuvee.fingerprint import hash_value
from cuvee.inputs import read_kernel, show_value
from cuvee.train.own import wrap_answers
from cuvee.train.settings import Program, Trained, Training, TrainSettings

EVAL, TRIAL, PREDICTIONS, SCORES, MODEL = "eval.jsonl", "trial.json", "predictions.jsonl", "scores.jsonl", "model"
_LOG, _DONE = "log.txt", "finished"
_WATCH_S = 0.1
_SCRIPTS = (".py", ".sh", ".R", ".jl", ".pl", ".js", ".rb")
_LINES, _LETTERS = 5, 200  # of a log that a failure tells
# Ends the program and all that it started when the other end of its input closes, even where that was killed.
_SUPERVISE = """
import os, signal, subprocess, sys, threading
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
threading.Thread(target=lambda: (os.read(0, 1), os.killpg(0, signal.SIGKILL)), daemon=True).start()
code = child.wait()
os._exit(code if code >= 0 else 128 - code)
"""


@dataclass(frozen=True, slots=True)
class GivenScores:
    """A predictor of which only its scores are known."""

    settings: TrainSettings
    scores: Mapping[str, float]

    def score_inputs(self, inputs: Sequence[str]) -> NDArray[np.float64]:
        """What the program scored each input, shape (n,)."""
        return np.array([self.scores[each] for each in inputs])


def offer_inputs(folder: Path, held_out: Corpus) -> None:
    """Write the inputs that a program is to answer, each once and without its target.

    Raises:
        TrainingError: a file is in the folder's place.
    """
    if not (folder / EVAL).is_file():
        _make_folder(folder)
        inputs = dict.fromkeys(held_out.prompts if held_out.task == "generation" else held_out.texts)
        _write_lines(folder / EVAL, ({"id": i, **_tell_row(held_out, said)} for i, said in enumerate(inputs)))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as exc:
        raise TrainingError(f"{folder}: a file is where the trial's folder goes; move it away") from exc


def _tell_row(corpus: Corpus, said: str, answer: str | None = None) -> dict[str, object]:
    """An input, with its target if it is told; of generation also as the turns of a chat."""
    told = {} if answer is None else {"label" if corpus.task == "classification" else "completion": answer}
    if corpus.task == "classification":
        return {"text": said, **told}
    turns = [*split_turns(said), *(("assistant", answer) for answer in told.values())]
    return {"prompt": said, **told, "messages": [{"role": role, "content": content} for role, content in turns]}


def _write_rows(path: Path, corpus: Corpus, weights: Sequence[float]) -> None:
    inputs = corpus.prompts if corpus.task == "generation" else corpus.texts
    rows = zip(inputs, corpus.targets, corpus.origins, weights, strict=True)
    _write_lines(path, (_tell_row(corpus, *row[:2]) | {"origin": row[2], "weight": row[3]} for row in rows))


def _write_lines(path: Path, rows: Iterable[dict[str, object]]) -> None:
    replace_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))


def train_command(training: Training) -> Trained:
    """Run the program of ``settings`` in ``folder``, and read its answers to the ``eval.jsonl`` that lies there.

    Where that is empty or missing, it is to leave a model. A folder that the program has finished is not run again.

    Raises:
        ConfigError: no program, or no folder.
        TrainingError: the program failed, took too long or too much memory, or its answers are not those asked for.
        TrialsAwaited: there is no program to run here, and no answers yet.
    """
    settings, folder = training.settings, training.folder
    program = settings.program
    if program is None or folder is None:
        raise ConfigError(
            "trainer 'command' needs a program and a folder: name the program in train.command of a study"
        )
    wants_model = not (folder / EVAL).is_file() or not (folder / EVAL).stat().st_size
    if program.run is None:
        if not (folder / TRIAL).is_file():
            _fill(folder, training)
        if not any((folder / name).exists() for name in ([MODEL] if wants_model else [PREDICTIONS, SCORES])):
            raise TrialsAwaited(str(folder))
    elif not (folder / _DONE).is_file():
        for name in (PREDICTIONS, SCORES):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / MODEL, ignore_errors=True)
        _fill(folder, training)
        _run(program, folder)
        (folder / _DONE).touch()
    try:
        if wants_model and not (folder / MODEL).is_dir():
            raise TrainingError(f"the program left no folder {MODEL}")
        if (folder / SCORES).is_file() and not wants_model:
            return cast("Trained", GivenScores(settings, _read_answers(folder, SCORES, "score")))
        answers = {} if wants_model else _read_answers(folder, PREDICTIONS, "prediction")
    except (InputError, TrainingError) as exc:
        (folder / _DONE).unlink(missing_ok=True)
        raise TrainingError(f"{exc}{_tell_log(folder)}") from exc

    def keep(target: Path) -> None:
        shutil.copytree(folder / MODEL, target, dirs_exist_ok=True)

    return wrap_answers(training.corpus, lambda inputs: [answers[each] for each in inputs], settings, keep)


def _fill(folder: Path, training: Training) -> None:
    """Write the rows, and ``trial.json`` last."""
    corpus, settings, held_out = training.corpus, training.settings, training.validation
    _make_folder(folder)
    _write_rows(folder / "train.jsonl", corpus, training.loss.weights.tolist())
    if held_out is not None:
        _write_rows(folder / "validation.jsonl", held_out, held_out.weights.tolist())
    if not (folder / EVAL).is_file():
        _write_lines(folder / EVAL, [])  # so that a program that predicts has nothing to do, and does not fail
    told: dict[str, object] = {"task": corpus.task, "seed": settings.seed % 2**31, "steps": settings.steps}
    told |= {"labels": corpus.labels} if corpus.task == "classification" else {}
    _write_lines(folder / TRIAL, [told | {"settings": dict(settings.program.settings) if settings.program else {}}])


# --- the program ---
def split_line(line: str) -> list[str]:
    """The words of a program's line, without a shell.

    Raises:
        ValueError: a quotation is open, or the line does not name the folder.
    """
    words = shlex.split(line)
    if not any("{folder}" in word for word in words[1:]):
        raise ValueError(f"the line {line!r} does not say where the trial's folder goes; add {{folder}}")
    return words


def find_files(program: Program) -> None:
    """See that the program and the script that its line names are here.

    Raises:
        TrainingError: one is not.
    """
    name, *words = split_line(program.run or "")
    if shutil.which(name) is None and not Path(program.cwd, name).is_file():
        raise TrainingError(f"train.command: there is no program {name!r}; is it installed, and on PATH?")
    scripts = (word for word in words if word.endswith(_SCRIPTS) and not word.startswith("-"))
    if lost := next(
        (word for word in scripts if "{folder}" not in word and not Path(program.cwd, word).is_file()), None
    ):
        raise TrainingError(
            f"train.command: there is no file {Path(program.cwd, lost)}; name the script as it lies there"
        )


def hash_program(program: Program) -> tuple[str, ...]:
    """What results of a program are known by: its line and settings, and each file that the line names."""
    if program.run is None:
        return (hash_value(dict(program.settings)),)
    files = (Path(program.cwd, word) for word in split_line(program.run)[1:])
    contents = [hashlib.sha256(each.read_bytes()).hexdigest() for each in files if each.is_file()]
    return (hash_value([program.run, dict(program.settings), contents]),)


def _run(program: Program, folder: Path) -> None:
    """Run it to its end, and see that it ended well.

    Raises:
        TrainingError: it did not.
    """
    find_files(program)
    words = [word.replace("{folder}", str(folder.resolve())) for word in split_line(program.run or "")]
    with (folder / _LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _SUPERVISE, *words],
            stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=program.cwd, start_new_session=True,
        )  # fmt: skip
    begun, limit, why = time.monotonic(), program.memory_gb, ""
    try:
        while process.poll() is None and not why:
            time.sleep(_WATCH_S)
            held = _held_memory(process.pid) if limit is not None else 0
            if program.timeout_s is not None and time.monotonic() - begun >= program.timeout_s:
                why = f"took longer than train.command.timeout_s ({program.timeout_s:g} s) and was ended"
            elif limit is not None and held > limit * 1e9:
                why = f"took {held / 1e9:.1f} GB, more than train.command.memory_gb ({limit:g}), and was ended"
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        if process.stdin is not None:
            process.stdin.close()
    if not why and code:
        is_signal = code > 128 and code - 128 in {each.value for each in signal.Signals}
        why = f"ended with exit code {code}" + (f", by signal {signal.Signals(code - 128).name}" if is_signal else "")
    if why:
        raise TrainingError(f"the program {why}{_tell_log(folder)}")


def _held_memory(group: int) -> int:
    """Bytes of resident memory of all processes of a group; 0 where not known."""
    pages = 0
    for entry in Path("/proc").glob("[0-9]*"):
        fields = read_kernel(f"{entry}/stat").rpartition(")")[2].split()
        if len(fields) > 21 and int(fields[2]) == group:
            pages += int(fields[21])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _tell_log(folder: Path) -> str:
    """The last lines of the program's log, for the end of a reason."""
    path = folder / _LOG
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    said = [visible(line.strip())[:_LETTERS] for line in lines if line.strip()][-_LINES:]
    return f"; the end of its log: {' | '.join(said)}" if said else "; it wrote nothing to its log"


# --- what it left ---
def _read_answers(folder: Path, name: str, key: str) -> dict[str, Any]:
    """Input -> answer, of exactly the rows of ``eval.jsonl``.

    Raises:
        InputError: a line cannot be read.
        TrainingError: the file is missing, rows are missing or too many, or a score is none.
    """
    if not (folder / name).is_file():
        raise TrainingError(f"the program left neither {PREDICTIONS} nor {SCORES}")
    asked = {row["id"]: row.get("prompt") or row["text"] for row in read_table(folder / EVAL).to_pylist()}
    rows = read_table(folder / name).to_pylist()
    ids = [row.get("id", place) for place, row in enumerate(rows)]
    found = {place: row.get(key) for place, row in zip(ids, rows, strict=True) if isinstance(place, int)}
    if missing := [place for place in asked if place not in found]:
        raise TrainingError(f"{name} lacks {len(missing)} of {len(asked)} rows; the first is id {missing[0]}")
    if len(rows) > len(asked):
        raise TrainingError(f"{name} has {len(rows) - len(asked)} rows whose id is none of {EVAL}, or is there twice")
    for place, answer in found.items():
        is_score = isinstance(answer, int | float) and 0 <= answer <= 1
        if answer is None or (key == "score" and not is_score):
            wanted = "a number from 0 to 1" if key == "score" else "one"
            raise TrainingError(f"{name}: {key} of id {place} is {show_value(answer)}; give {wanted}")
    return {asked[place]: answer for place, answer in found.items()}
