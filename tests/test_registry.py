import pytest

from cuvee.errors import ConfigError
from cuvee.registry import resolve_name


def test_resolves_table_entry_and_module_path():
    assert resolve_name("a", {"a": 1}, what="thing") == 1
    assert resolve_name("math:pi", {"a": 1.0}, what="thing") == pytest.approx(3.14159, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("prob", "unknown trainer 'prob'; did you mean 'probe'?"),
        ("zzz", "valid: probe, encoder"),
        ("no_such_module:X", "cannot be loaded: No module named 'no_such_module'; is its folder on PYTHONPATH?"),
        ("math:nope", "cannot be loaded"),
    ],
)
def test_unknown_names_are_told_the_nearest(name, message):
    with pytest.raises(ConfigError) as info:
        resolve_name(name, {"probe": 1, "encoder": 2}, what="trainer")
    assert message in str(info.value)
