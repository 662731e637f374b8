"""How much the embedded LLM has at once, by the machine."""

import pytest

from cuvee.generate.embedded import choose_room


@pytest.mark.parametrize(("cores", "short", "long"), [(1, 16, 8), (2, 16, 8), (4, 32, 16), (8, 64, 32), (96, 64, 32)])
def test_slots_grow_with_the_cores_within_bounds(cores, short, long):
    assert choose_room(cores, long=False).slots == short
    assert choose_room(cores, long=True).slots == long
    assert choose_room(cores, long=False).context == 512 and choose_room(cores, long=True).context == 2048
