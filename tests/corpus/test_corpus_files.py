import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pyarrow.parquet as pq
import pytest

from cuvee.corpus import Corpus, load_corpus, read_columns, write_corpus
from cuvee.errors import InputError

ROWS = [
    {"text": "good, very", "label": "pos"},
    {"text": 'a "bad" one', "label": "neg"},
    {"text": "ünïcode", "label": "1"},
]


def write(path, kind: str):
    if kind == "csv":
        body = "text,label\n" + "".join('"{}",{}\n'.format(r["text"].replace('"', '""'), r["label"]) for r in ROWS)
    elif kind == "tsv":
        body = "text\tlabel\n" + "".join('"{}"\t{}\n'.format(r["text"].replace('"', '""'), r["label"]) for r in ROWS)
    else:
        body = "".join(json.dumps(r) + "\n" for r in ROWS)
    path.write_bytes(gzip.compress(body.encode()) if path.suffix == ".gz" else body.encode())
    return path


@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.jsonl", "d.csv.gz", "d.tsv.gz", "d.jsonl.gz", "d.parquet"])
def test_every_kind_of_file_gives_the_same_corpus(tmp_path, name):
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        write(path, name.split(".")[1])
    corpus = load_corpus(path)
    assert corpus.texts == [r["text"] for r in ROWS]
    assert corpus.targets == ["pos", "neg", "1"]
    assert list(read_columns(path)) == ["text", "label"]


def test_saved_dataset_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "ds"))
    assert load_corpus(tmp_path / "ds").texts == [r["text"] for r in ROWS]


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl", "out.csv"])
def test_written_corpora_come_back_whole(tmp_path, name):
    corpus = Corpus.from_rows(
        [{"text": "x", "target": "a", "dial": "topics", "level": "2", "block": 3, "seed_ids": ["s1"]}],
        origin="synthetic",
    )
    write_corpus(corpus, tmp_path / name)
    back = load_corpus(tmp_path / name)
    assert back.table.to_pylist() == corpus.table.to_pylist()
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_written_parquet_opens_as_a_dataset(tmp_path):
    datasets = pytest.importorskip("datasets")
    write_corpus(Corpus.from_rows([{"text": "x", "target": "a"}]), tmp_path / "b.parquet")
    loaded = datasets.load_dataset("parquet", data_files=str(tmp_path / "b.parquet"), cache_dir=str(tmp_path / "c"))
    assert loaded["train"][0]["text"] == "x"


def refuse(path, **columns) -> str:
    with pytest.raises(InputError) as info:
        load_corpus(path, **columns)
    message = str(info.value)
    assert "\n" not in message
    return message


def test_bad_files_are_told_the_place_and_the_remedy(tmp_path):
    assert "no such file" in refuse(tmp_path / "none.csv")
    (tmp_path / "empty.csv").touch()
    assert "empty" in refuse(tmp_path / "empty.csv")
    (tmp_path / "header.csv").write_text("text,label\n")
    assert "no rows" in refuse(tmp_path / "header.csv")
    (tmp_path / "odd.xlsx").write_text("x")
    assert "unknown kind of file '.xlsx'" in refuse(tmp_path / "odd.xlsx")
    (tmp_path / "broken.jsonl").write_text('{"text": "a", "label": "x"}\n\n{"text": "b", \n')
    assert "broken.jsonl, line 3" in refuse(tmp_path / "broken.jsonl")
    (tmp_path / "list.jsonl").write_text("[1]\n")
    assert "list.jsonl, row 1: a row must be a JSON object" in refuse(tmp_path / "list.jsonl")
    (tmp_path / "latin.csv").write_bytes(b"text,label\nok,a\ncaf\xe9,b\n")
    assert "latin.csv, line 3: not UTF-8" in refuse(tmp_path / "latin.csv")
    (tmp_path / "fake.parquet").write_text("not parquet")
    assert "cannot be read" in refuse(tmp_path / "fake.parquet")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}')[:-9])
    assert "cannot be read" in refuse(tmp_path / "cut.jsonl.gz")
    (tmp_path / "ragged.csv").write_text("text,label\na,b,c\n")
    assert "cannot be read" in refuse(tmp_path / "ragged.csv")
    (tmp_path / "folder").mkdir()
    assert "no saved Hugging Face dataset" in refuse(tmp_path / "folder")


def test_missing_columns_are_told_the_nearest(tmp_path):
    path = write(tmp_path / "d.jsonl", "jsonl")
    assert "did you mean 'label'?" in refuse(path, text="text", label="lable")
    (tmp_path / "q.jsonl").write_text('{"a": "x", "b": "y"}\n')
    for labelled in (True, False):
        said = refuse(tmp_path / "q.jsonl", labelled=labelled)
        assert "which column is the text? It has a, b; say --text" in said
    (tmp_path / "hole.jsonl").write_text('{"text": "x", "label": "y"}\n{"text": "  ", "label": "y"}\n')
    assert "row 2: column 'text' is empty" in refuse(tmp_path / "hole.jsonl")
    (tmp_path / "nolabel.jsonl").write_text('{"text": "x", "label": null}\n')
    assert "column 'label' is empty" in refuse(tmp_path / "nolabel.jsonl")


# --- a folder of parquet shards is one corpus ---
def write_shard(path, **columns):
    pa_parquet.write_table(pa.table(columns), path)


def test_shards_are_read_in_the_order_of_their_names(tmp_path):
    write_shard(tmp_path / "part-2.parquet", label=["b"], text=["third"])
    write_shard(tmp_path / "part-1.parquet", text=["first", "second"], label=["a", "b"])
    (tmp_path / "README.md").write_text("a card")
    corpus = load_corpus(tmp_path)
    assert corpus.texts == ["first", "second", "third"] and corpus.targets == ["a", "b", "b"]
    whole = tmp_path / "whole.parquet"
    write_shard(whole, text=corpus.texts, label=corpus.targets)
    assert load_corpus(whole).fingerprint == corpus.fingerprint


def test_shards_that_do_not_fit_together_are_named(tmp_path):
    write_shard(tmp_path / "1.parquet", text=["first"], label=["a"])
    write_shard(tmp_path / "2.parquet", text=["second"], kind=["a"])
    with pytest.raises(InputError, match=r"2.parquet: column 'kind' is not in all shards"):
        load_corpus(tmp_path)
    write_shard(tmp_path / "2.parquet", text=["second"], label=[[1]])
    with pytest.raises(InputError, match="its shards have different types"):
        load_corpus(tmp_path)
    (tmp_path / "2.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"2.parquet: the file is empty"):
        load_corpus(tmp_path)
