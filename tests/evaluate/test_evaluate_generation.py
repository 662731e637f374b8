"""What is written against references: golden values, the reference package, properties, and a writer by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.errors import ConfigError
from cuvee.evaluate import Writing, compare_predictors, evaluate_model, judge_model
from cuvee.evaluate.generation import exact_match, normalise_answer, rouge_l, token_f1

WORDS = st.lists(st.sampled_from("the a king Gold, gold. gave; 12 rings don't An".split()), max_size=8).map(" ".join)


class Copier:
    """Writes what it was told to, of known likelihood: one token a word, ``nats`` a token."""

    def __init__(self, answers, nats=2.0, tokens_a_word=1):
        self.answers, self.nats, self.tokens_a_word, self.calls = answers, nats, tokens_a_word, []

    def write(self, prompts, *, max_tokens, temperature, seed):
        self.calls.append((len(prompts), max_tokens, temperature, seed))
        return [self.answers.get(prompt, "") for prompt in prompts]

    def log_likelihood(self, prompts, completions):
        assert len(prompts) == len(completions)
        counts = np.array([self.tokens_a_word * len(c.split()) for c in completions], dtype=float)
        return np.stack([-self.nats * counts, counts], axis=1)


def corpus(*rows):
    names = ("context", "text", "target")
    return Corpus.from_rows([dict(zip(names, row, strict=True)) for row in rows], task="generation")


TALES = corpus(
    ("A king had gold.", "What had he?", "gold"),
    ("A king had gold.", "Who had it?", "the king"),
    ("A king had gold.", "Who had it?", "a rich king"),
    (None, "Say hello", "hello there"),
)


def test_normalisation_is_that_of_squad():
    assert normalise_answer("The  Cat's, (An) a-b!") == "cats ab"  # punctuation goes first, and joins what it parted
    assert normalise_answer("Theatre an anthem") == "theatre anthem"


def test_token_f1_by_hand():
    assert token_f1("the big red dog", ["red dog"]) == pytest.approx(2 * 2 / (3 + 2))
    assert token_f1("dog dog", ["dog"]) == pytest.approx(2 * 1 / 3)
    assert token_f1("cat", ["dog", "a cat!"]) == 1.0
    assert (token_f1("the", ["an"]), token_f1("", ["x"]), token_f1("x", ["the"])) == (1.0, 0.0, 0.0)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_rouge_l_is_that_of_the_reference_package_on_ascii(written, references):
    from rouge_score import rouge_scorer

    expected = rouge_scorer.RougeScorer(["rougeL"]).score_multi(references, written)["rougeL"].fmeasure
    assert rouge_l(written, references) == pytest.approx(expected)


def test_rouge_l_sees_other_alphabets():
    assert rouge_l("кошка спит", ["кошка спит"]) == 1.0
    assert rouge_l("猫在睡觉", ["猫睡觉"]) == pytest.approx(2 * 3 / 7)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=3), st.randoms())
@settings(max_examples=40)
def test_scores_of_answers_have_bounds_and_take_the_best_reference(written, references, random):
    shuffled = random.sample(references, len(references))
    for score in (token_f1, rouge_l):
        value = score(written, references)
        assert 0 <= value <= 1
        assert value == score(written, shuffled) == max(score(written, [r]) for r in references)
    if exact_match(written, references):
        assert token_f1(written, references) == 1.0


def test_rows_of_one_prompt_are_alternative_references():
    writer = Copier({"A king had gold.\n\nWho had it?": "rich king", "Say hello": "hello"})
    items = judge_model(writer, TALES)
    assert items.correct.tolist() == [False, True, False]  # without its article, "a rich king"
    assert items.columns["token_f1"].tolist() == pytest.approx([0.0, 1.0, 2 / 3])
    assert items.groups.tolist() == [0, 0, 1]  # two prompts over one passage
    assert items.columns["tokens"].tolist() == [1.0, 5.0, 2.0]  # of all real completions of a prompt
    scores = evaluate_model(writer, TALES)
    assert scores.n == 3 and scores.correct.tolist() == [False, True, False]
    assert list(scores.values) == ["exact_match", "token_f1", "rouge_l", "perplexity", "bits_per_byte"]
    assert all(e.low <= e.value <= e.high for e in scores.values.values())
    assert scores.values["token_f1"].interval == "bootstrap of 2 groups, 1000 resamples"


def test_perplexity_weighs_tokens_not_rows():
    class Uneven(Copier):
        def log_likelihood(self, prompts, completions):
            out = super().log_likelihood(prompts, completions)
            out[[c == "gold" for c in completions], 0] = -7.0
            return out

    values = evaluate_model(Uneven({}), TALES, intervals=False).values
    assert values["perplexity"].value == pytest.approx(math.exp((7 + 2 * 7) / 8))
    size = sum(len(t) for t in TALES.targets)
    assert values["bits_per_byte"].value == pytest.approx((7 + 2 * 7) / math.log(2) / size)


def test_hopeless_likelihood_gives_a_finite_perplexity():
    values = evaluate_model(Copier({}, nats=5000.0), TALES).values
    assert all(np.isfinite([e.value, e.low, e.high]).all() for e in values.values())


def test_perplexities_of_other_tokenizers_are_not_compared():
    first, same, other = (judge_model(Copier({}, nats, n), TALES) for nats, n in ((2.0, 1), (1.0, 1), (1.0, 2)))
    assert compare_predictors(first, same).values["perplexity"].value == pytest.approx(math.exp(2) - math.exp(1))
    found = compare_predictors(first, other).values
    assert "perplexity" not in found
    assert found["bits_per_byte"].value == pytest.approx(0.0)  # the same nats, in twice the tokens


def test_diversity_of_what_is_written_stands_beside_that_of_the_real_rows():
    writer, seen = Copier({}), []

    def distinct(texts):
        seen.append(list(texts))
        return {"distinct": len(set(texts)) / len(texts)}

    scores = evaluate_model(writer, TALES, diversity=distinct, writing=Writing(max_tokens=9, temperature=0.2))
    assert scores.values["diversity.distinct"].value == pytest.approx(1 / 3)
    assert scores.values["diversity.distinct.real"].value == 1.0
    assert seen == [["", "", ""], ["gold", "the king", "hello there"]]  # equal rows
    (_, length, cold, one), (_, _, warm, two) = writer.calls
    assert (length, cold, warm) == (9, 0.2, 1.0) and one != two


def test_prompts_are_written_in_chunks_with_progress():
    rows = corpus(*((None, f"prompt {i}", "x") for i in range(130)))
    writer, told = Copier({}), []
    judge_model(writer, rows, watch=lambda *news: told.append(news))
    assert [size for size, *_ in writer.calls] == [64, 64, 2]
    assert len({seed for *_, seed in writer.calls}) == 3
    assert told[:3] == [("write", 64, 130), ("write", 128, 130), ("write", 130, 130)]


@pytest.mark.trust("own_scores")
def test_a_score_of_ones_own_is_that_of_each_prompts_best_reference():
    writer = Copier({TALES.prompts[0]: "Golden", TALES.prompts[1]: "a rich one", TALES.prompts[3]: "bye"})
    scores = evaluate_model(writer, TALES, score="own_scores:begins_alike")
    assert scores.score == "own_scores:begins_alike" and scores.graded.tolist() == [1.0, 1.0, 0.0]
    assert scores.values["own_scores:begins_alike"].value == pytest.approx(2 / 3)
    assert {"token_f1", "perplexity"} <= set(scores.values)


@pytest.mark.trust("own_scores")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("too_high", "gave 1.* to .*; it must be from 0 to 1"),
        ("fails", "score 'own_scores:fails' failed: KeyError"),
        ("of_one", r"must be a function of \(target, output\)"),
        ("absent", "cannot be loaded: .*absent"),
    ],
)
def test_a_score_of_ones_own_that_is_none_is_refused_by_name(name, says):
    with pytest.raises(ConfigError, match=says):
        evaluate_model(Copier({}), TALES, score=f"own_scores:{name}")


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="passages is for task 'retrieval'"):
        judge_model(Copier({}), TALES, passages=["x"])
    with pytest.raises(ConfigError, match=r"with labels and predict_proba; this one .* for task 'generation'"):
        judge_model(Copier({}), Corpus(TALES.table))
    with pytest.raises(ValueError, match="max_tokens is 0"):
        Writing(max_tokens=0)
    with pytest.raises(ValueError, match="temperature is nan"):
        Writing(temperature=float("nan"))
