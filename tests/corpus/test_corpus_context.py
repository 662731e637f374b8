"""The column ``context``: optional, part of the fingerprint where used, absent from older files."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuvee.corpus import Corpus, load_corpus, write_corpus
from cuvee.corpus.table import SCHEMA
from cuvee.errors import InputError

ROWS = [{"text": f"text {i}", "target": "ab"[i % 2]} for i in range(6)]
QUESTIONS = [
    {"question": "who won", "answer": "Ann", "passage": "Ann won."},
    {"question": "who lost", "answer": "Bob", "passage": "  "},
    {"question": "who drew", "answer": "Cid", "passage": None},
]
COLUMNS = {"text": "question", "label": "answer", "context": "passage", "task": "generation"}


def test_fingerprints_of_corpora_without_contexts_are_what_they_were():
    assert Corpus.from_rows(ROWS).fingerprint == "d54bd04bda8f0386bbf3c6f061965ef20d39fb9fce0ba51b899218267f0f114e"
    retrieval = Corpus.from_rows([{"text": "q", "target": "p"}], task="retrieval")
    assert retrieval.fingerprint == "ee87268799d7cc668eaf91a21ffa3d9a90dd44934a2aebb6c00743ba803ffb82"


def test_a_context_changes_the_fingerprint_wherever_it_stands():
    def with_contexts(*contexts):
        rows = zip(ROWS, contexts, strict=False)
        return Corpus.from_rows([{**row, "context": context} for row, context in rows]).fingerprint

    found = [
        with_contexts(None, None), with_contexts("c", None), with_contexts(None, "c"), with_contexts("c", "c"),
        with_contexts("", None), with_contexts("-", None), with_contexts("d", None),
    ]  # fmt: skip
    assert len(set(found)) == len(found)
    assert with_contexts(None, None) == Corpus.from_rows(ROWS[:2]).fingerprint


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "pandas", "dataset"])
def test_contexts_are_read_from_a_named_column_and_blank_ones_are_none(tmp_path, kind):
    if kind == "pandas":
        corpus = Corpus.from_pandas(pd.DataFrame(QUESTIONS), **COLUMNS)
    elif kind == "dataset":
        datasets = pytest.importorskip("datasets")
        corpus = load_corpus(datasets.Dataset.from_list(QUESTIONS), **COLUMNS)
    else:
        path = tmp_path / f"q.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(QUESTIONS), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
        corpus = load_corpus(path, **COLUMNS)
    assert corpus.contexts == ["Ann won.", None, None]
    assert (corpus.texts[0], corpus.targets[0], corpus.task) == ("who won", "Ann", "generation")


def test_contexts_stay_with_their_rows(tmp_path):
    corpus = Corpus.from_rows([{**row, "context": f"c{i}"} for i, row in enumerate(ROWS)])
    assert corpus.take([3, 1]).contexts == ["c3", "c1"]
    assert corpus.joined(Corpus.from_rows(ROWS[:1])).contexts == [*corpus.contexts, None]
    for name in ("c.parquet", "c.jsonl"):
        write_corpus(corpus, tmp_path / name)
        assert load_corpus(tmp_path / name).table.equals(corpus.table)
        assert load_corpus(tmp_path / name, context="context").table.equals(corpus.table)


def test_wrong_contexts_are_told():
    with pytest.raises(InputError, match="row 1: context must be a string or None, got 3"):
        Corpus.from_rows([ROWS[0], {**ROWS[1], "context": 3}])
    with pytest.raises(InputError, match="no column 'pasage' for the context; did you mean 'passage'"):
        Corpus.from_pandas(pd.DataFrame(QUESTIONS), **{**COLUMNS, "context": "pasage"})
    with pytest.raises(ValueError, match="has schema"):
        Corpus(Corpus.from_rows(ROWS).table.drop_columns(["level"]))
    assert SCHEMA.names[-2:] == ["context", "weight"]
