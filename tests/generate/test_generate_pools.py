import asyncio
import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from aiohttp import web

from asking import generate_pools
from cuvee.corpus import normalise_text
from cuvee.errors import ConfigError, EndpointUnreachable, GenerationError, ModelNotFound
from cuvee.generate.calls import Failure, Sampling, request_json, request_key
from cuvee.generate.client import LLMClient, OpenedLLM
from cuvee.generate.dials import BaseThenRefineDial, CombinedDial, ParaphraseDial, SamplingDial, TabooDial, TopicsDial
from cuvee.generate.filling import AcceptanceFilter, AcceptanceRules, Filling, fill_slots
from cuvee.generate.ledger import Ledger
from cuvee.generate.pools import generate_corpus
from cuvee.generate.prompts import PromptWriter, WritingSpec
from local_llm import write_text

TOPICS = {label: [f"{label} topic {j}" for j in range(4)] for label in ("alpha", "beta")}


def topics(*levels):
    return TopicsDial(levels=levels, topics=TOPICS)


def generate(llm, train, dial, ledger=None, *, endpoint=None, **settings):
    given = {
        "blocks": (0, 1), "rows_per_label": 8, "sampling": Sampling(), "describe": "texts", "seed": 1,
        "endpoint": llm.endpoint(**(endpoint or {})), **settings,
    }  # fmt: skip
    with Ledger() if ledger is None else ledger as kept:
        return generate_pools(train, dial=dial, ledger=kept, **given)


def rows(pool):
    return pool.corpus.table.drop_columns(["level"]).to_pylist()


def few_words(body):
    """Answers that often collide."""
    return write_text(body, words=2, vocabulary=7)


def paraphrase(body):
    """A rewriting shares the first word of its source; some are copies, some are of another row."""
    prompt = body["prompt"]
    if not prompt.endswith("Rewritten:"):
        return write_text(body)
    source = prompt.rsplit("Original: ", 1)[1].split("\n")[0]
    made = write_text(body, words=4)
    return [f"{source.upper()}!", made, f"{source} again {made}", f"{source} once more {made}"][body["seed"] % 4]


def nearest_by_shared_words(queries, candidates):
    sets = [set(normalise_text(c).split()) for c in candidates]
    return [int(np.argmax([len(set(normalise_text(q).split()) & s) for s in sets])) for q in queries]


def test_pool_of_each_level_has_its_rows_and_columns(llm, train):
    pools = generate(llm, train, topics(1, 2, 4))
    assert [p.level.name for p in pools] == ["1", "2", "4"]
    for pool in pools:
        corpus = pool.corpus
        assert Counter(zip(corpus.targets, corpus.blocks.tolist(), strict=True)) == {
            (label, block): 8 for label in ("alpha", "beta") for block in (0, 1)
        }
        assert (pool.short, pool.note, corpus.origins) == (0, "", ["synthetic"] * 32)
        places = list(zip(corpus.blocks.tolist(), corpus.targets, strict=True))
        assert places == sorted(places)
        for row in corpus.table.to_pylist():
            assert (row["dial"], row["level"], row["generator"]) == ("topics", pool.level.name, "tiny")
            assert {train.targets[train.ids.index(i)] for i in row["seed_ids"]} == {row["target"]}
            assert row["id"].startswith("topics-")
        for block in (0, 1):
            normal = [normalise_text(t) for t, b in zip(corpus.texts, corpus.blocks, strict=True) if b == block]
            assert len(set(normal)) == len(normal)


def test_levels_share_rows_and_each_is_paid_for_once(llm, train):
    one, two, four = generate(llm, train, topics(1, 2, 4))
    shared = set(one.corpus.ids) & set(two.corpus.ids)
    assert len(shared) == 2 * 2 * 4  # topic 0 of level 2
    by_id = {r["id"]: r for r in rows(one)}
    assert all(by_id[r["id"]] == r for r in rows(two) if r["id"] in shared)
    assert len(set(four.corpus.ids) & set(two.corpus.ids)) == 2 * 2 * (2 + 2)
    assert len(llm.bodies) == len(set(one.corpus.ids) | set(two.corpus.ids) | set(four.corpus.ids))
    assert (len(one.corpus), one.rejected) == (32, ())


@pytest.mark.parametrize("text", [few_words, paraphrase])
def test_pools_depend_on_the_answers_and_not_on_their_timing(llm, train, text):
    llm.text = text
    dial = ParaphraseDial(levels=[0, 1, 3]) if text is paraphrase else topics(1, 2, 4)
    settings = {"nearest": nearest_by_shared_words}
    first = generate(llm, train, dial, **settings)
    second = generate(llm, train, dial, endpoint={"concurrency": 1}, **settings)
    for a, b in zip(first, second, strict=True):
        assert a.corpus.table.equals(b.corpus.table)
        assert a.rejected == b.rejected
    assert sum(len(p.rejected) for p in first) > 0


def test_a_run_that_was_stopped_ends_with_the_same_rows_and_asks_nothing_twice(llm, train, tmp_path):
    llm.text = few_words
    whole = generate(llm, train, topics(1, 2))
    asked = len(llm.bodies)
    llm.bodies.clear()

    def break_down_at(stop_at):
        async def script(number, _request, _body):
            return web.Response(status=503) if number >= stop_at else None

        return script

    for stop_at in (5, 21, asked - 3):
        llm.script = break_down_at(stop_at)
        with pytest.raises(EndpointUnreachable):
            generate(llm, train, topics(1, 2), Ledger(tmp_path / "l.sqlite"), endpoint={"give_up_s": 0.1})
    llm.script = None
    again = generate(llm, train, topics(1, 2), Ledger(tmp_path / "l.sqlite"))
    assert [p.corpus.table for p in again] == [p.corpus.table for p in whole]
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert ledger.totals().requests == asked
    llm.bodies.clear()
    assert generate(llm, train, topics(1, 2), Ledger(tmp_path / "l.sqlite")) and not llm.bodies


@pytest.mark.parametrize(
    ("small", "large", "text"),
    [
        (topics(2), topics(1, 2, 4), few_words),
        (ParaphraseDial(levels=[1]), ParaphraseDial(levels=[0, 1, 3]), paraphrase),
        (SamplingDial(levels=[0.7]), SamplingDial(levels=[0.2, 0.7, 1.4]), few_words),
    ],
    ids=["topics", "paraphrase", "sampling"],
)
def test_adding_levels_or_blocks_changes_no_row(llm, train, small, large, text):
    llm.text = text
    settings = {"nearest": nearest_by_shared_words}
    (before,) = generate(llm, train, small, blocks=(0,), **settings)
    after = {p.level.name: p for p in generate(llm, train, large, blocks=(0, 1, 2), **settings)}
    extended = after[before.level.name]
    assert rows(before) == [r for r in rows(extended) if r["block"] == 0]


def test_rejected_answers_are_counted_with_their_reasons_and_asked_again(llm, train):
    def odd(body):
        return ["", "Word", f"Sure, here it is {body['seed']}", train.texts[0], f"fine text {body['seed']}"][
            body["seed"] % 5
        ]

    llm.text = odd
    (pool,) = generate(llm, train, SamplingDial(levels=[1.0]), attempts=30)
    assert pool.short == 0
    counted = Counter(r.reason for r in pool.rejected)
    assert set(counted) == {"empty", "too short", "chatter", "copy of a training row", "copy of the prompt"}
    assert len(pool.rejected) == len(llm.bodies) - 32
    assert "rejected: " in str(pool)
    keys = Counter(r.slot for r in pool.rejected)
    assert keys.most_common(1)[0][1] > 1


def test_slots_that_stay_unfilled_are_short_and_noted(llm, train):
    llm.text = few_words  # 49 texts at most
    (pool,) = generate(llm, train, SamplingDial(levels=[1.0]), rows_per_label=30, blocks=(0,), attempts=3)
    assert pool.short == 60 - len(pool.corpus) > 11
    assert pool.note == f"{pool.short} of 60 rows could not be filled"
    assert Counter(r.reason for r in pool.rejected)["duplicate"] > pool.short


def test_a_label_without_any_row_is_an_error_that_says_why(llm, train):
    llm.finish_reason = "length"
    with pytest.raises(
        GenerationError, match=r"topics=1: no usable row for label 'alpha' in block 0; 48 of 48 .*truncated"
    ):
        generate(llm, train, topics(1))


def test_paraphrases_replace_base_rows_carry_their_group_and_pass_the_tests(llm, train):
    llm.text = paraphrase
    plain, one, three = reversed(
        generate(llm, train, ParaphraseDial(levels=[0, 1, 3]), nearest=nearest_by_shared_words, attempts=12)
    )
    assert (plain.level.name, plain.note, plain.short) == ("0", "", 0)
    assert plain.corpus.table["group"].null_count == 32
    base = {r["id"]: r for r in rows(plain)}
    reasons = Counter(r.reason for r in three.rejected)
    assert reasons["copy of its source"] > 0
    assert reasons["another row is nearer than its source"] > 0
    for m, pool in ((1, one), (3, three)):
        assert len(pool.corpus) == 32
        assert f"m_r realised: {2 * m} of {2 * m} rows a label and block" in pool.note
        made = [r for r in rows(pool) if r["id"] not in base]
        assert len(made) == 2 * m * 4
        for row in made:
            source = base[row["group"]]
            assert (source["target"], source["block"]) == (row["target"], row["block"])
            assert row["text"].startswith(source["text"])
            assert row["seed_ids"] == source["seed_ids"]
        sources = {r["group"] for r in made}
        assert len(sources) == 2 * 4
        assert {r["id"] for r in rows(pool) if r["group"] == r["id"]} == sources
    assert {r["id"] for r in rows(one) if r["id"] not in base} < {r["id"] for r in rows(three)}


def test_base_rows_stay_where_no_paraphrase_can_be_made(llm, train):
    def copy(body):
        prompt = body["prompt"]
        return (
            prompt.rsplit("Original: ", 1)[1].split("\n")[0] if prompt.endswith("Rewritten:") else f"row {body['seed']}"
        )

    llm.text = copy
    plain, three = reversed(generate(llm, train, ParaphraseDial(levels=[0, 3]), nearest=nearest_by_shared_words))
    assert [r["text"] for r in rows(three)] == [r["text"] for r in rows(plain)]
    assert three.short == 0
    assert "m_r realised: 0 of 6 rows" in three.note
    assert "the base row is kept" in three.note


def test_without_nearest_the_note_says_so(llm, train):
    llm.text = paraphrase
    (pool,) = generate(llm, train, ParaphraseDial(levels=[1]))
    assert "not tested for being nearest" in pool.note


def test_temperature_is_the_dials_where_it_has_one_and_else_the_samplings(llm, train):
    generate(llm, train, SamplingDial(levels=[0.2, 1.4]), sampling=Sampling(temperature=0.5))
    assert {b["temperature"] for b in llm.bodies} == {0.2, 1.4}
    llm.bodies.clear()
    generate(llm, train, topics(1), sampling=Sampling(temperature=0.5, top_p=0.8, max_tokens=11))
    assert {(b["temperature"], b["top_p"], b["max_tokens"]) for b in llm.bodies} == {(0.5, 0.8, 11)}


@pytest.mark.parametrize("change", [{"seed": 2}, {"describe": "tweets"}, {"sampling": Sampling(temperature=0.3)}])
def test_each_setting_changes_the_rows(llm, train, change):
    (before,) = generate(llm, train, topics(2))
    (after,) = generate(llm, train, topics(2), **change)
    assert before.corpus.texts != after.corpus.texts


def test_chat_endpoints_work_too(llm, train):
    pools = generate(llm, train, ParaphraseDial(levels=[0, 1]), endpoint={"api": "chat"})
    assert all(p.short == 0 for p in pools)
    assert all("messages" in b for b in llm.bodies)


def test_requests_with_a_common_prefix_are_neighbours(llm, train):
    generate(llm, train, topics(1, 2), endpoint={"concurrency": 1})
    prompts = [b["prompt"] for b in llm.bodies]
    runs = 1 + sum(a != b for a, b in pairwise(prompts))
    assert runs == len(set(prompts)) < len(prompts)


def test_progress_tells_the_filled_slots(llm, train):
    llm.text = few_words
    told = []
    pools = generate(llm, train, topics(1, 2), progress=lambda done, total: told.append((done, total)))
    total = len(set(pools[0].corpus.ids) | set(pools[1].corpus.ids))
    done = [d for d, _ in told]
    assert done[0] == 0 and all(one != two for one, two in pairwise(done))
    assert len(done) > 10
    assert {t for _, t in told} == {2 * 2 * (8 + 4)}
    assert done[-1] <= told[0][1]
    assert total <= 60


def test_levels_can_be_chosen_and_unknown_ones_are_named(llm, train):
    assert [p.level.name for p in generate(llm, train, topics(1, 2, 4), levels=["4", "1"])] == ["1", "4"]
    with pytest.raises(ConfigError, match="dial 'topics' has no level '3'; valid: 1, 2, 4"):
        generate(llm, train, topics(1, 2, 4), levels=["3"])


def test_wrong_arguments_are_named(llm, train):
    with pytest.raises(ValueError, match="rows_per_label 0; must be 1 or more"):
        generate(llm, train, topics(1), rows_per_label=0)


def test_generate_corpus_gives_one_pool_without_a_ledger(llm, train):
    pool = generate_corpus(train, dial=topics(1, 2), level="2", rows_per_label=4, endpoint=llm.endpoint())
    assert pool.level.key == "topics=2"
    assert len(pool.corpus) == 8


def test_row_ids_follow_the_text(llm, train):
    (one,) = generate(llm, train, topics(1))
    llm.text = lambda body: f"other words {body['seed']}"
    (two,) = generate(llm, train, topics(1))
    assert not set(one.corpus.ids) & set(two.corpus.ids)


def test_endpoint_settings_that_do_not_matter_do_not_change_rows(llm, train):
    endpoint = llm.endpoint(concurrency=3, timeout_s=2.0)
    (one,) = generate(llm, train, topics(1), endpoint={})
    with Ledger() as ledger:
        (two,) = generate_pools(
            train, dial=topics(1), blocks=(0, 1), rows_per_label=8, endpoint=replace(endpoint, api_key="x"),
            ledger=ledger, sampling=Sampling(), describe="texts", seed=1,
        )  # fmt: skip
    assert one.corpus.table.equals(two.corpus.table)


def test_generation_works_inside_a_running_loop(llm, train):
    async def notebook():
        return generate(llm, train, topics(1))

    assert asyncio.run(notebook())[0].short == 0


WAITING = {
    "rounds": (topics(1, 4), few_words, {}),
    "paraphrases": (ParaphraseDial(levels=[0, 2], sources=2), paraphrase, {"nearest": nearest_by_shared_words}),
    "drafts": (BaseThenRefineDial(levels=[0.5, 1.0]), few_words, {}),
    "words to avoid": (TabooDial(levels=[1, 3], read=2), few_words, {}),
}


@pytest.mark.parametrize(
    ("case", "every"), [("rounds", 1000), ("words to avoid", 1000), ("paraphrases", 10), ("drafts", 10)]
)
def test_what_does_not_depend_on_a_request_goes_on_while_it_waits_and_rows_stay_the_same(llm, train, case, every):
    """Later rounds, levels and draws do not wait for a Retry-After; words to avoid are those of all rows before."""
    dial, llm.text, settings = WAITING[case]
    arrivals, waiting = [], set()

    async def limit(_number, _request, body):
        arrivals.append(json.dumps(body, sort_keys=True))
        if arrivals[-1] in waiting and arrivals.count(arrivals[-1]) == 1:
            after = {"Retry-After": "1" if every > 10 else "0.2"}
            return web.json_response({"error": "slow down"}, status=429, headers=after)
        return None

    llm.script = limit
    clean, asked = generate(llm, train, dial, **settings), list(arrivals)
    waiting.update(asked[::every])
    arrivals.clear()
    pools = generate(llm, train, dial, **settings)
    assert [replace(pool, corpus=None) for pool in pools] == [replace(pool, corpus=None) for pool in clean]
    assert all(one.corpus.table.equals(other.corpus.table) for one, other in zip(pools, clean, strict=True))
    assert set(asked) <= set(arrivals)
    assert len(arrivals) <= len(asked) + len(waiting) + len(asked) // 20  # what was asked ahead was wanted
    if every > 10:
        late = len(arrivals) - 1 - arrivals.index(asked[0], arrivals.index(asked[0]) + 1)
        assert late <= 6  # its own next attempts, and what avoids the words of its row


class PickyClient(LLMClient):
    """Asks what it is asked, but for requests with an odd seed: those fail for good."""

    def answer_requests(self, requests, on_answer=None, _more=None):
        good = [r for r in requests if r.seed % 2 == 0]
        answers = dict(zip(good, super().answer_requests(good, on_answer), strict=True))
        failure = Failure(reason="HTTP 400", message="odd", tries=3)
        for request in requests:
            if request not in answers:
                key = request_key(self._endpoint, request)
                self._ledger.record_failure(key, request_json(self._endpoint, request), failure)
        return [answers.get(request, failure) for request in requests]


def test_failures_that_a_client_journals_close_their_slots(llm, train):
    llm.text = few_words
    slots = topics(2).slots("2", train.labels, 0, 8)
    writer = PromptWriter(train, WritingSpec(describe="texts", seed=1), "completions")

    judge = AcceptanceFilter(train=train, writer=writer, rules=AcceptanceRules(attempts=4))

    def fill(ledger, open_client):
        filling = Filling(slots, judge)
        opened = OpenedLLM(endpoint=llm.endpoint(), open_client=open_client)
        fill_slots([filling], opened, ledger, total=len(slots))
        return filling

    with Ledger() as ledger:
        filling = fill(ledger, PickyClient)
        assert 3 < len(filling.failed) < 13
        assert set(filling.failed) | set(filling.rows) == {slot.key for slot in slots}
        assert not set(filling.failed) & set(filling.rows)
        assert all(question.request.seed % 2 for question, _ in filling.failed.values())
        assert all(len(filling.attempts[key]) == q.request.replicate for key, (q, _) in filling.failed.items())
        assert len(ledger.failures()) == len(filling.failed)
        assert set(ledger.failures().values()) == {Failure(reason="HTTP 400", message="odd", tries=3)}
        sent = len(llm.bodies)
        again = fill(ledger, LLMClient)  # it would answer all, but the ledger knows better
        assert len(llm.bodies) == sent
        assert (again.rows, again.failed, again.attempts) == (filling.rows, filling.failed, filling.attempts)
        ledger.forget_failures()
        assert len(fill(ledger, LLMClient).failed) == 0
        assert len(llm.bodies) > sent


def test_refined_rows_name_their_drafts(llm, train):
    llm.text = lambda body: write_text(body, words=4)
    dial = BaseThenRefineDial(levels=[1.4])
    with Ledger() as ledger:
        (pool,) = generate_pools(
            train, dial=dial, blocks=(0,), rows_per_label=4, endpoint=llm.endpoint(), ledger=ledger,
            sampling=Sampling(temperature=0.3, min_p=0.1), seed=1,
        )  # fmt: skip
        for row in pool.provenance.to_pylist():
            assert (row["temperature"], row["min_p"], row["top_k"], row["attempts"]) == (0.3, 0.1, None, 2)
            draft = ledger.lookup(row["draft_key"]).text
            assert draft in next(b["prompt"] for b in llm.bodies if b["seed"] == row["seed"])
    assert [row.reason for row in pool.rejected] == ["a draft"] * 8


def test_another_model_at_the_endpoint_drafts_and_changing_it_sends_drafts_and_what_hangs_on_them(llm, train, tmp_path):
    llm.models = ["tiny", "base", "larger"]
    llm.text = lambda body: f"{body['model']} {body['seed']} written down in words"

    def draft_by(model, dial=None):
        dial = dial or BaseThenRefineDial(levels=[0.9], draft_model=model)
        llm.bodies.clear()
        with Ledger(tmp_path / "l.sqlite") as ledger:
            pool = generate_pools(
                train, dial=dial, blocks=(0,), rows_per_label=4, endpoint=llm.endpoint(), ledger=ledger,
                sampling=Sampling(temperature=0.3), seed=1,
            )[0]  # fmt: skip
        return pool, Counter((body["model"], body["temperature"]) for body in llm.bodies)

    pool, sent = draft_by("base")
    assert sent == {("base", 0.9): 8, ("tiny", 0.3): 8}
    assert {(r["model"], r["draft_model"]) for r in pool.provenance.to_pylist()} == {("tiny", "base")}
    assert set(pool.corpus.table["generator"].to_pylist()) == {"tiny"}
    assert draft_by("base")[1] == {}
    assert draft_by("larger")[1] == {("larger", 0.9): 8, ("tiny", 0.3): 8}
    assert draft_by(None)[1] == {("tiny", 0.9): 8, ("tiny", 0.3): 8}
    parts = SamplingDial(levels=[0.4]), BaseThenRefineDial(levels=[0.9], draft_model="base")
    assert {model for model, _ in draft_by("", CombinedDial(*parts))[1]} == {"base", "tiny"}
    with pytest.raises(ModelNotFound, match="does not serve model 'gone'; it serves: tiny, base, larger"):
        llm.script = refuse_model
        draft_by("gone")


async def refuse_model(_number, _request, body):
    known = body["model"] in ("tiny", "base", "larger")
    return None if known else web.json_response({"error": {"message": "no such model"}}, status=404)


def test_an_llm_in_this_process_has_one_model(llm, train):
    dial = BaseThenRefineDial(levels=[0.9], draft_model="base")
    with Ledger() as ledger, pytest.raises(ConfigError, match=r"draft_model .* needs an endpoint that serves it"):
        generate_pools(
            train, dial=dial, blocks=(0,), rows_per_label=4, endpoint=llm.endpoint(identity="gguf:abc"), ledger=ledger,
            sampling=Sampling(), seed=1,
        )  # fmt: skip
    assert not llm.bodies
