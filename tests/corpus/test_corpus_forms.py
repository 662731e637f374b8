"""Chats and instructions: read as what they are, refused in one line where they are none, written back as they came."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_line import call, refused
from cuvee.config.reading import read_config
from cuvee.corpus import Corpus, load_corpus, write_corpus
from cuvee.corpus.cells import drop_nulls, to_values
from cuvee.corpus.content import is_blank
from cuvee.corpus.formats import read_table
from cuvee.corpus.forms import render_turns, split_turns
from cuvee.errors import InputWarning
from cuvee.mix import mix_corpora


def user(said, **more):
    return {"role": "user", "content": said, **more}


def assistant(said, **more):
    return {"role": "assistant", "content": said, **more}


SYSTEM = {"role": "system", "content": "Be brief."}
CALL = [{"id": "c1", "type": "function", "function": {"name": "sky", "arguments": '{"in": "Oslo"}'}}]
PARTS = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
GOOD = [{"messages": [user("who won?"), assistant("Ann")]}, {"messages": [user("who lost?"), assistant("Bob")]}]


def put(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def values_of(path, *names):
    """The cells of a file as plain values, whatever kind of file it is."""
    table = read_table(path)
    plain = [to_values(table.schema.field(name), table[name], "") for name in names]
    return drop_nulls([list(row) for row in zip(*plain, strict=True)])


# --- what rows say ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("row", "text", "target"),
    [
        ({"messages": [user("who won?"), assistant("Ann")]}, "who won?", "Ann"),
        ({"messages": [SYSTEM, user("who?"), assistant("Ann")]}, "[system] Be brief.\n\n[user] who?", "Ann"),
        (
            {"messages": [user("a"), assistant("b"), user("c"), assistant("d\n\ne")]},
            "[user] a\n\n[assistant] b\n\n[user] c",
            "d\n\ne",
        ),
        ({"messages": [{"role": "developer", "content": ""}, user("a"), assistant("b")]}, "a", "b"),
        ({"messages": [user(PARTS), assistant([PARTS[0]])]}, "one\ntwo", "one"),
        (
            {"messages": [user("sky?"), assistant(None, tool_calls=CALL), {"role": "tool", "content": "blue"},
                          assistant("It is blue.")]},
            '[user] sky?\n\n[assistant] {"name": "sky", "arguments": "{\\"in\\": \\"Oslo\\"}"}\n\n[tool] blue',
            "It is blue.",
        ),
        (
            {"messages": [user("sky?"), assistant(None, tool_calls=CALL)]},
            "sky?",
            '{"name": "sky", "arguments": "{\\"in\\": \\"Oslo\\"}"}',
        ),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "a", "b"),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{}"},
                               {"from": "observation", "value": "7"}, {"from": "chatgpt", "value": "b"}],
              "system": "s"},
            "[system] s\n\n[user] a\n\n[assistant] {}\n\n[tool] 7",
            "b",
        ),
        ({"conversation": [{"role": "Human", "content": "a"}, {"role": "bing", "content": "b"}]}, "a", "b"),
        ({"talk": [user("a"), assistant("b")], "n": 1}, "a", "b"),
        ({"prompt": "a", "prompt_id": "1", "messages": [user("a"), assistant("b")], "category": "c"}, "a", "b"),
        ({"instruction": "sum up", "input": "a long text", "output": "short"}, "sum up\n\na long text", "short"),
        ({"instruction": "name one", "input": "", "output": "Ann", "text": "Below is"}, "name one", "Ann"),
        ({"instruction": "name one", "input": None, "output": "Ann"}, "name one", "Ann"),
        ({"instruction": "c", "input": "", "output": "d", "history": [["a", "b"]]},
         "[user] a\n\n[assistant] b\n\n[user] c", "d"),
        ({"instruction": "name one", "response": "Ann"}, "name one", "Ann"),
        ({"prompt": "a", "completion": "b"}, "a", "b"),
        ({"prompt": [SYSTEM, user("a")], "completion": [assistant("b")]}, "[system] Be brief.\n\n[user] a", "b"),
        ({"question": "a", "context": "passage", "answer": "b"}, "a", "b"),
    ],
)  # fmt: skip
def test_a_row_is_read_as_what_it_is(tmp_path, row, text, target):
    corpus = load_corpus(put(tmp_path / "d.jsonl", [row]))
    assert (corpus.task, corpus.texts, corpus.targets) == ("generation", [text], [target])
    assert corpus.contexts == [row["context"] if "question" in row else None]
    pd.DataFrame([row]).to_parquet(tmp_path / "d.parquet")
    again = load_corpus(tmp_path / "d.parquet")
    assert again.fingerprint == corpus.fingerprint
    write_corpus(corpus, tmp_path / "a.csv")
    assert load_corpus(tmp_path / "a.csv").fingerprint == corpus.fingerprint
    for name in ("a.jsonl", "a.parquet"):
        write_corpus(corpus, tmp_path / name)
        kept = [name for name in row if name not in ("context", "text")]
        assert values_of(tmp_path / name, *kept) == [[drop_nulls(row[each]) for each in kept]]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [user("a")]}, "row 3: no turn is the assistant's"),
        ({"messages": [SYSTEM]}, "row 3: no turn is the assistant's"),
        ({"messages": []}, "row 3: column 'messages' is empty"),
        ({"prompt": "a", "completion": "b"}, "row 3: column 'messages' is empty"),
        ({"messages": [user("a"), assistant("")]}, "row 3: the last turn of the assistant is empty"),
        ({"messages": [user("a"), assistant(None)]}, "row 3: the last turn of the assistant is empty"),
        ({"messages": [user(" "), assistant("b")]}, "row 3: nothing is said before the answer"),
        ({"messages": [assistant("b")]}, "row 3: nothing is said before the answer"),
        ({"messages": [{"role": "narrator", "content": "a"}]}, "turn 1 is by 'narrator'"),
        ({"messages": [user("a"), {"content": "b"}]}, "turn 2 has no role; name it system, user, assistant or tool"),
        ({"messages": [user({"a": 1}), assistant("b")]}, "turn 1 holds an object, not text"),
        ({"messages": [user([{"type": "image_url"}]), assistant("b")]}, "turn 1 has a part of type 'image_url'"),
        ({"messages": ["a", "b"]}, "turn 1 holds text, not an object with role and content"),
        ({"messages": [None]}, "turn 1 holds nothing, not an object with role and content"),
        ({"messages": user("a")}, "row 3: column 'messages' holds an object, not a list of turns"),
        ({"messages": "[{'role': 'user'}]"}, "row 3: column 'messages' holds text, not a list of turns"),
        ({"messages": [user("\ud800"), assistant("b")]}, "turn 1 holds half of a surrogate pair"),
    ],
)  # fmt: skip
def test_a_row_that_is_none_is_refused_in_one_line(tmp_path, capsys, row, said):
    path = put(tmp_path / "d.jsonl", [*GOOD, row])
    for command in (("init", path, "--out", tmp_path / "s.yaml"), ("measure", path, "--encoder", "hashing")):
        line = refused(capsys, *command)
        assert f"{path}, row 3: " in line and (said in line or "and other rows have an answer" in line)


def test_chats_as_python_writes_them_are_no_texts(tmp_path, capsys):
    path = tmp_path / "d.csv"
    pd.DataFrame({"messages": [[user("a"), assistant("b")]], "n": [1]}).to_csv(path, index=False)
    for options in ((), ("--text", "messages"), ("--text", "messages", "--label", "n")):
        assert "holds a chat as Python writes it; write it as JSON" in refused(capsys, "measure", path, *options)


def test_turns_after_the_answer_are_kept_and_said(tmp_path):
    turns = [user("a"), assistant("b"), user("c")]
    with pytest.warns(InputWarning, match="1 of 3 chats go on after the last turn of the assistant"):
        corpus = load_corpus(put(tmp_path / "d.jsonl", [*GOOD, {"messages": turns}]))
    assert (corpus.texts[2], corpus.targets[2]) == ("a", "b")
    write_corpus(corpus, tmp_path / "a.jsonl")
    assert values_of(tmp_path / "a.jsonl", "messages")[2] == [turns]


def test_chats_without_any_answer_are_measured_as_texts(tmp_path):
    path = put(tmp_path / "d.jsonl", [{"messages": [SYSTEM, user("a")]}, {"messages": [user("b")]}])
    with pytest.warns(InputWarning, match="no row has an answer; texts are read alone"):
        assert load_corpus(path, labelled=False).texts == ["[system] Be brief.\n\n[user] a", "b"]


# --- what is none of these -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("row", "options", "text"),
    [
        ({"text": "a", "prompt": "p", "completion": "c"}, {}, "a"),
        ({"sentence": "a", "instruction": "p", "output": "c", "messages": [user("x"), assistant("y")]}, {}, "a"),
        ({"input": "a", "prompt_type": "p"}, {"text": "input"}, "a"),
        ({"messages": [user("x"), assistant("y")]}, {}, "[user] x\n\n[assistant] y"),  # a class of the whole chat
        ({"talk": [user("x"), assistant("y")]}, {"text": "talk", "label": "label"}, "[user] x\n\n[assistant] y"),
    ],
)
def test_a_column_called_label_makes_labelled_texts_of_rows(tmp_path, row, options, text):
    path = put(tmp_path / "d.jsonl", [row | {"label": "x"}, row | {"label": "y"}])
    corpus = load_corpus(path, **options)
    assert (corpus.task, corpus.texts, corpus.targets) == ("classification", [text, text], ["x", "y"])


def test_answers_that_repeat_are_labels(tmp_path, capsys):
    rows = [{"prompt": f"text {i}", "completion": "ab"[i % 2]} for i in range(12)]
    assert load_corpus(put(tmp_path / "few.jsonl", rows)).task == "classification"
    many = put(tmp_path / "many.jsonl", [row | {"completion": row["prompt"]} for row in rows])
    assert load_corpus(many).task == "generation"
    line = refused(capsys, "train", many, "--task", "classification", "--out", tmp_path / "m")
    assert "holds answers, not labels (12 different ones in 12 rows); the task is generation" in line


# --- written back ----------------------------------------------------------------------------------
def test_synthetic_rows_get_the_format_of_the_real_ones(tmp_path, capsys):
    made = [{"text": f"[system] Be brief.\n\n[user] which {i}?", "target": f"that {i}"} for i in range(4)]
    pool = Corpus.from_rows(made, origin="synthetic", task="generation")
    turns = [{"from": "human", "value": "who?"}, {"from": "gpt", "value": "Ann"}]
    wanted = {
        "messages": [SYSTEM, user("which 0?"), assistant("that 0")],
        "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "which 0?"},
                          {"from": "gpt", "value": "that 0"}],
        "instruction": made[0]["text"], "input": "", "output": "that 0",
        "prompt": made[0]["text"], "completion": [assistant("that 0")],
    }  # fmt: skip
    write_corpus(pool, tmp_path / "pool.jsonl")
    for row in (
        {"messages": [user("who?"), assistant("Ann")], "n": 1},
        {"conversations": turns, "n": 1},
        {"instruction": "who?", "input": "or what", "output": "Ann", "n": 1},
        {"prompt": [user("who?")], "completion": [assistant("Ann")], "n": 1},
    ):
        real = put(tmp_path / "real.jsonl", [row, row])
        pd.DataFrame([row, row]).to_parquet(tmp_path / "real.parquet")
        wanted["prompt"] = [SYSTEM, user("which 0?")]
        for source in (real, tmp_path / "real.parquet"):
            for out in (tmp_path / "b.jsonl", tmp_path / "b.parquet"):
                code, _, err = call(capsys, "mix", source, tmp_path / "pool.jsonl", "--amount", "all", "--out", out)
                assert code == 0, err
                found = values_of(out, *row)
                assert found[:2] == [[*row.values()]] * 2
                assert found[2] == [wanted[name] for name in row if name != "n"] + ([] if "n" not in row else [None])
                again = load_corpus(out)
                assert again.task == "generation" and again.origins.count("synthetic") == 4


TYPED = [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "Ann"}]
SHARED_ROW = {"conversations": [{"from": "human", "value": "who?"}, {"from": "gpt", "value": "Ann"}]}


@pytest.mark.parametrize(
    ("row", "auto", "prompt"),
    [
        ({"question": "who?", "context": "Ann won.", "answer": "Ann"}, "prompt-completion", "Ann won.\n\nwho?"),
        ({"instruction": "who?", "input": "", "output": "Ann"}, "prompt-completion", "who?"),
        ({"messages": TYPED}, "messages", "who?"),
        (SHARED_ROW, "messages", "who?"),
        ({"prompt": TYPED[:1], "completion": TYPED[1:]}, "messages", "who?"),
        ({"instruction": "who?", "input": "", "output": "Ann", "history": [["a", "b"]]}, "messages", None),
    ],
)
def test_a_blend_has_the_columns_that_trainers_read_and_is_read_back(tmp_path, capsys, row, auto, prompt):
    real = put(tmp_path / "real.jsonl", [row, row])
    pool = put(tmp_path / "pool.jsonl", [{"prompt": "which?", "completion": "that"}] * 2)
    corpus = load_corpus(real, task="generation")
    for form in ("auto", "messages", "prompt-completion"):
        out = tmp_path / form
        given = () if form == "auto" else ("--format", form)
        code, _, err = call(capsys, "mix", real, pool, "--amount", "all", "--task", "generation", *given, "--out", out)
        assert code == 0, err
        table = pq.read_table(out / "train.parquet")
        assert "text" not in table.column_names
        (first, _, made, _), is_chat = table.to_pylist(), (auto if form == "auto" else form) == "messages"
        if is_chat:
            assert (made["prompt"], made["completion"]) == ([user("which?")], [assistant("that")])
            assert made["messages"] == [user("which?"), assistant("that")] == made["prompt"] + made["completion"]
            assert first["messages"] == first["prompt"] + first["completion"]
            assert first["completion"] == [assistant("Ann")] and first["prompt"][-1]["role"] == "user"
        else:
            assert (made["prompt"], made["completion"]) == ("which?\n", "that")
            assert "messages" not in table.column_names and "conversations" not in table.column_names
            assert first["completion"] == "Ann" and (prompt is None or first["prompt"] == f"{prompt}\n")
        again = load_corpus(out)
        assert again.task == "generation" and again.take([0, 1]).texts == corpus.texts
        assert again.take([0, 1]).prompts == corpus.prompts
    assert "'chat' is not one of" in refused(capsys, "mix", real, pool, "--format", "chat", "--out", out)


def test_turns_come_back_from_the_text_that_they_are_read_as():
    for turns in (
        [("user", "[assistant] no")],
        [("system", "s\n"), ("user", "[user] a\n\nb"), ("assistant", " c "), ("user", "d")],
    ):
        assert split_turns(render_turns(turns)) == turns
    assert split_turns(render_turns([("system", "s"), ("user", "a\n\n[tool] b")])) == [
        ("system", "s"), ("user", "a\n[tool] b")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("real", "split"),
    [
        ([("sum up", "a text"), ("name one", "")], True),
        ([("sum up", "a text\n\nof two paragraphs"), ("name\n\none", None), ("say", "more")], True),
        ([("name\n\none", ""), ("sum up:\n\nin one line", "a text")], False),
        ([("name one", ""), ("name two", None)], False),
    ],
)
def test_a_written_instruction_has_its_input_where_real_ones_have_it(tmp_path, real, split):
    rows = [{"instruction": task, "input": on, "output": "x"} for task, on in real]
    corpus = load_corpus(put(tmp_path / "real.jsonl", rows))
    texts = ["translate\n\nthe sea\n\nthe sky", "count to three", "\u200b\n\nodd", "[system] s\n\n[user] a\n\nb"]
    made = Corpus.from_rows([{"text": text, "target": "y"} for text in texts], task="generation").formed_like(corpus)
    write_corpus(made, tmp_path / "made.jsonl")
    found = values_of(tmp_path / "made.jsonl", "instruction", "input")
    assert found[0] == (["translate", "the sea\n\nthe sky"] if split else [texts[0], ""])
    assert found[1:] == [[text, ""] for text in texts[1:]]
    assert load_corpus(tmp_path / "made.jsonl").texts == texts
    own = [{"instruction": task, "input": on, "output": "y"} for task, on in found[:2]]
    assert load_corpus(put(tmp_path / "own.jsonl", own)).texts == texts[:2]


def test_commands_keep_turns_and_own_columns(tmp_path, capsys):
    rows = [{"messages": [SYSTEM, user(f"who is {i}?"), assistant(f"it is {i}")], "id": i, "meta": {"k": [i]}}
            for i in range(12)]  # fmt: skip
    path = put(tmp_path / "d.jsonl", rows)
    assert call(capsys, "split", path, "--out", tmp_path / "parts", "--format", "jsonl")[0] == 0
    parts = [values_of(file, "messages", "own_id", "meta") for file in sorted((tmp_path / "parts").iterdir())]
    wanted = [[row["messages"], row["id"], row["meta"]] for row in rows]
    assert sorted((row for part in parts for row in part), key=lambda row: row[1]) == wanted
    code, _, err = call(capsys, "select", path, "--rows", 4, "--encoder", "hashing", "--out", tmp_path / "s.parquet")
    assert code == 0, err
    assert pq.read_table(tmp_path / "s.parquet")["messages"].to_pylist()[0][0] == SYSTEM
    code, _, err = call(capsys, "measure", path, "--encoder", "hashing", "--by", "nothing")
    assert code == 2 and "messages, own_id, meta" in err


@pytest.mark.parametrize(
    ("row", "read"),
    [
        (GOOD[0], {"text": "messages"}),
        ({"instruction": "a", "input": "b", "output": "c"}, {"text": "instruction", "label": "output"}),
        (
            {"question": "a", "context": "b", "answer": "c"},
            {"text": "question", "label": "answer", "context": "context", "group": "context"},
        ),
        ({"query": "a", "passage": "c"}, {"text": "query", "label": "passage"}),
        ({"anchor": "a", "positive": "c"}, {"text": "anchor", "label": "positive"}),
    ],
)
def test_init_recognises_the_task_and_proposes_what_goes_with_it(tmp_path, capsys, row, read):
    text = json.dumps(row)
    for short in "abc":
        text = text.replace(f'"{short}"', f'"{short} {{0}}"')
    rows = [json.loads(text.replace("{0}", str(i))) for i in range(20)]
    path, out = put(tmp_path / "d.jsonl", rows), tmp_path / "study.yaml"
    code, _, err = call(capsys, "init", path, "--out", out)
    assert code == 0, err
    config = read_config(out)
    wanted = ("retrieval", "retriever", "ndcg@10") if {"passage", "positive"} & row.keys() else None
    found = (config.task, config.train.trainer, config.evaluate.score)
    assert found == (wanted or ("generation", "causal", "token_probability"))
    assert [dial.name for dial in config.dials] == ["sampling"] and (config.train.steps or 0) <= 40
    found = {name: getattr(config.data, name) for name in ("text", "label", "context", "group")}
    assert {name: column for name, column in found.items() if column is not None} == read


SAID = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FULL = SAID.filter(lambda said: not is_blank(said))
ROLES = st.sampled_from(["system", "user", "tool", "assistant"])
TURN = st.fixed_dictionaries({"role": ROLES, "content": SAID}, optional={"name": FULL})
SHARE = st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt", "system"]), "value": SAID})
MORE = {"n": st.one_of(st.none(), st.integers(-9, 9)), "tags": st.lists(FULL, max_size=2), "id": FULL}
CHAT = st.builds(lambda turns, said: [*turns, user(said), assistant(said)], st.lists(TURN, max_size=4), FULL)
SHARED = st.builds(
    lambda turns, said: [*turns, {"from": "human", "value": said}, {"from": "gpt", "value": said}],
    st.lists(SHARE, max_size=4), FULL,
)  # fmt: skip
ANSWER = st.builds(lambda said: [assistant(said)], FULL)
ANSWER = st.builds(lambda said: [assistant(said)], FULL)
FORMS = {
    "messages": st.fixed_dictionaries({"messages": CHAT, **MORE}),
    "conversations": st.fixed_dictionaries({"conversations": SHARED, **MORE}),
    "alpaca": st.fixed_dictionaries({"instruction": FULL, "input": SAID, "output": FULL, **MORE}),
    "pair": st.fixed_dictionaries({"prompt": CHAT, "completion": ANSWER, **MORE}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_what_is_read_is_written_back_whole(tmp_path_factory, form):
    folder = tmp_path_factory.mktemp("forms")
    first = folder / "in.jsonl"

    @settings(max_examples=25)
    @given(st.lists(FORMS[form], min_size=1, max_size=4), st.sampled_from(["jsonl", "parquet"]))
    def comes_back(rows, suffix):
        second = folder / f"out.{suffix}"
        corpus = load_corpus(put(first, rows), task="generation")
        write_corpus(corpus, second)
        names = {name: "own_id" if name == "id" else name for name in rows[0]}
        assert values_of(second, *names.values()) == drop_nulls([[row[name] for name in names] for row in rows])
        back = load_corpus(second)
        assert back.fingerprint == corpus.fingerprint and back.task == "generation"
        pool = corpus.with_columns(origin=["synthetic"] * len(corpus), text=[f"{t}!" for t in corpus.texts])
        blend = mix_corpora(corpus, pool, amount="all", seed=0).corpus
        write_corpus(blend, second)
        assert load_corpus(second).fingerprint == blend.fingerprint

    comes_back()


def test_a_frame_of_instructions_has_its_inputs():
    frame = pd.DataFrame([{"instruction": "sum up", "input": "this", "output": "that"}])
    corpus = Corpus.from_pandas(frame, text="instruction", label="output", task="generation")
    assert corpus.texts == ["sum up\n\nthis"]
    assert corpus.own.to_pylist() == frame.to_dict("records")
