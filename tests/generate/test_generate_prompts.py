import pytest

from cuvee.corpus import Corpus
from cuvee.generate.calls import Sampling
from cuvee.generate.dials import Slot
from cuvee.generate.prompts import EXAMPLES_SHOWN, SLOTS_A_ROTATION, PromptWriter


def writer(train, api="completions", **settings):
    given = {"describe": "news headlines", "sampling": Sampling(temperature=0.9), "seed": 3, **settings}
    return PromptWriter(train, api=api, **given)


def slot(number=0, **settings):
    given = {"key": f"alpha/0/{number}", "label": "alpha", "block": 0, "order": number, "number": number, **settings}
    return Slot(**given)


def test_completion_prompt_is_a_numbered_list_of_real_examples_of_the_label(train):
    question = writer(train).ask_for_row(slot(), 0)
    lines = question.request.prompt.split("\n")
    assert lines[0] == "A list of alpha news headlines:"
    assert lines[-1] == f"{EXAMPLES_SHOWN + 1}."
    by_text = dict(zip(train.texts, train.ids, strict=True))
    shown = [line.split(". ", 1)[1] for line in lines[1:-1]]
    assert [by_text[t] for t in shown] == list(question.seed_ids)
    assert {train.targets[train.ids.index(i)] for i in question.seed_ids} == {"alpha"}
    assert question.request.sampling.stop == ("\n",)
    assert question.request.sampling.temperature == 0.9


def test_topic_and_describe_and_temperature_reach_the_request(train):
    question = writer(train, describe="tweets").ask_for_row(slot(topic="tennis", temperature=0.2), 0)
    assert question.request.prompt.startswith("A list of alpha tweets:\n1. ")
    assert question.request.prompt.endswith("\n\nMore alpha tweets, all about tennis:\n1.")
    assert question.request.sampling.temperature == 0.2


def test_chat_form_has_a_system_and_a_user_message_and_no_stop(train):
    request = writer(train, api="chat").ask_for_row(slot(topic="tennis"), 0).request
    assert [role for role, _ in request.messages] == ["system", "user"]
    assert request.prompt is None
    assert request.sampling.stop == ()
    assert "tennis" in request.messages[1][1]
    assert sum(text in request.messages[1][1] for text in train.texts) == EXAMPLES_SHOWN


def test_seed_examples_rotate_over_slots_and_blocks_and_neighbours_share_them(train):
    asked = [writer(train).ask_for_row(slot(number=n), 0).seed_ids for n in range(6 * SLOTS_A_ROTATION)]
    assert len({asked[n] for n in range(SLOTS_A_ROTATION)}) == 1
    assert len(set(asked)) > 3
    other = writer(train).ask_for_row(slot(block=1), 0).seed_ids
    assert other != asked[0]


def test_attempts_differ_in_seed_and_replicate_and_the_study_seed_matters(train):
    first, second = (writer(train).ask_for_row(slot(), attempt).request for attempt in (0, 1))
    assert first.seed != second.seed
    assert (first.replicate, second.replicate) == (0, 1)
    assert writer(train, seed=4).ask_for_row(slot(), 0).request != first
    assert writer(train).ask_for_row(slot(), 0).request == first


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_paraphrase_questions_show_the_source_and_keep_its_seed_ids(train, api):
    question = writer(train, api=api).ask_for_paraphrase(slot(), 0, "Henman out of\nOpen", ["id-1"])
    text = question.request.prompt or question.request.messages[-1][1]
    assert "Henman out of Open" in text
    assert question.seed_ids == ("id-1",)
    assert "Henman out of Open" not in question.shown
    if api == "completions":
        assert text.endswith("Rewritten:")


def test_texts_of_many_lines_and_readable_labels_fit_the_list():
    train = Corpus.from_rows([{"text": "one\n two", "target": "card_arrival"}])
    prompt = writer(train).ask_for_row(slot(label="card_arrival"), 0).request.prompt
    assert prompt == "A list of card arrival news headlines:\n1. one two\n2."
