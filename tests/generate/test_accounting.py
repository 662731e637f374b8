import hashlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asking import generate_pools
from cuvee.corpus import load_corpus
from cuvee.errors import GenerationError, InputError
from cuvee.generate.calls import Failure, Sampling
from cuvee.generate.dials import BaseThenRefineDial, ParaphraseDial, SamplingDial, TabooDial, TopicsDial
from cuvee.generate.ledger import Ledger
from cuvee.generate.pools import write_quarantine
from cuvee.records.generation import Quarantined
from local_llm import write_text

TOPICS = {label: [f"{label} topic {j}" for j in range(4)] for label in ("alpha", "beta")}


def make_dial(name):
    return {
        "topics": lambda: TopicsDial(levels=[1, 2], topics=TOPICS),
        "paraphrase": lambda: ParaphraseDial(levels=[0, 1, 2], sources=2),
        "sampling": lambda: SamplingDial(levels=[0.5, 1.0]),
        "taboo": lambda: TabooDial(levels=[1, 3], read=2),
        "refine": lambda: BaseThenRefineDial(levels=[0.5, 1.0]),
    }[name]()


def generate(llm, train, ledger, dial, **given):
    return generate_pools(
        train, dial=dial, ledger=ledger, endpoint=llm.endpoint(concurrency=16),
        **{"blocks": (0,), "rows_per_label": 6, "sampling": Sampling(), "describe": "texts", "seed": 1,
           "attempts": 3, **given},
    )  # fmt: skip


def unlucky(salt, percent):
    """Whether a text is among ``percent`` of all texts, another choice for each salt."""
    return lambda text: hashlib.sha256(f"{salt}{text}".encode()).digest()[0] * 100 < percent * 256


def faulty(salt, percent):
    """A writer whose answers are of no use in ``percent`` of cases: empty, too short, chatter, always the same."""
    strikes = unlucky(salt, percent)
    bad = ("", "word", "Sure, here it is", "the same text again")
    return lambda body: bad[body["seed"] % len(bad)] if strikes(body["seed"]) else write_text(body)


def fill_failures(llm, train, ledger, dial, salt, percent):
    """Journal failures of some of the requests that a run would send: what an earlier run would have left."""
    strikes = unlucky(salt, percent)
    for _ in range(2):  # the second pass meets what is asked only because others failed
        with Ledger() as scout:
            for key, failure in ledger.failures().items():
                scout.record_failure(key, "{}", failure)
            try:
                pools = generate(llm, train, scout, dial)
            except GenerationError:
                return
        keys = {row.request_key for p in pools for row in p.quarantine} - {""}
        keys |= {key for p in pools for key in p.provenance["request_key"].to_pylist()}
        for key in sorted(keys - ledger.failures().keys()):
            if strikes(key):
                kind = "HTTP 400" if strikes(key + "kind") else "keeps failing"
                ledger.record_failure(key, "{}", Failure(reason=kind, message="too odd", tries=2))


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["topics", "paraphrase", "sampling", "taboo", "refine"]),
    salt=st.integers(0, 1000),
    faults=st.sampled_from([0, 20, 60]),
    failures=st.sampled_from([0, 5, 30]),
)
def test_every_slot_and_every_answer_is_accounted_for(llm, train, name, salt, faults, failures):
    llm.text = faulty(salt, faults)
    dial = make_dial(name)
    with Ledger() as ledger:
        if failures:
            fill_failures(llm, train, ledger, dial, salt, failures)
        failed_before = ledger.failures()
        llm.bodies.clear()
        try:
            pools = generate(llm, train, ledger, dial)
        except GenerationError as exc:
            assert "no usable row" in str(exc)
            return
        asked = len(llm.bodies)
        assert asked == ledger.totals().requests
        for pool in pools:
            assert pool.requested == 12 == len(pool.corpus) + pool.short
            came = [q for q in pool.quarantine if not q.failed and q.request_key]
            assert {q.request_key for q in came}.isdisjoint(failed_before)
            for q in came:
                assert ledger.lookup(q.request_key).text == q.text
            lost = [q for q in pool.quarantine if q.request_key in failed_before]
            assert all(q.text == "" and failed_before[q.request_key].reason in q.reason for q in lost)
            assert lost == [q for q in pool.quarantine if q.failed]
            without = {q.slot for q in pool.quarantine} - set(pool.provenance["slot"].to_pylist())
            assert len(without) >= pool.short
            assert len({(q.slot, q.attempt) for q in pool.quarantine}) == len(pool.quarantine)
            traced = pool.provenance
            assert traced["id"].to_pylist() == pool.corpus.ids
            assert sum(traced["attempts"].to_pylist()) <= len(pool.corpus) + len(came)
        received = [len(p.corpus) + sum(not q.failed and q.request_key != "" for q in p.quarantine) for p in pools]
        assert sum(received) == asked if name == "sampling" else max(received) <= asked


def test_a_slot_whose_request_failed_is_failed_noted_and_asked_again_once_forgotten(llm, train):
    dial = make_dial("topics")
    with Ledger() as ledger:
        (whole, _) = generate(llm, train, ledger, dial)
    row = whole.provenance.to_pylist()[0]
    with Ledger() as ledger:
        ledger.record_failure(row["request_key"], "{}", Failure(reason="HTTP 400", message="content filter"))
        (short, two) = generate(llm, train, ledger, dial)
        assert (short.requested, short.short, short.rejected) == (12, 1, ())
        assert short.note == (
            "1 of 12 rows could not be filled; 1 request failed for good (1 HTTP 400); "
            "retry failed requests to ask again"
        )
        failed = Quarantined(
            slot=row["slot"],
            reason="HTTP 400: content filter",
            attempt=0,
            text="",
            request_key=row["request_key"],
            failed=True,
        )
        assert short.quarantine == (failed,)
        assert two.short == 1 and [q.failed for q in two.quarantine] == [True]  # level 2 shares the slot
        assert [
            t for i, t in zip(whole.corpus.ids, whole.corpus.texts, strict=True) if i != row["id"]
        ] == short.corpus.texts
        assert generate(llm, train, ledger, dial)[0].corpus.table.equals(short.corpus.table)
        llm.bodies.clear()
        assert ledger.forget_failures() == 1
        again = generate(llm, train, ledger, dial)[0]
        assert len(llm.bodies) == 1
        assert again.corpus.table.equals(whole.corpus.table)
        assert again.quarantine == ()


def test_when_all_requests_of_a_label_failed_the_error_says_what_the_endpoint_said(llm, train):
    dial = SamplingDial(levels=[1.0])
    with Ledger() as ledger:
        (pool,) = generate(llm, train, ledger, dial)
    with Ledger() as ledger:
        for row in pool.provenance.to_pylist():
            if row["slot"].startswith("beta"):
                ledger.record_failure(row["request_key"], "{}", Failure(reason="HTTP 400", message="bad words"))
        with pytest.raises(
            GenerationError, match=r"label 'beta' in block 0; 6 requests failed for good \(6 HTTP 400\); .*: bad words"
        ):
            generate(llm, train, ledger, dial)


def test_a_paraphrase_whose_source_failed_counts_as_failed_unless_the_base_row_stands_in(llm, train):
    dial = ParaphraseDial(levels=[0, 2], sources=2)
    with Ledger() as ledger:
        three, plain = generate(llm, train, ledger, dial)
        source = next(p for p in plain.provenance.to_pylist() if p["slot"] == "alpha/0/0")
    with Ledger() as ledger:
        ledger.record_failure(source["request_key"], "{}", Failure(reason="HTTP 400"))
        pool, _ = generate(llm, train, ledger, dial)
    assert (three.short, pool.short, sum(q.failed for q in pool.quarantine)) == (0, 1, 1)
    left = [q for q in pool.quarantine if q.reason == "its source has no row"]
    assert {(q.slot, q.request_key, q.text) for q in left} == {("alpha/0/0/p0", "", ""), ("alpha/0/0/p1", "", "")}


def test_quarantine_file_holds_the_raw_answers(llm, train, tmp_path):
    llm.text = lambda body: f'Sure, here is "☃ {body["seed"]}"' if body["seed"] % 3 == 0 else write_text(body)
    with Ledger() as ledger:
        pools = generate(llm, train, ledger, make_dial("sampling"), attempts=8)
        path = tmp_path / "quarantine.jsonl"
        assert write_quarantine(pools, path) == sum(len(p.quarantine) for p in pools) > 0
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert "☃" in path.read_text(encoding="utf-8")
        for line in lines:
            assert list(line) == ["dial", "level", "slot", "reason", "attempt", "text", "request_key"]
            assert (line["dial"], line["reason"]) == ("sampling", "chatter")
            assert line["text"].startswith('Sure, here is "☃')
            assert ledger.lookup(line["request_key"]).text == line["text"]
    with pytest.raises(InputError, match="cannot be written"):
        write_quarantine(pools, tmp_path)


def test_provenance_names_the_request_behind_each_row(llm, train):
    llm.text = faulty(3, 40)
    settings = Sampling(top_p=0.9, max_tokens=20)
    with Ledger() as ledger:
        for pool in generate(llm, train, ledger, make_dial("sampling"), sampling=settings, attempts=9):
            table = pool.provenance
            assert table.column_names[:5] == ["id", "slot", "request_key", "model", "temperature"]
            assert set(table["temperature"].to_pylist()) == {float(pool.level.name)}
            assert (set(table["top_p"].to_pylist()), set(table["max_tokens"].to_pylist())) == ({0.9}, {20})
            assert set(table["model"].to_pylist()) == {"tiny"}
            assert len(set(table["prompt_hash"].to_pylist())) == 1
            for made, text in zip(table.to_pylist(), pool.corpus.texts, strict=True):
                assert ledger.lookup(made["request_key"]).text == text
                assert made["attempts"] == made["replicate"] + 1
            assert max(table["attempts"].to_pylist()) > 1


def test_prompt_hash_follows_the_wording_and_not_the_examples(llm, train):
    def hashes(dial, **given):
        with Ledger() as ledger:
            pools = generate(llm, train, ledger, dial, **given)
        return [set(pool.provenance["prompt_hash"].to_pylist()) for pool in pools]

    (plain,) = hashes(SamplingDial(levels=[1.0]))
    assert len(plain) == 1
    assert hashes(SamplingDial(levels=[1.0]), seed=5, sampling=Sampling(temperature=0.2)) == [plain]
    assert not plain & hashes(SamplingDial(levels=[1.0]), describe="tweets")[0]
    one, two = hashes(make_dial("topics"))
    assert one == two
    assert not plain & one
    paraphrased = hashes(ParaphraseDial(levels=[1]))[0]
    assert plain < paraphrased
    assert len(paraphrased) == 2


def test_side_tables_leave_the_corpus_as_it_was(llm, train, tmp_path):
    from cuvee.corpus import write_corpus, write_table

    with Ledger() as ledger:
        (pool, _) = generate(llm, train, ledger, make_dial("sampling"))
    write_corpus(pool.corpus, tmp_path / "pool.parquet")
    write_table(pool.provenance, tmp_path / "provenance.jsonl")
    assert load_corpus(tmp_path / "pool.parquet").ids == pool.corpus.ids
    assert len((tmp_path / "provenance.jsonl").read_text().splitlines()) == len(pool.corpus)
