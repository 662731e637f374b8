import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asking import generate_to_target
from cuvee.errors import GenerationError
from cuvee.generate.dials import SamplingDial, TopicsDial
from cuvee.generate.ledger import Ledger
from cuvee.generate.targets import LevelSearch, Target

LABELS = ("alpha", "beta")
TOPICS = {label: [f"{label} topic{j}" for j in range(16)] for label in LABELS}


def topics(*levels):
    return TopicsDial(levels=levels or (1, 2, 4, 8, 16), topics=TOPICS)


def about(body):
    """The topic that was asked for, and a word of its own."""
    found = body["prompt"].rsplit("all about ", 1)[1].partition(":")[0]
    return f"{found} word{body['seed']}"


def distinct_topics(corpus):
    """Topics a label: what the mock's diversity is."""
    return len({text.split()[1] for text in corpus.texts})


def reach(llm, train, target, ledger=None, **given):
    llm.text = about
    return generate_to_target(
        train, target=target, endpoint=llm.endpoint(concurrency=8), ledger=ledger,
        **{"dial": topics(), "score": distinct_topics, "budget_rows": 10_000, "rows_per_label": 16,
           "describe": "texts", "seed": 1, **given},
    )  # fmt: skip


def exactly(value, tolerance=0.0):
    return Target(metric_name="topics", value=value, tolerance=tolerance)


def test_requested_levels_come_out_in_order_and_cost_nothing_twice(llm, train):
    with Ledger() as ledger:
        found = [reach(llm, train, exactly(k), ledger) for k in (1, 2, 4, 8, 16)]
        assert [r.score for r in found] == [1, 2, 4, 8, 16]
        assert all(r.reached for r in found)
        assert [r.pool.level.name for r in found] == ["1", "2", "4", "8", "16"]
        for result in found:
            assert distinct_topics(result.pool.corpus) == result.score
            assert "was asked for" in result.note
        sent = len(llm.bodies)
        assert (
            sent
            == ledger.totals().requests
            == len({key for r in found for key in r.pool.provenance["request_key"].to_pylist()})
        )
        reach(llm, train, exactly(4), ledger)
        assert len(llm.bodies) == sent


def test_later_waves_send_only_the_rows_that_they_add(llm, train):
    result = reach(llm, train, exactly(4))
    assert [t.level.name for t in result.history] == ["1", "16", "4"]
    assert [t.rows for t in result.history] == [32, 32 + 30, 32 + 30 + 18]
    assert len(llm.bodies) == 80
    assert [t.score for t in result.history] == [1, 16, 4]


def test_a_level_out_of_reach_is_said_to_be(llm, train):
    with Ledger() as ledger:
        high = reach(llm, train, exactly(30, tolerance=1), ledger)
        between = reach(llm, train, exactly(5.5, tolerance=0.5), ledger)
    assert (high.reached, high.score, high.pool.level.name) == (False, 16, "16")
    assert "topics 30 was asked for; this level is out of reach: best seen 16 at level 16" in high.note
    assert (between.reached, between.pool.level.name) == (False, "4")
    assert "best seen 4 at level 4; levels tried scored 1 to 16; levels between those" in between.note
    assert {t.level.name for t in between.history} >= {"2", "4", "8"}


def test_the_nearest_level_within_tolerance_ends_the_search(llm, train):
    assert [t.level.name for t in reach(llm, train, exactly(3, tolerance=2)).history] == ["1"]


def test_the_budget_of_rows_ends_the_search(llm, train):
    result = reach(llm, train, exactly(4), budget_rows=70)
    assert (result.reached, [t.level.name for t in result.history]) == (False, ["1", "16"])
    assert "the budget of 70 rows does not reach topics=4 (80 rows in all); best seen 1 at level 1" in result.note
    assert len(llm.bodies) == 62
    with pytest.raises(GenerationError, match="no level of dial 'topics' could be scored by topics"):
        reach(llm, train, exactly(4), budget_rows=31)


def test_a_level_that_cannot_be_made_or_scored_is_noted_and_passed_over(llm, train):
    def score(corpus):
        found = distinct_topics(corpus)
        return math.nan if found == 16 else found

    def only_some(body):
        return "" if body["temperature"] > 1 else f"a text number{body['seed']}"

    assert [t.note for t in reach(llm, train, exactly(8), score=score).history if t.score is None] == [
        "its score is nan"
    ]
    llm.text = only_some
    settings = {"dial": SamplingDial(levels=[0.5, 1.5]), "endpoint": llm.endpoint(), "rows_per_label": 3}
    result = generate_to_target(train, target=exactly(7), score=len, budget_rows=100, **settings)
    assert (result.pool.level.name, result.reached, result.score) == ("0.5", False, 6)
    assert "no usable row" in result.history[1].note
    with pytest.raises(GenerationError, match="no level of dial 'sampling' could be scored by topics"):
        generate_to_target(train, target=exactly(7), score=lambda _: math.inf, budget_rows=100, **settings)


def search(scores, target):
    """Run a search over known scores; the ranks in the order they were tried."""
    found, tried = LevelSearch(target, len(scores)), []
    while (rank := found.next_rank()) is not None:
        assert rank not in tried
        tried.append(rank)
        found.tell(rank, scores[rank])
    return found, tried


SCORES = st.lists(st.integers(-50, 50), min_size=1, max_size=40)


@given(scores=SCORES, value=st.integers(-60, 60), falling=st.booleans())
def test_on_a_monotone_dial_the_nearest_level_is_found_in_few_tries(scores, value, falling):
    scores = sorted(set(scores), reverse=falling)
    found, tried = search(scores, exactly(value))
    assert abs(scores[found.best] - value) == min(abs(s - value) for s in scores)
    assert found.reached == (value in scores)
    assert len(tried) <= math.log2(len(scores)) + 5


@given(scores=st.lists(st.none() | st.integers(-50, 50), min_size=1, max_size=20), value=st.integers(-60, 60))
def test_on_any_dial_the_search_ends_with_the_best_level_tried(scores, value):
    found, tried = search(scores, exactly(value, tolerance=1))
    known = {rank: scores[rank] for rank in tried if scores[rank] is not None}
    if not known:
        assert found.best is None
        assert sorted(tried) == list(range(len(scores)))
        return
    assert abs(scores[found.best] - value) == min(abs(s - value) for s in known.values())
    assert found.reached == (abs(scores[found.best] - value) <= 1)
    beside = {r for r in (found.best - 1, found.best + 1) if 0 <= r < len(scores)}
    assert found.reached or beside <= set(tried)
