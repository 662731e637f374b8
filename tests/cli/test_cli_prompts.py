"""``cuvee prompts``: listed, printed and copied."""

import json

import pytest

from command_line import call, refused
from cuvee.generate.prompts import BUILT_IN, load_prompts


def test_the_list_has_a_line_for_each_prompt(capsys):
    code, out, _ = call(capsys, "prompts")
    lines = out.splitlines()
    assert code == 0 and [line.split()[0] for line in lines] == list(load_prompts().files)
    (line,) = [line for line in lines if line.startswith("query_chat_user ")]
    assert "A query that a passage answers" in line and "Variables: passage, describe, count, topic" in line
    found = json.loads(call(capsys, "prompts", "--json")[1])
    assert found["hash"] == load_prompts().hash
    assert found["prompts"] == {name: file.source for name, file in load_prompts().files.items()}


@pytest.mark.parametrize("name", ["label_completion", "paraphrase_completion", "question_chat_user"])
def test_a_prompt_is_printed_as_its_file_is(capsys, name):
    code, out, _ = call(capsys, "prompts", name)
    assert (code, out) == (0, (BUILT_IN / f"{name}.jinja").read_text(encoding="utf-8"))


def test_copies_can_be_used_and_are_not_overwritten(tmp_path, capsys):
    folder = tmp_path / "mine"
    assert call(capsys, "prompts", "--out", folder)[0] == 0
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {p.name: p.read_bytes() for p in BUILT_IN.iterdir()}
    assert "conversation_chat_system.jinja: already there" in refused(capsys, "prompts", "--out", folder)
    assert call(capsys, "prompts", "label_chat_user", "--out", tmp_path / "one")[0] == 0
    assert [p.name for p in (tmp_path / "one").iterdir()] == ["label_chat_user.jinja"]
    (tmp_path / "one" / "label_chat_user.jinja").write_text("MORE OF {{ label }}!")
    assert call(capsys, "prompts", "label_chat_user", "--folder", tmp_path / "one")[1] == "MORE OF {{ label }}!"
    (tmp_path / "one" / "label_chat_user.jinja").write_text("MORE OF {{ lable }}!")
    assert "unknown variable 'lable'; did you mean 'label'?" in refused(capsys, "prompts", "--folder", tmp_path / "one")


def test_mistakes_are_one_line(tmp_path, capsys):
    assert "did you mean 'label_chat_user'" in refused(capsys, "prompts", "label_chat_usr")
    assert "--json has no effect here" in refused(capsys, "prompts", "--out", tmp_path / "x", "--json")
    assert "no such folder" in refused(capsys, "prompts", "--folder", tmp_path / "none")
