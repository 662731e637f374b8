"""Intervals end where the number does, and rounding is no difference."""

from cuvee.corpus import Corpus
from cuvee.encoders import load_encoder
from cuvee.measure import compare_corpora, measure_corpus


def rows(*texts: str) -> Corpus:
    return Corpus.from_rows({"text": text, "target": "a"} for text in texts)


FEW = rows(*(f"a b c d{i} e{i} f g" if i % 3 else "one word here and there again" for i in range(9)))


def test_a_fraction_is_at_most_one():
    encoder, metrics = load_encoder("hashing"), ["distinct_1", "distinct_2", "distinct_3", "self_bleu"]
    measured = measure_corpus(FEW, encoder=encoder, metrics=metrics)
    compared = compare_corpora({"a": FEW, "b": FEW.take(range(7))}, encoder=encoder, metrics=metrics)
    found = [*measured.values.values(), *(each for both in compared.values.values() for each in both)]
    ends = [(each.low, each.high) for each in found if each is not None]
    assert ends and all(0.0 <= low and high <= 1.0 for low, high in ends if low is not None)
    assert any(high == 1.0 for _, high in ends)


def test_rounding_is_no_difference():
    same = rows(*(f"text number {i} of these" for i in range(12)))
    found = compare_corpora({"a": same, "b": same.take(range(11, -1, -1))}, encoder=load_encoder("hashing"))
    for name, (_, difference) in found.differences.items():
        for end in (difference.value, difference.low, difference.high):
            assert end is None or end == 0 or abs(end) > 1e-9, (name, difference)
