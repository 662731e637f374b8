"""What a hash of the user's own code goes by: what is done, wherever in the user's folder it is written."""

import sys
from pathlib import Path

import pytest

from cuvee.encoders import HashingEncoder, build_encoder
from cuvee.errors import ConfigError
from cuvee.registry import hash_code

ALL = ("own_code_mine", "own_code_near", "own_code_far", "own_code_again", "numpy", "pyarrow", "math", "cuvee")
pytestmark = pytest.mark.trust(__name__, *ALL)

MINE = """from own_code_near import rate
import own_code_room.inner


class Loss:
    def prepare(self, rows):
        return rate(rows) + own_code_room.inner.offset()
"""
FILES = {
    "own_code_mine.py": MINE,
    "own_code_near.py": "def rate(rows):\n    return 2\n",
    "own_code_far.py": "X = 1\n",
    "own_code_again.py": "from own_code_mine import Loss\n",
    "own_code_room/__init__.py": "",
    "own_code_room/inner.py": "from . import depth\nfrom .width import wide\n\n\ndef offset():\n    return depth.Y\n",
    "own_code_room/depth.py": "Y = 1\n",
    "own_code_room/width.py": "from math import pi as wide\n",
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_code_")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "name",
    [
        "own_code_mine.py", "own_code_near.py", "own_code_room/__init__.py", "own_code_room/inner.py",
        "own_code_room/depth.py", "own_code_room/width.py",
    ],
)  # fmt: skip
def test_a_change_of_what_is_done_is_seen_in_the_module_and_in_all_that_it_imports(folder, name):
    before = hash_code("own_code_mine:Loss")
    again = hash_code("own_code_again:Loss")  # named elsewhere, defined here
    (folder / name).write_text(FILES[name] + "\nZ = 1\n", encoding="utf-8")
    assert hash_code("own_code_mine:Loss") != before and hash_code("own_code_again:Loss") != again


def test_comments_layout_and_other_modules_do_not_count(folder):
    before = hash_code("own_code_mine:Loss")
    spaced = FILES["own_code_near.py"].replace("return 2", "# twice as fast\n\n    return (2)")
    (folder / "own_code_near.py").write_text(spaced, encoding="utf-8")
    (folder / "own_code_far.py").write_text("X = 2\n", encoding="utf-8")
    assert hash_code("own_code_mine:Loss") == before
    assert len({before, hash_code("own_code_far:X"), hash_code("own_code_again:Loss")}) == 3


def test_installed_and_compiled_code_counts_with_its_version_and_cuvee_with_neither():
    assert hash_code("numpy:array") == hash_code("numpy:zeros") != hash_code("pyarrow:array")
    assert hash_code("math:sqrt") == hash_code("math:sqrt")
    assert hash_code("cuvee.probe:fit_probe") == hash_code("cuvee.corpus:Corpus")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        hash_code("math:nothing")


class Mine(HashingEncoder):
    """An encoder of the user's own."""


def test_an_encoder_of_ones_own_has_a_hash_of_its_code_too():
    bare, found = Mine(), build_encoder("test_own_code:Mine")
    assert found.hash == build_encoder("test_own_code:Mine").hash != bare.hash
    assert (found.name, found.dim) == (bare.name, bare.dim)
    assert (found.encode(["a fox", "a hen"]) == bare.encode(["a fox", "a hen"])).all()
