"""What dials deal rows to, for each kind of writing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError
from cuvee.generate.dials import Slot
from cuvee.generate.filling import AcceptanceFilter, AcceptanceRules
from cuvee.generate.parsing import ANY, KINDS, WRITINGS, choose_kind, find_strata
from cuvee.generate.prompts import PromptWriter, WritingSpec

PASSAGES = Corpus.from_rows(
    [{"text": f"query {i}", "target": f"passage {i // 2}"} for i in range(6)], task="retrieval"
)  # fmt: skip
QUESTIONS = Corpus.from_rows(
    [{"text": f"q {i}", "target": f"a {i}", "context": f"context {i}" if i else None} for i in range(4)],
    task="generation",
)
PAIRS = Corpus.from_rows([{"text": f"do {i}", "target": f"done {i}"} for i in range(3)], task="generation")


def test_the_kind_follows_the_rows(train):
    assert [choose_kind(c, None) for c in (train, PASSAGES, QUESTIONS, PAIRS)] == [
        "label", "query", "question", "instruction",
    ]  # fmt: skip
    assert choose_kind(PAIRS, None, ["about this"]) == "question"
    assert choose_kind(QUESTIONS, "story") == "story"
    assert set(KINDS) == set(WRITINGS)


@pytest.mark.parametrize(
    ("corpus", "kind", "message"),
    [
        (PASSAGES, "label", "kind 'label' is not for training rows of task 'retrieval'; valid: query"),
        (PAIRS, "essay", "kind 'essay' .* valid: question, instruction, story"),
    ],
)
def test_kinds_that_do_not_fit_are_told(corpus, kind, message):
    with pytest.raises(ConfigError, match=message):
        choose_kind(corpus, kind)


def test_labels_have_their_own_rows_in_order(train):
    found = find_strata(train, "label")
    assert list(found) == train.labels == ["alpha", "beta"]
    assert [list(s.rows) for s in found.values()] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert {s.source for s in found.values()} == {None}


def test_passages_are_written_about_with_examples_of_others():
    found = find_strata(PASSAGES, "query")
    assert {s.source for s in found.values()} == {"passage 0", "passage 1", "passage 2"}
    for name, stratum in found.items():
        assert name == stratum.name and name.startswith("passage ") and len(name) == 24
        assert stratum.source not in {PASSAGES.targets[i] for i in stratum.rows}
        assert len(stratum.rows) == 4
    again = find_strata(PASSAGES.take([5, 3, 1, 0, 2, 4]), "query")
    assert list(again) == list(found)  # names follow the passage, the order its name


def test_the_only_passage_may_show_its_own_rows():
    (only,) = find_strata(PASSAGES.take([0, 1]), "query").values()
    assert list(only.rows) == [0, 1]


def test_contexts_take_examples_with_a_context_only():
    found = find_strata(QUESTIONS, "question")
    assert {s.source: list(s.rows) for s in found.values()} == {
        "context 1": [2, 3], "context 2": [1, 3], "context 3": [1, 2],
    }  # fmt: skip


def test_given_sources_replace_those_of_the_rows():
    found = find_strata(PASSAGES, "query", ["new", "passage 1", "new"])
    assert {s.source: list(s.rows) for s in found.values()} == {"new": [0, 1, 2, 3, 4, 5], "passage 1": [0, 1, 4, 5]}


@pytest.mark.parametrize("kind", ["instruction", "story"])
def test_what_is_about_nothing_given_is_one_stratum(kind):
    (only,) = find_strata(PAIRS, kind).values()
    assert (only.name, list(only.rows), only.source) == (ANY, [0, 1, 2], None)


@pytest.mark.parametrize(
    ("corpus", "kind", "sources", "message"),
    [
        (PAIRS, "question", None, "there is no context to write about; give sources"),
        (PAIRS, "question", ["c"], "no training row has a context; name its column"),
        (PASSAGES, "query", [], "there is no passage to write about"),
        (PASSAGES, "query", ["x", " "], "a passage to write about is blank"),
        (PASSAGES, "query", "one text", "sources 'one text'; give a list"),
        (PAIRS, "story", ["c"], "kind 'story' writes about none; kinds that do: query, question"),
    ],
)
def test_sources_that_cannot_be_used_are_told(corpus, kind, sources, message):
    with pytest.raises(ConfigError, match=message):
        find_strata(corpus, kind, sources)


def test_slots_of_no_stratum_are_told_before_anything_is_asked():
    slot = Slot(key="k", label="gamma", block=0, number=0, order=0)
    writer = PromptWriter(PAIRS, WritingSpec(describe="stories", seed=0, kind="story"), "chat")
    with pytest.raises(ConfigError, match=r"slot 'k' is for 'gamma'; valid: any"):
        AcceptanceFilter(train=PAIRS, writer=writer, rules=AcceptanceRules()).check_slots([slot])


@given(owners=st.lists(st.integers(0, 4), min_size=1, max_size=20))
def test_rows_shown_are_all_but_the_passages_own(owners):
    rows = [{"text": f"q{i}", "target": f"p{owner}"} for i, owner in enumerate(owners)]
    for stratum in find_strata(Corpus.from_rows(rows, task="retrieval"), "query").values():
        others = [i for i, owner in enumerate(owners) if f"p{owner}" != stratum.source]
        wanted = others or list(range(len(owners)))
        assert list(stratum.rows) == wanted == [stratum.rows[i] for i in range(len(stratum.rows))]
        assert stratum.rows[-1] == wanted[-1] and list(stratum.rows[1:]) == wanted[1:]
        with pytest.raises(IndexError):
            stratum.rows[len(wanted)]
