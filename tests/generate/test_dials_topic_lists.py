"""Typical words, topics found in the real data, and topics asked for from the LLM."""

from math import log

import pytest

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError
from cuvee.generate.asking import WantedList, parse_list
from cuvee.generate.calls import Endpoint
from cuvee.generate.dials import TopicsDial, texts_by_label, topics_from_words
from cuvee.generate.dials.contents import characteristic_words, common_words, find_words, weigh_words


def ask_for_topics(label, describe, *, api="completions", examples=(), avoid=(), seed=0, attempt=0):
    wanted = WantedList(listed="topics", about=label, texts=examples, count=8, found=list(avoid), attempts=attempt)
    return wanted.ask(Endpoint(base_url="http://localhost/v1", model="m", api=api), seed, describe)


TENNIS = ["Henman wins at Wimbledon", "Henman out of Wimbledon", "Wimbledon prize for Henman", "Henman loses again"]
FOOTBALL = ["Chelsea score twice", "Chelsea buy striker", "Striker leaves Chelsea"]
RUGBY = ["England scrum collapses", "England lose scrum half"]
MONEY = ["Banks raise rates", "Rates hurt banks", "England banks lose money", "Money rates fall"]


@pytest.fixture
def train() -> Corpus:
    texts = {"sport": TENNIS + FOOTBALL + RUGBY, "business": MONEY}
    return Corpus.from_rows([{"text": text, "target": label} for label, given in texts.items() for text in given])


def test_weights_are_class_based_tf_idf_by_hand():
    weights = weigh_words({"a": ["cat dog", "cat cat"], "b": ["dog"]})
    # counts by text: a: cat 2, dog 1; b: dog 1; mean words of a class (3 + 1) / 2 = 2
    assert weights["a"] == pytest.approx({"cat": 2 / 3 * log(1 + 2 / 2), "dog": 1 / 3 * log(1 + 2 / 2)})
    assert weights["b"] == pytest.approx({"dog": log(1 + 2 / 2)})


def test_words_are_folded_and_function_words_and_short_ones_left_out():
    assert find_words("The CATS of St. Mary's, it's 3rd Über-cat") == ["cats", "mary", "über", "cat"]


def test_characteristic_words_prefer_those_of_the_label_and_skip_the_excluded():
    texts = {"a": ["cat sees dog", "cat hears dog"], "b": ["dog runs", "dog eats"]}
    assert characteristic_words(texts, "a", 2)[0] == "cat"
    assert "cat" not in characteristic_words(texts, "a", 9, exclude={"cat"})
    assert characteristic_words(texts, "c", 2) == ()
    assert characteristic_words({"a": ["zebra apple", "mango"]}, "a", 2) == ("apple", "mango")


def test_topics_are_found_in_the_labels_own_rows_and_spread_over_them(train):
    found = topics_from_words(train, 3, seed=0)
    assert found["sport"] == ("Henman", "Chelsea", "scrum")  # not Wimbledon: Henman stands in its rows too
    assert set(found["business"]) <= {"Banks", "rates", "Rates", "banks", "Money", "money"}
    assert topics_from_words(train, 2, seed=0)["sport"] == found["sport"][:2]
    assert TopicsDial(levels=[1, 3], topics=found).levels[-1].name == "3"


def test_ties_go_by_the_seed_and_the_label_is_no_topic():
    train = Corpus.from_rows([{"text": f"sport {w}", "target": "sport"} for w in "apple mango zebra lemon".split()])
    orders = {topics_from_words(train, 4, seed)["sport"] for seed in range(12)}
    assert len(orders) > 5
    assert {frozenset(order) for order in orders} == {frozenset({"apple", "mango", "zebra", "lemon"})}
    with pytest.raises(ConfigError, match=r"label 'sport' hold 4 words that could be topics, 5 are wanted"):
        topics_from_words(train, 5, seed=0)


def test_texts_of_any_kind_may_be_given_by_label(train):
    by_label = texts_by_label(train)
    assert list(by_label) == ["business", "sport"] and by_label["business"] == tuple(MONEY)
    assert topics_from_words(by_label, 3, seed=0) == topics_from_words(train, 3, seed=0)
    free = Corpus.from_rows([{"text": t, "target": "x"} for t in MONEY], task="generation")
    assert texts_by_label(free) == {"any": tuple(MONEY)}


def test_one_label_alone_gives_frequent_words_that_are_not_in_every_text():
    words = ["Suppe", "Kuchen", "Brot", "Salat"]
    texts = [f"und das {words[i % 4]} mit {'x' * (3 + i % 17)}{chr(97 + i)}" for i in range(24)]
    found = topics_from_words({"any": texts}, 4, seed=0)["any"]
    assert set(found) == set(words)  # not und, das, mit, which stand in all of them
    assert common_words(texts) == {"und", "das", "mit"}
    assert common_words(texts[:5]) == frozenset()
    # with another label to contrast with, common words are weighed, not dropped
    assert "und" in weigh_words({"any": texts})["any"]


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_the_question_names_label_count_and_examples_and_leaves_room(api):
    made = ask_for_topics("card_arrival", "bank questions", api=api, examples=TENNIS[:2], seed=4)
    text = made.prompt or made.messages[1][1]
    assert all(part in text for part in ("card arrival", "bank questions", "8 different topics", *TENNIS[:2]))
    assert made.sampling.max_tokens == 64
    assert (made.prompt is None) == (api == "chat")
    if api == "completions":
        assert text.endswith("\n1.")
        assert made.sampling.stop == ("\n\n",)
    assert made.seed != ask_for_topics("other", "bank questions", api=api, seed=4).seed


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_follow_ups_say_so_and_stay_short(api):
    def text(**given) -> str:
        made = ask_for_topics("sport", "news", api=api, **given)
        return made.prompt or made.messages[1][1]

    assert '"sport"' in text() or "sport news" in text()
    assert "any" not in (ask_for_topics("any", "news", api=api).prompt or "")
    many = [f"topic number {i}" for i in range(300)]
    assert many[-1] in text(avoid=many) and many[0] not in text(avoid=many)
    assert len(text(avoid=many, examples=["word " * 500])) < 1500
    assert len({ask_for_topics("sport", "news", attempt=n).seed for n in range(4)}) == 4


@pytest.mark.parametrize(
    ("text", "topics"),
    [
        ("1. Tennis\n2. Motor racing.\n3. tennis\n", ("Tennis", "Motor racing")),
        (" Tennis\n2. Motor racing\n3. Golf", ("Tennis", "Motor racing", "Golf")),  # a completion of "1."
        ("Here are some topics:\n\n- **Tennis**\n- \"Golf\"\n* Chess", ("Tennis", "Golf", "Chess")),
        ("Sure! I can name some\n1) Tennis\n2) Golf", ("Tennis", "Golf")),
        ("Tennis, Golf; Chess", ("Tennis", "Golf", "Chess")),
        ("1. Tennis\n2. This is a sentence that goes on and on and is no topic\n3. Golf", ("Tennis", "Golf")),
        ("2000 metres\n3D printing", ("2000 metres", "3D printing")),
        ("", ()),
        ("\n \n1.\n-\n", ()),
    ],
)  # fmt: skip
def test_parse_topics(text, topics):
    assert parse_list(text) == topics


def test_explanations_are_no_part_of_a_name():
    text = "1. **Tone**: formal, casual\n2. Point of view - whose eyes\n3. Length (words)\n4. Self-image"
    assert parse_list(text, explained=True) == ("Tone", "Point of view", "Length", "Self-image")
    long = "1. Tennis: everything about the great tournaments of the year\n2. US: economy"
    assert parse_list(long) == ("Tennis", "US: economy")
