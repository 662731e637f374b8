"""``cuvee prompts``: listed, printed, copied, and shown finished for real rows."""

import json

import pytest

from command_line import call, refused
from cuvee.generate.parsing import KINDS
from cuvee.generate.prompts import BUILT_IN, load_prompts


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    made = [
        {
            "question": f"what is thing {i}",
            "answer": f"thing {i} it is",
            "passage": f"Passage {i}.",
            "kind": "ab"[i % 2],
        }
        for i in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return path


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


def test_copies_can_be_used_and_are_not_overwritten(tmp_path, rows, capsys):
    folder = tmp_path / "mine"
    assert call(capsys, "prompts", "--out", folder)[0] == 0
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {p.name: p.read_bytes() for p in BUILT_IN.iterdir()}
    assert "instruction_chat_system.jinja: already there" in refused(capsys, "prompts", "--out", folder)
    assert call(capsys, "prompts", "label_chat_user", "--out", tmp_path / "one")[0] == 0
    assert [p.name for p in (tmp_path / "one").iterdir()] == ["label_chat_user.jinja"]
    (tmp_path / "one" / "label_chat_user.jinja").write_text("MORE OF {{ label }}!")
    asked = ("--render", rows, "--text", "question", "--label", "kind")
    assert "MORE OF a!" in call(capsys, "prompts", "--folder", tmp_path / "one", *asked)[1]
    assert call(capsys, "prompts", "label_chat_user", "--folder", tmp_path / "one")[1] == "MORE OF {{ label }}!"
    (tmp_path / "one" / "label_chat_user.jinja").write_text("MORE OF {{ lable }}!")
    assert "unknown variable 'lable'; did you mean 'label'?" in refused(capsys, "prompts", "--folder", tmp_path / "one")


@pytest.mark.parametrize("kind", KINDS)
def test_finished_prompts_are_shown_in_both_forms(rows, capsys, kind):
    label = {"label": "kind", "query": "passage"}.get(kind, "answer")
    asked = [
        "prompts",
        "--kind",
        kind,
        "--render",
        rows,
        "--text",
        "question",
        "--label",
        label,
        "--describe",
        "quizzes",
    ]
    asked += ["--context", "passage"] if kind == "question" else []
    code, out, _ = call(capsys, *asked)
    assert code == 0
    parts = [line.removeprefix("--- ") for line in out.splitlines() if line.startswith("--- ")]
    assert parts == [f"{kind}_completion", f"{kind}_chat_system", f"{kind}_chat_user"]
    assert "quizzes" in out and "what is thing" in out and "{%" not in out
    found = json.loads(call(capsys, *asked, "--json")[1])
    assert list(found["prompts"]) == parts and all(text in out for text in found["prompts"].values())


def test_a_context_makes_questions_of_rows(rows, capsys):
    asked = ("prompts", "--render", rows, "--text", "question", "--label", "answer", "--context", "passage", "--json")
    assert "question_completion" in json.loads(call(capsys, *asked)[1])["prompts"]


def test_mistakes_are_one_line(rows, tmp_path, capsys):
    assert "did you mean 'label_chat_user'" in refused(capsys, "prompts", "label_chat_usr")
    assert "--kind is 'querry'; did you mean 'query'" in refused(
        capsys, "prompts", "--kind", "querry", "--render", rows
    )
    assert "--kind has no effect here: it goes with --render" in refused(capsys, "prompts", "--kind", "query")
    assert "--json has no effect here" in refused(capsys, "prompts", "--out", tmp_path / "x", "--json")
    assert "'story_completion' has no effect here" in refused(capsys, "prompts", "story_completion", "--render", rows)
    assert "no such folder" in refused(capsys, "prompts", "--folder", tmp_path / "none")
    assert "there is no context to write about" in refused(
        capsys, "prompts", "--kind", "question", "--render", rows, "--text", "question", "--label", "answer"
    )
