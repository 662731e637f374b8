import pytest

from cuvee.corpus import Corpus
from cuvee.generate.calls import Sampling
from cuvee.generate.dials import Slot
from cuvee.generate.dials.slots import Draft
from cuvee.generate.prompts import EXAMPLES_SHOWN, SLOTS_A_ROTATION, PromptWriter, WritingSpec


def writer(train, api="completions", **settings):
    given = {"describe": "news headlines", "sampling": Sampling(temperature=0.9), "seed": 3, **settings}
    return PromptWriter(train, WritingSpec(**given), api)


def slot(number=0, **settings):
    given = {"key": f"alpha/0/{number}", "label": "alpha", "block": 0, "order": number, "number": number, **settings}
    return Slot(**given)


def test_completion_prompt_is_a_numbered_list_of_real_examples_of_the_label(train):
    question = writer(train).ask(slot(), 0)
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
    question = writer(train, describe="tweets").ask(slot(topic="tennis", temperature=0.2), 0)
    assert question.request.prompt.startswith("A list of alpha tweets:\n1. ")
    assert question.request.prompt.endswith("\n\nMore alpha tweets, all about tennis:\n1.")
    assert question.request.sampling.temperature == 0.2


def test_chat_form_has_a_system_and_a_user_message_and_no_stop(train):
    request = writer(train, api="chat").ask(slot(topic="tennis"), 0).request
    assert [role for role, _ in request.messages] == ["system", "user"]
    assert request.prompt is None
    assert request.sampling.stop == ()
    assert "tennis" in request.messages[1][1]
    assert sum(text in request.messages[1][1] for text in train.texts) == EXAMPLES_SHOWN


def test_seed_examples_rotate_over_slots_and_blocks_and_neighbours_share_them(train):
    asked = [writer(train).ask(slot(number=n), 0).seed_ids for n in range(6 * SLOTS_A_ROTATION)]
    assert len({asked[n] for n in range(SLOTS_A_ROTATION)}) == 1
    assert len(set(asked)) > 3
    other = writer(train).ask(slot(block=1), 0).seed_ids
    assert other != asked[0]


def test_attempts_differ_in_seed_and_replicate_and_the_study_seed_matters(train):
    first, second = (writer(train).ask(slot(), attempt).request for attempt in (0, 1))
    assert first.seed != second.seed
    assert (first.replicate, second.replicate) == (0, 1)
    assert writer(train, seed=4).ask(slot(), 0).request != first
    assert writer(train).ask(slot(), 0).request == first


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_paraphrase_questions_show_the_source_and_keep_its_seed_ids(train, api):
    question = writer(train, api=api).ask(slot(), 0, step="paraphrase", source="Henman out of\nOpen", seed_ids=["id-1"])
    text = question.request.prompt or question.request.messages[-1][1]
    assert "Henman out of Open" in text
    assert question.seed_ids == ("id-1",)
    assert "Henman out of Open" not in question.shown
    if api == "completions":
        assert text.endswith("Rewritten:")


def test_texts_of_many_lines_and_readable_labels_fit_the_list():
    train = Corpus.from_rows([{"text": "one\n two", "target": "card_arrival"}])
    request = writer(train).ask(slot(label="card_arrival"), 0).request
    assert request.prompt == "A list of card arrival news headlines:\n1. one\n two\n2."
    assert request.sampling.stop == ("\n2.", "\n3.")
    rows = [{"text": f"{i} of ten", "target": "card_arrival"} for i in range(10)]
    few = Corpus.from_rows([{"text": "one\n two", "target": "card_arrival"}, *rows])
    request = writer(few).ask(slot(label="card_arrival", examples=(0,)), 0).request
    assert "one\n" not in request.prompt
    assert request.sampling.stop == ("\n",)


TONES = (("tone", "dry_humour"), ("length", "short"))


def test_prompts_without_attributes_and_words_stay_as_they_were(train):
    asked = writer(train, api="chat").ask(slot(topic="tennis"), 0)
    examples = "\n".join(f"- {text}" for text in asked.shown)
    assert asked.request.messages[1][1] == (
        f'These news headlines are of the kind "alpha":\n{examples}\n'
        'Write one more of the kind "alpha", about tennis. It must differ from those above.'
    )


def test_attributes_and_words_to_avoid_reach_both_forms(train):
    wanted = slot(topic="tennis", attributes=TONES)
    prompt = writer(train).ask(wanted, 0, ["cup", "open"]).request.prompt
    assert prompt.endswith(
        "\n\nMore alpha news headlines, all about tennis (tone: dry humour; length: short), "
        "without the words cup, open:\n1."
    )
    bare = writer(train).ask(slot(attributes=TONES[1:]), 0).request.prompt
    assert bare.endswith("\n\nMore alpha news headlines (length: short):\n1.")
    user = writer(train, api="chat").ask(wanted, 0, ["cup", "open"]).request.messages[1][1]
    assert user.endswith(
        'Write one more of the kind "alpha", about tennis. It must differ from those above. What it must be like: '
        "tone: dry humour; length: short. Do not use any of these words: cup, open."
    )
    assert writer(train).ask(wanted, 0, ["cup"]).avoided == ("cup",)


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_the_prefix_of_examples_is_the_same_whatever_is_asked_for(train, api):
    def first_lines(**settings):
        request = writer(train, api=api).ask(slot(**settings), 0).request
        return (request.prompt or request.messages[1][1]).splitlines()[: EXAMPLES_SHOWN + 1]

    assert first_lines() == first_lines(attributes=TONES) == first_lines(topic="tennis")


def test_places_of_examples_are_nested_and_differ_between_blocks_and_seeds(train):
    def shown(places, seed=3, block=0):
        return set(writer(train, seed=seed).ask(slot(examples=places, block=block), 0).seed_ids)

    assert shown((0, 1)) < shown((0, 1, 2, 3))
    assert shown((0, 1)) | shown((2, 3)) == shown((0, 1, 2, 3))
    assert len({frozenset(shown((0, 1), block=b)) for b in range(8)}) > 2
    assert len({frozenset(shown((0, 1), seed=s)) for s in range(8)}) > 2


def test_sampling_of_a_slot_overrides_the_studys(train):
    sampling = Sampling(temperature=0.9, top_p=0.8, min_p=0.02, top_k=40)
    made = writer(train, sampling=sampling).ask(slot(top_p=0.5, min_p=0.1), 0).request.sampling
    assert (made.temperature, made.top_p, made.min_p, made.top_k) == (0.9, 0.5, 0.1, 40)
    made = writer(train, sampling=sampling).ask(slot(temperature=0.0), 0).request.sampling
    assert (made.temperature, made.top_p, made.min_p) == (0.0, 0.8, 0.02)


@pytest.mark.parametrize("form", ["completions", "chat"])
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_drafts_take_their_own_form_and_heat_and_refinements_the_endpoints(train, api, form):
    wanted = slot(draft=Draft(temperature=1.7, api=form), temperature=0.4)
    draft = writer(train, api=api).ask(wanted, 0, step="draft")
    assert (draft.step, draft.request.sampling.temperature) == ("draft", 1.7)
    assert (draft.request.prompt is None) == (form == "chat")
    made = writer(train, api=api).ask(
        wanted, 1, step="refinement", source="henman he out\nof open", seed_ids=draft.seed_ids
    )
    assert (made.step, made.request.sampling.temperature) == ("refinement", 0.4)
    assert (made.request.prompt is None) == (api == "chat")
    text = made.request.prompt or made.request.messages[1][1]
    assert "henman he out of open" in text
    assert made.seed_ids == draft.seed_ids
    assert "henman he out of open" not in made.shown
    if api == "chat":
        assert made.shown == draft.shown
        assert all(example in text for example in made.shown)
