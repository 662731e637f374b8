"""Measurements as JSON text and back."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.corpus import Corpus
from cuvee.encoders import HashingEncoder
from cuvee.errors import InputError
from cuvee.measure import measure_corpus
from cuvee.measure.saved import measurement_to_json, read_measurement
from cuvee.records import Estimate, Measurement


@pytest.fixture(scope="module")
def measurement():
    corpus = Corpus.from_rows({"text": f"row {i} of {i * i}", "target": "é"} for i in range(12))
    names = ["vendi_q1", "vendi_qinf", "distinct_1"]
    return measure_corpus(corpus, encoder=HashingEncoder(), metrics=names, name="pöol")


def plain(**values):
    return Measurement(
        name="a", fingerprint="f", against=None, n=3, encoder="e", encoder_hash="h", seed=0, values=values
    )


def test_a_measurement_comes_back_as_it_was(measurement):
    assert read_measurement(measurement_to_json(measurement), name="a.json") == measurement


def test_the_shape_is_flat_and_readable(measurement):
    content = json.loads(measurement_to_json(measurement))
    assert list(content) == [
        "name", "fingerprint", "against", "n", "encoder", "encoder_hash", "seed", "normalisation",
        "findings", "vendi_q1", "vendi_qinf", "distinct_1",
    ]  # fmt: skip
    assert content["name"] == "pöol"
    assert content["vendi_q1"]["value"] == measurement.values["vendi_q1"].value
    assert content["vendi_qinf"]["settings"] == {"q": "inf", "kernel": "cosine"}


_NUMBERS = st.floats(allow_nan=False)


@settings(max_examples=15, deadline=None)
@given(st.builds(
    Estimate, value=_NUMBERS, low=st.none() | _NUMBERS, high=st.none() | _NUMBERS, n=st.integers(0, 10**9),
    interval=st.text(), p_value=st.none() | st.floats(0, 1),
    settings=st.dictionaries(st.text(), st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)),
))  # fmt: skip
def test_any_number_comes_back(estimate):
    text = measurement_to_json(plain(own=estimate))
    json.loads(text, parse_constant=pytest.fail)  # no NaN or Infinity, which are not JSON
    assert read_measurement(text, name="a.json").values["own"] == estimate


def test_numbers_that_are_not_finite_are_words():
    text = measurement_to_json(plain(own=Estimate(value=math.nan, low=-math.inf, high=math.inf, n=3)))
    assert '"value": "nan", "low": "-inf", "high": "inf"' in text
    back = read_measurement(text, name="a.json").values["own"]
    assert math.isnan(back.value)
    assert (back.low, back.high) == (-math.inf, math.inf)
    bare = text.replace('"nan"', "NaN").replace('"inf"', "Infinity")  # as Python writes them by itself
    assert read_measurement(bare, name="a.json").values["own"].high == math.inf


def test_a_metric_cannot_have_the_name_of_a_key():
    with pytest.raises(ValueError, match="called 'seed'"):
        measurement_to_json(plain(seed=Estimate(value=1.0, n=3)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.json, line 1: broken JSON"),
        ('{\n"name": }', r"a\.json, line 2: broken JSON"),
        ("[1]", r"a\.json: holds a JSON list"),
        ('{"name": "a"}', r"a\.json: key 'fingerprint' is missing"),
        ({"n": "many"}, r"a\.json: key 'n' has the value 'many'"),
        ({"own": 3}, r"a\.json: key 'own' has the value 3"),
        ({"own": {"value": "high", "n": 3}}, r"a\.json: key 'own\.value' has the value 'high'"),
        ({"own": {"value": 1.0}}, r"a\.json: key 'own\.n'"),
    ],
)
def test_bad_input_names_the_key(text, message):
    if isinstance(text, dict):
        text = json.dumps({**json.loads(measurement_to_json(plain())), **text})
    with pytest.raises(InputError, match=message):
        read_measurement(text, name="a.json")


def test_the_measurement_keeps_its_own_name(measurement):
    renamed = replace(measurement, name="other")
    assert read_measurement(measurement_to_json(renamed), name="a.json").name == "other"
