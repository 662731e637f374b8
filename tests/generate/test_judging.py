"""A judge on loopback: one that is fair, one that goes by the place, one that answers rubbish."""

import pytest

from cuvee.generate.calls import Sampling
from cuvee.generate.client import OpenedLLM
from cuvee.generate.judging import JudgedText, compare_texts, judge_texts, read_choice, read_verdict
from cuvee.generate.ledger import Ledger
from local_llm import LocalLLM

TEXTS = [JudgedText(prompt=f"p{i}", reference="r", written="w" * i) for i in range(1, 7)]
OTHERS = ["www"] * 6  # longer than two, equal to one, shorter than three
HOW = {"rubric": "Longer is better.", "sampling": Sampling(temperature=0.0, top_p=1.0, max_tokens=8)}


@pytest.fixture
def local():
    server = LocalLLM()
    yield server
    server.close()


def longer(body):
    """The longer of two answers."""
    told = body["prompt"] if "prompt" in body else body["messages"][1]["content"]
    first, second = (told.partition(f"Answer {name}:\n")[2].split("\n")[0] for name in "AB")
    return "**A**" if len(first) > len(second) else "B is better" if len(first) < len(second) else "tie"


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_fair_judge_prefers_alike_in_both_orders(local, api):
    local.text = longer
    with Ledger(None) as ledger:
        found = compare_texts(OpenedLLM(endpoint=local.endpoint(api=api)), ledger, TEXTS, OTHERS, **HOW)
        assert (found.won, found.lost, found.tied, found.by_place, found.unread) == (3, 2, 1, 0, 0)
        assert (found.first, found.verdicts) == (5, 10) and "50% of choices were of the answer shown first" in str(
            found
        )
        assert len(local.bodies) == 10 == ledger.totals().requests
        again = compare_texts(OpenedLLM(endpoint=local.endpoint(api=api)), ledger, TEXTS, OTHERS, **HOW)
        assert again == found and len(local.bodies) == 10


@pytest.mark.parametrize(("reply", "first"), [("A", 10), ("Answer B", 0)])
def test_a_judge_that_goes_by_the_place_is_found_out(local, reply, first):
    local.text = lambda _body: reply
    with Ledger(None) as ledger:
        found = compare_texts(OpenedLLM(endpoint=local.endpoint(api="chat")), ledger, TEXTS, OTHERS, **HOW)
    assert (found.won, found.lost, found.tied, found.by_place) == (0, 0, 6, 5)
    assert (found.first, found.verdicts) == (first, 10) and f"{10 * first}% of choices" in str(found)


def test_rubbish_is_asked_for_once_more_and_counted(local):
    local.text = lambda _body: "A or B, who knows: 3, 7"
    with Ledger(None) as ledger:
        llm = OpenedLLM(endpoint=local.endpoint(api="chat"))
        found = compare_texts(llm, ledger, TEXTS, OTHERS, **HOW)
        assert (found.unread, found.tied, found.verdicts) == (5, 1, 0) and "5 without readable replies" in str(found)
        assert judge_texts(llm, ledger, TEXTS, **HOW) == [None] * 6
        assert len(local.bodies) == 2 * 10 + 2 * 6 == ledger.totals().requests


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("7", 7), ("Score: 7/10", 7), ("**8** out of 10.", 8), ("10", 10), ("7.5", 7.5), ("<think>3 or 4</think> 5", 5),
        ("11", None), ("0", None), ("3 or 4", None), ("good", None), ("", None), ("v2", None), ("6, so 6", 6),
        ("1/10", 1),
    ],
)  # fmt: skip
def test_a_verdict_is_the_only_number(reply, verdict):
    assert read_verdict(reply) == verdict


def test_a_choice_is_the_only_name():
    replies = {"A": "A", "Answer B.": "B", "tie": "tie", "Tie!": "tie", "A, not B": None, "Apples": None, "": None}
    assert {reply: read_choice(reply) for reply in replies} == replies
