"""Prompts are files: read, checked, overridden, and part of what an answer depends on."""

import json
import subprocess
import sys

import pytest

from asking import generate_pools
from cuvee.corpus import Corpus
from cuvee.errors import ConfigError
from cuvee.generate.calls import Request, Sampling
from cuvee.generate.dials import ParaphraseDial, Slot
from cuvee.generate.dials.slots import Draft
from cuvee.generate.ledger import Ledger
from cuvee.generate.parsing import KINDS, WRITINGS, find_strata
from cuvee.generate.prompts import BUILT_IN, PromptSet, PromptWriter, WritingSpec, load_prompts

QUESTIONS = Corpus.from_rows(
    [
        {"text": f"What is thing {i}?", "target": f"It's <thing> {i}.\n\nYes.", "context": f"Thing {i}.\n\nIt is {i}."}
        for i in range(5)
    ],
    task="generation",
)
CHATS = Corpus.from_rows(
    [{"text": f"[user] What {i}?\n\n[assistant] It.\n\n[user] And {i}?", "target": f"Yes {i}."} for i in range(5)],
    task="generation",
)
ROWS = {
    **dict.fromkeys(("conversation", "reply", "turn"), CHATS),
    "label": Corpus.from_rows([{"text": f"text {i}", "target": "card_arrival"} for i in range(5)]),
    "query": Corpus.from_rows(
        [{"text": f"query {i}", "target": f"passage\n\n{i}"} for i in range(5)], task="retrieval"
    ),
    "question": QUESTIONS,
    "instruction": QUESTIONS,
    "story": QUESTIONS,
}


def ask(kind, api, prompts=None, train=None, sampling=None, **settings) -> Request:
    train = train or ROWS[kind]
    spec = WritingSpec(describe="odd things", sampling=sampling or Sampling(), seed=1, kind=kind, prompts=prompts)
    writer = PromptWriter(train, spec, api)
    first = next(iter(find_strata(train, kind)))
    slot = Slot(key=f"{first}/0/0", label=first, block=0, number=0, order=0, **settings)
    return writer.ask(slot, 0, settings.get("avoid", ())).request


def folder(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / f"{name}.jinja").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", load_prompts().files)
def test_every_built_in_prompt_passes_the_checks_that_a_users_has_to(name):
    file = load_prompts().file(name)
    file.check()
    assert file.purpose.endswith(".") and "\n" not in file.purpose
    assert file.source == (BUILT_IN / f"{name}.jinja").read_text(encoding="utf-8")
    prompts = load_prompts()
    assert prompts.file(name).pairs == () or name in ("paraphrase_completion", "refine_completion")


def test_there_is_a_prompt_for_each_kind_and_form():
    wanted = {f"{asked}_{form}" for asked in (*KINDS, "paraphrase", "refine")
              for form in ("completion", "chat_system", "chat_user")}  # fmt: skip
    assert wanted <= set(load_prompts().files)


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_asks_in_both_forms(kind, api):
    request = ask(kind, api, topic="rain", attributes=(("tone", "dry"),))
    said = request.prompt or "\n".join(content for _, content in request.messages)
    assert all(part in said for part in ("odd things", "rain", "tone: dry"))
    train, writing = ROWS[kind], WRITINGS[kind]
    own = train.targets if train is CHATS else train.texts
    shown = [i for i, text in enumerate(own) if text in said]
    assert len(shown) == 4 + (kind == "turn")  # whose conversation has its own reply
    if writing.source is not None:
        stratum = next(iter(find_strata(train, kind).values()))
        assert stratum.source in said
        assert kind == "turn" or not set(stratum.own) & set(shown)  # its own row would give the question away
    if writing.is_single:
        assert (request.schema is not None) == (api == "chat" and writing.pair)
        assert request.sampling.max_tokens == 128
    else:
        assert (request.schema, request.sampling.max_tokens) == (None, 48)
    if api == "completions":
        stops = {"question": ("\n=====", "\nContext:", "\nQuestion:"), "story": ("\n=====", "\nBeginning:"),
                 "instruction": ("\n=====", "\nInstruction:"), "conversation": ("\n=====", "\nConversation:"),
                 "reply": ("\n=====", "\nConversation:", "\nReply:"),
                 "turn": ("\n=====", "\nConversation:", "\nUser:")}  # fmt: skip
        assert request.sampling.stop == stops.get(kind, ("\n",))


def test_examples_in_json_are_shown_as_they_are():
    said = ask("instruction", "chat").messages[1][1]
    examples = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert len(examples) == 4
    assert {e["response"] for e in examples} <= set(QUESTIONS.targets)
    assert "It's <thing>" in said  # no escapes for web pages


def test_pairs_are_given_the_room_that_the_longest_needs_and_no_less_than_asked():
    long = Corpus.from_rows([{"text": "do " + "x" * 500, "target": "y" * 497}], task="generation")
    assert ask("instruction", "chat", train=long).sampling.max_tokens == 532
    huge = Corpus.from_rows([{"text": "do it", "target": "y" * 9000}], task="generation")
    assert ask("story", "chat", train=huge).sampling.max_tokens == 1024
    assert ask("story", "chat", train=huge, sampling=Sampling(max_tokens=3000)).sampling.max_tokens == 3000
    assert ask("story", "completions", sampling=Sampling(stop=("END",))).sampling.stop == ("END",)


def test_a_folder_overrides_prompts_of_the_same_name(tmp_path):
    prompts = load_prompts(folder(tmp_path, label_chat_user="Give me {{ label }}, like {{ examples[0] }}."))
    said = ask("label", "chat", prompts).messages
    assert said[1][1].startswith("Give me card arrival, like text ")
    assert said[0] == ask("label", "chat").messages[0]
    assert ask("label", "completions", prompts) == ask("label", "completions")
    assert prompts.hash != load_prompts().hash
    copied = {name: file.source for name, file in load_prompts().files.items()}
    (tmp_path / "all").mkdir()
    assert load_prompts(folder(tmp_path / "all", **copied)).hash == load_prompts().hash


def test_pairs_set_in_a_prompt_may_not_come_back(tmp_path):
    text = '{% set pairs = [("one two", "two one")] %}{{ pairs[0][0] }} {{ text }}'
    prompts = load_prompts(folder(tmp_path, paraphrase_completion=text))
    train = ROWS["label"]
    writer = PromptWriter(train, WritingSpec(describe="x", seed=1, prompts=prompts), "completions")
    slot = Slot(key="k", label="card_arrival", block=0, number=0, order=0)
    question = writer.ask(slot, 0, step="paraphrase", source="the\nsource", seed_ids=["1"])
    assert (question.shown, question.request.prompt) == (("one two", "two one"), "one two the source")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("label_chat_usr", "x", r"label_chat_usr.jinja: no prompt has this name; did you mean 'label_chat_user.jinja'"),
        ("label_completion", "a\n{% if topic %}", r"label_completion.jinja, line 2: Unexpected end of template"),
        ("label_completion", "{{ lable }}", r"unknown variable 'lable'; did you mean 'label'"),
        ("label_completion", "{{ passage }}", r"unknown variable 'passage'; valid: label, describe, count, topic"),
        ("query_completion", "{{ passage }}{% for e in examples %}{{ e.text }}{% endfor %}", "has no attribute 'text'"),
        ("query_completion", "Write a query.", r"does not use 'passage', which this prompt is about"),
        ("paraphrase_chat_user", "Rewrite it.", r"does not use 'text'"),
        ("label_completion", "{# nothing #}", r"makes an empty prompt"),
        ("label_completion", "{% if topic %}about it{% endif %}", r"makes an empty prompt"),
        ("label_completion", "{{ 1 / 0 }}", r"label_completion.jinja: division by zero; its variables: label,"),
        ("label_completion", "{{ label.__class__.__mro__ }}", r"access to attribute '__class__' of 'str' .* is unsafe"),
        ("label_completion", "{{ topic.upper() }} x", r"'None' has no attribute 'upper'"),
    ],
)
def test_prompts_that_cannot_be_asked_are_told_when_they_are_read(tmp_path, name, text, message):
    with pytest.raises(ConfigError, match=message) as info:
        load_prompts(folder(tmp_path, **{name: text}))
    assert "\n" not in str(info.value) and str(tmp_path) in str(info.value)


def test_folders_that_are_none_are_told(tmp_path):
    with pytest.raises(ConfigError, match="no such folder; cuvee prompts --out DIR writes one"):
        load_prompts(tmp_path / "none")
    (tmp_path / ".hidden").touch()
    with pytest.raises(ConfigError, match="the folder is empty"):
        load_prompts(tmp_path)
    (tmp_path / "label_completion.jinja").write_bytes(b"caf\xe9")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_prompts(tmp_path)
    with pytest.raises(ConfigError, match="no prompt is called 'x'; valid: "):
        load_prompts().file("x")
    (tmp_path / "label_completion.jinja").unlink()
    (tmp_path / "README.md").touch()
    with pytest.raises(ConfigError, match=r"README.md: no prompt has this name"):
        load_prompts(tmp_path)


def test_what_only_real_values_break_is_told_with_the_file(tmp_path):
    prompts = load_prompts(folder(tmp_path, label_completion="{{ 1 // (label | length - 12) }}"))
    with pytest.raises(ConfigError, match=r"label_completion.jinja: .*by zero"):
        ask("label", "completions", prompts)


def provenance(llm, train, prompts, dial, api):
    with Ledger() as ledger:
        (pool,) = generate_pools(
            train, dial=dial, blocks=(0,), rows_per_label=6, endpoint=llm.endpoint(api=api), ledger=ledger,
            sampling=Sampling(), describe="texts", seed=1, prompts=prompts,
        )  # fmt: skip
    return {row["slot"]: (row["request_key"], row["prompt_hash"]) for row in pool.provenance.to_pylist()}


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_overriding_a_prompt_changes_keys_and_hashes_of_its_requests_alone(llm, train, tmp_path, api):
    dial = ParaphraseDial(levels=[1], sources=2)
    form = "completion" if api == "completions" else "chat_user"
    texts = {name: load_prompts().file(name).source for name in (f"paraphrase_{form}", f"label_{form}")}
    before = provenance(llm, train, None, dial, api)
    assert before == provenance(llm, train, load_prompts(), dial, api)
    assert {slot.count("/p") for slot in before} == {0, 1}
    for part, text in texts.items():
        (tmp_path / part).mkdir()
        changed = load_prompts(folder(tmp_path / part, **{part: f"Please.\n{text}"}))
        after = provenance(llm, train, changed, dial, api)
        same = {slot for slot in before if after[slot] == before[slot]}
        if part.startswith("paraphrase"):
            assert same == {slot for slot in before if "/p" not in slot}
        else:  # paraphrases are of other rows now, in the same wording
            assert not same
            assert {slot for slot in before if after[slot][1] == before[slot][1]} == {s for s in before if "/p" in s}
        assert not any(key == before[slot][0] for slot, (key, _) in after.items() if slot not in same)
    other = "label_chat_system" if api == "completions" else "label_completion"
    (tmp_path / "unused").mkdir()
    unused = load_prompts(folder(tmp_path / "unused", **{other: "Other words."}))
    assert provenance(llm, train, unused, dial, api) == before


def test_drafts_take_the_prompts_of_their_own_form(tmp_path):
    prompts = load_prompts(folder(tmp_path, query_completion="COMPLETE {{ passage }}"))
    train = ROWS["query"]
    writer = PromptWriter(train, WritingSpec(describe="x", seed=1, kind="query", prompts=prompts), "chat")
    first = next(iter(writer.strata))
    slot = Slot(key="k", label=first, block=0, number=0, order=0, draft=Draft(temperature=1.5))
    assert writer.ask(slot, 0, step="draft").request.prompt.startswith("COMPLETE passage")
    refined = writer.ask(slot, 1, step="refinement", source="a draft", seed_ids=train.ids[:2]).request.messages[1][1]
    assert refined.startswith("These x are in good form:\n- query")


def test_sets_of_other_files_can_be_made():
    files = load_prompts().files
    assert list(PromptSet(dict(reversed(files.items()))).files) == sorted(files)


@pytest.mark.slow  # with the others of its kind
def test_jinja_is_loaded_with_the_first_prompt_only():
    code = (
        "import sys, cuvee.generate.prompts as t; before = 'jinja2.sandbox' in sys.modules; "
        "t.load_prompts().file('paraphrase_chat_user').render({'text': 'x'}); "
        "print(before, 'jinja2.sandbox' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.split() == ["False", "True"]
