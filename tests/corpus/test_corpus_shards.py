"""A folder of Parquet shards is one corpus."""

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from cuvee.corpus import load_corpus
from cuvee.errors import InputError


def write(path, **columns):
    pa_parquet.write_table(pa.table(columns), path)


def test_shards_are_read_in_the_order_of_their_names(tmp_path):
    write(tmp_path / "part-2.parquet", label=["b"], text=["third"])
    write(tmp_path / "part-1.parquet", text=["first", "second"], label=["a", "b"])
    (tmp_path / "README.md").write_text("a card")
    corpus = load_corpus(tmp_path)
    assert corpus.texts == ["first", "second", "third"] and corpus.targets == ["a", "b", "b"]
    whole = tmp_path / "whole.parquet"
    write(whole, text=corpus.texts, label=corpus.targets)
    assert load_corpus(whole).fingerprint == corpus.fingerprint


def test_shards_that_do_not_fit_together_are_named(tmp_path):
    write(tmp_path / "1.parquet", text=["first"], label=["a"])
    write(tmp_path / "2.parquet", text=["second"], kind=["a"])
    with pytest.raises(InputError, match=r"2.parquet: column 'kind' is not in all shards"):
        load_corpus(tmp_path)
    write(tmp_path / "2.parquet", text=["second"], label=[[1]])
    with pytest.raises(InputError, match="its shards have different types"):
        load_corpus(tmp_path)
    (tmp_path / "2.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"2.parquet: the file is empty"):
        load_corpus(tmp_path)
