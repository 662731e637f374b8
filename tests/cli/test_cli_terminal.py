"""What a terminal, a pipe and a log get: examples, tables that fit, quiet, colours, lines while work goes on."""

import json
import re
import time

import pytest

from command_line import call, refused
from cuvee.cli import console
from cuvee.cli.app import COMMANDS, run_cli

HASHING = ("--encoder", "hashing", "--metric", "vendi_q1", "--metric", "distinct_2", "--metric", "exact_duplicate_rate")


@pytest.fixture
def files(headlines, tmp_path):
    rows = headlines.read_text(encoding="utf-8").splitlines(keepends=True)
    for name, part in (("one", rows[::3]), ("two", rows[1::3]), ("three", rows[2::3] + rows[2:60:3]), ("four", rows)):
        (tmp_path / f"a-file-of-rows-with-a-long-name-{name}.jsonl").write_text("".join(part), encoding="utf-8")
    return sorted(tmp_path.glob("a-file*"))


def test_the_help_of_each_command_has_an_example_with_options_that_it_takes(capsys):
    for name, (_, _, example) in COMMANDS.items():
        code, out, _ = call(capsys, name, "--help")
        assert code == 0 and f"Example: cuvee {name} {example}".rstrip() in " ".join(out.split())
        options = set(re.findall(r"--[a-z-]+", out.split("Example:")[0]))
        assert set(re.findall(r"--[a-z-]+", example)) <= options and "--quiet" in options


def test_a_shell_completes_commands_and_their_options(capfd, monkeypatch):
    for words, place, wanted in (("cuvee mea", "1", "measure"), ("cuvee measure --again", "2", "--against")):
        with monkeypatch.context() as shell:
            for name, value in (("_CUVEE_COMPLETE", "complete_bash"), ("COMP_WORDS", words), ("COMP_CWORD", place)):
                shell.setenv(name, value)
            assert run_cli([]) == 0
        assert wanted in capfd.readouterr().out.split()


def test_tables_fold_in_a_narrow_terminal_and_a_pipe_gets_all_of_them(files, capsys, monkeypatch):
    _, piped, _ = call(capsys, "compare", *files, *HASHING, "--draws", 2)
    heads = next(line for line in piped.splitlines() if line.lstrip().startswith("metric"))
    assert heads.split()[1:5] == ["A", "B", "C", "D"] and heads.count(" - A") == 3 and "[" in piped
    monkeypatch.setattr(console.out, "width", 80)
    monkeypatch.setattr(console.out, "_force_terminal", True)
    for arguments in (["compare", *files, *HASHING, "--draws", 2], ["measure", files[0], "--encoder", "hashing"]):
        code, out, _ = call(capsys, *arguments)
        lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in out.splitlines()]
        assert code == 0 and max(map(len, lines)) <= 80 and "…" not in out
        assert any(line.startswith(("- ", "+ ")) for line in lines[:2])


def test_quiet_leaves_results_and_errors(files, capsys, tmp_path):
    code, out, err = call(capsys, "measure", files[1], *HASHING, "--quiet", "--json")
    assert (code, err) == (0, "") and json.loads(out)["n"] == 50
    assert "nothing.jsonl" in refused(capsys, "measure", tmp_path / "nothing.jsonl", "-q")
    assert call(capsys, "measure", files[0], *HASHING)[2]  # the next one is not quiet


def test_a_log_gets_a_line_of_what_is_going_on_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(console.Display, "EVERY_S", 0.05)
    with console.Display() as display:
        display.started("train", "trials")
        display.advanced("train", 3, 40)
        time.sleep(0.2)
        display.advanced("train", 40, 40)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train: 3 of 40 trials, ")]
    assert lines and all(line.endswith(" s") for line in lines)
    assert not [line for line in lines if "40 of 40" in line]
