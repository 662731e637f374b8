import dataclasses
import os
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing

import numpy as np
import pytest

from cuvee.corpus import Corpus, load_corpus
from cuvee.errors import LockedTestError, RunFolderBusy, RunFolderError, RunFolderMismatch
from cuvee.records import (
    Cell,
    Composition,
    Draw,
    Estimate,
    Level,
    Measurement,
    Rejected,
    Scores,
    Trial,
    TrialFailure,
)
from cuvee.store import RunFolder, StoredPool

LEVEL = Level(dial="topics", name="4", rank=2)
CELL = Cell(kind="blend", dial="topics", level="4", share=0.75, rows_per_label=4)
DRAW = Draw(generation=1, sampling=0, training=2)
MEASURED = Measurement(
    name="p", fingerprint="f", against=None, n=3, encoder="e", encoder_hash="h", seed=0,
    values={"vendi_q1": Estimate(value=1.5, low=1.0, high=2.0, n=3, interval="jackknife", settings={"q": 1.0})},
)  # fmt: skip


def make_trial(correct: list[bool]) -> Trial:
    return Trial(
        cell=CELL,
        draw=DRAW,
        composition=Composition(
            share=0.75, real_rows=4, synthetic_rows=12, unique_rows=16, most_repeats=1, label_counts={"a": (4, 12)}
        ),
        steps=300,
        part="validation",
        scores=Scores(
            n=len(correct),
            values={"accuracy": Estimate(value=0.5, low=0.25, n=len(correct), settings={"tau": 0.5})},
            correct=np.array(correct),
        ),
    )


def test_pools_measurements_and_trials_come_back_as_they_were(tmp_path):
    pool = StoredPool(
        level=LEVEL,
        corpus=Corpus.from_rows([{"text": "x", "target": "a", "block": 0}], origin="synthetic"),
        rejected=(Rejected(slot="s", reason="empty", text=""),),
        note="short by 1",
        key="k",
        failed=("f1", "f2"),
    )
    trial = make_trial([True, False, True] * 7)
    graded, groups = np.linspace(0, 1, 21), np.arange(21) // 4
    full = dataclasses.replace(trial, scores=dataclasses.replace(trial.scores, graded=graded, groups=groups))
    failure = TrialFailure(cell=CELL, draw=DRAW, stage="train", reason="boom")
    with RunFolder(tmp_path) as folder:
        folder.check_identity({"data": "1", "seeds": "0"})
        folder.save_pool(pool)
        folder.add_trial("g", full)
        folder.save_measurement("topics=4", MEASURED, "m")
        folder.add_trial("t", trial)
        folder.add_trial("f", failure)
    with RunFolder(tmp_path) as folder:
        back = folder.load_pool(LEVEL, "k")
        assert back is not None and back.corpus.table.equals(pool.corpus.table)
        assert (back.rejected, back.note) == (pool.rejected, pool.note)
        assert back.failed == pool.failed
        assert folder.load_pool(LEVEL, "other") is None
        assert folder.load_measurement("topics=4", "m") == MEASURED
        assert folder.load_measurement("topics=4", "other") is None
        found = folder.find_trial("t")
        assert found == trial and np.array_equal(found.scores.correct, trial.scores.correct)
        assert found.scores.graded is None and found.scores.groups is None
        scores = folder.find_trial("g").scores
        assert np.array_equal(scores.graded, graded) and np.array_equal(scores.groups, groups)
        assert folder.find_trial("f") == failure and folder.find_trial("none") is None
    assert load_corpus(tmp_path / "pools" / "topics=4.parquet").texts == ["x"]


def test_every_flipped_byte_of_a_pool_or_measurement_is_told_or_changes_nothing(tmp_path):
    rows = [{"text": f"text {k}", "target": "a", "block": 0} for k in range(30)]
    pool = StoredPool(level=LEVEL, corpus=Corpus.from_rows(rows, origin="synthetic"), key="k", note="short by 1")
    with RunFolder(tmp_path) as folder:
        folder.check_identity({"data": "1", "seeds": "0"})
        folder.save_pool(pool)
        folder.save_measurement("topics=4", MEASURED, "m")
        files = {
            folder.path / "pools" / "topics=4.parquet": (
                lambda: (pool := folder.load_pool(LEVEL, "k")) and (pool.corpus.table.to_pylist(), pool.note),
                "delete it: it is made again from the answers in ledger.sqlite without a request",
            ),
            folder.path / "measurements" / "topics=4.json": (
                lambda: folder.load_measurement("topics=4", "m"),
                "delete it: it is measured again, and the LLM is asked nothing",
            ),
        }
        for file, (load, remedy) in files.items():
            whole, told, expected = file.read_bytes(), 0, load()
            assert expected is not None
            for place in [*range(0, len(whole), max(1, len(whole) // 120)), None]:
                cut = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] if place is not None else b""
                file.write_bytes(cut)
                try:
                    assert load() == expected, place
                except RunFolderError as exc:
                    told += 1
                    assert str(file) in str(exc) and remedy in str(exc) and "\n" not in str(exc)
            assert told > 80
            file.unlink()
            assert load() is None


def test_identity_is_kept_and_compared(tmp_path):
    with RunFolder(tmp_path) as folder:
        folder.check_identity({"data": "1", "seeds": "0"})
        folder.check_identity({"data": "1", "seeds": "0"})
        with pytest.raises(RunFolderMismatch, match="other seeds"):
            folder.check_identity({"data": "1", "seeds": "1"})


@pytest.mark.slow
def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        folder.save_text("pools/x", "kept")
        (tmp_path / "run" / "pools" / ".x.tmp-7").write_text("half")
        (tmp_path / "run" / ".blend.tmp-7").mkdir()
        (tmp_path / "run" / ".trials.sqlite.tmp-7").write_text("half")
    with RunFolder(tmp_path / "run"):
        assert [str(path) for path in (tmp_path / "run").rglob("*") if ".tmp-" in path.name] == []
    assert (tmp_path / "run" / "pools" / "x").read_text() == "kept"


def test_a_second_process_is_refused_by_name_of_the_first(tmp_path):
    code = textwrap.dedent(
        f"""
        from cuvee.store import RunFolder
        from cuvee.errors import RunFolderBusy
        try:
            RunFolder({str(tmp_path)!r})
        except RunFolderBusy as exc:
            raise SystemExit(str(exc))
        """
    )
    with RunFolder(tmp_path):
        held = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert f"process {os.getpid()} is working on this run folder" in held.stderr
        with pytest.raises(RunFolderBusy):
            RunFolder(tmp_path)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_locked_test_is_confirmed_for_one_cell_only(tmp_path):
    with RunFolder(tmp_path) as folder:
        folder.log_access("leak-guard", "texts")
        folder.log_access("leak-guard", "texts")
        folder.log_access("confirmation", "cell A")
        folder.log_access("confirmation", "cell A")  # going on after a kill
        with pytest.raises(LockedTestError, match="cell A"):
            folder.log_access("confirmation", "cell B")
        assert folder.access_log() == [("leak-guard", "texts"), ("confirmation", "cell A")]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot be used"):
        RunFolder(tmp_path / "file")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    with RunFolder(tmp_path) as folder:
        folder.save_text("advice.json", "old")
        (tmp_path / f".advice.json.tmp-{os.getpid()}").symlink_to("/dev/full")
        with pytest.raises(RunFolderError, match=r"No space left.*everything before it is kept"):
            folder.save_text("advice.json", "new" * 10000)
        assert (tmp_path / "advice.json").read_text() == "old"


# --- nothing is lost in silence ---
LOOKS = [("leak-guard", "texts"), ("confirmation", "cell A"), ("look", "2 of 12 draws of one kind")]


def fill(path, trials=40):
    """A run folder with trials and an opened test."""
    with RunFolder(path) as folder:
        folder.check_identity({"data": "1", "seeds": "0"})
        for look in LOOKS:
            folder.log_access(*look)
        for number in range(trials):
            folder.add_trial(f"trial {number}", make_trial([True, False, number % 3 == 0] * 50))
    return path / "trials.sqlite"


def change(database, statement, *given):
    with closing(sqlite3.connect(database)) as opened, opened:
        assert opened.execute(statement, given).rowcount == 1


def test_trials_that_are_moved_away_clear_no_read_of_the_locked_test(tmp_path):
    file = fill(tmp_path)
    file.write_bytes(b"")
    for _ in range(2):  # the first refusal repairs nothing in silence
        with pytest.raises(RunFolderError, match=r"damaged \(it is empty\).*move it away"):
            RunFolder(tmp_path)
    file.unlink()
    with RunFolder(tmp_path) as folder:
        assert folder.access_log() == LOOKS
        folder.log_look(2, 12, " of one kind")
        assert folder.looks() == ((2,), 12)
        with pytest.raises(LockedTestError, match="cell A"):
            folder.log_access("confirmation", "cell B")
        with pytest.raises(RunFolderMismatch, match="other seeds"):
            folder.check_identity({"data": "1", "seeds": "1"})
        folder.log_look(3, 12, "")
    with RunFolder(tmp_path) as folder:
        assert folder.looks() == ((2, 3), 12)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda log: log.unlink(), "locked-test.jsonl: it was deleted or emptied"),
        (lambda log: log.write_bytes(b""), "locked-test.jsonl: it was deleted or emptied"),
        (lambda log: log.write_bytes(log.read_bytes()[:-9]), "locked-test.jsonl, line 4: damaged"),
        (lambda log: log.write_bytes(b"null\n"), "locked-test.jsonl, line 1: damaged"),
        (lambda log: log.write_bytes(b'["study", "x"]\n'), "locked-test.jsonl, line 1: damaged"),
    ],
)
def test_a_lost_log_of_the_locked_test_is_told_and_what_to_do_without_it(tmp_path, harm, said):
    fill(tmp_path)
    log = tmp_path / "locked-test.jsonl"
    content = log.read_bytes()
    harm(log)
    with pytest.raises(RunFolderError, match=rf"{said}.*put back a copy of it, or run the study in another folder"):
        RunFolder(tmp_path)
    log.write_bytes(content)
    with RunFolder(tmp_path) as folder:
        assert folder.access_log() == LOOKS


@pytest.mark.parametrize("column", ["payload", "correct", "failed", "checksum"])
def test_an_altered_trial_is_named_and_alone_is_lost(tmp_path, column):
    file = fill(tmp_path)
    values = {
        "payload": "replace(payload, '0.25', '0.35')", "correct": "x'00' || substr(correct, 2)", "failed": "1",
        "checksum": "NULL",
    }  # fmt: skip
    change(file, f"UPDATE trials SET {column} = {values[column]} WHERE key = 'trial 7'")
    with RunFolder(tmp_path) as folder:
        assert folder.find_trial("trial 6") is not None
        with pytest.raises(RunFolderError) as caught:
            folder.find_trial("trial 7")
    said = str(caught.value)
    assert f"{file}: damaged (the checksum of trial " in said and " is wrong); a trial that cannot be read" in said
    assert "a trial that cannot be read is trained again" in said and "\n" not in said


def cut(content, keep):
    return content[: int(len(content) * keep)]


def overwrite(content, place, count=64):
    return content[:place] + bytes(byte ^ 0x5A for byte in content[place : place + count]) + content[place + count :]


HARMS = {
    "header": lambda content: overwrite(content, 0, 100),
    "first page": lambda content: overwrite(content, 0, 4096),
    "middle page": lambda content: overwrite(content, len(content) // 2 // 4096 * 4096),
    "row": lambda content: content.replace(b"0.75", b"0.76", 1),
    "truncated": lambda content: cut(content, 0.6),
    "zero length": lambda content: cut(content, 0),
}


@pytest.mark.parametrize("harm", HARMS)
def test_damaged_trials_are_told_and_one_can_go_on_without_them(tmp_path, harm):
    file = fill(tmp_path, trials=300)
    file.write_bytes(HARMS[harm](file.read_bytes()))
    with pytest.raises(RunFolderError) as caught, RunFolder(tmp_path) as folder:
        for number in range(300):
            folder.find_trial(f"trial {number}")
    assert str(caught.value).startswith(f"{file}: damaged (") and "\n" not in str(caught.value)
    assert "trained again" in str(caught.value) and "move it away" in str(caught.value)
    file.unlink()  # its write-ahead log, if it left one, must not come back
    with RunFolder(tmp_path) as folder:
        assert folder.find_trial("trial 1") is None and folder.access_log() == LOOKS
        with pytest.raises(RunFolderMismatch):
            folder.check_identity({"data": "2", "seeds": "0"})
