"""Adaptive and cross-fitted studies on damaged files and full disks: one line, exit 2, the same bytes in the end."""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing

import pytest
import yaml

from command_line import call
from cuvee.generate.ledger import Ledger

ADAPTIVE = {"search": {"kind": "adaptive", "budget": 0.7, "batch": 2}}
FOLDED = {
    "split": {"crossfit": 2, "validation": 45, "rows_per_label": 3},
    "dials": [{"name": "sampling", "levels": [0.3, 1.5]}],
    "mix": {"shares": [0.5], "shape_share": 0.5},
    "draws": {"generation": 2, "sampling": 1, "training": 1, "confirm": 2},
}
KINDS = {"adaptive": (ADAPTIVE, ""), "cross-fitted": (FOLDED, "folds/2")}
"""Of study: what it changes, and the part of its run folder that is damaged."""


@pytest.fixture(params=KINDS)
def study(request, settings, tmp_path):
    """A study.yaml, and the part of its run folder that is looked at."""
    changes, part = KINDS[request.param]
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump({**settings, **changes}), encoding="utf-8")
    return config, part


def kept(run) -> dict[str, bytes]:
    """What must not depend on how a run went."""
    found = [*run.glob("**/pools/*.parquet"), *run.glob("blend/*"), run / "advice.json", *run.glob("**/study.yaml")]
    return {str(path.relative_to(run)): path.read_bytes() for path in found}


def first(part, pattern):
    return sorted(part.glob(pattern))[0]


def flip(path):
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        content[:middle] + bytes(byte ^ 1 for byte in content[middle : middle + 64]) + content[middle + 64 :]
    )
    return path


def write(path, content):
    path.write_bytes(content)
    return path


def alter(path, statement):
    with closing(sqlite3.connect(path)) as database, database:
        assert database.execute(statement).rowcount > 0
    return path


def alter_answers(part):
    """Answers that are looked for again, for a pool is gone."""
    first(part, "pools/*.parquet").unlink()
    return alter(part / "ledger.sqlite", "UPDATE answers SET text = 'x' || text")


HARMS = {
    "a changed score": lambda p: alter(p / "trials.sqlite", "UPDATE trials SET correct = x'00' || substr(correct, 2)"),
    "empty trials": lambda p: write(p / "trials.sqlite", b""),
    "half of the trials": lambda p: write(p / "trials.sqlite", (p / "trials.sqlite").read_bytes()[:9000]),
    "the beginning of the ledger": lambda p: write(
        p / "ledger.sqlite", bytes(100) + (p / "ledger.sqlite").read_bytes()[100:]
    ),
    "changed answers": alter_answers,
    "a pool": lambda p: flip(first(p, "pools/*.parquet")),
    "a measurement": lambda p: write(first(p, "measurements/*.json"), b'{"key": '),
}


@pytest.mark.slow  # a study, and two runs a harm
def test_damage_is_one_line_and_after_its_remedy_the_study_ends_with_the_same_bytes(study, tmp_path, capsys, local):
    config, part = study
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert call(capsys, "run", config, "--out", whole)[0] == 0
    expected = kept(whole)
    for name, harm in HARMS.items():
        shutil.copytree(whole, run)
        sent = len(local.bodies)
        file = harm(run / part)
        code, _, err = call(capsys, "run", config, "--out", run)
        (said,) = [line for line in err.splitlines() if line.startswith("error: ")] or [""]
        assert (code, bool(said), "Traceback" in err) == (2, True, False), (name, err)
        assert file.name in said and len(local.bodies) == sent, name
        assert "delete it" in said or "move it away" in said, (name, said)
        file.unlink()
        code, _, err = call(capsys, "run", config, "--out", run)
        assert code == 0, (name, err)
        assert kept(run) == expected, name
        assert (len(local.bodies) > sent) == (name == "changed answers"), name
        shutil.rmtree(run)


@pytest.mark.slow  # a study in many parts
def test_a_disk_that_is_full_again_and_again_is_one_line_each_and_costs_nothing(study, tmp_path, capsys, local):
    config, _ = study
    assert call(capsys, "run", config, "--out", tmp_path / "whole")[0] == 0
    clean, expected = len(local.bodies), kept(tmp_path / "whole")
    local.bodies.clear()
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mounted, check=False, capture_output=True).returncode:
        pytest.skip("this machine mounts no small disk for this user")
    try:
        stops = 0
        for kilobytes in (96, 160, 208, 256, 320, 384, 448, 512, 640, 768, 1024, 1536, 2048, 4096, 8192, 16384):
            subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(disk)], check=True)
            code, _, err = call(capsys, "run", config, "--out", disk / "run")
            if code == 0:
                break
            told = [line for line in err.splitlines() if line.startswith("error: ")]
            assert (code, len(told)) == (2, 1) and "Traceback" not in err, (kilobytes, err)
            assert "free some space" in told[0] and str(disk) in told[0], (kilobytes, told)
            stops += 1
        assert code == 0 and stops >= 4
        assert kept(disk / "run") == expected
        with Ledger(disk / "run" / "ledger.sqlite", readonly=True) as ledger:
            assert ledger.totals().requests <= clean
        assert len(local.bodies) <= clean + 4 * stops  # what was under way when the disk was full
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
