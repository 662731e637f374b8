import sys
from numbers import Number

import pytest

from cuvee.errors import ConfigError
from cuvee.generate.dials import Dial
from cuvee.registry import Kind, hash_code, list_trusted, resolve_name, trust_modules

NUMBER = Kind(name="thing", is_a=Number)
DIAL = Kind(name="dial", makes=Dial)
TRAINER = Kind(name="trainer", takes=("training", "more"))


@pytest.mark.trust("math")
def test_resolves_table_entry_and_module_path():
    assert resolve_name("a", {"a": 1}, NUMBER) == 1
    assert resolve_name("math:pi", {"a": 1.0}, NUMBER) == pytest.approx(3.14159, abs=1e-5)


@pytest.mark.trust("no_such_module", "math")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("prob", "unknown thing 'prob'; did you mean 'probe'?"),
        ("zzz", "valid: probe, encoder"),
        ("no_such_module:X", "cannot be loaded: No module named 'no_such_module'; is its folder on PYTHONPATH?"),
        ("math:nope", "cannot be loaded"),
        (":X", "thing ':X': '' is no name of a module"),
        ("os path\n:X", "'os path\\n' is no name of a module"),
    ],
)
def test_unknown_names_are_told_the_nearest(name, message):
    with pytest.raises(ConfigError) as info:
        resolve_name(name, {"probe": 1, "encoder": 2}, NUMBER)
    assert message in str(info.value)


OWN = """
import functools, os, subprocess
from subprocess import run, Popen
from typing import TYPE_CHECKING
from cuvee.generate.dials import Dial, SamplingDial

open("IMPORTED", "w").close()

class Mine(SamplingDial): pass
def make(*, levels) -> Dial: return Mine(levels=levels)
def made(*, levels) -> Mine: return Mine(levels=levels)
def bare(*, levels): return Mine(levels=levels)
def anything(*parts, **settings): open("CALLED", "w").close()
def train(training, more=None): pass
number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's own, and one in a package, which leave a file behind when they are imported."""
    (tmp_path / "own_room").mkdir()
    for file in ("own_kinds.py", "own_room/__init__.py", "own_room/inner.py", "own_kinds_more.py"):
        (tmp_path / file).write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "name", ["own_kinds:Mine", "own_room.inner:Mine", "own_room:Mine", "subprocess:run", "own_kinds_more:Mine"]
)
def test_a_module_is_imported_only_where_it_or_what_it_lies_in_is_trusted(own, name):
    module = name.partition(":")[0]
    for trusted in ((), ("own_room.other", "own", "own_kinds.more")):
        with trust_modules(*trusted), pytest.raises(ConfigError) as info:
            resolve_name(name, {}, DIAL)
        assert f"dial '{name}' is code of a module that is not trusted" in str(info.value)
        assert f"--trust {module.partition('.')[0]}," in str(info.value) and "\n" not in str(info.value)
        with pytest.raises(ConfigError, match="not trusted"):
            hash_code(name)
    assert not (own / "IMPORTED").exists()
    with trust_modules("own_room", "own_kinds"):
        if name.startswith(("own_room", "own_kinds:")):
            assert resolve_name(name, {}, DIAL).__name__ == "Mine" and (own / "IMPORTED").exists()


@pytest.mark.trust("own_kinds", "os", "sys", "shutil")
@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("own_kinds:run", DIAL, "dial 'own_kinds:run' is of module 'subprocess', and that is code of a module that is"),
        ("own_kinds:Popen", DIAL, "not trusted.*--trust subprocess"),
        ("own_kinds:subprocess", DIAL, "it must be a class with the methods of .*Dial, or a function annotated"),
        ("own_kinds:bare", DIAL, "it must be a class with the methods"),
        ("own_kinds:anything", DIAL, "it must be a class with the methods"),
        ("own_kinds:anything", TRAINER, r"it must be a function of \(training, more\)"),
        ("own_kinds:Mine", TRAINER, "it must be a function"),
        ("own_kinds:number", TRAINER, "is 3; it must be a function"),
        ("os:abort", DIAL, "is of module 'posix'"),
        ("sys:exit", TRAINER, "it must be a function"),
        ("shutil:rmtree", DIAL, "it must be a class"),
        ("shutil:rmtree", NUMBER, "it must be a numbers.Number"),
    ],
)
def test_what_is_of_another_kind_or_from_elsewhere_is_refused_before_it_is_called(own, name, kind, message):
    with pytest.raises(ConfigError, match=message):
        resolve_name(name, {}, kind)
    assert not (own / "CALLED").exists()


@pytest.mark.trust("own_kinds")
@pytest.mark.usefixtures("own")
def test_classes_annotated_functions_and_functions_of_the_right_arguments_are_of_the_kind():
    assert resolve_name("own_kinds:Mine", {}, DIAL)(levels=[1]).levels
    assert resolve_name("own_kinds:make", {}, DIAL) and resolve_name("own_kinds:made", {}, DIAL)
    assert resolve_name("own_kinds:train", {}, TRAINER)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("trust: [own_kinds]\n", None),
        ("", "not trusted"),
        ("trust: own_kinds\n", "holds one key, a list of modules"),
        ("trsut: [own_kinds]\n", "holds one key, a list of modules"),
        ("trust: ['own_kinds:Mine']\n", "config.yaml: trust: 'own_kinds:Mine' is no name of a module"),
        ("trust: [", "config.yaml, line 1: not valid YAML"),
    ],
)
def test_the_users_own_file_trusts_modules(own, monkeypatch, content, message):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(own))
    (own / "cuvee").mkdir()
    (own / "cuvee" / "config.yaml").write_text(content, encoding="utf-8")
    if message is None:
        assert resolve_name("own_kinds:Mine", {}, DIAL) and list_trusted() == ("own_kinds",)
    else:
        with pytest.raises(ConfigError, match=message):
            resolve_name("own_kinds:Mine", {}, DIAL)
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(own))
    (own / "cuvee").rename(own / ".config")
    with pytest.raises(ConfigError, match="not trusted"):
        resolve_name("own_kinds:Mine", {}, DIAL)


@pytest.mark.parametrize("name", ["", "a:b", "a b", ".", "a.", "../a"])
def test_only_a_name_of_a_module_can_be_trusted(name):
    with pytest.raises(ConfigError, match="is no name of a module"), trust_modules(name):
        pass
