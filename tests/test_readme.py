"""The README's Python runs, and its commands exist."""

import json
import re
from pathlib import Path

import pytest

from cuvee.cli.app import run_cli
from cuvee.study.demo import read_headlines

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LABELS = ("business", "politics", "sports")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def test_python_blocks_run(capsys):
    blocks = [code for language, code in BLOCKS if language == "python"]
    assert blocks
    for code in blocks:
        exec(compile(code, "README.md", "exec"), {})
    assert "vendi_q1" in capsys.readouterr().out


def commands() -> list[list[str]]:
    lines = [line for language, code in BLOCKS if not language for line in code.splitlines()]
    return [line.split("#")[0].split()[1:] for line in lines if line.startswith(".venv/bin/cuvee ")]


@pytest.mark.slow
def test_commands_run_in_order(headlines, tmp_path, monkeypatch, capsys):
    """Every cuvee command of the README, word for word, on files of those names."""
    monkeypatch.chdir(tmp_path)
    rows = headlines.read_text(encoding="utf-8")
    (tmp_path / "real.jsonl").write_text(rows, encoding="utf-8")
    others = [{"text": t, "label": y} for t, y in read_headlines() if y in LABELS and json.dumps(t) not in rows]
    for name, part in (("test.jsonl", others[:100]), ("synthetic.jsonl", others[100:])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    lines = [line.strip('"{}\n') for line in rows.splitlines()]
    table = [re.match(r'text": "(.*)", "label": "(\w+)', line) for line in lines]
    csv = "".join('"{}",{}\n'.format(m[1].replace('\\"', "'"), m[2]) for m in table if m)
    (tmp_path / "reviews.csv").write_text("text,label\n" + csv, encoding="utf-8")
    found = commands()
    assert [c[0] for c in found] == ["run", "run", "measure", "select", "mix", "train", "evaluate"]
    for command in found:
        if command != ["run", "reviews.csv"]:  # a whole study with the embedded LLM has a test of its own
            assert run_cli(command) == 0, (command, capsys.readouterr().err)
    made = {"reviews.study.yaml", "runs", "selected-5.parquet", "blend.parquet", "model"}
    assert made <= {p.name for p in tmp_path.iterdir()}


@pytest.mark.parametrize("link", re.findall(r"\]\(((?!http)[^)#]+)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()
