"""Folders of BEIR: corpus.jsonl, queries.jsonl and qrels."""

import gzip
import json

import pytest

from cuvee.corpus import load_corpus
from cuvee.errors import InputError
from cuvee.study.running import load_passages

PASSAGES = [("d1", "Oil", "falls again"), ("d2", "", "The cup is won"), ("d3", "Salt", "and bread")]
QUERIES = [("q1", "what falls"), ("q2", "who won")]
TEST = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td2\t1\n"


@pytest.fixture
def folder(tmp_path):
    found = [{"_id": key, "title": title, "text": text, "metadata": {}} for key, title, text in PASSAGES]
    (tmp_path / "corpus.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in found))
    lines = "".join(f"{json.dumps({'_id': key, 'text': text})}\n" for key, text in QUERIES)
    (tmp_path / "queries.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text(TEST)
    return tmp_path


def test_a_split_has_its_relevant_passages_and_the_corpus_all(folder):
    corpus = load_corpus(folder)
    assert corpus.task == "retrieval" and corpus.fingerprint == load_corpus(folder / "test").fingerprint
    assert list(zip(corpus.texts, corpus.targets, strict=True)) == [
        ("what falls", "Oil falls again"), ("who won", "The cup is won"),
    ]  # fmt: skip
    assert load_passages(folder / "corpus") == ("Oil falls again", "The cup is won", "Salt and bread")
    (folder / "qrels" / "train.tsv").write_text("q2\td3\t1\n")  # no header
    with pytest.raises(InputError, match=r"has the splits test, train; give one of them, such as .*/train"):
        load_corpus(folder)
    assert load_corpus(folder / "train").targets == ["Salt and bread"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("qrels/test.tsv", "q1\td9\t1\n", r"test.tsv, line 1: 'd9' is no _id of .*corpus.jsonl"),
        ("qrels/test.tsv", TEST + "q9\td1\t1\n", r"test.tsv, line 5: 'q9' is no _id of .*queries.jsonl.gz"),
        ("qrels/test.tsv", TEST + "q1 d1 1\n", r"test.tsv, line 5: needs query-id, corpus-id and a whole score"),
        ("qrels/test.tsv", TEST + "q1\td1\tyes\n", r"test.tsv, line 5: needs query-id, corpus-id and a whole score"),
        ("qrels/test.tsv", "q1\td1\t0\n", r"test.tsv: no line has a score above 0"),
        ("corpus.jsonl", '{"id": "d1", "text": "x"}\n', r"corpus.jsonl: has no column '_id'"),
        ("corpus.jsonl", '{"_id": "d1", "tex\n', r"corpus.jsonl"),
    ],
)
def test_what_is_malformed_is_one_line(folder, name, content, why):
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=why):
        load_corpus(folder)


def test_a_folder_without_judgements_is_one_line(folder):
    (folder / "qrels" / "test.tsv").unlink()
    with pytest.raises(InputError, match=r"qrels: no .tsv here; it says which passages are relevant"):
        load_corpus(folder)
    with pytest.raises(InputError, match="no such file or split"):
        (folder / "qrels" / "test.tsv").write_text(TEST)
        load_corpus(folder / "dev")
