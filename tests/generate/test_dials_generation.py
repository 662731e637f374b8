"""Every dial against an LLM whose answers depend on what the dial varies: cost, determinism, and its effect."""

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from asking import generate_pools
from cuvee.corpus import Corpus, normalise_text
from cuvee.errors import ConfigError
from cuvee.generate.calls import Sampling
from cuvee.generate.dials import DIALS, make_dial
from cuvee.generate.ledger import Ledger
from local_llm import WORDS, LocalLLM

LABELS = ("alpha", "beta")
TOPICS = {label: [f"{label} theme {j}" for j in range(8)] for label in LABELS}
MADE = {
    "topics": {"levels": [1, 2, 4], "topics": TOPICS},
    "paraphrase": {"levels": [3, 1, 0]},
    "sampling": {"levels": [0.2, {"name": "warm", "temperature": [0.6, 0.9]}, {"temperature": 2, "top_p": 0.9}]},
    "attributes": {"levels": [1, 2, 6], "dimensions": {"tone": ["dry", "warm"], "length": ["short", "long", "huge"]}},
    "examples": {"levels": [2, 4, 8], "shown": 2},
    "taboo": {"levels": [1, 2, 4], "read": 2, "words": 4},
    "base_then_refine": {"levels": [0.2, 1, 2]},
    "combined": {
        "first": {"name": "topics", "levels": [1, 4], "topics": TOPICS},
        "second": {"name": "sampling", "levels": [0.2, 2]},
    },
}
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
LEXICON = [x + y + z for x in SYLLABLES[:12] for y in SYLLABLES[12:24] for z in SYLLABLES[24:36]]


@pytest.fixture(scope="module")
def llm() -> Iterator[LocalLLM]:
    server = LocalLLM()
    yield server
    server.close()


@pytest.fixture
def train() -> Corpus:
    rows = [
        {"text": f"real {label} text number {i} about {WORDS[i]}", "target": label}
        for label in LABELS
        for i in range(8)
    ]
    return Corpus.from_rows(rows)


def asked_for(body: dict) -> str:
    return body["prompt"] if "prompt" in body else body["messages"][-1]["content"]


def author(body: dict) -> str:
    """Few favourite words for each theme, more of them at a higher temperature, none that is forbidden."""
    text = asked_for(body)
    digest = hashlib.sha256(json.dumps([text, body["seed"]]).encode()).digest()
    if is_paraphrase(body):
        words = (re.findall("Original: (.*)", text) or [text])[-1].split()
        return " ".join(np.random.default_rng(list(digest)).permutation(words)) + " again"
    if text.endswith("Edited:") or "Bring this draft" in text:
        return f"{text.removesuffix('Edited:').strip().splitlines()[-1].removeprefix('Draft: ')} edited".capitalize()
    lines = text.splitlines()
    theme = next((line for line in lines if line.startswith(("More", "Write one more"))), "")
    theme = re.split(r", without the words | Do not use any of these words", theme)[0]
    if "about" not in theme and "(" not in theme and "like:" not in theme:
        theme = repr(sorted(line[-12:] for line in lines if "real " in line))  # no instruction: the examples inspire
    return favourites(theme, text, digest, body["temperature"] * body["top_p"])


def is_paraphrase(body: dict) -> bool:
    return "Rewritten:" in asked_for(body) or "You rewrite" in body.get("messages", [{"content": ""}])[0]["content"]


def favourites(theme: str, text: str, digest: bytes, heat: float) -> str:
    forbidden = set(re.findall(r"[a-z]+", "".join(re.findall(r"(?:without the words|these words:)(.*)", text))))
    start = int(hashlib.sha256(theme.encode()).hexdigest(), 16) % len(LEXICON)
    words = [w for w in (LEXICON[(start + i) % len(LEXICON)] for i in range(80)) if w not in forbidden]
    words = words[: 8 + int(12 * heat)]
    return " ".join(words[b % len(words)] for b in digest[:5])


def one_mind(body: dict) -> str:
    """As author, with one theme whatever the examples: only forbidden words, instructions and heat matter."""
    text = asked_for(body)
    if is_paraphrase(body) or "Edited:" in text or "Bring this draft" in text:
        return author(body)
    body = {**body, "prompt": re.sub(r"(?m)^(\d+\.|-) real .*\n", "", text)}
    return author(body)


def sweep(llm, train, name, *, levels=None, text=None, made=None, **settings):
    llm.text = text or (author if name == "examples" else one_mind)
    given = {
        "blocks": (0, 1), "rows_per_label": 8, "sampling": Sampling(temperature=0.5), "describe": "texts", "seed": 1,
        "attempts": 12, "endpoint": llm.endpoint(**settings.pop("endpoint", {})), **settings,
    }  # fmt: skip
    llm.bodies.clear()
    with Ledger() as ledger:
        return generate_pools(train, dial=make_dial(name, made or MADE[name]), levels=levels, ledger=ledger, **given)


def sent(llm):
    return [json.dumps(body, sort_keys=True) for body in llm.bodies]


def rows(pool):
    return pool.corpus.table.drop_columns(["level"]).to_pylist()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DIALS))
def test_a_sweep_sends_the_union_of_its_levels_each_request_once(llm, train, name):
    pools = sweep(llm, train, name)
    assert all(pool.short == 0 for pool in pools)
    together = sent(llm)
    assert len(set(together)) == len(together)
    union = set()
    for pool in pools:
        (alone,) = sweep(llm, train, name, levels=[pool.level.name], blocks=(0,))
        assert rows(alone) == [row for row in rows(pool) if row["block"] == 0]
        union |= set(sent(llm))
        sweep(llm, train, name, levels=[pool.level.name], blocks=(1,))
        union |= set(sent(llm))
    assert union == set(together)


@pytest.mark.parametrize("name", sorted(set(DIALS) - {"sampling", "base_then_refine", "combined"}))
def test_dials_that_select_pay_for_less_than_their_levels_apart(llm, train, name):
    pools = sweep(llm, train, name)
    apart = sum(len(pool.corpus) + len(pool.rejected) for pool in pools)
    assert len(llm.bodies) < 0.8 * apart


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DIALS))
def test_pools_do_not_depend_on_timing(llm, train, name):
    first = sweep(llm, train, name)
    second = sweep(llm, train, name, endpoint={"concurrency": 1})
    for a, b in zip(first, second, strict=True):
        assert a.corpus.table.equals(b.corpus.table)
        assert a.rejected == b.rejected


@pytest.mark.parametrize("name", sorted(DIALS))
def test_chat_endpoints_get_every_dial_in_their_form(llm, train, name):
    pools = sweep(llm, train, name, endpoint={"api": "chat"}, blocks=(0,))
    assert all(pool.short == 0 for pool in pools)
    forms = {"prompt" if "prompt" in body else "messages" for body in llm.bodies}
    assert forms == ({"prompt", "messages"} if name == "base_then_refine" else {"messages"})


def distinct_words(pool):
    return len({word for text in pool.corpus.texts for word in normalise_text(text).split()})


def distinct_contents(pool):
    return len({frozenset(normalise_text(text).split()) - {"again"} for text in pool.corpus.texts})


def distinct_2(pool):
    words = [normalise_text(text).split() for text in pool.corpus.texts]
    pairs = [pair for text in words for pair in pairwise(text)]
    return len(set(pairs)) / len(pairs)


@pytest.mark.slow
@pytest.mark.parametrize("api", ["completions", "chat"])
@pytest.mark.parametrize("name", sorted(DIALS))
def test_measured_diversity_rises_with_the_level(llm, train, name, api):
    pools = sweep(llm, train, name, endpoint={"api": api}, rows_per_label=16)
    assert {len(pool.corpus) for pool in pools} == {64}
    # a paraphrase says in the words of its source what that says; the rest of the dials bring new words
    measure = distinct_contents if name == "paraphrase" else distinct_words
    measured = [measure(pool) for pool in pools]
    if name == "combined":  # 1 x 2 and 4 x 0.2 need not be in this order: each dial's rise is tested by itself
        assert measured[0] < min(measured[1:3]) <= max(measured[1:3]) < measured[3]
    else:
        assert all(low < high for low, high in pairwise(measured)), measured
    assert distinct_2(pools[0]) < distinct_2(pools[-1])


def varied(name: str, body: dict) -> object:
    text = asked_for(body)
    if name == "sampling":
        return body["temperature"], body["top_p"]
    if name == "base_then_refine":
        return None if "Edited:" in text else body["temperature"]
    if name == "examples":
        return tuple(sorted(re.findall(r"(?m)^(?:\d+\.|-) (real .*)$", text)))
    if name == "combined":
        return re.findall("theme .", text)[-1], body["temperature"]
    pattern = {"topics": r"theme .", "attributes": r"tone: \w+; length: \w+", "taboo": r"without the words .*:"}
    return tuple(re.findall(pattern[name], text))


WANTED = {
    "topics": [1, 2, 4], "attributes": [1, 2, 6], "examples": [1, 2, 4], "taboo": [1, 2, 4],
    "base_then_refine": [2, 2, 2], "combined": [1, 1, 4, 4], "sampling": [1, 8, 1],
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(WANTED))
def test_prompts_of_a_label_differ_by_what_the_dial_varies(llm, train, name):
    counted = []
    for level in make_dial(name, MADE[name]).levels:
        sweep(llm, train, name, levels=[level.name], blocks=(0,))
        mine = [body for body in llm.bodies if "alpha" in asked_for(body) or name == "base_then_refine"]
        counted.append(len({varied(name, body) for body in mine}))
    assert counted == WANTED[name]


# --- taboo ----------------------------------------------------------------------------------------
def test_forbidden_words_are_typical_of_earlier_rounds_and_do_not_come_back(llm, train):
    pools = {p.level.name: p for p in sweep(llm, train, "taboo", blocks=(0,))}
    later = [body["prompt"] for body in llm.bodies if "without the words" in body["prompt"]]
    counts = {len(re.findall(r"without the words (.*):", prompt)[0].split(", ")) for prompt in later}
    assert counts == {4, 8, 12}
    first = " ".join(pools["1"].corpus.texts[:2] + pools["1"].corpus.texts[8:10])
    for prompt in later:
        words = re.findall(r"without the words (.*):", prompt)[0].split(", ")
        assert set(words[:4]) <= set(first.split())
    assert all(r.reason != "uses a word to avoid" for r in pools["4"].rejected)


def test_answers_with_a_forbidden_word_are_asked_for_again(llm, train):
    def stubborn(body):
        return author({**body, "prompt": body["prompt"].replace("without", "with")})

    (pool,) = sweep(llm, train, "taboo", levels=["2"], blocks=(0,), text=stubborn, attempts=60)
    assert sum(r.reason == "uses a word to avoid" for r in pool.rejected) > 3
    assert pool.short == 0


def test_the_words_of_label_topic_and_attributes_are_never_forbidden(llm, train):
    def plain(body):
        return f"alpha beta theme tennis {LEXICON[body['seed'] % 900]} {LEXICON[body['seed'] % 700]}"

    topics = {label: ["tennis", "theme"] for label in LABELS}
    first = {"name": "topics", "levels": [2], "topics": topics}
    made = {"first": first, "second": {"name": "taboo", "levels": [2], "read": 2, "words": 9}}
    (pool,) = sweep(llm, train, "combined", made=made, blocks=(0,), text=plain, attempts=2)
    assert pool.short == 8  # the second round cannot do without the words of the first
    later = [body["prompt"] for body in llm.bodies if "without the words" in body["prompt"]]
    for prompt in later:
        label, topic = re.findall(r"More (\w+) texts, all about (\w+), without", prompt)[0]
        words = re.findall(r"without the words (.*):", prompt)[0].split(", ")
        assert label not in words
        assert topic not in words
        assert {"tennis", "theme"} - {topic} <= set(words)
    assert len(later) == 16


# --- base then refine -----------------------------------------------------------------------------
def test_drafts_are_hot_completions_and_refinements_keep_their_words(llm, train):
    (pool,) = sweep(llm, train, "base_then_refine", levels=["2"], endpoint={"api": "chat"}, blocks=(0,))
    drafts = [body for body in llm.bodies if "prompt" in body]
    refined = [body for body in llm.bodies if "messages" in body]
    assert {body["temperature"] for body in drafts} == {2.0}
    assert {body["temperature"] for body in refined} == {0.5}
    assert {body["messages"][0]["role"] for body in refined} == {"system"}
    written = {author(body) for body in drafts}
    shown = {body["messages"][-1]["content"].splitlines()[-1] for body in refined}
    assert shown <= {one_mind(body) for body in drafts} | written
    assert all(text.endswith(" edited") for text in pool.corpus.texts)
    assert {r.reason for r in pool.rejected} == {"a draft"}
    assert len(pool.corpus) + len(pool.rejected) == len(llm.bodies) == 32


def test_a_refused_refinement_begins_with_another_draft(llm, train):
    def sometimes(body):
        made = one_mind(body)
        return "Sure, I can do that" if made.endswith("edited") and body["seed"] % 3 else made

    (pool,) = sweep(llm, train, "base_then_refine", levels=["1"], blocks=(0,), text=sometimes, attempts=40)
    assert pool.short == 0
    reasons = [r.reason for r in pool.rejected]
    drafts = [body["prompt"] for body in llm.bodies if not body["prompt"].endswith("Edited:")]
    edited = [body["prompt"] for body in llm.bodies if body["prompt"].endswith("Edited:")]
    assert reasons.count("chatter") > 4
    assert reasons.count("a draft") == len(drafts) == len(edited) == 16 + reasons.count("chatter")
    assert len({prompt.splitlines()[-2] for prompt in edited}) > 16


def test_drafts_that_copy_a_training_row_are_not_refined(llm, train):
    def copying(body):
        text = asked_for(body)
        return one_mind(body) if "Edited:" in text or body["seed"] % 2 else train.texts[body["seed"] % 16]

    (pool,) = sweep(llm, train, "base_then_refine", levels=["1"], blocks=(0,), text=copying, attempts=40)
    copies = [r for r in pool.rejected if r.reason in {"copy of a training row", "copy of the prompt"}]
    assert len(copies) > 4
    assert not any("real" in text for text in pool.corpus.texts)


def test_pools_of_drafts_are_short_when_the_answers_are_used_up(llm, train):
    def only_drafts(body):
        return "" if "Edited:" in asked_for(body) and body["seed"] % 4 else one_mind(body)

    (pool,) = sweep(llm, train, "base_then_refine", levels=["1"], text=only_drafts, attempts=2)
    assert 0 < pool.short < 32
    assert len(llm.bodies) <= 32 * 4


def test_provenance_of_a_refined_row_is_its_refinement(llm, train):
    (pool,) = sweep(llm, train, "base_then_refine", levels=["2"])
    assert {(row["temperature"], row["attempts"] % 2) for row in pool.provenance.to_pylist()} == {(0.5, 0)}


# --- examples -------------------------------------------------------------------------------------
def test_rows_carry_the_examples_of_their_level(llm, train):
    for pool in sweep(llm, train, "examples"):
        for label in LABELS:
            for block in (0, 1):
                mine = [r for r in rows(pool) if r["target"] == label and r["block"] == block]
                assert len({id_ for r in mine for id_ in r["seed_ids"]}) == int(pool.level.name)
                assert {len(r["seed_ids"]) for r in mine} == {2}
    other = sweep(llm, train, "examples", levels=["2"])[0]
    sets = {frozenset(r["seed_ids"]) for r in rows(other)}
    assert len(sets) > 2


def test_too_few_seed_examples_are_refused_before_anything_is_sent(llm, train):
    with pytest.raises(ConfigError, match=r"9 seed examples are wanted of label 'alpha', it has 8 training rows"):
        sweep(llm, train, "examples", made={"levels": [2, 9]}, rows_per_label=12)
    assert llm.bodies == []


# --- sampling -------------------------------------------------------------------------------------
def test_what_a_level_sets_reaches_the_request_and_the_rest_is_the_studys(llm, train):
    made = {"levels": [{"min_p": 0.05}, {"top_p": [0.5, 0.9], "min_p": 0.1}]}
    sweep(llm, train, "sampling", made=made, levels=["min_p 0.05"], sampling=Sampling(temperature=0.3, top_p=0.8))
    assert {(b["temperature"], b["top_p"], b["min_p"]) for b in llm.bodies} == {(0.3, 0.8, 0.05)}
    sweep(llm, train, "sampling", made=made, levels=["top_p 0.5-0.9, min_p 0.1"])
    assert len({b["top_p"] for b in llm.bodies}) > 20
    assert {(b["temperature"], b["min_p"]) for b in llm.bodies} == {(0.5, 0.1)}
