"""Pools of all kinds of writing, end to end against a server on loopback."""

import json
from collections import Counter

import pytest

from asking import generate_pools, generate_to_target
from cuvee.corpus import Corpus
from cuvee.corpus.forms import split_turns
from cuvee.errors import ConfigError, GenerationError
from cuvee.generate.calls import Sampling
from cuvee.generate.client import LLMClient
from cuvee.generate.dials import BaseThenRefineDial, ExamplesDial, ParaphraseDial, SamplingDial, TabooDial, TopicsDial
from cuvee.generate.ledger import Ledger
from cuvee.generate.parsing import WRITINGS, choose_kind, find_strata
from cuvee.generate.pools import generate_corpus
from cuvee.generate.targets import Target
from local_llm import write_text

PASSAGES = Corpus.from_rows(
    [{"text": f"real query number {i}", "target": f"Passage about thing {i // 2}.\nIn two lines."} for i in range(6)],
    task="retrieval",
)
QUESTIONS = Corpus.from_rows(
    [{"text": f"what is thing {i}", "target": f"a thing {i}", "context": f"Thing {i} is one."} for i in range(4)],
    task="generation",
)
PAIRS = Corpus.from_rows(
    [{"text": f"describe the thing {i}", "target": f"it is\n\nthing {i}"} for i in range(6)], task="generation"
)
CORPORA = {"query": PASSAGES, "question": QUESTIONS, "instruction": PAIRS, "story": PAIRS}


def write_pair(body):
    """A pair in the form that was asked for, of words that depend on the request alone."""
    words = write_text(body, words=8).split()
    text, target = " ".join(words[:5]), "\n\n".join(words[5:])
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
    if schema:
        return json.dumps(dict(zip(schema["properties"], (text, target), strict=True)))
    heads = {"Question": "Answer", "Instruction": "Response", "Beginning": "Continuation"}
    last = (body.get("prompt") or "").rsplit("\n", 1)[-1].partition(",")[0].strip(":")
    return f" {text}\n{heads[last]}: {target}\n=====" if last in heads else text


def generate(llm, train, dial=None, *, api="chat", ledger=None, **given):
    with Ledger() if ledger is None else ledger as kept:
        return generate_pools(
            train, dial=dial or SamplingDial(levels=[1.0]), ledger=kept, endpoint=llm.endpoint(api=api, concurrency=8),
            **{"blocks": (0,), "rows_per_label": 4, "sampling": Sampling(), "describe": "texts", "seed": 1, **given},
        )  # fmt: skip


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("kind", CORPORA)
def test_rows_have_their_sides_from_the_answer_and_the_stratum(llm, kind, api):
    llm.text = write_pair
    train, writing = CORPORA[kind], WRITINGS[kind]
    (pool,) = generate(llm, train, kind=kind, api=api)
    strata = find_strata(train, kind)
    assert len(pool.corpus) == 4 * len(strata) and pool.short == 0
    assert pool.corpus.task == train.task
    sources = Counter(pool.corpus.targets if kind == "query" else pool.corpus.contexts)
    assert sources == {stratum.source: 4 for stratum in strata.values()}
    if writing.pair:
        assert all(target.count("\n\n") == 2 for target in pool.corpus.targets)
    for row in pool.corpus.table.to_pylist():
        assert len(row["text"].split()) == 5
        shown = [train.ids.index(i) for i in row["seed_ids"]]
        own = row["target"] if kind == "query" else row["context"]
        assert shown and own not in {(train.targets if kind == "query" else train.contexts)[i] for i in shown} - {None}
    assert len(set(pool.corpus.ids)) == len(pool.corpus)


def test_answers_that_copy_run_on_or_are_not_grounded_are_asked_for_again(llm):
    """One in four each; with ``grounded`` the words of the context are wanted too."""

    def text(body):
        words = write_text(body, words=8).split()
        asked = " ".join(words[:5])
        about = body["messages"][1]["content"].rpartition("Context: ")[2].split(".")[0]
        kinds = {0: asked, 1: " ".join(words * 3), 2: words[0], 3: f"about {about}"}
        return json.dumps({"question": asked, "answer": kinds[body["seed"] % 4]})

    llm.text = text
    told = {}
    for least in (None, 0.5):
        (pool,) = generate(llm, QUESTIONS, grounded=least, attempts=20)
        assert pool.short == 0
        told[least] = Counter(row.reason for row in pool.rejected)
        copies = [a == b for a, b in zip(pool.corpus.texts, pool.corpus.targets, strict=True)]
        assert not any(copies) and max(len(answer.split()) for answer in pool.corpus.targets) <= 6
        if least:
            assert all(answer.startswith("about Thing") for answer in pool.corpus.targets)
    both = {"answer repeats what it answers", "answer too long"}
    assert both <= told[None].keys() and "answer not grounded in what it is about" not in told[None]
    assert both | {"answer not grounded in what it is about"} <= told[0.5].keys()


CHATS = Corpus.from_rows(
    [
        {
            "text": f"[system] Be kind.\n\n[user] what is thing {i}\n\n[assistant] it is one\n\n[user] and which {i}",
            "target": f"Sure! thing {i}\n\nand more",
        }
        for i in range(5)
    ],
    task="generation",
)


def write_chat(body):
    """A conversation, a reply or a turn of words of the request, in the form that was asked for."""
    words = write_text(body, words=8).split()
    turns = f"[user] {words[0]} {words[1]}\n[assistant] {words[2]}\n\n[user] {' '.join(words[3:6])}"
    reply, said = f"Sure! {' '.join(words[6:])}\n\nbye", " ".join(words[:4])
    told = body.get("prompt") or body["messages"][0]["content"]
    if "schema" in str(body.get("response_format")):
        return json.dumps({"conversation": turns, "user": said, "reply": reply})
    last = told.rsplit("\n", 1)[-1].partition(",")[0].strip(":")
    heads = {"Conversation": f" {turns}\nReply: {reply}\n=====", "User": f" {said}\nReply: {reply}\n====="}
    return heads.get(last, f" {reply}\n=====")


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("kind", ["conversation", "reply", "turn"])
def test_chats_are_written_whole_by_their_reply_or_by_the_next_turn(llm, kind, api):
    llm.text = write_chat
    (pool,) = generate(llm, CHATS, kind=kind, api=api, rows_per_label=2)
    assert choose_kind(CHATS, None) == "conversation" and pool.corpus.task == "generation"
    known = [split_turns(text) for text in CHATS.texts]
    whole = [[*turns, ("assistant", said)] for turns, said in zip(known, CHATS.targets, strict=True)]
    for text, target in zip(pool.corpus.texts, pool.corpus.targets, strict=True):
        turns = split_turns(text)
        assert target.startswith("Sure! ") and target.endswith("\n\nbye") and turns[-1][0] == "user"
        if kind == "conversation":
            assert [role for role, _ in turns] == ["user", "assistant", "user"]
        else:
            assert turns in known if kind == "reply" else turns[:-1] in whole
    if kind != "conversation":  # two rows about each conversation, which are one group
        assert Counter(Counter(pool.corpus.groups).values()) == {2: 5}
        assert len(llm.bodies) == 10 and not set(pool.corpus.ids) & set(CHATS.ids)


def test_a_conversation_that_is_none_is_malformed(llm):
    for wrong in ("who won the cup?", "[user] hello there\n\n[assistant] hello to you"):
        llm.text = lambda body, said=wrong: json.dumps({"conversation": said, "reply": write_text(body)})
        with pytest.raises(GenerationError, match="rejected as malformed"):
            generate(llm, CHATS, rows_per_label=1)


def test_the_kind_follows_the_task_and_what_the_rows_have(llm):
    llm.text = write_pair
    for kind in ("query", "question", "instruction"):
        (chosen,), (named,) = (generate(llm, CORPORA[kind], kind=given) for given in (None, kind))
        assert choose_kind(CORPORA[kind], None) == kind
        assert chosen.corpus.table.equals(named.corpus.table)
    (story,) = generate(llm, PAIRS, kind="story")
    assert not set(story.corpus.texts) & set(named.corpus.texts)


def test_sources_of_the_users_are_written_about(llm):
    llm.text = write_pair
    (pool,) = generate(llm, QUESTIONS, sources=["A new thing is here.", "Another one."])
    assert Counter(pool.corpus.contexts) == {"A new thing is here.": 4, "Another one.": 4}
    assert sum("A new thing is here." in b["messages"][1]["content"] for b in llm.bodies) == 4
    pool = generate_corpus(
        PASSAGES, dial=SamplingDial(levels=[1.0]), level="1", rows_per_label=2, endpoint=llm.endpoint(),
        sources=["One passage."], kind="query",
    )  # fmt: skip
    assert pool.corpus.targets == ["One passage."] * 2


@pytest.mark.parametrize("kind", CORPORA)
def test_paraphrases_rewrite_the_text_and_keep_the_rest(llm, kind):
    def text(body):
        said = body["messages"][1]["content"]
        return f"{said} said anew" if "You rewrite" in body["messages"][0]["content"] else write_pair(body)

    llm.text = text
    (pool,) = generate(llm, CORPORA[kind], ParaphraseDial(levels=[1], sources=1), kind=kind)
    rows = pool.corpus.table.to_pylist()
    by_text = {row["text"]: row for row in rows}
    made = [row for row in rows if row["text"].endswith(" said anew")]
    assert len(made) == len(find_strata(CORPORA[kind], kind))
    for row in made:
        source = by_text[row["text"].removesuffix(" said anew")]
        same = ("target", "context", "seed_ids", "group", "block")
        assert {name: row[name] for name in same} == {name: source[name] for name in same}


def test_drafts_serve_texts_and_not_pairs(llm):
    llm.text = lambda body: write_text(body, words=4)
    dial = BaseThenRefineDial(levels=[1.2])
    (pool,) = generate(llm, PASSAGES, dial)
    assert len(pool.corpus) == 12
    for kind in ("question", "instruction", "story"):
        with pytest.raises(ConfigError, match=f"kind '{kind}' has two sides; it serves: label, query"):
            generate(llm, CORPORA[kind], dial, kind=kind)


@pytest.mark.parametrize(
    "dial",
    [
        TopicsDial(levels=[2], topics={"any": ["rain", "snow"]}),
        TabooDial(levels=[2], read=2),
        ExamplesDial(levels=[3], shown=3),
    ],
)
def test_dials_know_the_one_stratum_by_its_name(llm, dial):
    llm.text = write_pair
    (pool,) = generate(llm, PAIRS, dial)
    assert (len(pool.corpus), pool.short) == (4, 0)
    said = " ".join(b["messages"][1]["content"] for b in llm.bodies)
    assert ("about rain" in said) == isinstance(dial, TopicsDial)
    assert ("Do not use" in said) == isinstance(dial, TabooDial)


def test_dials_that_lack_a_stratum_are_told(llm):
    with pytest.raises(ConfigError, match="has none for label 'any'"):
        generate(llm, PAIRS, TopicsDial(levels=[1], topics={"alpha": ["rain"]}))
    with pytest.raises(ConfigError, match="7 seed examples are wanted of label 'any', it has 6"):
        generate(llm, PAIRS, ExamplesDial(levels=[7], shown=7))


def test_a_passage_without_rows_is_short_and_a_pool_without_any_an_error(llm):
    first = next(iter(find_strata(PASSAGES, "query").values())).source
    llm.text = lambda body: "" if body["messages"][1]["content"].rsplit("Passage: ", 1)[1].startswith(first) else (
        write_pair(body)
    )  # fmt: skip
    (pool,) = generate(llm, PASSAGES, attempts=2)
    assert (pool.short, {q.reason for q in pool.rejected}) == (4, {"empty"})
    assert first not in pool.corpus.targets
    llm.text = lambda _body: "no pair at all"
    with pytest.raises(GenerationError, match=r"rejected as malformed .*; use a larger model"):
        generate(llm, QUESTIONS, attempts=2)


def test_exact_copies_are_told_by_the_text_alone(llm):
    texts = iter(["describe the THING 3", "a fine new thing", "a fine new thing!", "another thing"])

    def text(_body):
        return json.dumps({"instruction": next(texts), "response": "yes"})

    llm.text = text
    (pool,) = generate(llm, PAIRS, rows_per_label=1, attempts=9)
    assert pool.quarantine[0].reason in ("copy of the prompt", "copy of a training row")
    assert pool.corpus.texts == ["a fine new thing"]


def test_labels_are_checked_in_batches_and_each_text_once(llm, train):
    asked = []

    def agrees(texts, labels):
        asked.append(list(zip(texts, labels, strict=True)))
        return ["amber" not in text for text in texts]

    (pool,) = generate(llm, train, agrees=agrees, rows_per_label=8, attempts=12)
    wrong = [q for q in pool.quarantine if q.reason == "wrong label"]
    assert wrong and all("amber" in q.text for q in wrong)
    assert not any("amber" in text for text in pool.corpus.texts)
    every = [pair for pairs in asked for pair in pairs]
    assert len(every) == len(set(every)) and {label for _, label in every} == {"alpha", "beta"}
    assert len(asked[0]) == 16
    with pytest.raises(ConfigError, match="agrees checks labels, and rows of the kind 'query' have none"):
        generate(llm, PASSAGES, agrees=agrees)


def test_levels_of_pairs_are_searched_for_a_target_too(llm):
    llm.text = write_pair
    found = generate_to_target(
        QUESTIONS, dial=SamplingDial(levels=[0.5, 1.0]), score=lambda corpus: len(set(corpus.contexts)),
        target=Target(metric_name="contexts", value=2, tolerance=0), budget_rows=100, rows_per_label=2,
        endpoint=llm.endpoint(api="chat"), sources=["One.", "Two."],
    )  # fmt: skip
    assert found.reached and found.history[0].rows == 4


def test_words_of_the_passage_are_never_forbidden(llm):
    animals = ("zebra", "lemur", "heron")
    train = Corpus.from_rows(
        [{"text": f"real {a} query", "target": f"The {a} eats."} for a in animals], task="retrieval"
    )

    def text(body):
        animal = body["messages"][1]["content"].rsplit("Passage: The ", 1)[1].partition(" ")[0]
        return f"{animal} {write_text(body, words=3)}"

    llm.text = text
    (pool,) = generate(llm, train, TabooDial(levels=[2], read=2, words=2))
    asked = [b["messages"][1]["content"].partition("Do not use any of these words: ")[2] for b in llm.bodies]
    forbidden = {word for said in asked for word in said.strip(".").split(", ")} - {""}
    assert forbidden and not forbidden & set(animals)
    assert pool.short == 0


def test_any_client_may_answer(llm, train):
    opened = []

    def open_client(endpoint, ledger):
        opened.append(endpoint.model)
        return LLMClient(endpoint, ledger)

    (pool,) = generate(llm, train, open_client=open_client)
    assert (len(pool.corpus), opened) == (8, ["tiny"])
    found = generate_to_target(
        train, dial=SamplingDial(levels=[0.5, 1.0]), score=len, rows_per_label=2, endpoint=llm.endpoint(),
        target=Target(metric_name="rows", value=4, tolerance=0), budget_rows=9, open_client=open_client,
    )  # fmt: skip
    assert found.reached and opened == ["tiny"] * 2
