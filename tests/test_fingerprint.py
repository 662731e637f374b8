import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.fingerprint import derive_rng, derive_seed, hash_texts, hash_value
from cuvee.records import Level


def test_hash_value_sees_type_and_order_but_not_mapping_order():
    assert hash_value({"a": 1, "b": 2}) == hash_value({"b": 2, "a": 1})
    assert hash_value([1, 2]) != hash_value([2, 1])
    assert len({hash_value(v) for v in (1, 1.0, "1", True, None)}) == 5
    assert hash_value(Level(dial="d", name="1", rank=0)) != hash_value(Level(dial="d", name="1", rank=1))


def test_hash_value_refuses_what_it_cannot_see():
    with pytest.raises(TypeError, match="object"):
        hash_value(object())


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_hash_texts_separates_sequences(a, b):
    assert (hash_texts(a) == hash_texts(b)) == (a == b)


def test_streams_differ_by_name_and_repeat_by_name():
    assert derive_seed(0, "a", 1) == derive_seed(0, "a", 1)
    assert len({derive_seed(0, "a", 1), derive_seed(0, "a", 2), derive_seed(1, "a", 1), derive_seed(0, "b", 1)}) == 4
    assert np.array_equal(derive_rng(3, "x").integers(0, 99, 8), derive_rng(3, "x").integers(0, 99, 8))
