"""Every example of docs/formats.md is read, and holds the same two rows."""

import re
from pathlib import Path

import pytest

from cuvee.corpus import load_corpus

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r'^```text title="(.*?)"\n(.*?)^```', PAGE, flags=re.DOTALL | re.MULTILINE))
ROWS = {"late goal wins the cup": "sport", "chip maker, again, cuts jobs": "tech"}


@pytest.mark.parametrize("name", FILES)
def test_the_example_of_a_file(tmp_path, name):
    (tmp_path / name.split("/")[0]).write_text(FILES[name], encoding="utf-8")
    corpus = load_corpus(tmp_path / name)
    assert dict(zip(corpus.texts, corpus.targets, strict=True)) == ROWS


def test_the_example_of_datasets(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    exec(compile(code, "formats.md", "exec"), {})
    for name in ("rows.parquet", "saved", "both/train"):
        corpus = load_corpus(name)
        assert dict(zip(corpus.texts, corpus.targets, strict=True)) == ROWS
