import pytest

from cuvee.generate.calls import Answer
from cuvee.generate.parsing import Demands, parse_answer


def parse(text, finish_reason="stop", label="sports", shown=("Arsenal win the cup",), least_words=2):
    answer = Answer(text=text, finish_reason=finish_reason)
    return parse_answer(answer, Demands(shown=shown, least_words=least_words), label=label)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (" Henman out of Open\n6. Another", "Henman out of Open"),
        ('5. "Henman out of Open"', "Henman out of Open"),
        ("- Henman  out of\tOpen ", "Henman out of Open"),
        ("sports: Henman out of Open", "Henman out of Open"),
        ("[Sports]: Henman out of Open", "Henman out of Open"),
        ("**Henman out of Open**", "Henman out of Open"),
        ("“Henman out of Open”", "Henman out of Open"),
        ("Here is a headline:\n\nHenman out of Open", "Henman out of Open"),
        ("<think>\nshort one\n</think>\nHenman out of Open", "Henman out of Open"),
        ("Rewritten: Henman out of Open", "Henman out of Open"),
        ("Edited: Henman out of Open", "Henman out of Open"),
        ("Draft: Henman out of Open", "Henman out of Open"),
        # nothing that only looks like wrapping is lost
        ('"Open" says "Henman"', '"Open" says "Henman"'),
        ("'90s star Henman returns", "'90s star Henman returns"),
        ("2005 Open: Henman out", "2005 Open: Henman out"),
        ("3G phones on sale", "3G phones on sale"),
        ("Sports bodies meet", "Sports bodies meet"),
    ],
)
def test_cleaning(raw, clean):
    parsed = parse(raw)
    assert (parsed.text, parsed.reason) == (clean, None)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("5.", "empty"),
        ("...", "empty"),
        ("Henman", "too short"),
        ("arsenal WIN the cup!", "copy of the prompt"),
        ("Sure, I can do that for you", "chatter"),
        ("I'm sorry, but I cannot write this", "chatter"),
        ("Henman<|im_end|> out", "chatter"),
        ("As an AI language model I have no news", "chatter"),
        ("Henman out of \ufffd Open", "broken characters"),
    ],
)
def test_rejections(raw, reason):
    assert parse(raw).reason == reason


def test_truncated_answers_are_rejected_and_keep_their_text():
    parsed = parse("Henman out of the Open after a", finish_reason="length")
    assert (parsed.text, parsed.reason) == ("Henman out of the Open after a", "truncated")


def test_truncated_answers_can_be_kept_without_their_broken_word():
    answer = Answer(text=" Henman out of the Ope", finish_reason="length", prompt_tokens=1, completion_tokens=1)
    kept = parse_answer(answer, Demands(keep_truncated=True), label="sports")
    assert (kept.text, kept.reason) == ("Henman out of the", None)


def test_one_word_rows_are_fine_where_the_training_rows_have_them():
    assert parse("Goal", least_words=1).reason is None


def test_labels_with_underscores_and_special_characters_are_stripped_too():
    assert parse("card arrival: where is my card", label="card_arrival").text == "where is my card"
    assert parse("c++ (new): it does not compile", label="c++ (new)").text == "it does not compile"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("Henman out of the Open", "uses a word to avoid"),
        ("HENMAN, out", "uses a word to avoid"),
        ("Henmans out of it", None),
        ("", "empty"),
    ],
)
def test_words_to_avoid(raw, reason):
    answer = Answer(text=raw, finish_reason="stop")
    assert parse_answer(answer, Demands(avoided=("henman", "open")), label="sports").reason == reason
